/**
 * The cluster as block doors use it. A coded object cannot be written while there are fewer zones than fragments, and
 * not be read while fewer than its data fragments are left; a replicated one not while all nodes are away that may have
 * its newest copy. Clients of the sheepdog protocol hear so (HALT, STALE_OBJ) and may try again; a guest on a block
 * device would take the error for a broken disk. It waits instead, as it does for any silent node, until enough
 * nodes are back. Mostly that is a new membership; but a node that lost a disk may be able to tell again what it has
 * without one, so the operation is tried again from time to time as well.
 */
import { Code, codeName, type Done } from '../base/codes.js'
import type { Log } from '../base/log.js'
import type { ObjectAccess, ObjectRef, SlotUpdate } from '../model/access.js'
import { type Oid, oidName, oidVid, type Vid, vidName } from '../model/oid.js'
import type { NodeState, View } from './state.js'

const RETRY_MS = 5_000
/** Of one volume a failure is told once in this time. */
const TELL_MS = 1_000
/** Part of the life of a volume and a node, and no failures. */
const EXPECTED: ReadonlySet<Code> = new Set([
  Code.SUCCESS,
  Code.READONLY,
  Code.SHUTDOWN,
  Code.KILLED,
])

export interface PatientAccessOptions {
  /** Of the node: its gateway, behind its cache. */
  readonly cache: ObjectAccess & { readonly stopping: boolean }
  readonly state: NodeState
  readonly log: Log
  /** As of a clock. */
  after(delayMs: number, fn: () => void): () => void
}

export class PatientAccess implements ObjectAccess {
  readonly #objects: PatientAccessOptions['cache']
  readonly #state: NodeState
  readonly #log: Log
  readonly #node: Pick<PatientAccessOptions, 'after'>
  /** Operations of each volume that wait. */
  readonly #waiting = new Map<Vid, number>()
  /** Volumes of which a failure has just been told. */
  readonly #told = new Set<Vid>()

  constructor(node: PatientAccessOptions) {
    const { cache, state, log } = node
    this.#objects = cache
    this.#state = state
    this.#log = log
    this.#node = node
  }

  ref(oid: Oid): ObjectRef {
    return this.#objects.ref(oid)
  }

  read(ref: ObjectRef, offset: number, into: Uint8Array, done: Done): void {
    const { view } = this.#state
    this.#objects.read(ref, offset, into, (code) => {
      if (!this.#waits(ref, code)) this.#finish('read', ref, code, done)
      else this.#later(view, ref, code, () => this.read(ref, offset, into, done))
    })
  }

  write(ref: ObjectRef, offset: number, data: Uint8Array, durable: boolean, done: Done): void {
    const { view } = this.#state
    this.#objects.write(ref, offset, data, durable, (code) => {
      if (!this.#waits(ref, code)) this.#finish('write', ref, code, done)
      else this.#later(view, ref, code, () => this.write(ref, offset, data, durable, done))
    })
  }

  create(
    ref: ObjectRef,
    offset: number,
    data: Uint8Array,
    source: ObjectRef | undefined,
    done: Done,
  ): void {
    const { view } = this.#state
    this.#objects.create(ref, offset, data, source, (code) => {
      if (!this.#waits(ref, code)) this.#finish('create', ref, code, done)
      else this.#later(view, ref, code, () => this.create(ref, offset, data, source, done))
    })
  }

  remove(oid: Oid, done: Done): void {
    this.#objects.remove(oid, done)
  }

  setSlots(update: SlotUpdate, done: Done): void {
    this.#objects.setSlots(update, done)
  }

  flush(vid: Vid, done: Done): void {
    this.#objects.flush(vid, done)
  }

  isSure(): boolean {
    return this.#objects.isSure()
  }

  whenSure(go: () => void, fail: Done): void {
    this.#objects.whenSure(go, fail)
  }

  begin(vid: Vid): boolean {
    return this.#objects.begin(vid)
  }

  end(vid: Vid): void {
    this.#objects.end(vid)
  }

  /** What a guest sees as a broken disk is named in the log. */
  #finish(what: string, { oid }: ObjectRef, code: Code, done: Done): void {
    if (!EXPECTED.has(code)) {
      const vid = oidVid(oid)
      if (!this.#told.has(vid)) {
        this.#told.add(vid)
        this.#node.after(TELL_MS, () => this.#told.delete(vid))
        const { epoch } = this.#state
        this.#log.error('volume.io.failed', {
          what,
          oid: oidName(oid),
          code: codeName(code),
          epoch,
        })
      }
    }
    done(code)
  }

  /** A node that stops, or that was left alone, has nothing to wait for. */
  #waits({ oid }: ObjectRef, code: Code): boolean {
    const mayEnd = this.#state.status === 'ok' && !this.#objects.stopping
    const isShort = code === Code.HALT && this.#state.codingOf(oid) !== 0
    return mayEnd && (isShort || code === Code.STALE_OBJ)
  }

  /** Runs `again` under another membership than `view`, now if there is one, or after a while. */
  #later(view: View, { oid }: ObjectRef, code: Code, again: () => void): void {
    if (this.#state.view !== view) {
      again()
      return
    }
    const vid = oidVid(oid)
    const waiting = this.#waiting.get(vid) ?? 0
    if (waiting === 0) this.#tell(vid, code)
    this.#waiting.set(vid, waiting + 1)
    let ran = false
    const once = (): void => {
      if (ran) return
      ran = true
      cancelTimer()
      cancelWait()
      const left = this.#waiting.get(vid)! - 1
      if (left > 0) this.#waiting.set(vid, left)
      else this.#waiting.delete(vid)
      again()
    }
    const cancelTimer = this.#node.after(RETRY_MS, once)
    const cancelWait = this.#state.afterViewChange(once)
  }

  #tell(vid: Vid, code: Code): void {
    const { zones } = this.#state.view.ring
    const reason =
      code === Code.HALT
        ? 'fewer zones than fragments: start nodes in other zones'
        : 'all nodes that may have the newest copy of an object are away: start them'
    this.#log.warn('volume.waits', { vid: vidName(vid), zones, reason })
  }
}
