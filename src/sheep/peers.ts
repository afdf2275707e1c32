/** Connections to the other nodes: one each, made when first needed (see `peer.ts`). */
import type { Log } from '../base/log.js'
import { type NodeKey, nodeKey } from '../model/node.js'
import type { ReplyDone } from '../peer/client.js'
import type { Frame } from '../wire/sheepdog/frame.js'
import { INCARNATION_BYTES } from '../wire/sheepdog/hello.js'
import type { World } from '../world/world.js'
import { type Introduction, type NodeAddress, Peer } from './peer.js'

export class Peers {
  readonly #world: Pick<World, 'clock' | 'network'>
  readonly #log: Log
  readonly #introduction: Introduction
  readonly #peers = new Map<NodeKey, Peer>()
  #serial = 0
  #closed = false

  constructor(world: Pick<World, 'clock' | 'network' | 'random'>, log: Log, self: NodeAddress) {
    this.#world = world
    this.#log = log
    this.#introduction = {
      ...{ host: self.host, port: self.port },
      incarnation: world.random.bytes(INCARNATION_BYTES),
      nextSerial: () => ++this.#serial,
    }
  }

  /**
   * Requests to one node leave in call order. `payload` must not change until the reply is there. `late` is
   * called once when there is none after about half a second; the reply may still come.
   */
  request(
    node: NodeAddress,
    head: Buffer,
    payload: Uint8Array | undefined,
    done: ReplyDone,
    late?: () => void,
  ): void {
    const key = nodeKey(node)
    let peer = this.#peers.get(key)
    if (peer === undefined) {
      if (this.#closed) {
        done(undefined, new Error('this node stops'))
        return
      }
      peer = new Peer({
        ...{ world: this.#world, log: this.#log, introduction: this.#introduction, node },
      })
      this.#peers.set(key, peer)
    }
    peer.request(node, { head, payload, done, late })
  }

  /** As `request`; rejects when no reply comes. */
  call(node: NodeAddress, head: Buffer, payload?: Uint8Array): Promise<Frame> {
    return new Promise((resolve, reject) => {
      this.request(node, head, payload, (reply, error) => {
        if (reply !== undefined) resolve(reply)
        else reject(error ?? new Error('no reply'))
      })
    })
  }

  /** False while a node is known to be silent or out of reach: whoever has a choice asks another one. */
  isQuick(node: NodeAddress): boolean {
    return this.#peers.get(nodeKey(node))?.isQuick ?? true
  }

  /** The node has left: what is in flight to it fails now. */
  drop(node: NodeAddress): void {
    const key = nodeKey(node)
    this.#peers.get(key)?.drop(`${key} has left`)
    this.#peers.delete(key)
  }

  close(): void {
    this.#closed = true
    for (const peer of this.#peers.values()) peer.drop('this node stops')
    this.#peers.clear()
  }
}
