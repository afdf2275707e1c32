/** Request headers and their unions (protocol spec, section 2.1). */
import { addressBytes, addressText } from '../../model/node.js'
import { asVid, type Oid, VID_LIMIT, type Vid } from '../../model/oid.js'
import { type Frame, HEADER_BYTES, versionFor } from './frame.js'
import { Flag, Op } from './opcodes.js'

interface Start {
  readonly opcode: number
  readonly flags?: number
  readonly epoch?: number
  readonly id?: number
  /** Payload bytes with WRITE, else room for the answer. */
  readonly dataLength?: number
}

export interface ObjectFields {
  readonly oid: Oid
  readonly cowOid?: Oid
  readonly copies?: number
  readonly policy?: number
  readonly fragment?: number
  /** Ours, in a reserved byte: what the sender takes the volume's objects for; 0: it does not say. */
  readonly blockSizeShift?: number
  readonly targetEpoch?: number
  /** Reads of a recovery: copies from this epoch up to the target will do. Sheepdog 1.0 ignores the field. */
  readonly sinceEpoch?: number
  readonly offset?: number
}

export interface VdiFields {
  readonly sizeBytes?: number
  readonly base?: number
  readonly copies?: number
  readonly policy?: number
  readonly storePolicy?: number
  readonly blockSizeShift?: number
  readonly snapId?: number
  readonly lockType?: number
}

export interface ClusterFields {
  readonly ctime?: bigint
  readonly copies?: number
  readonly policy?: number
  readonly clusterFlags?: number
  readonly nodeSlots?: number
  readonly blockSizeShift?: number
}

export interface VdiStateFields {
  readonly oldVid: Vid
  readonly newVid: Vid
  readonly copies: number
  readonly setBitmap: boolean
  readonly policy: number
  readonly blockSizeShift: number
  /** Ours, in a byte 1.0 does not look at: the volume exists, and goes on as a working one. */
  readonly reopens?: true
}

const REOPENS_OFFSET = 28

function start(fields: Start): Buffer {
  const head = Buffer.alloc(HEADER_BYTES)
  head[0] = versionFor(fields.opcode)
  head[1] = fields.opcode
  head.writeUInt16LE(fields.flags ?? 0, 2)
  head.writeUInt32LE(fields.epoch ?? 0, 4)
  head.writeUInt32LE(fields.id ?? 0, 8)
  head.writeUInt32LE(fields.dataLength ?? 0, 12)
  return head
}

/** A header whose union is zero. */
export function plainRequest(fields: Start): Buffer {
  return start(fields)
}

export function objectRequest(fields: Start & ObjectFields): Buffer {
  const head = start(fields)
  head.writeBigUInt64LE(fields.oid, 16)
  if (fields.cowOid !== undefined) head.writeBigUInt64LE(fields.cowOid, 24)
  else head.writeUInt32LE(fields.sinceEpoch ?? 0, 24)
  head[32] = fields.copies ?? 0
  head[33] = fields.policy ?? 0
  head[34] = fields.fragment ?? 0
  head[35] = fields.blockSizeShift ?? 0
  head.writeUInt32LE(fields.targetEpoch ?? 0, 36)
  head.writeUInt32LE(fields.offset ?? 0, 40)
  return head
}

export function vdiRequest(fields: Start & VdiFields): Buffer {
  const head = start(fields)
  head.writeBigUInt64LE(BigInt(fields.sizeBytes ?? 0), 16)
  head.writeUInt32LE(fields.base ?? 0, 24)
  head[28] = fields.copies ?? 0
  head[29] = fields.policy ?? 0
  head[30] = fields.storePolicy ?? 0
  head[31] = fields.blockSizeShift ?? 0
  head.writeUInt32LE(fields.snapId ?? 0, 32)
  head.writeUInt32LE(fields.lockType ?? 0, 36)
  return head
}

/** RELEASE_VDI of another volume than was asked for. */
export function setReleased(head: Buffer, vid: Vid): void {
  head.writeUInt32LE(vid, 24)
}

export function clusterRequest(fields: Start & ClusterFields): Buffer {
  const head = start(fields)
  head.writeBigUInt64LE(fields.ctime ?? 0n, 24)
  head[32] = fields.copies ?? 0
  head[33] = fields.policy ?? 0
  head.writeUInt16LE(fields.clusterFlags ?? 0, 34)
  head.writeUInt32LE(fields.nodeSlots ?? 0, 40)
  head[44] = fields.blockSizeShift ?? 0
  return head
}

export function vdiStateRequest(fields: Start & VdiStateFields): Buffer {
  const head = start(fields)
  head.writeUInt32LE(fields.oldVid, 16)
  head.writeUInt32LE(fields.newVid, 20)
  head[24] = fields.copies
  head[25] = fields.setBitmap ? 1 : 0
  head[26] = fields.policy
  head[27] = fields.blockSizeShift
  head[REOPENS_OFFSET] = fields.reopens === undefined ? 0 : 1
  return head
}

