/** The leaves of a hypervolume's index as one map: which of its objects exist, and whose they are. */
import { Code, SheepError } from '../base/codes.js'
import type { ObjectAccess } from '../model/access.js'
import {
  decodeTreeHead,
  loadTree,
  type ReadBytes,
  TREE_HEAD_BYTES,
  type Tree,
  type TreeLeaf,
} from '../model/hyper-tree.js'
import { SLOTS_OFFSET } from '../model/inode.js'
import { inodeOid, type Oid, oidKind, oidName, type Vid } from '../model/oid.js'
import type { ByteRange, Extent } from './volume.js'

/** Looks in a row at an index that somebody is changing. */
const LOOKS_MAX = 32

/** In the order of their last indexes, at least one. */
export type Leaves = readonly TreeLeaf[]

/** Rejects with a SheepError; VDI_READ for an index that is rotten. */
export function treeOf(objects: ObjectAccess, vid: Vid): Promise<Tree> {
  return treeBy((oid, offset, length) => readBytes(objects, oid, offset, length), vid)
}

async function treeBy(read: ReadBytes, vid: Vid): Promise<Tree> {
  try {
    return await loadTree(vid, read)
  } catch (error) {
    if (error instanceof RangeError) throw new SheepError(Code.VDI_READ, error.message)
    throw error
  }
}

/**
 * The index for somebody who has no lock: another one may be changing it. All that was named before the call is in the result.
 * A leaf is replaced by one that names as much; but pointers that move could be passed by. The root's head says how many there are, and
 * changes with every move: when it is the same before and after, none was.
 */
export async function leavesNow(objects: ObjectAccess, vid: Vid): Promise<Leaves> {
  // A leaf read in one look is good enough for the next one: only new ones have to be read then.
  const known = new Map<string, Buffer>()
  const read: ReadBytes = async (oid, offset, length) => {
    const key = `${oid} ${offset} ${length}`
    const bytes = known.get(key) ?? (await readBytes(objects, oid, offset, length))
    if (oidKind(oid) === 'btree') known.set(key, bytes)
    return bytes
  }
  let before = await headOf(objects, vid)
  for (let looks = 1; ; looks++) {
    const tree = await treeBy(read, vid).catch((error: unknown) => asSheepError(error))
    const after = await headOf(objects, vid)
    // In a root without leaves nothing moves.
    const isStill =
      before.depth === after.depth && (after.depth === 1 || before.entries === after.entries)
    if (isStill && 'leaves' in tree) return tree.leaves
    if (!('leaves' in tree)) {
      // A leaf went between the look at its pointer and the look at it; or it was no root without leaves any more.
      const isPassing = tree.code === Code.NO_OBJ || !isStill
      if (!isPassing || looks >= LOOKS_MAX) throw tree
    }
    if (looks >= LOOKS_MAX) throw new SheepError(Code.EIO, 'an index changes all the time')
    before = after
  }
}

function asSheepError(error: unknown): SheepError {
  if (error instanceof SheepError) return error
  throw error
}

async function headOf(objects: ObjectAccess, vid: Vid): Promise<ReturnType<typeof decodeTreeHead>> {
  const bytes = await readBytes(objects, inodeOid(vid), SLOTS_OFFSET, TREE_HEAD_BYTES)
  try {
    return decodeTreeHead(bytes)
  } catch (error) {
    if (error instanceof RangeError) throw new SheepError(Code.VDI_READ, error.message)
    throw error
  }
}

export async function readBytes(
  objects: ObjectAccess,
  oid: Oid,
  offset: number,
  length: number,
): Promise<Buffer> {
  const into = Buffer.alloc(length)
  const code = await new Promise<Code>((resolve) =>
    objects.read(objects.ref(oid), offset, into, resolve),
  )
  if (code !== Code.SUCCESS) throw new SheepError(code, `index ${oidName(oid)}`)
  return into
}

/** The leaf an object's entry is in, if it has one. */
export function leafOf(leaves: Leaves, index: number): number {
  let [from, until] = [0, leaves.length - 1]
  while (from < until) {
    const middle = (from + until) >>> 1
    if (leaves[middle]!.lastIndex < index) from = middle + 1
    else until = middle
  }
  return from
}

/** Owner of an object; 0 is a hole. */
export function ownerIn(leaves: Leaves, index: number): Vid {
  const { entries } = leaves[leafOf(leaves, index)]!
  const at = entries.lowerBound(index)
  const isThere = at < entries.count && entries.index(at) === index
  return isThere ? entries.vid(at) : (0 as Vid)
}

/** The first object that exists in [from, until), or undefined. */
export function nextAllocatedIn(leaves: Leaves, from: number, until: number): number | undefined {
  let leaf = leafOf(leaves, from)
  let at = leaves[leaf]!.entries.lowerBound(from)
  for (; leaf < leaves.length; leaf++, at = 0) {
    const { entries } = leaves[leaf]!
    for (; at < entries.count; at++) {
      const index = entries.index(at)
      if (index >= until) return undefined
      // Another leaf's leftover may lie here as well: who is asked first counts.
      const isFirst = index >= from && leafOf(leaves, index) === leaf
      if (isFirst && entries.vid(at) !== 0) return index
    }
  }
  return undefined
}

/** Allocation of a byte range, neighbours merged. */
export function extentsIn(leaves: Leaves, range: ByteRange, objectBytes: number): Extent[] {
  const until = range.offset + range.length
  const end = Math.ceil(until / objectBytes)
  const found: Extent[] = []
  let from = range.offset
  const add = (to: number, hole: boolean): void => {
    const length = Math.min(to * objectBytes, until) - from
    if (length <= 0) return
    found.push({ length, hole })
    from += length
  }
  for (let slot = Math.floor(from / objectBytes); slot < end; ) {
    const next = nextAllocatedIn(leaves, slot, end) ?? end
    add(next, true)
    slot = next
    while (slot < end && ownerIn(leaves, slot) !== 0) slot++
    add(slot, false)
  }
  return found
}
