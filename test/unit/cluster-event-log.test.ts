/** The shared event log by itself: torn writes, rotation, removal, and bytes that lie. */
import test, { type ExecutionContext } from 'ava'
import { crc32 } from '../../src/base/crc32.js'
import { EventLog, LogDamaged, segmentNumber } from '../../src/cluster/local/event-log.js'
import {
  decodeRecord,
  decodeSnapshot,
  encodeRecord,
  encodeSnapshot,
} from '../../src/cluster/local/record.js'
import type { ClusterState, Entry, MemberId } from '../../src/cluster/membership.js'
import { testNode } from './support/recorder.js'
import { ProcessDied, type SimHost, simHost } from './support/sim-host.js'

const DIRECTORY = '/log'
const ONE = 1 as MemberId

/** A log with one accepted member, number 1; records 1 and 2. */
function newLog(): { host: SimHost; log: EventLog } {
  const host = simHost()
  const { files } = host.process()
  files.mkdir(DIRECTORY)
  const log = EventLog.create(files, DIRECTORY, 1)
  log.append(ONE, { kind: 'join', node: testNode(1), request: Buffer.from('r'), mark: 1 })
  log.append(ONE, { kind: 'accept', joiner: ONE, answer: Buffer.from('a') })
  return { host, log }
}

function reopen(host: SimHost): EventLog {
  const numbers = [...host.files.keys()].map((path) => segmentNumber(path.split('/').at(-1)!) ?? 0)
  const log = EventLog.open(host.process().files, DIRECTORY, Math.max(0, ...numbers))
  if (log === undefined) throw new Error('nothing to open')
  return log
}

function notify(text: string | Buffer): Entry {
  return { kind: 'notify', message: Buffer.from(text) }
}

function messages(events: readonly { readonly kind: string }[]): string[] {
  return events.flatMap((event) =>
    event.kind === 'notified' ? [(event as { message?: Buffer }).message!.toString()] : [],
  )
}

test('the checksum is the CRC-32 of zlib', (t) => {
  t.is(crc32(Buffer.from('123456789')), 0xcbf43926)
  t.is(crc32(Buffer.alloc(0)), 0)
})

const ENTRIES: readonly Entry[] = [
  { kind: 'join', node: testNode(3), request: Buffer.from('request'), mark: 12 },
  { kind: 'accept', joiner: 7 as MemberId, answer: Buffer.alloc(100_000, 'a') },
  { kind: 'decline', joiner: 7 as MemberId, reason: 'an odd one — no' },
  { kind: 'leave', member: 9 as MemberId },
  notify('message'),
  notify(''),
  { kind: 'block' },
  { kind: 'unblock', message: Buffer.from('done') },
  { kind: 'update', node: { ...testNode(4), vnodes: 3 } },
  { kind: 'mark', mark: 2 ** 40 },
]

test('every entry comes back as it was written', (t) => {
  for (const entry of ENTRIES) {
    const record = { seq: 5, sender: 2 as MemberId, entry }
    const bytes = encodeRecord(record)
    t.deepEqual(decodeRecord(bytes, 0, 5), { value: record, bytes: bytes.length })
    t.deepEqual(decodeRecord(Buffer.concat([Buffer.alloc(3), bytes]), 3, 5)?.value, record)
  }
})

test('a record that is cut, flipped anywhere or has another number is not there', (t) => {
  const bytes = encodeRecord({ seq: 5, sender: ONE, entry: notify('message') })
  t.is(decodeRecord(bytes, 0, 6), undefined)
  for (let length = 0; length < bytes.length; length++) {
    t.is(decodeRecord(bytes.subarray(0, length), 0, 5), undefined)
    const flipped = Buffer.from(bytes)
    flipped[length]! ^= 0x10
    t.is(decodeRecord(flipped, 0, 5), undefined)
  }
})

test('a record of unknown kind or with too short a payload counts and changes nothing', (t) => {
  for (const [kind, length] of [
    [99, 10],
    [1, 87],
    [2, 7],
    [3, 7],
    [7, 79],
    [8, 0],
  ] as const) {
    const bytes = encodeRecord({ seq: 5, sender: ONE, entry: notify(Buffer.alloc(length)) })
    bytes[24] = kind
    bytes.writeUInt32LE(crc32(bytes.subarray(8)), 4)
    t.deepEqual(decodeRecord(bytes, 0, 5)?.value.entry, { kind: 'unknown' })
  }
})

const STATE: ClusterState = {
  nextSeq: 77,
  members: [
    { id: 3 as MemberId, node: testNode(3), mark: 4 },
    { id: 9 as MemberId, node: testNode(1), mark: 5 },
  ],
  joining: { id: 70 as MemberId, node: testNode(2), mark: 5, request: Buffer.from('let me in') },
  blocks: [9 as MemberId, 3 as MemberId, 9 as MemberId],
}

test('a snapshot comes back as it was written, or not at all', (t) => {
  const bytes = encodeSnapshot(STATE)
  t.deepEqual(decodeSnapshot(bytes), { value: STATE, bytes: bytes.length })
  const idle = { ...STATE, joining: undefined, blocks: [] }
  t.deepEqual(decodeSnapshot(encodeSnapshot(idle))?.value, idle)
  for (let length = 0; length < bytes.length; length++) {
    t.is(decodeSnapshot(bytes.subarray(0, length)), undefined)
  }
})

