/**
 * Who is in the order of events but has no living session any more (cluster spec, sections 10.5 and 10.7).
 *
 * One LEAVE is enough. Every survivor would push one, so they wait for each other a little: the first in the
 * common order at once, the next ones a moment later unless the LEAVE has come by. A joiner that died between
 * its ACCEPT and its /member node was never there to be missed: it is looked for after a session's time.
 */
import type { Log } from '../../base/log.js'
import { nodeKey, type SdNode } from '../../model/node.js'
import type { World } from '../../world/world.js'
import type { Member, MemberId } from '../membership.js'
import { Bell } from './bell.js'
import type { Layout } from './layout.js'
import { nodeText } from './record.js'
import type { ZkSession } from './session.js'

/** Between the first survivor and the next ones; the LEAVE of the first takes milliseconds. */
const TURN_MS = 300
const TURNS_MAX = 10
/** A joiner gets this share of the session time-out to show up. */
const GHOST_SHARE = 1.5

export interface DeathsOptions {
  readonly zk: ZkSession
  readonly layout: Layout
  readonly world: Pick<World, 'clock'>
  readonly log: Log
  readonly self: SdNode
  /** In the common order. */
  readonly members: () => readonly Member[]
  /** `next` may have something new. */
  readonly changed: () => void
  readonly failed: (error: unknown) => void
}

export class Deaths {
  readonly #options: DeathsOptions
  readonly #bell = new Bell()
  readonly #seen = new Set<MemberId>()
  /** Found dead; the LEAVE is due when the timer has run out. */
  readonly #due = new Set<MemberId>()
  readonly #told = new Set<MemberId>()
  readonly #timers = new Map<MemberId, () => void>()
  #present: ReadonlySet<string> = new Set()
  #stopped = false

  constructor(options: DeathsOptions) {
    this.#options = options
  }

  start(): void {
    void this.#watch().catch((error: unknown) => {
      if (!this.#stopped) this.#options.failed(error)
    })
  }

  stop(): void {
    this.#stopped = true
    for (const cancel of this.#timers.values()) cancel()
    this.#timers.clear()
    this.#bell.ring()
  }

  /** Somebody has come in. */
  look(): void {
    this.#bell.ring()
  }

  /** A dead member whose LEAVE is to be pushed by this node now. */
  next(): Member | undefined {
    return this.#options.members().find(({ id }) => this.#due.has(id))
  }

  /** Its LEAVE is in the order. */
  told(id: MemberId): void {
    this.#due.delete(id)
    this.#told.add(id)
  }

  async #watch(): Promise<void> {
    const { zk, layout } = this.#options
    while (!this.#stopped) {
      const rung = this.#bell.next()
      const names = await zk.children(layout.members, this.#bell.ring)
      if (this.#stopped) return
      // That is no news of anybody's death.
      if (names === undefined) throw new Error(`${layout.members} was removed by somebody`)
      this.#present = new Set(names)
      this.#compare()
      await rung
    }
  }

  #compare(): void {
    const members = this.#options.members()
    const known = new Set(members.map(({ id }) => id))
    for (const set of [this.#seen, this.#due, this.#told]) {
      for (const id of set) if (!known.has(id)) set.delete(id)
    }
    for (const [id, cancel] of this.#timers) {
      if (known.has(id)) continue
      cancel()
      this.#timers.delete(id)
    }
    const missing = members.filter((member) => !this.#isPresent(member))
    for (const member of members) {
      if (this.#isPresent(member)) this.#seen.add(member.id)
    }
    for (const member of missing) this.#missed(member, missing)
  }

  #isPresent({ node }: Member): boolean {
    const text = nodeText(node)
    return text === nodeText(this.#options.self) || this.#present.has(text)
  }

  #missed(member: Member, missing: readonly Member[]): void {
    const { id } = member
    if (this.#timers.has(id) || this.#due.has(id) || this.#told.has(id)) return
    const { zk } = this.#options
    if (this.#seen.has(id)) this.#after(id, this.#turnMs(missing), () => this.#isDead(member))
    else this.#after(id, zk.timeoutMs * GHOST_SHARE, () => void this.#ghost(member))
  }

  /** How long this node leaves it to those before it. */
  #turnMs(missing: readonly Member[]): number {
    const living = this.#options.members().filter((member) => !missing.includes(member))
    const key = nodeKey(this.#options.self)
    const rank = living.findIndex(({ node }) => nodeKey(node) === key)
    return Math.min(Math.max(rank, 0), TURNS_MAX) * TURN_MS
  }

  #isDead(member: Member): void {
    const isIn = this.#options.members().some(({ id }) => id === member.id)
    if (!isIn || this.#isPresent(member)) return
    this.#options.log.info('cluster.dead', { node: nodeKey(member.node) })
    this.#due.add(member.id)
    this.#options.changed()
  }

  /** Its session lives as long as one of its own nodes does. */
  async #ghost(member: Member): Promise<void> {
    if (this.#isPresent(member)) return
    const { zk, layout } = this.#options
    const path = `${layout.positions}/${nodeText(member.node)}`
    try {
      const living = await zk.exists(path)
      if (this.#stopped) return
      if (living !== undefined) this.look()
      else this.#isDead(member)
    } catch (error) {
      if (!this.#stopped) this.#options.failed(error)
    }
  }

  #after(id: MemberId, delayMs: number, act: () => void): void {
    const cancel = this.#options.world.clock.after(delayMs, () => {
      this.#timers.delete(id)
      if (!this.#stopped) act()
    })
    this.#timers.set(id, cancel)
  }
}
