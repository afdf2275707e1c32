/** What a command comes to once its CDB is understood; the session moves the data, the logical unit does the work. */

import type { ByteRange } from '../../volume/volume.js'
import type { BlockRange } from '../../wire/scsi/cdb.js'
import { INVALID_FIELD, OUT_OF_RANGE, type Outcome } from '../../wire/scsi/sense.js'
import type { End, LogicalUnit } from './logical-unit.js'
import type { Access } from './reservations.js'

/** A command as it came. */
export interface Issue {
  readonly unit: LogicalUnit
  readonly nexus: string
  /** Number of the target port group it came to. */
  readonly group: number
  /** Sixteen bytes. */
  readonly cdb: Buffer
  /** Bytes the initiator is about to send. */
  readonly dataBytes: number
  /** LUNs of the target, for REPORT LUNS. */
  readonly luns: readonly number[]
  readonly targetName: string
}

/** `change`: the bytes it may change. */
export type Plan =
  | { readonly kind: 'end'; readonly outcome: Outcome }
  /** Data for the initiator; it takes as much as it asked for. */
  | { readonly kind: 'reply'; readonly data: Buffer }
  /** `fua`: what a power cut would leave is what is read. */
  | {
      readonly kind: 'read'
      readonly offset: number
      readonly length: number
      readonly fua: boolean
    }
  /** Wants `bytes` of the initiator; `data` has fewer when it announced fewer. */
  | {
      readonly kind: 'take'
      readonly bytes: number
      readonly change?: ByteRange
      run(data: Buffer, end: End): void
    }
  | { readonly kind: 'run'; readonly change?: ByteRange; run(end: End): void }

/** The change of a command that says only with its data which blocks it changes. */
export const ANYWHERE: ByteRange = { offset: 0, length: Number.POSITIVE_INFINITY }

export interface Command {
  readonly name: string
  readonly opcode: number
  readonly action?: number
  /** What it does, in the eyes of reservations. */
  readonly access: Access
  /** Refused where nothing may be written. */
  readonly changes?: boolean
  /** Which bits of the CDB count (SPC-4, 6.35.3); its length is the CDB's. */
  readonly usage: readonly number[]
  plan(issue: Issue): Plan
}

export function end(outcome: Outcome): Plan {
  return { kind: 'end', outcome }
}

/** `data` cut to the length the initiator has room for. */
export function reply(data: Buffer, roomBytes: number): Plan {
  return { kind: 'reply', data: data.subarray(0, roomBytes) }
}

/** The bytes a range of blocks is, or why it is none of the unit's. */
export function bytesOf(
  unit: LogicalUnit,
  { lba, count }: BlockRange,
  bytesMax: number,
): ByteRange | Outcome {
  if (lba + count > unit.blocks) return OUT_OF_RANGE
  const length = count * unit.blockBytes
  if (length > bytesMax) return INVALID_FIELD
  return { offset: lba * unit.blockBytes, length }
}

export function isOutcome(value: ByteRange | Outcome): value is Outcome {
  return 'status' in value
}
