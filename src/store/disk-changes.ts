/**
 * Disks that come and go while the store serves.
 *
 * A disk that goes takes its objects with it at once: what was begun on it ends with NETWORK_ERROR, and the catalog
 * forgets it. A disk of this store that comes back has missed what happened since. Its objects are not
 * working ones any more, but stale copies of the epoch it went in (or of the one before, when it failed and may have
 * lost what no flush had covered).
 */
import { Code } from '../base/codes.js'
import type { StoredId } from '../model/oid.js'
import type { StaleCopy } from './catalog.js'
import { type StoreContext, syncNames } from './context.js'
import { holdsObjects, trimSlashes } from './disk-start.js'
import { type DiskEntry, type DiskTable, idOf } from './disk-table.js'
import { type Disk, type DiskOptions, mustBeDisk, openDisk } from './disks.js'
import { errnoOf } from './errno.js'
import { turn } from './file-io.js'
import {
  parseStaleName,
  parseWorkingName,
  staleFileName,
  TWIN_PREFIX,
  workingFileName,
} from './names.js'
import type { DiskControl, LostObjects } from './object-store.js'

/** Names or catalog entries handled before the event loop gets its turn. */
const AT_ONCE = 512

interface Found {
  readonly id: StoredId
  readonly copy: StaleCopy
}

export class DiskChanges implements DiskControl {
  readonly #context: StoreContext
  readonly #options: DiskOptions
  readonly #table: DiskTable
  /** Disks that went while the store served and are not recorded as `out` yet. */
  readonly #dropped = new Map<string, { readonly clean: boolean }>()
  readonly #failed = new Set<string>()
  #watcher: ((path: string) => void) | undefined

  constructor(context: StoreContext, options: DiskOptions, table: DiskTable) {
    this.#context = context
    this.#options = options
    this.#table = table
  }

  /** A disk answered with an I/O error, from inside the failing operation. */
  failed(path: string): void {
    if (this.#failed.has(path)) return
    this.#failed.add(path)
    this.#watcher?.(path)
  }

  watch(failed: (path: string) => void): void {
    this.#watcher = failed
    this.#context.diskErrorCode = Code.NETWORK_ERROR
    for (const path of this.#failed) failed(path)
  }

  paths(): string[] {
    return this.#context.disks.disks.map(({ path }) => path)
  }

  unrecorded(): string[] {
    return this.#leavers().map(({ path }) => path)
  }

  async drop(path: string): Promise<LostObjects> {
    const disk = this.#take(path)
    const { handles, catalog } = this.#context
    const unsynced = new Set(
      handles.retireDisk(disk, (id) => catalog.working.get(id) === disk.index),
    )
    const everything = await this.#sweep(disk)
    this.#dropped.set(disk.id, { clean: false })
    this.#context.log.warn('store.disk-dropped', { path, objects: everything.size })
    return { everything, unsynced }
  }

  async unplug(path: string): Promise<LostObjects> {
    const lost = await this.drop(path)
    const dropped = this.#table.byPath(path)
    try {
      // From here on nothing more is written there.
      await this.#context.files.syncAll(path)
      if (dropped !== undefined) this.#dropped.set(dropped.id, { clean: true })
    } catch (error) {
      this.#context.log.warn('store.unplug-not-synced', { path, errno: errnoOf(error) })
    }
    return lost
  }

  async recordLoss(epoch: number): Promise<void> {
    const leavers = this.#leavers()
    if (leavers.length === 0) return
    const next = this.#table.entries.map((entry): DiskEntry => {
      if (!leavers.includes(entry)) return entry
      const label = this.#dropped.get(entry.id)?.clean === true ? epoch : epoch - 1
      return { ...entry, state: 'out', epoch: Math.max(0, label) }
    })
    await this.#table.write(next)
    for (const { id } of leavers) this.#dropped.delete(id)
  }

