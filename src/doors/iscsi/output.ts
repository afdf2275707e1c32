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

interface Fields extends pdu.Head {
  /** Written after the common fields; `at` is where the header begins. */
  fill?(into: Buffer, at: number): void
  /** Counts as an answer: takes a StatSN. */
  readonly isStatus?: boolean
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

  /** Room for a read of one PDU; the result is where its data goes. */
  reserveRead(room: Room, bytes: number): Buffer {
    const head = this.#headBytes
    this.#replies.reserve(head + bytes + this.#tailBytes(bytes), room)
    return room.reply.subarray(room.replyAt + head, room.replyAt + head + bytes)
  }

  /** Nothing will be sent of a read there was room for. */
  forgoRead(room: Room): void {
    this.#replies.forgo(room)
  }

  /** The read is done: data and GOOD in one PDU. */
  sendRead(room: Room, tag: number, bytes: number, residual: Residual): void {
    const flags = FINAL | DataFlag.STATUS | residual.flag
    this.#head(room.reply, room.replyAt, {
      ...{ opcode: Answer.DATA_IN, flags, tag, bytes, isStatus: true },
      fill: (into, at) => {
        into.writeUInt32BE(NO_TAG, at + 20)
        into.writeUInt32BE(residual.count, at + 44)
      },
    })
    this.#finish(room, bytes)
  }

  /** Data of any length, and GOOD with the last of it. */
  sendData(tag: number, data: Buffer, residual: Residual): void {
    const { sendBytesMax, burstBytesMax } = this.#agreed
    let dataSn = 0
    let burst = 0
    for (let from = 0; from < data.length; dataSn++) {
      const until = Math.min(data.length, from + Math.min(sendBytesMax, burstBytesMax - burst))
      const isLast = until === data.length
      burst += until - from
      const isBurstEnd = isLast || burst === burstBytesMax
      if (isBurstEnd) burst = 0
      const status = isLast ? DataFlag.STATUS | residual.flag : 0
      const [offset, serial] = [from, dataSn]
      this.#headed({
        ...{ opcode: Answer.DATA_IN, tag, bytes: until - from, isStatus: isLast },
        flags: (isBurstEnd ? FINAL : 0) | status,
        fill: (into, at) => {
          into.writeUInt32BE(NO_TAG, at + 20)
          into.writeUInt32BE(serial, at + 36)
          into.writeUInt32BE(offset, at + 40)
          if (isLast) into.writeUInt32BE(residual.count, at + 44)
        },
      })
      this.#body(data, from, until)
      from = until
    }
  }

  /** How a command ended that sends no data (any more). */
  sendResponse(tag: number, outcome: Outcome, residual: Residual): void {
    const sense = outcome.sense === undefined ? noBytes() : encodeSense(outcome.sense)
    const data = sense.length === 0 ? sense : Buffer.concat([Buffer.from([0, SENSE_BYTES]), sense])
    this.#small(data, {
      ...{ opcode: Answer.SCSI_RESPONSE, flags: FINAL | residual.flag, tag, bytes: data.length },
      isStatus: true,
      fill: (into, at) => {
        into[at + 3] = outcome.status
        into.writeUInt32BE(residual.count, at + 44)
      },
    })
  }

  sendR2t(tag: number, header: Buffer, transfer: Transfer): void {
    this.#small(noBytes(), {
      ...{ opcode: Answer.R2T, flags: FINAL, tag, bytes: 0 },
      fill: (into, at) => {
        header.copy(into, at + 8, 8, 16)
        into.writeUInt32BE(transfer.tag, at + 20)
        into.writeUInt32BE(transfer.serial, at + 36)
        into.writeUInt32BE(transfer.offset, at + 40)
        into.writeUInt32BE(transfer.length, at + 44)
      },
    })
  }

  /** `data` is what the initiator sent. */
  answerPing(header: Buffer, data: Buffer): void {
    this.#small(data, {
      ...{ opcode: Answer.NOP_IN, flags: FINAL, tag: pdu.tagOf(header), bytes: data.length },
      isStatus: true,
      fill: (into, at) => {
        header.copy(into, at + 8, 8, 16)
        into.writeUInt32BE(NO_TAG, at + 20)
      },
    })
  }

  /** Asks whether the initiator is there. */
  ping(transferTag: number): void {
    this.#small(noBytes(), {
      ...{ opcode: Answer.NOP_IN, flags: FINAL, tag: NO_TAG, bytes: 0 },
      fill: (into, at) => into.writeUInt32BE(transferTag, at + 20),
    })
  }

  sendTaskResponse(tag: number, response: number): void {
    this.#coded(Answer.TASK_MANAGEMENT, tag, response)
  }

  sendLogout(tag: number, response: number): void {
    this.#coded(Answer.LOGOUT, tag, response)
  }

  sendText(tag: number, data: Buffer, transferTag: number): void {
    const isMore = transferTag !== NO_TAG
    this.#small(data, {
      ...{ opcode: Answer.TEXT, flags: isMore ? TextFlag.CONTINUE : FINAL, tag },
      ...{ bytes: data.length, isStatus: true },
      fill: (into, at) => into.writeUInt32BE(transferTag, at + 20),
    })
  }

  /** Asks the initiator to log out within `seconds`. */
  askLogout(seconds: number): void {
    this.#small(noBytes(), {
      ...{ opcode: Answer.ASYNC, flags: FINAL, tag: NO_TAG, bytes: 0, isStatus: true },
      fill: (into, at) => {
        into[at + 36] = AsyncEvent.LOGOUT_REQUESTED
        into.writeUInt16BE(seconds, at + 42)
      },
    })
  }

  reject(header: Buffer, reason: number): void {
    this.#small(header, {
      ...{ opcode: Answer.REJECT, flags: FINAL, tag: NO_TAG, bytes: header.length },
      isStatus: true,
      fill: (into, at) => {
        into[at + 2] = reason
      },
    })
  }

  #coded(opcode: number, tag: number, response: number): void {
    this.#small(noBytes(), {
      ...{ opcode, flags: FINAL, tag, bytes: 0, isStatus: true },
      fill: (into, at) => {
        into[at + 2] = response
      },
    })
  }

  #small(data: Buffer, fields: Fields): void {
    const room = this.#room
    this.reserveRead(room, data.length).set(data)
    this.#head(room.reply, room.replyAt, fields)
    this.#finish(room, data.length)
  }

  /** A header whose data follows in buffers of its own. */
  #headed(fields: Fields): void {
    const room = this.#room
    this.#replies.reserve(this.#headBytes, room)
    this.#head(room.reply, room.replyAt, fields)
    this.#replies.add(room.reply, room.replyAt, this.#headBytes)
  }

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

  #head(into: Buffer, at: number, fields: Fields): void {
    pdu.writeHeader(into, at, fields)
    const { expCmdSn, maxCmdSn } = this.#window()
    pdu.writeNumbers(into, at, { statSn: this.statSn, expCmdSn, maxCmdSn })
    if (fields.isStatus === true) this.statSn = pdu.next(this.statSn)
    fields.fill?.(into, at)
    if (!this.#agreed.headerDigest) return
    into.writeUInt32LE(crc32c(into.subarray(at, at + BHS_BYTES)), at + BHS_BYTES)
  }

  /** Padding and digest behind data that is in its place. */
  #finish({ reply, replyAt }: Room, bytes: number): void {
    const from = replyAt + this.#headBytes
    const end = from + pdu.padded(bytes)
    reply.fill(0, from + bytes, end)
    if (this.#agreed.dataDigest && bytes > 0) {
      reply.writeUInt32LE(crc32c(reply.subarray(from, end)), end)
    }
    const total = this.#headBytes + bytes + this.#tailBytes(bytes)
    this.#replies.add(reply, replyAt, total)
  }
}

/** A part of a command's data that was asked for by R2T. */
export interface Transfer {
  readonly tag: number
  readonly serial: number
  readonly offset: number
  readonly length: number
}
