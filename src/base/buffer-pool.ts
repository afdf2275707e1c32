/**
 * Memory for payloads, used again and again. What a large transfer allocates piece by piece lies outside of the
 * garbage collector's heap but drives it: a third of the processor went into marking, for nothing.
 *
 * Who takes a buffer owns it and gives it back once, when nobody reads or writes it any more; one that is never given
 * back is the garbage collector's, which is the right end for a buffer nobody can answer for.
 */

const SMALLEST_BYTES = 4096
/** Sizes are the powers of two from 4 KiB up to here; what is larger is made anew each time. */
const LARGEST_BYTES = 16 * 1024 * 1024
const CLASSES = Math.log2(LARGEST_BYTES / SMALLEST_BYTES) + 1
/** What lies here unused, at most. */
const IDLE_BYTES_MAX = 32 * 1024 * 1024
/** Nothing that is read by mistake looks like this. */
const SCRIBBLE = 0xd5

export interface BufferPoolOptions {
  /** Overwrite what is given back, and throw when it is given back twice: for tests. */
  readonly scribble?: boolean
}

export class BufferPool {
  readonly #idle: ArrayBuffer[][] = Array.from({ length: CLASSES }, () => [])
  readonly #scribble: boolean
  #idleBytes = 0

  constructor({ scribble = false }: BufferPoolOptions = {}) {
    this.#scribble = scribble
  }

  /** Bytes kept for later. */
  get idleBytes(): number {
    return this.#idleBytes
  }

  /** `length` bytes of any content. */
  take(length: number): Buffer {
    if (length > LARGEST_BYTES) return Buffer.allocUnsafeSlow(length)
    const index = classOf(length)
    const found = this.#idle[index]!.pop()
    if (found === undefined) {
      return Buffer.allocUnsafeSlow(SMALLEST_BYTES * 2 ** index).subarray(0, length)
    }
    this.#idleBytes -= found.byteLength
    return Buffer.from(found, 0, length)
  }

  /** Takes back what `take` gave, and nothing else. */
  give(buffer: Buffer): void {
    const memory = buffer.buffer as ArrayBuffer
    if (this.#scribble) this.#spoil(memory)
    if (memory.byteLength > LARGEST_BYTES) return
    if (this.#idleBytes + memory.byteLength > IDLE_BYTES_MAX) return
    this.#idleBytes += memory.byteLength
    this.#idle[classOf(memory.byteLength)]!.push(memory)
  }

  #spoil(memory: ArrayBuffer): void {
    if (this.#idle.some((buffers) => buffers.includes(memory))) {
      throw new Error('a buffer was given back twice')
    }
    new Uint8Array(memory).fill(SCRIBBLE)
  }
}

function classOf(length: number): number {
  return length <= SMALLEST_BYTES ? 0 : 32 - Math.clz32((length - 1) >>> 12)
}
