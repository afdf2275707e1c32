/** One attempt to put a JOIN into the order, with everything that has to be decided under the lock. */
import { nodeKey, type SdNode } from '../../model/node.js'
import type { FileLock, Files } from '../../world/world.js'
import {
  type ClusterEvent,
  everybody,
  type MemberId,
  mayAppend,
  memberByKey,
  nextToBury,
} from '../membership.js'
import { EventLog, LogDamaged, segmentNumber } from './event-log.js'
import { memberOfFile, Presence } from './presence.js'

/** A JOIN that is in the log, and what its owner holds. */
export interface Entrance {
  readonly id: MemberId
  readonly log: EventLog
  readonly claim: FileLock
  readonly events: readonly ClusterEvent[]
}

export type Attempt =
  | { readonly kind: 'entered'; readonly entrance: Entrance }
  /** Worth another attempt for a while; `reason` is the answer when it never works out. */
  | { readonly kind: 'busy' | 'taken'; readonly reason: string }

export interface JoinRequest {
  readonly files: Files
  readonly directory: string
  readonly self: SdNode
  readonly request: Buffer
}

export function lockPath(directory: string): string {
  return `${directory}/lock`
}

/**
 * Buries the dead it finds (a restart must not trip over its own corpse) and appends the JOIN. The lock
 * is held while the directory is read: a log that looks absent may be started anew only if it stays so.
 * Rejects with LogDamaged or an errno error.
 */
export async function attemptJoin(join: JoinRequest): Promise<Attempt> {
  const { files, directory } = join
  const lock = files.lock(lockPath(directory))
  if (lock === undefined) {
    return { kind: 'busy', reason: `another process keeps ${lockPath(directory)} locked` }
  }
  try {
    return appendJoin(join, await files.readDir(directory))
  } finally {
    lock.release()
  }
}

function appendJoin(join: JoinRequest, names: readonly string[]): Attempt {
  const presence = new Presence(join.files, join.directory)
  const log = openLog(join, names, presence)
  let attempt: Attempt | undefined
  try {
    attempt = enter(join, log, presence)
  } finally {
    if (attempt?.kind !== 'entered') log.close()
  }
  return attempt
}

function openLog(join: JoinRequest, names: readonly string[], presence: Presence): EventLog {
  const { files, directory } = join
  const newest = Math.max(0, ...present(names.map(segmentNumber)))
  const log = EventLog.open(files, directory, newest)
  if (log !== undefined) return log
  const alive = present(names.map(memberOfFile)).filter((id) => !presence.isDead(id))
  if (alive.length > 0) {
    throw new LogDamaged(`event log in ${directory} is damaged, ${alive.length} nodes still use it`)
  }
  return EventLog.create(files, directory, newest + 1)
}

function enter(join: JoinRequest, log: EventLog, presence: Presence): Attempt {
  const { self, request } = join
  const id = log.state.nextSeq as MemberId
  for (;;) {
    const dead = nextToBury(log.state, (member) => presence.isDead(member))
    if (dead === undefined) break
    log.append(id, { kind: 'leave', member: dead })
  }
  const mine = log.state.nextSeq as MemberId
  const key = nodeKey(self)
  if (memberByKey(log.state, key) !== undefined) {
    return { kind: 'taken', reason: `${key} is already a member and its process is alive` }
  }
  const entry = { kind: 'join', node: self, request, mark: log.segment } as const
  if (!mayAppend(log.state, mine, entry)) return { kind: 'busy', reason: whyNot(log) }
  const claim = presence.claim(mine)
  if (claim === undefined) {
    return { kind: 'busy', reason: `another process keeps the file of member ${mine} locked` }
  }
  try {
    const events = log.append(mine, entry)
    return { kind: 'entered', entrance: { id: mine, log, claim, events } }
  } catch (error) {
    claim.release()
    throw error
  }
}

function whyNot(log: EventLog): string {
  const { joining, members } = log.state
  if (joining === undefined) return `the cluster has ${everybody(log.state).length} nodes already`
  const acceptor = members[0] ?? joining
  return `${nodeKey(acceptor.node)} has not answered the join of ${nodeKey(joining.node)} yet`
}

function present<Value>(values: readonly (Value | undefined)[]): Value[] {
  return values.filter((value) => value !== undefined)
}
