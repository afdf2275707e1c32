/**
 * Who answers a join and with what, as pure functions (cluster spec, section 6). Every member runs them
 * on the same events and reaches the same epoch without a message that carries it.
 */
import { nodeKey, type SdNode, sortNodes } from '../model/node.js'
import { weighNodes } from '../model/ring.js'
import { ClusterFlag } from '../wire/sheepdog/opcodes.js'
import { ACCEPTED_VERSION, type ClusterInfo } from '../wire/sheepdog/records.js'

function keysOf(nodes: readonly SdNode[]): Set<string> {
  return new Set(nodes.map(nodeKey))
}

export function sameMembers(a: readonly SdNode[], b: readonly SdNode[]): boolean {
  const keys = keysOf(a)
  return a.length === b.length && b.every((node) => keys.has(nodeKey(node)))
}

/**
 * The answer to a join. While everybody waits, the newest history wins, and the cluster starts when
 * every node of its newest epoch is there; a running cluster just tells its state.
 */
export function answerJoin(
  own: ClusterInfo,
  joiner: SdNode,
  members: readonly SdNode[],
  request: ClusterInfo,
): ClusterInfo {
  if (own.status !== 'wait') return { ...own, version: ACCEPTED_VERSION }
  const comparable = own.epoch === 0 || request.epoch === 0 || own.ctime === request.ctime
  const newest = comparable && request.epoch > own.epoch ? request : own
  const present = keysOf([...members, joiner])
  const complete = newest.epoch > 0 && newest.nodes.every((node) => present.has(nodeKey(node)))
  // Gateways that were there first follow the first node that stores objects.
  const isOpen = newest.ctime === 0n && members.every(({ vnodes }) => vnodes === 0)
  return {
    ...(isOpen && joiner.vnodes > 0 ? withStrategy(newest, request.flags) : newest),
    version: ACCEPTED_VERSION,
    status: complete && comparable ? 'ok' : 'wait',
  }
}

/** The cluster with another say on how vnode numbers come about. */
function withStrategy(info: ClusterInfo, flags: number): ClusterInfo {
  const { AUTO_VNODES } = ClusterFlag
  return { ...info, flags: (info.flags & ~AUTO_VNODES) | (flags & AUTO_VNODES) }
}

/** Why a joiner must not go on with the answer it got; undefined when it may. */
export function refusalOfAnswer(
  own: ClusterInfo,
  self: SdNode,
  answer: ClusterInfo,
): string | undefined {
  if (answer.version !== ACCEPTED_VERSION) {
    return `the cluster speaks internal protocol ${answer.version}, this sheep ${ACCEPTED_VERSION}`
  }
  if (own.epoch !== 0 && answer.epoch !== 0 && own.ctime !== answer.ctime) {
    return 'this store belongs to another cluster (its creation time differs)'
  }
  const strategyDiffers = ((own.flags ^ answer.flags) & ClusterFlag.AUTO_VNODES) !== 0
  if (answer.ctime !== 0n && self.vnodes > 0 && strategyDiffers) {
    return 'the cluster uses another vnode strategy (-V given here or there only)'
  }
  return undefined
}

/** What a node has to do because of an event, in order. */
export type Effect =
  /** This node cannot be a member; the process ends. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** The cluster went on without this node: what it holds is of its own last epoch, not current. */
  | { readonly kind: 'outdated' }
  /** Volumes these nodes know; `keepOwn`: and those on its own disk, else nothing known so far counts. */
  | { readonly kind: 'learn'; readonly from: readonly SdNode[]; readonly keepOwn: boolean }
  /** Requests run under this membership from now on. */
  | { readonly kind: 'serve'; readonly info: ClusterInfo; readonly recover: RecoverFrom }
  | { readonly kind: 'left'; readonly node: SdNode }

/** Epoch by which objects are placed now; `sameMembers` when nobody came or went since it began. */
export interface RecoverFrom {
  readonly epoch: number
  readonly sameMembers: boolean
}

export interface Step {
  readonly next: ClusterInfo
  readonly effects: readonly Effect[]
}

interface Arrival {
  readonly self: SdNode
  readonly joiner: SdNode
  readonly members: readonly SdNode[]
  readonly answer: ClusterInfo
}

function isSame(a: SdNode, b: SdNode): boolean {
  return nodeKey(a) === nodeKey(b)
}

/** Whether objects lie the same: the same nodes in the same zones with the same weights (defect C15). */
function samePlacement(a: readonly SdNode[], b: readonly SdNode[]): boolean {
  const others = sortNodes(b)
  const alike = (one: SdNode, other: SdNode | undefined): boolean =>
    other !== undefined &&
    isSame(one, other) &&
    one.zone === other.zone &&
    one.vnodes === other.vnodes
  return a.length === b.length && sortNodes(a).every((one, i) => alike(one, others[i]))
}

/** The members as the next epoch's nodes. */
function weighed(members: readonly SdNode[], flags: number): SdNode[] {
  return weighNodes(sortNodes(members), (flags & ClusterFlag.AUTO_VNODES) !== 0)
}

