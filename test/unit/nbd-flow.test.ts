/** How an NBD connection moves: order, corking, back-pressure, ends. The volume is slow on purpose. */
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { LIMITS } from '../../src/base/limits.js'
import { Command, Option } from '../../src/wire/nbd/constants.js'
import { MemorySource, MemoryVolume } from './support/memory-volume.js'
import { ask, HELLO, infoData, option, rig, settle } from './support/nbd-rig.js'
import { replyTranscript } from './support/nbd-transcript.js'

const KIB = 1024
const MIB = 1024 * KIB
const { READ, WRITE, DISC, FLUSH } = Command

/** A client in transmission whose volume keeps every operation until the test lets it go. */
async function slowVolume() {
  const volume = new MemoryVolume('v', { sizeBytes: 256 * MIB })
  const made = rig(new MemorySource(volume))
  await made.feed(HELLO, option(Option.GO, infoData('v')))
  const before = made.connection.sent.length
  const kept: (() => void)[] = []
  volume.tap = (_verb, go) => {
    kept.push(go)
  }
  made.connection.writes.length = 0
  made.connection.writes.push(Buffer.alloc(0))
  return { ...made, volume, kept, handshakeBytes: before, made }
}

const replies = (writes: readonly Buffer[], reads: Record<number, number> = {}) =>
  replyTranscript(Buffer.concat(writes), reads)

test('replies go out in the order of completion', async (t) => {
  const { feed, connection, kept } = await slowVolume()
  await feed(...[1, 2, 3].map((cookie) => ask({ type: READ, cookie, offset: cookie, length: 9 })))
  t.deepEqual(replies(connection.writes), [])
  for (const i of [2, 0, 1]) {
    kept[i]!()
    await settle()
  }
  const reads = { 1: 9, 2: 9, 3: 9 }
  t.deepEqual(
    replies(connection.writes, reads),
    [3, 1, 2].map((cookie) => `${cookie} simple 9x00`),
  )
})

test('what completes in one turn leaves with one write, at once or later', async (t) => {
  const { feed, connection, kept, volume } = await slowVolume()
  const asks = Array.from({ length: 20 }, (_, cookie) => ask({ type: READ, cookie, length: 4096 }))
  await feed(...asks)
  connection.writes.length = 0
  for (const go of kept.splice(0)) go()
  t.is(connection.writes.length, 0)
  await settle()
  t.is(connection.writes.length, 1)
  volume.tap = (_verb, go) => go()
  connection.events.data(Buffer.concat(asks))
  t.is(connection.writes.length, 2)
  t.is(connection.sent.length, 2 * 20 * (16 + 4096))
})

test('no more than the limit of requests is at work, and all are answered in the end', async (t) => {
  const { feed, connection, kept } = await slowVolume()
  const count = 3 * LIMITS.requestsInFlightMax
  await feed(...Array.from({ length: count }, (_, cookie) => ask({ type: FLUSH, cookie })))
  t.is(kept.length, LIMITS.requestsInFlightMax)
  await feed(ask({ type: FLUSH, cookie: count }))
  t.true(connection.paused)
  t.is(kept.length, LIMITS.requestsInFlightMax)
  for (let done = 0; done <= count; done++) {
    kept[done]!()
    if (done % 50 === 0) await settle()
    t.true(kept.length - done - 1 <= LIMITS.requestsInFlightMax)
    if (kept.length === done + 1) await settle()
  }
  await settle()
  t.is(replies(connection.writes).length, count + 1)
  t.false(connection.paused)
})

test('bytes of requests at work are bounded', async (t) => {
  const { feed, connection, kept } = await slowVolume()
  const length = 8 * MIB
  const fits = LIMITS.connectionBytesMax / length
  const reads = Array.from({ length: fits + 3 }, (_, cookie) => ask({ type: READ, cookie, length }))
  await feed(...reads)
  t.is(kept.length, fits)
  kept[0]!()
  await settle()
  t.is(kept.length, fits + 1)
  for (let i = 1; i < fits + 3; i++) {
    kept[i]!()
    await settle()
  }
  t.is(connection.sent.length, (fits + 3) * (16 + length))
})

test('a client that does not take its replies is not read from', async (t) => {
  const { feed, connection, volume } = await slowVolume()
  volume.tap = (_verb, go) => go()
  volume.recording = true
  connection.slow = true
  const length = 512 * KIB
  await feed(...Array.from({ length: 16 }, (_, cookie) => ask({ type: READ, cookie, length })))
  const first = volume.calls.length
  t.true(first < 16)
  await feed(ask({ type: READ, cookie: 16, length }))
  t.is(volume.calls.length, first)
  t.true(connection.paused)
  connection.events.drain()
  t.true(volume.calls.length > first)
  connection.slow = false
  connection.events.drain()
  t.is(volume.calls.length, 17)
  t.is(connection.sent.length, 17 * (16 + length))
  t.false(connection.paused)
})

