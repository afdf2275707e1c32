// Bytes of the corosync driver's messages, against what sheepdog 1.0 sends (cluster spec, sections 11 and 18).
import test from 'ava'
import { decodeBeat, encodeBeat } from '../../src/cluster/corosync/beat.js'
import {
  decodeMessage,
  encodeMessage,
  type Message,
  PLAIN,
} from '../../src/cluster/corosync/message.js'

const NODE = { host: '127.0.0.1', port: 7400, vnodes: 128, zone: 16777343, spaceBytes: 1 << 30 }
const SUBJECT = { process: { nodeId: 1, pid: 20582 }, node: NODE }

const bytesOf = (message: Message): Buffer => Buffer.concat(encodeMessage(message))

test('a JOIN has the header and the length 1.0 sends', (t) => {
  const payload = Buffer.from('cluster information')
  const bytes = bytesOf({ ...PLAIN, type: 'join', subject: SUBJECT, payload })
  t.is(bytes.length, 90208 + 131072)
  t.is(bytes.toString('hex', 0, 8), '0100000066500000')
  t.is(bytes.toString('hex', 8 + 24 + 12, 8 + 24 + 18), '7f000001e81c')
  t.is(bytes.toString('hex', 88, 96), '0000000000000200')
  t.deepEqual(bytes.subarray(90208, 90208 + payload.length), payload)
})

test('types are numbered as in 1.0; only JOIN and ACCEPT are padded', (t) => {
  const types = ['join', 'accept', 'leave', 'notify', 'block', 'unblock', 'update'] as const
  const payload = Buffer.alloc(102, 7)
  types.forEach((type, number) => {
    const bytes = bytesOf({ ...PLAIN, type, subject: SUBJECT, payload })
    t.is(bytes.readUInt16LE(88), number)
    t.is(bytes.readUInt32LE(92), type === 'join' || type === 'accept' ? 131072 : 102)
  })
})

test('an ACCEPT names members, waiting BLOCKs and its exact length, and comes back', (t) => {
  const members = Array.from({ length: 40 }, (_, i) => ({
    process: { nodeId: i, pid: 1000 + i },
    node: { ...NODE, host: `10.0.0.${i + 1}` },
  }))
  const blocks = [members[3]!.process, members[3]!.process, members[0]!.process]
  const payload = Buffer.from('ends with zeros\0\0')
  const message = {
    ...PLAIN,
    type: 'accept' as const,
    subject: SUBJECT,
    members,
    blocks,
    incarnation: '0123456789abcdef',
    payload,
  }
  const bytes = bytesOf(message)
  t.is(bytes.readUInt16LE(90), 40)
  t.is(bytes.readUInt32LE(96 + 3 * 88 + 4), 1003)
  t.deepEqual(decodeMessage(bytes), message)
})

test('what 1.0 sends has no such trailer, and is taken as it is', (t) => {
  const bytes = bytesOf({ ...PLAIN, type: 'accept', subject: SUBJECT })
  bytes.fill(0, 96, 90208)
  const { payload, blocks, incarnation } = decodeMessage(bytes)
  t.is(payload.length, 131072)
  t.deepEqual([blocks, incarnation], [[], ''])
})

test('too long, too many members, too many BLOCKs: refused, never cut', (t) => {
  const plain = { ...PLAIN, type: 'join' as const, subject: SUBJECT }
  t.notThrows(() => bytesOf({ ...plain, payload: Buffer.alloc(48 + 1637 * 80) }))
  const error = t.throws(() => bytesOf({ ...plain, payload: Buffer.alloc(48 + 1638 * 80) }), {
    instanceOf: RangeError,
  })
  t.regex(error.message, /1637 nodes/)
  const members = Array.from({ length: 1024 }, () => SUBJECT)
  t.throws(() => bytesOf({ ...plain, members }), { instanceOf: RangeError })
  t.notThrows(() => bytesOf({ ...plain, members: members.slice(1) }))
  const blocks = [SUBJECT.process]
  t.throws(() => bytesOf({ ...plain, members: members.slice(1), blocks }))
})

test('a message that lies about its lengths is a RangeError and nothing else', (t) => {
  const good = bytesOf({ ...PLAIN, type: 'accept', subject: SUBJECT, members: [SUBJECT] })
  const lies: [at: number, value: number, bytes: 2 | 4][] = [
    [88, 7, 2],
    [90, 1025, 2],
    [92, 131073, 4],
    [92, 0xffffffff, 4],
    [96 + 1023 * 88 + 4, 131073, 4],
    [96 + 1023 * 88 + 8, 0xffffffff, 4],
  ]
  for (const [at, value, size] of lies) {
    const bad = Buffer.from(good)
    bad.writeUIntLE(value, at, size)
    t.throws(() => decodeMessage(bad), { instanceOf: RangeError }, `${at}`)
  }
  for (const length of [0, 95, 90207, good.length - 1]) {
    t.throws(() => decodeMessage(good.subarray(0, length)), { instanceOf: RangeError })
  }
})

test('a beat comes back as it was; a cut one is a RangeError', (t) => {
  const beat = {
    kind: 'refusal' as const,
    incarnation: 'ffeeddccbbaa9988',
    number: 77,
    isSure: true,
    isServing: true,
    isTorn: true,
    age: 86400,
    entries: [{ process: SUBJECT.process, incarnation: '0011223344556677', number: 5 }],
    reason: 'because',
  }
  const bytes = encodeBeat(beat)
  t.deepEqual(decodeBeat(bytes), beat)
  for (const length of [0, 4, 23, 43]) {
    t.throws(() => decodeBeat(bytes.subarray(0, length)), { instanceOf: RangeError })
  }
  bytes[4] = 9
  t.throws(() => decodeBeat(bytes), { instanceOf: RangeError })
})
