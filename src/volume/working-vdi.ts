/**
 * The working VDI a volume writes to, followed through snapshots. When a snapshot is taken the VDI
 * turns into it and a new working VDI appears; the volume learns that from a READONLY answer or from
 * a change notice. Then changes are held until those in flight have ended, the successor's
 * inode is read, and what was held runs again. The same is done when the outcome of a slot update is
 * unknown, because what we remember of the slots may be wrong; only then reads wait too.
 *
 *   steady --ask--> draining (no new change starts) --last change ended--> loading --> steady
 */
import { Code, codeName, codeOf, type Done, SheepError } from '../base/codes.js'
import type { Log } from '../base/log.js'
import type { VdiAccess } from '../model/access.js'
import { type Vid, vidName } from '../model/oid.js'
import type { Clock } from '../world/world.js'
import { findSuccessor, readVdi, type VdiImage } from './vdi-reading.js'

/** How long to wait for a successor that is being made, and how often. */
const RETRY_MS = 50
const LOAD_ATTEMPTS_MAX = 200
/** Loads in a row after which not one change succeeded: then what waits fails. */
const FRUITLESS_LOADS_MAX = 20

export interface WorkingVdiOptions {
  readonly name: string
  readonly vid: Vid
  readonly vdis: VdiAccess
  /** True when a change may be opened on the VDI at present. */
  readonly isWritable: (vid: Vid) => boolean
  /** Takes over what a load has read; no change is in flight. */
  readonly adopt: (image: VdiImage) => void
  readonly clock: Clock
  readonly log: Log
}

interface Held {
  readonly again: () => void
  readonly fail: Done
}

export class WorkingVdi {
  readonly #options: WorkingVdiOptions
  #vid: Vid
  /** Changes in flight. */
  #changes = 0
  #held: Held[] = []
  #readOnlySeen = false
  #askedMeanwhile = false
  #fruitless = 0
  #loading: Promise<void> | undefined
  #closed = false
  #watched: Vid
  #forget: () => void
  /** Changes have to wait: see `hold`. */
  changesHeld = false
  /** Reads have to wait as well: the slots in memory may be wrong. */
  readsHeld = false
  /** Earlier working VDIs with writes that no flush has covered yet. */
  readonly unflushed = new Set<Vid>()

  constructor(options: WorkingVdiOptions) {
    this.#options = options
    this.#vid = options.vid
    this.#watched = options.vid
    this.#forget = options.vdis.onChange(options.vid, this.refresh)
  }

  get vid(): Vid {
    return this.#vid
  }

  /** A change begins; `changesHeld` is false. Every one is matched by `changed`. */
  began(): void {
    this.#changes++
  }

  changed(code: Code): void {
    if (code === Code.SUCCESS) this.#fruitless = 0
    if (--this.#changes === 0 && this.changesHeld) this.#load()
  }

  /** A change was refused because the VDI is a snapshot now. Called before `changed`. */
  turnedReadOnly(): void {
    this.#readOnlySeen = true
    this.changesHeld = true
  }

  /** Nobody knows whether a slot update happened. Called before `changed`. */
  lostTrack(): void {
    this.readsHeld = true
    this.changesHeld = true
  }

  /** Runs `again` after the next load, or `fail` when that fails. */
  hold(again: () => void, fail: Done): void {
    if (this.#closed) {
      fail(Code.SHUTDOWN)
      return
    }
    this.#held.push({ again, fail })
    if (this.#changes === 0) this.#load()
  }

  /** Ends following; the VDI to hand back is the result. What is or will be held fails. */
  async close(): Promise<Vid> {
    this.#closed = true
    this.#forget()
    if (this.#loading === undefined) this.#release(Code.SHUTDOWN)
    await this.#loading
    try {
      return await findSuccessor(this.#options.vdis, this.#options.name, this.#vid)
    } catch (error) {
      if (codeOf(error) === Code.NO_VDI) return this.#vid
      throw error
    }
  }

  /** The VDI may have changed: reads it again. */
  readonly refresh = (): void => {
    this.#askedMeanwhile = this.#loading !== undefined
    this.changesHeld = true
    if (this.#changes === 0) this.#load()
  }

  #load(): void {
    if (this.#loading !== undefined || this.#closed) return
    this.#loading = this.#loadOnce().then((code) => {
      this.#loading = undefined
      this.#release(code)
      if (this.#askedMeanwhile) this.refresh()
    })
  }

  async #loadOnce(): Promise<Code> {
    const { name, log } = this.#options
    try {
      this.#take(await this.#successor())
      return Code.SUCCESS
    } catch (error) {
      const code = codeOf(error)
      const reason = error instanceof Error ? error.message : String(error)
      log.warn('volume.reload-failed', { name, code: codeName(code), reason })
      return code
    }
  }

  /** Reads the successor, waiting for one that is still being made. */
  async #successor(): Promise<VdiImage> {
    const { name, vdis, isWritable } = this.#options
    for (let attempt = 0; attempt < LOAD_ATTEMPTS_MAX; attempt++) {
      if (this.#readOnlySeen && attempt > 0) await this.#pause()
      const vid = await findSuccessor(vdis, name, this.#vid)
      if (vid === this.#vid && this.#readOnlySeen && attempt === 0) continue
      this.#watch(vid)
      const image = await readVdi(vdis, vid)
      if (isWritable(vid)) return image
      this.#readOnlySeen = true
    }
    throw new SheepError(Code.READONLY, `no working VDI ${name} appeared after a snapshot`)
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      this.#options.clock.after(RETRY_MS, resolve)
    })
  }

  /** Notices are wanted before the inode is read, or one in between would be missed. */
  #watch(vid: Vid): void {
    if (vid === this.#watched || this.#closed) return
    this.#forget()
    this.#forget = this.#options.vdis.onChange(vid, this.refresh)
    this.#watched = vid
  }

  #take(image: VdiImage): void {
    this.#options.adopt(image)
    this.#readOnlySeen = false
    this.readsHeld = false
    const from = this.#vid
    if (image.vid === from) return
    this.unflushed.add(from)
    this.#vid = image.vid
    const { log, name } = this.#options
    log.info('volume.followed', { name, from: vidName(from), to: vidName(image.vid) })
  }

  /** While the slots stay in doubt everything stays held, and the next operation tries again. */
  #release(code: Code): void {
    if (!this.readsHeld) this.changesHeld = false
    const held = this.#held
    if (held.length === 0) return
    this.#held = []
    const isFruitless = ++this.#fruitless > FRUITLESS_LOADS_MAX
    if (isFruitless) this.#fruitless = 0
    let outcome = isFruitless && code === Code.SUCCESS ? Code.READONLY : code
    if (this.#closed) outcome = Code.SHUTDOWN
    for (const { again, fail } of held) {
      if (outcome === Code.SUCCESS) again()
      else fail(outcome)
    }
  }
}
