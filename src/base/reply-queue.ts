/**
 * Replies of one connection that wait for the end of the turn. Small ones are laid side by side in
 * a slab, in place: a read's payload is written by the volume straight behind the room for its header.
 * What lies side by side leaves as one piece. Memory is used again once everything in it has been sent.
 */
import type { BufferPool } from './buffer-pool.js'
import { noBytes } from './bytes.js'

/** Replies up to this size share slabs. */
const SHARED_BYTES_MAX = 64 * 1024
const SLAB_BYTES = 256 * 1024

/** Room for a reply; the holder fills it before it is queued. */
export interface Room {
  reply: Buffer
  replyAt: number
}

/** What leaves together. */
export interface Batch {
  readonly pieces: Buffer[]
  /** To be called when the kernel has all of it; never, when it will not come to that. */
  readonly sent: () => void
}

/** Memory that replies lie in. */
interface Block {
  readonly memory: Buffer
  /** Replies that have room here and were not sent yet. */
  pending: number
  /** More of them may come. */
  isOpen: boolean
}

type Memory = Pick<BufferPool, 'take' | 'give'>

const OWN_MEMORY: Memory = {
  take: (length) => Buffer.allocUnsafeSlow(length),
  give: () => undefined,
}

export class ReplyQueue {
  /** Bytes queued and not taken. */
  bytes = 0

  readonly #memory: Memory
  readonly #blocks: Block[] = []
  #slab: Block | undefined
  #used = 0
  #pieces: Buffer[] = []
  /** How many replies of which block the next batch holds. */
  #counts: { readonly block: Block; count: number }[] = []
  /** The piece being made: neighbours are added to it as long as they are neighbours. */
  #run = noBytes()
  #runFrom = 0
  #runTo = 0
  #runReplies = 0

  constructor(memory: Memory = OWN_MEMORY) {
    this.#memory = memory
  }

  /** Points `room` at `length` bytes of uninitialised memory, to be queued (`add`) or given up (`forgo`). */
  reserve(length: number, room: Room): void {
    if (length > SHARED_BYTES_MAX) {
      const { memory } = this.#newBlock(length, false)
      room.reply = memory
      room.replyAt = 0
      return
    }
    if (this.#slab === undefined || SLAB_BYTES - this.#used < length) {
      const full = this.#slab
      this.#slab = this.#newBlock(SLAB_BYTES, true)
      this.#used = 0
      if (full !== undefined) this.#retire(full)
    } else this.#slab.pending++
    room.reply = this.#slab.memory
    room.replyAt = this.#used
    this.#used += length
  }

  /** What was reserved will be queued in so many parts (`add` each). */
  divide({ reply }: Room, parts: number): void {
    const block = this.#blockOf(reply)
    if (block !== undefined) block.pending += parts - 1
  }

  /** Nothing will be queued of what was reserved. */
  forgo({ reply }: Room): void {
    const block = this.#blockOf(reply)
    if (block !== undefined) this.#done(block, 1)
  }

  /** Queues `length` bytes of `buffer`, which is kept and must not change. */
  add(buffer: Buffer, at: number, length: number): void {
    if (buffer !== this.#run || at !== this.#runTo) {
      this.#closeRun()
      this.#run = buffer
      this.#runFrom = at
    }
    this.#runReplies++
    this.#runTo = at + length
    this.bytes += length
  }

  /** Everything queued, in order; the queue is empty then. */
  take(): Batch {
    this.#closeRun()
    const pieces = this.#pieces
    const counts = this.#counts
    this.#pieces = []
    this.#counts = []
    this.#runFrom = this.#runTo
    this.bytes = 0
    return {
      pieces,
      sent: () => {
        for (const { block, count } of counts) this.#done(block, count)
      },
    }
  }

  #newBlock(length: number, isOpen: boolean): Block {
    const block = { memory: this.#memory.take(length), pending: 1, isOpen }
    this.#blocks.push(block)
    return block
  }

  #blockOf(memory: Buffer): Block | undefined {
    return this.#blocks.find((block) => block.memory === memory)
  }

  #retire(slab: Block): void {
    slab.isOpen = false
    this.#done(slab, 0)
  }

  #done(block: Block, count: number): void {
    block.pending -= count
    if (block.pending > 0) return
    if (block.isOpen) {
      // Nothing in it is of any use any more: from the beginning again, where the processor's caches are warm.
      this.#used = 0
      return
    }
    this.#blocks.splice(this.#blocks.indexOf(block), 1)
    this.#memory.give(block.memory)
  }

  #closeRun(): void {
    if (this.#runTo > this.#runFrom) {
      this.#pieces.push(this.#run.subarray(this.#runFrom, this.#runTo))
    }
    const block = this.#runReplies > 0 ? this.#blockOf(this.#run) : undefined
    if (block !== undefined) this.#counts.push({ block, count: this.#runReplies })
    this.#runReplies = 0
  }
}
