/**
 * What becomes of members that are not heard of and may live: a step machine, fed with what the group orders.
 *
 * A tear begins with the first loss and a common ground: the members there were, and the number of what they had seen
 * (history.ts). From then on nothing counts on any side. It ends in one of two ways:
 *
 *  - The part goes on without the others. Who has missed one for GRACE_MS and is sure of itself says, in order, that it
 *    never takes that one back ("final"). When enough have said so of everybody who is missing (votes.ts), they are gone.
 *  - The parts find each other. After every change of the group each member says where it stands. When all in the
 *    group that come from the same ground have said so, those who have seen the same are one part again, if they are
 *    enough by themselves; with nobody missing any more it is as if nothing had happened.
 *
 * Never both: who goes on has heard `final` from enough members, who takes back needs enough that have not said it, and
 * both have a member in common. What a member has said it cannot be behind itself: a stand that is delivered after
 * a `final` of the same sender was sent after it.
 *
 * All that decides is in the one order of the group, so all that are in one ring decide alike. Times are only those at
 * which somebody speaks: `final`, or against one whose process does not say where it stands.
 */
import type { ProcessId } from '../../world/corosync.js'
import { type ProcessKey, processKey } from './message.js'
import type { Stand } from './stand.js'

/** A process that does not say for so long where it stands is stopped, most likely. */
export const TARDY_MS = 5_000

interface Missing {
  readonly process: ProcessId
  /** When this member may say that it is gone. */
  readonly dueAt: number
  /** This member has said so. */
  isTold: boolean
}

export interface Ground {
  readonly self: ProcessId
  /** Before the tear. */
  readonly members: readonly ProcessId[]
  readonly history: bigint
  /** Whether these were enough of the members to go on. */
  wereEnough(alive: ReadonlySet<ProcessKey>): boolean
}

/** Parts that are one again. */
export interface Reunion {
  readonly returned: readonly ProcessId[]
  readonly missing: readonly ProcessId[]
}

export class Tear {
  readonly #ground: Ground
  readonly #members: ReadonlyMap<ProcessKey, ProcessId>
  readonly #missing = new Map<ProcessKey, Missing>()
  /** Went in this part, or live anew: nobody can take them back. */
  readonly #gone = new Set<ProcessKey>()
  /** Whom each one has called gone for good. */
  readonly #finals = new Map<ProcessKey, Set<ProcessKey>>()
  // Of the group as it is:
  #group: ReadonlySet<ProcessKey> = new Set()
  #stands = new Map<ProcessKey, Stand>()
  #against = new Set<ProcessKey>()
  #changedAt = 0
  #isDecided = false
  /** The same on all of a part. */
  #reunions = 0

  constructor(ground: Ground) {
    this.#ground = ground
    this.#members = new Map(ground.members.map((process) => [processKey(process), process]))
  }

  /** Members before the tear. */
  get size(): number {
    return this.#members.size
  }

