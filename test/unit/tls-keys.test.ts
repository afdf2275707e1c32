/** Pre-shared keys over real sockets: every version of TLS that is served, and nobody without the key. */
import { writeFile } from 'node:fs/promises'
import net from 'node:net'
import tls from 'node:tls'
import test, { type ExecutionContext } from 'ava'
import { NodeNetwork } from '../../src/world/node/network.js'
import { tlsServer } from '../../src/world/node/tls.js'
import type { Address } from '../../src/world/world.js'
import { scratch } from '../real/support/owner.js'

const KEY = Buffer.alloc(32, 0x5a)

/** A server whose connections begin with TLS; says `hello` and its client's name. */
async function serve(t: ExecutionContext): Promise<number> {
  const directory = await scratch(t)
  await writeFile(`${directory}/keys`, `alice:${KEY.toString('hex')}\n`)
  const server = tlsServer({
    ...{ certificates: undefined, preSharedKeys: `${directory}/keys`, verifyPeer: false },
  })
  const listener = await new NodeNetwork().listen({ host: '127.0.0.1', port: 0 }, (connection) => {
    server.secure(connection).then(
      (secured) => {
        secured.on({ data: () => undefined, drain: () => undefined, close: () => undefined })
        secured.write(Buffer.from(`hello ${secured.peerNames.join()}`))
        secured.end()
      },
      () => undefined,
    )
  })
  t.teardown(() => listener.close())
  return (listener.address as Extract<Address, { port: number }>).port
}

function greeting(port: number, options: tls.ConnectionOptions): Promise<string> {
  return new Promise((resolve, reject) => {
    let heard = ''
    const socket = tls.connect({
      ...{ socket: net.connect(port, '127.0.0.1'), checkServerIdentity: () => undefined },
      ...{ pskCallback: () => ({ psk: KEY, identity: 'alice' }), ...options },
    })
    socket.on('data', (chunk: Buffer) => {
      heard += chunk.toString()
    })
    socket.on('error', reject)
    socket.on('end', () => {
      resolve(`${socket.getProtocol()} ${heard}`)
      socket.end()
    })
  })
}

test('clients of TLS 1.3 and of TLS 1.2 are let in by their key', async (t) => {
  const port = await serve(t)
  t.is(await greeting(port, { minVersion: 'TLSv1.3' }), 'TLSv1.3 hello alice')
  const ciphers = 'ECDHE-PSK-AES256-CBC-SHA'
  t.is(await greeting(port, { maxVersion: 'TLSv1.2', ciphers }), 'TLSv1.2 hello alice')
})

test('nobody comes in with another key, another name, or without encryption', async (t) => {
  const port = await serve(t)
  const psk = Buffer.alloc(32, 0x5b)
  await t.throwsAsync(greeting(port, { pskCallback: () => ({ psk, identity: 'alice' }) }))
  await t.throwsAsync(greeting(port, { pskCallback: () => ({ psk: KEY, identity: 'bob' }) }))
  // Neither encrypts; the last one does, and gives everything away to who gets the key later.
  for (const ciphers of [
    'ECDHE-PSK-NULL-SHA256:@SECLEVEL=0',
    'PSK-NULL-SHA256:@SECLEVEL=0',
    'PSK-AES128-GCM-SHA256',
  ]) {
    await t.throwsAsync(greeting(port, { maxVersion: 'TLSv1.2', ciphers }), undefined, ciphers)
  }
  await t.throwsAsync(greeting(port, { maxVersion: 'TLSv1.1' }))
})
