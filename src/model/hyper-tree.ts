/**
 * The index of a hypervolume: which of its objects exist (objects spec, section 5). Its root lies where other volumes
 * have their slots; a root of depth 2 points to leaves, objects of their own.
 *
 *   node     magic u16 = 0x6274 | depth u16 | entries u32 | payload
 *   depth 1  {index u32, vid u32} ...        depth 2  {last index u32, pad u32, leaf oid u64} ...
 */
import { SLOTS_OFFSET } from './inode.js'
import { BTREE_BYTES, btreeOid, inodeOid, type Oid, oidKind, oidVid, type Vid } from './oid.js'

export const TREE_HEAD_BYTES = 8
export const TREE_ENTRY_BYTES = 8
export const TREE_POINTER_BYTES = 16
export const TREE_ENTRIES_MAX = (BTREE_BYTES - TREE_HEAD_BYTES) / TREE_ENTRY_BYTES
export const TREE_POINTERS_MAX = Math.floor((BTREE_BYTES - TREE_HEAD_BYTES) / TREE_POINTER_BYTES)
/** Where the inode keeps the number of the next leaf. */
export const TREE_COUNTER_OFFSET = 568
/** Objects a hypervolume can have: indexes are 32 bits. */
export const HYPER_OBJECTS_MAX = 2 ** 32

const MAGIC = 0x6274
const PIECE_BYTES = 1024 * 1024
const CAPACITY_MIN = 64

export function encodeTreeHead(depth: 1 | 2, entries: number): Buffer {
  const head = Buffer.alloc(TREE_HEAD_BYTES)
  head.writeUInt16LE(MAGIC, 0)
  head.writeUInt16LE(depth, 2)
  head.writeUInt32LE(entries, 4)
  return head
}

/** Throws RangeError for what is no node, or says that it has more than fits. */
export function decodeTreeHead(head: Buffer): { depth: 1 | 2; entries: number } {
  const depth = head.readUInt16LE(2)
  const entries = head.readUInt32LE(4)
  const isNode = head.readUInt16LE(0) === MAGIC && (depth === 1 || depth === 2)
  if (!isNode || entries > (depth === 1 ? TREE_ENTRIES_MAX : TREE_POINTERS_MAX)) {
    throw new RangeError(`no index node: depth ${depth}, ${entries} entries`)
  }
  return { depth, entries }
}

export function encodePointer(lastIndex: number, leaf: Oid): Buffer {
  const pointer = Buffer.alloc(TREE_POINTER_BYTES)
  pointer.writeUInt32LE(lastIndex, 0)
  pointer.writeBigUInt64LE(leaf, 8)
  return pointer
}

/** Object indexes in ascending order, each with the volume that owns the object; 0 is a hole. */
export class TreeEntries {
  #indexes = new Uint32Array(CAPACITY_MIN)
  #vids = new Uint32Array(CAPACITY_MIN)
  count = 0

  index(at: number): number {
    return this.#indexes[at]!
  }

  vid(at: number): Vid {
    return this.#vids[at]! as Vid
  }

  setVid(at: number, vid: number): void {
    this.#vids[at] = vid
  }

