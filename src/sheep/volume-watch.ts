/** Who wants to hear that a volume grew, became a snapshot or was deleted. */
import type { Vid } from '../model/oid.js'

export class VolumeWatch {
  readonly #listeners = new Map<Vid, Set<() => void>>()

  /** Calls `changed` until the returned function is called. */
  watch(vid: Vid, changed: () => void): () => void {
    const listeners = this.#listeners.get(vid) ?? new Set()
    this.#listeners.set(vid, listeners.add(changed))
    return () => {
      listeners.delete(changed)
      if (listeners.size === 0) this.#listeners.delete(vid)
    }
  }

  /** Somebody here has it open. */
  isWatched(vid: Vid): boolean {
    return this.#listeners.has(vid)
  }

  changed(vid: Vid): void {
    for (const changed of this.#listeners.get(vid) ?? []) changed()
  }
}