test('a late completion waits while the client is slow', async (t) => {
  const { feed, connection, kept } = await slowVolume()
  await feed(ask({ type: FLUSH, cookie: 1 }), ask({ type: FLUSH, cookie: 2 }))
  connection.slow = true
  kept[0]!()
  await settle()
  const writes = connection.writes.length
  kept[1]!()
  await settle()
  t.is(connection.writes.length, writes)
  connection.events.drain()
  t.deepEqual(replies(connection.writes), ['1 simple error=0', '2 simple error=0'])
})

test('DISC finishes what is at work, then closes; the volume is handed back once', async (t) => {
  const { feed, connection, kept, volume, made } = await slowVolume()
  await feed(
    ask({ type: WRITE, cookie: 1, data: Buffer.alloc(9) }),
    ask({ type: DISC }),
    ask({ type: FLUSH, cookie: 2 }),
  )
  t.false(connection.over)
  kept[0]!()
  await settle()
  t.true(connection.ended)
  t.deepEqual(replies(connection.writes), ['1 simple error=0'])
  t.is(kept.length, 1)
  t.is(volume.closes, 1)
  t.is(made.gone, 1)
})

test('a client that vanishes keeps the volume until its requests are done', async (t) => {
  const { feed, connection, kept, volume, made } = await slowVolume()
  await feed(ask({ type: WRITE, data: Buffer.alloc(9) }), ask({ type: FLUSH }))
  connection.vanish()
  await settle()
  t.is(volume.closes, 0)
  kept[1]!()
  await settle()
  t.is(volume.closes, 0)
  kept[0]!()
  await settle()
  t.is(volume.closes, 1)
  t.is(made.gone, 1)
})

test('a client that vanishes in the middle of a payload leaves nothing behind', async (t) => {
  const { feed, connection, kept, volume, made } = await slowVolume()
  await feed(ask({ type: WRITE, length: MIB, data: Buffer.alloc(1000) }))
  connection.vanish()
  await settle()
  t.is(kept.length, 0)
  t.is(volume.closes, 1)
  t.is(made.gone, 1)
})

test('a client that vanishes while its volume is being opened hands it back', async (t) => {
  const volume = new MemoryVolume('v', { sizeBytes: MIB })
  const source = new MemorySource(volume)
  let letGo: () => void = () => undefined
  source.hold = new Promise((resolve) => {
    letGo = resolve
  })
  const made = rig(source)
  await made.feed(HELLO, option(Option.GO, infoData('v')))
  made.connection.vanish()
  await settle()
  t.is(made.gone, 0)
  letGo()
  await settle()
  t.is(source.opens, 1)
  t.is(volume.closes, 1)
  t.is(made.gone, 1)
})

test('bytes that come while the volume is being opened are kept, and reading stops', async (t) => {
  const volume = new MemoryVolume('v', { sizeBytes: MIB })
  const source = new MemorySource(volume)
  let letGo: () => void = () => undefined
  source.hold = new Promise((resolve) => {
    letGo = resolve
  })
  const { feed, connection } = rig(source)
  await feed(HELLO, option(Option.EXPORT_NAME, Buffer.from('v')))
  await feed(ask({ type: FLUSH, cookie: 3 }))
  t.true(connection.paused)
  letGo()
  await settle()
  t.deepEqual(replyTranscript(connection.sent.subarray(18 + 10)), ['3 simple error=0'])
  t.false(connection.paused)
})

test('shutdown answers new requests ESHUTDOWN, finishes the old ones and closes', async (t) => {
  const { feed, connection, kept, volume, client } = await slowVolume()
  await feed(ask({ type: FLUSH, cookie: 1 }))
  client.shutdown()
  t.false(connection.over)
  await feed(ask({ type: WRITE, cookie: 2, data: Buffer.alloc(5) }), ask({ type: READ, length: 9 }))
  kept[0]!()
  await settle()
  t.deepEqual(replies(connection.writes), [
    '2 simple error=108',
    '1 simple error=108',
    '1 simple error=0',
  ])
  t.true(connection.ended)
  t.is(volume.closes, 1)
})

test('shutdown does not wait for a payload that never comes', async (t) => {
  const { feed, connection, client, volume } = await slowVolume()
  await feed(ask({ type: WRITE, length: MIB }))
  client.shutdown()
  await settle()
  t.true(connection.ended)
  t.is(volume.closes, 1)
})

test('a volume that completes twice is found out', async (t) => {
  const { feed, volume } = await slowVolume()
  let twice: () => void = () => undefined
  volume.tap = (_verb, go, done) => {
    go()
    twice = () => done(Code.SUCCESS)
  }
  await feed(ask({ type: FLUSH }))
  t.throws(twice, { message: /twice/ })
})
