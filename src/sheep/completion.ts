/**
 * Who has everything it owns. Each node tells all when its recovery of an epoch is over; once every storage
 * node has, older copies are of no use any more (objects spec, section 16.6).
 */
import type { Log } from '../base/log.js'
import { encodeNode, type NodeKey, nodeKey, type SdNode } from '../model/node.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import type { NodeState } from './state.js'

export interface CompletionOptions {
  readonly state: NodeState
  readonly log: Log
  /** False: nodes that are away may have the only copies of something (`recovery/forgetting.ts`). */
  readonly mayForget: (epoch: number) => boolean
  /** One announcement to every node, in the order of events. */
  readonly broadcast: (head: Buffer, payload: Buffer) => Promise<unknown>
  /** Every storage node has finished `epoch`, the one this node is in. */
  readonly gathered: (epoch: number) => Promise<void>
}

export class Completion {
  readonly #options: CompletionOptions
  /** Members that have everything they own, of the current epoch. */
  #complete = new Set<NodeKey>()

  constructor(options: CompletionOptions) {
    this.#options = options
  }

  /** A new epoch: nobody is done with it. */
  reset(): void {
    this.#complete = new Set()
  }

  /** This node has everything it owns in `epoch`. */
  announce(epoch: number): void {
    const payload = encodeNode(this.#options.state.self)
    const head = plainRequest({
      opcode: Op.COMPLETE_RECOVERY,
      flags: 1,
      epoch,
      dataLength: payload.length,
    })
    head.writeUInt32LE(epoch, 36)
    void this.#options.broadcast(head, payload)
  }

  /** Tells every node to hold recovery off: it would overfill this one. */
  holdOff(): void {
    void this.#options.broadcast(plainRequest({ opcode: Op.DISABLE_RECOVER }), Buffer.alloc(0))
  }

  async heard(epoch: number, node: SdNode): Promise<void> {
    const { state, log, gathered } = this.#options
    if (epoch !== state.epoch) return
    this.#complete.add(nodeKey(node))
    const storing = state.epochNodes.filter((member) => member.vnodes > 0)
    // Without storage nobody has anything: what was there before is all there is.
    if (storing.length === 0) return
    if (!storing.every((member) => this.#complete.has(nodeKey(member)))) return
    if (!this.#options.mayForget(epoch)) return
    log.info('recovery.gathered', { epoch })
    await gathered(epoch)
  }
}
