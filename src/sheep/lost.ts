/**
 * Objects this node had and lost with a disk, until they may come back.
 *
 * Recovery relies on this: when a living owner of epoch E lacks an object, no write to it was acknowledged in E. A node
 * that lost a disk does not claim that of E any more (witness.ts). But nor may it fetch the object again in that
 * same epoch. It may have acknowledged a write just before the loss that another owner has yet to see; a copy read
 * from that owner now would lack it, and the gateway would count our acknowledgement all the same. So the node
 * asks for a new epoch (as one that changes its weight does) and leaves the object alone until then: in the new
 * epoch no acknowledgement of the old one is given any more.
 *
 * Before anything comes back the loss is on disk (node-disks.ts): a crash must not make the old copy, on a disk
 * that can be read again, pass for the new one.
 */
import { oidVid, type StoredId, type Vid } from '../model/oid.js'

export type LostSet = ReadonlySet<StoredId> | 'everything'

export class Lost {
  #epoch = 0
  #objects: Set<StoredId> | 'everything' = new Set()
  /** Losses that are being taken stock of or recorded. */
  #unsettled = 0
  #losses = 0
  readonly #unsynced = new Map<Vid, Set<StoredId>>()

  /** The newest epoch in which something was lost; 0: none. */
  get epoch(): number {
    return this.#epoch
  }

  /** Grows with each loss, from its very beginning. */
  get losses(): number {
    return this.#losses
  }

  get isSettled(): boolean {
    return this.#unsettled === 0
  }

  /** Nothing that is absent is touched, or claimed not to exist, until the returned function is called, once. */
  begin(): () => void {
    this.#unsettled++
    this.#losses++
    return () => {
      this.#unsettled--
    }
  }

  /** `objects` went while `epoch` was served. */
  add(epoch: number, objects: LostSet): void {
    this.#epoch = Math.max(this.#epoch, epoch)
    if (objects === 'everything' || this.#objects === 'everything') this.#objects = 'everything'
    else for (const oid of objects) this.#objects.add(oid)
  }

  /** Of these, acknowledged writes were lost: a flush must not succeed before they are here again. */
  addUnsynced(objects: Iterable<StoredId>): void {
    for (const oid of objects) {
      const vid = oidVid(oid)
      const others = this.#unsynced.get(vid)
      if (others === undefined) this.#unsynced.set(vid, new Set([oid]))
      else others.add(oid)
    }
  }

  unsyncedOf(vid: Vid): readonly StoredId[] {
    return this.#unsynced.size === 0 ? [] : [...(this.#unsynced.get(vid) ?? [])]
  }

  /** The object is here again, durably, or is not wanted any more. */
  synced(oid: StoredId): void {
    const others = this.#unsynced.get(oidVid(oid))
    if (others?.delete(oid) === true && others.size === 0) this.#unsynced.delete(oidVid(oid))
  }

  /** The object was lost in the epoch that is served: nothing is done with it now. */
  isWithheld(oid: StoredId, epoch: number): boolean {
    if (this.#unsettled > 0) return true
    if (epoch > this.#epoch) return false
    return this.#objects === 'everything' || this.#objects.has(oid)
  }

  /** The cluster is another one. */
  forget(): void {
    this.#epoch = 0
    this.#objects = new Set()
    this.#unsynced.clear()
  }

  /** What was lost earlier may come back. */
  served(epoch: number): void {
    if (epoch > this.#epoch) this.#objects = new Set()
  }
}
