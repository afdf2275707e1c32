/** Which volume ids are taken, and what is known of each volume (objects spec, sections 3 and 9). */
import { asVid, VID_LIMIT, type Vid } from '../model/oid.js'
import { type CacheRight, UNLOCKED, type VdiLock, type VdiState } from '../model/vdi-state.js'

export class VidTable {
  /** One bit an id: an inode exists, even a deleted volume's. */
  readonly inUse = Buffer.alloc(VID_LIMIT / 8)
  /** A subset of `inUse`. */
  readonly deleted = Buffer.alloc(VID_LIMIT / 8)
  /** Who alone may cache a volume's objects (sheep/cache/rights.ts), also while it is away. */
  readonly cachedBy = new Map<Vid, CacheRight>()
  /** Volumes whose making this node has witnessed in this life: no client of an earlier one can know them. */
  readonly born = new Set<Vid>()
  /** Learnt at the start from older notes or stale inodes: a working inode on any disk knows better. */
  readonly hearsay = new Set<Vid>()
  readonly #states = new Map<Vid, VdiState>()
  readonly #children = new Map<Vid, Set<Vid>>()

  get(vid: Vid): VdiState | undefined {
    return this.#states.get(vid)
  }

  all(): IterableIterator<VdiState> {
    return this.#states.values()
  }

  put(state: VdiState): void {
    const before = this.#states.get(state.vid)
    if (before !== undefined && before.parent !== state.parent) {
      this.#children.get(before.parent)?.delete(state.vid)
    }
    this.#states.set(state.vid, state)
    if (state.parent === 0) return
    const children = this.#children.get(state.parent) ?? new Set()
    this.#children.set(state.parent, children.add(state.vid))
  }

  /** At the start: what exists, from a disk or another node that starts. Replaces what is known so far. */
  learn(state: VdiState, { hearsay }: { readonly hearsay: boolean }): void {
    const { vid } = state
    this.put(state)
    if (hearsay) this.hearsay.add(vid)
    else this.hearsay.delete(vid)
    this.markInUse(vid)
    if (state.deleted) this.markDeleted(vid)
    else this.deleted[vid >>> 3]! &= ~(1 << (vid & 7))
  }

  change(vid: Vid, part: Partial<VdiState>): void {
    const state = this.#states.get(vid)
    if (state !== undefined) this.put({ ...state, ...part })
  }

  setLock(vid: Vid, lock: VdiLock): void {
    this.change(vid, { lock })
  }

  forget(vid: Vid): void {
    const state = this.#states.get(vid)
    if (state !== undefined) this.#children.get(state.parent)?.delete(vid)
    this.#states.delete(vid)
  }

  isInUse(vid: number): boolean {
    return ((this.inUse[vid >>> 3]! >>> (vid & 7)) & 1) !== 0
  }

  isDeleted(vid: number): boolean {
    return ((this.deleted[vid >>> 3]! >>> (vid & 7)) & 1) !== 0
  }

  /** The volume is to become a snapshot, or is one, and `heir` has been announced as what follows it. */
  isHandedTo(vid: Vid, heir: Vid): boolean {
    return this.get(vid)?.snapshot === true && this.get(heir)?.deleted === false
  }

  markInUse(vid: Vid): void {
    this.inUse[vid >>> 3]! |= 1 << (vid & 7)
  }

  markDeleted(vid: Vid): void {
    this.markInUse(vid)
    this.deleted[vid >>> 3]! |= 1 << (vid & 7)
    this.change(vid, { deleted: true, lock: UNLOCKED })
    this.cachedBy.delete(vid)
  }

  /** Ids that are in use and not deleted, ascending. */
  living(): Vid[] {
    return this.#bits((at) => this.inUse[at]! & ~this.deleted[at]!)
  }

