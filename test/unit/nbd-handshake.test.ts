/** The NBD handshake, option by option, as transcripts of what the server answers. */
import test from 'ava'
import { Code, SheepError } from '../../src/base/codes.js'
import { Command, Info, NBD_LIMITS, Option } from '../../src/wire/nbd/constants.js'
import { MemorySource, MemoryVolume } from './support/memory-volume.js'
import {
  ask,
  HELLO,
  infoData,
  metaData,
  option,
  type Rig,
  rig,
  settle,
  u32,
} from './support/nbd-rig.js'
import { optionTranscript, replyTranscript } from './support/nbd-transcript.js'

const MIB = 1024 * 1024
const GREETING = 'greeting NBDMAGICIHAVEOPT flags=3'

function alice(): MemoryVolume {
  return new MemoryVolume('Alice', { sizeBytes: 64 * MIB })
}

function monday(): MemoryVolume {
  return new MemoryVolume('Alice@monday', { sizeBytes: 32 * MIB, readOnly: true })
}

/** Answers to the options, without the greeting. */
async function answers(source: MemorySource, ...options: Buffer[]): Promise<string[]> {
  const { feed, connection } = rig(source)
  await feed(HELLO)
  for (const bytes of options) await feed(bytes)
  const lines = optionTranscript(connection.sent)
  if (lines.shift() !== GREETING) throw new Error('no greeting')
  return lines
}

test('LIST names every export with its description', async (t) => {
  t.deepEqual(await answers(new MemorySource(alice(), monday()), option(Option.LIST)), [
    '3 SERVER Alice: a disk',
    '3 SERVER Alice@monday: a snapshot',
    '3 ACK',
  ])
})

test('LIST with data is invalid', async (t) => {
  const lines = await answers(new MemorySource(), option(Option.LIST, u32(0)))
  t.deepEqual(lines, ['3 ERR_INVALID "LIST takes no data"'])
})

test('INFO gives what was asked for, once, and does not open', async (t) => {
  const source = new MemorySource(alice())
  const kinds = [Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE, Info.NAME, 77]
  t.deepEqual(await answers(source, option(Option.INFO, infoData('Alice', ...kinds))), [
    `6 INFO export size=${64 * MIB} flags=0xd6d`,
    '6 INFO text1 Alice',
    '6 INFO text2 a disk',
    `6 INFO blocks 1 4096 ${32 * MIB}`,
    '6 ACK',
  ])
  t.is(source.opens, 0)
})

test('a snapshot is announced read-only, without trim and zeroes', async (t) => {
  const lines = await answers(
    new MemorySource(monday()),
    option(Option.STRUCTURED_REPLY),
    option(Option.INFO, infoData('Alice@monday')),
  )
  t.deepEqual(lines, ['8 ACK', `6 INFO export size=${32 * MIB} flags=0x58f`, '6 ACK'])
})

test('GO opens and describes; DF is announced after structured replies only', async (t) => {
  const source = new MemorySource(alice())
  const go = option(Option.GO, infoData('Alice', Info.DESCRIPTION))
  t.deepEqual(await answers(source, option(Option.STRUCTURED_REPLY), go), [
    '8 ACK',
    `7 INFO export size=${64 * MIB} flags=0xded`,
    '7 INFO text2 a disk',
    '7 ACK',
  ])
  t.is(source.opens, 1)
})

test('the empty name is the only disk, snapshots not counted', async (t) => {
  const source = new MemorySource(monday(), alice())
  const lines = await answers(source, option(Option.INFO, infoData('', Info.NAME)))
  t.is(lines[1], '6 INFO text1 Alice')
})

test('the empty name is refused where there are several disks or none', async (t) => {
  const two = new MemorySource(alice(), new MemoryVolume('Bob', { sizeBytes: MIB }))
  for (const source of [two, new MemorySource(), new MemorySource(monday())]) {
    const lines = await answers(source, option(Option.GO, infoData('')))
    t.deepEqual(lines, ['7 ERR_UNKNOWN "no default export: name one"'])
  }
})

