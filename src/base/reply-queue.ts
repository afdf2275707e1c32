/**
 * Replies of one connection that wait for the end of the turn. Small ones are laid side by side in
 * a slab, in place: a read's payload is written by the volume straight behind the room for its header.
 * What lies side by side leaves as one piece.
 */
import { noBytes } from './bytes.js'

/** Replies up to this size share slabs. */
const SHARED_BYTES_MAX = 64 * 1024
const SLAB_BYTES = 256 * 1024

/** Room for a reply; the holder fills it before it is queued. */
export interface Room {
  reply: Buffer
  replyAt: number
}

export class ReplyQueue {
  /** Bytes queued and not taken. */
  bytes = 0

  #slab = noBytes()
  #used = 0
  #pieces: Buffer[] = []
  /** The piece being made: neighbours are added to it as long as they are neighbours. */
  #run = noBytes()
  #runFrom = 0
  #runTo = 0

  /** Points `room` at `length` bytes of uninitialised memory. */
  reserve(length: number, room: Room): void {
    if (length > SHARED_BYTES_MAX) {
      room.reply = Buffer.allocUnsafeSlow(length)
      room.replyAt = 0
      return
    }
    if (this.#slab.length - this.#used < length) {
      // Never reused: the connection may still be sending from the old one.
      this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
      this.#used = 0
    }
    room.reply = this.#slab
    room.replyAt = this.#used
    this.#used += length
  }

  /** Queues `length` bytes of `buffer`, which is kept and must not change. */
  add(buffer: Buffer, at: number, length: number): void {
    if (buffer !== this.#run || at !== this.#runTo) {
      this.#closeRun()
      this.#run = buffer
      this.#runFrom = at
    }
    this.#runTo = at + length
    this.bytes += length
  }

  /** Everything queued, in order; the queue is empty then. */
  take(): Buffer[] {
    this.#closeRun()
    const pieces = this.#pieces
    this.#pieces = []
    this.#runFrom = this.#runTo
    this.bytes = 0
    return pieces
  }

  #closeRun(): void {
    if (this.#runTo > this.#runFrom) {
      this.#pieces.push(this.#run.subarray(this.#runFrom, this.#runTo))
    }
  }
}
