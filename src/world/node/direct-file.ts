/**
 * A file opened past the page cache (O_DIRECT, open(2)): the device moves whole blocks between its medium and memory that
 * begins at a block's multiple. Nobody above has such memory, so bytes go through pieces of this process's own, of which
 * there are a few: who finds none free waits in order.
 *
 * A write that covers the first or the last block in part reads that block before. So one write at a time (world.ts); reads
 * may go beside it, since what is around the written bytes is written as it was.
 */
import { roundDown, roundUp } from '../../base/bytes.js'
import type { FileDone, OpenFile } from '../world.js'
import type { Native } from './native.js'

/** Blocks of devices are 512 or 4096 bytes; of larger ones the kernel says EINVAL, and the caller hears so. */
export const DIRECT_UNIT_BYTES = 4096
export const PIECE_BYTES = 1024 * 1024
const PIECES_MAX = 16

export class DirectMemory {
  readonly #native: Pick<Native, 'directOffset'>
  readonly #free: Buffer[] = []
  readonly #waiting: ((piece: Buffer) => void)[] = []
  #made = 0

  /** Throws ENOTSUP when nobody can tell where memory lies. */
  constructor(native: Pick<Native, 'directOffset'>) {
    this.#native = native
    this.#free.push(this.#make())
  }

  /** Calls `use`, maybe at once, with PIECE_BYTES that begin at a block's multiple. */
  take(use: (piece: Buffer) => void): void {
    const piece = this.#free.pop() ?? (this.#made < PIECES_MAX ? this.#make() : undefined)
    if (piece === undefined) this.#waiting.push(use)
    else use(piece)
  }

  give(piece: Buffer): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#free.push(piece)
    else next(piece)
  }

  #make(): Buffer {
    const memory = Buffer.from(new ArrayBuffer(PIECE_BYTES + DIRECT_UNIT_BYTES))
    const behind = this.#native.directOffset(memory)
    this.#made++
    const start = (DIRECT_UNIT_BYTES - behind) % DIRECT_UNIT_BYTES
    return memory.subarray(start, start + PIECE_BYTES)
  }
}

/** What of a transfer goes through one piece of memory: `length` bytes at `offset` of the blocks [from, end). */
interface Part {
  readonly from: number
  readonly end: number
  readonly offset: number
  readonly length: number
}

/** `moved`: bytes of the transfer before this part. */
type Move = (part: Part, piece: Buffer, moved: number, ended: FileDone) => void

export class DirectFile implements OpenFile {
  readonly #file: OpenFile
  readonly #memory: DirectMemory
  #pending = 0
  #closed = false

  /** Takes over a file that was opened with O_DIRECT. */
  constructor(file: OpenFile, memory: DirectMemory) {
    this.#file = file
    this.#memory = memory
  }

  readNow(_into: Uint8Array, _position: number): number {
    return -1
  }

  read(into: Uint8Array, position: number, done: FileDone): void {
    this.#through(into.length, position, done, (part, piece, moved, ended) => {
      this.#file.read(blocksOf(piece, part), part.from, (error, count) => {
        const found = Math.min(Math.max(0, count - part.offset), part.length)
        if (error === null) piece.copy(into, moved, part.offset, part.offset + found)
        ended(error, error === null ? found : 0)
      })
    })
  }

  writeNow(_data: Uint8Array, _position: number): void {
    throw errno('ENOTSUP', 'a file past the page cache is not written at once')
  }

  write(data: Uint8Array, position: number, done: FileDone): void {
    this.#through(data.length, position, done, (part, piece, moved, ended) => {
      this.#edges(part, piece, (failure) => {
        if (failure !== null) {
          ended(failure, 0)
          return
        }
        piece.set(data.subarray(moved, moved + part.length), part.offset)
        this.#file.write(blocksOf(piece, part), part.from, (error) =>
          ended(error, error === null ? part.length : 0),
        )
      })
    })
  }

  sync(done: FileDone): void {
    this.#open().sync(done)
  }

  allocate(length: number): Promise<void> {
    return this.#open().allocate(length)
  }

  punch(offset: number, length: number): Promise<void> {
    return this.#open().punch(offset, length)
  }

  truncate(length: number): Promise<void> {
    return this.#open().truncate(length)
  }

  size(): number {
    return this.#open().size()
  }

  /** What is under way ends before, and is several operations of the file below. */
  close(): void {
    this.#open()
    this.#closed = true
    if (this.#pending === 0) this.#file.close()
  }

  #open(): OpenFile {
    if (this.#closed) throw errno('EBADF', 'file used after close')
    return this.#file
  }

  /** Moves `length` bytes, a part after the other; a part of which less was moved is the last one. */
  #through(length: number, position: number, done: FileDone, move: Move): void {
    this.#open()
    this.#pending++
    const over: FileDone = (error, count) => {
      this.#pending--
      if (this.#pending === 0 && this.#closed) this.#file.close()
      done(error, count)
    }
    if (length === 0) over(null, 0)
    else this.#memory.take((piece) => this.#moveBy(piece, { length, position }, over, move))
  }

  #moveBy(
    piece: Buffer,
    { length, position }: { readonly length: number; readonly position: number },
    done: FileDone,
    move: Move,
  ): void {
    let moved = 0
    const next = (): void => {
      const part = partAt(position + moved, length - moved)
      move(part, piece, moved, (error, count) => {
        moved += count
        if (error === null && count === part.length && moved < length) {
          next()
          return
        }
        this.#memory.give(piece)
        done(error, moved)
      })
    }
    next()
  }

  /** Brings the blocks a write covers in part. */
  #edges(part: Part, piece: Buffer, done: (error: NodeJS.ErrnoException | null) => void): void {
    const length = part.end - part.from
    const last = length - DIRECT_UNIT_BYTES
    const blocks: number[] = []
    if (part.offset > 0) blocks.push(0)
    const isWhole = part.offset + part.length === length
    if (!isWhole && !(last === 0 && blocks.length > 0)) blocks.push(last)
    const next = (): void => {
      const at = blocks.shift()
      if (at === undefined) {
        done(null)
        return
      }
      const block = piece.subarray(at, at + DIRECT_UNIT_BYTES)
      this.#file.read(block, part.from + at, (error, count) => {
        if (error !== null) done(error)
        else if (count < block.length) done(errno('EIO', 'the file ends inside a block'))
        else next()
      })
    }
    next()
  }
}

function partAt(position: number, length: number): Part {
  const from = roundDown(position, DIRECT_UNIT_BYTES)
  const end = Math.min(roundUp(position + length, DIRECT_UNIT_BYTES), from + PIECE_BYTES)
  const offset = position - from
  return { from, end, offset, length: Math.min(length, end - position) }
}

function blocksOf(piece: Buffer, { from, end }: Part): Buffer {
  return piece.subarray(0, end - from)
}

function errno(code: string, reason: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${reason}`), { code })
}
