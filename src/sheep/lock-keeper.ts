/**
 * The locks of all volumes, changed by events that every node sees in the same order. A node that joins gets
 * them as they were when it joined, however far the one that tells it has come meanwhile: a lock that is taken,
 * given back and taken again must not be applied twice.
 */
import { type NodeKey, nodeKey, type SdNode } from '../model/node.js'
import type { Vid } from '../model/oid.js'
import {
  type NodeId,
  nodeIdKey,
  sameNode,
  UNLOCKED,
  type VdiLock,
  type VdiState,
} from '../model/vdi-state.js'
import { ClusterFlag, LockType } from '../wire/sheepdog/opcodes.js'
import {
  handedOn,
  invalidated,
  locked,
  participantOf,
  released,
  releaseLocksOf,
  validated,
} from './locks.js'
import type { NodeState } from './state.js'

/** Epochs whose locks are remembered: a joiner that has not asked after so many starts anew anyway. */
const CHECKPOINTS_MAX = 16

export class LockKeeper {
  readonly #state: NodeState
  /** Volumes that were locked when an epoch began. */
  readonly #checkpoints = new Map<number, ReadonlyMap<Vid, VdiLock>>()
  /** Newest message of each node that was heard (wire/sheepdog/coherence.ts). */
  readonly #heard = new Map<NodeKey, number>()
  /** How often each node has left. */
  readonly #departures = new Map<NodeKey, number>()
  readonly #listeners = new Set<() => void>()
  #serial = 0

  constructor(state: NodeState) {
    this.#state = state
  }

  of(vid: Vid): VdiLock {
    return this.#state.vids.get(vid)?.lock ?? UNLOCKED
  }

  /** Locks of clients count where the cluster was formatted with locking, those of doors everywhere. */
  isEnforced(lockType: number): boolean {
    return lockType === LockType.DOOR || this.#state.has(ClusterFlag.USE_LOCK)
  }

