/** A rude NBD client: what the protocol forbids costs it its connection at most, and nobody else anything. */
import test from 'ava'
import { Command, CommandFlag, NBD_LIMITS, Option } from '../../src/wire/nbd/constants.js'
import { MemorySource, MemoryVolume } from './support/memory-volume.js'
import {
  ask,
  askExtended,
  HELLO,
  infoData,
  metaData,
  option,
  rig,
  settle,
  u32,
} from './support/nbd-rig.js'
import { optionTranscript, replyTranscript } from './support/nbd-transcript.js'

const MIB = 1024 * 1024
const { READ, WRITE, FLUSH } = Command

async function inTransmission(sizeBytes = 128 * MIB) {
  const volume = new MemoryVolume('v', { sizeBytes })
  const made = rig(new MemorySource(volume))
  await made.feed(HELLO, option(Option.GO, infoData('v')))
  volume.recording = true
  return { ...made, volume, made, before: made.connection.sent.length }
}

test('a wrong request magic costs the connection; requests before it are answered', async (t) => {
  const { feed, connection, volume, before, made } = await inTransmission()
  await feed(ask({ type: FLUSH, cookie: 7 }), Buffer.alloc(28, 0x55), ask({ type: FLUSH }))
  t.true(connection.destroyed)
  t.deepEqual(replyTranscript(connection.sent.subarray(before)), ['7 simple error=0'])
  t.deepEqual(volume.calls, ['flush'])
  t.is(volume.closes, 1)
  t.is(made.gone, 1)
})

// Serial: it looks at the memory of the whole process.
test.serial(
  'a write of more than the payload limit costs the connection before memory is taken',
  async (t) => {
    const { feed, connection, volume } = await inTransmission()
    await feed(ask({ type: WRITE, length: NBD_LIMITS.payloadBytesMax }))
    t.false(connection.over)
    const other = await inTransmission()
    const before = process.memoryUsage().arrayBuffers
    await other.feed(ask({ type: WRITE, length: 0xffffffff }))
    t.true(process.memoryUsage().arrayBuffers - before < MIB)
    t.true(other.connection.destroyed)
    t.deepEqual([...volume.calls, ...other.volume.calls], [])
  },
)

test.serial(
  'a refused write takes no memory for its payload, and its payload is not taken for requests',
  async (t) => {
    const { feed, connection, before, volume } = await inTransmission(MIB)
    const hidden = ask({ type: FLUSH, cookie: 666 })
    const data = Buffer.concat([hidden, hidden])
    const memory = process.memoryUsage().arrayBuffers
    await feed(ask({ type: WRITE, cookie: 1, offset: MIB, length: 20 * MIB, data }))
    t.true(process.memoryUsage().arrayBuffers - memory < MIB)
    const rest = Buffer.alloc(20 * MIB - data.length)
    await feed(rest, ask({ type: FLUSH, cookie: 2 }))
    t.deepEqual(replyTranscript(connection.sent.subarray(before)), [
      '1 simple error=28',
      '2 simple error=0',
    ])
    t.deepEqual(volume.calls, ['flush'])
  },
)

// Found by the fuzzer: replies with extended headers repeat the offset, and 2^64 - 1 as a number is 2^64. One frame of
// anybody ended the daemon.
test('an offset at the end of 64 bits is refused, and repeated bit by bit', async (t) => {
  const { feed, connection } = rig(new MemorySource(new MemoryVolume('v', { sizeBytes: MIB })))
  await feed(HELLO, option(Option.EXTENDED_HEADERS), option(Option.GO, infoData('v')))
  for (const offset of [2n ** 64n - 1n, 2n ** 63n + 1n, 2n ** 53n + 1n]) {
    const before = connection.sent.length
    await feed(askExtended({ type: READ, cookie: 1, offset, length: 1 }))
    t.is(connection.sent.readBigUInt64BE(before + 16), offset)
  }
  t.false(connection.over)
})

// Found by the fuzzer too: what such a question asks about was not looked at, and reached the volume as it was.
test('a question that says it has a payload and has none is refused, wherever it points', async (t) => {
  const { feed, connection } = rig(new MemorySource(new MemoryVolume('v', { sizeBytes: MIB })))
  const contexts = option(Option.SET_META_CONTEXT, metaData('v', 'base:allocation'))
  const go = option(Option.GO, infoData('v'))
  await feed(HELLO, option(Option.EXTENDED_HEADERS), contexts, go)
  const before = connection.sent.length
  const [type, flags] = [Command.BLOCK_STATUS, CommandFlag.PAYLOAD_LEN]
  await feed(askExtended({ type, flags, cookie: 1, offset: 2n ** 60n, length: 0 }))
  t.deepEqual(replyTranscript(connection.sent.subarray(before)), [
    '1 [1152921504606846976] error=22 "payload is no list of chosen contexts" done',
  ])
})

/** Which flags a command may have, by the document; FUA a server bears with all of them. */
const LEGAL_FLAGS: Readonly<Record<number, number>> = {
  [READ]: CommandFlag.FUA | CommandFlag.DF,
  [WRITE]: CommandFlag.FUA,
  [FLUSH]: CommandFlag.FUA,
  [Command.TRIM]: CommandFlag.FUA,
  [Command.CACHE]: CommandFlag.FUA,
  [Command.WRITE_ZEROES]: CommandFlag.FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO,
  [Command.BLOCK_STATUS]: CommandFlag.FUA | CommandFlag.REQ_ONE,
}
const COMMANDS_TRIED = [0, 1, 3, 4, 5, 6, 7, 8, 9, 255, 256, 0x7fff, 0xffff]

