/**
 * Order between commands on one logical unit where SCSI demands it. Commands share their blocks as they like; who
 * compares and writes has its blocks alone: it waits for those before it, and those after it wait.
 */

export interface Hold {
  readonly from: number
  /** First byte behind it. */
  readonly until: number
  readonly isAlone: boolean
  readonly go: () => void
}

export class RangeGate {
  readonly #active = new Set<Hold>()
  #waiting: Hold[] = []
  /** Of both, those that want to be alone. */
  #alone = 0

  /** Calls `hold.go` when its turn has come, possibly now; `leave` is called once after that. */
  enter(hold: Hold): void {
    if (hold.isAlone) this.#alone++
    if (this.#alone > 0 && this.#isHeld(hold, this.#waiting)) {
      this.#waiting.push(hold)
      return
    }
    this.#active.add(hold)
    hold.go()
  }

  leave(hold: Hold): void {
    if (!this.#active.delete(hold)) throw new Error('left a gate twice')
    if (hold.isAlone) this.#alone--
    if (this.#waiting.length === 0) return
    const before: Hold[] = []
    const ready: Hold[] = []
    for (const one of this.#waiting) {
      if (this.#isHeld(one, before)) before.push(one)
      else {
        this.#active.add(one)
        ready.push(one)
      }
    }
    this.#waiting = before
    for (const one of ready) one.go()
  }

  #isHeld(hold: Hold, before: readonly Hold[]): boolean {
    for (const one of this.#active) if (isInTheWay(one, hold)) return true
    return before.some((one) => isInTheWay(one, hold))
  }
}

function isInTheWay(one: Hold, other: Hold): boolean {
  if (!one.isAlone && !other.isAlone) return false
  return one.from < other.until && other.from < one.until
}
