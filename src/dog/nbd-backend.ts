/**
 * Where a device's bytes come from, as text: the kernel keeps it with the device (sysfs `backend`), so that whoever looks
 * later, or dials again, needs no file of ours. The form is that of NBD URIs, with several servers where there are several.
 */
import type { Address } from '../world/world.js'
import { misused } from './failure.js'
import { addressText } from './nbd-dial.js'

export const NBD_PORT = 10809
/** Sysfs shows a page at most. */
const BACKEND_BYTES_MAX = 4000
const SCHEME = 'nbd://'

export interface Backend {
  /** In the order they are tried. */
  readonly servers: readonly Address[]
  readonly exportName: string
}

export function backendText({ servers, exportName }: Backend): string {
  const text = `${SCHEME}${servers.map(addressText).join(',')}/${encodeURIComponent(exportName)}`
  if (Buffer.byteLength(text) > BACKEND_BYTES_MAX) throw misused('Too many servers')
  return text
}

/** Undefined: somebody else's. */
export function parseBackend(text: string): Backend | undefined {
  const slash = text.lastIndexOf('/')
  if (!text.startsWith(SCHEME) || slash < SCHEME.length) return undefined
  const servers = text.slice(SCHEME.length, slash).split(',').map(parseServer)
  const exportName = decoded(text.slice(slash + 1))
  if (exportName === undefined) return undefined
  const known = servers.filter((one) => one !== undefined)
  return known.length === servers.length ? { servers: known, exportName } : undefined
}

/** `HOST`, `HOST:PORT`, `[V6]:PORT`, `unix:PATH`. */
export function parseServer(text: string): Address | undefined {
  if (text.startsWith('unix:/')) return { path: text.slice('unix:'.length) }
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]/\s]+))(?::(\d{1,5}))?$/i.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3] ?? NBD_PORT)
  return host === undefined || port < 1 || port > 65535 ? undefined : { host, port }
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch (error) {
    if (error instanceof URIError) return undefined
    throw error
  }
}
