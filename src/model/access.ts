/**
 * What a volume needs of a cluster, whether it lives inside a sheep or reaches one over the network.
 * Completion as everywhere on the data path: `done` exactly once, possibly before the call returns;
 * buffers are borrowed until then. Retries across membership changes happen below this interface.
 */
import type { Done } from '../base/codes.js'
import type { InodeHeader } from './inode.js'
import type { Oid, Vid } from './oid.js'

/** An object one keeps using: remembers where it lives, so that an I/O hashes nothing. */
export interface ObjectRef {
  readonly oid: Oid
}

export interface SlotUpdate {
  readonly vid: Vid
  /** First slot, and what the slots become and were; both arrays have one entry a slot. */
  readonly first: number
  readonly next: Uint32Array
  readonly previous: Uint32Array
  readonly durable: boolean
  /** False once nobody waits for it: what failed is not tried again then. */
  readonly isWanted?: (() => boolean) | undefined
}

export interface ObjectAccess {
  ref(oid: Oid): ObjectRef
  /**
   * False while others may have gone on without this node: what it remembers of a volume (holes) may be old.
   * Objects are asked for all the same, and wait.
   */
  isSure(): boolean
  /** Runs `go` when that may have changed; `fail` gets the reason why it never will. */
  whenSure(go: () => void, fail: Done): void
  /** Fills `into`. NO_OBJ when the object is absent. */
  read(ref: ObjectRef, offset: number, into: Uint8Array, done: Done): void
  /**
   * Writes inside an existing object on every copy. READONLY when its volume is a snapshot by now.
   * `durable`: on stable storage of every copy before `done`.
   */
  write(ref: ObjectRef, offset: number, data: Uint8Array, durable: boolean, done: Done): void
  /**
   * Creates a data object at its full size on every copy: `data` at `offset`, around it the bytes of
   * `source` or zeros. Always durable, because a slot will name it. READONLY as above, unless inside
   * `begin`/`end`.
   */
  create(
    ref: ObjectRef,
    offset: number,
    data: Uint8Array,
    source: ObjectRef | undefined,
    done: Done,
  ): void
  /** Takes an object away that nothing names any more. NO_OBJ when absent. */
  remove(oid: Oid, done: Done): void
  /** Writes slots of an inode; what they named before and no VDI names any more is reclaimed. */
  setSlots(update: SlotUpdate, done: Done): void
  /** Every completed write to the volume's objects and inode is durable on every copy before `done`. */
  flush(vid: Vid, done: Done): void
  /**
   * Opens a change that takes several steps (create an object, then name it in a slot). A snapshot
   * taken meanwhile waits for its `end`. False: the volume is a snapshot already; nothing was opened.
   */
  begin(vid: Vid): boolean
  end(vid: Vid): void
}

/** Which VDI of a name: the working one, or a snapshot by tag or id. */
export type Selector =
  | { readonly kind: 'working' }
  | { readonly kind: 'tag'; readonly tag: string }
  | { readonly kind: 'id'; readonly snapId: number }

export interface VdiAccess {
  /** Rejects with NO_VDI or NO_TAG. */
  find(name: string, selector: Selector): Promise<Vid>
  /** Finds the working VDI and locks it for this node's doors. Rejects with VDI_LOCKED, NO_VDI. */
  lock(name: string): Promise<Vid>
  /** Gives the lock back; `vid` is the current working one (a snapshot hands the lock on). */
  unlock(vid: Vid): Promise<void>
  readHeader(vid: Vid): Promise<InodeHeader>
  /** `count` slots from the first. */
  readSlots(vid: Vid, count: number): Promise<Uint32Array>
  /** Every VDI and snapshot that is not deleted, by ascending vid. */
  list(): Promise<InodeHeader[]>
  /** Calls `changed` when a volume grew, became a snapshot or was deleted; returns the way to stop it. */
  onChange(vid: Vid, changed: () => void): () => void
}
