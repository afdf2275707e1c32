/**
 * The cached objects of one volume, whose right to be cached this node has (rights.ts). What it acknowledges without
 * having it on the owners is noted in the file `dirty` first, so that this node finds it again after a crash.
 */
import { Code, codeName, type Done } from '../../base/codes.js'
import { describe, type Log } from '../../base/log.js'
import type { ObjectRef } from '../../model/access.js'
import { dataOid, type Oid, oidIndex, type Vid, vidName } from '../../model/oid.js'
import type { Clock, OpenFile } from '../../world/world.js'
import { type BlockSet, blockBytesOf } from './blocks.js'
import { type Backing, CachedObject, type ObjectHome } from './cached-object.js'
import { DirtyFile, type DirtyFound, type DirtyHead } from './dirty-file.js'
import type { ObjectCache } from './object-cache.js'

export const DIRTY_FILE = 'dirty'
/** More dirty objects than this in a volume are pushed without being asked for. */
const DIRTY_OBJECTS_MAX = 10
/** Between two rounds of that: a guest that writes everywhere would have each of its writes pushed at once. */
const REST_MS = 1_000
/** Nothing stays dirty for much longer than this. */
const DIRTY_MS_MAX = 5_000
const PUSHED_AT_ONCE = 8

export interface CachedVolumeOptions {
  readonly vid: Vid
  readonly cache: ObjectCache
  readonly backing: Backing & { ref(oid: Oid): ObjectRef }
  readonly clock: Clock
  readonly log: Log
  readonly head: Omit<DirtyHead, 'boot' | 'synced'>
  /** What an earlier process left dirty. */
  readonly found?: DirtyFound['objects']
}

export class CachedVolume implements ObjectHome {
  readonly vid: Vid
  readonly objectBytes: number
  readonly blockBytes: number
  readonly backing: Backing
  readonly isDirect: boolean
  readonly #cache: ObjectCache
  readonly #clock: Clock
  readonly #log: Log
  readonly #objects = new Map<number, CachedObject>()
  /** In the order in which they became so. */
  readonly #dirty = new Set<CachedObject>()
  readonly #dirtyFile: DirtyFile
  readonly #refTo: (oid: Oid) => ObjectRef
  #isPushing = false
  #cancelPush: (() => void) | undefined
  #cancelRest: (() => void) | undefined
  #isOver = false

  private constructor(options: CachedVolumeOptions, dirtyFile: DirtyFile) {
    this.vid = options.vid
    this.objectBytes = 2 ** options.head.blockSizeShift
    this.blockBytes = blockBytesOf(this.objectBytes)
    this.backing = options.backing
    this.#cache = options.cache
    this.isDirect = options.cache.directio
    this.#clock = options.clock
    this.#log = options.log
    this.#dirtyFile = dirtyFile
    this.#refTo = (oid) => options.backing.ref(oid)
    for (const [index, blocks] of options.found ?? []) {
      const ref = this.#refTo(dataOid(this.vid, index))
      this.#adopt(new CachedObject(this, index, ref, blocks))
    }
  }

  /** Rejects with errno errors: then the volume is used without the cache. */
  static async open(options: CachedVolumeOptions): Promise<CachedVolume> {
    const { cache, vid, head } = options
    const objects = options.found ?? new Map<number, BlockSet>()
    const directory = cache.volumeDirectory(vid)
    cache.files.mkdir(directory)
    const dirtyFile = await DirtyFile.make(cache.files, `${directory}/${DIRTY_FILE}`, {
      head: { ...head, boot: cache.boot, synced: false },
      objects,
    })
    const kept = [...objects.keys()].map((index) => cache.objectPath(vid, index))
    const names = kept.map((path) => path.slice(directory.length + 1))
    await cache.clean(vid, new Set([DIRTY_FILE, ...names]))
    return new CachedVolume(options, dirtyFile)
  }

