/**
 * The index of a hyper volume (objects spec, section 5), read only: who owns its objects.
 *
 *   node     magic u16 = 0x6274 | depth u16 | entries u32 | payload
 *   depth 1  {index u32, vid u32} ...        depth 2  {last index u32, pad u32, leaf oid u64} ...
 */
import { Code, SheepError } from '../base/codes.js'
import { SLOTS_OFFSET } from '../model/inode.js'
import { BTREE_BYTES, inodeOid, type Oid, oidKind, type Vid } from '../model/oid.js'
import type { Sheep } from './client.js'

const MAGIC = 0x6274
const NODE_HEAD_BYTES = 8
const INDEX_ENTRY_BYTES = 8
const POINTER_ENTRY_BYTES = 16
const PIECE_BYTES = 256 * 1024

/** Where a node lies: the inode's slot area, or a leaf object. */
interface NodePlace {
  readonly oid: Oid
  readonly offset: number
}

/**
 * Calls `use` with the vid of every object. Rejects with the SheepError of a read, or EIO for a
 * rotten node.
 */
export async function scanTree(
  sheep: Sheep,
  vid: Vid,
  use: (owner: number) => void,
): Promise<void> {
  const root = { oid: inodeOid(vid), offset: SLOTS_OFFSET }
  const { depth, entries } = await nodeHead(sheep, root)
  if (depth === 1) {
    await scanEntries(sheep, root, entries, use)
    return
  }
  const leaves: Oid[] = []
  await scanPayload(sheep, root, entries * POINTER_ENTRY_BYTES, (piece) => {
    for (let at = 0; at < piece.length; at += POINTER_ENTRY_BYTES) {
      leaves.push(piece.readBigUInt64LE(at + 8) as Oid)
    }
  })
  for (const oid of leaves) {
    if (oidKind(oid) !== 'btree') throw new SheepError(Code.EIO)
    const leaf = { oid, offset: 0 }
    const head = await nodeHead(sheep, leaf)
    if (head.depth !== 1) throw new SheepError(Code.EIO)
    await scanEntries(sheep, leaf, head.entries, use)
  }
}

async function scanEntries(
  sheep: Sheep,
  node: NodePlace,
  entries: number,
  use: (owner: number) => void,
): Promise<void> {
  await scanPayload(sheep, node, entries * INDEX_ENTRY_BYTES, (piece) => {
    for (let at = 0; at < piece.length; at += INDEX_ENTRY_BYTES) use(piece.readUInt32LE(at + 4))
  })
}

async function nodeHead(
  sheep: Sheep,
  node: NodePlace,
): Promise<{ readonly depth: number; readonly entries: number }> {
  const head = await sheep.readObject(node.oid, node.offset, NODE_HEAD_BYTES)
  const depth = head.readUInt16LE(2)
  const entries = head.readUInt32LE(4)
  const entryBytes = depth === 1 ? INDEX_ENTRY_BYTES : POINTER_ENTRY_BYTES
  const fits = entries * entryBytes <= BTREE_BYTES - NODE_HEAD_BYTES
  if (head.readUInt16LE(0) !== MAGIC || depth < 1 || depth > 2 || !fits) {
    throw new SheepError(Code.EIO)
  }
  return { depth, entries }
}

async function scanPayload(
  sheep: Sheep,
  node: NodePlace,
  length: number,
  use: (piece: Buffer) => void,
): Promise<void> {
  for (let at = 0; at < length; at += PIECE_BYTES) {
    const offset = node.offset + NODE_HEAD_BYTES + at
    use(await sheep.readObject(node.oid, offset, Math.min(PIECE_BYTES, length - at)))
  }
}
