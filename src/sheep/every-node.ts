/** One request about a volume to every storage node; nodes of sheepdog 1.0 do not know it and need not. */
import { Code, type Done } from '../base/codes.js'
import { inodeOid, type Vid } from '../model/oid.js'
import { objectRequest } from '../wire/sheepdog/requests.js'
import type { Clock } from '../world/world.js'
import { moreTelling, replyCode } from './outcome.js'
import type { Peers } from './peers.js'
import type { NodeState } from './state.js'

export interface Question {
  readonly opcode: number
  readonly vid: Vid
  readonly heir: Vid | undefined
  readonly onSelf: (done: Done) => void
  /** False: what did not succeed is not asked again. */
  readonly isWanted?: () => boolean
}

/** `done` hears AGAIN when nobody has called the returned `done` in time, and nothing after that. */
export function withinLimit(
  clock: Clock,
  limitMs: number,
  done: Done,
): { readonly done: Done; readonly isWanted: () => boolean } {
  let isOver = false
  const once: Done = (code) => {
    if (isOver) return
    isOver = true
    cancel()
    done(code)
  }
  const cancel = clock.after(limitMs, () => once(Code.AGAIN))
  return { done: once, isWanted: () => !isOver }
}

/** SUCCESS when all nodes of one membership have answered so, and it is the one that still holds. */
export function askEveryNode(
  { state, peers }: { readonly state: NodeState; readonly peers: Pick<Peers, 'request'> },
  question: Question,
  done: Done,
): void {
  const { opcode, vid, heir } = question
  const nodes = state.view.ring.nodes.filter((node) => !state.isSelf(node))
  const { epoch } = state
  let waiting = nodes.length + 1
  let outcome: Code = Code.SUCCESS
  const one = (code: Code): void => {
    if (code !== Code.INVALID_PARMS) outcome = moreTelling(outcome, code)
    if (--waiting > 0) return
    if (outcome === Code.SUCCESS && epoch !== state.epoch) outcome = Code.OLD_NODE_VER
    if (outcome === Code.SUCCESS && !state.isSure()) outcome = Code.WAIT_FOR_JOIN
    done(outcome)
  }
  for (const node of nodes) {
    const cow = heir === undefined ? {} : { cowOid: inodeOid(heir) }
    const head = objectRequest({ opcode, epoch, oid: inodeOid(vid), ...cow })
    peers.request(node, head, undefined, (reply) => one(replyCode(reply)))
  }
  question.onSelf(one)
}
