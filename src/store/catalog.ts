/**
 * What is on the disks, in memory: no access ever searches a directory. A million objects must fit, so a
 * replica or fragment costs one map entry and no object.
 */
import { FRAGMENTS_MAX } from '../base/strips.js'
import { fragmentId, fragmentOf, type Oid, type StoredId } from '../model/oid.js'

/** A copy in a stale area. Its identity counts: a newer copy of the same epoch is another one. */
export interface StaleCopy {
  readonly epoch: number
  /** Index of the disk it is on; a link of it made later is on the same one. */
  readonly disk: number
}

export class Catalog {
  /** Disk index of each working replica and fragment. */
  readonly working = new Map<StoredId, number>()
  /** Newest epoch first. */
  readonly stale = new Map<StoredId, StaleCopy[]>()
  /** Stale copies that went, ever: whoever walks through both maps looks whether it moved. */
  purged = 0

  addStale(id: StoredId, copy: StaleCopy): void {
    const others = (this.stale.get(id) ?? []).filter((other) => other.epoch !== copy.epoch)
    this.stale.set(
      id,
      [...others, copy].sort((a, b) => b.epoch - a.epoch),
    )
  }

  /** The copy of exactly that epoch. */
  staleCopy(id: StoredId, epoch: number): StaleCopy | undefined {
    return this.stale.get(id)?.find((copy) => copy.epoch === epoch)
  }

  isStale(id: StoredId, copy: StaleCopy): boolean {
    return this.stale.get(id)?.includes(copy) ?? false
  }

  removeStale(id: StoredId, copy: StaleCopy): void {
    this.purged++
    const rest = (this.stale.get(id) ?? []).filter((other) => other !== copy)
    if (rest.length === 0) this.stale.delete(id)
    else this.stale.set(id, rest)
  }

  /** Working replicas, ascending. */
  workingIds(): Oid[] {
    return ascending([...this.working.keys()].filter((id) => fragmentOf(id) < 0))
  }

  /** Objects this node has anything of, ascending, once each. */
  allIds(): Oid[] {
    return ascending([...this.working.keys(), ...this.stale.keys()])
  }

  /** What there is of one object, working or stale. */
  piecesOf(oid: Oid): StoredId[] {
    const ids: StoredId[] = [oid]
    for (let index = 0; index < FRAGMENTS_MAX; index++) ids.push(fragmentId(oid, index))
    return ids.filter((id) => this.working.has(id) || this.stale.has(id))
  }

  /**
   * Forgets everything on a disk, one entry a step: the ids it had anything of, with repeats, and undefined for
   * entries of other disks.
   */
  *forget(disk: number): Iterable<StoredId | undefined> {
    for (const [id, at] of this.working) {
      if (at === disk) this.working.delete(id)
      yield at === disk ? id : undefined
    }
    for (const [id, copies] of this.stale) {
      const rest = copies.filter((copy) => copy.disk !== disk)
      if (rest.length === 0) this.stale.delete(id)
      else if (rest.length < copies.length) this.stale.set(id, rest)
      yield rest.length < copies.length ? id : undefined
    }
  }

  clear(): void {
    this.working.clear()
    this.stale.clear()
  }
}

/** A typed array sorts without a call per comparison, and drops the index above the 64 bits of an id. */
function ascending(ids: readonly StoredId[]): Oid[] {
  const sorted = BigUint64Array.from(ids).sort()
  return Array.from(sorted.filter((id, i) => i === 0 || id !== sorted[i - 1])) as Oid[]
}
