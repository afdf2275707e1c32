/**
 * Whether this node may be sure that it belongs to the living cluster. The membership driver says until when;
 * after that the others may have gone on without it, so neither its copies nor its idea of who owns what are
 * worth anything, until the driver is sure again or has thrown it out. The clock is asked when a request comes, so
 * that a process which was stopped (SIGSTOP) knows before its first timer has run.
 */
import type { Log } from '../base/log.js'
import type { ClusterDriver } from '../cluster/driver.js'
import type { World } from '../world/world.js'
import type { NodeState } from './state.js'

/** How often an idle node looks, and how soon what waits goes on. */
const LOOK_MS = 200

export interface LeaseOptions {
  readonly clock: World['clock']
  readonly log: Log
  /** As ClusterDriver.sureUntil. */
  readonly sureUntil: () => number
  /** This node is sure again: what waited for it may go on. */
  readonly renewed: () => void
}

export class Lease {
  readonly #options: LeaseOptions
  #unsureSince: number | undefined
  /** Before it was in for the first time there is nothing to tell. */
  #hasBeenSure = false
  #stopWatching: (() => void) | undefined

  constructor(options: LeaseOptions) {
    this.#options = options
  }

  /** Asked for every request: one comparison where a driver needs no lease, else one look at the clock. */
  get isSure(): boolean {
    const until = this.#options.sureUntil()
    if (until === Number.POSITIVE_INFINITY && this.#unsureSince === undefined) return true
    const now = this.#options.clock.monotonic()
    const isSure = now < until
    if (isSure) this.#hasBeenSure = true
    if (isSure === (this.#unsureSince !== undefined)) this.#turn(isSure, now)
    return isSure
  }

  /** Looks also while there are no requests, so that the log tells. */
  watch(): void {
    this.stop()
    if (this.#options.sureUntil() === Number.POSITIVE_INFINITY) return
    this.#stopWatching = this.#options.clock.after(LOOK_MS, () => {
      void this.isSure
      this.watch()
    })
  }

  stop(): void {
    this.#stopWatching?.()
    this.#stopWatching = undefined
  }

  #turn(isSure: boolean, now: number): void {
    const { log, renewed } = this.#options
    if (!isSure) {
      this.#unsureSince = now
      if (!this.#hasBeenSure) return
      log.warn('membership.unsure', { effect: 'nothing is served until it is sure again' })
      return
    }
    const forMs = Math.round(now - (this.#unsureSince ?? now))
    this.#unsureSince = undefined
    log.info('membership.sure', { forMs })
    // Not inside of the request that happened to notice.
    this.#options.clock.soon(renewed)
  }
}

/** The lease of a node; `state` tells everybody about it. */
export function leaseOf(
  state: NodeState,
  {
    world,
    log,
    driver,
  }: { readonly world: World; readonly log: Log; readonly driver: ClusterDriver },
): Lease {
  const sureUntil = (): number => driver.sureUntil()
  const renewed = (): void => state.wakeViewWaiters()
  const lease = new Lease({ clock: world.clock, log, sureUntil, renewed })
  state.isSure = () => lease.isSure
  return lease
}
