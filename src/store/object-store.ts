/**
 * Objects on this node's disks. Names, sizes and attributes are sheepdog 1.0's (objects spec,
 * sections 12 to 14). A fragment of a coded object is an object of its own here, under its own id. Operations on
 * one object take effect in the order they were called.
 */
import type { Code, Done } from '../base/codes.js'
import type { Oid, StoredId, Vid } from '../model/oid.js'

export interface WriteHow {
  /** True: on stable storage before `done`. False: in this node's care; `flush` makes it durable. */
  readonly durable: boolean
}

export interface CreateRequest {
  readonly id: StoredId
  /** Size of the whole file. */
  readonly bytes: number
  readonly offset: number
  /** What it holds at `offset`; zero elsewhere. */
  readonly data: Uint8Array
  /** Asked when everything before on this object is done; false: nothing happens, NETWORK_ERROR. */
  readonly stillWanted?: () => boolean
}

/**
 * An object that comes in pieces: out of sight until `finish`, which puts it in the place of whatever is there. What is
 * not written is zero. Ended by `finish` or `abandon`, once.
 */
export interface Assembly {
  write(offset: number, data: Uint8Array): Promise<Code>
  /** Atomic and durable like a create; `stillWanted` as there. NETWORK_ERROR also when it should begin anew. */
  finish(stillWanted: () => boolean): Promise<Code>
  abandon(): Promise<void>
}

/** What went with a disk. */
export interface LostObjects {
  /** Everything it had any copy or piece of, stale ones included. */
  readonly everything: ReadonlySet<StoredId>
  /** Working objects with acknowledged writes that no flush had made durable. */
  readonly unsynced: ReadonlySet<StoredId>
}

/** The disks themselves. Paths are given without a slash at the end. */
export interface DiskControl {
  /** Tells of each disk once, when it answers with an I/O error: also of those that did before this call. */
  watch(failed: (path: string) => void): void
  /** Disks in use. */
  paths(): string[]
  /** Disks whose loss is not recorded: dropped since the start, or missing at the start. */
  unrecorded(): string[]
  /** Takes a failing disk out of use. Rejects with an Error when it is none, or the last one. */
  drop(path: string): Promise<LostObjects>
  /** The same with a disk that works. */
  unplug(path: string): Promise<LostObjects>
  /** Durably: the unrecorded disks went in `epoch`, and stay out until they are plugged. */
  recordLoss(epoch: number): Promise<void>
  /** The cluster is another one: disks that are out held objects of the one before. */
  formatted(): Promise<void>
  /** Takes a disk in, now and at later starts. Rejects with an Error that says why not. */
  plug(path: string): Promise<void>
}

export interface ObjectStore {
  readonly diskControl: DiskControl
  /**
   * Fills `into`; past the end of a short file it is zeros. NO_OBJ when absent.
   * Completes before it returns when the bytes are in the page cache.
   */
  read(id: StoredId, offset: number, into: Uint8Array, done: Done): void
  /** Writes inside an existing object. NO_OBJ when absent, NO_SPACE on a full disk. */
  write(id: StoredId, offset: number, data: Uint8Array, how: WriteHow, done: Done): void
  /**
   * Creates or replaces atomically, and durably whatever the mode: a name that metadata may point to
   * after a power cut must exist after it.
   */
  create(request: CreateRequest, done: Done): void
  /** Takes the space. Resolves with the code when it cannot be had. */
  assemble(id: StoredId, bytes: number): Promise<Assembly | Code>
  /** Takes stale copies away as well. NO_OBJ when there is no working one. */
  remove(id: StoredId, done: Done): void
  has(id: StoredId): boolean
  /** Makes every completed write to and removal of objects of this volume durable (inode included). */
  flush(vid: Vid, done: Done): void
  /** The same for one object, its replica and fragments here. EIO when writes to it have been lost. */
  syncObject(oid: Oid, done: Done): void
  /** Everything on every disk: after a start that was not preceded by an orderly stop. */
  syncAll(): Promise<void>
  /** SHA-1 over the object's nominal bytes. Undefined when absent. */
  hash(id: StoredId, bytes: number): Promise<Buffer | undefined>

  /**
   * Objects this node has anything of, working or stale, from the call to the end; what comes meanwhile may be in
   * it. In no order, with repeats. For stores of millions: it never holds the event loop up.
   */
  inventory(): Promise<BigUint64Array>
  /** Objects this node has anything of, working or stale, ascending, without repeats. */
  list(): Oid[]
  /** Working replicas, ascending. */
  listWorking(): Oid[]
  /** What is here of one object, working or stale: its replica, its fragments. */
  piecesOf(oid: Oid): StoredId[]
  /**
   * Moves working objects that `gone` names to the stale area of `epoch`: all that are here once what was
   * under way at the call is done.
   */
  setAside(epoch: number, gone: (id: StoredId) => boolean): Promise<void>
  /** Reads from the stale copy of exactly that epoch. */
  readStale(id: StoredId, epoch: number, offset: number, into: Uint8Array): Promise<Code>
  /** Epochs of which a stale copy is here, newest first. */
  staleEpochs(id: StoredId): number[]
  hashStale(id: StoredId, epoch: number, bytes: number): Promise<Buffer | undefined>
  /** Makes the stale copy of that epoch the working one; `stillWanted` as for a create. */
  restoreStale(id: StoredId, epoch: number, stillWanted?: () => boolean): Promise<Code>
  purgeStale(): Promise<void>

  /** Removes every object: the cluster is being formatted. */
  format(): Promise<void>
  /** A new object of that size would not be refused for want of space, as things stand. */
  hasRoom(id: StoredId, bytes: number): boolean
  space(): { readonly totalBytes: number; readonly usedBytes: number; readonly freeBytes: number }
  disks(): { readonly path: string; readonly usedBytes: number; readonly freeBytes: number }[]
  /** Syncs what is dirty and closes. */
  close(): Promise<void>
}