/** What no client may say of a volume. */
export function clearReopens(head: Buffer): void {
  head[REOPENS_OFFSET] = 0
}

/** NOTIFY_VDI_DEL: head and payload. */
export function deletionRequest(vid: Vid): [Buffer, Buffer] {
  const payload = Buffer.alloc(4)
  payload.writeUInt32LE(vid)
  const head = plainRequest({ opcode: Op.NOTIFY_VDI_DEL, flags: Flag.WRITE, dataLength: 4 })
  return [head, payload]
}

/** DECREF_OBJ and DECREF_PEER. */
export function refRequest(
  fields: Start & { readonly ledger: Oid; readonly generation: number; readonly count: number },
): Buffer {
  const head = start(fields)
  head.writeBigUInt64LE(fields.ledger, 16)
  head.writeUInt32LE(fields.generation >>> 0, 24)
  head.writeUInt32LE(fields.count >>> 0, 28)
  return head
}

/** Views over the union of a received request; each getter reads where the layout says. */
export const objectFields = {
  oid: (frame: Frame): Oid => frame.head.readBigUInt64LE(16) as Oid,
  /** Of the object, without a look at the rest of its id. */
  vid: (frame: Frame): Vid => asVid(frame.head.readUInt32LE(20)),
  cowOid: (frame: Frame): Oid => frame.head.readBigUInt64LE(24) as Oid,
  copies: (frame: Frame): number => frame.head[32]!,
  policy: (frame: Frame): number => frame.head[33]!,
  fragment: (frame: Frame): number => frame.head[34]!,
  blockSizeShift: (frame: Frame): number => frame.head[35]!,
  sinceEpoch: (frame: Frame): number => frame.head.readUInt32LE(24),
  targetEpoch: (frame: Frame): number => frame.head.readUInt32LE(36),
  offset: (frame: Frame): number => frame.head.readUInt32LE(40),
}

export function decodeVdiFields(frame: Frame): Required<VdiFields> {
  const { head } = frame
  return {
    sizeBytes: Number(head.readBigUInt64LE(16)),
    base: head.readUInt32LE(24),
    copies: head[28]!,
    policy: head[29]!,
    storePolicy: head[30]!,
    blockSizeShift: head[31]!,
    snapId: head.readUInt32LE(32),
    lockType: head.readUInt32LE(36),
  }
}

export function decodeClusterFields(frame: Frame): Required<ClusterFields> {
  const { head } = frame
  return {
    ctime: head.readBigUInt64LE(24),
    copies: head[32]!,
    policy: head[33]!,
    clusterFlags: head.readUInt16LE(34),
    nodeSlots: head.readUInt32LE(40),
    blockSizeShift: head[44]!,
  }
}

export function decodeVdiStateFields(frame: Frame): VdiStateFields {
  const { head } = frame
  return {
    oldVid: asVid(head.readUInt32LE(16)),
    newVid: asVid(head.readUInt32LE(20)),
    copies: head[24]!,
    setBitmap: head[25] !== 0,
    policy: head[26]!,
    blockSizeShift: head[27]!,
    ...(head[REOPENS_OFFSET] === 1 && { reopens: true as const }),
  }
}

export function decodeRefFields(frame: Frame): { ledger: Oid; generation: number; count: number } {
  const { head } = frame
  return {
    ledger: head.readBigUInt64LE(16) as Oid,
    generation: head.readUInt32LE(24),
    count: head.readUInt32LE(28),
  }
}

/** REPAIR_REPLICA: an object and the node whose copy is right. */
export function decodeForwardFields(frame: Frame): { oid: Oid; host: string; port: number } {
  const { head } = frame
  return {
    oid: head.readBigUInt64LE(16) as Oid,
    host: addressText(head.subarray(24, 40)),
    port: head.readUInt16LE(40),
  }
}

export function forwardRequest(
  fields: Start & { readonly oid: Oid; readonly host: string; readonly port: number },
): Buffer {
  const head = start(fields)
  head.writeBigUInt64LE(fields.oid, 16)
  addressBytes(fields.host).copy(head, 24)
  head.writeUInt16LE(fields.port, 40)
  return head
}

/** VDI_STATE_CHECKPOINT_CTL. `get` false: what was kept may go. */
export function decodeCheckpointFields(frame: Frame): {
  get: boolean
  targetEpoch: number
  vid: number
} {
  const { head } = frame
  return {
    get: head.readUInt32LE(16) !== 0,
    targetEpoch: head.readUInt32LE(20),
    vid: head.readUInt32LE(24) & (VID_LIMIT - 1),
  }
}
