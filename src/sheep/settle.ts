/** What is to be done about volume operations whose node died half-way (defect O1), as pure functions. */
import type { InodeHeader } from '../model/inode.js'
import type { Vid } from '../model/oid.js'
import type { VidTable } from './vid-table.js'

export interface Settlement {
  /** Inodes of snapshots that never happened: to be blanked and marked deleted. */
  readonly undo: readonly InodeHeader[]
  /** Complete volumes of which the cluster has not been told. */
  readonly adopt: readonly InodeHeader[]
  /** Working volumes everybody takes for the snapshots they were about to become. */
  readonly reopen: readonly InodeHeader[]
  /** Volumes whose name is gone, of which the cluster has not been told. */
  readonly deleted: readonly Vid[]
}

/**
 * `headers`: of the volumes that are not deleted, and of those announced and not finished.
 * `everything`: nobody lived through the crash, so half-made inodes may pass for finished ones.
 */
export function settlement(
  vids: VidTable,
  headers: readonly InodeHeader[],
  everything: boolean,
): Settlement {
  const named = headers.filter((header) => header.name !== '')
  const undo = doubles(named).filter(({ vid }) => everything || !vids.isInUse(vid))
  const adopt = named.filter((header) => !vids.isInUse(header.vid) && !undo.includes(header))
  const reopen = named.filter(
    ({ vid, snapCtime }) =>
      snapCtime === 0n && vids.isInUse(vid) && vids.get(vid)?.snapshot === true,
  )
  const deleted = headers
    .filter((header) => header.name === '' && !vids.isDeleted(header.vid))
    .map((header) => header.vid)
  return { undo, adopt, reopen: reopen.filter((header) => !undo.includes(header)), deleted }
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
