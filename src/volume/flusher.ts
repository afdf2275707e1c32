/** One flush for many who wait: a flush that has not begun yet serves everybody who asked. */
import { Code, type Done } from '../base/codes.js'
import type { ObjectAccess } from '../model/access.js'
import type { Vid } from '../model/oid.js'
import type { SlotTable } from './slot-table.js'
import { spread } from './spread.js'
import type { WorkingVdi } from './working-vdi.js'

export class Flusher {
  readonly #objects: ObjectAccess
  readonly #table: SlotTable
  readonly #working: WorkingVdi
  #waiting: Done[] = []
  #running = false

  constructor(objects: ObjectAccess, table: SlotTable, working: WorkingVdi) {
    this.#objects = objects
    this.#table = table
    this.#working = working
  }

  /** Everything completed before this call is durable before `done`. */
  flush(done: Done): void {
    this.#waiting.push(done)
    if (!this.#running) this.#start()
  }

  /**
   * Writes may have gone to VDIs that are snapshots by now: those are flushed as well, once, because
   * no change is in flight on a VDI when the volume leaves it.
   */
  #start(): void {
    const served = this.#waiting
    const { unflushed, vid } = this.#working
    const earlier = [...unflushed]
    const vids: readonly Vid[] = [...earlier, vid]
    this.#waiting = []
    this.#running = true
    this.#table.beginFlush()
    const flushOne = (index: number, done: Done): void => this.#objects.flush(vids[index]!, done)
    spread(vids.length, vids.length, flushOne, (code) => {
      this.#table.endFlush(code === Code.SUCCESS)
      if (code === Code.SUCCESS) for (const past of earlier) unflushed.delete(past)
      this.#running = false
      if (this.#waiting.length > 0) this.#start()
      for (const done of served) done(code)
    })
  }
}