test('failures become option errors, and haggling goes on', async (t) => {
  const source = new MemorySource(alice())
  const { feed, connection } = rig(source)
  await feed(HELLO, option(Option.GO, infoData('Bob')))
  for (const code of [Code.VDI_LOCKED, Code.SHUTDOWN, Code.EIO]) {
    source.refusal = new SheepError(code)
    await feed(option(Option.GO, infoData('Alice')))
  }
  source.refusal = new TypeError('a bug with a secret')
  await feed(option(Option.GO, infoData('Alice')))
  source.refusal = undefined
  await feed(option(Option.GO, infoData('Alice')))
  t.deepEqual(optionTranscript(connection.sent), [
    GREETING,
    '7 ERR_UNKNOWN "No VDI found"',
    '7 ERR_POLICY "VDI is already locked"',
    '7 ERR_SHUTDOWN "System is shutting down"',
    '7 ERR_UNKNOWN "I/O error"',
    '7 ERR_UNKNOWN "System error"',
    `7 INFO export size=${64 * MIB} flags=0xd6d`,
    '7 ACK',
  ])
})

test('unknown options are unsupported', async (t) => {
  const lines = await answers(new MemorySource(), option(4711, Buffer.from('whatever')), option(12))
  const text = 'ERR_UNSUP "option is not supported"'
  t.deepEqual(lines, [`4711 ${text}`, `12 ${text}`])
})

test('ABORT is acknowledged, then the connection ends', async (t) => {
  const { feed, connection } = rig(new MemorySource())
  await feed(HELLO, option(Option.ABORT), option(Option.LIST))
  t.deepEqual(optionTranscript(connection.sent), [GREETING, '2 ACK'])
  t.true(connection.ended)
})

test('meta contexts are listed by name, by namespace and all', async (t) => {
  const list = (...queries: string[]) =>
    option(Option.LIST_META_CONTEXT, metaData('Alice', ...queries))
  const lines = await answers(
    new MemorySource(alice()),
    list(),
    option(Option.STRUCTURED_REPLY),
    list(),
    list('base:'),
    list('base:allocation', 'base:allocation'),
    list('base:nothing', 'qemu:'),
    list('test:tags/', 'test:odd'),
    list('test:tags'),
  )
  const context = (name: string) => `9 META_CONTEXT id=0 ${name}`
  const base = context('base:allocation')
  const tests = ['test:odd', 'test:tags/a', 'test:tags/b'].map(context)
  t.deepEqual(lines, [
    '9 ERR_INVALID "structured replies come first"',
    '8 ACK',
    ...[base, ...tests, '9 ACK'],
    ...[base, '9 ACK'],
    ...[base, '9 ACK'],
    '9 ACK',
    ...[...tests, '9 ACK'],
    '9 ACK',
  ])
})

test('several contexts are numbered in the order they were asked for, each once', async (t) => {
  const lines = await answers(
    new MemorySource(alice()),
    option(Option.STRUCTURED_REPLY),
    option(
      Option.SET_META_CONTEXT,
      metaData('Alice', 'test:tags/b', 'no:such', 'base:allocation', 'test:tags/b', 'test:'),
    ),
  )
  t.deepEqual(lines.slice(1), [
    '10 META_CONTEXT id=1 test:tags/b',
    '10 META_CONTEXT id=2 base:allocation',
    '10 ACK',
  ])
})