  async formatted(): Promise<void> {
    const inUse = new Set(this.#context.disks.disks.map(({ id }) => id))
    await this.#table.write(this.#table.entries.filter(({ id }) => inUse.has(id)))
    this.#dropped.clear()
  }

  async plug(given: string): Promise<void> {
    const path = trimSlashes(given)
    const returning = await this.#admit(path)
    const disk = openDisk(this.#options, path, this.#context.disks.slots.length)
    const found = await this.#setAside(disk, returning?.epoch ?? 0)
    const others = this.#table.entries.filter(({ id }) => id !== disk.id)
    await this.#table.write([...others, { path, id: disk.id, state: 'plugged', epoch: 0 }])
    this.#failed.delete(path)
    this.#context.disks = this.#context.disks.with(() => disk)
    for (const { id, copy } of found) {
      if (!this.#context.catalog.staleCopy(id, copy.epoch)) this.#context.catalog.addStale(id, copy)
    }
    this.#context.log.info('store.disk-plugged', { path, stale: found.length })
  }

  /** Entries of disks that are in use by the table, but not in fact. */
  #leavers(): DiskEntry[] {
    const ids = new Set(this.#context.disks.disks.map(({ id }) => id))
    return this.#table.entries.filter(({ id, state }) => state !== 'out' && !ids.has(id))
  }

  /** Nothing new begins on the disk from here on. */
  #take(path: string): Disk {
    const disk = this.#context.disks.byPath(path)
    if (disk === undefined) throw new Error(`${path} is no disk of this sheep`)
    if (this.#context.disks.disks.length === 1) throw new Error(`${path} is the last disk`)
    disk.gone = true
    this.#context.disks = this.#context.disks.current()
    return disk
  }

  /** Forgets what is on the disk, working and stale. Until it gets there, those who ask are told to ask again. */
  async #sweep(disk: Disk): Promise<Set<StoredId>> {
    const { catalog, clock } = this.#context
    const lost = new Set<StoredId>()
    let seen = 0
    for (const id of catalog.forget(disk.index)) {
      if (id !== undefined) lost.add(id)
      if (++seen % AT_ONCE === 0) await turn(clock)
    }
    return lost
  }

  /** The table's entry when the disk was this store's before. Rejects with an Error that says what to do. */
  async #admit(path: string): Promise<DiskEntry | undefined> {
    const { files } = this.#options
    if (!path.startsWith('/')) throw new Error(`${path} is not an absolute path`)
    if (!files.exists(path)) throw new Error(`${path} does not exist: make it, or mount it, first`)
    for (const other of this.paths()) {
      if (other === path) throw new Error(`${path} is in use already`)
      if (`${other}/`.startsWith(`${path}/`) || `${path}/`.startsWith(`${other}/`)) {
        throw new Error(`${path} and the disk ${other} contain one another`)
      }
    }
    mustBeDisk(files, path)
    const id = idOf(files, path)
    const entry = id === undefined ? undefined : this.#table.byId(id)
    if (entry !== undefined && entry.state !== 'out') {
      throw new Error(`${path} is the disk that is in use as ${entry.path}`)
    }
    if (entry === undefined && (await holdsObjects(this.#options, path))) {
      throw new Error(`${path} holds objects of another store: empty it first`)
    }
    return entry
  }

  /** Working names become stale ones of epoch `label`, durably; 0: there was none, they go out of sight. */
  async #setAside(disk: Disk, label: number): Promise<Found[]> {
    const { files, clock } = this.#context
    const found: Found[] = []
    let moved = 0
    for (const name of await files.readDir(disk.path)) {
      const id = parseWorkingName(name)
      if (id === undefined) continue
      await this.#rename(disk, id, label)
      if (++moved % AT_ONCE === 0) await turn(clock)
    }
    if (moved > 0 && label === 0) {
      this.#context.log.warn('store.disk-outdated', { path: disk.path, hidden: moved })
    }
    await Promise.all([
      syncNames(this.#context, disk.names),
      syncNames(this.#context, disk.staleNames),
    ])
    for (const name of await files.readDir(disk.stalePath)) {
      const stale = parseStaleName(name)
      if (stale === undefined) continue
      found.push({ id: stale.id, copy: { epoch: stale.epoch, disk: disk.index } })
    }
    return found
  }

  async #rename(disk: Disk, id: StoredId, label: number): Promise<void> {
    const name = workingFileName(id)
    const to =
      label === 0
        ? `${disk.path}/${TWIN_PREFIX}${name}`
        : `${disk.stalePath}/${staleFileName({ id, epoch: label })}`
    await this.#context.files.rename(`${disk.path}/${name}`, to)
  }
}
