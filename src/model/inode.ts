/** The inode: 12587576 bytes of header, slots and generational references (objects spec, section 4). */

import type { Brand } from '../base/brand.js'
import { readCString, writeCString } from '../base/bytes.js'
import { asVid, INODE_BYTES, type Vid } from './oid.js'

export const NAME_BYTES = 256
export const TAG_OFFSET = 256
export const SNAP_CTIME_OFFSET = 520
export const SIZE_OFFSET = 536
export const STORE_POLICY_OFFSET = 553
/** Everything before the slots. */
export const INODE_HEADER_BYTES = 4664
export const SLOTS_OFFSET = 4664
export const SLOT_BYTES = 4
export const SLOTS_MAX = 1 << 20
/** Header and slots: the inode as QEMU and tgt know it. */
export const INODE_WITHOUT_REFS_BYTES = SLOTS_OFFSET + SLOTS_MAX * SLOT_BYTES
export const REFS_OFFSET = INODE_WITHOUT_REFS_BYTES
export const REF_BYTES = 8

/** Seconds << 32 | nanoseconds. */
export type SdTime = Brand<bigint, 'sdTime'>

export interface InodeHeader {
  /** Empty: deleted. */
  readonly name: string
  readonly tag: string
  readonly createTime: SdTime
  /** 0: the working VDI; else when it became a snapshot. */
  readonly snapCtime: SdTime
  readonly vmClockNsec: bigint
  readonly sizeBytes: number
  readonly vmStateBytes: bigint
  readonly policy: number
  /** 0 plain slots, 1 B-tree. */
  readonly storePolicy: number
  readonly copies: number
  readonly blockSizeShift: number
  readonly snapId: number
  readonly vid: Vid
  /** 0: none. */
  readonly parent: Vid
  readonly btreeCounter: number
}

export function encodeInodeHeader(header: InodeHeader): Buffer {
  const bytes = Buffer.alloc(INODE_HEADER_BYTES)
  writeCString(bytes, 0, NAME_BYTES, header.name)
  writeCString(bytes, TAG_OFFSET, NAME_BYTES, header.tag)
  bytes.writeBigUInt64LE(header.createTime, 512)
  bytes.writeBigUInt64LE(header.snapCtime, SNAP_CTIME_OFFSET)
  bytes.writeBigUInt64LE(header.vmClockNsec, 528)
  bytes.writeBigUInt64LE(BigInt(header.sizeBytes), SIZE_OFFSET)
  bytes.writeBigUInt64LE(header.vmStateBytes, 544)
  bytes[552] = header.policy
  bytes[553] = header.storePolicy
  bytes[554] = header.copies
  bytes[555] = header.blockSizeShift
  bytes.writeUInt32LE(header.snapId, 556)
  bytes.writeUInt32LE(header.vid, 560)
  bytes.writeUInt32LE(header.parent, 564)
  bytes.writeUInt32LE(header.btreeCounter, 568)
  return bytes
}

/** `from` holds at least the first 572 bytes. Throws RangeError on a size beyond 2^53. */
export function decodeInodeHeader(from: Buffer): InodeHeader {
  return {
    name: readCString(from, 0, NAME_BYTES),
    tag: readCString(from, TAG_OFFSET, NAME_BYTES),
    createTime: from.readBigUInt64LE(512) as SdTime,
    snapCtime: from.readBigUInt64LE(SNAP_CTIME_OFFSET) as SdTime,
    vmClockNsec: from.readBigUInt64LE(528),
    sizeBytes: safeSize(from.readBigUInt64LE(SIZE_OFFSET)),
    vmStateBytes: from.readBigUInt64LE(544),
    policy: from[552]!,
    storePolicy: from[553]!,
    copies: from[554]!,
    blockSizeShift: from[555]!,
    snapId: from.readUInt32LE(556),
    vid: asVid(from.readUInt32LE(560)),
    parent: asVid(from.readUInt32LE(564)),
    btreeCounter: from.readUInt32LE(568),
  }
}

function safeSize(value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new RangeError(`VDI of ${value} bytes`)
  return Number(value)
}

/** Bytes of an inode that carry anything for a VDI of `slots` objects: header, slots and refs. */
export function slotRange(first: number, count: number): { offset: number; length: number } {
  return { offset: SLOTS_OFFSET + first * SLOT_BYTES, length: count * SLOT_BYTES }
}

export function refRange(first: number, count: number): { offset: number; length: number } {
  return { offset: REFS_OFFSET + first * REF_BYTES, length: count * REF_BYTES }
}

/** True when a write touches nothing but slots: the way clients change references. */
export function isSlotUpdate(offset: number, length: number): boolean {
  return offset >= SLOTS_OFFSET && offset + length <= INODE_WITHOUT_REFS_BYTES
}

export function slotsOf(sizeBytes: number, blockSizeShift: number): number {
  return Math.ceil(sizeBytes / 2 ** blockSizeShift)
}

/** One generational reference (objects spec, section 6). */
export interface Ref {
  readonly generation: number
  readonly count: number
}

export function sdTime(nowMs: number): SdTime {
  const seconds = Math.floor(nowMs / 1000)
  const nanoseconds = Math.floor((nowMs - seconds * 1000) * 1_000_000)
  return ((BigInt(seconds) << 32n) | BigInt(nanoseconds)) as SdTime
}

export function sdTimeSeconds(time: bigint): number {
  return Number(time >> 32n)
}

/** A whole inode in memory, for the few operations that rewrite one. */
export class InodeImage {
  readonly bytes: Buffer

  constructor(bytes: Buffer = Buffer.alloc(INODE_BYTES)) {
    if (bytes.length !== INODE_BYTES) throw new RangeError(`inode of ${bytes.length} bytes`)
    this.bytes = bytes
  }

  header(): InodeHeader {
    return decodeInodeHeader(this.bytes)
  }

  setHeader(header: InodeHeader): void {
    encodeInodeHeader(header).copy(this.bytes)
  }

  slot(index: number): Vid {
    return this.bytes.readUInt32LE(SLOTS_OFFSET + index * SLOT_BYTES) as Vid
  }

  setSlot(index: number, vid: number): void {
    this.bytes.writeUInt32LE(vid, SLOTS_OFFSET + index * SLOT_BYTES)
  }

  ref(index: number): Ref {
    const at = REFS_OFFSET + index * REF_BYTES
    return { generation: this.bytes.readInt32LE(at), count: this.bytes.readInt32LE(at + 4) }
  }

  setRef(index: number, ref: Ref): void {
    const at = REFS_OFFSET + index * REF_BYTES
    this.bytes.writeInt32LE(ref.generation, at)
    this.bytes.writeInt32LE(ref.count, at + 4)
  }

  /** Indexes of the slots that name an object, ascending. */
  allocated(): number[] {
    const found: number[] = []
    for (let index = 0; index < SLOTS_MAX; index++) if (this.slot(index) !== 0) found.push(index)
    return found
  }
}

/** Slots of an inode range as numbers. */
export function slotArray(bytes: Buffer): Uint32Array {
  const slots = new Uint32Array(bytes.length / SLOT_BYTES)
  for (let i = 0; i < slots.length; i++) slots[i] = bytes.readUInt32LE(SLOT_BYTES * i)
  return slots
}
