/**
 * What a client must not say, as data: each entry names the defect of sheepdog 1.0 it stands for, where there is one
 * (protocol spec, section 17; objects spec, section 19), and what our sheep answers. One table, used request by request
 * on whole nodes in one process, and all of it in a row against real daemons.
 */
import { cString } from '../../src/base/bytes.js'
import { Code } from '../../src/base/codes.js'
import { LIMITS } from '../../src/base/limits.js'
import {
  asVid,
  dataOid,
  INODE_BYTES,
  inodeOid,
  ledgerOid,
  type Oid,
  type Vid,
} from '../../src/model/oid.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import {
  clusterRequest,
  forwardRequest,
  objectRequest,
  plainRequest,
  refRequest,
  vdiRequest,
  vdiStateRequest,
} from '../../src/wire/sheepdog/requests.js'

/** What there is on the cluster that is being rude to. */
export interface Target {
  readonly epoch: number
  /** A replicated working volume with object 0, whose snapshot has the tag `tagged` and the id 1. */
  readonly vid: Vid
  readonly name: string
  readonly objectBytes: number
  /** A coded volume without objects. */
  readonly coded: Vid
}

export interface RudeRequest {
  readonly name: string
  readonly head: Buffer
  readonly body?: Buffer
  /** Any of these; 'nothing': no answer while the connection lasts; 'close': the sheep hangs up. */
  readonly expected: readonly number[] | 'nothing' | 'close'
}

const REFUSED = [Code.INVALID_PARMS] as const
const TOO_SMALL = [Code.INVALID_PARMS, Code.BUFFER_SMALL] as const
const nobody: Oid = dataOid(asVid(0x123456), 7)

const write = (
  opcode: number,
  body: Buffer,
  fields: { readonly oid: Oid } & Partial<Parameters<typeof objectRequest>[0]>,
): { head: Buffer; body: Buffer } => ({
  head: objectRequest({ ...fields, opcode, flags: Flag.WRITE, dataLength: body.length }),
  body,
})

/** Numbers nobody has given a meaning: sheepdog 1.0 looks behind the end of its table. */
function unknownOpcodes(): RudeRequest[] {
  const known = new Set<number>(Object.values(Op))
  const others = Array.from({ length: 256 }, (_, opcode) => opcode).filter((op) => !known.has(op))
  return others.map((opcode) => ({
    name: `P1: opcode 0x${opcode.toString(16).padStart(2, '0')}, which nobody knows`,
    head: plainRequest({ opcode, dataLength: 64 }),
    expected: REFUSED,
  }))
}

/** Operations that answer with a record, and how many bytes they need: asked with room for less. */
const RECORDS: readonly (readonly [string, number, number])[] = [
  ['MD_INFO', Op.MD_INFO, 263_688],
  ['GET_NODE_LIST', Op.GET_NODE_LIST, 80],
  ['CLUSTER_INFO', Op.CLUSTER_INFO, 491_568],
  ['STAT', Op.STAT, 120],
  ['STAT_RECOVERY', Op.STAT_RECOVERY, 24],
  ['GET_RECOVERY', Op.GET_RECOVERY, 24],
  ['GET_LOGLEVEL', Op.GET_LOGLEVEL, 4],
  ['GET_VNODES', Op.GET_VNODES, 4],
  ['GET_STORE_LIST', Op.GET_STORE_LIST, 7],
  ['GET_VDI_COPIES', Op.GET_VDI_COPIES, 1428],
  ['READ_VDIS', Op.READ_VDIS, 2_097_152],
  ['READ_DEL_VDIS', Op.READ_DEL_VDIS, 2_097_152],
]

/** Where ids are not given out again, whatever room there is for the answer. */
function recyclings(): RudeRequest[] {
  return [0, 1, 0xffff_ffff].map((dataLength) => ({
    name: `RECYCLE_NOW with room for ${dataLength} bytes`,
    head: plainRequest({ opcode: Op.RECYCLE_NOW, dataLength }),
    expected: [Code.NO_SUPPORT, Code.INVALID_PARMS, Code.BUFFER_SMALL],
  }))
}

function smallRooms(): RudeRequest[] {
  return RECORDS.flatMap(([name, opcode, bytes]) =>
    [0, bytes - 1].map((dataLength) => ({
      name: `P2: ${name} with room for ${dataLength} bytes`,
      head: plainRequest({ opcode, dataLength }),
      expected: TOO_SMALL,
    })),
  )
}

