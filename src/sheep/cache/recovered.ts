/** Whether what a cache was left with may still be pushed, as far as that shows on this node alone. */
import type { Vid } from '../../model/oid.js'
import type { NodeState } from '../state.js'
import type { DirtyFound } from './dirty-file.js'

export interface Left {
  readonly found: DirtyFound
  readonly vid: Vid
  readonly state: Pick<NodeState, 'settings' | 'vids' | 'blockSizeShiftOf'>
  /** This start of the machine; '' when nobody can tell. */
  readonly boot: string
}

/** The reason why not, for people. */
export function refusalOf({ found, vid, state, boot }: Left): string | undefined {
  const { head } = found
  if (!head.synced && (boot === '' || head.boot !== boot)) {
    return 'the machine went down: what the files hold was never flushed and may be torn'
  }
  if (head.ctime !== state.settings.ctime) return 'the cluster was formatted meanwhile'
  const known = state.vids.get(vid)
  if (known === undefined || known.deleted) return 'the volume was deleted meanwhile'
  if (known.snapshot) return 'the volume has become a snapshot meanwhile'
  if (head.blockSizeShift !== state.blockSizeShiftOf(vid)) return 'it is another volume by now'
  return undefined
}
