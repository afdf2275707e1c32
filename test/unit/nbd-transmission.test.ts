/** NBD commands against a volume in memory: what reaches the volume, what the client reads. */
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { Command, CommandFlag, NBD_LIMITS, Option } from '../../src/wire/nbd/constants.js'
import { MemorySource, MemoryVolume } from './support/memory-volume.js'
import {
  type Ask,
  ask,
  askExtended,
  HELLO,
  infoData,
  metaData,
  option,
  rig,
  u32,
  u64,
} from './support/nbd-rig.js'
import { replyTranscript } from './support/nbd-transcript.js'

const KIB = 1024
const MIB = 1024 * KIB
const SIZE = 8 * MIB

interface How {
  readonly structured?: boolean
  readonly extended?: boolean
  readonly allocation?: boolean
  /** Meta contexts, chosen in this order. */
  readonly contexts?: readonly string[]
  readonly volume?: MemoryVolume
}

/** A client in transmission; `run` sends requests and reads the new replies. */
async function serve(how: How = {}) {
  const volume = how.volume ?? new MemoryVolume('v', { sizeBytes: SIZE, objectBytes: MIB })
  const made = rig(new MemorySource(volume))
  await made.feed(HELLO)
  if (how.structured === true) await made.feed(option(Option.STRUCTURED_REPLY))
  if (how.extended === true) await made.feed(option(Option.EXTENDED_HEADERS))
  const contexts = how.contexts ?? (how.allocation === true ? ['base:allocation'] : [])
  if (contexts.length > 0) {
    await made.feed(option(Option.SET_META_CONTEXT, metaData('v', ...contexts)))
  }
  await made.feed(option(Option.GO, infoData('v')))
  volume.recording = true
  let seen = made.connection.sent.length
  const run = async (...asks: Ask[]): Promise<string[]> => {
    await made.feed(...asks.map(how.extended === true ? askExtended : ask))
    const fresh = made.connection.sent.subarray(seen)
    seen += fresh.length
    const reads = asks.filter(({ type }) => type === Command.READ)
    const lengths = reads.map(({ cookie = 1, length = 0 }) => [cookie, length] as const)
    return replyTranscript(fresh, Object.fromEntries(lengths))
  }
  return { ...made, volume, run }
}

const { READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS } = Command

test('what is written is read back, with simple replies and with chunks', async (t) => {
  for (const structured of [false, true]) {
    const { run } = await serve({ structured })
    const lines = await run(
      { type: WRITE, cookie: 1, offset: 3, data: Buffer.alloc(5, 7) },
      { type: READ, cookie: 2, offset: 2, length: 7 },
    )
    const bytes = '1x00 5x07 1x00'
    t.deepEqual(lines, [
      '1 simple error=0',
      structured ? `2 data @2 ${bytes} done` : `2 simple ${bytes}`,
    ])
  }
})

test('cookies come back as they were, all 64 bits of them', async (t) => {
  const { feed, connection } = await serve()
  const before = connection.sent.length
  const request = ask({ type: FLUSH })
  Buffer.from('ffeeddccbbaa9988', 'hex').copy(request, 8)
  await feed(request)
  t.is(connection.sent.subarray(before).toString('hex'), '6744669800000000ffeeddccbbaa9988')
})

test('commands reach the volume with their flags', async (t) => {
  const { run, volume } = await serve()
  const { FUA, NO_HOLE, FAST_ZERO } = CommandFlag
  await run(
    { type: WRITE, flags: FUA, data: Buffer.alloc(3) },
    { type: FLUSH },
    { type: TRIM, offset: 1, length: 2 * MIB },
    { type: TRIM, flags: FUA, offset: 1, length: 2 },
    { type: WRITE_ZEROES, offset: 5, length: 6 },
    { type: WRITE_ZEROES, flags: FUA | NO_HOLE, offset: 5, length: 6 },
    { type: WRITE_ZEROES, flags: FAST_ZERO, offset: MIB, length: MIB },
    { type: CACHE, offset: 10, length: 300 * KIB },
  )
  t.deepEqual(volume.calls, [
    'write 0+3 fua',
    'flush',
    `discard 1+${2 * MIB}`,
    'discard 1+2 fua',
    'zero 5+6 unmap',
    'zero 5+6 fua',
    `zero ${MIB}+${MIB} unmap fast`,
    `read 10+${256 * KIB}`,
    `read ${10 + 256 * KIB}+${44 * KIB}`,
  ])
})

