/** What a node that begins to serve learns of volumes from the members, asked until they answer. */
import type { Log } from '../base/log.js'
import { type NodeKey, nodeKey, type SdNode } from '../model/node.js'
import type { Clock } from '../world/world.js'
import { fetchVolumes, importVolumes, type Telling } from './known-volumes.js'
import type { Peers } from './peers.js'
import type { NodeState } from './state.js'

const LEARN_RETRY_MS = 200
/** A member that does not tell its volumes for this long is left out. */
const LEARN_ATTEMPTS = 25

export interface Lesson {
  readonly state: NodeState
  readonly peers: Peers
  readonly clock: Clock
  readonly log: Log
  readonly from: readonly SdNode[]
  /** What is on the own disk counts as well; else nothing known so far does. */
  readonly keepOwn: boolean
  /** A member tells only when it has come as far in the order of events. */
  readonly epoch: number
  /** False once a member has left: it is not asked any more. */
  readonly isMember: (key: NodeKey) => boolean
}

/**
 * Rejects when nobody tells: a node that knows no volume would place their objects wrongly. Members that are learning themselves
 * know nothing that the others do not; they are waited for only where there is nobody else.
 */
export async function learnVolumes(lesson: Lesson): Promise<void> {
  const { state, from, keepOwn } = lesson
  if (!keepOwn) state.vids.clear()
  let told = 0
  const learning: SdNode[] = []
  for (const node of from) {
    const outcome = await ask(lesson, node, (telling) => telling === 'silent')
    if (outcome === 'told') told++
    else if (outcome === 'learning') learning.push(node)
  }
  for (const node of told === 0 ? learning : []) {
    if ((await ask(lesson, node, () => true)) === 'told') told++
  }
  if (!keepOwn && from.length > 0 && told === 0) {
    throw new Error('no member of the cluster told which volumes there are')
  }
}

/** Asks again as long as there is `hope`. */
async function ask(
  lesson: Lesson,
  node: SdNode,
  hope: (telling: Telling) => boolean,
): Promise<Telling> {
  const { state, peers, log, clock, keepOwn } = lesson
  const take = (records: Buffer): void => importVolumes(state.vids, records, !keepOwn)
  const epoch = keepOwn ? 0 : lesson.epoch
  for (let attempt = 0; attempt < LEARN_ATTEMPTS; attempt++) {
    if (!lesson.isMember(nodeKey(node))) return 'silent'
    const telling = await fetchVolumes({ peers, log, node, epoch }, take)
    if (telling === 'told' || !hope(telling)) return telling
    await new Promise<void>((resolve) => {
      clock.after(LEARN_RETRY_MS, resolve)
    })
  }
  return 'silent'
}