/** Operations that read a payload: without one, and with one byte of it. */
const PAYLOADS: readonly (readonly [string, number])[] = [
  ['SET_LOGLEVEL', Op.SET_LOGLEVEL],
  ['SET_VNODES', Op.SET_VNODES],
  ['SET_RECOVERY', Op.SET_RECOVERY],
  ['NOTIFY_VDI_DEL', Op.NOTIFY_VDI_DEL],
  ['RECYCLE_VIDS', Op.RECYCLE_VIDS],
  ['COMPLETE_RECOVERY', Op.COMPLETE_RECOVERY],
  ['MD_PLUG', Op.MD_PLUG],
  ['MD_UNPLUG', Op.MD_UNPLUG],
  ['NEW_VDI', Op.NEW_VDI],
  ['DEL_VDI', Op.DEL_VDI],
  ['LOCK_VDI', Op.LOCK_VDI],
  ['GET_VDI_INFO', Op.GET_VDI_INFO],
  ['GET_VDI_ATTR', Op.GET_VDI_ATTR],
]

function smallPayloads(): RudeRequest[] {
  return PAYLOADS.flatMap(([name, opcode]) => [
    {
      name: `P22: ${name} without its payload`,
      head: plainRequest({ opcode, dataLength: 4096 }),
      expected: REFUSED,
    },
    ...[0, 1].map((length) => ({
      name: `P22: ${name} with a payload of ${length} bytes`,
      head: plainRequest({ opcode, flags: Flag.WRITE, dataLength: length }),
      body: Buffer.alloc(length),
      expected: REFUSED,
    })),
  ])
}

function objects({ vid, objectBytes, epoch, coded }: Target): RudeRequest[] {
  const oid = dataOid(vid, 0)
  const peer = { epoch, oid: nobody }
  return [
    {
      name: 'P3: the hash of an object that is not there, of no epoch',
      head: objectRequest({ opcode: Op.GET_HASH, oid: nobody }),
      expected: [Code.NO_OBJ],
    },
    {
      name: 'P6: a peer request of an epoch that never comes',
      head: objectRequest({ opcode: Op.READ_PEER, oid, epoch: epoch + 1000, dataLength: 512 }),
      expected: 'nothing',
    },
    {
      name: 'P8: a write behind the end of its object',
      ...write(Op.WRITE_OBJ, Buffer.alloc(512, 1), { oid, offset: objectBytes }),
      expected: REFUSED,
    },
    {
      name: 'P8: a create behind the end of its object',
      ...write(Op.CREATE_AND_WRITE_OBJ, Buffer.alloc(512, 1), { oid, offset: objectBytes - 1 }),
      expected: REFUSED,
    },
    {
      name: 'P8: a peer writes behind the end of its object',
      ...write(Op.WRITE_PEER, Buffer.alloc(512, 1), { oid, epoch, offset: 0xffff_fe00 }),
      expected: REFUSED,
    },
    {
      name: 'P14: an unaligned write to a coded object that is not there',
      ...write(Op.WRITE_OBJ, Buffer.alloc(100, 1), { oid: dataOid(coded, 3), offset: 77 }),
      expected: [Code.NO_OBJ],
    },
    {
      name: 'P16: an object that pretends an impossible policy',
      ...write(Op.WRITE_PEER, Buffer.alloc(512), { oid, epoch, policy: 0x20 }),
      expected: [Code.AGAIN, Code.INVALID_PARMS],
    },
    {
      name: 'P21: a read across the end of its object',
      head: objectRequest({
        opcode: Op.READ_OBJ,
        oid,
        offset: objectBytes - 512,
        dataLength: 65_536,
      }),
      expected: REFUSED,
    },
    {
      name: 'P21: a peer reads across the end of its object',
      head: objectRequest({
        opcode: Op.READ_PEER,
        ...{ ...peer, oid },
        offset: objectBytes - 512,
        dataLength: 1024,
      }),
      expected: REFUSED,
    },
    {
      name: 'P21: a recovery reads across the end of its object',
      head: objectRequest({
        ...{ opcode: Op.READ_PEER, flags: Flag.RECOVERY, epoch, oid, targetEpoch: epoch },
        ...{ offset: objectBytes - 512, dataLength: 1024 },
      }),
      expected: REFUSED,
    },
    {
      name: 'a fragment of an object that is not coded, and one beyond the last',
      head: objectRequest({
        ...{ opcode: Op.READ_PEER, epoch, oid: dataOid(coded, 0), policy: 0x11, fragment: 200 },
        dataLength: 256,
      }),
      expected: REFUSED,
    },
    {
      name: 'objects of no kind anybody knows',
      head: objectRequest({
        opcode: Op.READ_OBJ,
        oid: 0x07ff_ffff_ffff_ffffn as Oid,
        dataLength: 16,
      }),
      expected: [Code.NO_OBJ],
    },
    {
      name: 'a discard of what is no data object',
      head: objectRequest({ opcode: Op.DISCARD_OBJ, oid: inodeOid(vid) }),
      expected: REFUSED,
    },
    {
      name: 'a copy on write of an object that is not there',
      head: objectRequest({
        ...{ opcode: Op.CREATE_AND_WRITE_OBJ, flags: Flag.WRITE | Flag.COW, dataLength: 3 },
        ...{ oid: dataOid(vid, 2), cowOid: nobody },
      }),
      body: Buffer.from('abc'),
      expected: [Code.NO_OBJ],
    },
    {
      name: 'a write of half a slot',
      ...write(Op.WRITE_OBJ, Buffer.alloc(2), { oid: inodeOid(vid), offset: 4665 }),
      expected: REFUSED,
    },
    {
      name: 'a size no volume can have',
      ...write(Op.WRITE_OBJ, Buffer.alloc(8, 0xff), { oid: inodeOid(vid), offset: 536 }),
      expected: REFUSED,
    },
    {
      name: 'P19: an inode written as a whole, header, slots and references in one, as it is',
      head: objectRequest({ opcode: Op.READ_OBJ, oid: inodeOid(vid), dataLength: INODE_BYTES }),
      expected: [Code.SUCCESS],
    },
  ]
}

