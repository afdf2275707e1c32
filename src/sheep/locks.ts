/**
 * Volume locks as step functions: every node runs them on the same events (protocol spec, section 13).
 *
 * A lock of a block door ends with its node: its clients open the volume again before they go on. A client of the
 * sheepdog protocol locks once, over a connection of its own, and never again, however often it has to
 * reconnect; so its lock is its daemon's. When that daemon dies the volume is free for whoever asks, and until
 * somebody does, the clients may come back and go on (`former`); from then on they are shut out, because what they
 * remember of the volume is wrong.
 */
import {
  type Coherence,
  NAMELESS,
  type NodeId,
  type Participant,
  sameNode,
  UNLOCKED,
  type VdiLock,
} from '../model/vdi-state.js'
import { LockType } from '../wire/sheepdog/opcodes.js'
import type { VidTable } from './vid-table.js'

const PARTICIPANTS_MAX = 31

/** The lock after `by` asks for it; undefined when it is refused. `holder`: the name it gives itself, 0 for none. */
export function locked(lock: VdiLock, type: number, by: NodeId, holder = 0): VdiLock | undefined {
  if (type === LockType.SHARED) return joined(lock, by)
  if (lock.state !== 'unlocked') return undefined
  const held = {
    state: 'locked',
    owner: by,
    door: type === LockType.DOOR,
    participants: [],
    holder: holder || NAMELESS,
  } as const
  return { ...held, ...ousting(lock, by) }
}

/** Whoever opens the volume anew through the former owner remembers nothing wrong. */
function ousting({ former }: VdiLock, by: NodeId): Pick<VdiLock, 'former'> {
  if (former === undefined || sameNode(former.node, by)) return {}
  return { former: { ...former, ousted: true } }
}

function joined(lock: VdiLock, by: NodeId): VdiLock | undefined {
  const { participants } = lock
  if (lock.state === 'locked') return undefined
  const own = participantOf(lock, by)
  if (own !== undefined) return own.handed === true ? asked(lock, by) : undefined
  if (participants.length >= PARTICIPANTS_MAX) return undefined
  const modified = participants.some((one) => one.coherence === 'modified')
  const coherence = participants.length === 0 ? 'modified' : modified ? 'invalidated' : 'shared'
  return enter(lock, by, coherence)
}

function enter(lock: VdiLock, by: NodeId, coherence: Coherence): VdiLock {
  const participants = [...lock.participants, { node: by, coherence }]
  const held = { ...UNLOCKED, holder: NAMELESS, state: 'shared' } as const
  return { ...held, ...ousting(lock, by), participants }
}

/**
 * It has noticed the snapshot. Until it has read the inode of the successor, or changed it, it may have to begin again:
 * somebody else may have changed the volume meanwhile.
 */
function asked(lock: VdiLock, by: NodeId): VdiLock {
  return changing(lock, (one) =>
    sameNode(one.node, by) && one.coherence === 'modified' ? known(one, one.coherence) : one,
  )
}

/** A participant that knows which volume it has. */
function known({ node }: Participant, coherence: Coherence): Participant {
  return { node, coherence }
}

function changing(lock: VdiLock, change: (one: Participant) => Participant): VdiLock {
  return { ...lock, participants: lock.participants.map(change) }
}

export function participantOf(lock: VdiLock, node: NodeId): Participant | undefined {
  return lock.participants.find((one) => sameNode(one.node, node))
}

/** `by` is about to change which objects the volume has: what the others remember of that is wrong. */
export function invalidated(lock: VdiLock, by: NodeId): VdiLock {
  return changing(lock, (one) =>
    sameNode(one.node, by) ? known(one, 'modified') : { ...one, coherence: 'invalidated' },
  )
}

/**
 * `by` reads the inode again. One that is no participant (any more: its daemon died, its client did not) becomes one;
 * undefined when it cannot.
 */
export function validated(lock: VdiLock, by: NodeId): VdiLock | undefined {
  const isIn = participantOf(lock, by) !== undefined
  if (!isIn && (lock.state === 'locked' || lock.participants.length >= PARTICIPANTS_MAX)) {
    return undefined
  }
  const within = isIn ? lock : enter(lock, by, 'shared')
  return changing(within, (one) => {
    if (sameNode(one.node, by)) return known(one, 'shared')
    return one.coherence === 'invalidated' ? one : { ...one, coherence: 'shared' }
  })
}

/** The lock of a volume as the successor gets it when a snapshot is taken. */
export function handedOn(lock: VdiLock): VdiLock {
  return changing(lock, (one) => ({ ...one, handed: true }))
}

/**
 * The lock after a release. A door's lock is given back by that door only: a client of the same node
 * that closes the volume releases a lock it may never have had.
 */
export function released(lock: VdiLock, type: number, by: NodeId): VdiLock {
  if (type === LockType.SHARED) return without(lock, by)
  if (lock.state !== 'locked' || lock.door !== (type === LockType.DOOR)) return lock
  if (lock.door && lock.owner !== undefined && !sameNode(lock.owner, by)) return lock
  return free(lock)
}

/** Nobody holds it; who was shut out stays so. */
function free({ former, holder }: VdiLock): VdiLock {
  return { ...UNLOCKED, ...(former && { former }), ...(holder && { holder }) }
}

/** The lock after a node left. */
export function afterDeparture(lock: VdiLock, node: NodeId): VdiLock {
  if (lock.state === 'shared') return without(lock, node)
  if (lock.owner === undefined || !sameNode(lock.owner, node)) return lock
  const former = { node: lock.owner, ousted: false }
  return lock.door ? free(lock) : free({ ...lock, former })
}

/** A node left: what it held is free. */
export function releaseLocksOf(node: NodeId, vids: VidTable): void {
  for (const { vid, lock } of vids.all()) {
    const next = afterDeparture(lock, node)
    if (next !== lock) vids.setLock(vid, next)
  }
}

function without(lock: VdiLock, node: NodeId): VdiLock {
  if (lock.state !== 'shared' || participantOf(lock, node) === undefined) return lock
  const participants = lock.participants.filter((one) => !sameNode(one.node, node))
  return participants.length === 0 ? free(lock) : { ...lock, participants }
}
