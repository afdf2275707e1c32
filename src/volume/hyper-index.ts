/**
 * The index of an open hypervolume, in memory and on the cluster. Every change is durable when it is acknowledged, and is
 * made of writes of which each is of one sector or out of sight until it is complete, so that whatever a crash leaves is
 * an index that names all it named before:
 *
 *   behind the last entry   the entry, then the number of entries
 *   an entry that is there  its volume id
 *   in between              a new leaf with everything, then the pointer to it; the old leaf goes
 *   a full leaf             two new leaves; the pointers behind move up, from the last one on, then point there
 *
 * One change at a time. The volume is this node's alone: it has the door's lock.
 */
import { Code, codeName, SheepError } from '../base/codes.js'
import type { ObjectAccess } from '../model/access.js'
import {
  encodePointer,
  encodeTreeHead,
  HYPER_OBJECTS_MAX,
  TREE_COUNTER_OFFSET,
  TREE_ENTRIES_MAX,
  TREE_ENTRY_BYTES,
  TREE_HEAD_BYTES,
  TREE_POINTER_BYTES,
  TREE_POINTERS_MAX,
  TreeEntries,
  type TreeLeaf,
} from '../model/hyper-tree.js'
import { type InodeHeader, SLOTS_OFFSET } from '../model/inode.js'
import { btreeOid, inodeOid, type Oid, oidName, type Vid } from '../model/oid.js'
import { extentsIn, leafOf, nextAllocatedIn, ownerIn, readBytes, treeOf } from './hyper-leaves.js'
import type { ByteRange, Extent } from './volume.js'

const PAYLOAD_OFFSET = SLOTS_OFFSET + TREE_HEAD_BYTES
const SECTOR_BYTES = 512

export interface HyperIndexOptions {
  readonly objects: ObjectAccess
  readonly header: InodeHeader
  /** Entries of a leaf; fewer in tests. */
  readonly entriesMax?: number
}

/** Where an index of an object is, or would be put. */
interface Spot {
  readonly leaf: number
  readonly at: number
  readonly isThere: boolean
}

export class HyperIndex {
  readonly #objects: ObjectAccess
  readonly #vid: Vid
  readonly #entriesMax: number
  #counter: number
  #leaves: TreeLeaf[]
  /** Changes, one after the other. */
  #tail: Promise<void> = Promise.resolve()
  /** A change failed, and nobody knows how far it got: what is in memory may be old. */
  #isUnsure = false

  private constructor(options: HyperIndexOptions, leaves: TreeLeaf[]) {
    this.#objects = options.objects
    this.#vid = options.header.vid
    this.#counter = options.header.btreeCounter
    this.#entriesMax = options.entriesMax ?? TREE_ENTRIES_MAX
    this.#leaves = leaves
  }

  /** Rejects with a SheepError; VDI_READ for an index that is rotten. */
  static async load(options: HyperIndexOptions): Promise<HyperIndex> {
    const tree = await treeOf(options.objects, options.header.vid)
    const index = new HyperIndex(options, tree.leaves)
    if (tree.isUntidy) await index.#inTurn(() => index.#tidy())
    return index
  }

  get isUnsure(): boolean {
    return this.#isUnsure
  }

  /** Reads the index again; rejects with a SheepError, and has to be asked again then. */
  settle(): Promise<void> {
    return this.#inTurn(() => this.#reload())
  }

  /** Owner of an object; 0 is a hole. */
  vid(index: number): Vid {
    return ownerIn(this.#leaves, index)
  }

  /** The first object that exists in [from, until), or undefined. */
  nextAllocated(from: number, until: number): number | undefined {
    return nextAllocatedIn(this.#leaves, from, until)
  }

  extents(range: ByteRange, objectBytes: number): Extent[] {
    return extentsIn(this.#leaves, range, objectBytes)
  }

  /** Durable when it resolves; rejects with a SheepError, the index being as before in memory. */
  set(index: number, vid: Vid): Promise<void> {
    return this.#inTurn(async () => {
      await this.#reload()
      try {
        await this.#change(index, vid)
      } catch (error) {
        this.#isUnsure = true
        throw error
      }
    })
  }

  #inTurn(act: () => Promise<void>): Promise<void> {
    const done = this.#tail.then(act)
    this.#tail = done.catch(() => undefined)
    return done
  }

