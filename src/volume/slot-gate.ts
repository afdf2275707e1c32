/**
 * Who may touch an object right now. I/O on an object is counted in and out; a change of what its
 * slot names claims the slot, waits for the I/O in flight, and keeps later operations waiting in order.
 */

interface Claim {
  /** Operations to run again once the slot is free. */
  readonly waiting: (() => void)[]
  /** What the holder does when the last I/O in flight has ended. */
  idle: (() => void) | undefined
}

type Counts = Uint32Array | SparseCounts

/** Of the slots in use. */
class SparseCounts {
  readonly #counts = new Map<number, number>()

  of(slot: number): number {
    return this.#counts.get(slot) ?? 0
  }

  add(slot: number, amount: 1 | -1): number {
    const count = this.of(slot) + amount
    if (count === 0) this.#counts.delete(slot)
    else this.#counts.set(slot, count)
    return count
  }
}

export class SlotGate {
  #inFlight: Counts
  readonly #claims = new Map<number, Claim>()

  /** `slots` 'any': too many to count each one all the time. */
  constructor(slots: number | 'any') {
    this.#inFlight = slots === 'any' ? new SparseCounts() : new Uint32Array(slots)
  }

  grow(slots: number): void {
    if (this.#inFlight instanceof SparseCounts) return
    const grown = new Uint32Array(slots)
    grown.set(this.#inFlight)
    this.#inFlight = grown
  }

  isClaimed(slot: number): boolean {
    return this.#claims.size !== 0 && this.#claims.has(slot)
  }

  /** Runs `again` when the slot, claimed at present, is free; it has to look again then. */
  whenFree(slot: number, again: () => void): void {
    this.#claims.get(slot)!.waiting.push(again)
  }

  /** Counts an I/O in. The slot is not claimed. */
  enter(slot: number): void {
    const counts = this.#inFlight
    if (counts instanceof SparseCounts) counts.add(slot, 1)
    else counts[slot]!++
  }

  leave(slot: number): void {
    const counts = this.#inFlight
    const left = counts instanceof SparseCounts ? counts.add(slot, -1) : --counts[slot]!
    if (left !== 0 || this.#claims.size === 0) return
    const claim = this.#claims.get(slot)
    const idle = claim?.idle
    if (claim === undefined || idle === undefined) return
    claim.idle = undefined
    idle()
  }

  /**
   * Claims [first, end), waits until no I/O is in flight there and calls `then`, possibly before it
   * returns. Slots are claimed in ascending order, so that two claims never wait for each other.
   */
  claim(first: number, end: number, then: () => void): void {
    let slot = first
    const take = (): void => {
      for (; slot < end; slot++) {
        if (this.#claims.has(slot)) {
          this.whenFree(slot, take)
          return
        }
        this.#claims.set(slot, { waiting: [], idle: undefined })
      }
      slot = first
      drain()
    }
    const drain = (): void => {
      for (; slot < end; slot++) {
        const counts = this.#inFlight
        const count = counts instanceof SparseCounts ? counts.of(slot) : counts[slot]
        if (count === 0) continue
        this.#claims.get(slot)!.idle = drain
        return
      }
      then()
    }
    take()
  }

  /** Frees [first, end), then runs again what waited there, in order. */
  release(first: number, end: number): void {
    const waiting: (() => void)[] = []
    for (let slot = first; slot < end; slot++) {
      waiting.push(...this.#claims.get(slot)!.waiting)
      this.#claims.delete(slot)
    }
    for (const again of waiting) again()
  }
}
