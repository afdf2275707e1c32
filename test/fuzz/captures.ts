/**
 * What real clients send, request by request, in their order: QEMU 5.2's driver (as captured from it: version bytes,
 * flags, lengths, which connection), tgt's backing store, dog and other sheep. Payloads are shorter than the originals where
 * their content does not matter.
 */
import { cString } from '../../src/base/bytes.js'
import { encodeNode } from '../../src/model/node.js'
import {
  asVid,
  dataOid,
  INODE_BYTES,
  inodeOid,
  ledgerOid,
  type Oid,
  vmstateOid,
} from '../../src/model/oid.js'
import { AttributeFlag, encodeAttribute } from '../../src/wire/sheepdog/attribute.js'
import { encodeHello } from '../../src/wire/sheepdog/hello.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { recyclingMessage, recyclingQuestion } from '../../src/wire/sheepdog/recycling.js'
import {
  clusterRequest,
  forwardRequest,
  objectRequest,
  plainRequest,
  refRequest,
  vdiRequest,
  vdiStateRequest,
} from '../../src/wire/sheepdog/requests.js'

export type Capture = readonly Buffer[]

const VID = asVid(0x15d167)
const HEIR = asVid(0x15d168)
const HEADER_AND_SLOTS = 4_198_968
const HEADER = 4664
const { WRITE, CACHE, DIRECT, COW, TGT, PIGGYBACK, RECOVERY } = Flag

const names = (...parts: readonly string[]): Buffer =>
  Buffer.concat(parts.map((part) => cString(part, 256)))

function frame(version: number, head: Buffer, body: Buffer = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.concat([head, body])
  bytes[0] = version
  if (body.length > 0) {
    bytes.writeUInt16LE(bytes.readUInt16LE(2) | WRITE, 2)
    bytes.writeUInt32LE(body.length, 12)
  }
  return bytes
}

type ObjectPart = Omit<Parameters<typeof objectRequest>[0], 'opcode' | 'oid'>

const object = (
  version: number,
  opcode: number,
  oid: Oid,
  part: ObjectPart = {},
  body?: Buffer,
): Buffer => frame(version, objectRequest({ opcode, oid, ...part }), body)

const volume = (
  version: number,
  opcode: number,
  body: Buffer,
  part: Omit<Parameters<typeof vdiRequest>[0], 'opcode'> = {},
): Buffer => frame(version, vdiRequest({ opcode, ...part }), body)

const plain = (version: number, opcode: number, dataLength = 0, body?: Buffer): Buffer =>
  frame(version, plainRequest({ opcode, dataLength }), body)

const slot = (vid: number, index: number, id = 1, flags: number = CACHE): Buffer => {
  const body = Buffer.alloc(4)
  body.writeUInt32LE(vid)
  return object(0, Op.WRITE_OBJ, inodeOid(VID), { flags, id, offset: HEADER + 4 * index }, body)
}

const data = (length: number, fill = 0x11): Buffer => Buffer.alloc(length, fill)

/** qemu-img create, then qemu-io: writes into new, own and inherited objects, flush, discard, resize, close. */
const QEMU: readonly Capture[] = [
  [
    plain(1, Op.GET_CLUSTER_DEFAULT),
    volume(0, Op.NEW_VDI, names('Alice'), { sizeBytes: 64 << 20, blockSizeShift: 20 }),
    volume(0, Op.NEW_VDI, names('BobEC'), { sizeBytes: 16 << 20, copies: 3, policy: 0x11 }),
  ],
  [
    volume(1, Op.LOCK_VDI, names('Alice', '')),
    object(0, Op.READ_OBJ, inodeOid(VID), { flags: CACHE, dataLength: HEADER_AND_SLOTS }),
    object(0, Op.CREATE_AND_WRITE_OBJ, dataOid(VID, 0), { flags: CACHE, copies: 1 }, data(4096)),
    slot(VID, 0),
    object(0, Op.FLUSH_VDI, inodeOid(VID), { flags: CACHE, id: 2 }),
    object(0, Op.WRITE_OBJ, dataOid(VID, 0), { flags: CACHE, id: 3, offset: 512 }, data(512, 0x22)),
    object(0, Op.READ_OBJ, dataOid(VID, 0), { flags: CACHE, id: 4, offset: 512, dataLength: 512 }),
    slot(0, 0, 5),
    object(0, Op.WRITE_OBJ, inodeOid(VID), { id: 6, flags: CACHE }, data(HEADER, 0)),
    volume(0, Op.RELEASE_VDI, Buffer.from('Alice\0'), { base: VID }),
  ],
  [
    object(0, Op.WRITE_OBJ, inodeOid(VID), { flags: CACHE }, data(HEADER, 0)),
    volume(0, Op.NEW_VDI, names('Alice'), { base: VID, snapId: 1, copies: 2, blockSizeShift: 20 }),
    object(0, Op.READ_OBJ, inodeOid(HEIR), { dataLength: HEADER }),
    object(
      ...([0, Op.CREATE_AND_WRITE_OBJ, dataOid(HEIR, 0)] as const),
      { flags: COW | CACHE, cowOid: dataOid(VID, 0), offset: 65_536 },
      data(4096),
    ),
    plain(0, Op.READ_VDIS, 2_097_152),
    volume(1, Op.GET_VDI_INFO, names('Alice', 'snap1')),
    volume(0, Op.DEL_VDI, names('Alice'), { base: VID }),
    volume(0, Op.NEW_VDI, names('Alice'), { base: VID, snapId: 0, sizeBytes: 64 << 20 }),
    volume(0, Op.DEL_VDI, names('Alice', ''), { snapId: 1 }),
  ],
  [
    object(0, Op.CREATE_AND_WRITE_OBJ, vmstateOid(VID, 0), { flags: CACHE }, data(191)),
    object(0, Op.WRITE_OBJ, vmstateOid(VID, 0), { flags: CACHE, offset: 191 }, data(4121)),
    object(0, Op.READ_OBJ, vmstateOid(VID, 0), { offset: 7, dataLength: 300 }),
  ],
]

