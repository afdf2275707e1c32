/**
 * When a working VDI was written last nobody knows: it may be in use by a guest elsewhere. So it counts as just written, or a backup
 * would pass it by. But programs look several times at a file they read, and must not see it change under their hands: the time stands still
 * while somebody has the disk open or has looked at it a moment ago, unless it is written through this mount.
 */
import type { Clock } from '../world/world.js'

const STANDS_STILL_MS = 5_000
const REMEMBERED_MAX = 10_000

interface Time {
  ms: number
  lookedAt: number
}

export class DiskTimes {
  readonly #clock: Clock
  readonly #times = new Map<string, Time>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Milliseconds since 1970. */
  look(name: string, isOpen = false): number {
    const now = this.#clock.monotonic()
    const known = this.#times.get(name)
    if (known !== undefined && (isOpen || now - known.lookedAt < STANDS_STILL_MS)) {
      known.lookedAt = now
      return known.ms
    }
    if (this.#times.size >= REMEMBERED_MAX) this.#times.clear()
    const ms = this.#clock.now()
    this.#times.set(name, { ms, lookedAt: now })
    return ms
  }

  written(name: string): void {
    this.#times.set(name, { ms: this.#clock.now(), lookedAt: this.#clock.monotonic() })
  }
}
