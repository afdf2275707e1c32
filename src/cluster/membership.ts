/**
 * The cluster as a value: who is in, who asks to come in, whose BLOCKs wait. Every member feeds the
 * same records to `applyRecord` and so holds the same state; drivers only have to agree on the order.
 *
 * While a join waits for its answer (`joining`), the only records that may follow are its ACCEPT, and
 * the LEAVE of the acceptor or of the joiner (`mayAppend`). The answer is therefore computed on exactly
 * the state it is ordered after, and a joiner misses nothing and sees nothing twice.
 */
import type { Brand } from '../base/brand.js'
import { LIMITS } from '../base/limits.js'
import { type NodeKey, nodeKey, type SdNode } from '../model/node.js'

/** Number of a member's JOIN record: never used twice, ascending in join order. */
export type MemberId = Brand<number, 'member'>

/** A join request or its answer holds the cluster information: up to 491568 bytes in 1.0. */
export const JOIN_BYTES_MAX = 1024 * 1024

/** Why a joiner was turned away is a sentence or two. */
export const REASON_BYTES_MAX = 4096

/** BLOCKs that may wait in the whole cluster; more wait outside of the order. */
export const BLOCKS_MAX = 1 << 16

export interface Member {
  readonly id: MemberId
  readonly node: SdNode
  /** How far it has read, in the driver's own unit; lets the driver forget what all have read. */
  readonly mark: number
}

export interface Joining extends Member {
  readonly request: Buffer
}

export interface ClusterState {
  /** Number the next record will have. */
  readonly nextSeq: number
  /** In the order they joined. */
  readonly members: readonly Member[]
  readonly joining: Joining | undefined
  /** Owners of the waiting BLOCKs, oldest first; the first one is active. */
  readonly blocks: readonly MemberId[]
}

export type Entry =
  | {
      readonly kind: 'join'
      readonly node: SdNode
      readonly request: Buffer
      readonly mark: number
    }
  | { readonly kind: 'accept'; readonly joiner: MemberId; readonly answer: Buffer }
  /** The acceptor turns the joiner away: nobody ever sees it as a member. */
  | { readonly kind: 'decline'; readonly joiner: MemberId; readonly reason: string }
  | { readonly kind: 'leave'; readonly member: MemberId }
  | { readonly kind: 'notify'; readonly message: Buffer }
  | { readonly kind: 'block' }
  | { readonly kind: 'unblock'; readonly message: Buffer }
  | { readonly kind: 'update'; readonly node: SdNode }
  | { readonly kind: 'mark'; readonly mark: number }
  /** From a newer program; all who do not know it ignore it alike. */
  | { readonly kind: 'unknown' }

export interface ClusterRecord {
  readonly seq: number
  readonly sender: MemberId
  readonly entry: Entry
}

/** What a record means to the members. `members` are the nodes after it, in join order. */
export type ClusterEvent =
  | {
      readonly kind: 'asked'
      readonly acceptor: MemberId
      readonly joiner: Joining
      readonly members: readonly SdNode[]
    }
  | {
      readonly kind: 'accepted'
      readonly joiner: Member
      readonly members: readonly SdNode[]
      readonly answer: Buffer
    }
  | { readonly kind: 'left'; readonly member: Member; readonly members: readonly SdNode[] }
  /** A joiner is gone before anybody let it in; with the reason when it was turned away. */
  | { readonly kind: 'withdrawn'; readonly member: Member; readonly reason: string | undefined }
  | { readonly kind: 'notified'; readonly sender: SdNode; readonly message: Buffer }
  | { readonly kind: 'blocked'; readonly owner: MemberId }
  | { readonly kind: 'updated'; readonly node: SdNode; readonly members: readonly SdNode[] }

export interface Applied {
  readonly state: ClusterState
  readonly events: readonly ClusterEvent[]
}

export const EMPTY_CLUSTER: ClusterState = {
  nextSeq: 1,
  members: [],
  joining: undefined,
  blocks: [],
}

/** Who answers the waiting join: the oldest member; with no members the joiner itself. */
export function acceptorOf(state: ClusterState): MemberId | undefined {
  return state.joining === undefined ? undefined : (state.members[0] ?? state.joining).id
}

export function memberById(state: ClusterState, id: MemberId): Member | undefined {
  if (state.joining?.id === id) return state.joining
  return state.members.find((member) => member.id === id)
}

export function memberByKey(state: ClusterState, key: NodeKey): Member | undefined {
  return everybody(state).find((member) => nodeKey(member.node) === key)
}

/** Members and the joiner. */
export function everybody(state: ClusterState): readonly Member[] {
  return state.joining === undefined ? state.members : [...state.members, state.joining]
}

