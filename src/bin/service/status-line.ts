/** One line that says how a sheep is, for `systemctl status` (STATUS= of sd_notify(3)). */
import { type NodeKey, nodeKey } from '../../model/node.js'
import type { SheepNode } from '../../sheep/node.js'
import type { ClusterStatus } from '../../wire/sheepdog/records.js'

/** What the line is made of. */
export interface NodeFacts {
  readonly status: ClusterStatus
  readonly formatted: boolean
  readonly isSure: boolean
  readonly epoch: number
  /** Members now. */
  readonly nodes: number
  /** Fault zones that store something. */
  readonly zones: number
  /** New volumes get so many replicas; 0: they are coded. */
  readonly copies: number
  /** Of the epoch the cluster waits to go on from. */
  readonly missing: readonly NodeKey[]
  readonly recovery: {
    readonly inRecovery: boolean
    readonly phase: number
    readonly finished: number
    readonly total: number
  }
}

/** Names that are listed before "and N more". */
const NAMES_MAX = 5
/** The recovery asks who has what, before it knows how much there is to do. */
const PHASE_LISTS = 0

export function statusLine(facts: NodeFacts): string {
  const { status, formatted, isSure, epoch, nodes, missing } = facts
  if (status === 'killed') return 'Ending: this node is no member any more'
  if (status === 'shutdown') return 'The cluster is shut down'
  if (!formatted) return `Waiting for 'dog cluster format'; ${count(nodes, 'node')} so far`
  if (status === 'wait') {
    const names = missing.slice(0, NAMES_MAX).join(', ')
    const more = missing.length > NAMES_MAX ? ` and ${missing.length - NAMES_MAX} more` : ''
    if (missing.length === 0) return 'Waiting for the cluster'
    return `Waiting for ${count(missing.length, 'node')} of epoch ${epoch}: ${names}${more}`
  }
  if (!isSure) return 'Not sure of its membership: serves nothing until it is'
  const place = `epoch ${epoch}, ${count(nodes, 'node')}`
  return `${doing(facts)} (${place})`
}

function doing({ zones, copies, recovery }: NodeFacts): string {
  if (zones === 0) return 'Halted: no node stores objects'
  const thin = copies > zones ? `, ${zones} of ${copies} copies` : ''
  if (!recovery.inRecovery) return `Serving${thin}`
  const { phase, finished, total } = recovery
  if (phase === PHASE_LISTS) return `Serving${thin}, recovering: looking what is missing`
  return `Serving${thin}, recovering ${finished}/${total} objects`
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`
}

function factsOf({ state, recovery, clusterInfo }: SheepNode): NodeFacts {
  const present = new Set(state.members.map(nodeKey))
  const { settings, view } = state
  return {
    status: state.status,
    formatted: state.formatted,
    isSure: state.isSure(),
    epoch: clusterInfo.epoch,
    nodes: state.members.length,
    zones: view.ring.zones,
    copies: settings.policy === 0 ? settings.copies : 0,
    missing: clusterInfo.nodes.map(nodeKey).filter((key) => !present.has(key)),
    recovery: recovery.progress(),
  }
}

/** Follows a sheep over its lives (revival.ts). */
export class SheepStatus {
  #line: () => string = () => 'Starting'

  /** What it does before it serves. */
  doing(phase: string): void {
    this.#line = () => phase
  }

  /** A member now. */
  joined(node: SheepNode): void {
    this.#line = () => statusLine(factsOf(node))
  }

  /** From now on what `line` says. */
  says(line: () => string): void {
    this.#line = line
  }

  line(): string {
    return this.#line()
  }
}
