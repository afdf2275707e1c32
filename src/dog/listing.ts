/**
 * All VDIs and snapshots of the cluster with what they occupy: what list, tree, graph and node
 * info show.
 */
import { type InodeHeader, sdTimeSeconds } from '../model/inode.js'
import { asVid, inodeOid, type Vid, vidName } from '../model/oid.js'
import { redundancyText } from '../model/policy.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { inOrder } from './bounded.js'
import { scanTree } from './btree.js'
import { reasonOf, type Sheep } from './client.js'
import type { Context } from './command.js'
import { Exit, Failure } from './failure.js'
import { isHyper, readHeader, redundancyOf, sayObjectFailure, scanSlots } from './image.js'

export interface Usage {
  /** Bytes of the objects that are the volume's own. */
  readonly usedBytes: number
  /** Bytes of the objects it reads through from others. */
  readonly sharedBytes: number
}

export interface VdiRow {
  readonly vid: Vid
  readonly header: InodeHeader
  /** Absent when not asked for. */
  readonly usage?: Usage
}

export interface ListingOptions {
  readonly usage?: boolean
  /** Only rows whose header passes. */
  readonly wanted?: (header: InodeHeader) => boolean
}

export function isSnapshot(header: InodeHeader): boolean {
  return header.snapCtime !== 0n
}

/** The id people select it by: 0 for a working VDI. */
export function shownId(header: InodeHeader): number {
  return isSnapshot(header) ? header.snapId : 0
}

/** A clone loses the mark with its first snapshot, as in 1.0. */
export function isClone(header: InodeHeader): boolean {
  return !isSnapshot(header) && header.parent !== 0 && header.snapId === 1
}

export function createdAt(header: InodeHeader): number {
  return sdTimeSeconds(header.createTime)
}

/** `3`, `4:2`; a policy byte that cannot be is shown as the number of copies. */
export function headerRedundancy(header: InodeHeader): string {
  try {
    return redundancyText(redundancyOf(header))
  } catch (error) {
    if (error instanceof RangeError) return String(header.copies)
    throw error
  }
}

/** Rows in the order of their ids. Inodes that cannot be read are named on stderr and left out. */
export async function* listVdis(
  context: Pick<Context, 'out' | 'sheep'>,
  options: ListingOptions = {},
): AsyncGenerator<VdiRow, void, undefined> {
  const { out, sheep } = context
  const vids = await liveVids(sheep)
  const rows = inOrder(vids, (vid) =>
    readRow(sheep, vid, options).catch((error: unknown) => {
      sayObjectFailure(out, 'read', inodeOid(vid), error)
      out.error('Failed to read inode header')
      return undefined
    }),
  )
  for await (const row of rows) if (row !== undefined) yield row
}

/** Throws a Failure when the sheep does not tell. */
export async function liveVids(sheep: Sheep): Promise<Vid[]> {
  try {
    const used = await sheep.vidBitmap(Op.READ_VDIS)
    const deleted = await sheep.vidBitmap(Op.READ_DEL_VDIS)
    return bits(used, deleted)
  } catch (error) {
    reasonOf(error)
    throw new Failure(Exit.system, [])
  }
}

function bits(used: Buffer, deleted: Buffer): Vid[] {
  const vids: Vid[] = []
  for (let at = 0; at < used.length; at++) {
    const byte = used[at]! & ~deleted[at]!
    for (let bit = 0; byte >> bit !== 0; bit++) {
      if ((byte >> bit) & 1) vids.push(asVid(at * 8 + bit))
    }
  }
  return vids
}

async function readRow(
  sheep: Sheep,
  vid: Vid,
  options: ListingOptions,
): Promise<VdiRow | undefined> {
  const header = await readHeader(sheep, vid)
  if (header.name === '' || options.wanted?.(header) === false) return undefined
  if (!options.usage) return { vid, header }
  return { vid, header, usage: await usageOf(sheep, vid, header) }
}

async function usageOf(sheep: Sheep, vid: Vid, header: InodeHeader): Promise<Usage> {
  let own = 0
  let foreign = 0
  const count = (owner: number): void => {
    if (owner === vid) own++
    else if (owner !== 0) foreign++
  }
  if (isHyper(header)) await scanTree(sheep, vid, count)
  else await scanSlots(sheep, { vid, header }, (_first, vids) => vids.forEach(count))
  const objectBytes = 2 ** header.blockSizeShift
  return { usedBytes: own * objectBytes, sharedBytes: foreign * objectBytes }
}

/**
 * One VDI or snapshot for --json. Ids of volumes are the hex text of the tables, sizes bytes,
 * times Unix seconds; `parentVid` is null without a parent, `usedBytes` and `sharedBytes` are
 * there when the table shows them.
 */
export function vdiJson(row: VdiRow): Record<string, unknown> {
  const { header, vid } = row
  return {
    name: header.name,
    kind: isSnapshot(header) ? 'snapshot' : 'working',
    clone: isClone(header),
    snapshotId: shownId(header),
    tag: header.tag,
    vid: vidName(vid),
    parentVid: header.parent === 0 ? null : vidName(header.parent),
    sizeBytes: header.sizeBytes,
    ...row.usage,
    createdAt: createdAt(header),
    redundancy: headerRedundancy(header),
    blockSizeShift: header.blockSizeShift,
  }
}
