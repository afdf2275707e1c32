/**
 * TLS for servers whose protocol begins in the clear and is upgraded (STARTTLS), over `node:tls`: certificates as files
 * of a directory, pre-shared keys as lines of one, both named as QEMU, nbdkit and libnbd name theirs.
 */
import { readFileSync } from 'node:fs'
import tls from 'node:tls'
import type { Connection, SecureConnection, TlsServer } from '../world.js'
import { SocketConnection } from './connection.js'

export interface TlsFiles {
  /** Directory with `server-cert.pem`, `server-key.pem` and, to verify clients by, `ca-cert.pem`. */
  readonly certificates: string | undefined
  /** File with a line `NAME:HEX` for each client. */
  readonly preSharedKeys: string | undefined
  /** Clients have to show a certificate that `ca-cert.pem` vouches for. */
  readonly verifyPeer: boolean
}

const HANDSHAKE_MS = 10_000
/** Of TLS 1.3. A pre-shared key goes with SHA-256 only: a server that picks another suite looks for a certificate. */
const WITH_SHA256 = 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256'
/** Of TLS 1.2 those with forward secrecy only; of TLS 1.3 all have it. */
const PSK_SUITES = 'kECDHEPSK'
/** Suites of a client that has no use for a certificate. */
export const PSK_CIPHERS = `${WITH_SHA256}:${PSK_SUITES}:!eNULL`
/** Node's list forbids all of them, and what is forbidden cannot be added. */
const CIPHERS = `${WITH_SHA256}:${tls.DEFAULT_CIPHERS.replace(':!PSK', `:${PSK_SUITES}:!kPSK:!kDHEPSK:!kRSAPSK`)}`
const KEY = /^([^:#]+):([0-9a-f]{2,256})$/i

/** Throws an Error for people: what is missing or malformed, and where. */
export function tlsServer({ certificates, preSharedKeys, verifyPeer }: TlsFiles): TlsServer {
  if (certificates === undefined && preSharedKeys === undefined) {
    throw new Error('TLS needs certificates or pre-shared keys')
  }
  const keys = preSharedKeys === undefined ? undefined : readKeys(preSharedKeys)
  const options: tls.TlsOptions = {
    ...(certificates !== undefined && readCertificates(certificates, verifyPeer)),
    requestCert: verifyPeer,
    rejectUnauthorized: verifyPeer,
    handshakeTimeout: HANDSHAKE_MS,
    minVersion: 'TLSv1.2',
  }
  // Found out now, and not by the first client.
  tls.createSecureContext(options)
  return { secure: (connection) => secure(connection, options, keys) }
}

function secure(
  connection: Connection,
  options: tls.TlsOptions,
  keys: ReadonlyMap<string, Buffer> | undefined,
): Promise<SecureConnection> {
  return new Promise((resolve, reject) => {
    let identity: string | undefined
    const server = tls.createServer({
      ...options,
      ...(keys !== undefined && {
        ciphers: CIPHERS,
        pskCallback: (_socket: tls.TLSSocket, name: string) => {
          identity = name
          return keys.get(name) ?? null
        },
      }),
    })
    server.once('secureConnection', (socket) => {
      const names = identity === undefined ? namesOf(socket) : [identity]
      resolve(Object.assign(new SocketConnection(socket), { peerNames: names }))
    })
    server.once('tlsClientError', (error, socket) => {
      socket.destroy()
      reject(error)
    })
    server.emit('connection', (connection as SocketConnection).surrender())
  })
}

/** What the client's verified certificate says that it is. */
function namesOf(socket: tls.TLSSocket): string[] {
  if (!socket.authorized) return []
  const { subject, subjectaltname = '' } = socket.getPeerCertificate()
  const alternative = [...subjectaltname.matchAll(/(?:DNS|email|URI):([^,\s]+)/g)]
  const names = [subject.CN, ...alternative.map(([, name]) => name)].flat()
  return [...new Set(names.filter((name) => name !== undefined))]
}

function readCertificates(directory: string, verifyPeer: boolean): tls.TlsOptions {
  const file = (name: string): Buffer => {
    try {
      return readFileSync(`${directory}/${name}`)
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      throw new Error(`TLS certificates: ${reason}`, { cause: error })
    }
  }
  const own = { cert: file('server-cert.pem'), key: file('server-key.pem') }
  return verifyPeer ? { ...own, ca: file('ca-cert.pem') } : own
}

/** Throws an Error for people. */
export function readKeys(path: string): ReadonlyMap<string, Buffer> {
  const keys = new Map<string, Buffer>()
  for (const [index, line] of readFileSync(path, 'utf8').split('\n').entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue
    const [, name, key] = KEY.exec(line.trim()) ?? []
    if (name === undefined || key === undefined || key.length % 2 !== 0) {
      throw new Error(`${path}, line ${index + 1}: it is NAME:KEY, the key in hexadecimal digits`)
    }
    keys.set(name, Buffer.from(key, 'hex'))
  }
  if (keys.size === 0) throw new Error(`${path} has no keys`)
  return keys
}
