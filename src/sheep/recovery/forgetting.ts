/**
 * When copies of earlier epochs may be let go of. That everybody who is there has everything that can be had is not
 * enough: of an object whose owners all went together nobody who is there knows. Their copies are the only ones, and
 * when they come back these must count, not pass for remains of a removed object.
 */
import { type NodeKey, nodeKey, type SdNode } from '../../model/node.js'
import { stripsOf } from '../../model/policy.js'
import type { NodeState } from '../state.js'

/**
 * Storage nodes of an earlier epoch that are not there now, if they may be all the owners an object had then; else
 * none. `spare`: owners an object can lose without being lost.
 */
export function unaccounted(
  then: readonly SdNode[],
  now: ReadonlySet<NodeKey>,
  spare: (zones: number) => number,
): SdNode[] {
  const storing = then.filter((node) => node.vnodes > 0)
  const gone = storing.filter((node) => !now.has(nodeKey(node)))
  const zonesOf = (nodes: readonly SdNode[]): number => new Set(nodes.map(({ zone }) => zone)).size
  return zonesOf(gone) > spare(zonesOf(storing)) ? gone : []
}

/** Owners that the weakest object of the cluster can lose, where there are so many zones. */
export function spareOwners(state: NodeState, zones: number): number {
  let spare = Math.min(state.settings.copies, zones) - 1
  for (const { copies, leastCopies, policy, deleted } of state.vids.all()) {
    if (deleted) continue
    const strips = stripsOf(policy)
    // Of what had fewer copies before, some may have only those yet.
    const least = Math.min(leastCopies ?? copies, copies)
    spare = Math.min(spare, strips?.parity ?? Math.min(least, zones) - 1)
  }
  return Math.max(spare, 0)
}