/** The membership changed: a running cluster takes the next epoch. */
function nextEpoch(info: ClusterInfo, members: readonly SdNode[]): ClusterInfo {
  return { ...info, epoch: info.epoch + 1, nodes: weighed(members, info.flags) }
}

export function onAccepted(own: ClusterInfo, arrival: Arrival): Step {
  const { self, joiner, members, answer } = arrival
  const refusal = isSame(joiner, self) ? refusalOfAnswer(own, self, answer) : undefined
  if (refusal !== undefined) return { next: own, effects: [{ kind: 'refused', reason: refusal }] }
  const forced = own.ctime === answer.ctime ? Math.max(own.forced ?? 0, answer.forced ?? 0) : 0
  const strategy = self.vnodes === 0 ? answer.flags : own.flags
  const info = {
    ...withStrategy(answer, strategy),
    forced: own.ctime === 0n ? (answer.forced ?? 0) : forced,
  }
  if (answer.status === 'shutdown' || answer.status === 'killed') {
    const reason = 'the cluster is being shut down: start again when its nodes are gone'
    const effects: Effect[] = isSame(joiner, self) ? [{ kind: 'refused', reason }] : []
    return { next: own, effects }
  }
  const effects: Effect[] = []
  const wasIn = answer.nodes.some((node) => isSame(node, self))
  if (answer.epoch > 0 && own.epoch > 0 && !wasIn) effects.push({ kind: 'outdated' })
  if (own.status === 'wait' && answer.status === 'ok') effects.push(learning(arrival))
  if (answer.status !== 'ok') return { next: info, effects }
  const same = samePlacement(answer.nodes, weighed(members, info.flags))
  const next = same ? info : nextEpoch(info, members)
  const recover = { epoch: answer.epoch, sameMembers: same }
  return { next, effects: [...effects, { kind: 'serve', info: next, recover }] }
}

/**
 * What a node that begins to serve must know of volumes. Members of a running cluster know all, and better
 * than its own disk. When a cluster starts, the nodes of its newest epoch put together what is on theirs; a
 * node that was not in that epoch may have seen beginnings of operations that never happened.
 */
function learning({ self, members, answer }: Arrival): Effect {
  const isCurrent = (node: SdNode): boolean => answer.nodes.some((other) => isSame(node, other))
  const from = members.filter((node) => !isSame(node, self) && isCurrent(node))
  return { kind: 'learn', from, keepOwn: isCurrent(self) }
}

export function onLeft(own: ClusterInfo, node: SdNode, members: readonly SdNode[]): Step {
  const left: Effect = { kind: 'left', node }
  if (own.status !== 'ok') return { next: own, effects: [left] }
  const next = nextEpoch(own, members)
  const recover = { epoch: own.epoch, sameMembers: false }
  return { next, effects: [left, { kind: 'serve', info: next, recover }] }
}

/**
 * A node announced new properties of itself, or that objects it had are lost: the next epoch, in which everybody
 * looks for what it lacks, and no acknowledgement of the one before counts any more.
 */
export function onUpdated(own: ClusterInfo, members: readonly SdNode[]): Step {
  if (own.status !== 'ok') return { next: own, effects: [] }
  const next = nextEpoch(own, members)
  const recover = { epoch: own.epoch, sameMembers: false }
  return { next, effects: [{ kind: 'serve', info: next, recover }] }
}

export interface Force {
  readonly self: SdNode
  readonly members: readonly SdNode[]
  /** The epoch the administrator has seen. */
  readonly epoch: number
}

/**
 * The administrator gives up on nodes the cluster waits for: the next epoch has those that are there, and what
 * only the missing ones knew counts as lost. Undefined when there is nothing to force.
 */
export function onForced(own: ClusterInfo, { self, members, epoch }: Force): Step | undefined {
  if (own.status !== 'wait' || own.epoch === 0 || own.epoch !== epoch) return undefined
  const next = { ...nextEpoch(own, members), status: 'ok' as const, forced: own.epoch + 1 }
  const isCurrent = (node: SdNode): boolean => own.nodes.some((other) => isSame(node, other))
  // Where nobody is left who was there at the end, everybody tells what he has seen.
  const witnesses = members.some((node) => node.vnodes > 0 && isCurrent(node))
  const tells = (node: SdNode): boolean => !witnesses || isCurrent(node)
  const from = members.filter((node) => !isSame(node, self) && tells(node))
  const recover = { epoch: own.epoch, sameMembers: false }
  return {
    next,
    effects: [
      { kind: 'learn', from, keepOwn: tells(self) },
      { kind: 'serve', info: next, recover },
    ],
  }
}

export interface FormatRequest {
  readonly ctime: bigint
  readonly flags: number
  readonly copies: number
  readonly policy: number
  readonly blockSizeShift: number
  readonly store: string
}

/** The cluster after a format: epoch 1 of whoever is there. */
export function onFormat(
  own: ClusterInfo,
  format: FormatRequest,
  members: readonly SdNode[],
): ClusterInfo {
  return {
    ...own,
    ...format,
    epoch: 1,
    status: 'ok',
    recoveryDisabled: false,
    gathered: 0,
    forced: 0,
    nodes: weighed(members, format.flags),
  }
}
