/**
 * Time that passes as fast as the work allows. Everything a simulated machine waits for goes through one
 * of these, so nothing ever waits for real: when nobody has anything to do now, the next timer is due.
 */
import type { Clock } from '../../../src/world/world.js'

interface Timer {
  readonly at: number
  readonly order: number
  readonly run: () => void
  called: boolean
}

const START_MS = 1_700_000_000_000
/** Turns without work before time jumps: promise chains of the test itself get to continue. */
const IDLE_TURNS = 3

export class VirtualClock implements Clock {
  #nowMs = START_MS
  #order = 0
  #idle = 0
  #running = false
  #soon: (() => void)[] = []
  readonly #timers: Timer[] = []

  now(): number {
    return this.#nowMs
  }

  monotonic(): number {
    return this.#nowMs - START_MS
  }

  after(delayMs: number, run: () => void): () => void {
    const timer = { at: this.#nowMs + delayMs, order: this.#order++, run, called: false }
    this.#insert(timer)
    this.#wake()
    return () => {
      timer.called = true
    }
  }

  soon(fn: () => void): void {
    this.#soon.push(fn)
    this.#wake()
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.after(ms, resolve))
  }

  /** Resolves when `holds` has been true for `quietMs`; rejects with `what` after `limitMs`. */
  async until(
    what: string,
    holds: () => boolean,
    { quietMs = 0, limitMs = 120_000 } = {},
  ): Promise<void> {
    const deadline = this.#nowMs + limitMs
    let since: number | undefined
    for (;;) {
      since = holds() ? (since ?? this.#nowMs) : undefined
      if (since !== undefined && this.#nowMs - since >= quietMs) return
      if (this.#nowMs > deadline) throw new Error(`it never came to this: ${what}`)
      await this.sleep(10)
    }
  }

  #before(a: Timer, b: Timer): boolean {
    return a.at < b.at || (a.at === b.at && a.order < b.order)
  }

  /** A binary heap: long runs have thousands of timers waiting. */
  #insert(timer: Timer): void {
    const heap = this.#timers
    let at = heap.push(timer) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!this.#before(timer, heap[parent]!)) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = timer
  }

  #pop(): Timer {
    const heap = this.#timers
    const first = heap[0]!
    const last = heap.pop()!
    if (heap.length === 0) return first
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && this.#before(heap[child + 1]!, heap[child]!)) child++
      if (!this.#before(heap[child]!, last)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = last
    return first
  }

  #wake(): void {
    this.#idle = 0
    if (this.#running) return
    this.#running = true
    setImmediate(this.#turn)
  }

  readonly #turn = (): void => {
    const soon = this.#soon
    this.#soon = []
    for (const fn of soon) fn()
    while (this.#timers[0]?.called === true) this.#pop()
    const next = this.#timers[0]
    if (soon.length === 0 && next !== undefined) {
      if (next.at <= this.#nowMs) this.#fire()
      else if (this.#idle++ >= IDLE_TURNS) {
        this.#nowMs = next.at
        this.#fire()
      }
    }
    this.#running = this.#soon.length > 0 || this.#timers.length > 0
    if (this.#running) setImmediate(this.#turn)
  }

  #fire(): void {
    while (this.#timers[0] !== undefined && this.#timers[0].at <= this.#nowMs) {
      const { run, called } = this.#pop()
      if (!called) run()
    }
    this.#idle = 0
  }
}
