/** The client's side of TLS, over `node:tls`; the server's is in tls.ts. */
import { readFileSync } from 'node:fs'
import tls from 'node:tls'
import type { TlsClient, TlsKeys } from '../tls-client.js'
import type { Connection } from '../world.js'
import { SocketConnection } from './connection.js'
import { PSK_CIPHERS, readKeys } from './tls.js'

const HANDSHAKE_MS = 10_000

export function tlsClient(keys: TlsKeys): TlsClient {
  return { secure: (connection, host) => secure(connection, keys, host) }
}

async function secure(
  connection: Connection,
  keys: TlsKeys,
  host: string | undefined,
): Promise<Connection> {
  let options: tls.ConnectionOptions
  try {
    options = optionsOf(keys, keys.hostname ?? host)
  } catch (error) {
    connection.destroy()
    throw error
  }
  return await new Promise((resolve, reject) => {
    const socket = tls.connect({
      ...options,
      socket: (connection as SocketConnection).surrender(),
    })
    const timer = setTimeout(
      () => fail(new Error(`no TLS handshake within ${HANDSHAKE_MS / 1000} seconds`)),
      HANDSHAKE_MS,
    )
    const fail = (error: Error): void => {
      clearTimeout(timer)
      socket.destroy()
      reject(error)
    }
    const closed = (): void => fail(new Error('the server ended the TLS handshake'))
    socket.once('error', fail)
    socket.once('close', closed)
    socket.once('secureConnect', () => {
      clearTimeout(timer)
      // Its own listeners first: at no moment is an error without one.
      const secured = new SocketConnection(socket)
      socket.off('error', fail)
      socket.off('close', closed)
      resolve(secured)
    })
  })
}

/** Throws an Error for people: what is missing, and where. */
function optionsOf(keys: TlsKeys, host: string | undefined): tls.ConnectionOptions {
  const { certificates, preSharedKeys, user } = keys
  if (preSharedKeys !== undefined) return sharedKey(preSharedKeys, user)
  if (certificates === undefined) throw new Error('TLS needs certificates or a pre-shared key')
  if (host === undefined) {
    throw new Error('the server has no host name its certificate could be compared with')
  }
  const file = (name: string): Buffer => readFileSync(`${certificates}/${name}`)
  const own = (name: string): Buffer | undefined => {
    try {
      return file(name)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
  }
  const [cert, key] = [own('client-cert.pem'), own('client-key.pem')]
  if ((cert === undefined) !== (key === undefined)) {
    const missing = cert === undefined ? 'client-cert.pem' : 'client-key.pem'
    throw new Error(`${certificates} has no ${missing}`)
  }
  return {
    ...{ ca: file('ca-cert.pem'), host, minVersion: 'TLSv1.2' },
    ...(cert !== undefined && key !== undefined && { cert, key }),
  }
}

/** The server proves that it has the key by finishing the handshake; a certificate would prove something else. */
function sharedKey(path: string, user: string | undefined): tls.ConnectionOptions {
  const keys = readKeys(path)
  const [only, ...more] = keys.keys()
  if (user === undefined && more.length > 0) {
    throw new Error(`${path} has the keys of several users: say which`)
  }
  const identity = user ?? only!
  const psk = keys.get(identity)
  if (psk === undefined) throw new Error(`${path} has no key of '${identity}'`)
  return {
    ...{ ciphers: PSK_CIPHERS, minVersion: 'TLSv1.2' },
    pskCallback: () => ({ psk, identity }),
    checkServerIdentity: (_host, certificate) =>
      Object.keys(certificate ?? {}).length === 0
        ? undefined
        : new Error('the server shows a certificate instead of proving that it has the key'),
  }
}
