/** Handshake messages as a client writes and reads them (NBD document, "Fixed newstyle negotiation"). */
import { encodeText } from '../../base/bytes.js'
import {
  GREETING_MAGIC,
  HandshakeFlag,
  Info,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  Option,
} from './constants.js'
import { readU64 } from './framing.js'
import { decodeName, type ExportFacts } from './options.js'

export const GREETING_BYTES = 18
export const OPTION_REPLY_HEADER_BYTES = 20
const INFO_EXPORT_BYTES = 12
const INFO_BLOCK_SIZE_BYTES = 14

export interface Greeting {
  readonly fixedNewstyle: boolean
  readonly noZeroes: boolean
}

/** Undefined: this is not how an NBD server of today greets. */
export function decodeGreeting(from: Buffer): Greeting | undefined {
  const magics = [...GREETING_MAGIC, ...OPTION_MAGIC]
  if (!magics.every((magic, i) => from.readUInt32BE(4 * i) === magic)) return undefined
  const flags = from.readUInt16BE(16)
  return {
    fixedNewstyle: (flags & HandshakeFlag.FIXED_NEWSTYLE) !== 0,
    noZeroes: (flags & HandshakeFlag.NO_ZEROES) !== 0,
  }
}

//  flags u32
export function encodeClientFlags({ fixedNewstyle, noZeroes }: Greeting): Buffer {
  const bytes = Buffer.alloc(4)
  const fixed = fixedNewstyle ? HandshakeFlag.FIXED_NEWSTYLE : 0
  bytes.writeUInt32BE(fixed | (noZeroes ? HandshakeFlag.NO_ZEROES : 0))
  return bytes
}

//  IHAVEOPT u64 | option u32 | length u32
function optionOf(option: number, length: number): Buffer {
  const bytes = Buffer.alloc(16 + length)
  OPTION_MAGIC.forEach((magic, i) => {
    bytes.writeUInt32BE(magic, 4 * i)
  })
  bytes.writeUInt32BE(option, 8)
  bytes.writeUInt32BE(length, 12)
  return bytes
}

export function encodeStartTls(): Buffer {
  return optionOf(Option.STARTTLS, 0)
}

//  option header | name length u32 | name | count u16 | count times kind u16
export function encodeGo(name: string, kinds: readonly number[]): Buffer {
  const nameBytes = encodeText(name)
  const bytes = optionOf(Option.GO, 4 + nameBytes.length + 2 + 2 * kinds.length)
  bytes.writeUInt32BE(nameBytes.length, 16)
  nameBytes.copy(bytes, 20)
  bytes.writeUInt16BE(kinds.length, 20 + nameBytes.length)
  kinds.forEach((kind, i) => {
    bytes.writeUInt16BE(kind, 22 + nameBytes.length + 2 * i)
  })
  return bytes
}

export interface OptionReplyHeader {
  readonly option: number
  readonly type: number
  /** Bytes behind the header. */
  readonly length: number
}

/** Undefined when the magic is wrong. */
export function decodeOptionReplyHeader(from: Buffer): OptionReplyHeader | undefined {
  if (!OPTION_REPLY_MAGIC.every((magic, i) => from.readUInt32BE(4 * i) === magic)) return undefined
  return {
    option: from.readUInt32BE(8),
    type: from.readUInt32BE(12),
    length: from.readUInt32BE(16),
  }
}

/** What an NBD_REP_INFO tells of what a client asked for. */
export type InfoReply =
  | { readonly kind: 'export'; readonly facts: ExportFacts }
  | { readonly kind: 'block-size'; readonly minimumBytes: number }
  /** Legal, and nothing we asked for. */
  | { readonly kind: 'other' }

/** Undefined when it is cut short. */
export function decodeInfo(data: Buffer): InfoReply | undefined {
  if (data.length < 2) return undefined
  const kind = data.readUInt16BE(0)
  if (kind === Info.EXPORT) {
    if (data.length !== INFO_EXPORT_BYTES) return undefined
    const facts = { sizeBytes: readU64(data, 2), flags: data.readUInt16BE(10) }
    return { kind: 'export', facts }
  }
  if (kind === Info.BLOCK_SIZE) {
    if (data.length !== INFO_BLOCK_SIZE_BYTES) return undefined
    return { kind: 'block-size', minimumBytes: data.readUInt32BE(2) }
  }
  return { kind: 'other' }
}

/** The sentence a refusal carries; empty when there is none that can be shown. */
export function decodeReason(data: Buffer): string {
  return decodeName(data, 0, data.length) ?? ''
}
