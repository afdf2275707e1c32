/**
 * Disks that are open through this mount. A working VDI is read without a lock as long as nobody here writes to it; the first who opens
 * it for writing takes the lock for all, and all see the same then. The size is that of a file: writes behind the end make the VDI larger,
 * in steps, and when a descriptor is closed the VDI gets the size the file has.
 */

import { BufferPool } from '../base/buffer-pool.js'
import { roundUp } from '../base/bytes.js'
import { Code, codeText, SheepError } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import type { Log } from '../base/log.js'
import { HYPER_OBJECTS_MAX } from '../model/hyper-tree.js'
import type { Vid } from '../model/oid.js'
import { type Followed, followSnapshot, followVdi } from '../remote/following-volume.js'
import type { OwnVolume, RemoteVolumes } from '../remote/remote-volumes.js'
import type { Extent, Volume } from '../volume/volume.js'
import { Errno } from '../wire/fuse/constants.js'
import type { Clock } from '../world/world.js'
import { writeSize } from './changes.js'
import type { DiskTimes } from './disk-times.js'
import { FsError } from './errors.js'

/** A VDI that is written behind its end grows by this much at once. */
const GROWTH_BYTES = 64 * 1024 * 1024
const SIZE_AGAIN_MS = 5
const SIZE_WAIT_MS = 10_000

export interface DisksOptions {
  readonly volumes: RemoteVolumes
  readonly clock: Clock
  readonly log: Log
  readonly times: DiskTimes
}

/** A snapshot by its id, else the working VDI. */
export interface DiskTarget {
  readonly name: string
  readonly snapshot?: { readonly snapId: number; readonly vid: Vid }
}

export class Disks {
  /** What reads go through on their way to the kernel. */
  readonly memory = new BufferPool()
  readonly #options: DisksOptions
  readonly #open = new Map<string, OpenDisk>()

  constructor(options: DisksOptions) {
    this.#options = options
  }

  /** Rejects with a SheepError; VDI_LOCKED when somebody else has it open for writing. */
  async use(target: DiskTarget, writes: boolean): Promise<OpenDisk> {
    const key = JSON.stringify([target.name, target.snapshot?.vid])
    const known = this.#open.get(key)
    const disk = known === undefined || known.isLost ? new OpenDisk(target, this.#options) : known
    this.#open.set(key, disk)
    disk.users++
    try {
      await disk.enter(writes)
      return disk
    } catch (error) {
      this.#left(key, disk)
      throw error
    }
  }

  async leave(disk: OpenDisk, writes: boolean): Promise<void> {
    const { target } = disk
    try {
      if (writes) await disk.writerLeaves()
    } finally {
      this.#left(JSON.stringify([target.name, target.snapshot?.vid]), disk)
    }
  }

  #left(key: string, disk: OpenDisk): void {
    this.#options.times.look(disk.target.name)
    if (--disk.users === 0 && this.#open.get(key) === disk) this.#open.delete(key)
  }

  /** The open disk of a target, if any. */
  of(target: DiskTarget): OpenDisk | undefined {
    return this.#open.get(JSON.stringify([target.name, target.snapshot?.vid]))
  }
}

interface Writing {
  readonly own: OwnVolume
  /** Of the VDI; as far as this process knows. */
  headerBytes: number
  /** Of the file. */
  fileBytes: number
}

export class OpenDisk {
  readonly target: DiskTarget
  readonly #options: DisksOptions
  users = 0
  #writers = 0
  #writing: Writing | undefined
  #reading: Followed | undefined
  /** Openings, closings and changes of the size, one after the other. */
  #queue: Promise<unknown> = Promise.resolve()

  constructor(target: DiskTarget, options: DisksOptions) {
    this.target = target
    this.#options = options
  }

