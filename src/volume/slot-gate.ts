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

export class SlotGate {
  #inFlight: Uint32Array
  readonly #claims = new Map<number, Claim>()

  constructor(slots: number) {
    this.#inFlight = new Uint32Array(slots)
  }

  grow(slots: number): void {
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
    this.#inFlight[slot]!++
  }

  leave(slot: number): void {
    if (--this.#inFlight[slot]! !== 0 || this.#claims.size === 0) return
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
        if (this.#inFlight[slot] === 0) continue
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
