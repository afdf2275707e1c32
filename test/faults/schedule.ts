/**
 * What happens next to the cluster: drawn from a seed, never more at once than the copies can bear.
 *
 * A node is a danger from its fault until the cluster has been clean since: its objects may have one copy
 * less, or an old one, also after it came back. Not more than `bearable` nodes are a danger at once, so the
 * owners of an object in any epoch that is not over are never all away.
 */
import type { Dice } from './dice.js'

export type NodeCondition =
  | 'up'
  /** SIGKILLed; its store is there. */
  | 'dead'
  /** SIGSTOPped. */
  | 'paused'
  /** Cut from everybody. */
  | 'cut'
  /** The coordination daemon of its host is dead. */
  | 'orphan'
  /** Stopped in order. */
  | 'left'
  /** No store: never started, or taken out for good. */
  | 'spare'

export interface NodeStatus {
  readonly index: number
  readonly condition: NodeCondition
  /** At risk since its last fault, because the cluster has not been clean after it. */
  readonly unsettled: boolean
  /** Seconds in this condition. */
  readonly sinceSeconds: number
  /** It has lost a disk, and goes on without. */
  readonly lacksDisk?: boolean
}

export type ActionKind =
  | 'kill'
  | 'pause'
  | 'leave'
  | 'cut'
  /** The coordination daemon of its host is killed. */
  | 'orphan'
  | 'retire'
  /** One of its disks is gone; the next `rest` gives it a new one. */
  | 'disk'
  | 'restart'
  | 'resume'
  | 'heal'
  | 'adopt'
  | 'add'
  /** A server that all nodes share to agree is killed; the others are enough. */
  | 'strike'
  | 'repair'
  | 'rest'

export interface Action {
  readonly kind: ActionKind
  /** The node, or the server; -1 for `rest`, which mends everything and waits until the cluster is clean. */
  readonly node: number
}

/** A server that all nodes share. */
export interface ServerStatus {
  readonly index: number
  readonly isUp: boolean
  readonly sinceSeconds: number
}

export interface Rules {
  /** Nodes that may be a danger at once: copies - 1, or the parity strips. */
  readonly bearable: number
  /** Never fewer members than this. */
  readonly membersMin: number
  /** Faults that may be drawn. */
  readonly faults: readonly ActionKind[]
  /** How long a node stays paused or cut, in seconds: at least, at most. */
  readonly awaySeconds: readonly [number, number]
}

const MENDING: Readonly<Partial<Record<NodeCondition, ActionKind>>> = {
  dead: 'restart',
  left: 'restart',
  paused: 'resume',
  cut: 'heal',
  orphan: 'adopt',
  spare: 'add',
}

/** Its daemon runs, but does not belong to the cluster, or not for long. */
export function isAway(condition: NodeCondition): boolean {
  return condition === 'paused' || condition === 'cut' || condition === 'orphan'
}

/** Draws the next step. What has been away long enough comes back first. */
export function nextAction(
  nodes: readonly NodeStatus[],
  rules: Rules,
  chance: Dice,
  servers: readonly ServerStatus[] = [],
): Action {
  const [, awayMax] = rules.awaySeconds
  const overdue = nodes.find(
    ({ condition, sinceSeconds }) => isAway(condition) && sinceSeconds >= awayMax,
  )
  if (overdue !== undefined) return mending(overdue)
  const lost = servers.find(({ isUp, sinceSeconds }) => !isUp && sinceSeconds >= awayMax)
  if (lost !== undefined) return { kind: 'repair', node: lost.index }
  const choices = [...faultsPossible(nodes, rules), ...mendingPossible(nodes, rules)]
  choices.push(...serversPossible(servers, rules))
  if (choices.length === 0 || chance.below(8) === 0) return { kind: 'rest', node: -1 }
  return chance.pick(choices)
}

/** One at a time, so that the others are more than half. As likely as a fault of two nodes. */
function serversPossible(servers: readonly ServerStatus[], rules: Rules): Action[] {
  const [awayMin] = rules.awaySeconds
  const down = servers.find(({ isUp }) => !isUp)
  if (down === undefined) return servers.map(({ index }) => ({ kind: 'strike', node: index }))
  const isReady = down.sinceSeconds >= awayMin
  return isReady ? [{ kind: 'repair', node: down.index }] : []
}

/** Every fault that the rules allow now. */
export function faultsPossible(nodes: readonly NodeStatus[], rules: Rules): Action[] {
  const members = nodes.filter(({ condition }) => condition === 'up').length
  const dangers = nodes.filter(({ unsettled }) => unsettled).length
  if (members <= rules.membersMin) return []
  const victims = nodes.filter(
    ({ condition, unsettled }) => condition === 'up' && (unsettled || dangers < rules.bearable),
  )
  return victims.flatMap(({ index, lacksDisk = false }) =>
    rules.faults
      .filter((kind) => kind !== 'disk' || !lacksDisk)
      .map((kind) => ({ kind, node: index })),
  )
}

function mendingPossible(nodes: readonly NodeStatus[], rules: Rules): Action[] {
  const [awayMin] = rules.awaySeconds
  const ready = nodes.filter(({ condition, sinceSeconds }) => {
    if (condition === 'up') return false
    return !isAway(condition) || sinceSeconds >= awayMin
  })
  // Twice, so that nodes come back about as often as others go.
  return ready.flatMap((node) => [mending(node), mending(node)])
}

export function mending({ index, condition }: NodeStatus): Action {
  const kind = MENDING[condition]
  if (kind === undefined) throw new RangeError(`a node that is ${condition} needs no mending`)
  return { kind, node: index }
}