const TGTD: Capture = [
  volume(1, Op.LOCK_VDI, names('Alice', ''), { lockType: 1 }),
  object(1, Op.READ_OBJ, inodeOid(VID), { flags: TGT, dataLength: HEADER_AND_SLOTS }),
  object(1, Op.CREATE_AND_WRITE_OBJ, dataOid(VID, 5), { flags: CACHE | TGT }, data(2048)),
  object(1, Op.WRITE_OBJ, inodeOid(VID), { flags: TGT, offset: HEADER + 20 }, data(4)),
  object(1, Op.FLUSH_VDI, inodeOid(VID)),
  frame(0, vdiRequest({ opcode: Op.RELEASE_VDI, base: VID, lockType: 1 })),
]

const attribute = encodeAttribute({
  ...{ name: 'Alice', tag: '', snapId: 0, key: 'color', value: Buffer.from('red') },
})

const DOG: readonly Capture[] = [
  [
    plain(0x0a, Op.GET_NODE_LIST, 491_520),
    frame(0x0a, clusterRequest({ opcode: Op.STAT_CLUSTER, dataLength: 48 })),
    frame(0x0a, clusterRequest({ opcode: Op.STAT_CLUSTER, dataLength: 4096, nodeSlots: 4 })),
    plain(0x0a, Op.CLUSTER_INFO, 491_568),
    plain(0x0a, Op.STAT_SHEEP),
    plain(0x0a, Op.STAT, 120),
    plain(0x0a, Op.MD_INFO, 263_688),
    plain(0x0a, Op.STAT_RECOVERY, 24),
    plain(0x0a, Op.GET_LOGLEVEL, 4),
    plain(0x0a, Op.SET_LOGLEVEL, 0, data(4, 0)),
    plain(0x0a, Op.GET_VNODES, 4),
    plain(0x0a, Op.SET_VNODES, 0, data(4, 0)),
    plain(0x0a, Op.GET_RECOVERY, 24),
    plain(0x0a, Op.SET_RECOVERY, 0, data(24, 0)),
    plain(0x0a, Op.GET_STORE_LIST, 512),
    plain(0x0a, Op.READ_DEL_VDIS, 2_097_152),
    plain(0x0a, Op.GET_VDI_COPIES, 1428 * 512),
    plain(0x0a, Op.MD_PLUG, 0, Buffer.from('/nowhere\0')),
    plain(0x0a, Op.DISABLE_RECOVER),
    plain(0x0a, Op.ENABLE_RECOVER),
    plain(0x0a, Op.CLEANUP),
    plain(0x0a, Op.FORCE_RECOVER, 4096),
  ],
  [
    volume(2, Op.NEW_VDI, names('disk'), { sizeBytes: 4 << 20, copies: 2 }),
    object(2, Op.READ_OBJ, inodeOid(VID), { flags: DIRECT, dataLength: 4672 }),
    object(2, Op.READ_OBJ, inodeOid(VID), { flags: DIRECT, dataLength: INODE_BYTES }),
    frame(0x0a, vdiRequest({ opcode: Op.GET_VDI_ATTR, flags: AttributeFlag.CREATE }), attribute),
    frame(0x0a, vdiRequest({ opcode: Op.GET_VDI_ATTR }), attribute),
    frame(0x0a, clusterRequest({ opcode: Op.ALTER_CLUSTER_COPY, copies: 2 })),
    frame(0x0a, vdiStateRequest({ opcode: Op.ALTER_VDI_COPY, ...announced(), copies: 3 })),
    object(2, Op.DISCARD_OBJ, dataOid(VID, 0)),
    object(2, Op.REMOVE_OBJ, dataOid(VID, 1)),
    object(0x0a, Op.DELETE_CACHE, inodeOid(VID)),
    plain(0x0a, Op.FLUSH_DEL_CACHE),
    object(0x0a, Op.EXIST, dataOid(VID, 0)),
    object(0x0a, Op.OIDS_EXIST, dataOid(VID, 0), { flags: PIGGYBACK }, data(24)),
    frame(
      0x0a,
      forwardRequest({
        ...{ opcode: Op.REPAIR_REPLICA, oid: dataOid(VID, 0), host: '127.0.0.1', port: 7001 },
      }),
    ),
  ],
]

