/**
 * The gateway's side of writes in flight: which nodes were sent a write of an object, and that all of them have ended. The
 * owners are told a little later, many objects in one message, so that an object in use costs nothing extra.
 */
import type { Log } from '../../base/log.js'
import { type NodeKey, nodeKey, type SdNode } from '../../model/node.js'
import type { Oid } from '../../model/oid.js'
import { encodeOids } from '../../wire/sheepdog/oid-list.js'
import { Flag, Op } from '../../wire/sheepdog/opcodes.js'
import { plainRequest } from '../../wire/sheepdog/requests.js'
import type { Clock } from '../../world/world.js'
import type { Peers } from '../peers.js'

const SWEEP_MS = 2_000
/** Objects told in one message; 64 KiB of them. */
const OIDS_AT_ONCE = 8192

/** Writes of one object that this gateway has under way, and who has heard of any since the last SETTLED. */
export interface Track {
  count: number
  touched: boolean
  /** A write ended without success on every copy, and the copies are not under comparison either. */
  isOpen: boolean
  readonly nodes: Map<NodeKey, SdNode>
  /** The list they were last taken from. */
  remotes: readonly SdNode[] | undefined
}

export interface SettlingOptions {
  readonly clock: Clock
  readonly log: Log
  readonly peers: Pick<Peers, 'call'>
  readonly isSelf: (node: SdNode) => boolean
  readonly isMember: (key: NodeKey) => boolean
  /** The same message to this node's own copies. */
  readonly settledHere: (oids: readonly Oid[]) => void
}

export class Settling {
  readonly #options: SettlingOptions
  readonly #tracks = new Map<Oid, Track>()
  #sweeping = false
  #stopped = false

  constructor(options: SettlingOptions) {
    this.#options = options
  }

  /** A write begins; `end` follows once. */
  begin(oid: Oid): Track {
    let track = this.#tracks.get(oid)
    if (track === undefined) {
      track = { count: 0, touched: true, isOpen: false, nodes: new Map(), remotes: undefined }
      this.#tracks.set(oid, track)
      this.#sweepLater()
    }
    track.count++
    track.touched = true
    return track
  }

  /** The write is about to be sent to these nodes. */
  sending(track: Track, remotes: readonly SdNode[], self: SdNode | undefined): void {
    if (track.remotes === remotes) return
    track.remotes = remotes
    for (const node of remotes) track.nodes.set(nodeKey(node), node)
    if (self !== undefined) track.nodes.set(nodeKey(self), self)
  }

  end(track: Track): void {
    track.count--
    track.touched = true
  }

  /** Whether its copies are equal is not known: the owners are never told that its writes have ended. */
  leaveOpen(oid: Oid): void {
    this.begin(oid).isOpen = true
  }

  #sweepLater(): void {
    if (this.#sweeping || this.#stopped) return
    this.#sweeping = true
    this.#options.clock.after(SWEEP_MS, () => {
      this.#sweeping = false
      if (this.#stopped) return
      void Promise.all(this.#sweep(false))
      if (this.#tracks.size > 0) this.#sweepLater()
    })
  }

  /**
   * The gateway ends, with nothing under way any more: the owners need not compare what it has finished. Waits for them
   * until `patienceMs` are over.
   */
  async stop(patienceMs: number): Promise<void> {
    if (this.#stopped) return
    this.#stopped = true
    await new Promise<void>((resolve) => {
      const cancel = this.#options.clock.after(patienceMs, resolve)
      void Promise.all(this.#sweep(true)).then(() => {
        cancel()
        resolve()
      })
    })
  }

  /** `rested` or not: at the end there is no later. Resolves when the owners have been told, or cannot be. */
  #sweep(isEnd: boolean): Promise<void>[] {
    const told = new Map<NodeKey, { readonly node: SdNode; readonly oids: Oid[] }>()
    for (const [oid, track] of this.#tracks) {
      if (track.count > 0 || track.isOpen) continue
      if (track.touched && !isEnd) {
        track.touched = false
        continue
      }
      this.#tracks.delete(oid)
      for (const [key, node] of track.nodes) {
        const one = told.get(key)
        if (one === undefined) told.set(key, { node, oids: [oid] })
        else one.oids.push(oid)
      }
    }
    return [...told.values()].map(({ node, oids }) => this.#tell(node, oids))
  }

  /** Leaves before any later write to these objects: it is ordered on the connection like those. */
  async #tell(node: SdNode, oids: readonly Oid[]): Promise<void> {
    const { isSelf, isMember, settledHere, peers, log } = this.#options
    if (isSelf(node)) {
      settledHere(oids)
      return
    }
    if (!isMember(nodeKey(node))) return
    for (let at = 0; at < oids.length; at += OIDS_AT_ONCE) {
      const some = oids.slice(at, at + OIDS_AT_ONCE)
      const body = encodeOids(some)
      const head = plainRequest({
        opcode: Op.SETTLED,
        flags: Flag.WRITE,
        dataLength: body.length,
      })
      try {
        await peers.call(node, head, body)
      } catch (error) {
        log.debug('settled.untold', { node: nodeKey(node), reason: String(error) })
        for (const oid of some) this.#tellAgain(oid, node)
      }
    }
  }

  #tellAgain(oid: Oid, node: SdNode): void {
    const track = this.begin(oid)
    this.sending(track, [node], undefined)
    this.end(track)
  }
}
