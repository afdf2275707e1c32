/** The plain object store of sheepdog 1.0 (objects spec, sections 12 to 14), put together. */
import { noBytes } from '../base/bytes.js'
import { Code, codeOf, type Done, SheepError } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import type { Oid, StoredId, Vid } from '../model/oid.js'
import type { World } from '../world/world.js'
import { assemble } from './assembly.js'
import { Catalog } from './catalog.js'
import { judge, type StoreContext, syncNames } from './context.js'
import { createObject, isSaneCreate, removeObject, roomyDisk } from './create.js'
import { DiskChanges } from './disk-changes.js'
import { startDisks } from './disk-start.js'
import type { DiskOptions } from './disks.js'
import { formatDisks } from './format.js'
import { Handles } from './handles.js'
import { digest, readZeroFilled } from './hashing.js'
import { takeInventory } from './inventory.js'
import { Lanes } from './lanes.js'
import { isSaneRange, ObjectIo } from './object-io.js'
import type { Assembly, CreateRequest, DiskControl, ObjectStore, WriteHow } from './object-store.js'
import { scanDisks } from './scan.js'
import { purgeStale, removeStaleCopies, restoreStale, setAside, useStale } from './stale.js'

export interface PlainStoreOptions extends DiskOptions, Pick<World, 'files' | 'clock'> {
  /** False: no syncs at all (`sheep -n`); a power cut may lose anything. */
  readonly durable: boolean
  /** A disk answered with an I/O error; told each time, from inside the failing operation. */
  readonly onDiskError?: (path: string) => void
  /** Descriptors kept open; LIMITS.openObjectsMax when not given. */
  readonly openObjectsMax?: number
}

/** Opens the disks and learns what is on them. Rejects with an Error that names the directory. */
export async function openPlainStore(options: PlainStoreOptions): Promise<PlainStore> {
  const { files, clock, log, durable } = options
  const { set, table } = await startDisks(options)
  const context: StoreContext = {
    files,
    clock,
    log,
    durable,
    disks: set,
    catalog: new Catalog(),
    lanes: new Lanes(),
    handles: new Handles({
      files,
      durable,
      limit: options.openObjectsMax ?? LIMITS.openObjectsMax,
      syncFailed: ({ disk }, error) => judge(context, disk, 'store.sync-failed', error),
      closeFailed: ({ disk }, error) => judge(context, disk, 'store.close-failed', error),
    }),
    onDiskError: (path) => {
      options.onDiskError?.(path)
      changes.failed(path)
    },
    diskErrorCode: Code.EIO,
    removedOf: new Set(),
    closed: false,
  }
  const changes = new DiskChanges(context, options, table)
  await scanDisks(context, changes)
  return new PlainStore(context, changes)
}

export class PlainStore implements ObjectStore {
  private readonly context: StoreContext
  private readonly io: ObjectIo
  readonly diskControl: DiskControl
  private assemblies = 0

  constructor(context: StoreContext, diskControl: DiskControl) {
    this.context = context
    this.diskControl = diskControl
    this.io = new ObjectIo(context)
  }

  /** Sum of the disks' weights: the space this node announces when it is new. */
  get spaceBytes(): number {
    return this.context.disks.spaceBytes
  }

  read(id: StoredId, offset: number, into: Uint8Array, done: Done): void {
    this.io.read(id, offset, into, done)
  }

  write(id: StoredId, offset: number, data: Uint8Array, how: WriteHow, done: Done): void {
    this.io.write(id, offset, data, how, done)
  }

  create(request: CreateRequest, done: Done): void {
    if (!isSaneCreate(request)) done(Code.INVALID_PARMS)
    else this.changeNames(request.id, () => this.createWanted(request), done)
  }

  async assemble(id: StoredId, bytes: number): Promise<Assembly | Code> {
    if (this.context.closed) return Code.SHUTDOWN
    if (!isSaneCreate({ id, bytes, offset: 0, data: noBytes() })) return Code.INVALID_PARMS
    const inTurn = (act: () => Promise<Code>): Promise<Code> =>
      new Promise((resolve) => this.changeNames(id, act, resolve))
    return assemble(this.context, { id, bytes, serial: ++this.assemblies, inTurn })
  }

  remove(id: StoredId, done: Done): void {
    this.changeNames(id, () => this.removeEverything(id), done)
  }

  private async createWanted(request: CreateRequest): Promise<Code> {
    if (request.stillWanted?.() === false) return Code.NETWORK_ERROR
    return createObject(this.context, request)
  }

  /** An old copy left behind would pass for the object with whoever comes back from that epoch. */
  private async removeEverything(id: StoredId): Promise<Code> {
    const staleCode = await removeStaleCopies(this.context, id)
    const code = await removeObject(this.context, id)
    return code === Code.SUCCESS || code === Code.NO_OBJ ? (staleCode ?? code) : code
  }

  has(id: StoredId): boolean {
    return this.context.catalog.working.has(id)
  }

  flush(vid: Vid, done: Done): void {
    const { context } = this
    context.handles.flush(vid, (code) => {
      if (code === Code.SUCCESS && context.removedOf.delete(vid)) this.syncRemovals(vid, done)
      else done(code)
    })
  }

