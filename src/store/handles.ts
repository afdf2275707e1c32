/**
 * Open object files: at most `limit` of them, the least recently used closed first (second chance: a
 * mark per use instead of a list), dirty ones synced before they are closed.
 *
 *   clean --write--> dirty --fdatasync that started later--> clean
 *                      '--failed fdatasync--> failed, until the object is created anew or removed:
 *                         the kernel has dropped pages it could not write and will not say so again
 */
import { Code, type Done } from '../base/codes.js'
import { oidVid, type StoredId, type Vid } from '../model/oid.js'
import type { Files, OpenFile } from '../world/world.js'
import type { Disk } from './disks.js'
import { workingFileName } from './names.js'
import { SharedSync } from './shared-sync.js'

/** Objects of one flush, and dirty objects on their way out, that are synced side by side. */
const SYNCS_AT_ONCE = 4
/** Files looked at for closing while dirty ones are being cleaned. */
const LOOKS_MEANWHILE = 64

export interface OpenObject {
  readonly id: StoredId
  readonly disk: Disk
  readonly file: OpenFile
  readonly sync: SharedSync
  /** Used since the last look of the one who closes files. */
  used: boolean
  /** Operations in flight on the file. */
  users: number
  /** Completed writes wait for a sync. */
  dirty: boolean
  /** Not this object's file any more: closed when nobody uses it. */
  retired: boolean
  closed: boolean
}

export interface HandleOptions {
  readonly files: Files
  readonly limit: number
  /** False: nothing is ever synced, so nothing is ever dirty. */
  readonly durable: boolean
  /** A file could not be synced: what to answer from now on. */
  readonly syncFailed: (handle: OpenObject, error: Error) => Code
  /** A clean file could not be closed in order; it counts as closed. */
  readonly closeFailed: (handle: OpenObject, error: unknown) => void
}

type Opened = (handle: OpenObject | undefined, error: unknown) => void

export class Handles {
  private readonly options: HandleOptions
  private readonly table = new Map<StoredId, OpenObject>()
  private readonly dirty = new Map<Vid, Set<OpenObject>>()
  private readonly failed = new Map<Vid, Map<StoredId, Code>>()
  /** Operations that wait for a descriptor; whoever comes later waits behind them. */
  private readonly starved: (() => void)[] = []
  private serving = false
  private count = 0
  private cleaning = 0

  constructor(options: HandleOptions) {
    this.options = options
  }

  /** The open file of an object; the hot path, nothing else happens. */
  peek(id: StoredId): OpenObject | undefined {
    const handle = this.table.get(id)
    if (handle !== undefined) handle.used = true
    return handle
  }

  /** The object's file while writes to it wait for a sync; asking is no use of it. */
  dirtyOf(id: StoredId): OpenObject | undefined {
    const handle = this.table.get(id)
    return handle?.dirty === true ? handle : undefined
  }

  /** Opens at once. Undefined when every descriptor is busy or dirty. Throws errno errors. */
  openNow(id: StoredId, disk: Disk): OpenObject | undefined {
    const known = this.peek(id)
    if (known !== undefined) return known
    if ((this.starved.length > 0 && !this.serving) || !this.makeRoom(1)) return undefined
    // It went while this one waited for a descriptor: its file may be an old one by now.
    if (disk.gone) throw new Error(`${disk.path} is out of use`)
    const path = `${disk.path}/${workingFileName(id)}`
    return this.enter(id, disk, this.options.files.open(path, { write: true }))
  }

  /** As `openNow`, but waits for a descriptor. The file stays open until `release`. */
  acquire(id: StoredId, disk: Disk, opened: Opened): void {
    let handle: OpenObject | undefined
    try {
      handle = this.openNow(id, disk)
    } catch (error) {
      opened(undefined, error)
      return
    }
    if (handle === undefined) {
      this.starved.push(() => this.acquire(id, disk, opened))
      return
    }
    handle.users++
    opened(handle, undefined)
  }

  release(handle: OpenObject): void {
    handle.users--
    this.settle(handle)
  }

  /**
   * Takes a file in as the object's; one it had before must be retired first. It may be one too many
   * until others have been synced and closed.
   */
  adopt(id: StoredId, disk: Disk, file: OpenFile): void {
    this.enter(id, disk, file)
    this.makeRoom(0)
  }

  private enter(id: StoredId, disk: Disk, file: OpenFile): OpenObject {
    const sync = new SharedSync((done) => {
      file.sync((error) => {
        this.synced(handle, error)
        done(error)
        this.settle(handle)
      })
    })
    const handle: OpenObject = {
      id,
      disk,
      file,
      sync,
      used: true,
      users: 0,
      dirty: false,
      retired: false,
      closed: false,
    }
    this.table.set(id, handle)
    this.count++
    return handle
  }

  /** The object is gone or has another file: what was not synced does not matter any more. */
  retire(id: StoredId): void {
    this.forgive(id)
    const handle = this.table.get(id)
    if (handle === undefined) return
    this.table.delete(id)
    handle.retired = true
    this.markClean(handle)
    this.settle(handle)
  }

  /** A write has completed (or failed half-way): only a sync from now on covers it. */
  markDirty(handle: OpenObject): void {
    if (!this.options.durable || handle.retired) return
    handle.sync.touch()
    if (handle.dirty) return
    handle.dirty = true
    const vid = oidVid(handle.id)
    const others = this.dirty.get(vid)
    if (others === undefined) this.dirty.set(vid, new Set([handle]))
    else others.add(handle)
  }

