/** Where this machine can be listened at, and what it says when it cannot. */
import os from 'node:os'
import { nodeKey } from '../model/node.js'
import type { Address } from '../world/world.js'

/** All addresses of both families where none is given. */
export function everywhere(host: string | undefined, port: number): Address {
  const hasIpv6 = Object.values(os.networkInterfaces()).some((addresses) =>
    addresses?.some(({ family }) => family === 'IPv6'),
  )
  return { host: host ?? (hasIpv6 ? '::' : '0.0.0.0'), port }
}

const LISTEN_REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'is taken by another program: stop it, or choose another one',
  EACCES: 'may not be used by this user',
  EADDRNOTAVAIL: 'cannot be bound: this machine does not have the address',
}

interface ListenError extends NodeJS.ErrnoException {
  readonly address?: string
  readonly port?: number
}

/** What went wrong with listening at `what`, for people. */
export async function named<T>(what: string, started: Promise<T>): Promise<T> {
  try {
    return await started
  } catch (error) {
    const { code = '', message, path, address, port } = error as ListenError
    const isForeign = code === 'EADDRNOTAVAIL' && address !== undefined && port !== undefined
    const where = isForeign ? nodeKey({ host: address, port }) : path ? `socket ${path}` : what
    throw new Error(`${where} ${LISTEN_REASONS[code] ?? `cannot be used: ${message}`}`, {
      cause: error,
    })
  }
}
