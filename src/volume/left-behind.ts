/**
 * Changes whose client has gone while they were under way. Who loses a connection sends what was not answered again on the next
 * one, and goes on: a change of the old connection that was held up (by a node that is away, say) would then come over newer
 * bytes. So what changes the same bytes waits until it has ended; what waits itself when its client goes is never begun.
 */

/** Bytes of a volume. */
export interface Change {
  readonly offset: number
  readonly length: number
}

interface Waiting {
  readonly change: Change
  readonly begin: () => void
}

export class LeftBehind {
  readonly #changes = new Set<Change>()
  #waiting: Waiting[] = []

  /** Its client has gone; `ended` is called for it. */
  add(change: Change): void {
    this.#changes.add(change)
  }

  /** Begins a change when nothing of the kind is in its way, at once if possible. */
  begin(change: Change, begin: () => void): void {
    if (this.#changes.size === 0 || !this.#isInTheWay(change)) begin()
    else this.#waiting.push({ change, begin })
  }

  /** It need not begin any more. False when it has. */
  drop(change: Change): boolean {
    const before = this.#waiting.length
    this.#waiting = this.#waiting.filter((waiting) => waiting.change !== change)
    return this.#waiting.length < before
  }

  ended(change: Change): void {
    if (!this.#changes.delete(change) || this.#waiting.length === 0) return
    const waiting = this.#waiting
    this.#waiting = waiting.filter((one) => this.#isInTheWay(one.change))
    for (const one of waiting) if (!this.#waiting.includes(one)) one.begin()
  }

  #isInTheWay({ offset, length }: Change): boolean {
    for (const other of this.#changes) {
      if (offset < other.offset + other.length && other.offset < offset + length) return true
    }
    return false
  }
}
