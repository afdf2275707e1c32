/**
 * Cluster operations that change the membership or the format itself. Like joins and leaves they are applied to
 * the node's idea of the cluster in the order of events, at once, before what follows from them is done.
 */
import { Code } from '../base/codes.js'
import type { SdNode } from '../model/node.js'
import { copiesUnder, isPossiblePolicy } from '../model/policy.js'
import type { ClusterMessage } from '../wire/sheepdog/cluster-message.js'
import type { Frame } from '../wire/sheepdog/frame.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import type { ClusterInfo } from '../wire/sheepdog/records.js'
import { decodeClusterFields } from '../wire/sheepdog/requests.js'
import { type Effect, type FormatRequest, onForced, onFormat } from './membership.js'

const COPIES_DEFAULT = 3
const BLOCK_SIZE_SHIFT_DEFAULT = 22

/** What a message means to the cluster; undefined when it changes nothing of it. */
export interface OrderedStep {
  readonly next: ClusterInfo
  /** To be done before the message itself is performed. */
  readonly effects: readonly Effect[]
  /** The stores are emptied. */
  readonly formats?: boolean
}

interface Place {
  readonly self: SdNode
  readonly own: ClusterInfo
  readonly members: readonly SdNode[]
}

export function onMessage(place: Place, message: ClusterMessage): OrderedStep | undefined {
  const { own, members } = place
  const { request, response } = message
  switch (request.opcode) {
    case Op.MAKE_FS:
      return { next: onFormat(own, formatRequest(request), members), effects: [], formats: true }
    case Op.SHUTDOWN:
      return { next: { ...own, status: 'shutdown' }, effects: [] }
    case Op.DISABLE_RECOVER:
      return { next: { ...own, recoveryDisabled: true }, effects: [] }
    case Op.ALTER_CLUSTER_COPY:
      return { next: { ...own, copies: decodeClusterFields(request).copies }, effects: [] }
    case Op.ENABLE_RECOVER:
      return { next: { ...own, recoveryDisabled: false }, effects: [] }
    case Op.FORCE_RECOVER:
      if (response.result !== Code.SUCCESS) return undefined
      return onForced(own, { ...place, epoch: response.epoch })
    default:
      return undefined
  }
}

function formatRequest(request: Frame): FormatRequest {
  const fields = decodeClusterFields(request)
  const end = request.body.indexOf(0)
  const policy = isPossiblePolicy(fields.policy) ? fields.policy : 0
  return {
    ctime: fields.ctime,
    flags: fields.clusterFlags,
    copies: copiesUnder({ copies: fields.copies || COPIES_DEFAULT, policy }),
    policy,
    blockSizeShift: fields.blockSizeShift || BLOCK_SIZE_SHIFT_DEFAULT,
    store: request.body.subarray(0, end < 0 ? undefined : end).toString('latin1'),
  }
}
