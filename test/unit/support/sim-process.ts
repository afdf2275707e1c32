/** A process on a simulated machine: it can die, and be stopped and continued (SIGSTOP, SIGCONT). */
import type { VirtualClock } from './virtual-clock.js'

export class SimProcess {
  readonly #clock: VirtualClock
  readonly #pending: (() => void)[] = []
  #alive = true
  #stopped = false
  #catchingUp = false

  constructor(clock: VirtualClock) {
    this.#clock = clock
  }

  get alive(): boolean {
    return this.#alive
  }

  /** Whatever happens to the process comes through here: timers, bytes, disks. In order. */
  readonly run = (fn: () => void): void => {
    if (!this.#alive) return
    if (this.#stopped || this.#catchingUp) this.#pending.push(fn)
    else fn()
  }

  die(): void {
    this.#alive = false
    this.#pending.length = 0
  }

  stop(): void {
    this.#stopped = true
  }

  continue(): void {
    this.#stopped = false
    if (this.#catchingUp) return
    this.#catchingUp = true
    this.#next()
  }

  #next(): void {
    this.#clock.soon(() => {
      if (this.#stopped) {
        this.#catchingUp = false
        return
      }
      const fn = this.#pending.shift()
      if (fn === undefined) {
        this.#catchingUp = false
        return
      }
      fn()
      this.#next()
    })
  }
}
