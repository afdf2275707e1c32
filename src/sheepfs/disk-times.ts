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
  /** Of the last write through this mount. */
  serial: number
}

export class DiskTimes {
  readonly #clock: Clock
  readonly #times = new Map<string, Time>()
  #serial = 0
  /** Of writes nobody remembers singly. */
  #forgotten = 0

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
    const ms = this.#clock.now()
    this.#remember(name, { ms, lookedAt: now, serial: this.serial(name) })
    return ms
  }

  /** Another number after each write through this mount: what was found out before is old then. */
  serial(name: string): number {
    return this.#times.get(name)?.serial ?? this.#forgotten
  }

  written(name: string): void {
    const serial = ++this.#serial
    this.#remember(name, { ms: this.#clock.now(), lookedAt: this.#clock.monotonic(), serial })
  }

  #remember(name: string, time: Time): void {
    if (this.#times.size >= REMEMBERED_MAX && !this.#times.has(name)) {
      this.#times.clear()
      this.#forgotten = ++this.#serial
    }
    this.#times.set(name, time)
  }
}
