/** Writes under way on this gateway, by volume: a snapshot waits until there are none. */
import type { Vid } from '../model/oid.js'

interface OfVolume {
  inFlight: number
  readonly waiters: (() => void)[]
}

export class Traffic {
  readonly #volumes = new Map<Vid, OfVolume>()

  begin(vid: Vid): void {
    const volume = this.#volumes.get(vid)
    if (volume === undefined) this.#volumes.set(vid, { inFlight: 1, waiters: [] })
    else volume.inFlight++
  }

  end(vid: Vid): void {
    const volume = this.#volumes.get(vid)
    if (volume === undefined || --volume.inFlight > 0) return
    this.#volumes.delete(vid)
    for (const waiter of volume.waiters) waiter()
  }

  /** Calls `done` when no write of the volume is under way. */
  drain(vid: Vid, done: () => void): void {
    const volume = this.#volumes.get(vid)
    if (volume === undefined) done()
    else volume.waiters.push(done)
  }
}
