/** Messages of the transmission phase (NBD document, "Transmission"), bytes <-> values; `framing.ts` has their headers. */
import { ReplyType, SIMPLE_REPLY_MAGIC } from './constants.js'
import { type Cookie, type Framing, type RequestHeader, readU64, writeU64 } from './framing.js'

//  magic u32 | error u32 | cookie u64
export const SIMPLE_REPLY_BYTES = 16

export function writeSimpleReply(into: Buffer, at: number, to: Cookie, error: number): void {
  into.writeInt32BE(SIMPLE_REPLY_MAGIC, at)
  into.writeInt32BE(error, at + 4)
  into.writeInt32BE(to.cookieHigh, at + 8)
  into.writeInt32BE(to.cookieLow, at + 12)
}

interface Piece {
  readonly offset: number
  readonly length: number
  readonly last: boolean
}

/** Where a reply goes. */
export interface ReplyPlace {
  readonly into: Buffer
  readonly at: number
  readonly framing: Framing
}

//  chunk header | offset u64 | data
export function dataChunkBytes({ chunkHeaderBytes }: Framing): number {
  return chunkHeaderBytes + 8
}

//  chunk header | offset u64 | length u32
export function holeChunkBytes({ chunkHeaderBytes }: Framing): number {
  return chunkHeaderBytes + 12
}

/** Header of an OFFSET_DATA chunk; `piece.length` bytes of data follow it. */
export function writeDataChunkHeader(
  { into, at, framing }: ReplyPlace,
  to: RequestHeader,
  piece: Piece,
): void {
  const { OFFSET_DATA: type } = ReplyType
  framing.writeChunkHeader(into, at, to, { type, length: piece.length + 8, last: piece.last })
  writeU64(into, at + framing.chunkHeaderBytes, piece.offset)
}

/** A whole OFFSET_HOLE chunk. */
export function writeHoleChunk(
  { into, at, framing }: ReplyPlace,
  to: RequestHeader,
  piece: Piece,
): void {
  const { OFFSET_HOLE: type } = ReplyType
  framing.writeChunkHeader(into, at, to, { type, length: 12, last: piece.last })
  const body = at + framing.chunkHeaderBytes
  writeU64(into, body, piece.offset)
  into.writeUInt32BE(piece.length, body + 8)
}

export interface ErrorReply {
  readonly error: number
  readonly text: string
  /** Where in the range of the request. */
  readonly offset?: number | undefined
}

//  chunk header | error u32 | message length u16 | message | with an offset: offset u64
export function encodeErrorChunk(
  framing: Framing,
  to: RequestHeader,
  { error, text, offset }: ErrorReply,
): Buffer {
  const message = Buffer.from(text, 'utf8')
  const type = offset === undefined ? ReplyType.ERROR : ReplyType.ERROR_OFFSET
  const length = 6 + message.length + (offset === undefined ? 0 : 8)
  const bytes = Buffer.alloc(framing.chunkHeaderBytes + length)
  framing.writeChunkHeader(bytes, 0, to, { type, length, last: true })
  const body = framing.chunkHeaderBytes
  bytes.writeUInt32BE(error, body)
  bytes.writeUInt16BE(message.length, body + 4)
  message.copy(bytes, body + 6)
  if (offset !== undefined) writeU64(bytes, body + 6 + message.length, offset)
  return bytes
}

/** A stretch of the export in the eyes of one meta context. */
interface Stretch {
  readonly length: number
  readonly state: number
}

export interface StatusReply {
  readonly contextId: number
  readonly stretches: readonly Stretch[]
  /** The last chunk of the reply. */
  readonly last: boolean
}

//  compact:  chunk header | context id u32 | for each stretch: length u32, state u32
//  extended: chunk header | context id u32 | count u32 | for each stretch: length u64, state u64
export function encodeBlockStatus(framing: Framing, to: RequestHeader, reply: StatusReply): Buffer {
  const { contextId, stretches, last } = reply
  const { isExtended, chunkHeaderBytes } = framing
  const length = isExtended ? 8 + 16 * stretches.length : 4 + 8 * stretches.length
  const type = isExtended ? ReplyType.BLOCK_STATUS_EXT : ReplyType.BLOCK_STATUS
  const bytes = Buffer.alloc(chunkHeaderBytes + length)
  framing.writeChunkHeader(bytes, 0, to, { type, length, last })
  bytes.writeUInt32BE(contextId, chunkHeaderBytes)
  if (isExtended) bytes.writeUInt32BE(stretches.length, chunkHeaderBytes + 4)
  stretches.forEach((stretch, i) => {
    if (isExtended) {
      const at = chunkHeaderBytes + 8 + 16 * i
      writeU64(bytes, at, stretch.length)
      writeU64(bytes, at + 8, stretch.state)
    } else {
      const at = chunkHeaderBytes + 4 + 8 * i
      bytes.writeUInt32BE(stretch.length, at)
      bytes.writeUInt32BE(stretch.state, at + 4)
    }
  })
  return bytes
}

/** What a BLOCK_STATUS request with a payload asks for. */
export interface StatusQuestion {
  /** Of the range. */
  readonly length: number
  readonly contextIds: readonly number[]
}

/** Payload of the longest sane question: every context there may be. */
export const STATUS_PAYLOAD_BYTES_MAX = 8 + 4 * 1024

//  length of the range u64 | context ids u32 ...
export function decodeStatusQuestion(payload: Buffer): StatusQuestion | undefined {
  if (payload.length < 12 || payload.length % 4 !== 0) return undefined
  const count = (payload.length - 8) / 4
  const contextIds = Array.from({ length: count }, (_, i) => payload.readUInt32BE(8 + 4 * i))
  return { length: readU64(payload, 0), contextIds }
}
