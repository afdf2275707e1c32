/**
 * The two shapes of requests and reply chunks (NBD document, "Request message", "Structured reply chunk message" and the
 * extension EXTENDED_HEADERS): compact ones with lengths of 32 bits, extended ones with 64.
 *
 * Cookies are two i32: the server hands them back and never looks at them, and an i32 costs V8 nothing where a bigint
 * costs an allocation. Offsets and lengths above 2^53 lose bits, and are beyond every volume all the same.
 */
import {
  EXTENDED_REPLY_MAGIC,
  EXTENDED_REQUEST_MAGIC,
  REQUEST_MAGIC,
  ReplyFlag,
  STRUCTURED_REPLY_MAGIC,
} from './constants.js'

const U64_HIGH = 2 ** 32

export interface Cookie {
  cookieHigh: number
  cookieLow: number
}

export interface RequestHeader extends Cookie {
  flags: number
  type: number
  offset: number
  /** The offset as it was sent, for replies that repeat it: 64 bits, which `offset` only has as far as a number counts. */
  offsetHigh: number
  offsetLow: number
  length: number
}

export interface Chunk {
  readonly type: number
  /** Bytes behind the header. */
  readonly length: number
  readonly last: boolean
}

export interface Framing {
  readonly isExtended: boolean
  readonly requestBytes: number
  readonly chunkHeaderBytes: number
  hasRequestMagic(from: Buffer, at: number): boolean
  /** Fills `into` from `requestBytes` bytes at `at`; the caller has checked the magic. */
  decodeRequest(from: Buffer, at: number, into: RequestHeader): void
  writeChunkHeader(into: Buffer, at: number, to: RequestHeader, chunk: Chunk): void
}

//  request: magic u32 | flags u16 | type u16 | cookie u64 | offset u64 | length u32
//  chunk:   magic u32 | flags u16 | type u16 | cookie u64 | length u32
export const COMPACT: Framing = {
  isExtended: false,
  requestBytes: 28,
  chunkHeaderBytes: 20,
  hasRequestMagic: (from, at) => from.readUInt32BE(at) === REQUEST_MAGIC,
  decodeRequest: (from, at, into) => {
    decodeCommon(from, at, into)
    into.length = from.readUInt32BE(at + 24)
  },
  writeChunkHeader: (into, at, to, chunk) => {
    writeCommon(into, at, to, chunk, STRUCTURED_REPLY_MAGIC)
    into.writeUInt32BE(chunk.length, at + 16)
  },
}

//  request: magic u32 | flags u16 | type u16 | cookie u64 | offset u64 | length u64
//  chunk:   magic u32 | flags u16 | type u16 | cookie u64 | offset of the request u64 | length u64
export const EXTENDED: Framing = {
  isExtended: true,
  requestBytes: 32,
  chunkHeaderBytes: 32,
  hasRequestMagic: (from, at) => from.readUInt32BE(at) === EXTENDED_REQUEST_MAGIC,
  decodeRequest: (from, at, into) => {
    decodeCommon(from, at, into)
    into.length = readU64(from, at + 24)
  },
  writeChunkHeader: (into, at, to, chunk) => {
    writeCommon(into, at, to, chunk, EXTENDED_REPLY_MAGIC)
    into.writeUInt32BE(to.offsetHigh, at + 16)
    into.writeUInt32BE(to.offsetLow, at + 20)
    writeU64(into, at + 24, chunk.length)
  },
}

function decodeCommon(from: Buffer, at: number, into: RequestHeader): void {
  into.flags = from.readUInt16BE(at + 4)
  into.type = from.readUInt16BE(at + 6)
  into.cookieHigh = from.readInt32BE(at + 8)
  into.cookieLow = from.readInt32BE(at + 12)
  into.offsetHigh = from.readUInt32BE(at + 16)
  into.offsetLow = from.readUInt32BE(at + 20)
  into.offset = into.offsetHigh * U64_HIGH + into.offsetLow
}

function writeCommon(into: Buffer, at: number, to: Cookie, chunk: Chunk, magic: number): void {
  into.writeUInt32BE(magic, at)
  into.writeUInt16BE(chunk.last ? ReplyFlag.DONE : 0, at + 4)
  into.writeUInt16BE(chunk.type, at + 6)
  into.writeInt32BE(to.cookieHigh, at + 8)
  into.writeInt32BE(to.cookieLow, at + 12)
}

export function readU64(from: Buffer, at: number): number {
  return from.readUInt32BE(at) * U64_HIGH + from.readUInt32BE(at + 4)
}

export function writeU64(into: Buffer, at: number, value: number): void {
  into.writeUInt32BE(Math.floor(value / U64_HIGH), at)
  into.writeUInt32BE(value % U64_HIGH, at + 4)
}
