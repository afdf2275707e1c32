/**
 * A SCSI command at work, and the gathering of the data it takes:
 *
 *   ordered (waits for its turn on the unit) --> gathering (data comes, unasked or by R2T) --> running --> over
 *
 * Data must come as RFC 7143 has it with everything in order: each burst from its beginning, without gaps. What is
 * not so ends the command; the connection survives.
 */
import { noBytes } from '../../base/bytes.js'
import type { Room } from '../../base/reply-queue.js'
import type { ByteRange } from '../../volume/volume.js'
import { FINAL, NO_TAG } from '../../wire/iscsi/constants.js'
import * as pdu from '../../wire/iscsi/pdu.js'
import type { LogicalUnit } from './logical-unit.js'
import type { Transfer } from './output.js'
import type { Parameters } from './parameters.js'

export interface Task extends Room {
  readonly tag: number
  /** As it came; kept whole, because a view of a part costs as much as a small read. */
  readonly header: Buffer
  readonly unit: LogicalUnit | undefined
  readonly cdb: Buffer
  /** Bytes the initiator expects to move. */
  readonly expected: number
  readonly isRead: boolean
  /** Takes a place in the window. */
  readonly isCounted: boolean
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
  over: (() => void)[]
}

export function newTask(
  header: Buffer,
  unit: LogicalUnit | undefined,
  { isRead, isCounted }: { readonly isRead: boolean; readonly isCounted: boolean },
): Task {
  return {
    ...{ reply: noBytes(), replyAt: 0, isRead, isCounted, unit },
    ...{ tag: pdu.tagOf(header), header, cdb: header.subarray(32, 48) },
    expected: pdu.secondTag(header),
    ...{
      state: 'ordered',
      fate: 'answer',
      gathering: undefined,
      change: undefined,
      run: undefined,
      held: 0,
      over: [],
    },
  }
}

interface Piece {
  readonly at: number
  readonly bytes: Buffer
}

interface OpenTransfer extends Transfer {
  received: number
  dataSn: number
}

/** `wrong`: the data is not what may come now. */
export type Taken = 'more' | 'complete' | 'wrong'

export class Gathering {
  /** Bytes the command takes; what comes beyond them is passed over. */
  readonly want: number
  readonly #expected: number
  readonly #agreed: Parameters
  #data: Buffer | undefined
  /** What came before there was room. */
  #early: Piece[] = []
  /** Bytes that came unasked, from the beginning. */
  #unasked = 0
  #isOpen: boolean
  #dataSn = 0
  /** Up to where data has been asked for or has come unasked. */
  #requested = 0
  #serial = 0
  #received = 0
  readonly #transfers = new Map<number, OpenTransfer>()

  /** `immediate`: data in the command's own PDU; `isOpen`: more comes unasked. */
  constructor(
    sizes: { readonly want: number; readonly expected: number },
    agreed: Parameters,
    immediate: Buffer,
    isOpen: boolean,
  ) {
    this.want = sizes.want
    this.#expected = sizes.expected
    this.#agreed = agreed
    this.#isOpen = isOpen
    if (immediate.length > 0) this.#keep(0, immediate)
    this.#unasked = immediate.length
    this.#requested = immediate.length
  }

  get isComplete(): boolean {
    return !this.#isOpen && this.#received >= this.want
  }

  /** Everything, once it is complete. Without copying when one piece has it all. */
  get data(): Buffer {
    const [only] = this.#early
    if (this.#data === undefined && only !== undefined && this.#early.length === 1) {
      return only.bytes.subarray(0, this.want)
    }
    return this.allocate()
  }

  /** There is room for all of it. */
  allocate(): Buffer {
    if (this.#data !== undefined) return this.#data
    const data = Buffer.allocUnsafe(this.want)
    for (const { at, bytes } of this.#early) bytes.copy(data, at)
    this.#early = []
    this.#data = data
    return data
  }

  /** What to ask for next; undefined: nothing, for now. Needs `allocate` before. */
  ask(nextTag: () => number): Transfer | undefined {
    const { burstBytesMax, outstandingR2tMax } = this.#agreed
    if (this.#isOpen || this.#requested >= this.want) return undefined
    if (this.#transfers.size >= outstandingR2tMax) return undefined
    const offset = this.#requested
    const length = Math.min(burstBytesMax, this.want - offset)
    this.#requested = offset + length
    const transfer = { tag: nextTag(), serial: this.#serial++, offset, length }
    this.#transfers.set(transfer.tag, { ...transfer, received: 0, dataSn: 0 })
    return transfer
  }

  /** A Data-Out PDU. */
  take(header: Buffer, bytes: Buffer): Taken {
    const tag = pdu.secondTag(header)
    const isFinal = (pdu.flagsOf(header) & FINAL) !== 0
    const [at, serial] = [pdu.bufferOffset(header), pdu.dataSn(header)]
    return tag === NO_TAG
      ? this.#takeUnasked({ at, bytes }, serial, isFinal)
      : this.#takeAsked(tag, { at, bytes }, serial, isFinal)
  }

  #takeUnasked(piece: Piece, serial: number, isFinal: boolean): Taken {
    const end = piece.at + piece.bytes.length
    const limit = Math.min(this.#agreed.firstBurstBytesMax, this.#expected)
    const isRight = this.#isOpen && serial === this.#dataSn && piece.at === this.#unasked
    if (!isRight || end > limit) return 'wrong'
    this.#dataSn++
    this.#keep(piece.at, piece.bytes)
    this.#unasked = end
    this.#requested = end
    if (isFinal) this.#isOpen = false
    return this.isComplete ? 'complete' : 'more'
  }

  #takeAsked(tag: number, piece: Piece, serial: number, isFinal: boolean): Taken {
    const transfer = this.#transfers.get(tag)
    if (transfer === undefined) return 'wrong'
    const { offset, length, received } = transfer
    const isRight = serial === transfer.dataSn && piece.at === offset + received
    const left = length - received - piece.bytes.length
    if (!isRight || left < 0 || isFinal !== (left === 0)) return 'wrong'
    transfer.dataSn++
    transfer.received += piece.bytes.length
    this.#keep(piece.at, piece.bytes)
    if (isFinal) this.#transfers.delete(tag)
    return this.isComplete ? 'complete' : 'more'
  }

  #keep(at: number, bytes: Buffer): void {
    const part = bytes.subarray(0, Math.max(0, this.want - at))
    this.#received += part.length
    if (part.length === 0) return
    if (this.#data === undefined) this.#early.push({ at, bytes: part })
    else part.copy(this.#data, at)
  }
}
