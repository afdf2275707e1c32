/** Messages to a group in order, kept while corosync's flow control says "not now". */
import { Code, SheepError } from '../../base/codes.js'
import type { Group } from '../../world/corosync.js'
import type { Clock } from '../../world/world.js'

/** More than this means that the ring has stopped turning. */
const WAITING_BYTES_MAX = 16 * 1024 * 1024
const RETRY_MIN_MS = 2
const RETRY_MAX_MS = 50

export class Outlet {
  readonly #group: Group
  readonly #clock: Clock
  #waiting: (readonly Buffer[])[] = []
  #kept: (readonly Buffer[])[] = []
  #bytes = 0
  #retryMs = RETRY_MIN_MS
  #cancel: (() => void) | undefined

  constructor(group: Group, clock: Clock) {
    this.#group = group
    this.#clock = clock
  }

  /** What was sent last has not left yet: the ring stands still or is busy. */
  get isWaiting(): boolean {
    return this.#waiting.length > 0
  }

  /** Throws AGAIN, and sends nothing, when too much waits already. */
  send(parts: readonly Buffer[]): void {
    this.#count(parts)
    this.#waiting.push(parts)
    if (this.#cancel === undefined) this.#drain()
  }

  /** Sends it after `release`; throws as `send`. */
  keep(parts: readonly Buffer[]): void {
    this.#count(parts)
    this.#kept.push(parts)
  }

  release(): void {
    this.#waiting.push(...this.#kept.splice(0))
    if (this.#cancel === undefined) this.#drain()
  }

  #count(parts: readonly Buffer[]): void {
    const bytes = sizeOf(parts)
    if (this.#bytes + bytes > WAITING_BYTES_MAX) {
      throw new SheepError(Code.AGAIN, 'too many cluster messages wait to be ordered')
    }
    this.#bytes += bytes
  }

  stop(): void {
    this.#cancel?.()
    this.#cancel = () => undefined
    this.#waiting = []
    this.#kept = []
  }

  #drain(): void {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      const said = this.#group.send(first)
      if (said === 'busy') {
        this.#cancel = this.#clock.after(this.#retryMs, () => {
          this.#cancel = undefined
          this.#drain()
        })
        this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MAX_MS)
        return
      }
      // A closed connection tells so itself; what could not be sent was never ordered.
      this.#waiting.shift()
      this.#bytes -= sizeOf(first)
      this.#retryMs = RETRY_MIN_MS
    }
  }
}

function sizeOf(parts: readonly Buffer[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0)
}
