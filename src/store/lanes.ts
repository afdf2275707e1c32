/**
 * Order of operations on one object. What completes within its call needs no lane, it only asks whether
 * it may pass; what takes longer enters one. In a lane readers run side by side, a writer alone, and
 * everybody in the order of arrival.
 */
import type { StoredId } from '../model/oid.js'

export type Leave = () => void
type Run = (leave: Leave) => void

interface Waiter {
  readonly exclusive: boolean
  readonly run: Run
}

interface Lane {
  readers: number
  writing: boolean
  pumping: boolean
  /** Those before `served` have had their turn; taking them off one by one would move the rest. */
  waiting: Waiter[]
  served: number
}

export class Lanes {
  private readonly lanes = new Map<StoredId, Lane>()
  /** Those who want the whole store for themselves, the first one running or about to. */
  private readonly loners: Run[] = []
  private lonerRuns = false
  /** What arrived while a loner waits or runs. */
  private held: (() => void)[] = []

  /** A read that completes at once may go ahead. */
  mayRead(id: StoredId): boolean {
    if (this.loners.length > 0) return false
    if (this.lanes.size === 0) return true
    const lane = this.lanes.get(id)
    return lane === undefined || (!lane.writing && lane.served === lane.waiting.length)
  }

  /** A write that completes at once may go ahead. */
  mayWrite(id: StoredId): boolean {
    return this.loners.length === 0 && (this.lanes.size === 0 || !this.lanes.has(id))
  }

  /** Runs `run` when it is its turn; the lane is its own until it calls `leave`, once. */
  enter(id: StoredId, exclusive: boolean, run: Run): void {
    if (this.loners.length > 0) {
      this.held.push(() => this.enter(id, exclusive, run))
      return
    }
    let lane = this.lanes.get(id)
    if (lane === undefined) {
      lane = { readers: 0, writing: false, pumping: false, waiting: [], served: 0 }
      this.lanes.set(id, lane)
    }
    lane.waiting.push({ exclusive, run })
    this.pump(id, lane)
  }

  /** `enter` as a promise of the lane. */
  hold(id: StoredId, exclusive: boolean): Promise<Leave> {
    return new Promise((resolve) => this.enter(id, exclusive, resolve))
  }

  /** Waits for every lane to empty; until `leave` is called all others wait. */
  holdAll(): Promise<Leave> {
    return new Promise((resolve) => {
      this.loners.push(resolve)
      this.runLoner()
    })
  }

  private runLoner(): void {
    const run = this.loners[0]
    if (run === undefined || this.lonerRuns || this.lanes.size > 0) return
    this.lonerRuns = true
    run(() => {
      this.lonerRuns = false
      this.loners.shift()
      if (this.loners.length > 0) return this.runLoner()
      const held = this.held
      this.held = []
      for (const enter of held) enter()
    })
  }

  /** A loop, not a recursion: operations may leave before they return. */
  private pump(id: StoredId, lane: Lane): void {
    if (lane.pumping) return
    lane.pumping = true
    for (;;) {
      const next = lane.waiting[lane.served]
      if (next === undefined || lane.writing || (next.exclusive && lane.readers > 0)) break
      lane.served++
      this.begin(id, lane, next)
    }
    lane.pumping = false
    if (2 * lane.served > lane.waiting.length) {
      lane.waiting = lane.waiting.slice(lane.served)
      lane.served = 0
    }
    if (lane.waiting.length > 0 || lane.writing || lane.readers > 0) return
    this.lanes.delete(id)
    if (this.lanes.size === 0) this.runLoner()
  }

  private begin(id: StoredId, lane: Lane, { exclusive, run }: Waiter): void {
    if (exclusive) lane.writing = true
    else lane.readers++
    run(() => {
      if (exclusive) lane.writing = false
      else lane.readers--
      this.pump(id, lane)
    })
  }
}
