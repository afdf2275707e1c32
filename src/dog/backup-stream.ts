/**
 * The stream of `dog vdi backup` (dog spec, section 7), little endian:
 *
 *   header   version u32 = 1 | magic u32 = 0x11921192
 *   record   object index u32 | offset in the object u32 | length u32 | 0 u32 | bytes
 *   end      0xffffffff u32 | 0 | 0 | 0
 */

export const STREAM_HEAD_BYTES = 8
export const RECORD_HEAD_BYTES = 16

const VERSION = 1
const MAGIC = 0x11921192
const END_INDEX = 0xffffffff

export interface RecordHead {
  readonly index: number
  readonly offset: number
  readonly length: number
}

export function encodeStreamHead(): Buffer {
  const head = Buffer.alloc(STREAM_HEAD_BYTES)
  head.writeUInt32LE(VERSION, 0)
  head.writeUInt32LE(MAGIC, 4)
  return head
}

export function isStreamHead(head: Buffer): boolean {
  return head.equals(encodeStreamHead())
}

export function encodeRecordHead({ index, offset, length }: RecordHead): Buffer {
  const head = Buffer.alloc(RECORD_HEAD_BYTES)
  head.writeUInt32LE(index, 0)
  head.writeUInt32LE(offset, 4)
  head.writeUInt32LE(length, 8)
  return head
}

export function encodeStreamEnd(): Buffer {
  return encodeRecordHead({ index: END_INDEX, offset: 0, length: 0 })
}

/** Undefined: the end. Throws RangeError for what is neither. */
export function decodeRecordHead(head: Buffer): RecordHead | undefined {
  const [index, offset, length, rest] = [0, 4, 8, 12].map((at) => head.readUInt32LE(at)) as [
    number,
    number,
    number,
    number,
  ]
  if (rest !== 0) throw new RangeError('a record with a reserved field')
  if (index !== END_INDEX) return { index, offset, length }
  if (offset !== 0 || length !== 0) throw new RangeError('an end with a length')
  return undefined
}
