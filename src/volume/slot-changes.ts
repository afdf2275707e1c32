/**
 * Changes of what slots name: giving a hole or an inherited slot an object of its own, taking
 * objects out, making earlier updates durable. Each claims its slots, opens a change on the working
 * VDI (a snapshot taken meanwhile waits for it), and remembers the new slots only after the inode has them.
 *
 *   claim -> begin -> [create the object] -> set the slots -> remember -> end -> release
 *
 * A change that meets a snapshot is held until the successor is known, then `again` runs.
 */
import { noBytes } from '../base/bytes.js'
import { Code, type Done } from '../base/codes.js'
import type { ObjectAccess } from '../model/access.js'
import { dataOid, type Vid } from '../model/oid.js'
import type { SlotGate } from './slot-gate.js'
import type { SlotTable } from './slot-table.js'
import type { WorkingVdi } from './working-vdi.js'

export interface SlotChangesOptions {
  readonly objects: ObjectAccess
  readonly table: SlotTable
  readonly gate: SlotGate
  readonly working: WorkingVdi
}

/** What a new object holds: `data` at `at`, around it what the slot named before, or zeros. */
export interface Content {
  readonly at: number
  readonly data: Uint8Array
  readonly overOld: boolean
}

export const ALL_ZERO: Content = { at: 0, data: noBytes(), overOld: false }

export interface Change {
  readonly first: number
  readonly end: number
  /** Does the work; the slots are claimed and the change is open until `finish`. */
  readonly act: (vid: Vid, finish: Done) => void
  readonly again: () => void
  readonly done: Done
}

export class SlotChanges {
  readonly #objects: ObjectAccess
  readonly #table: SlotTable
  readonly #gate: SlotGate
  readonly #working: WorkingVdi

  constructor(options: SlotChangesOptions) {
    this.#objects = options.objects
    this.#table = options.table
    this.#gate = options.gate
    this.#working = options.working
  }

  /**
   * Gives an unclaimed slot an object of the working VDI. `again` runs when a snapshot came first and
   * has to decide anew. `fua`: the slot is durable before `done`; the object always is.
   */
  allocate(slot: number, content: Content, fua: boolean, again: () => void, done: Done): void {
    const act = (vid: Vid, finish: Done): void => this.make(vid, slot, content, fua, finish)
    this.#run({ first: slot, end: slot + 1, act, again, done })
  }

  /** The same inside of a change that has the slot. */
  make(vid: Vid, slot: number, content: Content, fua: boolean, finish: Done): void {
    const old = this.#table.vid(slot)
    const source = content.overOld && old !== 0 ? this.#table.ref(slot) : undefined
    const ref = this.#objects.ref(dataOid(vid, slot))
    this.#objects.create(ref, content.at, content.data, source, (code) => {
      if (code === Code.SUCCESS) this.#setSlots(vid, slot, Uint32Array.of(vid), fua, finish)
      else finish(code)
    })
  }

  /** Turns [first, end) into holes. */
  unmap(first: number, end: number, fua: boolean, done: Done): void {
    const act = (vid: Vid, finish: Done): void => {
      let from = first
      let until = end
      while (from < until && !this.#hasToGo(from, fua)) from++
      while (from < until && !this.#hasToGo(until - 1, fua)) until--
      if (from === until) finish(Code.SUCCESS)
      else this.#setSlots(vid, from, new Uint32Array(until - from), fua, finish)
    }
    this.alone({ first, end, act, again: () => this.unmap(first, end, fua, done), done })
  }

  /** True when a slot is not a hole yet, or not for good. */
  #hasToGo(slot: number, fua: boolean): boolean {
    return this.#table.vid(slot) !== 0 || (fua && this.#table.isLoose(slot))
  }

  /**
   * Makes the slot's last update durable. A write that asks for durability needs it when its object
   * was put into the slot by one that did not.
   */
  settle(slot: number, done: Done): void {
    const act = (vid: Vid, finish: Done): void => this.firm(vid, slot, finish)
    const again = (): void => this.settle(slot, done)
    this.alone({ first: slot, end: slot + 1, act, again, done })
  }

  /** The same inside of a change that has the slot. */
  firm(vid: Vid, slot: number, finish: Done): void {
    if (this.#table.isLoose(slot)) {
      this.#setSlots(vid, slot, this.#table.copy(slot, slot + 1), true, finish)
    } else {
      finish(Code.SUCCESS)
    }
  }

  /** Does the change when nobody else uses its slots; now, or when changes are possible again. */
  alone(change: Change): void {
    if (this.#working.changesHeld) this.#working.hold(change.again, change.done)
    else this.#run(change)
  }

  #run(change: Change): void {
    this.#working.began()
    this.#gate.claim(change.first, change.end, () => {
      const vid = this.#working.vid
      // The wait for the slots may have been long: what we know of them may be wrong by now.
      if (this.#working.changesHeld) {
        this.#postpone(change)
      } else if (this.#objects.begin(vid)) {
        change.act(vid, (code) => this.#finish(vid, change, code))
      } else {
        this.#working.turnedReadOnly()
        this.#postpone(change)
      }
    })
  }

  #finish(vid: Vid, change: Change, code: Code): void {
    const isRefused = code === Code.READONLY
    if (isRefused) this.#working.turnedReadOnly()
    this.#objects.end(vid)
    if (isRefused) {
      this.#postpone(change)
    } else {
      this.#working.changed(code)
      this.#gate.release(change.first, change.end)
      change.done(code)
    }
  }

  /** Leaves everything as it was until the working VDI is known again. */
  #postpone(change: Change): void {
    this.#working.hold(change.again, change.done)
    this.#working.changed(Code.READONLY)
    this.#gate.release(change.first, change.end)
  }

  #setSlots(vid: Vid, first: number, next: Uint32Array, durable: boolean, finish: Done): void {
    const previous = this.#table.copy(first, first + next.length)
    this.#objects.setSlots({ vid, first, next, previous, durable }, (code) => {
      if (code === Code.SUCCESS) this.#table.set(first, next, durable)
      else if (code !== Code.READONLY) this.#working.lostTrack()
      finish(code)
    })
  }
}
