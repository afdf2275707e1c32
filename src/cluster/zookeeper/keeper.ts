/**
 * The regular work of a member: says how far it has read, which is also how it learns that the ensemble still
 * knows its session; looks whether the queue is whole; and, on the oldest member, takes away the events
 * that everybody has passed (sheepdog 1.0 never removes any).
 */
import type { Log } from '../../base/log.js'
import { nodeKey, type SdNode } from '../../model/node.js'
import { ZkCode, ZkError } from '../../wire/zookeeper/messages.js'
import type { World } from '../../world/world.js'
import { position as encodePosition } from './entrance.js'
import { isExpiry, isUnsure, type Layout, remove, sequenceOf } from './layout.js'
import { queueTail } from './queue.js'
import { nodeText } from './record.js'
import type { ZkSession } from './session.js'

/** Share of the session time-out between two beats (session.ts counts on it). */
const BEAT_SHARE = 1 / 5
/** Events after which the position is told without waiting for the next beat. */
const PASSED_MAX = 100
const REMOVED_PER_BEAT = 2000
const REMOVED_AT_ONCE = 100

export interface KeeperOptions {
  readonly zk: ZkSession
  readonly layout: Layout
  readonly world: Pick<World, 'clock'>
  readonly log: Log
  readonly self: SdNode
  /** Next position this member reads. */
  readonly position: () => number
  /** In the common order. */
  readonly members: () => readonly SdNode[]
  /** There is something to read that nobody told of. */
  readonly lookAgain: () => void
  readonly failed: (error: unknown) => void
}

export class Keeper {
  readonly #options: KeeperOptions
  #cancel: () => void = () => undefined
  #stopped = false
  #started = false
  #beating = false
  #told = -1
  /** Lowest position that may still be there; undefined: not looked yet. */
  #lowest: number | undefined

  constructor(options: KeeperOptions) {
    this.#options = options
  }

  start(): void {
    this.#started = true
    this.#options.zk.onConnected = () => this.#beatNow()
    this.#beatNow()
  }

  stop(): void {
    this.#stopped = true
    this.#cancel()
  }

  /** This member has read one more event. */
  passed(): void {
    if (this.#options.position() - this.#told > PASSED_MAX) this.#beatNow()
  }

  #beatNow(): void {
    if (this.#beating || this.#stopped || !this.#started) return
    this.#beating = true
    this.#cancel()
    void this.#beat()
      .catch((error: unknown) => {
        // Whether a change happened matters to none of these: the next beat makes it good.
        if (!isUnsure(error) && !isExpiry(error) && !this.#stopped) this.#options.failed(error)
      })
      .finally(() => {
        this.#beating = false
        if (this.#stopped) return
        const { world, zk } = this.#options
        this.#cancel = world.clock.after(zk.timeoutMs * BEAT_SHARE, () => this.#beatNow())
      })
  }

  async #beat(): Promise<void> {
    const { zk, layout, self } = this.#options
    const last = this.#options.position() - 1
    try {
      await zk.set(`${layout.positions}/${nodeText(self)}`, encodePosition(last))
    } catch (error) {
      if (!(error instanceof ZkError) || error.code !== ZkCode.NO_NODE || this.#stopped) throw error
      throw new Error(`${layout.positions}/${nodeText(self)} was removed by somebody`)
    }
    this.#told = last
    await this.#checkQueue()
    const [oldest] = this.#options.members()
    if (oldest !== undefined && nodeKey(oldest) === nodeKey(self)) await this.#sweep()
  }

  /** An event that was taken away unread must not be waited for: this node does not know what the others do. */
  async #checkQueue(): Promise<void> {
    const { zk, layout } = this.#options
    const next = this.#options.position()
    const tail = await queueTail(zk, layout)
    if (tail === undefined || tail < next)
      throw new Error(`${layout.queue} was removed by somebody`)
    if (tail === next) return
    const stat = await zk.exists(layout.event(next))
    if (this.#options.position() !== next || this.#stopped) return
    if (stat !== undefined) this.#options.lookAgain()
    else throw new Error(`${layout.event(next)} was removed before this node had read it`)
  }

  /** Takes away what is below the position of everybody who reads or is about to. */
  async #sweep(): Promise<void> {
    const { zk, layout, log } = this.#options
    const positions = await this.#positions()
    const wanted = this.#options.members().map(nodeText)
    if (!wanted.every((text) => positions.has(text))) return
    const keep = Math.min(...positions.values())
    if (keep <= 0) return
    if (this.#lowest === undefined) {
      const names = (await zk.children(layout.queue)) ?? []
      this.#lowest = names.reduce((least, name) => Math.min(least, sequenceOf(name)), keep)
    }
    const end = Math.min(keep, this.#lowest + REMOVED_PER_BEAT)
    const from = this.#lowest
    while (this.#lowest < end && !this.#stopped) {
      const upTo = Math.min(end, this.#lowest + REMOVED_AT_ONCE)
      const batch = Array.from({ length: upTo - this.#lowest }, (_, i) => this.#lowest! + i)
      await Promise.all(batch.map((at) => remove(zk, layout.event(at))))
      this.#lowest = upTo
    }
    if (end > from) log.debug('cluster.queue.swept', { from, end })
  }

  async #positions(): Promise<Map<string, number>> {
    const { zk, layout } = this.#options
    const names = (await zk.children(layout.positions)) ?? []
    const found = await Promise.all(names.map((name) => zk.get(`${layout.positions}/${name}`)))
    const positions = new Map<string, number>()
    names.forEach((name, i) => {
      const data = found[i]?.data
      // Whose node went meanwhile reads no more; what nobody understands holds everything.
      if (data !== undefined) positions.set(name, data.length === 4 ? data.readInt32LE(0) : -1)
    })
    return positions
  }
}
