/** Which objects a volume has and whose they are: slots, or the index of a hypervolume. Read once, then looked up. */
import { Code, SheepError } from '../base/codes.js'
import { HYPER_OBJECTS_MAX, loadTree, type Tree } from '../model/hyper-tree.js'
import { slotsOf } from '../model/inode.js'
import { asVid, type Oid, type Vid } from '../model/oid.js'
import type { Sheep } from './client.js'
import { isHyper, loadSlots, type OpenedVdi, readSlot } from './image.js'

export interface ObjectMap {
  /** 0: a hole. */
  vid(index: number): Vid
  /** The first object in [from, until) that exists. */
  next(from: number, until: number): number | undefined
  /** Objects that exist. */
  readonly count: number
  /** Objects the map itself is in, beside the inode. */
  readonly leaves: readonly Oid[]
  /** Asks the sheep again: a running volume may have replaced the object or given it up. */
  renew(index: number): Promise<Vid>
}

/** Rejects with the SheepError of a read; VDI_READ for an index that is rotten. */
export function loadMap(sheep: Sheep, vdi: OpenedVdi): Promise<ObjectMap> {
  return isHyper(vdi.header) ? IndexMap.load(sheep, vdi) : SlotMap.load(sheep, vdi)
}

class SlotMap implements ObjectMap {
  readonly #sheep: Sheep
  readonly #vid: Vid
  readonly #slots: Uint32Array
  readonly leaves: readonly Oid[] = []

  private constructor(sheep: Sheep, vid: Vid, slots: Uint32Array) {
    this.#sheep = sheep
    this.#vid = vid
    this.#slots = slots
  }

  static async load(sheep: Sheep, vdi: OpenedVdi): Promise<SlotMap> {
    return new SlotMap(sheep, vdi.vid, await loadSlots(sheep, vdi))
  }

  get count(): number {
    return this.#slots.reduce((sum, slot) => (slot === 0 ? sum : sum + 1), 0)
  }

  vid(index: number): Vid {
    return asVid(this.#slots[index] ?? 0)
  }

  next(from: number, until: number): number | undefined {
    const end = Math.min(until, this.#slots.length)
    for (let index = from; index < end; index++) if (this.#slots[index] !== 0) return index
    return undefined
  }

  async renew(index: number): Promise<Vid> {
    const vid = await readSlot(this.#sheep, this.#vid, index)
    this.#slots[index] = vid
    return vid
  }
}

/** Of a hypervolume: sorted object indexes and their owners. */
class IndexMap implements ObjectMap {
  readonly #sheep: Sheep
  readonly #vdi: OpenedVdi
  #indexes = new Float64Array()
  #vids = new Uint32Array()
  leaves: readonly Oid[] = []

  private constructor(sheep: Sheep, vdi: OpenedVdi) {
    this.#sheep = sheep
    this.#vdi = vdi
  }

  static async load(sheep: Sheep, vdi: OpenedVdi): Promise<IndexMap> {
    const { sizeBytes, blockSizeShift } = vdi.header
    if (slotsOf(sizeBytes, blockSizeShift) > HYPER_OBJECTS_MAX) {
      throw new SheepError(Code.INVALID_PARMS)
    }
    const map = new IndexMap(sheep, vdi)
    await map.#read()
    return map
  }

  get count(): number {
    return this.#indexes.length
  }

  vid(index: number): Vid {
    const at = this.#lowerBound(index)
    return asVid(this.#indexes[at] === index ? this.#vids[at]! : 0)
  }

  next(from: number, until: number): number | undefined {
    const index = this.#indexes[this.#lowerBound(from)]
    return index !== undefined && index < until ? index : undefined
  }

  async renew(index: number): Promise<Vid> {
    await this.#read()
    return this.vid(index)
  }

  async #read(): Promise<void> {
    const tree = await readTree(this.#sheep, this.#vdi.vid)
    const capacity = tree.leaves.reduce((sum, { entries }) => sum + entries.count, 0)
    const indexes = new Float64Array(capacity)
    const vids = new Uint32Array(capacity)
    let count = 0
    let behind = -1
    for (const [i, { entries, lastIndex }] of tree.leaves.entries()) {
      const until = i === tree.leaves.length - 1 ? HYPER_OBJECTS_MAX - 1 : lastIndex
      for (let at = 0; at < entries.count; at++) {
        const index = entries.index(at)
        // Leftovers of a cut-off change lie outside what the pointers give the leaf, and do not count.
        if (index <= behind || index > until || entries.vid(at) === 0) continue
        indexes[count] = index
        vids[count++] = entries.vid(at)
      }
      behind = Math.max(behind, lastIndex)
    }
    this.#indexes = indexes.subarray(0, count)
    this.#vids = vids.subarray(0, count)
    this.leaves = tree.leaves.map(({ oid }) => oid).filter((oid) => oid !== undefined)
  }

  #lowerBound(index: number): number {
    let [from, until] = [0, this.#indexes.length]
    while (from < until) {
      const middle = (from + until) >>> 1
      if (this.#indexes[middle]! < index) from = middle + 1
      else until = middle
    }
    return from
  }
}

async function readTree(sheep: Sheep, vid: Vid): Promise<Tree> {
  try {
    return await loadTree(vid, (oid, offset, length) => sheep.readObject(oid, offset, length))
  } catch (error) {
    if (error instanceof RangeError) throw new SheepError(Code.VDI_READ)
    throw error
  }
}
