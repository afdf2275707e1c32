// The sheepdog wire held to the captured bytes of the specs (protocol.md 16, objects.md 18,
// cluster.md 18): both ways, at
// every chunk size, and what cannot be a frame refused before memory is taken for it.
import test from 'ava'
import { cString } from '../../src/base/bytes.js'
import { LIMITS } from '../../src/base/limits.js'
import {
  decodeInodeHeader,
  encodeInodeHeader,
  INODE_HEADER_BYTES,
  type InodeHeader,
  InodeImage,
  type SdTime,
  sdTime,
} from '../../src/model/inode.js'
import { asVid, dataOid, inodeOid, type Oid } from '../../src/model/oid.js'
import {
  decodeClusterMessage,
  encodeClusterMessage,
} from '../../src/wire/sheepdog/cluster-message.js'
import {
  type Frame,
  FrameReader,
  HEADER_BYTES,
  MalformedFrame,
  requestBodyLength,
  responseBodyLength,
  versionAccepted,
} from '../../src/wire/sheepdog/frame.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import {
  type ClusterInfo,
  decodeClusterInfo,
  decodeEpochLogRecord,
  decodeRecoveryState,
  encodeClusterInfo,
  encodeEpochLogRecord,
  encodeRecoveryState,
} from '../../src/wire/sheepdog/records.js'
import {
  decodeClusterDefault,
  decodeVdiReply,
  replyHead,
  setClusterDefault,
  setVdiReply,
} from '../../src/wire/sheepdog/replies.js'
import {
  clusterRequest,
  decodeClusterFields,
  decodeVdiFields,
  decodeVdiStateFields,
  objectFields,
  objectRequest,
  vdiRequest,
  vdiStateRequest,
} from '../../src/wire/sheepdog/requests.js'

/** Captured bytes; what is not written out to `length` is zero. */
function hex(length: number, ...lines: string[]): Buffer {
  const bytes = Buffer.alloc(length)
  Buffer.from(lines.join('').replace(/[^0-9a-f]/g, ''), 'hex').copy(bytes)
  return bytes
}

const ALICE = asVid(0xa03907)
const SEVEN_ZEROS = '00 00 00 00 00 00 00 00'

const NEW_VDI = hex(HEADER_BYTES, '02 11 01 00 00 00 00 00 00 00 00 00 00 01 00 00', '00 00 00 04')
const NEW_VDI_PAYLOAD = hex(256, '61 6c 69 63 65')
const NEW_VDI_REPLY = hex(
  HEADER_BYTES,
  '00 11 00 00 01 00 00 00 00 00 00 00 00 00 00 00',
  `${SEVEN_ZEROS} 07 39 a0 00 00 00 00 00`,
  '03 16',
)
const CREATE = hex(
  HEADER_BYTES,
  '02 01 01 00 00 00 00 00 00 00 00 00 00 00 40 00',
  `00 00 00 00 07 39 a0 00 ${SEVEN_ZEROS}`,
  '03',
)
const SLOT_UPDATE = hex(
  HEADER_BYTES,
  '02 03 01 00 00 00 00 00 00 00 00 00 04 00 00 00',
  `00 00 00 00 07 39 a0 80 ${SEVEN_ZEROS}`,
  '03 00 00 00 00 00 00 00 38 12',
)
const SLOT_PAYLOAD = hex(4, '07 39 a0 00')
const MAKE_FS = hex(
  HEADER_BYTES,
  '0a 84 01 00 00000000 00000000 06 00 00 00',
  `${SEVEN_ZEROS} 88 15 b2 05 b1 65 01 6b`,
  '03 00 04 00',
)
const MAKE_FS_PAYLOAD = hex(6, '70 6c 61 69 6e 00')
const VDI_ADD = hex(
  HEADER_BYTES,
  '0a af 00 00 01 00 00 00 00 00 00 00 00 00 00 00',
  '00 00 00 00 8c 9b 75 00 02 00 00 16',
)

test('no two operations have one number', (t) => {
  const numbers = Object.values(Op)
  t.is(new Set(numbers).size, numbers.length)
})

