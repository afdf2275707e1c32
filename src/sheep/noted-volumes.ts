/**
 * The volumes there were when the newest epoch began, noted by every node of it.
 *
 * A cluster that starts waits for the nodes of its newest epoch alone. Where all nodes were stopped at about the same moment,
 * these are the last one or two that left: of volumes whose inodes were on the others they have nothing on their disks. Such
 * a volume's id would be given out again, and its inode overwritten by that of another volume. With the note they know what
 * they knew when they served; what was made since is on disks of nodes that are waited for, or a newer epoch has noted it.
 *
 *   <meta>/volumes:   ctime, 8 bytes | epoch, 4 | 4 bytes of nothing | a record of 16 bytes a volume that exists:
 *                     id, 4 | parent, 4 | copies | policy | log2 of the object size | 1 snapshot + 2 deleted | 4 of nothing
 */
import { asVid, VID_LIMIT } from '../model/oid.js'
import { UNLOCKED, type VdiState } from '../model/vdi-state.js'
import type { Files } from '../world/world.js'
import type { VidTable } from './vid-table.js'

const FILE = 'volumes'
const HEAD_BYTES = 16
const RECORD_BYTES = 16
const SNAPSHOT = 1
const DELETED = 2

export interface NotedVolumes {
  readonly files: Files
  readonly metaDirectory: string
  readonly vids: VidTable
}

/** Of the cluster with that creation time, as of the beginning of that epoch. */
export interface Moment {
  readonly ctime: bigint
  readonly epoch: number
}

/** Durable. Rejects with an errno error. */
export async function noteVolumes(
  { files, metaDirectory, vids }: NotedVolumes,
  { ctime, epoch }: Moment,
): Promise<void> {
  const known = [...vids.all()].filter(({ vid }) => vids.isInUse(vid))
  const bytes = Buffer.alloc(HEAD_BYTES + RECORD_BYTES * known.length)
  bytes.writeBigUInt64LE(ctime, 0)
  bytes.writeUInt32LE(epoch, 8)
  for (const [i, state] of known.entries()) {
    const at = HEAD_BYTES + RECORD_BYTES * i
    bytes.writeUInt32LE(state.vid, at)
    bytes.writeUInt32LE(state.parent, at + 4)
    bytes[at + 8] = state.copies
    bytes[at + 9] = state.policy
    bytes[at + 10] = state.blockSizeShift
    bytes[at + 11] = (state.snapshot ? SNAPSHOT : 0) | (vids.isDeleted(state.vid) ? DELETED : 0)
  }
  await files.writeFileAtomic(`${metaDirectory}/${FILE}`, bytes)
}

/**
 * Puts what was noted into the table, as hearsay. A note of another cluster, or of before the newest epoch of the log (the
 * store was served by a sheepdog that does not know the file), says nothing. Throws an Error when the file is damaged.
 */
export function recallVolumes(
  { files, metaDirectory, vids }: NotedVolumes,
  { ctime, epoch }: Moment,
): void {
  const path = `${metaDirectory}/${FILE}`
  if (!files.exists(path)) return
  const bytes = files.readFile(path)
  if (bytes.length < HEAD_BYTES || (bytes.length - HEAD_BYTES) % RECORD_BYTES !== 0) {
    throw damaged(path)
  }
  // The note is written before its epoch is: after a crash in between it is one ahead.
  if (bytes.readBigUInt64LE(0) !== ctime || bytes.readUInt32LE(8) < epoch) return
  for (let at = HEAD_BYTES; at < bytes.length; at += RECORD_BYTES) {
    const vid = bytes.readUInt32LE(at)
    const parent = bytes.readUInt32LE(at + 4)
    if (vid === 0 || vid >= VID_LIMIT || parent >= VID_LIMIT) throw damaged(path)
    const flags = bytes[at + 11]!
    const state: VdiState = {
      vid: asVid(vid),
      copies: bytes[at + 8]!,
      policy: bytes[at + 9]!,
      blockSizeShift: bytes[at + 10]!,
      snapshot: (flags & SNAPSHOT) !== 0,
      deleted: (flags & DELETED) !== 0,
      parent: asVid(parent),
      lock: UNLOCKED,
    }
    vids.learn(state, { hearsay: true })
  }
}

function damaged(path: string): Error {
  return new Error(
    `${path} is damaged: without it (remove it) this node knows only volumes whose inodes are on its own disks; ` +
      'start all nodes before volumes are made',
  )
}
