/**
 * One-phase operations of the node itself: every node performs them when their message arrives, all in the same
 * order (cluster spec, section 7). What an operation changes about the membership happens in node.ts at once.
 */
import { Code } from '../base/codes.js'
import { decodeNode, NODE_BYTES, type SdNode } from '../model/node.js'
import { asVid, type Vid } from '../model/oid.js'
import type { ObjectStore } from '../store/object-store.js'
import { decodeCoherence } from '../wire/sheepdog/coherence.js'
import type { Frame } from '../wire/sheepdog/frame.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { isRecycling } from '../wire/sheepdog/recycling.js'
import {
  decodeClusterFields,
  decodeVdiStateFields,
  objectFields,
} from '../wire/sheepdog/requests.js'
import type { Alterations } from './alterations.js'
import { type Answer, failed, OK } from './answer.js'
import type { VolumeCache } from './cache/volume-cache.js'
import type { Completion } from './completion.js'
import type { LockKeeper } from './lock-keeper.js'
import type { Recovery } from './recovery/engine.js'
import type { Recycling } from './recycling.js'
import type { NodeState } from './state.js'
import type { Weights } from './weights.js'

/** What the operations act on. */
export interface Duties {
  readonly state: NodeState
  readonly locks: LockKeeper
  readonly store: ObjectStore
  readonly completion: Completion
  readonly weights: Weights
  readonly alterations: Alterations
  readonly recordCopies: (copies: number) => Promise<void>
  readonly recovery: Recovery
  readonly shutDown: () => void
  readonly volumeChanged: (vid: Vid) => void
  readonly cache: Pick<VolumeCache, 'heard'>
  readonly recycling: Pick<Recycling, 'heard'>
}

export type NodeOperation = (
  duties: Duties,
  request: Frame,
  sender: SdNode,
) => Promise<Answer> | Answer

async function memberComplete({ completion }: Duties, request: Frame): Promise<Answer> {
  if (request.body.length < NODE_BYTES) return failed(Code.INVALID_PARMS)
  await completion.heard(objectFields.targetEpoch(request), decodeNode(request.body))
  return OK
}

async function volumeDeleted(duties: Duties, request: Frame, sender: SdNode): Promise<Answer> {
  const { state, volumeChanged, recycling } = duties
  if (isRecycling(request)) return failed(await recycling.heard(request, sender))
  if (request.body.length !== 4) return failed(Code.INVALID_PARMS)
  const vid = asVid(request.body.readUInt32LE(0))
  state.vids.markDeleted(vid)
  volumeChanged(vid)
  return OK
}

/** Not written anywhere: a cluster that starts anew recovers (cluster spec, section 7). */
const switchRecovery =
  (disabled: boolean): NodeOperation =>
  ({ state, recovery }) => {
    state.settings = { ...state.settings, recoveryDisabled: disabled }
    recovery.setDisabled(disabled)
    return OK
  }

/** The default of new volumes; what there is keeps its copies. */
async function alterCluster({ state, recordCopies }: Duties, request: Frame): Promise<Answer> {
  const { copies } = decodeClusterFields(request)
  state.settings = { ...state.settings, copies }
  await recordCopies(copies)
  return OK
}

/** The node that was asked brings the epoch about in which the new number counts. */
function alterVolume(
  { state, alterations, weights }: Duties,
  request: Frame,
  sender: SdNode,
): Answer {
  const { newVid, copies } = decodeVdiStateFields(request)
  const known = state.vids.get(newVid)
  if (known === undefined) return failed(Code.NO_VDI)
  if (known.policy !== 0) return failed(Code.NO_SUPPORT)
  if (known.copies === copies) return OK
  alterations.announce(newVid, copies)
  return state.isSelf(sender) ? failed(weights.nextEpoch()) : OK
}

function cohere({ locks }: Duties, request: Frame, sender: SdNode): Answer {
  const { vid, validate, serial } = decodeCoherence(request)
  locks.cohere(vid, validate, sender)
  locks.heard(sender, serial)
  return OK
}

export const NODE_OPERATIONS: ReadonlyMap<number, NodeOperation> = new Map<number, NodeOperation>([
  /** Carried out before it gets here, with the change of membership it means. */
  [Op.MAKE_FS, () => OK],
  [
    Op.SHUTDOWN,
    ({ shutDown }) => {
      shutDown()
      return OK
    },
  ],
  [Op.COMPLETE_RECOVERY, memberComplete],
  [Op.ALTER_CLUSTER_COPY, alterCluster],
  [Op.ALTER_VDI_COPY, alterVolume],
  [Op.REWEIGHT, async ({ weights }) => failed(await weights.measure())],
  [Op.DISABLE_RECOVER, switchRecovery(true)],
  [Op.ENABLE_RECOVER, switchRecovery(false)],
  [Op.NOTIFY_VDI_DEL, volumeDeleted],
  [Op.INODE_COHERENCE, cohere],
  [
    Op.DELETE_CACHE,
    ({ cache }, request, sender) => {
      cache.heard(request, sender)
      return OK
    },
  ],
  [
    Op.CLEANUP,
    async ({ store }) => {
      await store.purgeStale()
      return OK
    },
  ],
])
