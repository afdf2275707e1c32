/** Slots that stop naming objects: durable before anything is taken away, then accounted for. */
import { Code, type Done } from '../base/codes.js'
import type { SlotUpdate } from '../model/access.js'
import { refRange } from '../model/inode.js'
import { clearedRefs, droppedRefs } from './dropped-refs.js'
import type { DroppedRef } from './reclaim.js'

/** What replacing does to the inode, and whom it tells. */
export interface SlotSteps {
  readonly read: (offset: number, into: Uint8Array, done: Done) => void
  readonly writeSlots: (done: Done) => void
  readonly writeRefs: (offset: number, refs: Uint8Array, done: Done) => void
  /** What must survive a crash between the update and `dropped` is recorded. */
  readonly aboutToDrop: (refs: readonly DroppedRef[]) => Promise<void>
  readonly dropped: (refs: readonly DroppedRef[]) => void
}

export function replaceSlots(steps: SlotSteps, update: SlotUpdate, done: Done): void {
  const range = refRange(update.first, update.next.length)
  const refs = Buffer.alloc(range.length)
  const onward =
    (then: () => void): Done =>
    (code) => {
      if (code === Code.SUCCESS) then()
      else done(code)
    }
  const replace = (): void => {
    const gone = droppedRefs(update, refs)
    const account = onward(() => {
      steps.dropped(gone)
      done(Code.SUCCESS)
    })
    const clear = onward(() => {
      if (refs.every((byte) => byte === 0)) account(Code.SUCCESS)
      else steps.writeRefs(range.offset, clearedRefs(update, refs), account)
    })
    steps.aboutToDrop(gone).then(
      () => steps.writeSlots(clear),
      () => done(Code.EIO),
    )
  }
  steps.read(range.offset, refs, onward(replace))
}
