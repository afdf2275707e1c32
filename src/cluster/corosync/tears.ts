/**
 * What a member does while others are missing: keeps the order, the votes and the history still, says where it stands,
 * and does what the tear comes to (tear.ts).
 */
import type { Log } from '../../base/log.js'
import type { ProcessId } from '../../world/corosync.js'
import type { Clock } from '../../world/world.js'
import type { Entry } from '../membership.js'
import type { History } from './history.js'
import { GRACE_MS } from './lease.js'
import { processKey } from './message.js'
import type { Order } from './order.js'
import type { Pulse } from './pulse.js'
import type { Stand } from './stand.js'
import { type Reunion, Tear } from './tear.js'

/**
 * Others go on after GRACE_MS; who has not met them nor become sure again so long after gives up. Counted while the
 * ring turns: one that stands still keeps everybody from going on.
 */
export const WAIT_MS = 10_000
/** Even who is sure of itself learns within this what becomes of the missing, or has missed it. */
const STUCK_MS = 60_000
const LOOK_MS = 250

export interface TearsOptions {
  readonly clock: Clock
  readonly log: Log
  readonly self: ProcessId
  readonly order: Order
  readonly pulse: Pulse
  readonly history: History
  /** As Clock.after, but it ends with the member. */
  readonly after: (delayMs: number, fn: () => void) => void
  send(stand: Stand): void
  /** This member cannot go on. */
  outside(reason: string): void
  /** Members are one again, or gone; what this one had said in vain is to be said again, before all else. */
  over(unsaid: readonly Entry[]): void
}

export class Tears {
  readonly #options: TearsOptions
  #tear: Tear | undefined
  #group: readonly ProcessId[] = []
  /** When it began to wait for somebody, or was sure last, in time in which the ring turned. */
  #sinceMs = 0
  /** When somebody went missing last, likewise. */
  #lostMs = 0
  /** Said in vain, and not to be said again before all are there. */
  #unsaid: Entry[] = []

  constructor(options: TearsOptions) {
    this.#options = options
  }

  get isTorn(): boolean {
    return this.#tear !== undefined
  }

  /** The group has changed, and what follows from it for members is told next. */
  changed(group: readonly ProcessId[], isMerged: boolean): void {
    this.#group = group
    this.#tear?.changed(group, this.#now)
    if (isMerged) this.#options.order.merged()
  }

  /** Its process has left or died, or begins anew, or is left behind by the others. */
  gone(process: ProcessId): void {
    this.#tear?.gone(process)
  }

  /** Members are missing and nobody knows whether they live. */
  lose(lost: readonly ProcessId[], what: string): void {
    const { pulse, order, log } = this.#options
    const missing = lost.filter((process) => pulse.isMember(process)).sort(byNumber)
    const names = missing.map(processKey).join(', ')
    if (missing.length > 0 && pulse.isNew) {
      log.error('corosync.minority', { missing: names, members: pulse.members.length })
      this.#options.outside(`${names} ${what}, and not all members had agreed on this one yet`)
      return
    }
    if (missing.length > 0) this.#lostMs = pulse.turnedMs
    if (missing.length > 0) this.#begin().lose(missing, this.#now + GRACE_MS)
    for (const process of lost) order.departed(process)
    const areEnough = pulse.unreachable(lost)
    const members = pulse.members.length
    if (missing.length > 0) log.warn('corosync.torn', { missing: names, members, areEnough })
  }

  /** Says where this member stands, after all that follows from a change is known. */
  state(): void {
    if (this.#tear !== undefined) this.#options.send(this.#tear.stand())
  }

  said(from: ProcessId, stand: Stand): void {
    const outcome = this.#tear?.said(from, stand)
    if (outcome === 'outside') {
      this.#options.outside('the others do not wait for this node any more')
      return
    }
    if (outcome !== undefined) this.#reunite(outcome)
    this.look()
  }

  /** Time has passed, or this member may be sure again. */
  look(): void {
    const tear = this.#tear
    if (tear === undefined) return
    const { pulse } = this.#options
    if (tear.isOver((alive) => pulse.areEnough(alive))) {
      this.#goOn(tear)
      return
    }
    const final = tear.final(this.#now, pulse.isSure)
    if (final !== undefined) this.#options.send(final)
    if (tear.giveUpTardy(this.#now)) this.state()
    const { turnedMs } = pulse
    if (pulse.isSure) this.#sinceMs = turnedMs
    if (turnedMs - this.#sinceMs <= WAIT_MS && turnedMs - this.#lostMs <= STUCK_MS) return
    const names = tear.missing.map(processKey).join(', ')
    const [rest, all] = [pulse.members.length, tear.size]
    const { isQuorate } = pulse
    this.#options.log.error('corosync.minority', { missing: names, members: all, isQuorate })
    // Corosync's own rule may forbid what the one of the members would allow.
    const quorum = isQuorate ? '' : ' (the corosync of this host has lost quorum)'
    this.#options.outside(
      `${names} cannot be reached, and ${rest} of ${all} members may not go on alone${quorum}`,
    )
  }

  get #now(): number {
    return this.#options.clock.monotonic()
  }

  #begin(): Tear {
    if (this.#tear !== undefined) return this.#tear
    const { pulse, order, history, self } = this.#options
    order.freeze()
    history.hold()
    pulse.hold()
    const wereEnough = (alive: ReadonlySet<string>): boolean => pulse.wereEnough(alive)
    const tear = new Tear({ self, members: pulse.members, history: history.value, wereEnough })
    tear.changed(this.#group, this.#now)
    this.#tear = tear
    this.#sinceMs = pulse.turnedMs
    this.#watch(tear)
    return tear
  }

  #watch(tear: Tear): void {
    this.#options.after(LOOK_MS, () => {
      if (this.#tear !== tear) return
      this.look()
      this.#watch(tear)
    })
  }

  #goOn(tear: Tear): void {
    const { pulse, order, history, log } = this.#options
    const missing = tear.missing.sort(byNumber).map(processKey)
    log.warn('corosync.without', { missing: missing.join(', '), members: pulse.members.length })
    history.goOn(missing)
    pulse.settled()
    order.thaw()
    this.#end()
  }

  #reunite({ returned, missing }: Reunion): void {
    const { pulse, order, history, log } = this.#options
    const [names, rest] = [returned, missing].map((some) => some.map(processKey).join(', '))
    log.warn('corosync.reunited', { returned: names, missing: rest })
    const { unsaid, arrivals } = order.rewind([...missing].sort(byNumber))
    this.#unsaid.push(...unsaid)
    history.rewind(arrivals)
    pulse.reunited(returned, missing)
    this.#sinceMs = pulse.turnedMs
    if (missing.length > 0) {
      this.#tear?.lose(missing, this.#now + GRACE_MS)
      return
    }
    history.release()
    order.thaw()
    this.#end()
  }

  #end(): void {
    this.#tear = undefined
    this.#options.over(this.#unsaid.splice(0))
  }
}

function byNumber(a: ProcessId, b: ProcessId): number {
  return a.nodeId - b.nodeId || a.pid - b.pid
}