  async #reload(): Promise<void> {
    if (!this.#isUnsure) return
    const tree = await treeOf(this.#objects, this.#vid)
    this.#leaves = tree.leaves
    if (tree.isUntidy) await this.#tidy()
    const counter = await readBytes(this.#objects, inodeOid(this.#vid), TREE_COUNTER_OFFSET, 4)
    this.#counter = counter.readUInt32LE(0)
    this.#isUnsure = false
  }

  #find(index: number): Spot {
    const leaf = leafOf(this.#leaves, index)
    const { entries } = this.#leaves[leaf]!
    const at = entries.lowerBound(index)
    return { leaf, at, isThere: at < entries.count && entries.index(at) === index }
  }

  async #change(index: number, vid: Vid): Promise<void> {
    if (index >= HYPER_OBJECTS_MAX) throw new SheepError(Code.INVALID_PARMS)
    const spot = this.#find(index)
    const { entries } = this.#leaves[spot.leaf]!
    if (spot.isThere) await this.#replace(spot, vid)
    else if (vid === 0) return
    else if (entries.count >= this.#entriesMax) await this.#splitFull(spot, index, vid)
    else if (spot.at === entries.count) await this.#append(spot, index, vid)
    else await this.#insert(spot, index, vid)
  }

  async #replace({ leaf, at }: Spot, vid: Vid): Promise<void> {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(vid)
    const { oid, entries } = this.#leaves[leaf]!
    await this.#writeNode(oid, TREE_HEAD_BYTES + at * TREE_ENTRY_BYTES + 4, bytes)
    entries.setVid(at, vid)
  }

  async #append({ leaf, at }: Spot, index: number, vid: Vid): Promise<void> {
    const { oid, lastIndex, entries } = this.#leaves[leaf]!
    const entry = Buffer.alloc(TREE_ENTRY_BYTES)
    entry.writeUInt32LE(index, 0)
    entry.writeUInt32LE(vid, 4)
    await this.#writeNode(oid, TREE_HEAD_BYTES + at * TREE_ENTRY_BYTES, entry)
    await this.#writeNode(oid, 0, encodeTreeHead(1, at + 1))
    entries.push(index, vid)
    // Only behind the last key of all: the pointer has to follow, or others would not look here.
    if (index > lastIndex) await this.#point(leaf, { ...this.#leaves[leaf]!, lastIndex: index })
  }

