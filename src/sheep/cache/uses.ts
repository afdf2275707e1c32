/** Which volumes' objects this node has used for its clients, and the writes among that which are under way. */
import type { Vid } from '../../model/oid.js'

interface Use {
  writes: number
  readonly waiters: (() => void)[]
}

export class Uses {
  readonly #volumes = new Map<Vid, Use>()

  touch(vid: Vid): void {
    if (!this.#volumes.has(vid)) this.#volumes.set(vid, { writes: 0, waiters: [] })
  }

  begin(vid: Vid): void {
    const use = this.#volumes.get(vid)
    if (use === undefined) this.#volumes.set(vid, { writes: 1, waiters: [] })
    else use.writes++
  }

  end(vid: Vid): void {
    const use = this.#volumes.get(vid)!
    if (--use.writes > 0) return
    for (const waiter of use.waiters.splice(0)) waiter()
  }

  /** Used since `forget`, or since this node began. */
  isUsed(vid: Vid): boolean {
    return this.#volumes.has(vid)
  }

  /** Calls `done` when no write is under way. */
  whenIdle(vid: Vid, done: () => void): void {
    const use = this.#volumes.get(vid)
    if (use === undefined || use.writes === 0) done()
    else use.waiters.push(done)
  }

  /** Somebody else has the volume for himself from now on. No write is under way. */
  forget(vid: Vid): void {
    if (this.#volumes.get(vid)?.writes === 0) this.#volumes.delete(vid)
  }
}