  /** Of `living` those in the range, at most so many; `next`: where the rest begins, 0 without. */
  livingFrom(
    { first, end }: { readonly first: number; readonly end: number },
    most: number,
  ): { readonly vids: Vid[]; readonly next: number } {
    const vids: Vid[] = []
    for (let vid = first; vid < end; vid++) {
      // Eight ids that are free cost one look.
      if ((vid & 7) === 0 && (this.inUse[vid >>> 3]! & ~this.deleted[vid >>> 3]!) === 0) vid += 7
      else if (this.isInUse(vid) && !this.isDeleted(vid)) {
        if (vids.length === most) return { vids, next: vid }
        vids.push(asVid(vid))
      }
    }
    return { vids, next: 0 }
  }

  /** Volumes from `first` on, by id, at most so many, also announced ones; `next`: where the rest begins, 0 without. */
  knownFrom(first: number, most: number): { readonly known: VdiState[]; readonly next: number } {
    const announced = [...this.#states.keys()].filter((vid) => vid >= first && !this.isInUse(vid))
    announced.sort((a, b) => b - a)
    const known: VdiState[] = []
    for (let vid = first; vid < VID_LIMIT; vid++) {
      const isAnnounced = announced.at(-1) === vid
      if (isAnnounced) announced.pop()
      // Eight ids that are free cost one look: the bitmap is mostly empty.
      if ((vid & 7) === 0 && this.inUse[vid >>> 3] === 0 && !isAnnounced) {
        vid = Math.min(vid + 7, (announced.at(-1) ?? VID_LIMIT) - 1)
        continue
      }
      const state = isAnnounced || this.isInUse(vid) ? this.get(asVid(vid)) : undefined
      if (state === undefined) continue
      if (known.length === most) return { known, next: vid }
      known.push(state)
    }
    return { known, next: 0 }
  }

  /** First free id at or after `from`, wrapping past the end to 1; undefined when all are taken. */
  firstFree(from: Vid): Vid | undefined {
    for (let step = 0; step < VID_LIMIT; step++) {
      const vid = (from + step) % VID_LIMIT
      if (vid !== 0 && !this.isInUse(vid)) return asVid(vid)
    }
    return undefined
  }

  /** Volumes whose slots may name objects of `vid`: itself and what descends from it. */
  family(vid: Vid): Vid[] {
    const found = new Set<Vid>([vid])
    for (const member of found)
      for (const child of this.#children.get(member) ?? []) found.add(child)
    return [...found]
  }

  /** Everything of one origin: what shares, or has shared, objects with `vid`. */
  kin(vid: Vid): Vid[] {
    const found = new Set<Vid>([vid])
    for (const member of found) {
      const parent = this.get(member)?.parent ?? 0
      if (parent !== 0) found.add(parent)
      for (const child of this.#children.get(member) ?? []) found.add(child)
    }
    return [...found]
  }

  /** Nothing is left of the volume: its id may be given out again. */
  free(vid: Vid): void {
    for (const child of [...(this.#children.get(vid) ?? [])])
      this.change(child, { parent: asVid(0) })
    this.#children.delete(vid)
    this.forget(vid)
    this.born.delete(vid)
    this.hearsay.delete(vid)
    this.cachedBy.delete(vid)
    this.inUse[vid >>> 3]! &= ~(1 << (vid & 7))
    this.deleted[vid >>> 3]! &= ~(1 << (vid & 7))
  }

  clear(): void {
    this.inUse.fill(0)
    this.deleted.fill(0)
    this.born.clear()
    this.hearsay.clear()
    this.#states.clear()
    this.#children.clear()
    this.cachedBy.clear()
  }

  #bits(byteAt: (at: number) => number): Vid[] {
    const found: Vid[] = []
    for (let at = 0; at < this.inUse.length; at++) {
      const byte = byteAt(at)
      for (let bit = 0; byte >>> bit !== 0; bit++) {
        if (((byte >>> bit) & 1) !== 0) found.push(asVid(at * 8 + bit))
      }
    }
    return found
  }
}