  async #insert(spot: Spot, index: number, vid: Vid): Promise<void> {
    const { oid: old, lastIndex, entries } = this.#leaves[spot.leaf]!
    const next = copyOf(entries)
    next.insert(spot.at, index, vid)
    const [oid] = await this.#newLeaves([next])
    // A root with entries of its own becomes one with a pointer.
    const isRoot = old === undefined
    const key = isRoot ? next.index(next.count - 1) : lastIndex
    const leaf = { oid: oid!, lastIndex: key, entries: next }
    if (isRoot) await this.#firstPointer(leaf)
    else await this.#point(spot.leaf, leaf)
    await this.#drop(old)
  }

  async #splitFull(spot: Spot, index: number, vid: Vid): Promise<void> {
    const { oid, entries } = this.#leaves[spot.leaf]!
    if (oid === undefined) {
      // First as it is: a pointer to a half would lose the other one.
      const [leaf] = await this.#newLeaves([entries])
      await this.#firstPointer({ oid: leaf!, lastIndex: entries.index(entries.count - 1), entries })
    }
    await this.#split(this.#find(index), index, vid)
  }

  async #split(spot: Spot, index: number, vid: Vid): Promise<void> {
    const { oid: old, lastIndex, entries } = this.#leaves[spot.leaf]!
    // What comes at the end, in order, leaves full leaves behind.
    const isBehind = spot.at === entries.count
    const lower = copyOf(entries)
    const upper = isBehind ? new TreeEntries() : lower.split()
    const target = !isBehind && spot.at <= lower.count ? lower : upper
    target.insert(target.lowerBound(index), index, vid)
    const [low, high] = await this.#newLeaves([lower, upper])
    const first = { oid: low!, lastIndex: lower.index(lower.count - 1), entries: lower }
    const second = { oid: high!, lastIndex: Math.max(index, lastIndex), entries: upper }
    // Until the pointer to the old leaf is replaced, everything is found there.
    await this.#addPointer(spot.leaf + 1, second)
    await this.#point(spot.leaf, first)
    await this.#drop(old)
  }

  /** The numbers are taken durably before anything has them. */
  async #newLeaves(contents: readonly TreeEntries[]): Promise<Oid[]> {
    const first = this.#counter
    const counter = Buffer.alloc(4)
    counter.writeUInt32LE(first + contents.length)
    await this.#write(inodeOid(this.#vid), TREE_COUNTER_OFFSET, counter)
    this.#counter = first + contents.length
    const oids = contents.map((_, i) => btreeOid(this.#vid, first + i))
    for (const [i, entries] of contents.entries()) {
      const ref = this.#objects.ref(oids[i]!)
      await this.#must(oids[i]!, (done) =>
        this.#objects.create(ref, 0, entries.encode(), undefined, done),
      )
    }
    return oids
  }

  /** Head and pointer lie in one sector of the inode: the root changes its kind at once. */
  async #firstPointer(leaf: TreeLeaf & { readonly oid: Oid }): Promise<void> {
    const root = Buffer.concat([encodeTreeHead(2, 1), encodePointer(leaf.lastIndex, leaf.oid)])
    await this.#write(inodeOid(this.#vid), SLOTS_OFFSET, root)
    this.#leaves = [leaf]
  }

  async #point(at: number, leaf: TreeLeaf): Promise<void> {
    // Entries in the root have no pointer; their root is never behind its own end.
    if (leaf.oid !== undefined) await this.#writePointer(at, leaf.lastIndex, leaf.oid)
    this.#leaves[at] = leaf
  }

  /** One more pointer at `at`. On the way some are there twice, which changes nothing: the first one counts. */
  async #addPointer(at: number, leaf: TreeLeaf & { readonly oid: Oid }): Promise<void> {
    const count = this.#leaves.length
    if (count >= TREE_POINTERS_MAX) throw new SheepError(Code.FULL_VDI)
    const moved = this.#leaves.slice(at)
    if (at === count) {
      await this.#writePointer(at, leaf.lastIndex, leaf.oid)
      await this.#writeNode(undefined, 0, encodeTreeHead(2, count + 1))
    } else {
      const last = moved.at(-1)!
      await this.#writePointer(count, last.lastIndex, last.oid!)
      await this.#writeNode(undefined, 0, encodeTreeHead(2, count + 1))
      await this.#moveUp(at, moved.slice(0, -1))
      await this.#writePointer(at, leaf.lastIndex, leaf.oid)
    }
    this.#leaves = [...this.#leaves.slice(0, at), leaf, ...moved]
  }

  /** Writes pointers to where they are one place further, sector by sector from the last one on. */
  async #moveUp(first: number, pointers: readonly TreeLeaf[]): Promise<void> {
    const bytes = Buffer.concat(pointers.map((leaf) => encodePointer(leaf.lastIndex, leaf.oid!)))
    const start = PAYLOAD_OFFSET + (first + 1) * TREE_POINTER_BYTES
    for (let end = bytes.length; end > 0; ) {
      const sector = Math.floor((start + end - 1) / SECTOR_BYTES) * SECTOR_BYTES
      const from = Math.max(0, sector - start)
      await this.#write(inodeOid(this.#vid), start + from, bytes.subarray(from, end))
      end = from
    }
  }

  /** Takes out pointers that are there twice: the others move down, from the first one on. */
  async #tidy(): Promise<void> {
    const bytes = Buffer.concat(
      this.#leaves.map((leaf) => encodePointer(leaf.lastIndex, leaf.oid!)),
    )
    for (let from = 0; from < bytes.length; ) {
      const sector = Math.floor((PAYLOAD_OFFSET + from) / SECTOR_BYTES + 1) * SECTOR_BYTES
      const end = Math.min(bytes.length, sector - PAYLOAD_OFFSET)
      await this.#write(inodeOid(this.#vid), PAYLOAD_OFFSET + from, bytes.subarray(from, end))
      from = end
    }
    await this.#writeNode(undefined, 0, encodeTreeHead(2, this.#leaves.length))
  }

  #writePointer(at: number, lastIndex: number, leaf: Oid): Promise<void> {
    const offset = PAYLOAD_OFFSET + at * TREE_POINTER_BYTES
    return this.#write(inodeOid(this.#vid), offset, encodePointer(lastIndex, leaf))
  }

  /** `leaf` undefined: the root. */
  #writeNode(leaf: Oid | undefined, offset: number, bytes: Buffer): Promise<void> {
    return leaf === undefined
      ? this.#write(inodeOid(this.#vid), SLOTS_OFFSET + offset, bytes)
      : this.#write(leaf, offset, bytes)
  }

  #write(oid: Oid, offset: number, bytes: Uint8Array): Promise<void> {
    const ref = this.#objects.ref(oid)
    return this.#must(oid, (done) => this.#objects.write(ref, offset, bytes, true, done))
  }

  /** Nothing points to it any more; one that stays is found by the volume's deletion. */
  #drop(leaf: Oid | undefined): Promise<void> {
    if (leaf === undefined) return Promise.resolve()
    return new Promise((resolve) => this.#objects.remove(leaf, () => resolve()))
  }

  async #must(oid: Oid, start: (done: (code: Code) => void) => void): Promise<void> {
    const code = await new Promise<Code>(start)
    if (code !== Code.SUCCESS) {
      throw new SheepError(code, `index ${oidName(oid)}: ${codeName(code)}`)
    }
  }
}

function copyOf(entries: TreeEntries): TreeEntries {
  const copy = new TreeEntries()
  for (let at = 0; at < entries.count; at++) copy.push(entries.index(at), entries.vid(at))
  return copy
}
