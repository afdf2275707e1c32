/**
 * Received bytes that nobody has consumed yet. Chunks are kept as they came; bytes are copied only
 * where a message crosses a chunk boundary.
 */
import { noBytes } from './bytes.js'

const FRAME_BYTES_MAX = 64

export class Inbox {
  /** Where the frame found by `frame` starts, and in which buffer. Valid until the next call. */
  view: Buffer = noBytes()
  viewAt = 0
  /** Bytes here and not consumed. */
  bytes = 0

  #head: Buffer = noBytes()
  #at = 0
  #rest: Buffer[] = []
  #restAt = 0
  #isBorrowed = false
  readonly #scratch = Buffer.alloc(FRAME_BYTES_MAX)

  /** Keeps `chunk`; with `isBorrowed` only until `keep`. */
  push(chunk: Buffer, isBorrowed = false): void {
    this.bytes += chunk.length
    this.#isBorrowed = isBorrowed
    if (this.#at === this.#head.length && this.#restAt === this.#rest.length) {
      this.#head = chunk
      this.#at = 0
    } else this.#rest.push(chunk)
  }

  /** Copies what is left of a borrowed chunk: its memory is somebody else's from now on. */
  keep(): void {
    if (!this.#isBorrowed) return
    this.#isBorrowed = false
    if (this.bytes === 0) this.clear()
    else if (this.#restAt < this.#rest.length) this.#rest.push(Buffer.from(this.#rest.pop()!))
    else {
      this.#head = Buffer.from(this.#head.subarray(this.#at))
      this.#at = 0
    }
  }

  /** Shows the next `length` (<= 64) bytes through `view`, without consuming; needs `bytes` >= length. */
  frame(length: number): void {
    if (this.#head.length - this.#at >= length) {
      this.view = this.#head
      this.viewAt = this.#at
      return
    }
    let filled = this.#head.copy(this.#scratch, 0, this.#at)
    for (let i = this.#restAt; filled < length; i++) {
      filled += this.#rest[i]!.copy(this.#scratch, filled, 0, length - filled)
    }
    this.view = this.#scratch
    this.viewAt = 0
  }

  /** Consumes up to `length` bytes and says how many. */
  skip(length: number): number {
    const count = Math.min(length, this.bytes)
    let left = count
    while (left > 0) left -= this.#advance(left)
    return count
  }

  /** Consumes `length` bytes; a view where they are contiguous. Needs `bytes` >= length. */
  take(length: number): Buffer {
    if (this.#head.length - this.#at >= length) {
      const taken = this.#head.subarray(this.#at, this.#at + length)
      this.#at += length
      this.bytes -= length
      if (this.#at === this.#head.length) this.#next()
      return taken
    }
    const gathered = Buffer.allocUnsafe(length)
    this.fill(gathered, 0)
    return gathered
  }

  /** Consumes into `target` from `at` on, as much as there is or as fits. Returns bytes moved. */
  fill(target: Buffer, at: number): number {
    const count = Math.min(target.length - at, this.bytes)
    let moved = 0
    while (moved < count) {
      if (!this.#isAt(target, at + moved)) this.#head.copy(target, at + moved, this.#at)
      moved += this.#advance(count - moved)
    }
    return count
  }

  /** The next bytes were received where they are wanted. */
  #isAt(target: Buffer, at: number): boolean {
    const head = this.#head
    return head.buffer === target.buffer && head.byteOffset + this.#at === target.byteOffset + at
  }

  clear(): void {
    this.#head = noBytes()
    this.#at = 0
    this.#rest = []
    this.#restAt = 0
    this.#isBorrowed = false
    this.bytes = 0
  }

  /** Consumes up to `length` bytes of the first chunk. */
  #advance(length: number): number {
    const count = Math.min(length, this.#head.length - this.#at)
    this.#at += count
    this.bytes -= count
    if (this.#at === this.#head.length) this.#next()
    return count
  }

  #next(): void {
    const next = this.#rest[this.#restAt]
    this.#at = 0
    if (next === undefined) {
      this.#head = noBytes()
      return
    }
    this.#head = next
    this.#restAt++
    // An index instead of shift(): a client that drips single bytes must not cost n * n.
    if (this.#restAt === this.#rest.length || this.#restAt > 1024) {
      this.#rest = this.#rest.slice(this.#restAt)
      this.#restAt = 0
    }
  }
}