test('FUA is borne with every command', async (t) => {
  const { run } = await serve({ structured: true, allocation: true })
  const flags = CommandFlag.FUA
  const lines = await run(
    { type: READ, cookie: 1, flags, length: 1 },
    { type: FLUSH, cookie: 2, flags },
    { type: CACHE, cookie: 3, flags, length: 1 },
    { type: BLOCK_STATUS, cookie: 4, flags, length: 1 },
  )
  t.deepEqual(lines, [
    '1 data @0 1x00 done',
    '2 simple error=0',
    '3 simple error=0',
    '4 status id=1 1:3 done',
  ])
})

test('fast zeroing that would be slow is refused as not supported', async (t) => {
  const { run } = await serve()
  const lines = await run(
    { type: WRITE, data: Buffer.alloc(1) },
    { type: WRITE_ZEROES, flags: CommandFlag.FAST_ZERO, offset: 0, length: 512 },
  )
  t.deepEqual(lines, ['1 simple error=0', '1 simple error=95'])
})

const EVERYTHING = SIZE
const REFUSED: readonly [string, Ask, number][] = [
  ['an unknown command', { type: 99 }, 22],
  ['an unknown flag', { type: READ, flags: 1 << 9, length: 1 }, 22],
  ['REQ_ONE on a read', { type: READ, flags: CommandFlag.REQ_ONE, length: 1 }, 22],
  ['NO_HOLE on a trim', { type: TRIM, flags: CommandFlag.NO_HOLE, length: 1 }, 22],
  ['DF on a flush', { type: FLUSH, flags: CommandFlag.DF }, 22],
  ['a flush with a range', { type: FLUSH, length: 1 }, 22],
  ['a read past the end', { type: READ, offset: EVERYTHING - 1, length: 2 }, 22],
  ['a read at 2^64-1', { type: READ, offset: 2n ** 64n - 1n, length: 1 }, 22],
  ['a trim past the end', { type: TRIM, offset: EVERYTHING, length: 1 }, 22],
  ['a cache past the end', { type: CACHE, offset: EVERYTHING, length: 1 }, 22],
  ['a write past the end', { type: WRITE, offset: EVERYTHING, data: Buffer.alloc(1) }, 28],
  ['zeroes past the end', { type: WRITE_ZEROES, length: EVERYTHING + 1 }, 28],
  ['a write with a wrong flag', { type: WRITE, flags: 4, data: Buffer.alloc(9) }, 22],
  ['a read that is too long', { type: READ, length: NBD_LIMITS.payloadBytesMax + 1 }, 22],
  ['block status without a context', { type: BLOCK_STATUS, length: 1 }, 22],
]

for (const [what, request, error] of REFUSED) {
  test(`${what} is refused with ${error}, and nothing else suffers`, async (t) => {
    for (const structured of [false, true]) {
      const { run, volume } = await serve({ structured })
      const lines = await run({ ...request, cookie: 5 }, { type: FLUSH, cookie: 6 })
      if (structured) t.regex(lines[0]!, new RegExp(`^5 error=${error} ".+"( @\\d+)? done$`))
      else t.is(lines[0], `5 simple error=${error}`)
      t.deepEqual(lines.slice(1), ['6 simple error=0'])
      t.deepEqual(volume.calls, ['flush'])
    }
  })
}

