/**
 * What a process has seen of its group, as one number: two that have the same number have seen the same arrivals,
 * departures and messages in the same order. Messages of one sender come in their order and none is left out, so who sent
 * the next one says which one it was.
 *
 * A joiner counts from its arrival on; what was before it learns from its answer. What is seen while members are missing
 * (tear.ts) counts only if they stay away, and then after the loss of them.
 */
import { fnv1a64 } from '../../model/hash.js'
import type { ProcessKey } from './message.js'

type Sight = 'arrived' | 'gone' | 'lost' | 'said' | 'whole'

interface Seen {
  readonly what: Sight
  readonly process: ProcessKey
}

export class History {
  #value: bigint
  /** Seen, but not counted yet. */
  #later: Seen[] | undefined = []
  /** What had been seen when each one arrived that is there. */
  readonly #arrivals = new Map<ProcessKey, bigint>()

  /** `own`: a number nobody else has. */
  constructor(own: string) {
    this.#value = fnv1a64(Buffer.from(own))
  }

  get value(): bigint {
    return this.#value
  }

  /** With its arrival, counted by now; 0 when it has none. */
  ofArrival(process: ProcessKey): bigint {
    return this.#arrivals.get(process) ?? 0n
  }

  add(what: Sight, process: ProcessKey): void {
    const sight = { what, process }
    if (this.#later === undefined) this.#count(sight)
    else this.#later.push(sight)
  }

  /** This process has been let in by somebody who had seen `before` when it arrived; 0: by nobody who counts. */
  begin(before: bigint): void {
    if (before !== 0n) this.#value = before
    this.#countLater()
  }

  /** What is seen from now on may not count. */
  hold(): void {
    this.#later ??= []
  }

  /** Members are gone for good, and then came what was seen meanwhile. */
  goOn(lost: readonly ProcessKey[]): void {
    for (const one of lost) this.#count({ what: 'lost', process: one })
    this.#countLater()
  }

  /** What was seen meanwhile never was, but for the arrival of these. */
  rewind(arrivals: readonly ProcessKey[]): void {
    this.#later = arrivals.map((process) => ({ what: 'arrived', process }))
  }

  /** Nobody is missing any more. What is said late, of the time before, must not pass for news of another tear. */
  release(): void {
    this.#count({ what: 'whole', process: '' })
    this.#countLater()
  }

  #countLater(): void {
    const later = this.#later ?? []
    this.#later = undefined
    for (const sight of later) this.#count(sight)
  }

  #count({ what, process }: Seen): void {
    this.#value = fnv1a64(Buffer.from(`${what} ${process}\n`), this.#value)
    if (what === 'arrived') this.#arrivals.set(process, this.#value)
    else if (what === 'gone' || what === 'lost') this.#arrivals.delete(process)
  }
}
