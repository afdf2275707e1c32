/**
 * Order of operations on parts of coded objects inside one gateway. A write of a part of a stripe reads the rest of
 * it first, and every write reaches its fragments one by one: others on the same stripes wait until it is over, so
 * that none is lost and no read mixes two of them. Operations on other stripes go side by side; among those that
 * overlap the order of arrival is kept.
 */
import type { Oid } from '../model/oid.js'

export interface Part {
  /** Stripes [from, to). */
  readonly from: number
  readonly to: number
  readonly exclusive: boolean
}

type Leave = () => void

interface Turn extends Part {
  readonly run: (leave: Leave) => void
  running: boolean
}

export class StripeOrder {
  /** Operations that run or wait, of each object by arrival. */
  readonly #turns = new Map<Oid, Turn[]>()

  /** Calls `run` when nothing that came before is in its way; it calls `leave` once, when it is over. */
  enter(oid: Oid, part: Part, run: (leave: Leave) => void): void {
    const turns = this.#turns.get(oid) ?? []
    this.#turns.set(oid, turns)
    const turn: Turn = { ...part, run, running: false }
    const mustWait = turns.some((other) => collide(other, turn))
    turns.push(turn)
    if (!mustWait) this.#begin(oid, turn)
  }

  #begin(oid: Oid, turn: Turn): void {
    turn.running = true
    turn.run(() => this.#leave(oid, turn))
  }

  #leave(oid: Oid, turn: Turn): void {
    const turns = this.#turns.get(oid) ?? []
    turns.splice(turns.indexOf(turn), 1)
    if (turns.length === 0) {
      this.#turns.delete(oid)
      return
    }
    // One that begins may leave at once and change the list: whoever is free by then is found by its own leave.
    const free = turns.filter(
      (one, i) => !one.running && !turns.slice(0, i).some((other) => collide(other, one)),
    )
    for (const one of free) if (!one.running) this.#begin(oid, one)
  }
}

function collide(a: Part, b: Part): boolean {
  return (a.exclusive || b.exclusive) && a.from < b.to && b.from < a.to
}
