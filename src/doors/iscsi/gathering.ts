/**
 * The data a command takes, as it comes: with the command, unasked behind it, and when it is asked for (R2T).
 *
 * It must come as RFC 7143 has it with everything in order: each burst from its beginning, without gaps. What is
 * not so ends the command; the connection survives.
 */
import type { BufferPool } from '../../base/buffer-pool.js'
import { FINAL, NO_TAG } from '../../wire/iscsi/constants.js'
import * as pdu from '../../wire/iscsi/pdu.js'
import type { Transfer } from './output.js'
import type { Parameters } from './parameters.js'

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

export interface GatheringOptions {
  /** Bytes the command takes; what comes beyond them is passed over. */
  readonly want: number
  /** Bytes the initiator announced. */
  readonly expected: number
  readonly agreed: Parameters
  readonly pool: BufferPool
  /** More comes unasked. */
  readonly isOpen: boolean
}

export class Gathering {
  readonly want: number
  readonly #options: GatheringOptions
  /** From the pool, with room for all of it. */
  #memory: Buffer | undefined
  /** What came before there was room. */
  #early: Piece[] = []
  #received = 0
  #unasked: number
  #requested: number
  #dataSn = 0
  #serial = 0
  #isOpen: boolean
  readonly #transfers = new Map<number, OpenTransfer>()

  /** `memory`, which is kept, begins with the `bytes` that came with the command. */
  constructor(options: GatheringOptions, memory: Buffer, bytes: number) {
    this.want = options.want
    this.#options = options
    this.#isOpen = options.isOpen
    this.#unasked = bytes
    this.#requested = bytes
    if (memory.length >= this.want) this.#memory = memory
    else if (bytes > 0) this.#early.push({ at: 0, bytes: memory.subarray(0, bytes) })
    this.#received = Math.min(bytes, this.want)
  }

  get isComplete(): boolean {
    return !this.#isOpen && this.#received >= this.want
  }

  /** There is room for all of it. */
  get hasRoom(): boolean {
    return this.#memory !== undefined
  }

  /** Everything, once it is complete. */
  get data(): Buffer {
    const memory = this.allocate()
    return memory.length === this.want ? memory : memory.subarray(0, this.want)
  }

  /** Memory for all of it: what came with the command, or the pool's. Whoever asked gives it back. */
  allocate(): Buffer {
    if (this.#memory !== undefined) return this.#memory
    const memory = this.#options.pool.take(this.want)
    for (const { at, bytes } of this.#early) bytes.copy(memory, at)
    this.#early = []
    this.#memory = memory
    return memory
  }

  /** What to ask for next; undefined: nothing, for now. Needs room. */
  ask(nextTag: () => number): Transfer | undefined {
    const { burstBytesMax, outstandingR2tMax } = this.#options.agreed
    if (this.#isOpen || this.#requested >= this.want) return undefined
    if (this.#transfers.size >= outstandingR2tMax) return undefined
    const offset = this.#requested
    const length = Math.min(burstBytesMax, this.want - offset)
    this.#requested = offset + length
    const transfer = { tag: nextTag(), serial: this.#serial++, offset, length }
    this.#transfers.set(transfer.tag, { ...transfer, received: 0, dataSn: 0 })
    return transfer
  }

  /** Where the data of a Data-Out PDU belongs, when there is room and it may come now. */
  placeOf(header: Buffer, bytes: number): Buffer | undefined {
    const memory = this.#memory
    const at = pdu.bufferOffset(header)
    if (memory === undefined || at + bytes > this.want || !this.#isRight(header, bytes)) return
    return memory.subarray(at, at + bytes)
  }

  /** A Data-Out PDU; `bytes` are borrowed. */
  take(header: Buffer, bytes: Buffer): Taken {
    if (!this.#isRight(header, bytes.length)) return 'wrong'
    const isFinal = (pdu.flagsOf(header) & FINAL) !== 0
    const at = pdu.bufferOffset(header)
    const tag = pdu.secondTag(header)
    if (tag === NO_TAG) {
      this.#dataSn++
      this.#unasked = at + bytes.length
      this.#requested = this.#unasked
      if (isFinal) this.#isOpen = false
    } else {
      const transfer = this.#transfers.get(tag)!
      transfer.dataSn++
      transfer.received += bytes.length
      if (isFinal) this.#transfers.delete(tag)
    }
    this.#keep(at, bytes)
    return this.isComplete ? 'complete' : 'more'
  }

  /** Whether such a PDU may come now. */
  #isRight(header: Buffer, bytes: number): boolean {
    const tag = pdu.secondTag(header)
    const [at, serial] = [pdu.bufferOffset(header), pdu.dataSn(header)]
    if (tag === NO_TAG) {
      const { agreed, expected } = this.#options
      const limit = Math.min(agreed.firstBurstBytesMax, expected)
      const isNext = serial === this.#dataSn && at === this.#unasked
      return this.#isOpen && isNext && at + bytes <= limit
    }
    const transfer = this.#transfers.get(tag)
    if (transfer === undefined) return false
    const { offset, length, received, dataSn } = transfer
    const left = length - received - bytes
    const isFinal = (pdu.flagsOf(header) & FINAL) !== 0
    return serial === dataSn && at === offset + received && left >= 0 && isFinal === (left === 0)
  }

  #keep(at: number, bytes: Buffer): void {
    const count = Math.min(bytes.length, Math.max(0, this.want - at))
    this.#received += count
    if (count === 0) return
    const memory = this.#memory
    if (memory === undefined) {
      this.#early.push({ at, bytes: Buffer.from(bytes.subarray(0, count)) })
    } else if (!isAt(bytes, memory, at)) bytes.copy(memory, at, 0, count)
  }
}

/** The bytes lie in `memory` already. */
function isAt(bytes: Buffer, memory: Buffer, at: number): boolean {
  return bytes.buffer === memory.buffer && bytes.byteOffset === memory.byteOffset + at
}
