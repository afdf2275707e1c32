/** One volume this node caches, or is about to: what its operations do, and what waits for them. */
import type { Vid } from '../../model/oid.js'
import type { CachedVolume } from './cached-volume.js'

/** asking: used without the cache; held: with it; closed: operations wait; over: forget it. */
export type HoldingState = 'asking' | 'held' | 'closed' | 'over'

export class Holding {
  readonly vid: Vid
  /** Settles when somebody wants the right before it has been taken. */
  readonly cancelled: Promise<void>
  volume: CachedVolume | undefined
  isCancelled = false
  #state: HoldingState
  #cancel: () => void = () => undefined
  /** Operations under way in the cache. */
  #operations = 0
  #idle: (() => void) | undefined
  readonly #waiting: (() => void)[] = []
  /** Changes of the state come one after the other. */
  #turn: Promise<unknown> = Promise.resolve()
  readonly #settled: Promise<void>
  #settle: () => void = () => undefined

  constructor(vid: Vid, state: 'asking' | 'closed') {
    this.vid = vid
    this.#state = state
    this.cancelled = new Promise((resolve) => {
      this.#cancel = resolve
    })
    this.#settled = new Promise((resolve) => {
      this.#settle = resolve
    })
    // Files of an earlier process: nothing changes before they are dealt with.
    if (state === 'closed') this.#turn = this.#settled
  }

  get state(): HoldingState {
    return this.#state
  }

  begin(): void {
    this.#operations++
  }

  ended(): void {
    if (--this.#operations === 0) this.#idle?.()
  }

  /** Runs `again` when operations go on, with the cache or without. */
  wait(again: () => void): void {
    if (this.#state === 'closed') this.#waiting.push(again)
    else again()
  }

  /** The right is wanted elsewhere: taking it ends. */
  cancel(): void {
    this.isCancelled = true
    this.#cancel()
  }

  /** Runs `work` while no operation is under way and new ones wait. After the end: undefined work, at once. */
  change<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(async () => {
      if (this.#state !== 'over') {
        this.#state = 'closed'
        if (this.#operations > 0) {
          await new Promise<void>((resolve) => {
            this.#idle = resolve
          })
          this.#idle = undefined
        }
      }
      return await work()
    })
    this.#turn = result.catch(() => undefined)
    return result
  }

  /** Operations go on in the cache. */
  open(volume: CachedVolume): void {
    this.volume = volume
    this.#state = 'held'
    this.#goOn()
  }

  /** Operations go on without the cache. */
  end(): void {
    this.volume = undefined
    this.#state = 'over'
    this.#goOn()
  }

  #goOn(): void {
    this.#settle()
    for (const again of this.#waiting.splice(0)) again()
  }
}
