/**
 * Operations every node performs by itself answer for the node that was asked alone; whether the others have done
 * them is looked up (defect C18).
 */
import { nodeKey, type SdNode } from '../model/node.js'
import type { ClusterInfo } from '../wire/sheepdog/records.js'
import { reasonOf } from './client.js'
import type { Context } from './command.js'

const LOOKS = 120
const PAUSE_MS = 250

/** A line for each node that does not show the outcome after a while, with the reason where there is one. */
export async function laggards(
  context: Context,
  nodes: readonly SdNode[],
  isDone: (info: ClusterInfo) => boolean,
): Promise<string[]> {
  const found = await Promise.all(nodes.map((node) => complaintOf(context, node, isDone)))
  return found.filter((line) => line !== undefined)
}

async function complaintOf(
  { sheep, world }: Context,
  node: SdNode,
  isDone: (info: ClusterInfo) => boolean,
): Promise<string | undefined> {
  const peer = sheep.peer(node)
  try {
    for (let look = 0; look < LOOKS; look++) {
      if (isDone(await peer.clusterInfo())) return undefined
      await new Promise<void>((resolve) => {
        world.clock.after(PAUSE_MS, resolve)
      })
    }
    return `${nodeKey(node)} has not done it; its sheep.log may tell why`
  } catch (error) {
    return `${nodeKey(node)} does not tell whether it has done it: ${reasonOf(error)}`
  } finally {
    await peer.close()
  }
}
