/**
 * Which connections of this node have used which volumes. A client remembers a volume by its id: while one may, the id
 * must not become another volume's. What has said nothing of a volume yet may be a client that has connected again.
 */
import type { Vid } from '../model/oid.js'
import type { Caller } from './caller.js'

/** Of one connection; whoever uses more (a listing of all volumes) is taken to use any. */
const VIDS_MAX = 4096

export class VidUsers {
  readonly #used = new Map<Caller, Set<Vid>>()

  arrived(caller: Caller): void {
    this.#used.set(caller, new Set())
    caller.onLeave(() => this.#used.delete(caller))
  }

  used(caller: Caller, vid: Vid): void {
    const vids = this.#used.get(caller)
    if (vids !== undefined && vids.size < VIDS_MAX) vids.add(vid)
  }

  /** True when some client may remember one of them. */
  mayUse(vids: readonly Vid[]): boolean {
    for (const [caller, used] of this.#used) {
      // Another node's gateway asks its own clients.
      if (caller.origin !== undefined) continue
      if (used.size === 0 || used.size === VIDS_MAX) return true
      if (vids.some((vid) => used.has(vid))) return true
    }
    return false
  }
}
