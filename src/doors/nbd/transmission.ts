/**
 * The transmission phase of one NBD connection, without I/O: bytes in, requests out (`perform`),
 * completions in (each request's `done`), replies out (`replies`).
 *
 *   header --refused--> skip its payload --> header
 *   header --WRITE--> payload --complete--> perform, header
 *   header --other--> perform, header
 *
 * Requests are pooled objects with a ready-made `done`: a request costs no closure and no promise.
 * Replies go out in the order of completion; who orders overlapping requests is the volume.
 */
import type { BufferPool } from '../../base/buffer-pool.js'
import { noBytes } from '../../base/bytes.js'
import { Code, codeText, nbdErrorOf } from '../../base/codes.js'
import type { Inbox } from '../../base/inbox.js'
import { LIMITS } from '../../base/limits.js'
import type { ReplyQueue } from '../../base/reply-queue.js'
import type { Volume } from '../../volume/volume.js'
import { Command, CommandFlag, NBD_LIMITS } from '../../wire/nbd/constants.js'
import { COMPACT, type Framing } from '../../wire/nbd/framing.js'
import * as wire from '../../wire/nbd/messages.js'
import { encodeReply } from './encode.js'
import type { Share } from './fair-shares.js'
import { gate, MALFORMED_QUESTION, type Refusal, SHUTTING_DOWN } from './gate.js'
import type { Counters } from './hall.js'
import type { Agreed } from './handshake.js'
import { chargeOf, newSlot, type Slot } from './slot.js'

/**
 * Why `receive` stopped: bytes are missing; replies should be sent first; too much is in flight;
 * the client said goodbye; the client broke the protocol.
 */
export type Verdict = 'starve' | 'corked' | 'full' | 'goodbye' | 'badMagic' | 'tooLong'

/** Queued replies are sent when they are more than this, in the middle of a turn. */
const CORKED_BYTES_MAX = 1024 * 1024

/** What is left of a payload is received where it belongs if it is at least this much; else with what follows it. */
const ROOM_BYTES_MIN = 16 * 1024

const CHANGES: ReadonlySet<number> = new Set([Command.WRITE, Command.WRITE_ZEROES, Command.TRIM])

export interface TransmissionOptions {
  readonly agreed: Agreed
  readonly disk: Pick<Volume, 'sizeBytes' | 'readOnly'>
  readonly replies: ReplyQueue
  readonly counters: Counters
  /** For payloads. */
  readonly memory: BufferPool
  /** What the export may have at work; `late` is called when there is room again. */
  readonly share: Share
  /** Starts a request; `slot.done` ends it, at once or later. */
  perform(slot: Slot): void
  /** A request ended outside `receive`: a reply waits. */
  late(): void
}

export class Transmission {
  /** Answer everything new with ESHUTDOWN. */
  draining = false
  /** Requests handed to `perform` and not done. */
  inFlight = 0

  readonly #options: TransmissionOptions
  readonly #framing: Framing
  readonly #free: Slot[] = []
  readonly #slots: Slot[] = []
  #isOver = false
  #isEnding = false
  /** Bytes charged to requests in flight and to the write being received. */
  #held = 0
  #receiving = false
  /** The request whose payload is being gathered, and how much of it is there. */
  #incoming: Slot | undefined
  #filled = 0
  /** A refused request: why, and what is left of its payload. */
  #refused: Slot | undefined
  #refusal = SHUTTING_DOWN
  #skip = 0
  readonly #again: () => void

  constructor(options: TransmissionOptions) {
    this.#options = options
    this.#framing = options.agreed.chunks ?? COMPACT
    this.#again = () => options.late()
  }

  /** Reads requests until the verdict. Everything consumed is on its way or answered. */
  receive(inbox: Inbox): Verdict {
    this.#receiving = true
    this.#options.share.touch()
    const verdict = this.#receive(inbox)
    this.#receiving = false
    return verdict
  }

