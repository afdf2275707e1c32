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

/** Kept free of payload on each disk, for inodes, ledgers and the small files: this share, or this much. */
const RESERVE_SHARE = 64
const RESERVE_BYTES_MAX = 64 * 1024 * 1024

export interface StoreContext {
  readonly files: Files
  readonly clock: Clock
  readonly log: Log
  readonly durable: boolean
  /** Replaced when a disk comes or goes. */
  disks: DiskSet
  readonly catalog: Catalog
  readonly lanes: Lanes
  readonly handles: Handles
  readonly onDiskError: (path: string) => void
  /** What an operation on a failing disk ends with: NETWORK_ERROR once somebody takes such disks out of use. */
  diskErrorCode: Code
  /** Volumes with objects that are removed, but would be back after a power cut. */
  readonly removedOf: Set<Vid>
  /** Set at the end: nothing is opened any more. */
  closed: boolean
}

export function diskAt(context: StoreContext, index: number): Disk {
  return context.disks.at(index)
}

export function workingPath(disk: Disk, id: StoredId): string {
  return `${disk.path}/${workingFileName(id)}`
}

/**
 * The code for an error on a disk. A missing file is NO_OBJ only while the disk's directory is there;
 * EIO is told to the disk's keeper, who takes it out of use. On a disk that is out everything is NETWORK_ERROR.
 */
export function judge(context: StoreContext, disk: Disk, event: string, error: unknown): Code {
  // Its keeper knows already; whoever asks again finds the object elsewhere, or not here.
  if (disk.gone) return Code.NETWORK_ERROR
  const code = codeOfErrno(error)
  const lost = code === Code.NO_OBJ && !isThere(context.files, disk.path)
  if (code !== Code.EIO && !lost) return code
  const message = error instanceof Error ? error.message : String(error)
  context.log.error(event, { disk: disk.path, errno: errnoOf(error), message })
  context.onDiskError(disk.path)
  return context.diskErrorCode
}

export function isThere(files: Files, path: string): boolean {
  try {
    return files.exists(path)
  } catch {
    // A directory that cannot even be asked for is as good as gone; the caller reports EIO.
    return false
  }
}

/** True when `bytes` of payload fit and the reserve stays. A disk that cannot be asked says so when written to. */
export function hasRoom({ files, log }: StoreContext, disk: Disk, bytes: number): boolean {
  try {
    return files.space(disk.path).freeBytes >= bytes + reserveBytes(disk.weightBytes)
  } catch (error) {
    log.debug('store.space-unknown', { disk: disk.path, errno: errnoOf(error) })
    return true
  }
}

function reserveBytes(weightBytes: number): number {
  return Math.min(RESERVE_BYTES_MAX, Math.floor(weightBytes / RESERVE_SHARE))
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
