/** The NBD server on real loopback sockets: accepts, serves, counts and goes down in order. */
import test from 'ava'
import { silentLog } from '../../src/base/log.js'
import { startNbdServer } from '../../src/doors/nbd/server.js'
import { Command, Option } from '../../src/wire/nbd/constants.js'
import { NodeClock } from '../../src/world/node/clock.js'
import { NodeNetwork } from '../../src/world/node/network.js'
import { MemorySource, MemoryVolume } from './support/memory-volume.js'
import { ask, HELLO, option } from './support/nbd-rig.js'
import { replyTranscript } from './support/nbd-transcript.js'

const MIB = 1024 * 1024

async function serve() {
  const volume = new MemoryVolume('v', { sizeBytes: 64 * MIB })
  const network = new NodeNetwork()
  const server = await startNbdServer({
    world: { clock: new NodeClock(), network },
    log: silentLog,
    source: new MemorySource(volume),
    address: { host: '127.0.0.1', port: 0 },
  })
  const connect = async () => {
    const connection = await network.connect(server.address, 5000)
    let got = Buffer.alloc(0)
    let wake: () => void = () => undefined
    let closed = false
    connection.on({
      data: (chunk) => {
        got = Buffer.concat([got, chunk])
        wake()
      },
      close: () => {
        closed = true
        wake()
      },
      drain: () => undefined,
    })
    const until = async (ready: () => boolean): Promise<void> => {
      while (!ready()) {
        if (closed) throw new Error('closed early')
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
    }
    return {
      connection,
      receive: async (length: number): Promise<Buffer> => {
        await until(() => got.length >= length)
        const bytes = got.subarray(0, length)
        got = got.subarray(length)
        return bytes
      },
      closing: () => until(() => closed),
    }
  }
  const client = async () => {
    const made = await connect()
    made.connection.write(Buffer.concat([HELLO, option(Option.EXPORT_NAME, Buffer.from('v'))]))
    await made.receive(18 + 10)
    return made
  }
  return { server, volume, connect, client }
}

test('a megabyte goes out and comes back', async (t) => {
  const { server, client } = await serve()
  const { connection, receive, closing } = await client()
  const data = Buffer.alloc(MIB, 'sheep')
  connection.write(ask({ type: Command.WRITE, cookie: 1, offset: 12345, data }))
  t.deepEqual(replyTranscript(await receive(16)), ['1 simple error=0'])
  connection.write(ask({ type: Command.READ, cookie: 2, offset: 12345, length: MIB }))
  t.true((await receive(16 + MIB)).subarray(16).equals(data))
  connection.write(ask({ type: Command.DISC }))
  await closing()
  await server.close()
})

test('connections are listed; closing twice is closing once; every volume comes back', async (t) => {
  const { server, volume, client, connect } = await serve()
  const clients = [await client(), await client(), await connect()]
  await clients[2]!.receive(18)
  t.deepEqual(
    server
      .connections()
      .map(({ exportName, requestsInFlight }) => ({ exportName, requestsInFlight })),
    [
      { exportName: 'v', requestsInFlight: 0 },
      { exportName: 'v', requestsInFlight: 0 },
      { exportName: undefined, requestsInFlight: 0 },
    ],
  )
  await Promise.all([server.close(), server.close()])
  await Promise.all(clients.map(({ closing }) => closing()))
  t.is(volume.closes, 2)
  t.deepEqual(server.connections(), [])
  await t.throwsAsync(connect())
})

test('closing waits for requests at work, and their replies arrive', async (t) => {
  const { server, volume, client } = await serve()
  const { connection, receive, closing } = await client()
  let go: () => void = () => undefined
  const reached = new Promise<void>((resolve) => {
    volume.tap = (_verb, run) => {
      go = run
      resolve()
    }
  })
  connection.write(ask({ type: Command.WRITE, cookie: 5, data: Buffer.alloc(MIB) }))
  await reached
  let over = false
  const closed = server.close().then(() => {
    over = true
  })
  connection.write(ask({ type: Command.FLUSH, cookie: 6 }))
  t.deepEqual(replyTranscript(await receive(16)), ['6 simple error=108'])
  t.false(over)
  go()
  t.deepEqual(replyTranscript(await receive(16)), ['5 simple error=0'])
  await closing()
  await closed
  t.is(volume.closes, 1)
})

test('an address in use is an error to whoever starts the server', async (t) => {
  const { server } = await serve()
  const again = startNbdServer({
    world: { clock: new NodeClock(), network: new NodeNetwork() },
    log: silentLog,
    source: new MemorySource(),
    address: server.address,
  })
  await t.throwsAsync(again, { code: 'EADDRINUSE' })
  await server.close()
})