  get missing(): ProcessId[] {
    return [...this.#missing.values()].map(({ process }) => process)
  }

  /** These are not heard of any more; at `dueAt` nobody takes them for members any more but they themselves. */
  lose(processes: readonly ProcessId[], dueAt: number): void {
    for (const process of processes) {
      const key = processKey(process)
      if (this.#missing.has(key) || !this.#members.has(key)) continue
      this.#missing.set(key, { process, dueAt, isTold: false })
    }
  }

  /** Its process has left or died, or begins anew, or is left behind. */
  gone(process: ProcessId): void {
    const key = processKey(process)
    if (this.#members.has(key)) this.#gone.add(key)
  }

  /** The group is another one: what was said in the one before decides nothing any more. */
  changed(group: readonly ProcessId[], now: number): void {
    this.#group = new Set(group.map(processKey))
    this.#stands = new Map()
    this.#against = new Set()
    this.#changedAt = now
    this.#isDecided = false
  }

  /** What this member has to say after each change. */
  stand(): Stand {
    const own = this.#finals.get(processKey(this.#ground.self)) ?? []
    const keys = [...new Set([...own, ...this.#gone])]
    const against = keys.flatMap((key) => this.#members.get(key) ?? [])
    return {
      kind: 'stand',
      history: this.#ground.history,
      reunions: this.#reunions,
      against,
      missing: this.missing,
    }
  }

  /** What this member has to say now: whom it never takes back, once each. */
  final(now: number, isSure: boolean): Stand | undefined {
    const due = [...this.#missing.values()].filter(({ dueAt, isTold }) => !isTold && dueAt <= now)
    if (due.length === 0 || !isSure) return undefined
    for (const one of due) one.isTold = true
    const against = due.map(({ process }) => process)
    return {
      kind: 'final',
      history: this.#ground.history,
      reunions: this.#reunions,
      against,
      missing: [],
    }
  }

  /** Whether it waits for somebody in the group who does not say where it stands; then these are given up. */
  giveUpTardy(now: number): boolean {
    const self = processKey(this.#ground.self)
    if (this.#isDecided || !this.#stands.has(self) || now - this.#changedAt < TARDY_MS) return false
    // A part that meets nobody it lacks has nothing to decide.
    if (![...this.#missing.keys()].some((key) => this.#group.has(key))) return false
    const tardy = this.#awaited().filter((key) => !this.#stands.has(key))
    const isNew = tardy.some((key) => !this.#gone.has(key))
    for (const key of tardy) this.#gone.add(key)
    return isNew
  }

  /** `outside`: the others do not take this member back. */
  said(from: ProcessId, stand: Stand): Reunion | 'outside' | undefined {
    const key = processKey(from)
    if (!this.#members.has(key)) return undefined
    const against = stand.against.map(processKey)
    // What was said before parts were one again, and comes after, means nothing.
    if (stand.kind === 'final' && stand.reunions === this.#reunions) this.#call(key, against)
    if (stand.history === this.#ground.history) {
      if (against.includes(processKey(this.#ground.self))) return 'outside'
      for (const one of against) this.#against.add(one)
    }
    if (stand.kind === 'stand') this.#stands.set(key, stand)
    return this.#reunion()
  }

  #call(by: ProcessKey, gone: readonly ProcessKey[]): void {
    const all = this.#finals.get(by) ?? new Set()
    for (const one of gone) all.add(one)
    this.#finals.set(by, all)
  }

  /** Whether everybody who is missing is gone for good. */
  isOver(areEnough: (alive: ReadonlySet<ProcessKey>) => boolean): boolean {
    const callers = [...this.#finals].filter(([by]) => !this.#missing.has(by))
    return [...this.#missing.keys()].every((key) =>
      areEnough(new Set(callers.flatMap(([by, gone]) => (gone.has(key) ? [by] : [])))),
    )
  }

  /** Members in the group whom nobody there is against. */
  #awaited(): ProcessKey[] {
    return [...this.#group].filter((key) => this.#members.has(key) && !this.#against.has(key))
  }

  #reunion(): Reunion | undefined {
    const awaited = this.#awaited()
    if (this.#isDecided || !awaited.every((key) => this.#stands.has(key))) return undefined
    this.#isDecided = true
    const { history, wereEnough } = this.#ground
    const part = awaited.filter((key) => this.#stands.get(key)?.history === history)
    const isTorn = part.some((key) =>
      this.#stands.get(key)?.missing.some((process) => part.includes(processKey(process))),
    )
    if (!isTorn || !part.includes(processKey(this.#ground.self))) return undefined
    return wereEnough(new Set(part)) ? this.#unite(part) : undefined
  }

  #unite(part: readonly ProcessKey[]): Reunion {
    const here = new Set(part)
    const returned = this.missing.filter((process) => here.has(processKey(process)))
    for (const key of here) this.#missing.delete(key)
    const known = part.map((key) => this.#stands.get(key)?.reunions ?? 0)
    this.#reunions = 1 + Math.max(...known)
    // Who has returned has not heard it.
    this.#finals.clear()
    for (const one of this.#missing.values()) one.isTold = false
    const missing = [...this.#members].flatMap(([key, one]) => (here.has(key) ? [] : [one]))
    return { returned, missing }
  }
}