  #receive(inbox: Inbox): Verdict {
    const { replies, share } = this.#options
    const framing = this.#framing
    for (;;) {
      if (this.#incoming !== undefined && !this.#gather(inbox, this.#incoming)) return 'starve'
      if (this.#refused !== undefined && !this.#passOver(inbox, this.#refused)) return 'starve'
      if (inbox.bytes < framing.requestBytes) return 'starve'
      if (this.inFlight >= LIMITS.requestsInFlightMax) return 'full'
      if (!share.hasRoom()) {
        share.wait(this.#again)
        return 'full'
      }
      if (replies.bytes > CORKED_BYTES_MAX) return 'corked'
      inbox.frame(framing.requestBytes)
      if (!framing.hasRequestMagic(inbox.view, inbox.viewAt)) return 'badMagic'
      const slot = this.#free.pop() ?? this.#newSlot()
      framing.decodeRequest(inbox.view, inbox.viewAt, slot)
      const verdict = this.#accept(inbox, slot)
      if (verdict === undefined) continue
      this.#free.push(slot)
      return verdict
    }
  }

  /** Takes one request off the inbox, or says why not. */
  #accept(inbox: Inbox, slot: Slot): Verdict | undefined {
    const { agreed } = this.#options
    const { requestBytes } = this.#framing
    if (slot.type === Command.DISC) return 'goodbye'
    const payloadBytes = this.#payloadBytesOf(slot)
    // No gate for this one: to refuse it we would have to swallow a payload we never agreed to.
    if (payloadBytes > NBD_LIMITS.payloadBytesMax) return 'tooLong'
    const refusal = this.#refusalOf(slot, payloadBytes)
    if (refusal !== undefined) {
      inbox.skip(requestBytes)
      if (payloadBytes > 0) this.#startSkip(slot, refusal, payloadBytes)
      else this.#refuse(slot, refusal)
      return undefined
    }
    const held = this.#held + chargeOf(slot)
    if (held > LIMITS.connectionBytesMax && this.#held > 0) return 'full'
    this.#held = held
    inbox.skip(requestBytes)
    if (slot.type === Command.BLOCK_STATUS) slot.contexts = agreed.contexts
    if (payloadBytes > 0) {
      slot.payload = this.#options.memory.take(payloadBytes)
      this.#incoming = slot
      this.#filled = 0
      return undefined
    }
    this.#start(slot)
    return undefined
  }

  #payloadBytesOf({ type, flags, length }: Slot): number {
    const { chunks } = this.#options.agreed
    const isPayload = chunks?.isExtended === true && (flags & CommandFlag.PAYLOAD_LEN) !== 0
    return type === Command.WRITE || isPayload ? length : 0
  }

  #refusalOf(slot: Slot, payloadBytes: number): Refusal | undefined {
    const { agreed, disk } = this.#options
    if (this.draining) return SHUTTING_DOWN
    const refusal = gate(slot, agreed, disk)
    if (refusal !== undefined || slot.type !== Command.BLOCK_STATUS) return refusal
    if ((slot.flags & CommandFlag.PAYLOAD_LEN) === 0) return undefined
    const isQuestion = payloadBytes > 0 && payloadBytes <= wire.STATUS_PAYLOAD_BYTES_MAX
    return isQuestion ? undefined : MALFORMED_QUESTION
  }

  /** True when the payload is complete and the write under way. */
  #gather(inbox: Inbox, slot: Slot): boolean {
    this.#filled += inbox.fill(slot.payload, this.#filled)
    if (this.#filled < slot.payload.length) return false
    this.#incoming = undefined
    this.#start(slot)
    return true
  }

  /** Where the next bytes of a payload belong, when enough of it is missing. */
  room(inbox: Inbox): Buffer | undefined {
    const payload = this.#incoming?.payload
    if (payload === undefined || inbox.bytes > 0) return undefined
    return payload.length - this.#filled < ROOM_BYTES_MIN
      ? undefined
      : payload.subarray(this.#filled)
  }

  #startSkip(slot: Slot, refusal: Refusal, payloadBytes: number): void {
    this.#refused = slot
    this.#refusal = refusal
    this.#skip = payloadBytes
  }

