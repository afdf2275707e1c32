/**
 * The record of a VDI attribute, which is also what its object holds (objects spec, section 8).
 *
 *   name 256 | tag 256 | ctime u64 | snap id u32 | value length u32 | key 256 | value 65536      66320 bytes
 */
import { readCString } from '../../base/bytes.js'
import { ATTRIBUTE_BYTES } from '../../model/oid.js'
import { MalformedFrame } from './frame.js'

const TAG_OFFSET = 256
const CTIME_OFFSET = 512
const SNAP_ID_OFFSET = 520
const VALUE_LENGTH_OFFSET = 524
const KEY_OFFSET = 528
const FIELD_BYTES = 256
const VALUE_OFFSET = 784

/** Everything before the value. */
export const ATTRIBUTE_HEAD_BYTES = VALUE_OFFSET
export const ATTRIBUTE_VALUE_BYTES_MAX = ATTRIBUTE_BYTES - VALUE_OFFSET

/** Flags of GET_VDI_ATTR, in the place of the ordinary ones (protocol spec, section 5.2). */
export const AttributeFlag = { CREATE: 0x100, EXCLUSIVE: 0x200, DELETE: 0x400 } as const

export interface AttributeRecord {
  readonly name: string
  readonly tag: string
  readonly snapId: number
  readonly key: string
  readonly value: Buffer
}

/** Throws MalformedFrame for what is no record, or names more value than it has. */
export function decodeAttribute(bytes: Buffer): AttributeRecord {
  if (bytes.length !== ATTRIBUTE_BYTES) {
    throw new MalformedFrame(`an attribute of ${bytes.length} bytes`)
  }
  const length = bytes.readUInt32LE(VALUE_LENGTH_OFFSET)
  if (length > ATTRIBUTE_VALUE_BYTES_MAX) {
    throw new MalformedFrame(`an attribute's value of ${length} bytes`)
  }
  return {
    name: readCString(bytes, 0, FIELD_BYTES),
    tag: readCString(bytes, TAG_OFFSET, FIELD_BYTES),
    snapId: bytes.readUInt32LE(SNAP_ID_OFFSET),
    key: readCString(bytes, KEY_OFFSET, FIELD_BYTES),
    value: bytes.subarray(VALUE_OFFSET, VALUE_OFFSET + length),
  }
}

/** `ctime`: the volume's time of creation. */
export function setAttributeTime(record: Buffer, ctime: bigint): void {
  record.writeBigUInt64LE(ctime, CTIME_OFFSET)
}

/** What the first slot is computed from: the fields whole, with their padding. */
export function attributeIdentity(record: Buffer): Buffer {
  return Buffer.concat([
    record.subarray(0, CTIME_OFFSET),
    record.subarray(SNAP_ID_OFFSET, SNAP_ID_OFFSET + 4),
    record.subarray(KEY_OFFSET, KEY_OFFSET + FIELD_BYTES),
  ])
}

/** True when both are of one volume, snapshot and key. Both hold at least the head. */
export function isSameAttribute(a: Buffer, b: Buffer): boolean {
  return attributeIdentity(a).equals(attributeIdentity(b))
}

/** A slot whose attribute was deleted: its name is gone, the search goes on behind it. */
export function isDeletedAttribute(record: Buffer): boolean {
  return record[0] === 0
}

export function encodeAttribute(attribute: AttributeRecord): Buffer {
  const { name, tag, snapId, key, value } = attribute
  const record = Buffer.alloc(ATTRIBUTE_BYTES)
  record.write(name, 0, FIELD_BYTES - 1)
  record.write(tag, TAG_OFFSET, FIELD_BYTES - 1)
  record.writeUInt32LE(snapId, SNAP_ID_OFFSET)
  record.writeUInt32LE(value.length, VALUE_LENGTH_OFFSET)
  record.write(key, KEY_OFFSET, FIELD_BYTES - 1)
  value.copy(record, VALUE_OFFSET, 0, ATTRIBUTE_VALUE_BYTES_MAX)
  return record
}
