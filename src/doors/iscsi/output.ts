/** PDUs a session sends, laid into the reply queue in place, with their numbers, padding and digests. */
import { noBytes } from '../../base/bytes.js'
import { crc32c } from '../../base/crc32c.js'
import type { ReplyQueue, Room } from '../../base/reply-queue.js'
import {
  Answer,
  AsyncEvent,
  BHS_BYTES,
  DataFlag,
  DIGEST_BYTES,
  FINAL,
  NO_TAG,
  TextFlag,
} from '../../wire/iscsi/constants.js'
import * as pdu from '../../wire/iscsi/pdu.js'
import { encodeSense, type Outcome, SENSE_BYTES } from '../../wire/scsi/sense.js'
import type { Parameters } from './parameters.js'

export interface Window {
  readonly expCmdSn: number
  readonly maxCmdSn: number
}

/** A difference between what a command moves and what its initiator expected. */
export interface Residual {
  readonly flag: number
  readonly count: number
}

export const NO_RESIDUAL: Residual = { flag: 0, count: 0 }

export function residualOf(moves: number, expected: number): Residual {
  if (moves === expected) return NO_RESIDUAL
  return moves > expected
    ? { flag: DataFlag.OVERFLOW, count: moves - expected }
    : { flag: DataFlag.UNDERFLOW, count: expected - moves }
}

export interface OutputOptions {
  readonly agreed: Parameters
  readonly replies: ReplyQueue
  readonly window: () => Window
  readonly statSn: number
}

export class Output {
  statSn: number
  readonly #agreed: Parameters
  readonly #replies: ReplyQueue
  readonly #window: () => Window
  readonly #room: Room = { reply: noBytes(), replyAt: 0 }

  constructor({ agreed, replies, window, statSn }: OutputOptions) {
    this.#agreed = agreed
    this.#replies = replies
    this.#window = window
    this.statSn = statSn
  }