test('errors say where, as far as that is known and means nothing else', async (t) => {
  const beyond = (at: number) => `error=22 "range is beyond the end of the export" @${at} done`
  const { run, volume } = await serve({ structured: true, contexts: ['base:allocation'] })
  const lines = await run(
    { type: READ, cookie: 1, offset: EVERYTHING - 1, length: 9 },
    { type: READ, cookie: 2, offset: EVERYTHING + 5, length: 9 },
    { type: BLOCK_STATUS, cookie: 3, offset: EVERYTHING - 4, length: 9 },
  )
  const [end, behind] = [EVERYTHING, EVERYTHING + 5]
  t.deepEqual(lines, [`1 ${beyond(end)}`, `2 ${beyond(behind)}`, `3 ${beyond(end)}`])
  // A hole between two objects, and the second object cannot be read.
  await run({ type: WRITE, data: Buffer.alloc(9, 1) })
  await run({ type: WRITE, offset: 2 * volume.objectBytes, data: Buffer.alloc(9, 1) })
  let reads = 0
  volume.tap = (_verb, go, done) => {
    if (++reads < 2) go()
    else done(Code.EIO)
  }
  t.deepEqual(await run({ type: READ, cookie: 4, length: 3 * volume.objectBytes }), [
    `4 error=5 "I/O error" @${2 * volume.objectBytes} done`,
  ])
})

test('DF needs structured replies; a long DF read overflows', async (t) => {
  const flags = CommandFlag.DF
  t.deepEqual(await (await serve()).run({ type: READ, flags, length: 1 }), ['1 simple error=22'])
  const { run } = await serve({ structured: true })
  const long = NBD_LIMITS.payloadBytesMax + 1
  t.deepEqual(await run({ type: READ, flags, length: long }), [
    '1 error=75 "request is too long for one piece" done',
  ])
})

test('a read-only export refuses whatever writes, whatever the range', async (t) => {
  const volume = new MemoryVolume('v', { sizeBytes: SIZE, readOnly: true })
  const { run } = await serve({ volume })
  const lines = await run(
    { type: WRITE, cookie: 1, data: Buffer.alloc(512) },
    { type: WRITE, cookie: 2, offset: SIZE, data: Buffer.alloc(512) },
    { type: WRITE_ZEROES, cookie: 3, length: 1 },
    { type: TRIM, cookie: 4, length: 1 },
    { type: FLUSH, cookie: 5 },
    { type: READ, cookie: 6, length: 1 },
  )
  const refused = [1, 2, 3, 4].map((cookie) => `${cookie} simple error=1`)
  t.deepEqual(lines, [...refused, '5 simple error=0', '6 simple 1x00'])
  t.deepEqual(volume.calls, ['flush', 'read 0+1'])
})

test('the gate follows a volume that grew', async (t) => {
  const { run, volume } = await serve()
  t.deepEqual(await run({ type: READ, offset: SIZE, length: 1 }), ['1 simple error=22'])
  volume.sizeBytes += 1
  t.deepEqual(await run({ type: READ, offset: SIZE, length: 1 }), ['1 simple 1x00'])
})

test('empty requests succeed without a word to the volume', async (t) => {
  const { run, volume } = await serve({ structured: true })
  const lines = await run(
    { type: READ, cookie: 7, offset: SIZE },
    { type: WRITE },
    { type: TRIM },
    { type: WRITE_ZEROES },
    { type: CACHE },
  )
  t.deepEqual(lines, ['7 none done', ...Array<string>(4).fill('1 simple error=0')])
  t.deepEqual(volume.calls, [])
})

const FAILURES: readonly [Code, number, string][] = [
  [Code.EIO, 5, 'I/O error'],
  [Code.NO_SPACE, 28, 'Server has no space for new objects'],
  [Code.HALT, 5, 'IO has halted as there are not enough living nodes'],
  [Code.NO_MEM, 12, 'Out of memory on server'],
  [Code.SHUTDOWN, 108, 'System is shutting down'],
  [Code.READONLY, 1, 'Object is read-only'],
]

for (const [code, error, text] of FAILURES) {
  test(`a volume that fails with "${text}" is an NBD error ${error}`, async (t) => {
    for (const structured of [false, true]) {
      const { run, volume } = await serve({ structured })
      volume.tap = (_verb, _go, done) => done(code)
      const line = structured ? `9 error=${error} "${text}" done` : `9 simple error=${error}`
      for (const type of [READ, TRIM, WRITE_ZEROES, CACHE]) {
        t.deepEqual(await run({ type, cookie: 9, length: 600 }), [line])
      }
      t.deepEqual(await run({ type: FLUSH, cookie: 9 }), [line])
      t.deepEqual(await run({ type: WRITE, cookie: 9, data: Buffer.alloc(9) }), [line])
      volume.tap = (_verb, go) => go()
      t.regex((await run({ type: READ, length: 1 }))[0]!, /1x00/)
    }
  })
}

