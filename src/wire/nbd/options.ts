/** Handshake messages of the NBD protocol (document, "Fixed newstyle negotiation"), bytes <-> values. */
import { encodeText, readCString } from '../../base/bytes.js'
import {
  BLOCK_BYTES_MIN,
  BLOCK_BYTES_PREFERRED,
  GREETING_MAGIC,
  HandshakeFlag,
  Info,
  NBD_LIMITS,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  TransmissionFlag,
} from './constants.js'
import type { Framing } from './framing.js'

/** flags u32 */
export const CLIENT_FLAGS_BYTES = 4
/** IHAVEOPT u64 | option u32 | length u32 */
export const OPTION_HEADER_BYTES = 16
const OPTION_REPLY_HEADER_BYTES = 20
const EXPORT_NAME_ZEROES = 124
const U64_HIGH = 2 ** 32

export interface InfoRequest {
  readonly name: string
  /** Kinds of information asked for, as sent: unknown ones are legal. */
  readonly kinds: readonly number[]
}

export interface MetaRequest {
  readonly name: string
  readonly queries: readonly string[]
}

/** What a client learns of an export when it enters transmission. */
export interface ExportFacts {
  readonly sizeBytes: number
  readonly flags: number
}

//  NBDMAGIC u64 | IHAVEOPT u64 | flags u16
export function encodeGreeting(): Buffer {
  const bytes = Buffer.alloc(18)
  bytes.writeUInt32BE(GREETING_MAGIC[0], 0)
  bytes.writeUInt32BE(GREETING_MAGIC[1], 4)
  bytes.writeUInt32BE(OPTION_MAGIC[0], 8)
  bytes.writeUInt32BE(OPTION_MAGIC[1], 12)
  bytes.writeUInt16BE(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES, 16)
  return bytes
}

/** Undefined when the magic is wrong. `at` needs OPTION_HEADER_BYTES bytes behind it. */
export function decodeOptionHeader(
  from: Buffer,
  at: number,
): { readonly option: number; readonly length: number } | undefined {
  const isOption =
    from.readUInt32BE(at) === OPTION_MAGIC[0] && from.readUInt32BE(at + 4) === OPTION_MAGIC[1]
  if (!isOption) return undefined
  return { option: from.readUInt32BE(at + 8), length: from.readUInt32BE(at + 12) }
}

//  magic u64 | option u32 | reply type u32 | length u32 | data
export function encodeOptionReply(option: number, type: number, data?: Buffer): Buffer {
  const length = data?.length ?? 0
  const bytes = Buffer.alloc(OPTION_REPLY_HEADER_BYTES + length)
  bytes.writeUInt32BE(OPTION_REPLY_MAGIC[0], 0)
  bytes.writeUInt32BE(OPTION_REPLY_MAGIC[1], 4)
  bytes.writeUInt32BE(option, 8)
  bytes.writeUInt32BE(type, 12)
  bytes.writeUInt32BE(length, 16)
  data?.copy(bytes, OPTION_REPLY_HEADER_BYTES)
  return bytes
}

/** A string of the protocol; undefined when it is too long, holds a NUL or passes the end. */
export function decodeName(from: Buffer, at: number, length: number): string | undefined {
  if (length > NBD_LIMITS.stringBytesMax || at + length > from.length) return undefined
  if (from.subarray(at, at + length).includes(0)) return undefined
  return readCString(from, at, length)
}

//  name length u32 | name | count u16 | count times kind u16
export function decodeInfoRequest(data: Buffer): InfoRequest | undefined {
  if (data.length < 6) return undefined
  const nameLength = data.readUInt32BE(0)
  const name = decodeName(data, 4, nameLength)
  if (name === undefined || data.length < nameLength + 6) return undefined
  const count = data.readUInt16BE(4 + nameLength)
  if (data.length !== nameLength + 6 + 2 * count) return undefined
  const kinds = Array.from({ length: count }, (_, i) => data.readUInt16BE(nameLength + 6 + 2 * i))
  return { name, kinds }
}

