/** `disk.raw` opened: a volume as a file, or a stretch of it (a partition). */
import { Code, codeOf, type Done } from '../base/codes.js'
import { Errno } from '../wire/fuse/constants.js'
import type { Disks, DiskTarget, OpenDisk } from './disks.js'
import { errnoOfError, FsError, ioErrnoOf, mustBe } from './errors.js'
import type { Allocation, FileRange, OpenFile, OpenHow } from './node.js'

/** Bytes whose allocation is looked at with the first step of a seek. */
const SEEK_STEP_BYTES = 64 * 1024 ** 3

export interface DiskWindow {
  readonly startBytes: number
  readonly sizeBytes: number
}

export interface DiskFileOptions {
  readonly disks: Disks
  readonly target: DiskTarget
  /** A partition. Undefined: the whole disk. */
  readonly window?: DiskWindow | undefined
  /** The size is the VDI's and stays: of a partition, and as in sheepdog 1.0's layout. */
  readonly isFixed: boolean
  readonly isDirect: boolean
}

export async function openDisk(options: DiskFileOptions, how: OpenHow): Promise<OpenFile> {
  const disk = await options.disks.use(options.target, how.writes)
  return new DiskFile(options, disk, how.writes)
}

type ReadDone = (errno: number, data: Uint8Array) => void

const NOTHING = Buffer.alloc(0)

class DiskFile implements OpenFile {
  readonly isDirect: boolean
  readonly #options: DiskFileOptions
  readonly #disk: OpenDisk
  readonly #writes: boolean
  readonly #start: number

  constructor(options: DiskFileOptions, disk: OpenDisk, writes: boolean) {
    this.isDirect = options.isDirect
    this.#options = options
    this.#disk = disk
    this.#writes = writes
    this.#start = options.window?.startBytes ?? 0
  }

  get #sizeBytes(): number {
    const { window } = this.#options
    const size = this.#disk.sizeBytes - this.#start
    return Math.max(0, window === undefined ? size : Math.min(window.sizeBytes, size))
  }

  read(offset: number, size: number, done: ReadDone): void {
    // Behind the end there may be more by now.
    const isInside = this.#disk.isWritten || offset + size <= this.#sizeBytes
    if (this.#disk.isReady && isInside) {
      this.#readNow(offset, size, done)
      return
    }
    this.#disk.ready().then(
      () => this.#readNow(offset, size, done),
      (error: unknown) => done(ioErrnoOf(codeOf(error)), NOTHING),
    )
  }

  #readNow(offset: number, size: number, done: ReadDone): void {
    const { volume } = this.#disk
    const length = Math.min(size, this.#sizeBytes - offset)
    if (length <= 0) {
      done(0, NOTHING)
    } else if (volume === undefined) {
      done(Errno.EIO, NOTHING)
    } else {
      const { memory } = this.#options.disks
      const into = memory.take(length)
      volume.read(this.#start + offset, into, (code) => {
        if (code !== Code.SUCCESS) {
          // The garbage collector's: a part that has not ended yet may still write to it.
          done(ioErrnoOf(code), NOTHING)
          return
        }
        done(0, into)
        memory.give(into)
      })
    }
  }

  write(offset: number, data: Uint8Array, done: (errno: number, written: number) => void): void {
    const fail = (error: unknown): void => {
      done(errnoOfError(error) ?? ioErrnoOf(codeOf(error)), 0)
    }
    try {
      if (!this.#writes) throw new FsError(Errno.EBADF)
      const room = this.#sizeBytes - offset
      if (offset + data.length <= this.#sizeBytes) this.#writeNow(offset, data, done)
      else if (this.#options.isFixed) {
        if (room <= 0) done(Errno.ENOSPC, 0)
        else this.#writeNow(offset, data.subarray(0, room), done)
      } else {
        this.#disk
          .reserve(offset + data.length)
          .then(() => this.#writeNow(offset, data, done))
          .catch(fail)
      }
    } catch (error) {
      fail(error)
    }
  }

  #writeNow(
    offset: number,
    data: Uint8Array,
    done: (errno: number, written: number) => void,
  ): void {
    const disk = this.#disk
    const at = this.#start + offset
    disk.writable.write(at, data, false, (code) => {
      if (code === Code.SUCCESS) disk.written(at + data.length)
      done(code === Code.SUCCESS ? 0 : ioErrnoOf(code), code === Code.SUCCESS ? data.length : 0)
    })
  }

  /** Durable on every copy. Who only reads has nothing to wait for but what others here have written. */
  sync(done: (errno: number) => void): void {
    const { volume } = this.#disk
    if (volume === undefined || !this.#disk.isWritten) done(0)
    else volume.flush((code) => done(code === Code.SUCCESS ? 0 : ioErrnoOf(code)))
  }

  /** Sizes that are the VDI's do not change: scripts of sheepdog 1.0 rely on `dd` and `cp` leaving them alone. */
  async truncate(sizeBytes: number): Promise<void> {
    if (!this.#writes) throw new FsError(Errno.EINVAL)
    if (!this.#options.isFixed) await this.#disk.truncate(sizeBytes)
  }

  async allocate(range: FileRange, how: Allocation): Promise<void> {
    if (!this.#writes) throw new FsError(Errno.EBADF)
    const end = range.offset + range.length
    if (end > this.#sizeBytes && !how.keepSize) {
      if (this.#options.isFixed) throw new FsError(Errno.EFBIG)
      await this.#disk.truncate(end)
    }
    const length = Math.min(end, this.#sizeBytes) - range.offset
    if (length <= 0) return
    const from = this.#start + range.offset
    if (how.kind !== 'reserve') await this.#zero({ offset: from, length }, true)
    else {
      // What is there already is not to be touched.
      let offset = from
      for (const extent of await this.#disk.extents(from, length)) {
        if (extent.hole) await this.#zero({ offset, length: extent.length }, false)
        offset += extent.length
      }
    }
  }

  async #zero(range: FileRange, mayUnmap: boolean): Promise<void> {
    const volume = this.#disk.writable
    const options = { fua: false, mayUnmap, fastOnly: false }
    mustBe(await new Promise<Code>((done: Done) => volume.zero(range, options, done)))
    this.#disk.written(0)
  }

  async seek(offset: number, what: 'data' | 'hole'): Promise<number | undefined> {
    await this.#disk.ready()
    const size = this.#sizeBytes
    if (offset >= size) return undefined
    // Longer and longer steps: of petabytes of nothing there is not much to look at.
    for (let [from, step] = [offset, SEEK_STEP_BYTES]; from < size; step *= 2) {
      const length = Math.min(step, size - from)
      for (const extent of await this.#disk.extents(this.#start + from, length)) {
        if (extent.hole === (what === 'hole')) return from
        from += extent.length
      }
    }
    return what === 'hole' ? size : undefined
  }

  async settle(): Promise<void> {
    if (this.#writes) await this.#disk.settle()
  }

  close(): Promise<void> {
    return this.#options.disks.leave(this.#disk, this.#writes)
  }
}
