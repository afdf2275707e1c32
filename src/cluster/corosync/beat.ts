/**
 * What members tell each other beside the group 1.0 knows, in a group of its own ("sheepdog.sure").
 *
 *   0 "SDb1" | kind u8 | flags u8: 1 sure, 2 serving, 4 torn | entries u16
 *   8 incarnation 8 | number u32 | age in seconds u32
 *  24 entries of 20: nodeid u32, pid u32, incarnation 8, number u32
 *
 * A beat lists the members as its sender sees them, and the newest beat it has had of each: so it is an
 * acknowledgement to all at once. A refusal tells a joiner why it stays outside; its entry is the joiner, the
 * reason follows. An eviction names a member that has been silent for too long.
 */
import type { ProcessId } from '../../world/corosync.js'
import { INCARNATION_BYTES, MEMBERS_MAX, putProcess, takeProcess } from './message.js'

export const BEAT_GROUP = 'sheepdog.sure'

const MAGIC = Buffer.from('SDb1')
const HEAD_BYTES = 24
const ENTRY_BYTES = 20
const KINDS = ['beat', 'refusal', 'eviction'] as const
const SURE = 1
const SERVING = 2
const TORN = 4
const REASON_BYTES_MAX = 1000

export interface BeatEntry {
  readonly process: ProcessId
  /** Hexadecimal; zeros when nothing has been heard of it. */
  readonly incarnation: string
  readonly number: number
}

export interface Beat {
  readonly kind: (typeof KINDS)[number]
  readonly incarnation: string
  readonly number: number
  /** Its sender may be sure of itself. */
  readonly isSure: boolean
  /** Its cluster has the members it needs, and serves. */
  readonly isServing: boolean
  /** It has lost members and may still take them back: of itself it decides nothing. */
  readonly isTorn: boolean
  /** How long its cluster has had members without a break, in whole seconds. */
  readonly age: number
  readonly entries: readonly BeatEntry[]
  /** Of a refusal. */
  readonly reason: string
}

export const NO_INCARNATION = '00'.repeat(INCARNATION_BYTES)

/** A beat that says nothing. */
export const SILENCE: Beat = {
  kind: 'beat',
  incarnation: NO_INCARNATION,
  number: 0,
  isSure: false,
  isServing: false,
  isTorn: false,
  age: 0,
  entries: [],
  reason: '',
}

export function encodeBeat(beat: Beat): Buffer {
  const reason = Buffer.from(beat.reason).subarray(0, REASON_BYTES_MAX)
  const bytes = Buffer.alloc(HEAD_BYTES + beat.entries.length * ENTRY_BYTES + reason.length)
  MAGIC.copy(bytes)
  bytes[4] = KINDS.indexOf(beat.kind)
  bytes[5] = flagsOf(beat)
  bytes.writeUInt16LE(beat.entries.length, 6)
  bytes.write(beat.incarnation, 8, INCARNATION_BYTES, 'hex')
  bytes.writeUInt32LE(beat.number, 16)
  bytes.writeUInt32LE(beat.age, 20)
  beat.entries.forEach(({ process, incarnation, number }, i) => {
    const at = HEAD_BYTES + i * ENTRY_BYTES
    putProcess(bytes, at, process)
    bytes.write(incarnation, at + 8, INCARNATION_BYTES, 'hex')
    bytes.writeUInt32LE(number, at + 16)
  })
  reason.copy(bytes, bytes.length - reason.length)
  return bytes
}

function flagsOf({ isSure, isServing, isTorn }: Beat): number {
  return (isSure ? SURE : 0) | (isServing ? SERVING : 0) | (isTorn ? TORN : 0)
}

/** Throws RangeError on what is none. */
export function decodeBeat(bytes: Buffer): Beat {
  const isOurs = bytes.length >= HEAD_BYTES && bytes.subarray(0, 4).equals(MAGIC)
  const kind = isOurs ? KINDS[bytes[4] ?? 0xff] : undefined
  const count = kind === undefined ? 0 : bytes.readUInt16LE(6)
  const end = HEAD_BYTES + count * ENTRY_BYTES
  if (kind === undefined || count > MEMBERS_MAX || bytes.length < end) {
    throw new RangeError(`beat of ${bytes.length} bytes`)
  }
  return {
    kind,
    incarnation: bytes.toString('hex', 8, 8 + INCARNATION_BYTES),
    number: bytes.readUInt32LE(16),
    isSure: ((bytes[5] ?? 0) & SURE) !== 0,
    isServing: ((bytes[5] ?? 0) & SERVING) !== 0,
    isTorn: ((bytes[5] ?? 0) & TORN) !== 0,
    age: bytes.readUInt32LE(20),
    entries: Array.from({ length: count }, (_, i) => {
      const at = HEAD_BYTES + i * ENTRY_BYTES
      return {
        process: takeProcess(bytes, at),
        incarnation: bytes.toString('hex', at + 8, at + 8 + INCARNATION_BYTES),
        number: bytes.readUInt32LE(at + 16),
      }
    }),
    reason: bytes.toString('utf8', end, Math.min(bytes.length, end + REASON_BYTES_MAX)),
  }
}
