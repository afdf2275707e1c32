/**
 * Who may come in. The member that answers a join turns away, before anybody sees it, a joiner that could only
 * harm: of another cluster, with another vnode strategy, at an address nobody can reach, or with a history that
 * contradicts this one (defects C13, C14). All of it pure; what a node knows is passed in.
 */
import type { Log } from '../base/log.js'
import { nodeKey, type SdNode } from '../model/node.js'
import type { EpochLog } from '../store/epoch-log.js'
import { ClusterFlag } from '../wire/sheepdog/opcodes.js'
import { type ClusterInfo, decodeClusterInfo } from '../wire/sheepdog/records.js'
import { sameMembers } from './membership.js'

export interface JoinQuestion {
  readonly own: ClusterInfo
  readonly joiner: SdNode
  /** Without the joiner; empty when the joiner is this node itself, the first one. */
  readonly members: readonly SdNode[]
  readonly request: ClusterInfo
  /** What this node's log says of an epoch; undefined when it does not know it. */
  readonly nodesOf: (epoch: number) => readonly SdNode[] | undefined
}

export interface JoinOnWire extends Omit<JoinQuestion, 'request' | 'nodesOf'> {
  readonly log: Log
  readonly epochLog: EpochLog
  /** As the joiner's driver brought it. Throws RangeError when it is no cluster_info. */
  readonly request: Buffer
}

/** The same for a request as it comes, with this node's log; what is refused is logged. */
export function judgeJoin({ log, epochLog, request, ...rest }: JoinOnWire): string | undefined {
  const nodesOf = (epoch: number) => epochLog.read(epoch)?.nodes
  const reason = refusalOfJoiner({ ...rest, request: decodeClusterInfo(request), nodesOf })
  if (reason !== undefined) log.warn('join.refused', { node: nodeKey(rest.joiner), reason })
  return reason
}

/** A sentence for the administrator of the joiner; undefined when it may come in. */
export function refusalOfJoiner(question: JoinQuestion): string | undefined {
  if (question.members.length === 0) return undefined
  const { status } = question.own
  if (status === 'shutdown' || status === 'killed') {
    return 'the cluster is being shut down: start again when its nodes are gone'
  }
  return (
    refusalOfAddress(question) ??
    refusalOfCluster(question) ??
    refusalOfStrategy(question) ??
    refusalOfHistory(question)
  )
}

function refusalOfAddress({ joiner, members }: JoinQuestion): string | undefined {
  const key = nodeKey(joiner)
  if (joiner.port === 0 || joiner.host === '0.0.0.0' || joiner.host === '::') {
    return `${key} is not an address other nodes can reach: announce another one with -y`
  }
  const odd = members.find((member) => isLoopback(member) !== isLoopback(joiner))
  if (odd === undefined) return undefined
  const where = isLoopback(joiner) ? `${key} is reached on its own host only` : `${key} joins`
  return `${where}, but there is a member at ${nodeKey(odd)}: give each node its address with -y`
}

function isLoopback({ host }: SdNode): boolean {
  return host.startsWith('127.') || host === '::1'
}

const REPLACE =
  'to join as a new node, start with an empty directory; what only the old one holds is lost then'

function refusalOfCluster({ own, request }: JoinQuestion): string | undefined {
  if ((request.flags & ClusterFlag.DISKMODE) !== 0) {
    return 'this sheep was built with disk vnodes, the cluster was not'
  }
  if (own.epoch === 0 || request.epoch === 0 || own.ctime === request.ctime) return undefined
  return `this store belongs to another cluster (its creation time differs): ${REPLACE}`
}

/** Gateways take the strategy of the cluster, whatever they were started with. */
function refusalOfStrategy({ own, joiner, members, request }: JoinQuestion): string | undefined {
  const isDecided = own.ctime !== 0n || members.some(({ vnodes }) => vnodes > 0)
  if (!isDecided || joiner.vnodes === 0) return undefined
  if (isAutomatic(own) === isAutomatic(request)) return undefined
  return isAutomatic(own)
    ? 'the cluster computes vnode numbers from disk space: start without -V'
    : 'the cluster has fixed vnode numbers: start with -V NUMBER'
}

export function isAutomatic({ flags }: Pick<ClusterInfo, 'flags'>): boolean {
  return (flags & ClusterFlag.AUTO_VNODES) !== 0
}

function refusalOfHistory({ own, request, nodesOf }: JoinQuestion): string | undefined {
  const { epoch } = request
  if (epoch === 0 || own.epoch === 0) return undefined
  if (own.status === 'ok' && epoch > own.epoch) {
    return (
      `this store knows epoch ${epoch}, the cluster has come to ${own.epoch} without it: another part of ` +
      `the cluster went on elsewhere; stop one of the two, or ${REPLACE}`
    )
  }
  const known = epoch === own.epoch ? own.nodes : nodesOf(epoch)
  if (known === undefined || sameMembers(known, request.nodes)) return undefined
  return (
    `epoch ${epoch} had other nodes here (${list(known)}) than in this store (${list(request.nodes)}): ` +
    `the cluster was split and both parts went on; ${REPLACE}`
  )
}

function list(nodes: readonly SdNode[]): string {
  return nodes.map(nodeKey).join(', ')
}