test('block status tells data from holes, neighbours merged, and obeys REQ_ONE', async (t) => {
  const { run } = await serve({ structured: true, allocation: true })
  await run({ type: WRITE, offset: 2 * MIB, data: Buffer.alloc(1) })
  await run({ type: WRITE, offset: 3 * MIB, data: Buffer.alloc(1) })
  const parts = [`${2 * MIB - 5}:3`, `${2 * MIB}:0`, `${4 * MIB}:3`]
  const all = { type: BLOCK_STATUS, offset: 5, length: SIZE - 5 }
  t.deepEqual(await run(all), [`1 status id=1 ${parts.join(' ')} done`])
  t.deepEqual(await run({ ...all, flags: CommandFlag.REQ_ONE }), [`1 status id=1 ${parts[0]} done`])
  t.deepEqual(await run({ ...all, length: 0 }), ['1 error=22 "range is empty" done'])
  t.regex((await run({ ...all, length: SIZE }))[0]!, /^1 error=22 /)
})

test('block status sends a bounded number of extents', async (t) => {
  const objects = NBD_LIMITS.extentsPerReplyMax + 10
  const volume = new MemoryVolume('v', { sizeBytes: objects * 512, objectBytes: 512 })
  const { run } = await serve({ volume, structured: true, allocation: true })
  const odd = Array.from({ length: objects / 2 }, (_, i) => i * 1024)
  await run(...odd.map((offset) => ({ type: WRITE, offset, data: Buffer.alloc(1) })))
  const [line] = await run({ type: BLOCK_STATUS, length: objects * 512 })
  t.is(line!.match(/512:[03]/g)?.length, NBD_LIMITS.extentsPerReplyMax)
})

test('every chosen context has a chunk of its own, in order', async (t) => {
  const { run } = await serve({ structured: true, contexts: ['test:odd', 'base:allocation'] })
  const status = { type: BLOCK_STATUS, offset: MIB - 5, length: 2 * MIB }
  t.deepEqual(await run(status), [
    `1 status id=1 5:0 ${MIB}:1 ${MIB - 5}:0`,
    `1 status id=2 ${2 * MIB}:3 done`,
  ])
  t.deepEqual(await run({ ...status, flags: CommandFlag.REQ_ONE }), [
    '1 status id=1 5:0',
    `1 status id=2 ${2 * MIB}:3 done`,
  ])
})

test('with extended headers every reply is a chunk that names its offset, and lengths have 64 bits', async (t) => {
  const sizeBytes = 2 ** 33
  const volume = new MemoryVolume('v', { sizeBytes, objectBytes: 2 ** 32 })
  const { run } = await serve({ volume, extended: true, allocation: true })
  const data = Buffer.alloc(3, 7)
  const { PAYLOAD_LEN } = CommandFlag
  t.deepEqual(await run({ type: WRITE, cookie: 9, flags: PAYLOAD_LEN, offset: 5, data }), [
    '9 [5] none done',
  ])
  t.deepEqual(await run({ type: WRITE, offset: 8, data }), ['1 [8] none done'])
  t.deepEqual(await run({ type: READ, offset: 4, length: 8 }), [
    '1 [4] data @4 1x00 6x07 1x00 done',
  ])
  t.deepEqual(await run({ type: READ, flags: PAYLOAD_LEN, length: 4, data: Buffer.alloc(4) }), [
    '1 [0] error=22 "flag does not belong to this command" done',
  ])
  t.deepEqual(await run({ type: TRIM, offset: 1, length: 2 ** 33 - 1 }), ['1 [1] none done'])
  t.deepEqual(await run({ type: BLOCK_STATUS, length: sizeBytes }), [
    `1 [0] status id=1 ${2 ** 32}:0 ${2 ** 32}:3 done`,
  ])
  t.deepEqual(await run({ type: FLUSH }), ['1 [0] none done'])
})

