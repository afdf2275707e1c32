/**
 * Which connections of this node have used which volumes. A client remembers a volume by its id: while one may, the id
 * must not become another volume's. A connection that has said nothing at all may be such a client's, which has connected
 * again: it begins with what it had not been answered. One that begins with anything else asks for its volume anew.
 */
import type { Vid } from '../model/oid.js'
import type { Caller } from './caller.js'

/** Of one connection; whoever uses more (a listing of all volumes) is taken to use any. */
const VIDS_MAX = 4096

export class VidUsers {
  readonly #used = new Map<Caller, Set<Vid>>()
  readonly #silent = new Set<Caller>()

  arrived(caller: Caller): void {
    this.#used.set(caller, new Set())
    this.#silent.add(caller)
    caller.onLeave(() => {
      this.#used.delete(caller)
      this.#silent.delete(caller)
    })
  }

  /** It has asked for something that is of no volume, or names it. */
  spoke(caller: Caller): void {
    this.#silent.delete(caller)
  }

  used(caller: Caller, vid: Vid): void {
    this.#silent.delete(caller)
    const vids = this.#used.get(caller)
    if (vids !== undefined && vids.size < VIDS_MAX) vids.add(vid)
  }

  /** True when some client may remember one of them. */
  mayUse(vids: readonly Vid[]): boolean {
    for (const [caller, used] of this.#used) {
      // Another node's gateway asks its own clients.
      if (caller.origin !== undefined) continue
      if (this.#silent.has(caller) || used.size === VIDS_MAX) return true
      if (vids.some((vid) => used.has(vid))) return true
    }
    return false
  }
}