  /** Of the first entry at or behind `index`; `count` when there is none. */
  lowerBound(index: number): number {
    let from = 0
    let until = this.count
    while (from < until) {
      const middle = (from + until) >>> 1
      if (this.#indexes[middle]! < index) from = middle + 1
      else until = middle
    }
    return from
  }

  insert(at: number, index: number, vid: number): void {
    if (this.count === this.#indexes.length) this.#grow()
    this.#indexes.copyWithin(at + 1, at, this.count)
    this.#vids.copyWithin(at + 1, at, this.count)
    this.#indexes[at] = index
    this.#vids[at] = vid
    this.count++
  }

  /** Behind the last one. */
  push(index: number, vid: number): void {
    this.insert(this.count, index, vid)
  }

  /** The upper half goes into the result. */
  split(): TreeEntries {
    const upper = new TreeEntries()
    const half = this.count >>> 1
    for (let at = half; at < this.count; at++) upper.push(this.index(at), this.vid(at))
    this.count = half
    return upper
  }

  /** A leaf object's content, as far as there is any. */
  encode(): Buffer {
    const bytes = Buffer.alloc(TREE_HEAD_BYTES + this.count * TREE_ENTRY_BYTES)
    encodeTreeHead(1, this.count).copy(bytes)
    for (let i = 0, at = TREE_HEAD_BYTES; i < this.count; i++, at += TREE_ENTRY_BYTES) {
      bytes.writeUInt32LE(this.#indexes[i]!, at)
      bytes.writeUInt32LE(this.#vids[i]!, at + 4)
    }
    return bytes
  }

  #grow(): void {
    for (const name of ['indexes', 'vids'] as const) {
      const from = name === 'indexes' ? this.#indexes : this.#vids
      const to = new Uint32Array(2 * from.length)
      to.set(from)
      if (name === 'indexes') this.#indexes = to
      else this.#vids = to
    }
  }
}

export interface TreeLeaf {
  /** Undefined: the entries are in the root itself, of depth 1. */
  readonly oid: Oid | undefined
  /** Entries up to this index belong here; to the last leaf also those behind. */
  readonly lastIndex: number
  readonly entries: TreeEntries
}

/** Exactly `length` bytes; rejects when they are not to be had. */
export type ReadBytes = (oid: Oid, offset: number, length: number) => Promise<Buffer>

export interface Tree {
  /** In the order of the root's pointers, at least one. */
  readonly leaves: TreeLeaf[]
  /** The root has more pointers than leaves count: a cut-off change left some twice. The first of a key counts. */
  readonly isUntidy: boolean
}

/** Throws RangeError for a rotten tree. */
export async function loadTree(vid: Vid, read: ReadBytes): Promise<Tree> {
  const inode = inodeOid(vid)
  const root = decodeTreeHead(await read(inode, SLOTS_OFFSET, TREE_HEAD_BYTES))
  const payload = SLOTS_OFFSET + TREE_HEAD_BYTES
  if (root.depth === 1) {
    const entries = await loadEntries(inode, payload, root.entries, read)
    const leaf = { oid: undefined, lastIndex: HYPER_OBJECTS_MAX - 1, entries }
    return { leaves: [leaf], isUntidy: false }
  }
  const leaves: TreeLeaf[] = []
  const bytes = root.entries * TREE_POINTER_BYTES
  for (let at = 0; at < bytes; at += PIECE_BYTES) {
    const piece = await read(inode, payload + at, Math.min(PIECE_BYTES, bytes - at))
    for (let i = 0; i < piece.length; i += TREE_POINTER_BYTES) {
      const isNext = leaves.length === 0 || piece.readUInt32LE(i) > leaves.at(-1)!.lastIndex
      const pointer = piece.subarray(i, i + TREE_POINTER_BYTES)
      if (isNext) leaves.push(await loadLeaf(vid, pointer, read))
    }
  }
  if (leaves.length === 0) throw new RangeError('an index without leaves')
  return { leaves, isUntidy: leaves.length < root.entries }
}

async function loadLeaf(vid: Vid, pointer: Buffer, read: ReadBytes): Promise<TreeLeaf> {
  const oid = pointer.readBigUInt64LE(8) as Oid
  if (oidKind(oid) !== 'btree' || oidVid(oid) !== vid) throw new RangeError('a pointer elsewhere')
  const head = decodeTreeHead(await read(oid, 0, TREE_HEAD_BYTES))
  if (head.depth !== 1) throw new RangeError('an index of more than two levels')
  const entries = await loadEntries(oid, TREE_HEAD_BYTES, head.entries, read)
  return { oid, lastIndex: pointer.readUInt32LE(0), entries }
}

async function loadEntries(
  oid: Oid,
  offset: number,
  count: number,
  read: ReadBytes,
): Promise<TreeEntries> {
  const entries = new TreeEntries()
  const bytes = count * TREE_ENTRY_BYTES
  for (let at = 0; at < bytes; at += PIECE_BYTES) {
    const piece = await read(oid, offset + at, Math.min(PIECE_BYTES, bytes - at))
    for (let i = 0; i < piece.length; i += TREE_ENTRY_BYTES) {
      const index = piece.readUInt32LE(i)
      const last = entries.count - 1
      if (last >= 0 && entries.index(last) > index) throw new RangeError('an index out of order')
      // A repetition is what a cut-off insertion leaves: the first one counts.
      if (last < 0 || entries.index(last) < index) entries.push(index, piece.readUInt32LE(i + 4))
    }
  }
  return entries
}

/** Leaves a volume may have made, by its counter: also those nothing points to any more. */
export function* leafOids(vid: Vid, counter: number): Generator<Oid> {
  for (let n = 0; n < counter; n++) yield btreeOid(vid, n)
}