function announced() {
  return {
    ...{ oldVid: asVid(0), newVid: HEIR, copies: 2, setBitmap: false },
    ...{ policy: 0, blockSizeShift: 20 },
  }
}

const SHEEP: readonly Capture[] = [
  [
    plain(
      ...([0x0a, Op.HELLO, 0] as const),
      encodeHello({ host: '127.0.0.1', port: 7001, incarnation: data(8), serial: 1 }),
    ),
    object(0x0a, Op.CREATE_AND_WRITE_PEER, dataOid(VID, 0), { epoch: 1 }, data(1024)),
    object(0x0a, Op.WRITE_PEER, dataOid(VID, 0), { epoch: 1, offset: 512 }, data(512)),
    object(0x0a, Op.READ_PEER, dataOid(VID, 0), { epoch: 1, dataLength: 2048 }),
    object(0x0a, Op.READ_PEER, dataOid(VID, 0), {
      ...{ epoch: 1, flags: RECOVERY, targetEpoch: 1, dataLength: 512 },
    }),
    object(0x0a, Op.READ_PEER, dataOid(VID, 0), {
      ...{ epoch: 1, policy: 0x11, fragment: 2, dataLength: 256 },
    }),
    object(0x0a, Op.GET_HASH, dataOid(VID, 0), { epoch: 1, targetEpoch: 1 }),
    object(0x0a, Op.REMOVE_PEER, dataOid(VID, 0), { epoch: 1 }),
    object(0x0a, Op.FLUSH_PEER, inodeOid(VID), { epoch: 1 }),
    object(0x0a, Op.FLUSH_NODES, inodeOid(VID), { epoch: 1, cowOid: inodeOid(HEIR) }),
    object(0x0a, Op.SUSPECT, dataOid(VID, 0), { epoch: 1 }),
    plain(0x0a, Op.SETTLED, 0, data(16)),
    object(0x0a, Op.GET_SUSPECTS, inodeOid(VID), { targetEpoch: 1, dataLength: 4096 }),
    object(0x0a, Op.GET_OBJ_LIST, inodeOid(VID), { dataLength: 65_536 }),
    object(0x0a, Op.GET_EPOCH, inodeOid(VID), { targetEpoch: 1, dataLength: 4096 }),
  ],
  [
    frame(0x0a, vdiStateRequest({ opcode: Op.NOTIFY_VDI_ADD, ...announced() })),
    plain(0x0a, Op.NOTIFY_VDI_DEL, 0, data(4, 0)),
    frame(0x0a, ...recyclingMessage({ step: 'erase', epoch: 1, serial: 1, vids: [VID, HEIR] })),
    frame(0x0a, ...recyclingMessage({ step: 'free', epoch: 1, serial: 1, vids: [VID] })),
    frame(0x0a, ...recyclingQuestion({ serial: 0, vids: [VID, HEIR] })),
    frame(0x0a, objectRequest({ opcode: Op.COMPLETE_RECOVERY, oid: 0n as Oid }), node()),
    frame(0x0a, refRequest({ opcode: Op.DECREF_OBJ, ...ref() })),
    frame(0x0a, refRequest({ opcode: Op.DECREF_PEER, epoch: 1, ...ref() })),
    frame(
      0x0a,
      vdiStateRequest({
        ...{ opcode: Op.VDI_STATE_CHECKPOINT_CTL, dataLength: 1428 },
        ...{ oldVid: asVid(1), newVid: asVid(1), copies: 0x67, setBitmap: true },
        ...{ policy: 0x15, blockSizeShift: 0 },
      }),
    ),
    plain(0x0a, Op.REWEIGHT),
  ],
]

function ref() {
  return { ledger: ledgerOid(dataOid(VID, 0)), generation: 0, count: 0 }
}

function node(): Buffer {
  return encodeNode({ host: '127.0.0.1', port: 7000, vnodes: 128, zone: 1, spaceBytes: 1 << 30 })
}

/** Each one is what a client says on its connections from the beginning to the end. */
export const CAPTURES: readonly Capture[] = [...QEMU, TGTD, ...DOG, ...SHEEP]