test('NEW_VDI is written and read as captured', (t) => {
  const head = vdiRequest({
    ...{ opcode: Op.NEW_VDI, flags: Flag.WRITE, dataLength: 256, sizeBytes: 64 * 1024 * 1024 },
  })
  t.deepEqual(head, NEW_VDI)
  t.deepEqual(cString('alice', 256), NEW_VDI_PAYLOAD)
  const [frame] = feed(requestBodyLength, Buffer.concat([NEW_VDI, NEW_VDI_PAYLOAD]))
  t.deepEqual(decodeVdiFields(frame!), {
    ...{ sizeBytes: 64 * 1024 * 1024, base: 0, copies: 0, policy: 0, storePolicy: 0 },
    ...{ blockSizeShift: 0, snapId: 0, lockType: 0 },
  })
})

test('the reply to NEW_VDI is written and read as captured', (t) => {
  const head = replyHead({ opcode: Op.NEW_VDI, id: 0, epoch: 1, result: 0 })
  const vdi = { vid: ALICE, attributeId: 0, copies: 3, blockSizeShift: 22 }
  t.deepEqual(setVdiReply(head, vdi), NEW_VDI_REPLY)
  const [frame] = feed(responseBodyLength, NEW_VDI_REPLY)
  t.is(frame?.epoch, 1)
  t.is(frame?.result, 0)
  t.deepEqual(decodeVdiReply(frame!), vdi)
})

test('creating an object and setting its slot are written and read as captured', (t) => {
  const create = objectRequest({
    ...{ opcode: Op.CREATE_AND_WRITE_OBJ, flags: Flag.WRITE, dataLength: 0x400000 },
    ...{ oid: dataOid(ALICE, 0), copies: 3 },
  })
  t.deepEqual(create, CREATE)
  const update = objectRequest({
    ...{ opcode: Op.WRITE_OBJ, flags: Flag.WRITE, dataLength: 4 },
    ...{ oid: inodeOid(ALICE), copies: 3, offset: 4664 },
  })
  t.deepEqual(update, SLOT_UPDATE)
  const [frame] = feed(requestBodyLength, Buffer.concat([SLOT_UPDATE, SLOT_PAYLOAD]))
  t.is(objectFields.oid(frame!), 0x80a0390700000000n as Oid)
  t.is(objectFields.cowOid(frame!), 0n as Oid)
  t.is(objectFields.copies(frame!), 3)
  t.is(objectFields.offset(frame!), 4664)
  t.deepEqual(frame?.body, SLOT_PAYLOAD)
})

test('the read of a whole inode is written as captured', (t) => {
  const head = objectRequest({
    ...{ opcode: Op.READ_OBJ, flags: Flag.DIRECT, dataLength: 12587576, oid: inodeOid(ALICE) },
  })
  t.deepEqual(head.subarray(0, 4), hex(4, '02 02 08 00'))
  t.deepEqual(head.subarray(12, 16), hex(4, '38 12 c0 00'))
})

test('every field of an object request lies where the layout says', (t) => {
  const head = objectRequest({
    ...{ opcode: Op.READ_PEER, flags: Flag.COW, epoch: 0x04030201, id: 0x08070605 },
    ...{
      dataLength: 0x0c0b0a09,
      oid: 0x1817161514131211n as Oid,
      cowOid: 0x2827262524232221n as Oid,
    },
    ...{ copies: 0x31, policy: 0x32, fragment: 0x33, targetEpoch: 0x44434241, offset: 0x54535251 },
  })
  t.is(
    head.toString('hex'),
    '0aa40200' +
      '01020304050607080' +
      '90a0b0c' +
      '1112131415161718212223242526272831323300414243445152535400000000',
  )
})

test('MAKE_FS is written and read as captured', (t) => {
  const ctime = 0x6b0165b105b21588n
  const head = clusterRequest({
    ...{ opcode: Op.MAKE_FS, flags: Flag.WRITE, dataLength: 6, ctime, copies: 3, clusterFlags: 4 },
  })
  t.deepEqual(head, MAKE_FS)
  const [frame] = feed(requestBodyLength, Buffer.concat([MAKE_FS, MAKE_FS_PAYLOAD]))
  t.deepEqual(decodeClusterFields(frame!), {
    ...{ ctime, copies: 3, policy: 0, clusterFlags: 4, nodeSlots: 0, blockSizeShift: 0 },
  })
  t.is(frame?.body.toString('latin1'), 'plain\0')
})

