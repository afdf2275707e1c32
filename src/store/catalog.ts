/**
 * What is on the disks, in memory: no access ever searches a directory. A million objects must fit, so a
 * replica costs one map entry and no object.
 */
import type { Oid } from '../model/oid.js'
import { REPLICA } from './names.js'
import type { ObjectName } from './object-store.js'

/** A copy in a stale area. Its identity counts: a newer copy of the same epoch is another one. */
export interface StaleCopy {
  readonly epoch: number
  readonly fragment: number
  /** Index of the disk it is on; a link of it made later is on the same one. */
  readonly disk: number
}

export class Catalog {
  /** Disk index of each working replica. */
  readonly working = new Map<Oid, number>()
  /** Erasure-coded pieces: they are kept and listed, not served. */
  private readonly fragments = new Map<Oid, Map<number, number>>()
  /** Newest epoch first. */
  readonly stale = new Map<Oid, StaleCopy[]>()

  /** Disk index of a working object or fragment. */
  diskOf({ oid, fragment }: ObjectName): number | undefined {
    return fragment === REPLICA ? this.working.get(oid) : this.fragments.get(oid)?.get(fragment)
  }

  add({ oid, fragment }: ObjectName, disk: number): void {
    if (fragment === REPLICA) {
      this.working.set(oid, disk)
      return
    }
    const known = this.fragments.get(oid)
    if (known === undefined) this.fragments.set(oid, new Map([[fragment, disk]]))
    else known.set(fragment, disk)
  }

  addStale(oid: Oid, copy: StaleCopy): void {
    const others = (this.stale.get(oid) ?? []).filter(
      (other) => other.epoch !== copy.epoch || other.fragment !== copy.fragment,
    )
    this.stale.set(
      oid,
      [...others, copy].sort((a, b) => b.epoch - a.epoch),
    )
  }

  /** The replica of exactly that epoch. */
  staleReplica(oid: Oid, epoch: number): StaleCopy | undefined {
    return this.stale.get(oid)?.find((copy) => copy.epoch === epoch && copy.fragment === REPLICA)
  }

  isStale(oid: Oid, copy: StaleCopy): boolean {
    return this.stale.get(oid)?.includes(copy) ?? false
  }

  removeStale(oid: Oid, copy: StaleCopy): void {
    const rest = (this.stale.get(oid) ?? []).filter((other) => other !== copy)
    if (rest.length === 0) this.stale.delete(oid)
    else this.stale.set(oid, rest)
  }

  /** Working replicas, ascending. */
  workingIds(): Oid[] {
    return ascending(this.working.keys())
  }

  /** Everything this node has any copy or piece of, ascending, once each. */
  allIds(): Oid[] {
    return ascending(
      new Set([...this.working.keys(), ...this.fragments.keys(), ...this.stale.keys()]),
    )
  }

  clear(): void {
    this.working.clear()
    this.fragments.clear()
    this.stale.clear()
  }
}

/** A typed array sorts without a call per comparison. */
function ascending(oids: Iterable<Oid>): Oid[] {
  return Array.from(BigUint64Array.from(oids).sort()) as Oid[]
}