  /** Makes every completed write to the object durable. The code of its failure when it is or becomes `failed`. */
  syncObject(handle: OpenObject, done: Done): void {
    if (!this.options.durable) {
      done(Code.SUCCESS)
      return
    }
    handle.sync.request((error) => {
      if (handle.disk.gone) done(Code.NETWORK_ERROR)
      else done(this.failureOf(handle.id) ?? (error === null ? Code.SUCCESS : Code.EIO))
    })
  }

  failureOf(id: StoredId): Code | undefined {
    return this.failed.size > 0 ? this.failed.get(oidVid(id))?.get(id) : undefined
  }

  /** What is to be retried does not hide what is not. */
  private failureAmong(vid: Vid): Code {
    const codes = [...(this.failed.get(vid)?.values() ?? [])]
    return codes.find((code) => code !== Code.NETWORK_ERROR) ?? codes[0] ?? Code.SUCCESS
  }

  /** Makes every write to objects of `vid` that completed before this call durable. */
  flush(vid: Vid, done: Done): void {
    const dirty = this.dirty.get(vid)
    if (dirty === undefined) {
      done(this.failureAmong(vid))
      return
    }
    const waiting = [...dirty]
    let running = 0
    let pumping = false
    const pump = (): void => {
      if (pumping) return
      pumping = true
      while (running < SYNCS_AT_ONCE && waiting.length > 0) {
        const handle = waiting.pop()!
        // Cleaned meanwhile by a sync that covered what was there when the flush came.
        if (!handle.dirty) continue
        running++
        this.syncObject(handle, () => {
          running--
          pump()
        })
      }
      pumping = false
      if (running === 0 && waiting.length === 0) {
        done(this.failureAmong(vid))
      }
    }
    pump()
  }

  /** Volumes with something to flush or with something lost. */
  unsettledVids(): Vid[] {
    return [...new Set([...this.dirty.keys(), ...this.failed.keys()])]
  }

  /** The same for all objects of a disk that is out of use; those whose writes were not all durable. */
  retireDisk(disk: Disk, isOn: (id: StoredId) => boolean): StoredId[] {
    const unsynced = [...this.failed.values()].flatMap((ids) => [...ids.keys()].filter(isOn))
    for (const [id, handle] of [...this.table]) {
      if (handle.disk !== disk) continue
      if (handle.dirty) unsynced.push(id)
      this.retire(id)
    }
    for (const id of unsynced) this.forgive(id)
    return unsynced
  }

  /** Forgets every file, synced or not. */
  retireAll(): void {
    for (const id of [...this.table.keys()]) this.retire(id)
    this.failed.clear()
  }

  private synced(handle: OpenObject, error: Error | null): void {
    if (handle.retired) return
    if (error !== null) {
      const vid = oidVid(handle.id)
      const code = this.options.syncFailed(handle, error)
      const others = this.failed.get(vid)
      if (others === undefined) this.failed.set(vid, new Map([[handle.id, code]]))
      else others.set(handle.id, code)
      this.markClean(handle)
    } else if (handle.sync.current) this.markClean(handle)
  }

  private markClean(handle: OpenObject): void {
    if (!handle.dirty) return
    handle.dirty = false
    const vid = oidVid(handle.id)
    const others = this.dirty.get(vid)
    others?.delete(handle)
    if (others?.size === 0) this.dirty.delete(vid)
  }

  private forgive(id: StoredId): void {
    const vid = oidVid(id)
    const others = this.failed.get(vid)
    others?.delete(id)
    if (others?.size === 0) this.failed.delete(vid)
  }

  /** Closes unused files until `more` fit, or sets about cleaning some. */
  private makeRoom(more: number): boolean {
    const most = this.options.limit - more
    // While some are being cleaned their end brings us back here: no need to look at everything.
    let looks = this.cleaning > 0 ? LOOKS_MEANWHILE : 2 * this.table.size
    for (const [id, handle] of this.table) {
      if (this.count <= most || looks-- === 0) break
      if (this.closeUnused(handle)) continue
      if (!handle.used && isIdle(handle) && this.cleaning < SYNCS_AT_ONCE) this.clean(handle)
      handle.used = false
      // To the end of the line.
      this.table.delete(id)
      this.table.set(id, handle)
    }
    return this.count <= most
  }

  private closeUnused(handle: OpenObject): boolean {
    if (handle.closed || handle.used || handle.dirty || !isIdle(handle)) return false
    this.table.delete(handle.id)
    this.close(handle)
    return true
  }

  private clean(handle: OpenObject): void {
    this.cleaning++
    this.syncObject(handle, () => {
      this.cleaning--
    })
  }

  /** After something on the file ended: closes it when it is in the way, and serves who waits. */
  private settle(handle: OpenObject): void {
    if (handle.retired && isIdle(handle)) this.close(handle)
    const wanted = this.starved.length > 0 ? 1 : 0
    if (this.count + wanted > this.options.limit) {
      if (!handle.retired) this.closeUnused(handle)
      this.makeRoom(wanted)
    }
    while (this.starved.length > 0 && this.count < this.options.limit) {
      const first = this.starved.shift()!
      this.serving = true
      first()
      this.serving = false
    }
  }

  private close(handle: OpenObject): void {
    if (handle.closed) return
    handle.closed = true
    this.count--
    try {
      handle.file.close()
    } catch (error) {
      this.options.closeFailed(handle, error)
    }
  }
}

function isIdle(handle: OpenObject): boolean {
  return handle.users === 0 && !handle.sync.busy
}
