/**
 * Messages of the transmission phase (NBD document, "Transmission"), bytes <-> values.
 *
 * Cookies are two i32: the server hands them back and never looks at them, and an i32 costs V8
 * nothing where a bigint costs an allocation.
 */
import {
  AllocationState,
  REQUEST_MAGIC,
  ReplyFlag,
  ReplyType,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './constants.js'

//  magic u32 | flags u16 | type u16 | cookie u64 | offset u64 | length u32
export const REQUEST_BYTES = 28
//  magic u32 | error u32 | cookie u64
export const SIMPLE_REPLY_BYTES = 16
//  magic u32 | flags u16 | type u16 | cookie u64 | length u32
export const CHUNK_HEADER_BYTES = 20
//  chunk header | offset u64 | data
export const DATA_CHUNK_HEADER_BYTES = CHUNK_HEADER_BYTES + 8
//  chunk header | offset u64 | length u32
export const HOLE_CHUNK_BYTES = CHUNK_HEADER_BYTES + 12

const U64_HIGH = 2 ** 32

export interface Cookie {
  cookieHigh: number
  cookieLow: number
}

/** One request; an offset above 2^53 loses bits, and is beyond every volume all the same. */
export interface RequestHeader extends Cookie {
  flags: number
  type: number
  offset: number
  length: number
}

export function hasRequestMagic(from: Buffer, at: number): boolean {
  return from.readUInt32BE(at) === REQUEST_MAGIC
}

/** Fills `into` from REQUEST_BYTES bytes at `at`; the caller has checked the magic. */
export function decodeRequest(from: Buffer, at: number, into: RequestHeader): void {
  into.flags = from.readUInt16BE(at + 4)
  into.type = from.readUInt16BE(at + 6)
  into.cookieHigh = from.readInt32BE(at + 8)
  into.cookieLow = from.readInt32BE(at + 12)
  into.offset = from.readUInt32BE(at + 16) * U64_HIGH + from.readUInt32BE(at + 20)
  into.length = from.readUInt32BE(at + 24)
}

export function writeSimpleReply(into: Buffer, at: number, to: Cookie, error: number): void {
  into.writeInt32BE(SIMPLE_REPLY_MAGIC, at)
  into.writeInt32BE(error, at + 4)
  into.writeInt32BE(to.cookieHigh, at + 8)
  into.writeInt32BE(to.cookieLow, at + 12)
}

interface Chunk {
  readonly type: number
  /** Bytes behind the header. */
  readonly length: number
  readonly last: boolean
}

export function writeChunkHeader(into: Buffer, at: number, to: Cookie, chunk: Chunk): void {
  into.writeInt32BE(STRUCTURED_REPLY_MAGIC, at)
  into.writeUInt16BE(chunk.last ? ReplyFlag.DONE : 0, at + 4)
  into.writeUInt16BE(chunk.type, at + 6)
  into.writeInt32BE(to.cookieHigh, at + 8)
  into.writeInt32BE(to.cookieLow, at + 12)
  into.writeUInt32BE(chunk.length, at + 16)
}

interface Piece {
  readonly offset: number
  readonly length: number
  readonly last: boolean
}

/** Header of an OFFSET_DATA chunk; `piece.length` bytes of data follow it. */
export function writeDataChunkHeader(into: Buffer, at: number, to: Cookie, piece: Piece): void {
  const { OFFSET_DATA: type } = ReplyType
  writeChunkHeader(into, at, to, { type, length: piece.length + 8, last: piece.last })
  writeU64(into, at + CHUNK_HEADER_BYTES, piece.offset)
}

/** A whole OFFSET_HOLE chunk. */
export function writeHoleChunk(into: Buffer, at: number, to: Cookie, piece: Piece): void {
  const { OFFSET_HOLE: type } = ReplyType
  writeChunkHeader(into, at, to, { type, length: 12, last: piece.last })
  writeU64(into, at + CHUNK_HEADER_BYTES, piece.offset)
  into.writeUInt32BE(piece.length, at + CHUNK_HEADER_BYTES + 8)
}

//  chunk header | error u32 | message length u16 | message
export function encodeErrorChunk(to: Cookie, error: number, text: string): Buffer {
  const message = Buffer.from(text, 'utf8')
  const bytes = Buffer.alloc(CHUNK_HEADER_BYTES + 6 + message.length)
  const length = 6 + message.length
  writeChunkHeader(bytes, 0, to, { type: ReplyType.ERROR, length, last: true })
  bytes.writeUInt32BE(error, CHUNK_HEADER_BYTES)
  bytes.writeUInt16BE(message.length, CHUNK_HEADER_BYTES + 4)
  message.copy(bytes, CHUNK_HEADER_BYTES + 6)
  return bytes
}

/** A stretch of the export, `length` bytes below 2^32. */
interface Stretch {
  readonly length: number
  readonly hole: boolean
}

//  chunk header | context id u32 | for each stretch: length u32, state u32
export function encodeBlockStatus(
  to: Cookie,
  contextId: number,
  stretches: readonly Stretch[],
): Buffer {
  const length = 4 + 8 * stretches.length
  const bytes = Buffer.alloc(CHUNK_HEADER_BYTES + length)
  writeChunkHeader(bytes, 0, to, { type: ReplyType.BLOCK_STATUS, length, last: true })
  bytes.writeUInt32BE(contextId, CHUNK_HEADER_BYTES)
  stretches.forEach((stretch, i) => {
    const at = CHUNK_HEADER_BYTES + 4 + 8 * i
    const state = stretch.hole ? AllocationState.HOLE_AND_ZERO : AllocationState.DATA
    bytes.writeUInt32BE(stretch.length, at)
    bytes.writeUInt32BE(state, at + 4)
  })
  return bytes
}

function writeU64(into: Buffer, at: number, value: number): void {
  into.writeUInt32BE(Math.floor(value / U64_HIGH), at)
  into.writeUInt32BE(value % U64_HIGH, at + 4)
}