  enter(writes: boolean): Promise<void> {
    return this.#inTurn(async () => {
      if (writes) {
        if (this.target.snapshot !== undefined) throw new SheepError(Code.READONLY)
        if (this.#writers === 0) {
          const own = await this.#options.volumes.openOwn(this.target.name)
          const { sizeBytes } = own.volume
          this.#writing = { own, headerBytes: sizeBytes, fileBytes: sizeBytes }
        }
        this.#writers++
      } else if (this.#writing === undefined) {
        this.#reading ??= await this.#follow()
      }
    })
  }

  /** The last one gives the lock back. Rejects when the last flush failed. */
  writerLeaves(): Promise<void> {
    return this.#inTurn(async () => {
      if (--this.#writers > 0) return
      const { own } = this.#writing!
      try {
        await this.#settleSize()
      } finally {
        this.#writing = undefined
        // Slots read before are older than what was written here.
        this.#reading = undefined
        await own.close()
      }
    })
  }

  async #follow(): Promise<Followed> {
    const { volumes, clock } = this.#options
    const { name, snapshot } = this.target
    if (snapshot === undefined) return followVdi(name, volumes.access, clock)
    return followSnapshot(snapshot.vid, volumes.access, clock)
  }

  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#queue.then(run)
    this.#queue = turn.catch(() => undefined)
    return turn
  }

  /** What was opened is gone: who opens the name now gets what has it now. */
  get isLost(): boolean {
    return this.#writing === undefined && this.#reading?.isLost() === true
  }

  /** Where reads go; undefined while it has to be opened first. */
  get volume(): Volume | undefined {
    return this.#writing?.own.volume ?? this.#reading?.volume
  }

  /** False: `ready` before anything is read. */
  get isReady(): boolean {
    return this.#writing !== undefined || this.#reading?.isFresh() === true
  }

  /** Opens what reads need, and makes sure that sizes and slots are not older than a second. */
  async ready(): Promise<Volume> {
    if (this.#writing === undefined) {
      await this.#inTurn(async () => {
        if (this.#writing === undefined) this.#reading ??= await this.#follow()
      })
      await this.#reading?.renew()
    }
    const { volume } = this
    if (volume === undefined) throw new SheepError(Code.AGAIN, codeText(Code.AGAIN))
    return volume
  }

  /** Of the file. */
  get sizeBytes(): number {
    const writing = this.#writing
    if (writing === undefined) return this.#reading?.volume.sizeBytes ?? 0
    this.#noticeGrowth(writing)
    return writing.fileBytes
  }

  get isWritten(): boolean {
    return this.#writing !== undefined
  }

  /** Somebody else has resized it. */
  #noticeGrowth(writing: Writing): void {
    const { sizeBytes } = writing.own.volume
    if (sizeBytes <= writing.headerBytes) return
    writing.headerBytes = sizeBytes
    writing.fileBytes = sizeBytes
  }

  get writable(): Volume {
    return this.#mustWrite().own.volume
  }

  #mustWrite(): Writing {
    if (this.#writing === undefined) throw new FsError(Errno.EBADF)
    return this.#writing
  }

  /** A write up to there has succeeded. */
  written(endBytes: number): void {
    const writing = this.#writing
    if (writing === undefined) return
    if (endBytes > writing.fileBytes) writing.fileBytes = endBytes
    this.#options.times.written(this.target.name)
  }

  /** Makes room for a write that ends there. */
  reserve(endBytes: number): Promise<void> {
    return this.#inTurn(async () => {
      const writing = this.#mustWrite()
      this.#noticeGrowth(writing)
      if (endBytes <= writing.headerBytes) return
      const most = await this.#bytesMax(writing, endBytes)
      await this.#setHeader(writing, Math.min(most, roundUp(endBytes, GROWTH_BYTES)))
    })
  }

  /** The file has this size from now on; what is cut off becomes zeros first. */
  truncate(sizeBytes: number): Promise<void> {
    return this.#inTurn(async () => {
      const writing = this.#mustWrite()
      this.#noticeGrowth(writing)
      await this.#bytesMax(writing, sizeBytes)
      if (sizeBytes < writing.fileBytes) {
        const range = { offset: sizeBytes, length: writing.fileBytes - sizeBytes }
        const options = { fua: false, mayUnmap: true, fastOnly: false }
        const { volume } = writing.own
        const code = await new Promise<Code>((done) => volume.zero(range, options, done))
        if (code !== Code.SUCCESS) throw new SheepError(code, codeText(code))
      } else if (sizeBytes > writing.headerBytes) {
        await this.#setHeader(writing, sizeBytes)
      }
      writing.fileBytes = sizeBytes
      this.#options.times.written(this.target.name)
    })
  }

  /** The VDI gets the size of the file. */
  settle(): Promise<void> {
    return this.#inTurn(() => this.#settleSize())
  }

  async #settleSize(): Promise<void> {
    const writing = this.#writing
    if (writing === undefined) return
    this.#noticeGrowth(writing)
    if (writing.headerBytes !== writing.fileBytes) await this.#setHeader(writing, writing.fileBytes)
  }

  /** The most it can have; rejects with EFBIG when `wanted` is more. */
  async #bytesMax({ own }: Writing, wanted: number): Promise<number> {
    const { objectBytes } = own.volume
    const plain = Math.min(objectBytes * LIMITS.objectsPerVdiMax, LIMITS.volumeBytesMax)
    if (wanted <= plain) return plain
    const most = Math.min(objectBytes * HYPER_OBJECTS_MAX, LIMITS.volumeBytesMax)
    const vid = await own.access.find(this.target.name, { kind: 'working' })
    const isHyper = (await own.access.readHeader(vid)).storePolicy === 1
    if (!isHyper || wanted > most) throw new FsError(Errno.EFBIG)
    return most
  }

  async #setHeader(writing: Writing, sizeBytes: number): Promise<void> {
    const { own } = writing
    const { clock } = this.#options
    await writeSize(own.access, this.target.name, sizeBytes)
    writing.headerBytes = Math.max(writing.headerBytes, sizeBytes)
    own.access.poke()
    // The volume reads its inode again; until then it would not know what to do with a write.
    for (let waitedMs = 0; own.volume.sizeBytes !== sizeBytes; waitedMs += SIZE_AGAIN_MS) {
      if (waitedMs > SIZE_WAIT_MS) throw new SheepError(Code.EIO, 'the new size was not taken up')
      await new Promise<void>((resolve) => void clock.after(SIZE_AGAIN_MS, resolve))
    }
    writing.headerBytes = sizeBytes
  }

  /** Allocation of the range as it is now. */
  async extents(offset: number, length: number): Promise<Extent[]> {
    const writing = this.#writing
    if (writing === undefined) {
      const volume = await this.ready()
      return volume.extents({ offset, length })
    }
    const { access, volume } = writing.own
    return new Promise((resolve, reject) => {
      access.whenSure(
        () => resolve(volume.extents({ offset, length })),
        (code) => reject(new SheepError(code)),
      )
    })
  }
}
