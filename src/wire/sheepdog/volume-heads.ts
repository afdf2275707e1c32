/**
 * VOLUME_HEADS, a request of ours (sheepdog 1.0 has no handler for its number, 0xd8): the headers of the inodes of volumes and snapshots that
 * are not deleted, in pages, in the order of their ids. One by one, ten thousand take seconds.
 *
 *   request:   16 first id u32 | 20 end of the ids u32
 *   reply:     24 first id of the next page u32, 0 at the end | body: so many headers of HEAD_BYTES
 *
 * A volume whose inode is not there (any more) is left out.
 */
import type { Frame } from './frame.js'
import { Op } from './opcodes.js'
import { plainRequest } from './requests.js'

/** Of an inode; what follows until its slots is for children nobody counts any more. */
export const HEAD_BYTES = 576

export interface VolumeRange {
  readonly first: number
  /** Not of it any more. */
  readonly end: number
}

export function volumeHeadsRequest({ first, end }: VolumeRange, room: number): Buffer {
  const head = plainRequest({ opcode: Op.VOLUME_HEADS, dataLength: room })
  head.writeUInt32LE(first, 16)
  head.writeUInt32LE(end, 20)
  return head
}

export function volumeRangeOf({ head }: Pick<Frame, 'head'>): VolumeRange {
  return { first: head.readUInt32LE(16), end: head.readUInt32LE(20) }
}

export function setVolumeHeadsReply(head: Buffer, next: number): Buffer {
  head.writeUInt32LE(next, 24)
  return head
}

/** Where the next page begins; 0: there is none. */
export function nextVolumeOf({ head }: Pick<Frame, 'head'>): number {
  return head.readUInt32LE(24)
}