function volumes({ name, vid }: Target): RudeRequest[] {
  const named = cString(name, 256)
  const fresh = cString('rude', 256)
  const newVdi = (
    what: string,
    fields: object,
    codes: readonly number[] = REFUSED,
  ): RudeRequest => ({
    name: what,
    head: vdiRequest({
      ...{ opcode: Op.NEW_VDI, flags: Flag.WRITE, dataLength: 256, sizeBytes: 1 << 22 },
      ...fields,
    }),
    body: fresh,
    expected: codes,
  })
  const byId = (what: string, opcode: number, snapId: number): RudeRequest => ({
    name: `P24: ${what} by a snapshot id in the short form, the snapshot having a tag`,
    head: vdiRequest({ opcode, flags: Flag.WRITE, dataLength: 256, snapId }),
    body: named,
    expected: [Code.NO_TAG],
  })
  return [
    newVdi('P16: a volume of a policy without parity', { policy: 0x20, copies: 2 }),
    newVdi('P16: a volume of a policy without data', { policy: 0x0f, copies: 15 }),
    newVdi('P17: a volume of objects of 2^255 bytes', { blockSizeShift: 255 }),
    newVdi('P17: a volume of objects of 2^19 bytes', { blockSizeShift: 19 }),
    newVdi('P17: a volume of objects of 2^32 bytes', { blockSizeShift: 32 }),
    newVdi('a volume of 200 copies', { copies: 200 }),
    newVdi('a volume larger than its slots', { sizeBytes: 2 ** 62 }),
    newVdi('a volume of a kind nobody knows', { storePolicy: 77 }, [
      Code.INVALID_PARMS,
      Code.NO_SUPPORT,
    ]),
    newVdi('a clone of nothing', { base: 0x123456 }, [Code.BASE_VDI_READ]),
    newVdi('a clone of a working volume', { base: vid }),
    byId('GET_VDI_INFO', Op.GET_VDI_INFO, 99),
    byId('LOCK_VDI', Op.LOCK_VDI, 99),
    byId('DEL_VDI', Op.DEL_VDI, 99),
    {
      name: 'an announcement of an impossible volume',
      head: vdiStateRequest({
        ...{ opcode: Op.NOTIFY_VDI_ADD, oldVid: asVid(0), newVid: asVid(99), copies: 200 },
        ...{ setBitmap: true, policy: 1, blockSizeShift: 99 },
      }),
      expected: REFUSED,
    },
    {
      name: 'a volume with no copies',
      head: vdiStateRequest({
        ...{ opcode: Op.ALTER_VDI_COPY, oldVid: asVid(0), newVid: vid, copies: 0 },
        ...{ setBitmap: false, policy: 0, blockSizeShift: 22 },
      }),
      expected: REFUSED,
    },
    {
      name: 'the state of a volume there is none of',
      head: vdiStateRequest({
        ...{ opcode: Op.VDI_STATE_CHECKPOINT_CTL, dataLength: 1428 },
        ...{ oldVid: asVid(1), newVid: asVid(0), copies: 0x56, setBitmap: false },
        ...{ policy: 0x12, blockSizeShift: 0 },
      }),
      expected: [Code.NO_CHECKPOINT_ENTRY],
    },
  ]
}

