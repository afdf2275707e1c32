/**
 * A hole is read out of what is remembered. That it is still true is something only the sheep can say, which knows whether it
 * belongs to the living cluster; so it is asked, once for all who want to know at the time. Each answer is good for those who
 * asked before it was given, and for nobody later.
 */
import { Code, type Done } from '../base/codes.js'
import type { Clock } from '../world/world.js'

const AGAIN_MS = 200

interface Waiting {
  readonly go: () => void
  readonly fail: Done
}

export class Sureness {
  readonly #ask: (done: Done) => void
  readonly #clock: Clock
  #waiting: Waiting[] = []
  #asking = false
  /** True while those are called whom the last answer is for. */
  isSure = false

  /** `ask` ends with SUCCESS when the sheep is sure, AGAIN when it is not. */
  constructor(ask: (done: Done) => void, clock: Clock) {
    this.#ask = ask
    this.#clock = clock
  }

  whenSure(go: () => void, fail: Done): void {
    this.#waiting.push({ go, fail })
    if (!this.#asking) this.#start()
  }

  #start(): void {
    const served = this.#waiting
    this.#waiting = []
    this.#asking = true
    this.#ask((code) => {
      if (code === Code.AGAIN) {
        this.#waiting.unshift(...served)
        this.#clock.after(AGAIN_MS, () => this.#start())
        return
      }
      this.#asking = false
      this.isSure = code === Code.SUCCESS
      for (const { go, fail } of served) {
        if (code === Code.SUCCESS) go()
        else fail(code)
      }
      this.isSure = false
      if (this.#waiting.length > 0 && !this.#asking) this.#start()
    })
  }
}
