/**
 * Who alone may cache a volume's objects. The right is taken and given back in the order of the cluster's events, so
 * that all nodes agree on it, and joiners learn of it with the volumes. A node that wants to use a volume somebody
 * else has the right to asks him to push what he has and to give the right back, and waits. The right of a holder who
 * is away is good until somebody wants the volume: he finds on his return whether anybody did.
 */
import { Code, type Done, retryOf } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import { nodeKey, type SdNode } from '../../model/node.js'
import { type Vid, vidName } from '../../model/oid.js'
import { type CacheRight, type NodeId, sameNode } from '../../model/vdi-state.js'
import { type RightChange, rightMessage, rightQuestion } from '../../wire/sheepdog/cache.js'
import type { Clock } from '../../world/world.js'
import type { Answer } from '../answer.js'
import { replyCode } from '../outcome.js'
import type { Peers } from '../peers.js'
import type { NodeState } from '../state.js'

const RETRY_MS = 100
const TERMS_AN_EPOCH = 2 ** 20

export interface RightsOptions {
  readonly state: NodeState
  readonly peers: Pick<Peers, 'request'>
  readonly clock: Clock
  readonly log: Log
  readonly broadcast: (head: Buffer) => Promise<Answer>
}

interface Waiting {
  readonly go: () => void
  readonly fail: Done
}

export class CacheRights {
  readonly #options: RightsOptions
  readonly #waiting = new Map<Vid, Waiting[]>()
  readonly #watchers = new Map<Vid, Set<() => void>>()
  #taken = 0
  #isOver = false

  constructor(options: RightsOptions) {
    this.#options = options
  }

  holderOf(vid: Vid): CacheRight | undefined {
    return this.#options.state.vids.cachedBy.get(vid)
  }

  isOwn(vid: Vid): boolean {
    const holder = this.holderOf(vid)
    return holder !== undefined && this.#options.state.isSelf(holder)
  }

  /** Somebody else has the right. */
  isForeign(vid: Vid): boolean {
    const { cachedBy } = this.#options.state.vids
    if (cachedBy.size === 0) return false
    const holder = cachedBy.get(vid)
    return holder !== undefined && !this.#options.state.isSelf(holder)
  }

  /** A step everybody hears of at the same place in the order of events. */
  heard({ step, term }: RightChange, vid: Vid, { host, port }: NodeId): void {
    const { vids, members } = this.#options.state
    const holder = vids.cachedBy.get(vid)
    const isHis = holder !== undefined && sameNode(holder, { host, port })
    if (step === 'take') {
      const known = vids.get(vid)
      const isUnsafe = known?.snapshot === true || known?.lock.state === 'shared'
      const isFree = holder === undefined || (isHis && holder.term < term)
      const isGranted = isFree && !isUnsafe && !vids.isDeleted(vid)
      if (isGranted) vids.cachedBy.set(vid, { host, port, term })
    } else if (holder?.term === term) {
      const isAway = !members.some((member) => sameNode(member, holder))
      if (step === 'release' ? isHis : isAway) vids.cachedBy.delete(vid)
    }
    this.changed(vid)
  }

  /** Tells everybody; resolves when this node has heard it too. */
  take(vid: Vid): Promise<Answer> {
    // Of later lives of this node the epoch is later.
    const term = this.#options.state.epoch * TERMS_AN_EPOCH + (++this.#taken % TERMS_AN_EPOCH)
    return this.#tell(vid, { step: 'take', term })
  }

  /** Ends the right there is: one's own, or that of a holder who is away. */
  end(vid: Vid, step: 'release' | 'void'): Promise<Answer> {
    return this.#tell(vid, { step, term: this.holderOf(vid)?.term ?? 0 })
  }

  #tell(vid: Vid, change: RightChange): Promise<Answer> {
    return this.#options.broadcast(rightMessage(vid, change).head)
  }

  /** What is known of the right to `vid` may be different. */
  changed(vid: Vid): void {
    for (const changed of [...(this.#watchers.get(vid) ?? [])]) changed()
  }

  /** Calls `fn` once after the next change, or a little later; the returned function calls it off. */
  soon(vid: Vid, fn: () => void): () => void {
    const watchers = this.#watchers.get(vid) ?? new Set()
    const stop = (): void => {
      cancel()
      watchers.delete(once)
      if (watchers.size === 0) this.#watchers.delete(vid)
    }
    const once = (): void => {
      stop()
      fn()
    }
    const cancel = this.#options.clock.after(RETRY_MS, once)
    this.#watchers.set(vid, watchers.add(once))
    return stop
  }

  /** Runs `go` when nobody else has the right; `fail` gets the reason why the holder keeps it. */
  whenFree(vid: Vid, go: () => void, fail: Done): void {
    const waiting = this.#waiting.get(vid)
    if (waiting !== undefined) {
      waiting.push({ go, fail })
      return
    }
    this.#waiting.set(vid, [{ go, fail }])
    this.#options.log.info('cache.right.wanted', { vid: vidName(vid), holder: this.#name(vid) })
    this.#ask(vid)
  }

  /** What waits fails now. */
  stop(): void {
    this.#isOver = true
    for (const vid of [...this.#waiting.keys()]) this.#goOn(vid, Code.SHUTDOWN)
  }

  /** Asks another member until it answers: true when it agrees, or is no member any more. */
  async confirmed(node: SdNode, vid: Vid, isClaim: boolean): Promise<boolean> {
    const { state } = this.#options
    const head = rightQuestion({ vid, asks: 'heard', isClaim, holder: state.self })
    for (;;) {
      const code = await this.#request(node, Buffer.from(head))
      if (code === Code.SUCCESS) return true
      if (this.#isOver || retryOf(code) === 'never') return false
      if (!state.members.some((member) => sameNode(member, node))) return true
      await new Promise<void>((resolve) => void this.soon(vid, resolve))
    }
  }

  #name(vid: Vid): string {
    const holder = this.holderOf(vid)
    return holder === undefined ? 'nobody' : nodeKey(holder)
  }

  #request(node: NodeId, head: Buffer): Promise<Code> {
    return new Promise((resolve) => {
      this.#options.peers.request(node, head, undefined, (reply) => resolve(replyCode(reply)))
    })
  }

  #ask(vid: Vid): void {
    const { state } = this.#options
    const holder = this.holderOf(vid)
    if (this.#isOver || state.status !== 'ok') {
      this.#goOn(vid, Code.SHUTDOWN)
      return
    }
    if (holder === undefined || state.isSelf(holder)) {
      this.#goOn(vid, Code.SUCCESS)
      return
    }
    const isMember = state.members.some((member) => sameNode(member, holder))
    const asked = isMember
      ? this.#request(holder, rightQuestion({ vid, asks: 'yield', isClaim: false, holder }))
      : this.end(vid, 'void').then(({ result }) => result)
    void asked.then((code) => {
      const isRefused = isMember && code === Code.EIO && this.isForeign(vid)
      if (isRefused) this.#goOn(vid, Code.EIO)
      else if (!this.isForeign(vid)) this.#ask(vid)
      else this.soon(vid, () => this.#ask(vid))
    })
  }

  #goOn(vid: Vid, code: Code): void {
    const waiting = this.#waiting.get(vid) ?? []
    this.#waiting.delete(vid)
    for (const { go, fail } of waiting) {
      if (code === Code.SUCCESS) go()
      else fail(code)
    }
  }
}
