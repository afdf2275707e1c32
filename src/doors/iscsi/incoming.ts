/**
 * The PDU a session is receiving: its header is gathered here, its data goes straight where it is wanted, which is asked for
 * as soon as the header is there. Without I/O.
 *
 *   header (with its digest) --data--> data --complete--> padding, digest --> whole
 *          '--none---------------------------------------------------------> whole
 */
import type { BufferPool } from '../../base/buffer-pool.js'
import { noBytes } from '../../base/bytes.js'
import { crc32c } from '../../base/crc32c.js'
import type { Inbox } from '../../base/inbox.js'
import { BHS_BYTES, DIGEST_BYTES, ISCSI_LIMITS } from '../../wire/iscsi/constants.js'
import * as pdu from '../../wire/iscsi/pdu.js'
import type { Parameters } from './parameters.js'
import { type Head, newHead } from './task.js'

/** What is left of some data is received where it belongs if it is at least this much; else with what follows it. */
const ROOM_BYTES_MIN = 16 * 1024

/** Memory for data. */
export interface Place {
  /** At least as long as the data. */
  readonly memory: Buffer
  /** From the pool: to be given back by whoever has it in the end. */
  readonly isOwn: boolean
}

export interface IncomingOptions {
  readonly agreed: Parameters
  readonly pool: BufferPool
  /** Where `bytes` of data behind `header` are wanted; undefined: anywhere. */
  place(header: Buffer, bytes: number): Place | undefined
}

export class Incoming {
  /** Of the PDU that is whole, until the next `receive`. */
  head: Head = newHead()
  hasAhs = false
  /** Of its data, without padding. */
  bytes = 0
  /** Why the connection has to end: the last `receive` said `broken`. */
  reason = ''

  readonly #options: IncomingOptions
  /** Digests of header and data, bytes each. */
  readonly #headDigest: number
  readonly #dataDigest: number
  #place: Place = { memory: noBytes(), isOwn: false }
  /** The data, as far as it has come. */
  #into = noBytes()
  #filled = 0
  #isBody = false

  constructor(options: IncomingOptions) {
    this.#options = options
    this.#headDigest = options.agreed.headerDigest ? DIGEST_BYTES : 0
    this.#dataDigest = options.agreed.dataDigest ? DIGEST_BYTES : 0
  }

  /** Data of the PDU that is whole. Borrowed, unless it is taken. */
  get data(): Buffer {
    return this.#into
  }

  /** The memory behind `data`, which is the caller's to give back from now on. */
  takeMemory(): Buffer {
    const { memory } = this.#place
    this.#place = NOWHERE
    return memory
  }

  /** The header, which is the caller's from now on; `next` is used instead. */
  takeHead(next: Head): Head {
    const { head } = this
    this.head = next
    return head
  }

  receive(inbox: Inbox): 'whole' | 'starve' | 'broken' {
    if (!this.#isBody) {
      const what = this.#header(inbox)
      if (what !== undefined) return what
    }
    if (this.#filled < this.bytes) {
      this.#filled += inbox.fill(this.#into, this.#filled)
      if (this.#filled < this.bytes) return 'starve'
    }
    const pad = pdu.padded(this.bytes) - this.bytes
    const tailBytes = pad + this.#dataDigest
    if (tailBytes > 0) {
      if (inbox.bytes < tailBytes) return 'starve'
      const tail = inbox.take(tailBytes)
      if (this.#dataDigest > 0) {
        const crc = crc32c(tail.subarray(0, pad), crc32c(this.#into))
        if (crc !== tail.readUInt32LE(pad)) return this.#broken('a data digest that is wrong')
      }
    }
    this.#isBody = false
    return 'whole'
  }

  /** The PDU has been dealt with: what nobody took is given back. */
  done(): void {
    const { memory, isOwn } = this.#place
    this.#place = NOWHERE
    this.#into = noBytes()
    if (isOwn && memory.length > 0) this.#options.pool.give(memory)
  }

  /** Where the next bytes belong, when enough of them are missing. */
  room(inbox: Inbox): Buffer | undefined {
    if (!this.#isBody || inbox.bytes > 0) return undefined
    return this.bytes - this.#filled < ROOM_BYTES_MIN
      ? undefined
      : this.#into.subarray(this.#filled)
  }

  /** Undefined: data follows. */
  #header(inbox: Inbox): 'whole' | 'starve' | 'broken' | undefined {
    if (inbox.bytes < BHS_BYTES) return 'starve'
    inbox.frame(BHS_BYTES)
    const ahs = pdu.ahsBytes(inbox.view, inbox.viewAt)
    const bytes = pdu.dataBytes(inbox.view, inbox.viewAt)
    if (bytes > ISCSI_LIMITS.segmentBytesMax) return this.#broken('a segment longer than agreed')
    const more = ahs + this.#headDigest
    if (inbox.bytes < BHS_BYTES + more) return 'starve'
    const { header } = this.head
    inbox.fill(header, 0)
    if (more > 0) {
      const rest = inbox.take(more)
      if (this.#headDigest > 0) {
        const crc = crc32c(rest.subarray(0, ahs), crc32c(header))
        if (crc !== rest.readUInt32LE(ahs)) return this.#broken('a header digest that is wrong')
      }
    }
    this.hasAhs = ahs > 0
    this.bytes = bytes
    if (bytes === 0) return 'whole'
    const { place, pool } = this.#options
    this.#place = place(header, bytes) ?? { memory: pool.take(bytes), isOwn: true }
    const { memory } = this.#place
    this.#into = memory.length === bytes ? memory : memory.subarray(0, bytes)
    this.#filled = 0
    this.#isBody = true
    return undefined
  }

  #broken(reason: string): 'broken' {
    this.reason = reason
    return 'broken'
  }
}

const NOWHERE: Place = { memory: noBytes(), isOwn: false }
