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
  | 'retire'
  /** One of its disks is gone; the next `rest` gives it a new one. */
  | 'disk'
  | 'restart'
  | 'resume'
  | 'heal'
  | 'add'
  | 'rest'

export interface Action {
  readonly kind: ActionKind
  /** The node; -1 for `rest`, which mends everything and waits until the cluster is clean. */
  readonly node: number
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
  spare: 'add',
}

/** Draws the next step. Nodes that have been away long enough come back first. */
export function nextAction(nodes: readonly NodeStatus[], rules: Rules, chance: Dice): Action {
  const [, awayMax] = rules.awaySeconds
  const overdue = nodes.find(
    ({ condition, sinceSeconds }) =>
      (condition === 'paused' || condition === 'cut') && sinceSeconds >= awayMax,
  )
  if (overdue !== undefined) return mending(overdue)
  const choices = [...faultsPossible(nodes, rules), ...mendingPossible(nodes, rules)]
  if (choices.length === 0 || chance.below(8) === 0) return { kind: 'rest', node: -1 }
  return chance.pick(choices)
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
    return (condition !== 'paused' && condition !== 'cut') || sinceSeconds >= awayMin
  })
  // Twice, so that nodes come back about as often as others go.
  return ready.flatMap((node) => [mending(node), mending(node)])
}

export function mending({ index, condition }: NodeStatus): Action {
  const kind = MENDING[condition]
  if (kind === undefined) throw new RangeError(`a node that is ${condition} needs no mending`)
  return { kind, node: index }
}