test('a block status question may name some of the contexts in its payload', async (t) => {
  const { run } = await serve({
    extended: true,
    contexts: ['test:tags/a', 'base:allocation', 'test:odd'],
  })
  const question = (length: number, ...ids: number[]) => ({
    ...{ type: BLOCK_STATUS, offset: 1, flags: CommandFlag.PAYLOAD_LEN },
    data: Buffer.concat([u64(length), ...ids.map(u32)]),
  })
  t.deepEqual(await run(question(SIZE - 1, 3, 1)), [
    `1 [1] status id=1 ${SIZE - 1}:11`,
    `1 [1] status id=3 ${[MIB - 1, ...Array<number>(7).fill(MIB)].map((n, i) => `${n}:${i % 2}`).join(' ')} done`,
  ])
  const malformed = ['1 [1] error=22 "payload is no list of chosen contexts" done']
  t.deepEqual(await run(question(10)), malformed)
  t.deepEqual(await run(question(10, 4)), malformed)
  t.deepEqual(await run({ ...question(10, 1), data: Buffer.alloc(13) }), malformed)
  t.deepEqual(await run({ ...question(10, 1), data: Buffer.alloc(8192) }), malformed)
  t.deepEqual(await run(question(SIZE, 1)), [
    '1 [1] error=22 "range is beyond the end of the export" @8388608 done',
  ])
  t.deepEqual(await run(question(0, 1)), ['1 [1] error=22 "range is empty" done'])
  t.deepEqual(await run({ type: READ, length: 1 }), ['1 [0] data @0 1x00 done'])
})

test('a context chosen for another export does not count', async (t) => {
  const volume = new MemoryVolume('v', { sizeBytes: SIZE })
  const { feed, connection } = rig(new MemorySource(volume))
  await feed(HELLO, option(Option.STRUCTURED_REPLY))
  await feed(option(Option.SET_META_CONTEXT, metaData('', 'base:allocation')))
  await feed(option(Option.GO, infoData('v')))
  const before = connection.sent.length
  await feed(ask({ type: BLOCK_STATUS, length: 1 }))
  t.deepEqual(replyTranscript(connection.sent.subarray(before)), [
    '1 error=22 "no meta context was agreed on" done',
  ])
})

test('a long read sends holes as holes, unless told not to fragment', async (t) => {
  const { run, volume } = await serve({ structured: true })
  await run({ type: WRITE, offset: MIB, data: Buffer.alloc(MIB, 7) })
  volume.calls.length = 0
  const long = { type: READ, offset: MIB - 10, length: MIB + 20 }
  t.deepEqual(await run(long), [
    `1 hole @${MIB - 10} +10`,
    `1 data @${MIB} ${MIB}x07`,
    `1 hole @${2 * MIB} +10 done`,
  ])
  t.deepEqual(await run({ ...long, length: 10 }), [`1 data @${MIB - 10} 10x00 done`])
  t.deepEqual(await run({ type: READ, offset: 4 * MIB, length: MIB }), [
    `1 hole @${4 * MIB} +${MIB} done`,
  ])
  t.deepEqual(volume.calls, [`read ${MIB}+${MIB}`, `read ${MIB - 10}+10`])
  t.deepEqual(await run({ ...long, flags: CommandFlag.DF }), [
    `1 data @${MIB - 10} 10x00 ${MIB}x07 10x00 done`,
  ])
})

test('a long read with holes of which a part fails is one error', async (t) => {
  const { run, volume } = await serve({ structured: true })
  for (const offset of [0, 2 * MIB]) await run({ type: WRITE, offset, data: Buffer.alloc(1) })
  let reads = 0
  volume.tap = (_verb, go, done) => (++reads === 1 ? done(Code.EIO) : go())
  t.deepEqual(await run({ type: READ, length: 4 * MIB }), ['1 error=5 "I/O error" @0 done'])
  t.is(reads, 2)
})