test('extended headers stand for structured replies, and are announced with what they bring', async (t) => {
  const lines = await answers(
    new MemorySource(alice()),
    option(Option.EXTENDED_HEADERS, u32(1)),
    option(Option.STRUCTURED_REPLY),
    option(Option.EXTENDED_HEADERS),
    option(Option.STRUCTURED_REPLY),
    option(Option.SET_META_CONTEXT, metaData('Alice', 'base:allocation')),
    option(Option.GO, infoData('Alice')),
  )
  t.deepEqual(lines, [
    '11 ERR_INVALID "EXTENDED_HEADERS takes no data"',
    '8 ACK',
    '11 ACK',
    '8 ERR_INVALID "headers are extended already"',
    ...['10 META_CONTEXT id=1 base:allocation', '10 ACK'],
    ...[`7 INFO export size=${64 * MIB} flags=0x1ded`, '7 ACK'],
  ])
})

test('SET_META_CONTEXT takes exact names of known exports only', async (t) => {
  const set = (name: string, ...queries: string[]) =>
    option(Option.SET_META_CONTEXT, metaData(name, ...queries))
  const lines = await answers(
    new MemorySource(alice()),
    option(Option.STRUCTURED_REPLY),
    set('Alice', 'base:allocation'),
    set('Alice', 'base:'),
    set('Alice'),
    set('Bob', 'base:allocation'),
  )
  t.deepEqual(lines, [
    '8 ACK',
    '10 META_CONTEXT id=1 base:allocation',
    '10 ACK',
    '10 ACK',
    '10 ACK',
    '10 ERR_UNKNOWN "No VDI found"',
  ])
})

const MALFORMED: readonly [string, Buffer][] = [
  ['STRUCTURED_REPLY with data', option(Option.STRUCTURED_REPLY, u32(1))],
  ['GO without data', option(Option.GO)],
  ['GO with a name longer than the data', option(Option.GO, Buffer.from('\0\0\0\x09Alice\0\0'))],
  ['GO with a NUL in the name', option(Option.GO, infoData('Al\0ice'))],
  ['GO with a name of 4097 bytes', option(Option.GO, infoData('x'.repeat(4097)))],
  ['GO with bytes left over', option(Option.GO, Buffer.concat([infoData('Alice'), u32(0)]))],
  ['GO with fewer kinds than counted', option(Option.GO, infoData('Alice', 1, 2).subarray(0, -2))],
]

for (const [what, bytes] of MALFORMED) {
  test(`${what} is invalid and haggling goes on`, async (t) => {
    const lines = await answers(new MemorySource(alice()), bytes, option(Option.LIST))
    t.regex(lines[0]!, /^\d+ ERR_INVALID /)
    t.deepEqual(lines.slice(1), ['3 SERVER Alice: a disk', '3 ACK'])
  })
}

const BAD_QUERIES: readonly [string, Buffer][] = [
  ['more queries than there are', Buffer.concat([metaData('Alice').subarray(0, 9), u32(9)])],
  ['2^32-1 queries', Buffer.concat([metaData('Alice').subarray(0, 9), u32(0xffffffff)])],
  ['a query past the end', metaData('Alice', 'base:allocation').subarray(0, -1)],
  ['bytes left over', Buffer.concat([metaData('Alice'), u32(0)])],
]

for (const [what, data] of BAD_QUERIES) {
  test(`SET_META_CONTEXT with ${what} is invalid and leaves nothing chosen`, async (t) => {
    const { feed, connection } = rig(new MemorySource(alice()))
    await feed(HELLO, option(Option.STRUCTURED_REPLY))
    await feed(option(Option.SET_META_CONTEXT, metaData('Alice', 'base:allocation')))
    await feed(option(Option.SET_META_CONTEXT, data))
    t.is(optionTranscript(connection.sent).at(-1), '10 ERR_INVALID "malformed request"')
    await feed(option(Option.GO, infoData('Alice')))
    const before = connection.sent.length
    await feed(ask({ type: Command.BLOCK_STATUS, length: 1 }))
    t.regex(replyTranscript(connection.sent.subarray(before))[0]!, /^1 error=22 /)
  })
}

