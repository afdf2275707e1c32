/** Opens an export as often as there shall be connections, at the first server that lets us. */

import { TransmissionFlag } from '../wire/nbd/constants.js'
import type { NbdKernel } from '../world/nbd-kernel.js'
import type { Address } from '../world/world.js'
import type { DogWorld } from './command.js'
import { Exit, Failure, failed } from './failure.js'
import type { Backend } from './nbd-backend.js'
import {
  addressText,
  DialFailed,
  type DialTrouble,
  dial,
  type OpenExport,
  silenceMs,
} from './nbd-dial.js'

const REMEDIES: Partial<Record<DialTrouble, string>> = {
  tls: 'Say which keys: --tls-certificates DIRECTORY or --tls-psk FILE',
  keys: 'What counts: --tls-certificates, --tls-psk, --tls-user, --tls-hostname',
  unreachable: 'Does the sheep there run with --nbd? --server HOST:PORT names another one',
}

/** What is to be attached, and how. */
export interface Wish extends Backend {
  /** Undefined: any free device. */
  readonly index: number | undefined
  readonly connections: number
  readonly readOnly: boolean
  /** 0: never. */
  readonly timeoutSeconds: number
  /** How long requests wait for a new connection when all are dead. */
  readonly deadSeconds: number
}

export interface Opened {
  readonly server: Address
  /** As many as were wished for. */
  readonly open: readonly OpenExport[]
}

/** One server for all connections: only one node at a time has a disk open. Throws a Failure with each server's reason. */
export async function openAll(world: DogWorld, wish: Wish): Promise<Opened> {
  const lines: string[] = []
  let status: number = Exit.failed
  for (const server of wish.servers) {
    const open: OpenExport[] = []
    try {
      while (open.length < wish.connections) {
        open.push(await dial(world, server, wish))
        check(open, wish)
      }
      return { server, open }
    } catch (error) {
      for (const { connection } of open) connection.destroy()
      if (!(error instanceof DialFailed)) throw error
      lines.push(...explain(wish.exportName, server, error))
      status = error.trouble === 'missing' ? Exit.missing : Exit.failed
    }
  }
  throw new Failure(status, lines)
}

function check(open: readonly OpenExport[], { exportName, connections }: Wish): void {
  const { sizeBytes, flags } = open[0]!
  if (sizeBytes === 0) throw failed(`${exportName} has no bytes: there is nothing to attach`)
  if (connections > 1 && (flags & TransmissionFlag.CAN_MULTI_CONN) === 0) {
    throw failed(`The server of ${exportName} does not take several connections: use -C 1`)
  }
  if (open.some((one) => one.sizeBytes !== sizeBytes)) {
    throw failed(`The size of ${exportName} has just changed: attach it again`)
  }
}

function explain(exportName: string, server: Address, error: DialFailed): string[] {
  const line = `Failed to open ${exportName} at ${addressText(server)}: ${error.message}`
  const remedy = REMEDIES[error.trouble]
  return remedy === undefined ? [line] : [line, remedy]
}

/** Transmission flags for the kernel: the server's, and our own wish not to write. */
export function flagsOf({ flags }: OpenExport, { readOnly }: Wish): number {
  return readOnly ? flags | TransmissionFlag.READ_ONLY : flags
}

/** Of the connections, for the kernel. Who carries bytes himself notices himself that a server is gone. */
export function descriptorsOf(kernel: NbdKernel, { server, open }: Opened): number[] {
  return open.map(({ connection, relayed }) =>
    kernel.descriptor(connection, relayed === undefined ? silenceMs(server) : 0),
  )
}
