/**
 * A SCSI command at work:
 *
 *   ordered (waits for its turn on the unit) --> gathering (data comes, unasked or by R2T) --> running --> over
 */
import { noBytes } from '../../base/bytes.js'
import type { Room } from '../../base/reply-queue.js'
import type { ByteRange } from '../../volume/volume.js'
import { BHS_BYTES } from '../../wire/iscsi/constants.js'
import * as pdu from '../../wire/iscsi/pdu.js'
import type { Gathering } from './gathering.js'
import type { LogicalUnit } from './logical-unit.js'

/** A header as it came, and its CDB. Used again and again: a view costs as much as a small read. */
export interface Head {
  /** 48 bytes. */
  readonly header: Buffer
  /** Its last 16 bytes. */
  readonly cdb: Buffer
}

export function newHead(): Head {
  const header = Buffer.alloc(BHS_BYTES)
  return { header, cdb: header.subarray(32, BHS_BYTES) }
}

export interface Task extends Room {
  readonly tag: number
  readonly head: Head
  readonly unit: LogicalUnit | undefined
  /** Bytes the initiator expects to move. */
  readonly expected: number
  readonly isRead: boolean
  readonly isWrite: boolean
  /** Takes a place in the window. */
  readonly isCounted: boolean
  readonly hasAhs: boolean
  /** More data comes unasked. */
  readonly isOpen: boolean
  /** What came with it: `bytes` at the beginning of memory of the pool. */
  memory: Buffer
  readonly bytes: number
  state: 'ordered' | 'gathering' | 'running' | 'over'
  /** Nobody is told how it ends, or that it was aborted. */
  fate: 'answer' | 'silence' | 'aborted'
  gathering: Gathering | undefined
  /** The bytes it may change. */
  change: ByteRange | undefined
  /** What is to be done when the data is complete. */
  run: (() => void) | undefined
  /** Bytes of memory it counts for. */
  held: number
  /** Called when it can do nothing any more. */
  over: (() => void)[] | undefined
}

/** What a command's PDU says beside its header. */
export interface Came {
  readonly isRead: boolean
  readonly isWrite: boolean
  readonly isCounted: boolean
  readonly hasAhs: boolean
  readonly isOpen: boolean
  readonly memory: Buffer
  readonly bytes: number
}

export function newTask(head: Head, unit: LogicalUnit | undefined, came: Came): Task {
  const { header } = head
  // One literal: what is spread into it costs more than the rest of a small read.
  return {
    reply: noBytes(),
    replyAt: 0,
    tag: pdu.tagOf(header),
    head,
    unit,
    expected: pdu.secondTag(header),
    isRead: came.isRead,
    isWrite: came.isWrite,
    isCounted: came.isCounted,
    hasAhs: came.hasAhs,
    isOpen: came.isOpen,
    memory: came.memory,
    bytes: came.bytes,
    state: 'ordered',
    fate: 'answer',
    gathering: undefined,
    change: undefined,
    run: undefined,
    held: 0,
    over: undefined,
  }
}
