/**
 * The files of the object cache and their budget (cluster spec, section 16): `<dir>/cache/<vid>/<idx>`, full size each,
 * reserved on disk before it is used. When more than nine tenths are taken, what was used longest ago goes, if it is
 * clean and idle; where everything is dirty it is pushed, and new objects are used without the cache meanwhile.
 */
import { Code } from '../../base/codes.js'
import { describe, type Log } from '../../base/log.js'
import type { Vid } from '../../model/oid.js'
import { readAt, writeAt } from '../../store/file-io.js'
import type { Files, OpenFile, OpenHow } from '../../world/world.js'
import type { CachedObject } from './cached-object.js'

const FULL_SHARE = 0.9
const OPEN_FILES_MAX = 1024
const PUSHED_AT_ONCE = 8
const LOCK = 'lock'
const PROBE = 'directio'
const PROBE_BYTES = 4096
/** What could not be pushed back in good faith is put here. */
const ASIDE = 'aside'

/** `sheep -w size=,dir=,directio` */
export interface CacheOptions {
  readonly sizeBytes: number
  /** Files go below `<directory>/cache`. */
  readonly directory: string
  /** Files of objects are read and written past the page cache. */
  readonly directio: boolean
  /** Which start of the machine this is; '' when nobody can tell. */
  readonly boot: string
}

export interface CacheWorld {
  readonly files: Files
  readonly log: Log
}

export class ObjectCache {
  readonly sizeBytes: number
  readonly boot: string
  readonly directory: string
  readonly directio: boolean
  readonly #files: Files
  readonly #log: Log
  readonly #release: () => void
  #usedBytes = 0
  /** Admitted objects, the one used longest ago first. */
  readonly #byUse = new Set<CachedObject>()
  readonly #open = new Set<CachedObject>()
  readonly #placeOf = new Map<CachedObject, Place>()
  #isRefusing = false
  #isClosed = false
  #isPushing = false

  /** Throws an Error that names the directory when another sheep has it, or it cannot be used. */
  constructor(options: CacheOptions, { files, log }: CacheWorld) {
    this.#files = files
    this.#log = log
    this.sizeBytes = options.sizeBytes
    this.boot = options.boot
    this.directio = options.directio
    this.directory = `${options.directory}/cache`
    files.mkdir(this.directory)
    const lock = files.lock(`${this.directory}/${LOCK}`)
    if (lock === undefined) {
      throw new Error(
        `${this.directory} is the object cache of another sheep: give another one, as in ` +
          '-w size=20G,dir=/ssd2',
      )
    }
    this.#release = () => lock.release()
  }