  syncObject(oid: Oid, done: Done): void {
    const { catalog, handles } = this.context
    const pieces = catalog.piecesOf(oid)
    let waiting = 1
    let outcome: Code = Code.SUCCESS
    const one = (code: Code): void => {
      if (code !== Code.SUCCESS) outcome = code
      if (--waiting > 0) return
      const failed = pieces.map((id) => handles.failureOf(id)).find((code) => code !== undefined)
      done(failed ?? outcome)
    }
    for (const id of pieces) {
      const handle = handles.dirtyOf(id)
      if (handle === undefined) continue
      waiting++
      handles.syncObject(handle, one)
    }
    one(Code.SUCCESS)
  }

  private syncRemovals(vid: Vid, done: Done): void {
    const { context } = this
    const syncs = context.disks.disks.map((disk) =>
      syncNames(context, disk.names).catch((error: unknown) => {
        throw new SheepError(judge(context, disk, 'store.remove-not-durable', error))
      }),
    )
    Promise.all(syncs).then(
      () => done(Code.SUCCESS),
      (error: unknown) => {
        context.removedOf.add(vid)
        done(codeOf(error))
      },
    )
  }

  async syncAll(): Promise<void> {
    const { disks, files } = this.context
    await Promise.all(
      disks.disks.map(async (disk) => {
        try {
          await files.syncAll(disk.path)
        } catch (error) {
          // What is on a failing disk is not kept anyway; its keeper has been told.
          const code = judge(this.context, disk, 'store.sync-failed', error)
          if (code !== this.context.diskErrorCode) throw error
        }
      }),
    )
  }

  hash(id: StoredId, bytes: number): Promise<Buffer | undefined> {
    return this.io.hash(id, bytes)
  }

  inventory(): Promise<BigUint64Array> {
    return takeInventory(this.context)
  }

  list(): Oid[] {
    return this.context.catalog.allIds()
  }

  listWorking(): Oid[] {
    return this.context.catalog.workingIds()
  }

  piecesOf(oid: Oid): StoredId[] {
    return this.context.catalog.piecesOf(oid)
  }

  setAside(epoch: number, gone: (id: StoredId) => boolean): Promise<void> {
    return setAside(this.context, epoch, gone)
  }

  async readStale(id: StoredId, epoch: number, offset: number, into: Uint8Array): Promise<Code> {
    if (!isSaneRange(offset, into.length)) return Code.INVALID_PARMS
    try {
      const count = await useStale(this.context, id, epoch, (file) =>
        readZeroFilled(file, into, offset),
      )
      return count === undefined ? Code.NO_OBJ : Code.SUCCESS
    } catch (error) {
      return codeOf(error)
    }
  }

  staleEpochs(id: StoredId): number[] {
    return (this.context.catalog.stale.get(id) ?? []).map((copy) => copy.epoch)
  }

  hashStale(id: StoredId, epoch: number, bytes: number): Promise<Buffer | undefined> {
    return useStale(this.context, id, epoch, (file) => digest(file, bytes))
  }

  restoreStale(id: StoredId, epoch: number, stillWanted?: () => boolean): Promise<Code> {
    return restoreStale(this.context, { id, epoch, stillWanted })
  }

  purgeStale(): Promise<void> {
    return purgeStale(this.context)
  }

  async format(): Promise<void> {
    const leave = await this.context.lanes.holdAll()
    try {
      await formatDisks(this.context)
      await this.diskControl.formatted()
    } finally {
      leave()
    }
  }

  hasRoom(id: StoredId, bytes: number): boolean {
    return roomyDisk(this.context, { id, bytes }) !== undefined
  }

  /** Used: what the objects occupied when they were found or created; free: what the disks say. */
  space(): { totalBytes: number; usedBytes: number; freeBytes: number } {
    const disks = this.disks()
    const usedBytes = disks.reduce((sum, disk) => sum + disk.usedBytes, 0)
    const freeBytes = disks.reduce((sum, disk) => sum + disk.freeBytes, 0)
    return { totalBytes: usedBytes + freeBytes, usedBytes, freeBytes }
  }

  /** In the order of their paths. One that cannot be asked has no room. */
  disks(): { path: string; usedBytes: number; freeBytes: number }[] {
    const { disks, files } = this.context
    const rows = disks.disks.map((disk) => {
      const { path, usedBytes } = disk
      try {
        return { path, usedBytes, freeBytes: files.space(path).freeBytes }
      } catch (error) {
        judge(this.context, disk, 'store.space-unknown', error)
        return { path, usedBytes, freeBytes: 0 }
      }
    })
    return rows.sort((a, b) => (a.path < b.path ? -1 : 1))
  }

  /** Rejects with EIO when something acknowledged could not be made durable; closed it is anyway. */
  async close(): Promise<void> {
    const { handles, lanes } = this.context
    const leave = await lanes.holdAll()
    this.context.closed = true
    let failure: Code = Code.SUCCESS
    for (const vid of handles.unsettledVids()) {
      const code = await new Promise<Code>((resolve) => handles.flush(vid, resolve))
      if (code !== Code.SUCCESS) failure = code
    }
    handles.retireAll()
    leave()
    if (failure !== Code.SUCCESS) throw new SheepError(failure)
  }

  /** Whatever changes an object's name has its lane for itself. */
  private changeNames(id: StoredId, act: () => Promise<Code>, done: Done): void {
    this.context.lanes.enter(id, true, (leave) => {
      const acting = this.context.closed ? Promise.resolve(Code.SHUTDOWN) : act()
      void acting.then((code) => {
        done(code)
        leave()
      })
    })
  }
}