  /** Bytes before a PDU's data. */
  get #headBytes(): number {
    return this.#agreed.headerDigest ? BHS_BYTES + DIGEST_BYTES : BHS_BYTES
  }

  #tailBytes(bytes: number): number {
    const pad = pdu.padded(bytes) - bytes
    return this.#agreed.dataDigest && bytes > 0 ? pad + DIGEST_BYTES : pad
  }

  #isOnePdu(bytes: number): boolean {
    const { sendBytesMax, burstBytesMax } = this.#agreed
    return bytes <= sendBytesMax && bytes <= burstBytesMax
  }

  /**
   * Room for what a command reads: `sendRead` sends it, `forgoRead` gives it up. The result is where it goes; if it fits
   * into one PDU, the room has place for the rest of that around it.
   */
  reserveRead(room: Room, bytes: number): Buffer {
    if (this.#isOnePdu(bytes)) return this.#reserve(room, bytes)
    this.#replies.reserve(bytes, room)
    return room.reply.subarray(room.replyAt, room.replyAt + bytes)
  }

  forgoRead(room: Room): void {
    this.#replies.forgo(room)
  }

  /** The read is done: data, and GOOD with the last of it. */
  sendRead(room: Room, tag: number, bytes: number, residual: Residual): void {
    const { reply, replyAt } = room
    if (this.#isOnePdu(bytes)) {
      const flags = FINAL | DataFlag.STATUS | residual.flag
      this.#open(reply, replyAt, { opcode: Answer.DATA_IN, flags, tag, bytes }, true)
      reply.writeUInt32BE(NO_TAG, replyAt + 20)
      reply.writeUInt32BE(residual.count, replyAt + 44)
      this.#close(room, bytes)
      return
    }
    this.#replies.divide(room, this.#pdusOf(bytes))
    this.#sendParts(tag, reply, { from: replyAt, until: replyAt + bytes }, residual)
  }

  /** Data of any length, which is kept until it is sent, and GOOD with the last of it. */
  sendData(tag: number, data: Buffer, residual: Residual): void {
    this.#sendParts(tag, data, { from: 0, until: data.length }, residual)
  }

  #pdusOf(bytes: number): number {
    const { sendBytesMax, burstBytesMax } = this.#agreed
    const perBurst = Math.ceil(burstBytesMax / sendBytesMax)
    const bursts = Math.floor(bytes / burstBytesMax)
    return bursts * perBurst + Math.ceil((bytes % burstBytesMax) / sendBytesMax)
  }

  #sendParts(
    tag: number,
    data: Buffer,
    { from, until }: { readonly from: number; readonly until: number },
    residual: Residual,
  ): void {
    const { sendBytesMax, burstBytesMax } = this.#agreed
    const room = this.#room
    let burst = 0
    let serial = 0
    for (let at = from; at < until; serial++) {
      const bytes = Math.min(until - at, sendBytesMax, burstBytesMax - burst)
      const isLast = at + bytes === until
      burst += bytes
      const isBurstEnd = isLast || burst === burstBytesMax
      if (isBurstEnd) burst = 0
      const flags = (isBurstEnd ? FINAL : 0) | (isLast ? DataFlag.STATUS | residual.flag : 0)
      this.#replies.reserve(this.#headBytes, room)
      const { reply, replyAt } = room
      this.#open(reply, replyAt, { opcode: Answer.DATA_IN, flags, tag, bytes }, isLast)
      reply.writeUInt32BE(NO_TAG, replyAt + 20)
      reply.writeUInt32BE(serial, replyAt + 36)
      reply.writeUInt32BE(at - from, replyAt + 40)
      if (isLast) reply.writeUInt32BE(residual.count, replyAt + 44)
      this.#digestHead(reply, replyAt)
      this.#replies.add(reply, replyAt, this.#headBytes)
      this.#body(data, at, at + bytes)
      at += bytes
    }
  }

  /** How a command ended that sends no data (any more). */
  sendResponse(tag: number, outcome: Outcome, residual: Residual): void {
    const sense = outcome.sense === undefined ? noBytes() : encodeSense(outcome.sense)
    const data = sense.length === 0 ? sense : Buffer.concat([Buffer.from([0, SENSE_BYTES]), sense])
    const flags = FINAL | residual.flag
    const at = this.#small(data, { opcode: Answer.SCSI_RESPONSE, flags, tag }, true)
    const { reply } = this.#room
    reply[at + 3] = outcome.status
    reply.writeUInt32BE(residual.count, at + 44)
    this.#close(this.#room, data.length)
  }

  sendR2t(tag: number, header: Buffer, transfer: Transfer): void {
    const at = this.#small(noBytes(), { opcode: Answer.R2T, flags: FINAL, tag }, false)
    const { reply } = this.#room
    header.copy(reply, at + 8, 8, 16)
    reply.writeUInt32BE(transfer.tag, at + 20)
    reply.writeUInt32BE(transfer.serial, at + 36)
    reply.writeUInt32BE(transfer.offset, at + 40)
    reply.writeUInt32BE(transfer.length, at + 44)
    this.#close(this.#room, 0)
  }

  /** `data` is what the initiator sent. */
  answerPing(header: Buffer, data: Buffer): void {
    const at = this.#small(
      data,
      { opcode: Answer.NOP_IN, flags: FINAL, tag: pdu.tagOf(header) },
      true,
    )
    const { reply } = this.#room
    header.copy(reply, at + 8, 8, 16)
    reply.writeUInt32BE(NO_TAG, at + 20)
    this.#close(this.#room, data.length)
  }

  /** Asks whether the initiator is there. */
  ping(transferTag: number): void {
    const at = this.#small(noBytes(), { opcode: Answer.NOP_IN, flags: FINAL, tag: NO_TAG }, false)
    this.#room.reply.writeUInt32BE(transferTag, at + 20)
    this.#close(this.#room, 0)
  }

  sendTaskResponse(tag: number, response: number): void {
    this.#coded(Answer.TASK_MANAGEMENT, tag, response)
  }

  sendLogout(tag: number, response: number): void {
    this.#coded(Answer.LOGOUT, tag, response)
  }

  sendText(tag: number, data: Buffer, transferTag: number): void {
    const flags = transferTag === NO_TAG ? FINAL : TextFlag.CONTINUE
    const at = this.#small(data, { opcode: Answer.TEXT, flags, tag }, true)
    this.#room.reply.writeUInt32BE(transferTag, at + 20)
    this.#close(this.#room, data.length)
  }

  /** Asks the initiator to log out within `seconds`. */
  askLogout(seconds: number): void {
    const at = this.#small(noBytes(), { opcode: Answer.ASYNC, flags: FINAL, tag: NO_TAG }, true)
    const { reply } = this.#room
    reply[at + 36] = AsyncEvent.LOGOUT_REQUESTED
    reply.writeUInt16BE(seconds, at + 42)
    this.#close(this.#room, 0)
  }

  reject(header: Buffer, reason: number): void {
    const at = this.#small(header, { opcode: Answer.REJECT, flags: FINAL, tag: NO_TAG }, true)
    this.#room.reply[at + 2] = reason
    this.#close(this.#room, header.length)
  }

  #coded(opcode: number, tag: number, response: number): void {
    const at = this.#small(noBytes(), { opcode, flags: FINAL, tag }, true)
    this.#room.reply[at + 2] = response
    this.#close(this.#room, 0)
  }

  /** Begins a PDU with little or no data in the room of this; the result is where its header is. Then `close`. */
  #small(data: Buffer, head: Omit<pdu.Head, 'bytes'>, isStatus: boolean): number {
    const { opcode, flags, tag } = head
    const room = this.#room
    const into = this.#reserve(room, data.length)
    if (data.length > 0) into.set(data)
    this.#open(room.reply, room.replyAt, { opcode, flags, tag, bytes: data.length }, isStatus)
    return room.replyAt
  }

  /** Room for a PDU; the result is where its data goes. */
  #reserve(room: Room, bytes: number): Buffer {
    const head = this.#headBytes
    this.#replies.reserve(head + bytes + this.#tailBytes(bytes), room)
    if (bytes === 0) return noBytes()
    const from = room.replyAt + head
    return room.reply.subarray(from, from + bytes)
  }

  /** What all headers have. `isStatus`: it counts as an answer and takes a StatSN. */
  #open(into: Buffer, at: number, head: pdu.Head, isStatus: boolean): void {
    pdu.writeHeader(into, at, head)
    const { expCmdSn, maxCmdSn } = this.#window()
    pdu.writeNumbers(into, at, { statSn: this.statSn, expCmdSn, maxCmdSn })
    if (isStatus) this.statSn = pdu.next(this.statSn)
  }

  #digestHead(into: Buffer, at: number): void {
    if (!this.#agreed.headerDigest) return
    into.writeUInt32LE(crc32c(into.subarray(at, at + BHS_BYTES)), at + BHS_BYTES)
  }

  /** Digests and padding around data that is in its place; it is queued. */
  #close({ reply, replyAt }: Room, bytes: number): void {
    this.#digestHead(reply, replyAt)
    const from = replyAt + this.#headBytes
    const end = from + pdu.padded(bytes)
    if (end > from + bytes) reply.fill(0, from + bytes, end)
    if (this.#agreed.dataDigest && bytes > 0) {
      reply.writeUInt32LE(crc32c(reply.subarray(from, end)), end)
    }
    this.#replies.add(reply, replyAt, this.#headBytes + bytes + this.#tailBytes(bytes))
  }

  /** A part of `data` behind its header, with padding and digest. */
  #body(data: Buffer, from: number, until: number): void {
    this.#replies.add(data, from, until - from)
    const tail = this.#tailBytes(until - from)
    if (tail === 0) return
    const room = this.#room
    this.#replies.reserve(tail, room)
    const pad = pdu.padded(until - from) - (until - from)
    const { reply, replyAt } = room
    reply.fill(0, replyAt, replyAt + pad)
    if (this.#agreed.dataDigest) {
      const crc = crc32c(reply.subarray(replyAt, replyAt + pad), crc32c(data.subarray(from, until)))
      reply.writeUInt32LE(crc, replyAt + pad)
    }
    this.#replies.add(reply, replyAt, tail)
  }
}

/** A part of a command's data that was asked for by R2T. */
export interface Transfer {
  readonly tag: number
  readonly serial: number
  readonly offset: number
  readonly length: number
}