  get objectCount(): number {
    let count = 0
    for (const object of this.#objects.values()) if (object.isAdmitted) count++
    return count
  }

  get dirtyCount(): number {
    return this.#dirty.size
  }

  read(ref: ObjectRef, offset: number, into: Uint8Array, pulls: boolean, done: Done): void {
    this.#object(ref).read(ref, offset, into, pulls, done)
  }

  write(ref: ObjectRef, offset: number, data: Uint8Array, durable: boolean, done: Done): void {
    this.#object(ref).write(ref, offset, data, durable, done)
  }

  /** What was written before is on stable storage of the owners; else the first failure. */
  async push(indexes?: Iterable<number>): Promise<Code> {
    const wanted = indexes === undefined ? undefined : new Set(indexes)
    const objects = [...this.#dirty].filter((one) => wanted === undefined || wanted.has(one.index))
    let outcome: Code = Code.SUCCESS
    const worker = async (): Promise<void> => {
      for (let object = objects.shift(); object !== undefined; object = objects.shift()) {
        const code = await pushed(object)
        if (code !== Code.SUCCESS && outcome === Code.SUCCESS) outcome = code
      }
    }
    await Promise.all(Array.from({ length: PUSHED_AT_ONCE }, worker))
    return outcome
  }

  /** Takes objects out of the cache, all when not told which; what is dirty of them is gone. */
  async drop(indexes?: Iterable<number>): Promise<void> {
    const all = [...this.#objects.values()]
    const wanted = indexes === undefined ? undefined : new Set(indexes)
    const gone = all.filter(({ index }) => wanted === undefined || wanted.has(index))
    await Promise.all(
      gone.map(async (object) => {
        await object.drop()
        this.dirtied(object)
      }),
    )
  }

  /** The right was good in this epoch too. Throws errno errors. */
  stamp(epoch: number): void {
    if (!this.#isOver) this.#dirtyFile.stamp({ epoch })
  }

  /** What is dirty outlives a restart of the machine. Rejects with errno errors. */
  async preserve(): Promise<void> {
    for (const object of this.#dirty) {
      await new Promise<void>((resolve, reject) => {
        this.open(object).sync((error) => (error === null ? resolve() : reject(error)))
      })
    }
    await this.#cache.files.syncDir(this.#cache.volumeDirectory(this.vid))
    await this.#cache.files.syncDir(this.#cache.directory)
    this.#dirtyFile.stamp({ synced: true })
    await this.#dirtyFile.sync()
  }

  /** Nothing is written any more; the files stay for who comes next. */
  close(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#cancelPush?.()
    this.#cancelRest?.()
    this.#dirtyFile.close()
  }

  /** Everything is on the owners, or given up: nothing of it is left here. */
  async end(): Promise<void> {
    await this.drop()
    this.close()
    await this.#cache.clean(this.vid, new Set())
  }

  async admit(object: CachedObject): Promise<boolean> {
    const path = this.#cache.objectPath(this.vid, object.index)
    return await this.#cache.admit(object, { path, bytes: this.objectBytes })
  }

  open(object: CachedObject): OpenFile {
    return this.#cache.open(object)
  }

  remove(object: CachedObject): Promise<void> {
    return this.#cache.remove(object)
  }

  used(object: CachedObject): void {
    if (!object.isAdmitted && object.isIdle && this.#objects.get(object.index) === object) {
      this.#objects.delete(object.index)
    }
  }

  dirtied(object: CachedObject): void {
    if (object.isDirty) this.#dirty.add(object)
    else this.#dirty.delete(object)
    if (this.#isOver) throw Object.assign(new Error('the cache is closed'), { code: 'EIO' })
    this.#dirtyFile.note(object.index, object.unpushed())
    this.#pushSoon()
  }

  #object(ref: ObjectRef): CachedObject {
    const index = oidIndex(ref.oid)
    const known = this.#objects.get(index)
    if (known !== undefined) return known
    // Its pushes are wanted whoever made them necessary.
    const object = new CachedObject(this, index, this.#refTo(dataOid(this.vid, index)))
    this.#objects.set(index, object)
    return object
  }

  #adopt(object: CachedObject): void {
    const path = this.#cache.objectPath(this.vid, object.index)
    this.#cache.adopt(object, { path, bytes: this.objectBytes })
    this.#objects.set(object.index, object)
    this.#dirty.add(object)
    this.#pushSoon()
  }

  #pushSoon(): void {
    if (this.#dirty.size > DIRTY_OBJECTS_MAX && !this.#isOver) this.#pushOldest()
    if (this.#dirty.size === 0 || this.#cancelPush !== undefined || this.#isOver) return
    this.#cancelPush = this.#clock.after(DIRTY_MS_MAX, () => {
      this.#cancelPush = undefined
      this.#background(this.push()).finally(() => this.#pushSoon())
    })
  }

  #pushOldest(): void {
    if (this.#isPushing) return
    this.#isPushing = true
    const oldest = [...this.#dirty].slice(0, this.#dirty.size - DIRTY_OBJECTS_MAX)
    void this.#background(this.push(oldest.map(({ index }) => index))).then(() => {
      this.#cancelRest = this.#clock.after(REST_MS, () => {
        this.#isPushing = false
        this.#pushSoon()
      })
    })
  }

  async #background(push: Promise<Code>): Promise<void> {
    try {
      const code = await push
      if (code === Code.SUCCESS || this.#isOver) return
      this.#log.warn('cache.push.failed', { vid: vidName(this.vid), result: codeName(code) })
    } catch (error) {
      this.#log.error('cache.push.failed', { vid: vidName(this.vid), reason: describe(error) })
    }
  }
}

function pushed(object: CachedObject): Promise<Code> {
  return new Promise((resolve) => object.push(resolve))
}