test('an option that is too long is skipped and refused; a huge one costs the connection', async (t) => {
  const { optionBytesMax, optionSkipBytesMax } = NBD_LIMITS
  const { feed, connection } = rig(new MemorySource())
  await feed(HELLO, option(4711, Buffer.alloc(optionBytesMax + 1)), option(Option.LIST))
  t.deepEqual(optionTranscript(connection.sent).slice(1), [
    '4711 ERR_TOO_BIG "option is too long"',
    '3 ACK',
  ])
  await feed(option(4711, Buffer.alloc(0), optionSkipBytesMax + 1))
  t.true(connection.destroyed)
})

async function exportName(flags: number, name: string): Promise<Rig> {
  const made = rig(new MemorySource(alice()))
  await made.feed(u32(flags), option(Option.EXPORT_NAME, Buffer.from(name)))
  return made
}

test('EXPORT_NAME answers size and flags, with zeros unless they were waived', async (t) => {
  const plain = (await exportName(1, 'Alice')).connection.sent.subarray(18)
  t.is(plain.length, 10 + 124)
  t.is(plain.readBigUInt64BE(0), BigInt(64 * MIB))
  t.is(plain.readUInt16BE(8), 0xd6d)
  t.true(plain.subarray(10).every((byte) => byte === 0))
  t.is((await exportName(3, 'Alice')).connection.sent.length, 18 + 10)
  t.is((await exportName(0, 'Alice')).connection.sent.length, 18 + 134)
})

test('EXPORT_NAME of an unknown or malformed name costs the connection', async (t) => {
  for (const name of ['Bob', 'Al\0ice', 'x'.repeat(4097)]) {
    const { connection } = await exportName(3, name)
    t.true(connection.destroyed)
    t.is(connection.sent.length, 18)
  }
})

const BREACHES: readonly [string, Buffer][] = [
  ['unknown client flags', u32(4)],
  ['a wrong option magic', Buffer.concat([HELLO, Buffer.alloc(16, 0x41)])],
  ['an option without fixed newstyle', Buffer.concat([u32(0), option(Option.LIST)])],
]

for (const [what, bytes] of BREACHES) {
  test(`${what} costs the connection`, async (t) => {
    const made = rig(new MemorySource(alice()))
    await made.feed(bytes)
    t.true(made.connection.destroyed)
    await settle()
    t.is(made.gone, 1)
    t.is(made.clock.timers, 0)
  })
}

test('silence ends the handshake, dripping options ends it later, transmission has no timer', async (t) => {
  const silent = rig(new MemorySource())
  silent.clock.advance(NBD_LIMITS.handshakeIdleMs)
  t.true(silent.connection.destroyed)

  const dripping = rig(new MemorySource())
  await dripping.feed(HELLO)
  let ms = 0
  while (!dripping.connection.destroyed && ms < 10 * NBD_LIMITS.handshakeTotalMs) {
    await dripping.feed(option(4711))
    dripping.clock.advance(NBD_LIMITS.handshakeIdleMs - 1)
    ms += NBD_LIMITS.handshakeIdleMs - 1
  }
  t.true(ms > 2 * NBD_LIMITS.handshakeIdleMs)
  t.true(ms < NBD_LIMITS.handshakeTotalMs + NBD_LIMITS.handshakeIdleMs)

  const serving = rig(new MemorySource(alice()))
  await serving.feed(HELLO, option(Option.GO, infoData('Alice')))
  t.is(serving.clock.timers, 0)
})

test('a lookup that takes long is not held against the client', async (t) => {
  const source = new MemorySource(alice())
  let letGo: () => void = () => undefined
  source.hold = new Promise((resolve) => {
    letGo = resolve
  })
  const { feed, connection, clock } = rig(source)
  await feed(HELLO, option(Option.GO, infoData('Alice')))
  clock.advance(3 * NBD_LIMITS.handshakeTotalMs)
  t.false(connection.destroyed)
  letGo()
  await settle()
  t.is(optionTranscript(connection.sent).at(-1), '7 ACK')
})