for (const isExtended of [false, true]) {
  const shape = isExtended ? 'extended' : 'compact'
  test(`each flag with each command, ${shape} headers: served or refused, and the next request is found`, async (t) => {
    const volume = new MemoryVolume('v', { sizeBytes: MIB })
    const { feed, connection } = rig(new MemorySource(volume))
    const agree = isExtended ? Option.EXTENDED_HEADERS : Option.STRUCTURED_REPLY
    const contexts = option(Option.SET_META_CONTEXT, metaData('v', 'base:allocation'))
    await feed(HELLO, option(agree), contexts, option(Option.GO, infoData('v')))
    for (const type of COMMANDS_TRIED) {
      for (let bit = 0; bit < 16; bit++) {
        const flags = 1 << bit
        const before = connection.sent.length
        const hasPayload = type === WRITE || (isExtended && flags === CommandFlag.PAYLOAD_LEN)
        const range = hasPayload
          ? { data: Buffer.alloc(16, 1) }
          : { length: type === FLUSH ? 0 : 16 }
        const make = isExtended ? askExtended : ask
        await feed(make({ type, flags, cookie: 7, ...range }), make({ type: FLUSH, cookie: 8 }))
        const replies = replyTranscript(connection.sent.subarray(before))
        const writes = isExtended && type === WRITE && flags === CommandFlag.PAYLOAD_LEN
        const isLegal = writes || ((LEGAL_FLAGS[type] ?? 0) & flags) !== 0
        t.is(!/error=22/.test(replies[0] ?? ''), isLegal, `command ${type}, flag ${flags}`)
        t.true(replies.at(-1)?.startsWith('8 '), `command ${type}, flag ${flags}`)
      }
    }
    t.false(connection.over)
  })

  test(`a magic of another shape than ${shape} costs the connection`, async (t) => {
    for (const wrong of [
      isExtended ? ask({ type: FLUSH }) : askExtended({ type: FLUSH }),
      option(Option.LIST),
      ...[0x67446698, 0x668e33ef, 0x6e8a278c].map((magic) => u32(magic)),
    ]) {
      const { feed, connection } = rig(new MemorySource(new MemoryVolume('v', { sizeBytes: MIB })))
      const agree = isExtended ? [option(Option.EXTENDED_HEADERS)] : []
      await feed(HELLO, ...agree, option(Option.GO, infoData('v')))
      await feed(wrong, Buffer.alloc(32))
      t.true(connection.destroyed)
    }
  })
}

test('every option number nobody knows is answered as unsupported, and haggling goes on', async (t) => {
  const { feed, connection } = rig(new MemorySource())
  const unknown = [0, 4, 12, 13, 255, 0x7fff_ffff, 0xffff_ffff]
  await feed(HELLO, ...unknown.map((id) => option(id, Buffer.alloc(5))), option(Option.LIST))
  const lines = optionTranscript(connection.sent).slice(1)
  t.deepEqual(lines, [...unknown.map((id) => `${id} ERR_UNSUP "option is not supported"`), '3 ACK'])
})

test('dribbled options of the largest size cost time in proportion', async (t) => {
  const { connection } = rig(new MemorySource())
  const start = process.hrtime.bigint()
  connection.events.data(HELLO)
  for (const byte of option(4711, Buffer.alloc(NBD_LIMITS.optionBytesMax))) {
    connection.events.data(Buffer.from([byte]))
  }
  const ms = Number(process.hrtime.bigint() - start) / 1e6
  t.is(connection.sent.length, 18 + 20 + 'option is not supported'.length)
  t.true(ms < 5000, `${ms} ms`)
})

test('options without end cost the connection', async (t) => {
  const { feed, connection } = rig(new MemorySource())
  await feed(HELLO)
  const flood = Buffer.concat(Array<Buffer>(4096).fill(option(4711)))
  for (let i = 0; i < NBD_LIMITS.optionsMax / 4096; i++) await feed(flood)
  t.false(connection.over)
  await feed(option(4711))
  t.true(connection.destroyed)
})

test('a client that floods options and reads no answers is not read from', async (t) => {
  const { feed, connection } = rig(new MemorySource())
  connection.slow = true
  await feed(HELLO, ...Array<Buffer>(100).fill(option(Option.LIST)))
  const sent = connection.writes.length
  await feed(option(Option.LIST))
  t.is(connection.writes.length, sent)
  t.true(connection.paused)
})

/** Bytes from a small generator: the same in every run. */
function noise(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  let state = seed
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[i] = state >>> 24
  }
  return bytes
}

test('mangled sessions end or go on, but never throw and never lose a volume', async (t) => {
  const session = Buffer.concat([
    HELLO,
    option(Option.LIST),
    option(Option.STRUCTURED_REPLY),
    option(Option.SET_META_CONTEXT, metaData('v', 'base:allocation')),
    option(Option.GO, infoData('v', 1, 2, 3)),
    ask({ type: WRITE, offset: 5, data: Buffer.alloc(500, 1) }),
    ask({ type: READ, offset: 5, length: 500 }),
    ask({ type: Command.BLOCK_STATUS, length: 500 }),
    ask({ type: Command.DISC }),
  ])
  for (let seed = 1; seed <= 400; seed++) {
    const volume = new MemoryVolume('v', { sizeBytes: MIB, objectBytes: 4096 })
    const source = new MemorySource(volume)
    const { feed, connection } = rig(source)
    const mangled = Buffer.from(session)
    const random = noise(seed, 4)
    // One byte in the messages' heads, where it hurts, or one anywhere.
    const at = random.readUInt16BE(0) % (seed % 2 === 0 ? 220 : session.length)
    mangled[at] = mangled[at]! ^ (1 << (random[2]! % 8))
    await feed(mangled)
    await feed(noise(seed, 200))
    connection.vanish()
    await settle()
    t.is(volume.closes, source.opens, `seed ${seed}`)
  }
})
