/**
 * The slots of a VDI in memory: which volume owns each object, a handle on it, and which slots were
 * set in a way that a power cut may undo.
 */
import type { ObjectAccess, ObjectRef } from '../model/access.js'
import { dataOid, type Vid } from '../model/oid.js'
import type { ByteRange, Extent, OwnedExtent } from './volume.js'

export class SlotTable {
  readonly #objects: ObjectAccess
  #vids: Uint32Array
  readonly #refs: (ObjectRef | undefined)[]
  /** Set but not known to be durable; the second set is what a running flush will settle. */
  #loose = new Set<number>()
  #settling = new Set<number>()

  constructor(objects: ObjectAccess, vids: Uint32Array) {
    this.#objects = objects
    this.#vids = vids
    this.#refs = new Array<ObjectRef | undefined>(vids.length)
  }

  get length(): number {
    return this.#vids.length
  }

  /** Owner of the slot's object; 0 is a hole. */
  vid(slot: number): Vid {
    return this.#vids[slot]! as Vid
  }

  /** Handle on the object the slot names; the slot is no hole. */
  ref(slot: number): ObjectRef {
    return this.#refs[slot] ?? this.#makeRef(slot)
  }

  #makeRef(slot: number): ObjectRef {
    const ref = this.#objects.ref(dataOid(this.vid(slot), slot))
    this.#refs[slot] = ref
    return ref
  }

  /** A copy of [first, end). */
  copy(first: number, end: number): Uint32Array {
    return this.#vids.slice(first, end)
  }

  /** Allocation of a byte range, neighbours merged. */
  extents(range: ByteRange, objectBytes: number): Extent[] {
    const until = range.offset + range.length
    const found: Extent[] = []
    let from = range.offset
    while (from < until) {
      let slot = Math.floor(from / objectBytes)
      const hole = this.#vids[slot] === 0
      do slot++
      while (slot * objectBytes < until && (this.#vids[slot] === 0) === hole)
      const end = Math.min(until, slot * objectBytes)
      found.push({ length: end - from, hole })
      from = end
    }
    return found
  }

  /** The same by the VDI each object belongs to. */
  owners(range: ByteRange, objectBytes: number): OwnedExtent[] {
    const until = range.offset + range.length
    const found: OwnedExtent[] = []
    let from = range.offset
    while (from < until) {
      let slot = Math.floor(from / objectBytes)
      const vid = this.vid(slot)
      do slot++
      while (slot * objectBytes < until && this.#vids[slot] === vid)
      const end = Math.min(until, slot * objectBytes)
      found.push({ length: end - from, vid })
      from = end
    }
    return found
  }

  /** Follows an update of the inode. */
  set(first: number, next: Uint32Array, durable: boolean): void {
    for (let i = 0; i < next.length; i++) {
      const slot = first + i
      if (this.#vids[slot] !== next[i]) this.#refs[slot] = undefined
      this.#vids[slot] = next[i]!
      if (durable) this.#loose.delete(slot)
      else this.#loose.add(slot)
      if (durable) this.#settling.delete(slot)
    }
  }

  /** Takes over what was read from an inode; at least as many slots as before. */
  replace(vids: Uint32Array): void {
    for (let slot = 0; slot < this.#vids.length; slot++) {
      if (this.#vids[slot] !== vids[slot]) this.#refs[slot] = undefined
    }
    this.#vids = vids
    this.#refs.length = vids.length
  }

  /** True when a power cut may undo the last update of the slot. */
  isLoose(slot: number): boolean {
    if (this.#loose.size === 0 && this.#settling.size === 0) return false
    return this.#loose.has(slot) || this.#settling.has(slot)
  }

  /** A flush begins: it will make durable what is loose now. One at a time. */
  beginFlush(): void {
    this.#settling = this.#loose
    this.#loose = new Set()
  }

  endFlush(durable: boolean): void {
    if (!durable) for (const slot of this.#settling) this.#loose.add(slot)
    this.#settling = new Set()
  }
}