test('NOTIFY_VDI_ADD is written and read as captured', (t) => {
  const fields = {
    ...{ oldVid: asVid(0), newVid: asVid(0x759b8c), copies: 2, setBitmap: false },
    ...{ policy: 0, blockSizeShift: 22 },
  }
  t.deepEqual(vdiStateRequest({ opcode: Op.NOTIFY_VDI_ADD, epoch: 1, ...fields }), VDI_ADD)
  t.deepEqual(decodeVdiStateFields(feed(requestBodyLength, VDI_ADD)[0]!), fields)
})

test('GET_CLUSTER_DEFAULT answers in bytes 20 to 22', (t) => {
  const head = replyHead({ opcode: Op.GET_CLUSTER_DEFAULT, id: 0, epoch: 1, result: 0 })
  const fields = { copies: 3, policy: 0, blockSizeShift: 22 }
  t.is(setClusterDefault(head, fields).subarray(20, 23).toString('hex'), '030016')
  t.deepEqual(decodeClusterDefault(feed(responseBodyLength, head)[0]!), fields)
})

test('the inode of a fresh volume has the captured bytes, both ways', (t) => {
  const header: InodeHeader = {
    ...{ name: 'alice', tag: '', createTime: 0x6b0165cb1a29e428n as SdTime, snapCtime: sdTime(0) },
    ...{ vmClockNsec: 0n, sizeBytes: 64 * 1024 * 1024, vmStateBytes: 0n, policy: 0 },
    ...{ storePolicy: 0, copies: 3, blockSizeShift: 22, snapId: 1 },
    ...{ vid: ALICE, parent: asVid(0), btreeCounter: 0 },
  }
  const captured = hex(INODE_HEADER_BYTES, '61 6c 69 63 65')
  hex(
    64,
    '28 e4 29 1a cb 65 01 6b  00 00 00 00 00 00 00 00',
    '00 00 00 00 00 00 00 00  00 00 00 04 00 00 00 00',
    '00 00 00 00 00 00 00 00  00 00 03 16 01 00 00 00',
    '07 39 a0 00 00 00 00 00',
  ).copy(captured, 0x200)
  t.deepEqual(encodeInodeHeader(header), captured)
  t.deepEqual(decodeInodeHeader(captured), header)
  const image = new InodeImage()
  image.setHeader(header)
  image.setSlot(0, ALICE)
  t.is(image.bytes.subarray(0x1238, 0x1240).toString('hex'), '0739a00000000000')
  t.deepEqual(image.allocated(), [0])
})

test('the inode of a coded volume carries its policy byte', (t) => {
  const plain = decodeInodeHeader(Buffer.alloc(INODE_HEADER_BYTES))
  const coded = { ...plain, policy: 0x11, copies: 3, blockSizeShift: 22, vid: asVid(0x39b883) }
  const bytes = encodeInodeHeader(coded)
  t.is(bytes.subarray(0x228, 0x22c).toString('hex'), '11000316')
  t.is(bytes.subarray(0x230, 0x234).toString('hex'), '83b83900')
})

test('an inode with a size beyond what a number holds is refused by name', (t) => {
  const bytes = Buffer.alloc(INODE_HEADER_BYTES)
  bytes.writeBigUInt64LE(1n << 54n, 536)
  t.throws(() => decodeInodeHeader(bytes), { instanceOf: RangeError, message: /18014398509481984/ })
})

/** Frames of a stream fed in pieces of `size` bytes. */
function feed(
  bodyLength: typeof requestBodyLength,
  stream: Buffer,
  size: number = stream.length,
): Frame[] {
  const reader = new FrameReader(bodyLength)
  const frames: Frame[] = []
  for (let at = 0; at < stream.length; at += size) {
    // A copy: a reader that keeps views of a chunk must not see the next one in it.
    const chunk = Buffer.from(stream.subarray(at, at + size))
    reader.give(chunk)
    for (let frame = reader.next(); frame !== undefined; frame = reader.next()) frames.push(frame)
  }
  return frames
}

