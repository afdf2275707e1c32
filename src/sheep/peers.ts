/**
 * Connections to the other nodes: one each, made when first needed, pipelined, dropped when it fails. The
 * first thing said on each is HELLO; whoever knows it makes sure that older ones do nothing any more.
 *
 * A peer that stays silent is waited for until it answers or leaves the cluster. Giving its connection up and
 * writing again on a new one could let it execute what it had received on the old one later, over newer data.
 */
import { Code, codeName } from '../base/codes.js'
import type { Log } from '../base/log.js'
import { type NodeKey, nodeKey, type SdNode } from '../model/node.js'
import { type ReplyDone, SheepClient } from '../peer/client.js'
import type { Frame } from '../wire/sheepdog/frame.js'
import { encodeHello, INCARNATION_BYTES } from '../wire/sheepdog/hello.js'
import { Flag, Op } from '../wire/sheepdog/opcodes.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import type { World } from '../world/world.js'

const CONNECT_TIMEOUT_MS = 5_000
/** Requests to a node that just refused a connection fail at once for this long. */
const REFUSED_PAUSE_MS = 50

type NodeAddress = Pick<SdNode, 'host' | 'port'>

interface Peer {
  client: SheepClient | undefined
  /** Set while a connection is made and HELLO answered. */
  waiting: { head: Buffer; payload: Uint8Array | undefined; done: ReplyDone }[] | undefined
  refusedUntil: number
  /** It has left, or this node stops: a connection that still comes about is not for use. */
  dropped: boolean
}

export class Peers {
  readonly #world: Pick<World, 'clock' | 'network'>
  readonly #log: Log
  readonly #self: NodeAddress
  readonly #incarnation: Buffer
  #serial = 0
  readonly #peers = new Map<NodeKey, Peer>()
  #closed = false

  constructor(world: Pick<World, 'clock' | 'network' | 'random'>, log: Log, self: NodeAddress) {
    this.#world = world
    this.#log = log
    this.#self = self
    this.#incarnation = world.random.bytes(INCARNATION_BYTES)
  }

  /** Requests to one node leave in call order. `payload` must not change until the reply is there. */
  request(node: NodeAddress, head: Buffer, payload: Uint8Array | undefined, done: ReplyDone): void {
    const key = nodeKey(node)
    let peer = this.#peers.get(key)
    if (peer === undefined) {
      peer = { client: undefined, waiting: undefined, refusedUntil: 0, dropped: false }
      this.#peers.set(key, peer)
    }
    if (peer.waiting === undefined && peer.client?.alive === true) {
      peer.client.request(head, payload, done)
      return
    }
    if (this.#closed || this.#world.clock.now() < peer.refusedUntil) {
      done(undefined, new Error(`${key} cannot be reached`))
      return
    }
    if (peer.waiting === undefined) {
      peer.waiting = []
      void this.#connect(key, node, peer)
    }
    peer.waiting.push({ head, payload, done })
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

  /** The node has left: what is in flight to it fails now. */
  drop(node: NodeAddress): void {
    const peer = this.#peers.get(nodeKey(node))
    if (peer === undefined) return
    this.#peers.delete(nodeKey(node))
    peer.dropped = true
    peer.client?.close()
  }

  close(): void {
    this.#closed = true
    for (const peer of this.#peers.values()) {
      peer.dropped = true
      peer.client?.close()
    }
    this.#peers.clear()
  }

  /** Resolves when what this node sent on older connections is over, or when the other is a sheepdog 1.0. */
  async #introduce(client: SheepClient): Promise<void> {
    const serial = ++this.#serial
    const body = encodeHello({ ...this.#self, incarnation: this.#incarnation, serial })
    const head = plainRequest({ opcode: Op.HELLO, flags: Flag.WRITE, dataLength: body.length })
    const { result } = await client.call(head, body)
    if (result === Code.SUCCESS || result === Code.INVALID_PARMS) return
    client.close()
    throw new Error(`HELLO was answered ${codeName(result)}`)
  }

  async #connect(key: NodeKey, node: NodeAddress, peer: Peer): Promise<void> {
    let failure: Error | undefined
    try {
      const to = { host: node.host, port: node.port }
      const client = await SheepClient.connect(this.#world, to, {
        connectTimeoutMs: CONNECT_TIMEOUT_MS,
      })
      peer.client = client
      if (!peer.dropped) await this.#introduce(client)
      peer.refusedUntil = 0
      if (peer.dropped) {
        client.close()
        throw new Error(`${key} has left`)
      }
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error))
      peer.refusedUntil = this.#world.clock.now() + REFUSED_PAUSE_MS
      this.#log.debug('peer.refused', { peer: key, reason: failure.message })
    }
    const waiting = peer.waiting ?? []
    peer.waiting = undefined
    for (const one of waiting) {
      if (failure === undefined) peer.client?.request(one.head, one.payload, one.done)
      else one.done(undefined, failure)
    }
  }
}