//  name length u32 | name | count u32 | count times (length u32 | query)
export function decodeMetaRequest(data: Buffer): MetaRequest | undefined {
  if (data.length < 8) return undefined
  const nameLength = data.readUInt32BE(0)
  const name = decodeName(data, 4, nameLength)
  if (name === undefined || data.length < nameLength + 8) return undefined
  const count = data.readUInt32BE(4 + nameLength)
  let at = nameLength + 8
  // Each query has at least its length, so a lie about the count ends here, not in a long loop.
  if (count > (data.length - at) / 4) return undefined
  const queries: string[] = []
  for (let i = 0; i < count; i++) {
    if (at + 4 > data.length) return undefined
    const length = data.readUInt32BE(at)
    const query = decodeName(data, at + 4, length)
    if (query === undefined) return undefined
    queries.push(query)
    at += 4 + length
  }
  return at === data.length ? { name, queries } : undefined
}

//  name length u32 | name | description
export function encodeServer(name: string, description: string): Buffer {
  const nameBytes = encodeText(name)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(nameBytes.length, 0)
  return Buffer.concat([length, nameBytes, Buffer.from(description, 'utf8')])
}

//  context id u32 | name
export function encodeMetaContext(id: number, name: string): Buffer {
  const head = Buffer.alloc(4)
  head.writeUInt32BE(id, 0)
  return Buffer.concat([head, Buffer.from(name, 'utf8')])
}

//  NBD_INFO_EXPORT u16 | size u64 | flags u16
export function encodeInfoExport(facts: ExportFacts): Buffer {
  const bytes = Buffer.alloc(12)
  bytes.writeUInt16BE(Info.EXPORT, 0)
  writeFacts(bytes, 2, facts)
  return bytes
}

//  NBD_INFO_NAME or NBD_INFO_DESCRIPTION u16 | text
export function encodeInfoText(kind: number, text: string): Buffer {
  const head = Buffer.alloc(2)
  head.writeUInt16BE(kind, 0)
  return Buffer.concat([head, encodeText(text)])
}

//  NBD_INFO_BLOCK_SIZE u16 | minimum u32 | preferred u32 | maximum payload u32
export function encodeInfoBlockSize(): Buffer {
  const bytes = Buffer.alloc(14)
  bytes.writeUInt16BE(Info.BLOCK_SIZE, 0)
  bytes.writeUInt32BE(BLOCK_BYTES_MIN, 2)
  bytes.writeUInt32BE(BLOCK_BYTES_PREFERRED, 6)
  bytes.writeUInt32BE(NBD_LIMITS.payloadBytesMax, 10)
  return bytes
}

//  size u64 | flags u16 | 124 zeros unless agreed otherwise
export function encodeExportNameAnswer(facts: ExportFacts, zeroes: boolean): Buffer {
  const bytes = Buffer.alloc(10 + (zeroes ? EXPORT_NAME_ZEROES : 0))
  writeFacts(bytes, 0, facts)
  return bytes
}

/** Error reply to an option, with a sentence for people. */
export function encodeRefusal(option: number, type: number, text: string): Buffer {
  return encodeOptionReply(option, type, Buffer.from(text, 'utf8'))
}

/** Bits for an export; DF exists only with chunks, questions with a payload only with extended headers. */
export function transmissionFlags(how: {
  readonly readOnly: boolean
  readonly chunks: Framing | undefined
}): number {
  const flag = TransmissionFlag
  const always =
    flag.HAS_FLAGS | flag.SEND_FLUSH | flag.SEND_FUA | flag.SEND_CACHE | flag.CAN_MULTI_CONN
  const access = how.readOnly
    ? flag.READ_ONLY
    : flag.SEND_TRIM | flag.SEND_WRITE_ZEROES | flag.SEND_FAST_ZERO
  const chunked = how.chunks === undefined ? 0 : flag.SEND_DF
  const extended = how.chunks?.isExtended === true ? flag.BLOCK_STAT_PAYLOAD : 0
  return always | access | chunked | extended
}

function writeFacts(into: Buffer, at: number, facts: ExportFacts): void {
  into.writeUInt32BE(Math.floor(facts.sizeBytes / U64_HIGH), at)
  into.writeUInt32BE(facts.sizeBytes % U64_HIGH, at + 4)
  into.writeUInt16BE(facts.flags, at + 8)
}