const shown = (frames: readonly Frame[]): string[] =>
  frames.map(({ head, body }) => `${head.toString('hex')} ${body.toString('hex')}`)

test('requests are cut alike from every chunk size', (t) => {
  const read = objectRequest({ opcode: Op.READ_OBJ, dataLength: 4096, oid: dataOid(ALICE, 5) })
  const stream = Buffer.concat([
    ...[NEW_VDI, NEW_VDI_PAYLOAD, read, read, SLOT_UPDATE, SLOT_PAYLOAD],
    ...[MAKE_FS, MAKE_FS_PAYLOAD, read],
  ])
  const whole = shown(feed(requestBodyLength, stream))
  t.is(whole.length, 6)
  t.is(whole[0], `${NEW_VDI.toString('hex')} ${NEW_VDI_PAYLOAD.toString('hex')}`)
  // Without WRITE the length is room for the answer, not a body.
  t.is(whole[1], `${read.toString('hex')} `)
  for (let size = 1; size < stream.length; size++) {
    t.deepEqual(shown(feed(requestBodyLength, stream, size)), whole, `chunks of ${size}`)
  }
})

test('replies are cut alike from every chunk size', (t) => {
  const body = Buffer.from('a body of a few bytes')
  const full = replyHead({
    ...{ opcode: Op.READ_OBJ, id: 7, epoch: 3, result: 0, dataLength: body.length },
  })
  const empty = replyHead({ opcode: Op.WRITE_OBJ, id: 8, epoch: 3, result: 0x1a })
  const stream = Buffer.concat([full, body, empty, NEW_VDI_REPLY, full, body])
  const whole = shown(feed(responseBodyLength, stream))
  t.deepEqual(whole, [
    ...[`${full.toString('hex')} ${body.toString('hex')}`, `${empty.toString('hex')} `],
    ...[`${NEW_VDI_REPLY.toString('hex')} `, `${full.toString('hex')} ${body.toString('hex')}`],
  ])
  for (let size = 1; size < stream.length; size++) {
    t.deepEqual(shown(feed(responseBodyLength, stream, size)), whole, `chunks of ${size}`)
  }
})

test('a body beyond the limit is thrown away as it comes, and takes no memory', (t) => {
  const limit = LIMITS.sheepdogPayloadBytesMax
  const before = process.memoryUsage().arrayBuffers
  for (const dataLength of [limit + 1, 0x7fffffff, 0xffffffff]) {
    const head = objectRequest({
      ...{ opcode: Op.WRITE_OBJ, flags: Flag.WRITE, dataLength, oid: dataOid(ALICE, 0) },
    })
    const reader = new FrameReader(requestBodyLength)
    reader.give(head)
    const frame = reader.next()
    t.true(frame?.isOversized)
    t.is(frame?.body.length, 0)
    const reply = replyHead({ opcode: Op.READ_OBJ, id: 1, epoch: 1, result: 0, dataLength })
    t.throws(() => feed(responseBodyLength, reply), { instanceOf: MalformedFrame })
  }
  t.true(process.memoryUsage().arrayBuffers - before < limit)
})

test('behind a body that was thrown away the next frame is found, at any chunk size', (t) => {
  const dataLength = LIMITS.sheepdogPayloadBytesMax + 1
  const head = objectRequest({
    ...{ opcode: Op.WRITE_OBJ, flags: Flag.WRITE, dataLength, oid: dataOid(ALICE, 0) },
  })
  const stream = Buffer.concat([head, Buffer.alloc(dataLength, 0xee), NEW_VDI, NEW_VDI_PAYLOAD])
  for (const size of [47, 65_537, dataLength, stream.length]) {
    const frames = feed(requestBodyLength, stream, size)
    t.deepEqual(
      frames.map(({ opcode }) => opcode),
      [Op.WRITE_OBJ, Op.NEW_VDI],
      `chunks of ${size}`,
    )
    t.true(frames[1]!.body.equals(NEW_VDI_PAYLOAD))
  }
})

test('room for an answer beyond the limit is recognised: nobody allocates it', (t) => {
  const oid = dataOid(ALICE, 0)
  const read = objectRequest({ opcode: Op.READ_OBJ, dataLength: 0xffffffff, oid })
  const [frame] = feed(requestBodyLength, read)
  t.true(frame?.isOversized)
})

