/**
 * Fair shares between exports. While one export is busy alone it may have as much at work as its connections allow. As soon
 * as others are busy too, each has an equal part of a small window: then a request waits behind a window of work, and
 * not behind the hundreds of requests somebody else has sent ahead.
 *
 * Work is counted in pieces of 64 KiB, begun ones whole. A connection that finds its export's part used up stops
 * reading and is called when there is room; which connection of one export goes first changes from time to time.
 */
import { LeftBehind } from '../../volume/left-behind.js'

/** Pieces at work for all exports together, while several are busy. */
const WINDOW_PIECES = 64
/** An export has at least so many, however many others there are. */
const PART_PIECES_MIN = 4
const PIECE_SHIFT = 16
/** An export counts as busy so long after its last request: a guest with one request at a time is busy all the while. */
const BUSY_MS = 1_000
/** How old the count of busy exports may be. */
const RECOUNT_MS = 50

export class FairShares {
  readonly #now: () => number
  readonly #shares = new Map<string, Share>()

  /** `now`: milliseconds that never go back. */
  constructor(now: () => number) {
    this.#now = now
  }

  /** One user more of the export's share; give it back with `leave`. */
  enter(exportName: string): Share {
    let share = this.#shares.get(exportName)
    if (share === undefined) {
      share = new Share(this.#now, (now) => this.#partAt(now))
      this.#shares.set(exportName, share)
    }
    share.users++
    return share
  }

  leave(exportName: string): void {
    const share = this.#shares.get(exportName)
    if (share !== undefined && --share.users === 0) this.#shares.delete(exportName)
  }

  #partAt(now: number): number {
    let busy = 0
    for (const share of this.#shares.values()) if (share.isBusy(now)) busy++
    return busy < 2 ? Infinity : Math.max(PART_PIECES_MIN, Math.floor(WINDOW_PIECES / busy))
  }
}

/** What one export has at work. */
export class Share {
  users = 0
  readonly leftBehind = new LeftBehind()
  readonly #now: () => number
  readonly #partAt: (now: number) => number
  readonly #waiting = new Set<() => void>()
  #used = 0
  #part = Infinity
  #countedAt = Number.NEGATIVE_INFINITY
  #lastAt = Number.NEGATIVE_INFINITY

  constructor(now: () => number, partAt: (now: number) => number) {
    this.#now = now
    this.#partAt = partAt
  }

  /** Something of the export at work, or waiting, or not long ago. */
  isBusy(now: number): boolean {
    return this.#used > 0 || now - this.#lastAt < BUSY_MS
  }

  /** Called when requests arrive, once for all of a turn. */
  touch(): void {
    const now = this.#now()
    this.#lastAt = now
    if (now - this.#countedAt < RECOUNT_MS) return
    this.#countedAt = now
    this.#part = this.#partAt(now)
  }

  /** Whether one request more may begin, however large. */
  hasRoom(): boolean {
    return this.#used < this.#part
  }

  /** Calls `again` once as soon as there may be room. */
  wait(again: () => void): void {
    this.#waiting.add(again)
  }

  /** Who waits is gone. */
  forget(again: () => void): void {
    this.#waiting.delete(again)
  }

  /** Returns what `end` is to be told. */
  begin(bytes: number): number {
    const pieces = 1 + Math.floor(bytes / 2 ** PIECE_SHIFT)
    this.#used += pieces
    return pieces
  }

  end(pieces: number): void {
    this.#used -= pieces
    if (this.#waiting.size === 0 || !this.hasRoom()) return
    const called = [...this.#waiting]
    this.#waiting.clear()
    for (const again of called) again()
  }
}
