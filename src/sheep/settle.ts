/**
 * Undoes or completes volume operations whose node died half-way (defect O1). Runs as a volume operation
 * itself, so nothing changes meanwhile.
 */
import type { InodeHeader } from '../model/inode.js'
import type { Vid } from '../model/oid.js'
import type { InodeIo } from './inode-io.js'
import type { NodeState } from './state.js'

export interface Settlement {
  /** Inodes of snapshots that never happened: to be blanked and marked deleted. */
  readonly undo: readonly InodeHeader[]
  /** Complete volumes of which the cluster has not been told. */
  readonly adopt: readonly InodeHeader[]
  /** Deleted volumes whose objects have not been given back. */
  readonly reclaim: readonly Vid[]
}

/** `known`: every inode of the cluster, by whatever means they were found; rejects on read errors. */
export async function examine(
  state: NodeState,
  inodes: InodeIo,
  candidates: Iterable<Vid>,
): Promise<Settlement> {
  const headers: InodeHeader[] = []
  for (const vid of candidates) {
    const header = await inodes.header(vid)
    if (header !== undefined) headers.push(header)
  }
  const undo = doubles(headers)
  const adopt = headers.filter(
    (header) => header.name !== '' && !state.vids.isInUse(header.vid) && !undo.includes(header),
  )
  const reclaim = headers
    .filter((header) => header.name === '' && header.sizeBytes > 0)
    .map((header) => header.vid)
  return { undo, adopt, reclaim }
}

/**
 * A name has one working inode. A second one is the heir of a snapshot that stopped before the old inode
 * became the snapshot: the younger goes.
 */
export function doubles(headers: readonly InodeHeader[]): InodeHeader[] {
  const oldest = new Map<string, InodeHeader>()
  const younger: InodeHeader[] = []
  const working = headers.filter((header) => header.name !== '' && header.snapCtime === 0n)
  for (const header of working.sort((a, b) => a.snapId - b.snapId)) {
    if (oldest.has(header.name)) younger.push(header)
    else oldest.set(header.name, header)
  }
  return younger
}
