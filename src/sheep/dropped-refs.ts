/** The references that an update of slots gives up. */
import type { SlotUpdate } from '../model/access.js'
import { REF_BYTES } from '../model/inode.js'
import type { Vid } from '../model/oid.js'
import type { DroppedRef } from './reclaim.js'

/** `refs`: the references of the updated slots as they were. */
export function droppedRefs(update: SlotUpdate, refs: Buffer): DroppedRef[] {
  const gone: DroppedRef[] = []
  update.previous.forEach((vid, i) => {
    if (vid === 0 || vid === update.next[i]) return
    gone.push({
      referrer: update.vid,
      index: update.first + i,
      target: vid as Vid,
      generation: refs.readInt32LE(REF_BYTES * i),
      count: refs.readInt32LE(REF_BYTES * i + 4),
    })
  })
  return gone
}

/** The references of the range with those of replaced slots zeroed. */
export function clearedRefs(update: SlotUpdate, refs: Buffer): Buffer {
  const cleared = Buffer.from(refs)
  update.previous.forEach((vid, i) => {
    if (vid !== update.next[i]) cleared.fill(0, REF_BYTES * i, REF_BYTES * (i + 1))
  })
  return cleared
}
