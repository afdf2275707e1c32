/**
 * How fast recovery goes in the background (objects spec, section 16.7). Objects somebody waits for do not ask.
 *
 * Told nothing, it works on two objects a disk while nobody else uses this node. While clients do, it works on one and
 * rests after each in proportion to the time it took: on slow disks it takes the same small share as on fast ones.
 */
import type { RecoveryThrottling } from '../../wire/sheepdog/records.js'
import type { Clock } from '../../world/world.js'

const OBJECTS_PER_DISK = 2
/** Each is held in memory as a whole; no throttling and no number of disks allows more. */
export const OBJECTS_AT_ONCE_MAX = 32
/** A client's operation less than this long ago: the node is in use. */
const IN_USE_MS = 300
/** Rest after an object, in times of what it took. */
const REST_SHARE = 2
const REST_MS_MAX = 1_000
/** An interval may be longer than a timer can be. */
const LOOK_AGAIN_MS = 60_000

export const UNTHROTTLED: RecoveryThrottling = { max: 0, intervalMs: 0 }

export interface PaceOptions {
  readonly clock: Clock
  readonly disks: () => number
  readonly throttling?: RecoveryThrottling
}

type Go = (mayWork: boolean) => void

export class Pace {
  readonly #clock: Clock
  readonly #disks: () => number
  #throttling: RecoveryThrottling
  #held = false
  #waiting: Go[] = []
  #underWay = 0
  /** Operations of clients so far, and how many there had been at the last look. */
  #operations = 0
  #operationsSeen = 0
  #inUseUntil = 0
  #restUntil = 0
  /** The throttling's interval that runs, and objects begun in it. */
  #intervalStart = 0
  #begunInInterval = 0
  #cancelTimer: (() => void) | undefined

  constructor(options: PaceOptions) {
    this.#clock = options.clock
    this.#disks = options.disks
    this.#throttling = options.throttling ?? UNTHROTTLED
  }

  get throttling(): RecoveryThrottling {
    return this.#throttling
  }

  /** From now on, for what waits as well. */
  throttle(throttling: RecoveryThrottling): void {
    this.#throttling = throttling
    this.#intervalStart = this.#clock.monotonic()
    this.#begunInInterval = 0
    this.#pump()
  }

  /** Nothing begins while it is held. */
  hold(held: boolean): void {
    this.#held = held
    this.#pump()
  }

  /** A client's operation on this node's disks; on the data path, so it only counts. */
  clientOperation(): void {
    this.#operations++
  }

  /** Waits for leave to work on one object, and gives what to call when it is done. Undefined: called off. */
  async turn(): Promise<(() => void) | undefined> {
    const mayWork = await new Promise<boolean>((go) => {
      this.#waiting.push(go)
      this.#pump()
    })
    if (!mayWork) return undefined
    const begun = this.#clock.monotonic()
    return () => {
      const now = this.#clock.monotonic()
      this.#underWay--
      this.#restUntil = now + Math.min(REST_SHARE * (now - begun), REST_MS_MAX)
      this.#pump()
    }
  }

  /** Whoever waits is sent away: its work is no longer wanted. */
  callOff(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const go of waiting) go(false)
  }

  #pump(): void {
    this.#cancelTimer?.()
    this.#cancelTimer = undefined
    while (this.#waiting.length > 0 && !this.#held) {
      const waitMs = this.#waitMs()
      if (waitMs === undefined) return
      if (waitMs > 0) {
        this.#cancelTimer = this.#clock.after(Math.ceil(Math.min(waitMs, LOOK_AGAIN_MS)), () => {
          this.#cancelTimer = undefined
          this.#pump()
        })
        return
      }
      this.#underWay++
      this.#begunInInterval++
      this.#waiting.shift()!(true)
    }
  }

  /** Until the next object may begin; undefined: one must end first. */
  #waitMs(): number | undefined {
    const now = this.#clock.monotonic()
    const { max, intervalMs } = this.#throttling
    if (max > 0 && intervalMs > 0) return this.#throttledMs(now, max, intervalMs)
    if (this.#isInUse(now)) return this.#underWay > 0 ? undefined : this.#restUntil - now
    const most = Math.min(OBJECTS_PER_DISK * Math.max(1, this.#disks()), OBJECTS_AT_ONCE_MAX)
    return this.#underWay < most ? 0 : undefined
  }

  #throttledMs(now: number, max: number, intervalMs: number): number | undefined {
    if (this.#underWay >= Math.min(max, OBJECTS_AT_ONCE_MAX)) return undefined
    if (now - this.#intervalStart >= intervalMs) {
      this.#intervalStart = now
      this.#begunInInterval = 0
    }
    return this.#begunInInterval < max ? 0 : this.#intervalStart + intervalMs - now
  }

  #isInUse(now: number): boolean {
    if (this.#operations !== this.#operationsSeen) {
      this.#operationsSeen = this.#operations
      this.#inUseUntil = now + IN_USE_MS
    }
    return now < this.#inUseUntil
  }
}