  /** Rejects with an Error for people when the directory takes no direct I/O that was asked for. */
  async start(): Promise<void> {
    if (!this.directio) return
    const path = `${this.directory}/${PROBE}`
    try {
      await this.#probe(path)
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      throw new Error(
        `${this.directory} takes no direct I/O (${reason}): give the cache a directory of another ` +
          'file system, as in -w size=20G,dir=/ssd,directio, or leave out directio',
      )
    } finally {
      if (this.#files.exists(path)) await this.#files.unlink(path)
    }
  }

  get usedBytes(): number {
    return this.#usedBytes
  }

  get files(): Files {
    return this.#files
  }

  /** Volumes an earlier process left files of. */
  async found(): Promise<Vid[]> {
    const names = await this.#files.readDir(this.directory)
    return names
      .filter((name) => /^[0-9a-f]{6}$/.test(name))
      .map((name) => Number(`0x${name}`) as Vid)
  }

  volumeDirectory(vid: Vid): string {
    return `${this.directory}/${vid.toString(16).padStart(6, '0')}`
  }

  objectPath(vid: Vid, index: number): string {
    return `${this.volumeDirectory(vid)}/${index.toString(16).padStart(16, '0')}`
  }

  /** Makes room and the file; false when there is none, or the disk refuses. */
  async admit(object: CachedObject, place: Place): Promise<boolean> {
    this.#makeRoom(place.bytes)
    if (this.#usedBytes + place.bytes > this.sizeBytes) return false
    this.#take(object, place)
    let file: OpenFile | undefined
    try {
      file = this.#files.open(place.path, { ...this.#how, create: true, truncate: true })
      await file.allocate(place.bytes)
      this.#keepOpen(object, file)
      this.#isRefusing = false
      return true
    } catch (error) {
      file?.close()
      this.#give(object)
      if (!this.#isRefusing) this.#log.warn('cache.no-room', { reason: describe(error) })
      this.#isRefusing = true
      return false
    }
  }

  /** An object whose file an earlier process left. */
  adopt(object: CachedObject, place: Place): void {
    this.#take(object, place)
  }

  /** Its file, opened again when it was closed meanwhile. Throws errno errors. */
  open(object: CachedObject): OpenFile {
    this.#byUse.delete(object)
    this.#byUse.add(object)
    if (object.file !== undefined) return object.file
    if (this.#isClosed) throw Object.assign(new Error('the cache is closed'), { code: 'EIO' })
    const file = this.#files.open(this.#placeOf.get(object)!.path, this.#how)
    this.#keepOpen(object, file)
    return file
  }

  /** The file goes; its place is free at once. */
  async remove(object: CachedObject): Promise<void> {
    const place = this.#placeOf.get(object)
    if (place === undefined) return
    this.#close(object)
    this.#give(object)
    if (this.#isClosed) return
    try {
      await this.#files.unlink(place.path)
    } catch (error) {
      this.#log.warn('cache.file.not-removed', { path: place.path, reason: describe(error) })
    }
  }

  /** Puts a volume's files where no later start takes them for the cache; resolves to where. */
  async setAside(vid: Vid): Promise<string> {
    const from = this.volumeDirectory(vid)
    const name = from.slice(this.directory.length + 1)
    let to = `${this.directory}/${ASIDE}/${name}`
    for (let i = 1; this.#files.exists(to); i++) to = `${this.directory}/${ASIDE}/${name}.${i}`
    this.#files.mkdir(to)
    for (const file of await this.#files.readDir(from)) {
      await this.#files.rename(`${from}/${file}`, `${to}/${file}`)
    }
    await this.#files.syncDir(to)
    return to
  }

  /** Files nobody will ask for any more. */
  async clean(vid: Vid, keep: ReadonlySet<string>): Promise<void> {
    const directory = this.volumeDirectory(vid)
    if (this.#isClosed) return
    for (const name of await this.#files.readDir(directory)) {
      if (!keep.has(name)) await this.#files.unlink(`${directory}/${name}`)
    }
  }

  /** Another process, or another life of this one, may have the directory. The files stay. */
  close(): void {
    this.#isClosed = true
    for (const object of [...this.#open]) this.#close(object)
    this.#release()
  }

  get #how(): OpenHow {
    return { write: true, direct: this.directio }
  }

  /** A block goes to the disk and comes back. */
  async #probe(path: string): Promise<void> {
    const file = this.#files.open(path, { ...this.#how, create: true, truncate: true })
    try {
      await file.allocate(PROBE_BYTES)
      const [sent, found] = [Buffer.alloc(PROBE_BYTES, PROBE), Buffer.alloc(PROBE_BYTES)]
      await writeAt(file, sent, 0)
      await readAt(file, found, 0)
      if (!found.equals(sent)) throw new Error('what was written does not come back')
    } finally {
      file.close()
    }
  }

  #take(object: CachedObject, place: Place): void {
    this.#usedBytes += place.bytes
    this.#placeOf.set(object, place)
    this.#byUse.add(object)
    object.isAdmitted = true
  }

  #give(object: CachedObject): void {
    const place = this.#placeOf.get(object)!
    this.#usedBytes -= place.bytes
    this.#placeOf.delete(object)
    this.#byUse.delete(object)
    object.isAdmitted = false
  }

  #keepOpen(object: CachedObject, file: OpenFile): void {
    object.file = file
    this.#open.add(object)
    if (this.#open.size <= OPEN_FILES_MAX) return
    for (const other of this.#open) {
      if (other === object || !other.isIdle) continue
      this.#close(other)
      return
    }
  }

  #close(object: CachedObject): void {
    if (!this.#open.delete(object)) return
    object.file?.close()
    object.file = undefined
  }

  #makeRoom(bytes: number): void {
    const wanted = this.sizeBytes * FULL_SHARE
    if (this.#usedBytes + bytes <= wanted) return
    const dirty: CachedObject[] = []
    for (const object of this.#byUse) {
      if (!object.isIdle) continue
      if (object.isDirty) dirty.push(object)
      else object.evict()
      if (this.#usedBytes + bytes <= wanted) return
      if (dirty.length >= PUSHED_AT_ONCE) break
    }
    this.#pushSome(dirty)
  }

  /** What is pushed can go the next time room is wanted. */
  #pushSome(objects: readonly CachedObject[]): void {
    if (this.#isPushing || objects.length === 0) return
    this.#isPushing = true
    let waiting = objects.length
    for (const object of objects) {
      object.push((code) => {
        if (code !== Code.SUCCESS)
          this.#log.debug('cache.push.failed', { index: object.index, code })
        if (--waiting === 0) this.#isPushing = false
      })
    }
  }
}

/** Where an object is kept, and what it takes. */
export interface Place {
  readonly path: string
  readonly bytes: number
}