  /** True when the payload of the refused request is gone and the refusal is queued. */
  #passOver(inbox: Inbox, slot: Slot): boolean {
    this.#skip -= inbox.skip(this.#skip)
    if (this.#skip > 0) return false
    this.#refused = undefined
    this.#refuse(slot, this.#refusal)
    return true
  }

  #start(slot: Slot): void {
    const isQuestion = slot.type === Command.BLOCK_STATUS && slot.payload.length > 0
    const refusal = isQuestion ? this.#readQuestion(slot) : undefined
    if (refusal !== undefined) {
      this.#refuse(slot, refusal)
      return
    }
    const { counters, share } = this.#options
    this.inFlight++
    counters.operations[slot.type]!++
    counters.bytes[slot.type]! += slot.length
    slot.pieces = share.begin(chargeOf(slot))
    slot.code = Code.SUCCESS
    if (CHANGES.has(slot.type)) share.leftBehind.begin(slot, () => this.#options.perform(slot))
    else this.#options.perform(slot)
  }

  /** A BLOCK_STATUS whose payload names the range's length and some of the contexts. */
  #readQuestion(slot: Slot): Refusal | undefined {
    const { agreed, disk } = this.#options
    const question = wire.decodeStatusQuestion(slot.payload)
    this.#forgetPayload(slot)
    if (question === undefined) return MALFORMED_QUESTION
    const ids = new Set(question.contextIds)
    slot.contexts = agreed.contexts.filter(({ id }) => ids.delete(id))
    if (ids.size > 0) return MALFORMED_QUESTION
    slot.length = question.length
    slot.flags &= ~CommandFlag.PAYLOAD_LEN
    return gate(slot, agreed, disk)
  }

  /** The connection is over: nobody is to be called for it, and nothing of it begins any more. */
  end(): void {
    const { share } = this.#options
    this.#isOver = true
    this.#isEnding = true
    share.forget(this.#again)
    for (const slot of this.#slots) {
      if (share.leftBehind.drop(slot)) {
        slot.pending = 1
        slot.done(Code.NETWORK_ERROR)
      } else if (slot.pending > 0 && CHANGES.has(slot.type)) share.leftBehind.add(slot)
    }
    this.#isEnding = false
  }

  #refuse(slot: Slot, refusal: Refusal): void {
    this.#options.counters.errors++
    this.#queueError(slot, refusal)
    this.#forgetPayload(slot)
    this.#free.push(slot)
  }

  #finish(slot: Slot): void {
    this.inFlight--
    this.#held -= chargeOf(slot)
    const { agreed, replies, counters } = this.#options
    if (slot.code === Code.SUCCESS) encodeReply(slot, agreed, replies)
    else {
      counters.errors++
      if (slot.reply.length > 0) replies.forgo(slot)
      const { code, failedAt: offset } = slot
      this.#queueError(slot, { error: nbdErrorOf(code), text: codeText(code), offset })
    }
    this.#forgetPayload(slot)
    slot.reply = noBytes()
    slot.layout = undefined
    slot.failedAt = undefined
    slot.statuses = []
    this.#free.push(slot)
    const { share } = this.#options
    if (this.#isOver) share.leftBehind.ended(slot)
    share.end(slot.pieces)
    if (!this.#receiving && !this.#isEnding) this.#options.late()
  }

  #forgetPayload(slot: Slot): void {
    if (slot.payload.length > 0) this.#options.memory.give(slot.payload)
    slot.payload = noBytes()
  }

  #queueError(slot: Slot, refusal: Refusal): void {
    const { agreed, replies } = this.#options
    if (agreed.chunks !== undefined) {
      const chunk = wire.encodeErrorChunk(agreed.chunks, slot, refusal)
      replies.add(chunk, 0, chunk.length)
      return
    }
    replies.reserve(wire.SIMPLE_REPLY_BYTES, slot)
    wire.writeSimpleReply(slot.reply, slot.replyAt, slot, refusal.error)
    replies.add(slot.reply, slot.replyAt, wire.SIMPLE_REPLY_BYTES)
  }

  #newSlot(): Slot {
    const made = newSlot((slot) => this.#finish(slot))
    this.#slots.push(made)
    return made
  }
}
