/** One open file: at once through the binding where it can be, through Node's thread pool else. */
import fs from 'node:fs'
import { promisify } from 'node:util'
import { zeros } from '../../base/bytes.js'
import type { FileDone, OpenFile } from '../world.js'
import type { Native } from './native.js'

const truncateFile = promisify(fs.ftruncate)
const ZERO_PIECE_BYTES = 1024 * 1024

/**
 * A descriptor is a small number the kernel gives to the next file at once. So it is closed only
 * after the last operation on it has ended, however early `close` is called, and never used after.
 */
export class NodeFile implements OpenFile {
  readonly #native: Native
  readonly #fd: number
  /** What the kernel moves at once ends at a multiple of this, but for the end of the file. */
  readonly #unitBytes: number
  #pending = 0
  #closed = false
  /** False once the file system has said that it has no reads that do not wait. */
  #canReadNow = true

  /** Takes the descriptor over. */
  constructor(native: Native, fd: number, unitBytes = 1) {
    this.#native = native
    this.#fd = fd
    this.#unitBytes = unitBytes
  }

  readNow(into: Uint8Array, position: number): number {
    const fd = this.#open()
    if (!this.#canReadNow) return -1
    const count = this.#native.readNow(fd, into, position)
    if (count >= -1) return count
    this.#canReadNow = false
    return -1
  }

  read(into: Uint8Array, position: number, done: FileDone): void {
    const fd = this.#begin()
    let moved = 0
    const next = (): void => {
      fs.read(fd, into, moved, into.length - moved, position + moved, (error, count) => {
        if (error === null) moved += count
        const isEnd = count === 0 || count % this.#unitBytes !== 0
        if (error === null && !isEnd && moved < into.length) next()
        else this.#end(done, error, moved)
      })
    }
    next()
  }

  writeNow(data: Uint8Array, position: number): void {
    this.#native.writeNow(this.#open(), data, position)
  }

  write(data: Uint8Array, position: number, done: FileDone): void {
    const fd = this.#begin()
    let moved = 0
    const next = (): void => {
      fs.write(fd, data, moved, data.length - moved, position + moved, (error, count) => {
        if (error === null) moved += count
        if (error === null && count > 0 && moved < data.length) next()
        else this.#end(done, error ?? (moved < data.length ? stuckWrite() : null), moved)
      })
    }
    next()
  }

  sync(done: FileDone): void {
    fs.fdatasync(this.#begin(), (error) => this.#end(done, error, 0))
  }

  async allocate(length: number): Promise<void> {
    await this.#during(async (fd) => {
      if (length === 0) return
      try {
        await this.#native.allocate(fd, 0, length)
      } catch (error) {
        if (!isUnsupported(error)) throw error
        if (fs.fstatSync(fd).size < length) await truncateFile(fd, length)
      }
    })
  }

  async punch(offset: number, length: number): Promise<void> {
    await this.#during(async (fd) => {
      if (length === 0) return
      try {
        await this.#native.punch(fd, offset, length)
      } catch (error) {
        if (!isUnsupported(error)) throw error
        await writeZeros(fd, offset, Math.min(offset + length, fs.fstatSync(fd).size))
      }
    })
  }

  async truncate(length: number): Promise<void> {
    await this.#during((fd) => truncateFile(fd, length))
  }

  size(): number {
    return fs.fstatSync(this.#open()).size
  }

  close(): void {
    this.#open()
    this.#closed = true
    if (this.#pending === 0) fs.closeSync(this.#fd)
  }

  #open(): number {
    if (this.#closed) throw Object.assign(new Error('file used after close'), { code: 'EBADF' })
    return this.#fd
  }

  #begin(): number {
    const fd = this.#open()
    this.#pending++
    return fd
  }

  #end(done: FileDone, error: NodeJS.ErrnoException | null, count: number): void {
    this.#release()
    done(error, count)
  }

  #release(): void {
    this.#pending--
    if (this.#pending === 0 && this.#closed) fs.closeSync(this.#fd)
  }

  async #during(work: (fd: number) => Promise<void>): Promise<void> {
    const fd = this.#begin()
    try {
      await work(fd)
    } finally {
      this.#release()
    }
  }
}

/** What a hole is worth to its readers, where the file system has none. */
async function writeZeros(fd: number, from: number, end: number): Promise<void> {
  const write = promisify(fs.write)
  for (let at = from; at < end; ) {
    const piece = zeros(Math.min(ZERO_PIECE_BYTES, end - at))
    const { bytesWritten } = await write(fd, piece, 0, piece.length, at)
    if (bytesWritten === 0) throw stuckWrite()
    at += bytesWritten
  }
}

function stuckWrite(): NodeJS.ErrnoException {
  return Object.assign(new Error('EIO: the file takes no more bytes, write'), { code: 'EIO' })
}

function isUnsupported(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code
  return code === 'ENOTSUP' || code === 'ENOSYS'
}
