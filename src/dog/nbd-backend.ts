/**
 * Where a device's bytes come from, as text: the kernel keeps it with the device (sysfs `backend`), so that whoever looks
 * later, or dials again, needs no file of ours. The form is that of NBD URIs (doc/uri.md of the NBD project), with several
 * servers where there are several. Of keys it says where they are, which everybody may know.
 */
import type { TlsKeys } from '../world/tls-client.js'
import type { Address } from '../world/world.js'
import { misused } from './failure.js'
import { addressText } from './nbd-dial.js'

export const NBD_PORT = 10809
/** Sysfs shows a page at most. */
const BACKEND_BYTES_MAX = 4000
const SCHEME = 'nbd://'
const SECURE_SCHEME = 'nbds://'
/** Its parameters for keys, as libnbd names them. */
const PARAMETERS = [
  ['certificates', 'tls-certificates'],
  ['preSharedKeys', 'tls-psk-file'],
  ['hostname', 'tls-hostname'],
] as const satisfies readonly (readonly [keyof TlsKeys, string])[]

export interface Backend {
  /** In the order they are tried. */
  readonly servers: readonly Address[]
  readonly exportName: string
  /** Absent: in the clear. */
  readonly tls?: TlsKeys | undefined
}

export function backendText({ servers, exportName, tls }: Backend): string {
  const place = `${servers.map(addressText).join(',')}/${encodeURIComponent(exportName)}`
  const text = tls === undefined ? `${SCHEME}${place}` : secureText(place, tls)
  if (Buffer.byteLength(text) > BACKEND_BYTES_MAX) throw misused('Too many servers')
  return text
}

function secureText(place: string, tls: TlsKeys): string {
  const user = tls.user === undefined ? '' : `${encodeURIComponent(tls.user)}@`
  const given = PARAMETERS.flatMap(([key, name]) => {
    const value = tls[key]
    return value === undefined ? [] : [`${name}=${encodeURIComponent(value)}`]
  })
  return `${SECURE_SCHEME}${user}${place}?${given.join('&')}`
}

/** Undefined: somebody else's. */
export function parseBackend(text: string): Backend | undefined {
  const scheme = [SCHEME, SECURE_SCHEME].find((one) => text.startsWith(one))
  // Whatever is behind the last slash is encoded, so that it has none.
  const slash = text.lastIndexOf('/')
  if (scheme === undefined || slash < scheme.length) return undefined
  const [, user, places = ''] =
    /^(?:([^@/:,]+)@)?(.*)$/s.exec(text.slice(scheme.length, slash)) ?? []
  const servers = places.split(',').map(parseServer)
  const [name = '', query = ''] = text.slice(slash + 1).split('?')
  const exportName = decoded(name)
  if (exportName === undefined) return undefined
  const known = servers.filter((one) => one !== undefined)
  if (known.length !== servers.length) return undefined
  if (scheme === SCHEME) return user === undefined ? { servers: known, exportName } : undefined
  const tls = parseKeys(user, query)
  return tls && { servers: known, exportName, tls }
}

function parseKeys(user: string | undefined, query: string): TlsKeys | undefined {
  const found: { -readonly [Key in keyof TlsKeys]: TlsKeys[Key] } = {}
  if (user !== undefined) found.user = decoded(user)
  for (const word of query.split('&')) {
    const [, name, value = ''] = /^([a-z-]+)=(.*)$/s.exec(word) ?? []
    const parameter = PARAMETERS.find((one) => one[1] === name)
    if (parameter === undefined) return undefined
    found[parameter[0]] = decoded(value)
  }
  return Object.values(found).includes(undefined) ? undefined : found
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
