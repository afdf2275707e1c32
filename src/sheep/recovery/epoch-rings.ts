/** Who owned what in earlier epochs: rings of the epoch log, whose gaps other members fill. */
import { Code } from '../../base/codes.js'
import { LIMITS } from '../../base/limits.js'
import { decodeNodes, NODE_BYTES, type SdNode } from '../../model/node.js'
import type { Oid } from '../../model/oid.js'
import { buildRing, type Ring } from '../../model/ring.js'
import type { EpochLog } from '../../store/epoch-log.js'
import { Op } from '../../wire/sheepdog/opcodes.js'
import { objectRequest } from '../../wire/sheepdog/requests.js'
import type { Peers } from '../peers.js'
import type { NodeState } from '../state.js'

export interface EpochRingsOptions {
  readonly state: NodeState
  readonly epochLog: EpochLog
  readonly peers: Peers
}

/** Nodes that hold objects, this one left out. */
export function otherStorers(state: NodeState, nodes: readonly SdNode[]): SdNode[] {
  return nodes.filter((node) => node.vnodes > 0 && !state.isSelf(node))
}

export class EpochRings {
  readonly #state: NodeState
  readonly #epochLog: EpochLog
  readonly #peers: Peers
  readonly #rings = new Map<number, Ring>()
  /** Questions under way: the answer is written to one file. */
  readonly #asked = new Map<number, Promise<readonly SdNode[] | undefined>>()

  constructor({ state, epochLog, peers }: EpochRingsOptions) {
    this.#state = state
    this.#epochLog = epochLog
    this.#peers = peers
  }

  /** Undefined when neither this node nor any member that answers knows the epoch. */
  async of(epoch: number): Promise<Ring | undefined> {
    if (epoch === this.#state.epoch) return this.#state.view.ring
    const known = this.#rings.get(epoch)
    if (known !== undefined) return known
    const nodes = this.#epochLog.read(epoch)?.nodes ?? (await this.#askFor(epoch))
    if (nodes === undefined) return undefined
    const ring = buildRing(nodes, this.#state.view.ring)
    this.#rings.set(epoch, ring)
    return ring
  }

  /** Lets go of what is in memory. */
  clear(): void {
    this.#rings.clear()
  }

  /** Gets the epochs this node did not live through, so that its history has no gaps. */
  async fillLog(): Promise<void> {
    for (let epoch = this.#state.epoch - 1; epoch > 0; epoch--) {
      if (this.#epochLog.read(epoch) !== undefined) continue
      if ((await this.#askFor(epoch)) === undefined) return
    }
  }

  #askFor(epoch: number): Promise<readonly SdNode[] | undefined> {
    const asked = this.#asked.get(epoch)
    if (asked !== undefined) return asked
    const asking = this.#ask(epoch).finally(() => this.#asked.delete(epoch))
    this.#asked.set(epoch, asking)
    return asking
  }

  /** The nodes of an epoch this node did not live through, from whoever did. */
  async #ask(epoch: number): Promise<readonly SdNode[] | undefined> {
    // Gateways know them as well; while no storage node is there, they alone do.
    for (const node of this.#state.members.filter((member) => !this.#state.isSelf(member))) {
      const head = objectRequest({
        opcode: Op.GET_EPOCH,
        oid: 0n as Oid,
        targetEpoch: epoch,
        dataLength: LIMITS.nodesMax * NODE_BYTES + 8,
      })
      const reply = await this.#peers.call(node, head).catch(() => undefined)
      if (reply?.result !== Code.SUCCESS || reply.body.length < NODE_BYTES + 8) continue
      const count = Math.floor((reply.body.length - 8) / NODE_BYTES)
      const nodes = decodeNodes(reply.body, count)
      const time = Number(reply.body.readBigUInt64LE(count * NODE_BYTES))
      await this.#epochLog.write(epoch, { nodes, time })
      return nodes
    }
    return undefined
  }
}
