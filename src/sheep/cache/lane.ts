/** One after the other: what works on one cached object. */

export class Lane {
  readonly #queue: (() => void)[] = []
  #busy = false
  #turning = false

  /** Nobody is in it and nobody waits. */
  get isIdle(): boolean {
    return !this.#busy && this.#queue.length === 0
  }

  /** Runs `work` when its turn comes, maybe at once; it calls `leave` once when it has ended. */
  enter(work: () => void): void {
    this.#queue.push(work)
    this.#turn()
  }

  leave(): void {
    this.#busy = false
    this.#turn()
  }

  /** Work that ends at once does not pile up on the stack. */
  #turn(): void {
    if (this.#turning) return
    this.#turning = true
    while (!this.#busy) {
      const work = this.#queue.shift()
      if (work === undefined) break
      this.#busy = true
      work()
    }
    this.#turning = false
  }
}