test('the largest legal body passes, in one chunk and in many', (t) => {
  const body = Buffer.alloc(12587576, 7)
  const head = objectRequest({
    ...{ opcode: Op.WRITE_OBJ, flags: Flag.WRITE, dataLength: body.length, oid: inodeOid(ALICE) },
  })
  for (const size of [65536, 12587576 + HEADER_BYTES]) {
    const [frame] = feed(requestBodyLength, Buffer.concat([head, body]), size)
    t.true(frame?.body.equals(body))
  }
})

test('a frame cut short is not a frame', (t) => {
  const stream = Buffer.concat([NEW_VDI, NEW_VDI_PAYLOAD])
  for (const length of [0, 1, 47, 48, 49, stream.length - 1]) {
    t.is(feed(requestBodyLength, stream.subarray(0, length)).length, 0, `${length} bytes`)
  }
})

test('the version byte: clients up to 2, daemons exactly 0x0a', (t) => {
  const accepted = (version: number, opcode: number): boolean => versionAccepted(version, opcode)
  t.deepEqual(
    [0, 1, 2, 3].map((version) => accepted(version, Op.READ_OBJ)),
    [true, true, true, false],
  )
  t.deepEqual(
    [0, 2, 9, 10, 11].map((version) => accepted(version, Op.STAT_SHEEP)),
    [...[false, false, false, true, false]],
  )
})

const NODE = { host: '127.0.0.1', port: 7361, vnodes: 128, zone: 1, spaceBytes: 0x128facc000 }

test('a cluster message is cut into its headers and data, and refused when cut short', (t) => {
  const reply = replyHead({ opcode: Op.MAKE_FS, id: 0, epoch: 0, result: 0 })
  const bytes = encodeClusterMessage(MAKE_FS, reply, MAKE_FS_PAYLOAD)
  const message = decodeClusterMessage(bytes)
  t.deepEqual(message.request.head, MAKE_FS)
  t.deepEqual(message.request.body, MAKE_FS_PAYLOAD)
  t.is(message.response.opcode, Op.MAKE_FS)
  t.throws(() => decodeClusterMessage(bytes.subarray(0, 95)), { instanceOf: MalformedFrame })
})

test('cluster_info goes both ways and is refused when its node count lies', (t) => {
  const info: ClusterInfo = {
    ...{ version: 10, recoveryDisabled: true, epoch: 3, ctime: 5n, flags: 4, copies: 3, policy: 0 },
    ...{ blockSizeShift: 22, store: 'plain', nodes: [NODE, { ...NODE, port: 7362 }] },
    status: 'wait',
  }
  const bytes = encodeClusterInfo(info)
  t.deepEqual(decodeClusterInfo(bytes), info)
  t.throws(() => decodeClusterInfo(bytes.subarray(0, -1)), { instanceOf: RangeError })
  for (const count of [3, 6145, -1]) {
    const liar = Buffer.from(bytes)
    liar.writeInt16LE(count, 2)
    t.throws(() => decodeClusterInfo(liar), { instanceOf: RangeError }, `${count} nodes`)
  }
  const status = Buffer.from(bytes)
  status[20] = 9
  t.throws(() => decodeClusterInfo(status), { instanceOf: RangeError })
})

test('an epoch log record goes both ways; a count beyond its slots reads the slots', (t) => {
  const record = {
    ...{ ctime: 5n, time: 1795253998, epoch: 2, recoveryDisabled: false, copies: 3, policy: 0x11 },
    ...{ flags: 4, store: 'plain', nodes: [NODE] },
  }
  const bytes = encodeEpochLogRecord(record, 4)
  t.is(bytes.length, 48 + 4 * 80)
  t.deepEqual(decodeEpochLogRecord(bytes, 4), record)
  bytes.writeUInt32LE(0xffffffff, 20)
  t.is(decodeEpochLogRecord(bytes, 4).nodes.length, 4)
})

test('recovery_state goes both ways', (t) => {
  const state = { inRecovery: true, phase: 1, finished: 3, total: 94 }
  t.deepEqual(decodeRecoveryState(encodeRecoveryState(state)), state)
})
