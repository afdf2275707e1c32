/**
 * When everybody has everything he knows of, is that all there is? Objects whose every holder is away are in nobody's
 * list. As long as there may be such, older copies must stay and be looked for, or what the missing nodes bring back
 * would count as long removed.
 *
 * An object of epoch E is on min(copies, zones) nodes of E in as many zones. So if fewer zones of E have somebody
 * missing, one of its holders is here and has named it.
 */
import { type NodeKey, nodeKey, type SdNode } from '../model/node.js'

export interface CoverageQuestion {
  /** The newest epoch everybody had everything of, or the forced one if that is newer. */
  readonly from: number
  /** The epoch that has been recovered. */
  readonly to: number
  /** Undefined when this node does not know the epoch: then nothing can be said of it. */
  readonly nodesOf: (epoch: number) => readonly SdNode[] | undefined
  readonly members: readonly SdNode[]
  /** Of the volume with the fewest. */
  readonly copies: number
}

/** The first epoch that may have objects nobody here knows; undefined when there is none. */
export function firstUncovered(question: CoverageQuestion): number | undefined {
  const { from, to, nodesOf, members, copies } = question
  const present = new Set<NodeKey>(members.map(nodeKey))
  for (let epoch = Math.max(1, from); epoch < to; epoch++) {
    const storers = nodesOf(epoch)?.filter(({ vnodes }) => vnodes > 0)
    if (storers === undefined) return epoch
    const missing = storers.filter((node) => !present.has(nodeKey(node)))
    const needed = Math.min(copies, zonesOf(storers))
    if (needed > 0 && zonesOf(missing) >= needed) return epoch
  }
  return undefined
}

function zonesOf(nodes: readonly SdNode[]): number {
  return new Set(nodes.map(({ zone }) => zone)).size
}
