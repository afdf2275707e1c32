/**
 * Until when this member may be sure that the others have not gone on without it.
 *
 * Every member sends a beat every BEAT_MS, and each beat acknowledges the newest beats of all others. When so many
 * members have acknowledged a beat that they are enough to go on only together with this one (votes.ts), this one
 * is sure until LEASE_MS after it *sent* that beat. For whoever goes on without it has to have one of
 * them, and that one acknowledged before it learned that this member is missing; from then on it waits for GRACE_MS,
 * which is longer, before it believes so. Only the speeds of two clocks are compared, never their times.
 *
 * That a message comes back to its sender would not be enough: a corosync that was stopped with the token in
 * its hand sends, and delivers to itself, in a ring the others have left long ago.
 */
import type { ProcessId } from '../../world/corosync.js'
import { type Beat, NO_INCARNATION, SILENCE } from './beat.js'
import { type ProcessKey, processKey } from './message.js'

export const BEAT_MS = 500
export const LEASE_MS = 3000
/** Longer than the lease by what clocks may differ in speed, and then some. */
export const GRACE_MS = 4000
/** Beats whose time of sending is remembered: more than a lease's worth. */
const SENT_MAX = 64

interface Heard {
  readonly incarnation: string
  readonly number: number
  /** Own beats that had come back by then. */
  readonly at: number
}

export class Lease {
  readonly #self: ProcessKey
  readonly incarnation: string
  /** When each of the newest beats was sent. */
  readonly #sent = new Map<number, number>()
  readonly #heard = new Map<ProcessKey, Heard>()
  /** The newest own beat each one has acknowledged. */
  readonly #acknowledged = new Map<ProcessKey, number>()
  /** What a process must call itself: known of those that joined later. */
  readonly #expected = new Map<ProcessKey, string>()
  readonly #evicted = new Set<string>()
  #number = 0
  #returned = 0

  constructor(self: ProcessId, incarnation: string) {
    this.#self = processKey(self)
    this.incarnation = incarnation
  }

  /** The next beat; it must be sent right away. */
  beat(now: number, members: readonly ProcessId[]): Beat {
    this.#number++
    this.#sent.set(this.#number, now)
    this.#sent.delete(this.#number - SENT_MAX)
    const entries = members.map((process) => {
      const heard = this.#heard.get(processKey(process))
      return {
        process,
        incarnation: heard?.incarnation ?? NO_INCARNATION,
        number: heard?.number ?? 0,
      }
    })
    return { ...SILENCE, incarnation: this.incarnation, number: this.#number, entries }
  }

  /** Own beats that have not come back yet. */
  get underWay(): number {
    return this.#number - this.#returned
  }

  /** Time in which the ring was seen to turn, since the first beat. */
  get turnedMs(): number {
    return this.#returned * BEAT_MS
  }

  /** A process has asked to join, calling itself so. */
  expect(process: ProcessId, incarnation: string): void {
    const key = processKey(process)
    this.forget(process)
    if (incarnation !== '' && incarnation !== NO_INCARNATION) this.#expected.set(key, incarnation)
  }

  /** What a process that asked to join called itself. */
  expectedOf(process: ProcessId): string | undefined {
    return this.#expected.get(processKey(process))
  }

  forget(process: ProcessId): void {
    const key = processKey(process)
    this.#heard.delete(key)
    this.#acknowledged.delete(key)
    this.#expected.delete(key)
  }

  /** Whose beats of now on nobody acknowledges: the order of beats is the same on all. */
  evict(incarnation: string): void {
    this.#evicted.add(incarnation)
  }

  /** False: an old one, or of somebody who does not belong here. */
  receive(from: ProcessId, beat: Beat): boolean {
    const key = processKey(from)
    const expected = this.#expected.get(key)
    if (expected !== undefined && expected !== beat.incarnation) return false
    if (this.#evicted.has(beat.incarnation)) return false
    if (key === this.#self) this.#returned = Math.max(this.#returned, beat.number)
    const { incarnation, number } = beat
    this.#heard.set(key, { incarnation, number, at: this.#returned })
    const mine = beat.entries.find(({ process }) => processKey(process) === this.#self)
    if (key === this.#self) this.#acknowledged.set(key, number)
    else if (mine?.incarnation === this.incarnation) this.#acknowledged.set(key, mine.number)
    return true
  }

  /** What the process called itself when it was heard last. */
  incarnationOf(process: ProcessId): string | undefined {
    return this.#heard.get(processKey(process))?.incarnation
  }

  /** How long it has been silent, in time the ring was seen to turn: a stopped ring silences all alike. */
  silentMs(process: ProcessId): number {
    const heard = this.#heard.get(processKey(process))
    return heard === undefined ? 0 : (this.#returned - heard.at) * BEAT_MS
  }

  /** By the clock `beat` was given. */
  sureUntil(areEnough: (alive: ReadonlySet<ProcessKey>) => boolean): number {
    const numbers = [...new Set(this.#acknowledged.values())].sort((a, b) => b - a)
    for (const number of numbers) {
      const alive = new Set<ProcessKey>()
      for (const [key, one] of this.#acknowledged) if (one >= number) alive.add(key)
      if (areEnough(alive)) return (this.#sent.get(number) ?? Number.NEGATIVE_INFINITY) + LEASE_MS
    }
    return Number.NEGATIVE_INFINITY
  }
}
