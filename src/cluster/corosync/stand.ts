/**
 * What members of a torn cluster tell each other in order (tear.ts): a message of the group "sheepdog" that 1.0 does not
 * have, short because nobody else has to read it.
 *
 *   0 nodeid u32, pid u32 of the sender, zeros up to 88
 *  88 type u16: 7 | zeros up to 96
 *  96 "SDt1" | kind u8: 0 stand, 1 final | zero | reunions u16
 * 104 history u64 | count of `against` u32 | count of `missing` u32
 * 120 nodeid u32, pid u32 of each
 */
import type { ProcessId } from '../../world/corosync.js'
import { MEMBERS_MAX, putProcess, takeProcess } from './message.js'

const TYPE = 7
const TYPE_OFFSET = 88
const MAGIC_OFFSET = 96
const MAGIC = Buffer.from('SDt1')
const KIND_OFFSET = 100
const REUNIONS_OFFSET = 102
const REUNIONS_MAX = 0xffff
const HISTORY_OFFSET = 104
const AGAINST_OFFSET = 112
const MISSING_OFFSET = 116
const HEAD_BYTES = 120
const ENTRY_BYTES = 8
const KINDS = ['stand', 'final'] as const

export interface Stand {
  readonly kind: (typeof KINDS)[number]
  /** What its sender had seen before the tear. */
  readonly history: bigint
  /** How often parts of this tear have become one, as far as its sender's part knows. */
  readonly reunions: number
  /** Whom its sender never takes back. */
  readonly against: readonly ProcessId[]
  /** Of a stand: whom its sender lacks. */
  readonly missing: readonly ProcessId[]
}

export function encodeStand(sender: ProcessId, stand: Stand): Buffer {
  const { kind, history, reunions, against, missing } = stand
  const all = [...against, ...missing]
  const bytes = Buffer.alloc(HEAD_BYTES + all.length * ENTRY_BYTES)
  putProcess(bytes, 0, sender)
  bytes.writeUInt16LE(TYPE, TYPE_OFFSET)
  MAGIC.copy(bytes, MAGIC_OFFSET)
  bytes[KIND_OFFSET] = KINDS.indexOf(kind)
  bytes.writeUInt16LE(Math.min(reunions, REUNIONS_MAX), REUNIONS_OFFSET)
  bytes.writeBigUInt64LE(history, HISTORY_OFFSET)
  bytes.writeUInt32LE(against.length, AGAINST_OFFSET)
  bytes.writeUInt32LE(missing.length, MISSING_OFFSET)
  all.forEach((process, i) => {
    putProcess(bytes, HEAD_BYTES + i * ENTRY_BYTES, process)
  })
  return bytes
}

/** Undefined: another message. Throws RangeError on what is neither. */
export function decodeStand(bytes: Buffer): Stand | undefined {
  const isOurs =
    bytes.length >= HEAD_BYTES &&
    bytes.readUInt16LE(TYPE_OFFSET) === TYPE &&
    bytes.subarray(MAGIC_OFFSET, MAGIC_OFFSET + 4).equals(MAGIC)
  if (!isOurs) return undefined
  const kind = KINDS[bytes[KIND_OFFSET] ?? 0xff]
  const [against, missing] = [AGAINST_OFFSET, MISSING_OFFSET].map((at) => bytes.readUInt32LE(at))
  const [first, rest] = [against ?? 0, missing ?? 0]
  const isTooMany = first > MEMBERS_MAX || rest > MEMBERS_MAX
  if (
    kind === undefined ||
    isTooMany ||
    bytes.length !== HEAD_BYTES + (first + rest) * ENTRY_BYTES
  ) {
    throw new RangeError(`stand of ${bytes.length} bytes`)
  }
  const all = Array.from({ length: first + rest }, (_, i) =>
    takeProcess(bytes, HEAD_BYTES + i * ENTRY_BYTES),
  )
  const history = bytes.readBigUInt64LE(HISTORY_OFFSET)
  const reunions = bytes.readUInt16LE(REUNIONS_OFFSET)
  return { kind, history, reunions, against: all.slice(0, first), missing: all.slice(first) }
}