test('a snapshot whose counts lie is refused before anything is made of them', (t) => {
  for (const at of [43, 47, 51]) {
    const bytes = encodeSnapshot(STATE)
    bytes.writeUInt32LE(0xffff_fff0, at)
    bytes.writeUInt32LE(crc32(bytes.subarray(8)), 4)
    t.is(decodeSnapshot(bytes), undefined)
    bytes.writeUInt32LE(1000, at)
    bytes.writeUInt32LE(crc32(bytes.subarray(8)), 4)
    t.is(decodeSnapshot(bytes), undefined)
  }
})

test('a record inside a torn record is never taken for a record', (t) => {
  const { host, log } = newLog()
  const forged = encodeRecord({ seq: 4, sender: ONE, entry: notify('forged') })
  const short = encodeRecord({ seq: 3, sender: ONE, entry: notify('') })
  // The forged one sits where a record written over the torn one would end.
  const payload = Buffer.concat([forged, Buffer.alloc(1000)])
  const torn = encodeRecord({ seq: 3, sender: ONE, entry: notify(payload) })
  t.is(torn.length - payload.length, short.length)
  const inode = host.files.get(`${DIRECTORY}/events.1`)!
  inode.bytes = Buffer.concat([inode.bytes, torn.subarray(0, short.length + forged.length + 10)])
  const writer = reopen(host)
  writer.prepare()
  writer.append(ONE, notify(''))
  t.deepEqual(messages(log.catchUp()), [''])
  t.is(log.state.nextSeq, 4)
  t.deepEqual(messages(reopen(host).prepare()), [])
})

/** Appends a big record, dying in operation `operation` with `share` of it done. */
function dieAppending(host: SimHost, operation: number, share: number): boolean {
  const process = host.process()
  const log = EventLog.open(process.files, DIRECTORY, 1)!
  process.killAt(operation, share)
  try {
    log.prepare()
    log.append(ONE, notify('victim'))
    return false
  } catch (error) {
    if (error instanceof ProcessDied) return true
    throw error
  }
}

function checkAfterDeath(t: ExecutionContext, host: SimHost, log: EventLog): void {
  const writer = reopen(host)
  writer.prepare()
  writer.append(ONE, notify('next'))
  const seen = messages(log.catchUp())
  t.deepEqual(
    seen.filter((text) => text !== 'victim'),
    ['next'],
  )
  t.deepEqual(log.state, writer.state)
  t.deepEqual(reopen(host).state, log.state)
}

test('a writer may die anywhere in a rotation, and its successors in finishing it', (t) => {
  for (const share of [0, 0.4, 0.9, 1]) {
    let operation = 1
    for (; ; operation++) {
      const { host, log } = newLog()
      for (let i = 0; i < 9; i++) log.append(ONE, notify(Buffer.alloc(120_000)))
      if (!dieAppending(host, operation, share)) break
      const again = host.process()
      again.killAt(operation + 1, share)
      try {
        const log = EventLog.open(again.files, DIRECTORY, 1)
        log?.prepare()
      } catch (error) {
        t.true(error instanceof ProcessDied)
      }
      checkAfterDeath(t, host, log)
      t.true(log.segment > 1)
    }
    t.true(operation > 6, `${operation} operations`)
  }
})

test('a segment that has a successor, even an unreadable one, is never appended to', (t) => {
  const { host, log } = newLog()
  // As a crash of the machine leaves it: the name is there, the bytes never reached the disk.
  host.process().files.open(`${DIRECTORY}/events.2`, { write: true, create: true })
  const writer = reopen(host)
  writer.prepare()
  writer.append(ONE, notify('next'))
  t.is(writer.segment, 2)
  t.deepEqual(messages(log.catchUp()), ['next'])
})

test('a segment that does not continue what was seen is damage', (t) => {
  const { host, log } = newLog()
  const { files } = host.process()
  EventLog.create(files, DIRECTORY, 2)
  t.throws(() => log.catchUp(), { instanceOf: LogDamaged, message: /does not continue/ })
})

test('a reader whose segment is gone does not take its end for the end of the log', (t) => {
  const { host, log } = newLog()
  host.remove(`${DIRECTORY}/events.1`)
  t.throws(() => log.catchUp(), { instanceOf: LogDamaged, message: /was removed/ })
  t.throws(() => log.prepare(), { instanceOf: LogDamaged })
})

test('segments are kept while a member has them to read, sixteen at most', (t) => {
  const { log } = newLog()
  const fill = (): void => {
    for (let i = 0; i < 10; i++) log.append(ONE, notify(Buffer.alloc(120_000)))
  }
  t.is(log.keepFrom, 0)
  while (log.segment < 5) fill()
  t.is(log.keepFrom, 1)
  log.append(ONE, { kind: 'mark', mark: 5 })
  t.is(log.keepFrom, 4)
  while (log.segment < 30) fill()
  t.is(log.keepFrom, 14)
})

test('names that are not segments are left alone', (t) => {
  t.is(segmentNumber('events.12'), 12)
  for (const name of ['events.', 'events.0', 'events.01', 'events.1x', 'xevents.1', 'events.-1']) {
    t.is(segmentNumber(name), undefined)
  }
})