  /** Whether this node would get the lock now. */
  isFree(vid: Vid, lockType: number): boolean {
    return (
      !this.isEnforced(lockType) || locked(this.of(vid), lockType, this.#state.self) !== undefined
    )
  }

  /** Of all nodes at the same place in the order of events. False: it is refused. */
  take(vid: Vid, lockType: number, { host, port }: SdNode, holder = 0): boolean {
    if (!this.isEnforced(lockType)) return true
    const next = locked(this.of(vid), lockType, { host, port }, holder)
    if (next !== undefined) this.#state.vids.setLock(vid, next)
    return next !== undefined
  }

  release(vid: Vid, lockType: number, by: SdNode): void {
    this.#state.vids.setLock(vid, released(this.of(vid), lockType, by))
  }

  /** INODE_COHERENCE. Of a volume nobody shares it means nothing, unless a participant comes back. */
  cohere(vid: Vid, validate: boolean, { host, port }: SdNode): void {
    const [lock, by] = [this.of(vid), { host, port }]
    if (!this.isEnforced(LockType.SHARED)) return
    const next = validate ? validated(lock, by) : invalidated(lock, by)
    if (next !== undefined) this.#state.vids.setLock(vid, next)
  }

  /** A snapshot makes a new working volume: whoever held the old one holds that. */
  handOn(from: Vid | undefined, to: Vid): void {
    if (from === undefined) return
    const lock = this.of(from)
    const isNews = lock.former !== undefined || lock.holder !== undefined
    if (lock.state === 'unlocked' && !isNews) return
    this.#state.vids.setLock(to, handedOn(lock))
    this.#state.vids.setLock(from, UNLOCKED)
  }

  /** Clients of this node had the volume before the node died, and somebody else has had it since. */
  isOusted(vid: Vid): boolean {
    const { former } = this.of(vid)
    return former?.ousted === true && this.#state.isSelf(former.node)
  }

  /** Clients of this node had the volume before it died, and nobody since. */
  isLapsed(vid: Vid): boolean {
    const { former, state } = this.of(vid)
    return state === 'unlocked' && former?.ousted === false && this.#state.isSelf(former.node)
  }

  /** A client of this node may have come by the lock through a snapshot it has not noticed. */
  isHandedToSelf(vid: Vid, lockType: number): boolean {
    const lock = this.of(vid)
    const { self } = this.#state
    if (lockType === LockType.SHARED) return participantOf(lock, self)?.handed === true
    return !lock.door && lock.owner !== undefined && this.#state.isSelf(lock.owner)
  }

  /** Who keeps the volume from being deleted through this node; undefined when nobody does. */
  guardOf(vid: Vid): VdiLock | undefined {
    const lock = this.of(vid)
    const isOthers = (node: NodeId): boolean => !this.#state.isSelf(node)
    const isHeld =
      lock.door ||
      (lock.owner !== undefined && isOthers(lock.owner)) ||
      lock.participants.some(({ node }) => isOthers(node))
    return isHeld ? lock : undefined
  }

  /** A node that left holds nothing, and what it said before is of another life. */
  left(node: SdNode): void {
    releaseLocksOf(node, this.#state.vids)
    this.#heard.delete(nodeKey(node))
    this.#departures.set(nodeKey(node), this.departuresOf(node) + 1)
    this.#changed()
  }

  /** Tells the lives of a node apart: the next one has not heard what was said to this one. */
  departuresOf(node: NodeId): number {
    return this.#departures.get(nodeIdKey(node)) ?? 0
  }

  /** An epoch begins, of which somebody may want to know the locks. */
  checkpoint(epoch: number): void {
    const locks = new Map<Vid, VdiLock>()
    for (const { vid, lock } of this.#state.vids.all()) {
      const isNews = lock.former !== undefined || lock.holder !== undefined
      if (lock.state !== 'unlocked' || isNews) locks.set(vid, lock)
    }
    this.#checkpoints.set(epoch, locks)
    for (const old of this.#checkpoints.keys()) {
      if (this.#checkpoints.size <= CHECKPOINTS_MAX) break
      this.#checkpoints.delete(old)
    }
  }

  /** The volume with its lock as of the beginning of `epoch`, as it is now when that is not known. */
  asOf(epoch: number, state: VdiState): VdiState {
    const locks = this.#checkpoints.get(epoch)
    return locks === undefined ? state : { ...state, lock: locks.get(state.vid) ?? UNLOCKED }
  }

  /** For a message of this node that others are to say they have heard. */
  nextSerial(): number {
    this.#serial = (this.#serial + 1) >>> 0 || 1
    return this.#serial
  }

  /** A message of `node` has taken effect here. */
  heard(node: SdNode, serial: number): void {
    if (serial !== 0) this.#heard.set(nodeKey(node), serial)
    this.#changed()
  }

  hasHeard(node: NodeKey, serial: number): boolean {
    const newest = this.#heard.get(node)
    return newest !== undefined && ((newest - serial) | 0) >= 0
  }

  /** Calls `fn` after each event that may have changed a lock, until the returned function is called. */
  onEvent(fn: () => void): () => void {
    this.#listeners.add(fn)
    return () => void this.#listeners.delete(fn)
  }

  #changed(): void {
    for (const fn of [...this.#listeners]) fn()
  }
}

/** Who holds a lock, for people: `127.0.0.1:7001 (a block door)`. */
export function holders({ owner, door, participants }: VdiLock): string {
  if (owner !== undefined) return `${nodeIdKey(owner)} (${door ? 'a block door' : 'a client'})`
  return participants.map(({ node }) => `${nodeIdKey(node)} (shared)`).join(', ')
}

/** True when `node` takes part in a shared lock and what its clients remember of the inode is right. */
export function isValidAt(lock: VdiLock, node: NodeId): boolean {
  const one = lock.participants.find((participant) => sameNode(participant.node, node))
  return one !== undefined && one.coherence !== 'invalidated'
}