/** Judges an entry against the state it would follow; `sender` of a join is the id it will get. */
export function mayAppend(state: ClusterState, sender: MemberId, entry: Entry): boolean {
  const { joining } = state
  switch (entry.kind) {
    case 'join':
      if (joining !== undefined || state.members.length >= LIMITS.nodesMax) return false
      return memberByKey(state, nodeKey(entry.node)) === undefined
    case 'accept':
    case 'decline':
      return joining?.id === entry.joiner && acceptorOf(state) === sender
    case 'leave':
      if (memberById(state, entry.member) === undefined) return false
      return (
        joining === undefined || entry.member === joining.id || entry.member === acceptorOf(state)
      )
    case 'unblock':
      return joining === undefined && state.blocks[0] === sender
    case 'update': {
      const member = memberById(state, sender)
      return (
        joining === undefined &&
        member !== undefined &&
        nodeKey(member.node) === nodeKey(entry.node)
      )
    }
    case 'block':
      if (state.blocks.length >= BLOCKS_MAX) return false
      return joining === undefined && memberById(state, sender) !== undefined
    case 'notify':
    case 'mark':
      return joining === undefined && memberById(state, sender) !== undefined
    case 'unknown':
      return false
  }
}

/** The next dead one whose LEAVE may be written now; ask again after writing it. */
export function nextToBury(
  state: ClusterState,
  isDead: (id: MemberId) => boolean,
): MemberId | undefined {
  return everybody(state).find(
    ({ id }) => mayAppend(state, id, { kind: 'leave', member: id }) && isDead(id),
  )?.id
}

/** A record that must not be there changes nothing but the numbering, on every member alike. */
export function applyRecord(before: ClusterState, record: ClusterRecord): Applied {
  const state = { ...before, nextSeq: record.seq + 1 }
  const { sender, entry } = record
  if (!mayAppend(before, sender, entry)) return { state, events: [] }
  switch (entry.kind) {
    case 'join':
      return applyJoin(state, sender, entry)
    case 'accept':
      return applyAccept(state, entry.answer)
    case 'decline':
      return withdraw(state, entry.reason)
    case 'leave':
      return applyLeave(state, entry.member)
    case 'notify':
      return { state, events: notified(state, sender, entry.message) }
    case 'block': {
      const blocks = [...state.blocks, sender]
      return { state: { ...state, blocks }, events: activation(state.blocks, blocks) }
    }
    case 'unblock': {
      const blocks = state.blocks.slice(1)
      const events = notified(state, sender, entry.message)
      const next = blocks[0]
      if (next !== undefined) events.push({ kind: 'blocked', owner: next })
      return { state: { ...state, blocks }, events }
    }
    case 'update': {
      const after = changeMember(state, sender, { node: entry.node })
      return {
        state: after,
        events: [{ kind: 'updated', node: entry.node, members: nodesOf(after) }],
      }
    }
    case 'mark':
      return { state: changeMember(state, sender, { mark: entry.mark }), events: [] }
    case 'unknown':
      return { state, events: [] }
  }
}

function applyJoin(
  before: ClusterState,
  id: MemberId,
  entry: Extract<Entry, { kind: 'join' }>,
): Applied {
  const { node, request, mark } = entry
  const state = { ...before, joining: { id, node, request, mark } }
  return { state, events: asked(state) }
}

function applyAccept(before: ClusterState, answer: Buffer): Applied {
  const { joining } = before
  if (joining === undefined) return { state: before, events: [] }
  const { id, node, mark } = joining
  const joiner = { id, node, mark }
  const state = { ...before, joining: undefined, members: [...before.members, joiner] }
  return { state, events: [{ kind: 'accepted', joiner, members: nodesOf(state), answer }] }
}

function applyLeave(before: ClusterState, id: MemberId): Applied {
  if (before.joining?.id === id) return withdraw(before, undefined)
  const member = memberById(before, id)
  if (member === undefined) return { state: before, events: [] }
  const blocks = before.blocks.filter((owner) => owner !== id)
  const state = { ...before, members: before.members.filter((one) => one !== member), blocks }
  const left: ClusterEvent = { kind: 'left', member, members: nodesOf(state) }
  return { state, events: [left, ...activation(before.blocks, blocks), ...asked(state)] }
}

function withdraw(before: ClusterState, reason: string | undefined): Applied {
  const { joining } = before
  if (joining === undefined) return { state: before, events: [] }
  const state = { ...before, joining: undefined }
  return { state, events: [{ kind: 'withdrawn', member: joining, reason }] }
}

function asked(state: ClusterState): ClusterEvent[] {
  const { joining } = state
  const acceptor = acceptorOf(state)
  if (joining === undefined || acceptor === undefined) return []
  return [{ kind: 'asked', acceptor, joiner: joining, members: nodesOf(state) }]
}

function notified(state: ClusterState, sender: MemberId, message: Buffer): ClusterEvent[] {
  const member = memberById(state, sender)
  return member === undefined ? [] : [{ kind: 'notified', sender: member.node, message }]
}

/** The oldest BLOCK's owner hears of it once: when it becomes the oldest. */
function activation(before: readonly MemberId[], after: readonly MemberId[]): ClusterEvent[] {
  const owner = after[0]
  return owner === undefined || owner === before[0] ? [] : [{ kind: 'blocked', owner }]
}

function changeMember(
  state: ClusterState,
  id: MemberId,
  change: Partial<Pick<Member, 'node' | 'mark'>>,
): ClusterState {
  const members = state.members.map((one) => (one.id === id ? { ...one, ...change } : one))
  return { ...state, members }
}

function nodesOf(state: ClusterState): readonly SdNode[] {
  return state.members.map((member) => member.node)
}