function clusterwide({ vid, epoch }: Target): RudeRequest[] {
  const ledger = ledgerOid(dataOid(vid, 0))
  const counting = (opcode: number, generation: number, count: number): Buffer =>
    refRequest({ opcode, epoch, ledger, generation, count })
  return [
    ...[0x1000_0000, 0xffff_ffff, (1 << 20) - 1].map((generation) => ({
      name: `O4: a reference of generation ${generation}`,
      head: counting(Op.DECREF_PEER, generation, 1),
      expected: REFUSED,
    })),
    {
      name: 'O4: a reference to something that is no ledger',
      head: refRequest({ opcode: Op.DECREF_OBJ, ledger: inodeOid(vid), generation: 0, count: 0 }),
      expected: REFUSED,
    },
    {
      name: 'a format with a store nobody has',
      head: clusterRequest({
        ...{ opcode: Op.MAKE_FS, flags: Flag.WRITE, dataLength: 5, ctime: 1n, copies: 1 },
      }),
      body: Buffer.from('fool\0'),
      expected: [Code.NO_STORE],
    },
    {
      name: 'a forced start of a cluster that runs',
      head: plainRequest({ opcode: Op.FORCE_RECOVER, dataLength: 4096 }),
      expected: [Code.FORCE_RECOVER],
    },
    {
      name: 'an epoch nobody has seen',
      head: objectRequest({
        ...{ opcode: Op.GET_EPOCH, oid: nobody, targetEpoch: 0xffff_ffff, dataLength: 4096 },
      }),
      expected: [Code.NO_TAG],
    },
    {
      name: 'an epoch, with room for half a node',
      head: objectRequest({
        opcode: Op.GET_EPOCH,
        oid: nobody,
        targetEpoch: epoch,
        dataLength: 40,
      }),
      expected: [Code.BUFFER_SMALL],
    },
    {
      name: 'the state of the cluster for more nodes than there can be',
      head: clusterRequest({ opcode: Op.STAT_CLUSTER, dataLength: 48, nodeSlots: 0xffff_ffff }),
      expected: REFUSED,
    },
    {
      name: 'a repair by a stranger',
      head: forwardRequest({
        ...{ opcode: Op.REPAIR_REPLICA, oid: dataOid(vid, 0), host: '192.0.2.1', port: 1 },
      }),
      expected: REFUSED,
    },
    {
      name: 'disks that are none',
      head: plainRequest({ opcode: Op.MD_PLUG, flags: Flag.WRITE, dataLength: 9 }),
      body: Buffer.from('/no/disk\0'),
      expected: [Code.UNKNOWN, Code.INVALID_PARMS],
    },
    {
      name: 'more paths of disks than anybody can have',
      head: plainRequest({ opcode: Op.MD_UNPLUG, flags: Flag.WRITE, dataLength: 1 << 20 }),
      body: Buffer.alloc(1 << 20, '/x,'),
      expected: REFUSED,
    },
    {
      name: 'writes of another node that has not said who it is',
      head: plainRequest({ opcode: Op.SETTLED, flags: Flag.WRITE, dataLength: 8 }),
      body: Buffer.alloc(8, 1),
      expected: REFUSED,
    },
  ]
}

function frames({ vid }: Target): RudeRequest[] {
  const oid = dataOid(vid, 0)
  const dataLength = LIMITS.sheepdogPayloadBytesMax + 1
  return [
    {
      name: 'P5: an answer of four gigabytes',
      head: objectRequest({ opcode: Op.READ_OBJ, oid, dataLength: 0xffff_ffff }),
      expected: REFUSED,
    },
    {
      name: 'P5: a payload longer than any request',
      head: objectRequest({ opcode: Op.WRITE_OBJ, flags: Flag.WRITE, oid, dataLength }),
      body: Buffer.alloc(dataLength),
      expected: REFUSED,
    },
    {
      name: 'a greeting that is none',
      head: plainRequest({ opcode: Op.HELLO, flags: Flag.WRITE, dataLength: 5 }),
      body: Buffer.from('hello'),
      expected: 'close',
    },
    ...[3, 9, 0x0a, 0xff].map((version) => {
      const head = plainRequest({ opcode: Op.GET_CLUSTER_DEFAULT })
      head[0] = version
      return { name: `client version ${version}`, head, expected: [Code.VER_MISMATCH] }
    }),
    ...[0, 2, 9, 0x0b].map((version) => {
      const head = plainRequest({ opcode: Op.STAT_SHEEP })
      head[0] = version
      return { name: `internal version ${version}`, head, expected: [Code.VER_MISMATCH] }
    }),
    {
      name: 'every flag at once',
      head: objectRequest({ opcode: Op.READ_OBJ, flags: 0xfffe, oid, dataLength: 512 }),
      expected: [Code.SUCCESS],
    },
  ]
}

export function rudeRequests(target: Target): RudeRequest[] {
  return [
    ...unknownOpcodes(),
    ...smallRooms(),
    ...smallPayloads(),
    ...recyclings(),
    ...objects(target),
    ...volumes(target),
    ...clusterwide(target),
    ...frames(target),
  ]
}
