/** Volume locks as a step function: every node runs it on the same events (protocol spec, section 13). */
import { type NodeId, sameNode, UNLOCKED, type VdiLock } from '../model/vdi-state.js'
import { LockType } from '../wire/sheepdog/opcodes.js'
import type { VidTable } from './vid-table.js'

const PARTICIPANTS_MAX = 31

/** The lock after `by` asks for it; undefined when it is refused. */
export function locked(lock: VdiLock, type: number, by: NodeId): VdiLock | undefined {
  if (type === LockType.SHARED) return joined(lock, by)
  if (lock.state !== 'unlocked') return undefined
  return { state: 'locked', owner: by, door: type === LockType.DOOR, participants: [] }
}

function joined(lock: VdiLock, by: NodeId): VdiLock | undefined {
  const { participants } = lock
  if (lock.state === 'locked' || participants.length >= PARTICIPANTS_MAX) return undefined
  if (participants.some((one) => sameNode(one.node, by))) return undefined
  const modified = participants.some((one) => one.coherence === 'modified')
  const coherence = participants.length === 0 ? 'modified' : modified ? 'invalidated' : 'shared'
  return { ...lock, state: 'shared', participants: [...participants, { node: by, coherence }] }
}

/**
 * The lock after a release. A door's lock is given back by that door only: a client of the same node
 * that closes the volume releases a lock it may never have had.
 */
export function released(lock: VdiLock, type: number, by: NodeId): VdiLock {
  if (type === LockType.SHARED) return without(lock, by)
  if (lock.state !== 'locked' || lock.door !== (type === LockType.DOOR)) return lock
  if (lock.door && lock.owner !== undefined && !sameNode(lock.owner, by)) return lock
  return UNLOCKED
}

/** The lock after a node left: doors and participants go with it, a client's normal lock stays. */
export function afterDeparture(lock: VdiLock, node: NodeId): VdiLock {
  if (lock.door && lock.owner !== undefined && sameNode(lock.owner, node)) return UNLOCKED
  return lock.state === 'shared' ? without(lock, node) : lock
}

/** A node left: what it held is free. */
export function releaseLocksOf(node: NodeId, vids: VidTable): void {
  for (const { vid, lock } of vids.all()) {
    const next = afterDeparture(lock, node)
    if (next !== lock) vids.setLock(vid, next)
  }
}

function without(lock: VdiLock, node: NodeId): VdiLock {
  if (lock.state !== 'shared') return lock
  const participants = lock.participants.filter((one) => !sameNode(one.node, node))
  return participants.length === 0 ? UNLOCKED : { ...lock, participants }
}
