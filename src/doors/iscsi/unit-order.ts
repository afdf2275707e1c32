/**
 * The order of commands of one logical unit (SAM-5, 8.7): simple ones go on beside each other, an ORDERED one waits until
 * all before it are over, and those after it wait for it.
 */

interface Waiting {
  readonly isOrdered: boolean
  readonly go: () => void
}

export class UnitOrder {
  #active = 0
  #isOrdered = false
  #waiting: Waiting[] = []
  #isGoing = false

  /** Calls `go` when its turn has come, possibly now; `leave` is called once after that. */
  enter(isOrdered: boolean, go: () => void): void {
    if (this.#waiting.length > 0 || this.#isOrdered || (isOrdered && this.#active > 0)) {
      this.#waiting.push({ isOrdered, go })
      return
    }
    this.#start(isOrdered, go)
  }

  leave(): void {
    this.#active--
    if (this.#active === 0) this.#isOrdered = false
    // Whoever is let go may be over at once, and come here again.
    if (this.#isGoing || this.#waiting.length === 0) return
    this.#isGoing = true
    for (;;) {
      const [first] = this.#waiting
      if (first === undefined || this.#isOrdered) break
      if (first.isOrdered && this.#active > 0) break
      this.#waiting.shift()
      this.#start(first.isOrdered, first.go)
    }
    this.#isGoing = false
  }

  #start(isOrdered: boolean, go: () => void): void {
    this.#active++
    this.#isOrdered = isOrdered
    go()
  }
}
