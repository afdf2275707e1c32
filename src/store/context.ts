/** What the parts of the plain store share, and what they do about a failing disk. */
import { Code } from '../base/codes.js'
import type { Log } from '../base/log.js'
import type { StoredId, Vid } from '../model/oid.js'
import type { Clock, Files } from '../world/world.js'
import type { Catalog } from './catalog.js'
import type { Disk, DiskSet } from './disks.js'
import { codeOfErrno, errnoOf } from './errno.js'
import type { Handles } from './handles.js'
import type { Lanes } from './lanes.js'
import { workingFileName } from './names.js'
import { requestSync, type SharedSync } from './shared-sync.js'

export interface StoreContext {
  readonly files: Files
  readonly clock: Clock
  readonly log: Log
  readonly durable: boolean
  readonly disks: DiskSet
  readonly catalog: Catalog
  readonly lanes: Lanes
  readonly handles: Handles
  readonly onDiskError: (path: string) => void
  /** Volumes with objects that are removed, but would be back after a power cut. */
  readonly removedOf: Set<Vid>
  /** Set at the end: nothing is opened any more. */
  closed: boolean
}

export function diskAt(context: StoreContext, index: number): Disk {
  return context.disks.disks[index]!
}

export function workingPath(disk: Disk, id: StoredId): string {
  return `${disk.path}/${workingFileName(id)}`
}

/**
 * The code for an error on a disk. A missing file is NO_OBJ only while the disk's directory is there;
 * EIO is told to the disk's keeper.
 */
export function judge(context: StoreContext, disk: Disk, event: string, error: unknown): Code {
  const code = codeOfErrno(error)
  const lost = code === Code.NO_OBJ && !isThere(context.files, disk.path)
  if (code !== Code.EIO && !lost) return code
  const message = error instanceof Error ? error.message : String(error)
  context.log.error(event, { disk: disk.path, errno: errnoOf(error), message })
  context.onDiskError(disk.path)
  return Code.EIO
}

function isThere(files: Files, path: string): boolean {
  try {
    return files.exists(path)
  } catch {
    // A directory that cannot even be asked for is as good as gone; the caller reports EIO.
    return false
  }
}

/** Makes what happened to the names of a directory durable, unless the store runs without syncs. */
export async function syncNames(context: StoreContext, names: SharedSync): Promise<void> {
  if (!context.durable) return
  names.touch()
  await requestSync(names)
}

/** Bytes a file occupies. A statistic: a file that cannot be asked counts nothing. */
export function occupied(context: StoreContext, path: string): number {
  try {
    return context.files.usedBytes(path)
  } catch (error) {
    context.log.debug('store.used-unknown', { path, errno: errnoOf(error) })
    return 0
  }
}
