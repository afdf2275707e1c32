/**
 * Which of this node's copies may differ from other nodes' copies of the same object, because a write is or was
 * on its way to them.
 *
 * An object is recorded, durably, before its first write from a gateway is carried out. The gateway says when its
 * writes to an object have ended on every copy (SETTLED); the record goes some time after that, once this node's copy
 * is on stable storage. When the gateway is gone before it said so, or this node dies, the object is one of those whose
 * copies are compared before anybody reads them (suspects.ts).
 */
import { Code, type Done } from '../../base/codes.js'
import type { NodeKey } from '../../model/node.js'
import type { Oid } from '../../model/oid.js'
import type { InFlightLog } from '../../store/in-flight-log.js'
import type { ObjectStore } from '../../store/object-store.js'
import type { Clock } from '../../world/world.js'

const SWEEP_MS = 5_000
/** Sweeps without a write until a record goes. */
const IDLE_SWEEPS = 4
/**
 * Sweeps without a write until those of a sender that never says SETTLED count as ended: a sheep of 1.0, which gives up
 * on a silent peer within 35 s.
 */
const STRANGER_SWEEPS = 12

/** Idle objects made durable side by side: this must not be felt by anybody. */
const SYNCS_AT_ONCE = 2

/** Stands for senders that did not say who they are. */
const STRANGER: NodeKey = ''

interface Entry {
  /** Gateways that have not said that their writes have ended. */
  readonly writers: Set<NodeKey>
  recorded: boolean
  /** Writes that wait for the record. */
  readonly waiting: Done[]
  touched: boolean
  idleSweeps: number
  /** Its copies are or will be compared: the record stays until that is over everywhere. */
  held: boolean
}

export interface InFlightOptions {
  readonly clock: Clock
  readonly log: InFlightLog
  readonly store: Pick<ObjectStore, 'syncObject'>
}

export class InFlight {
  readonly #clock: Clock
  readonly #log: InFlightLog
  readonly #store: Pick<ObjectStore, 'syncObject'>
  readonly #entries = new Map<Oid, Entry>()
  /** Idle objects to be made durable, and how many of them are under way. */
  readonly #idle = new Set<Oid>()
  #cleaning = 0
  #sweeping = false
  #stopped = false

  constructor({ clock, log, store }: InFlightOptions) {
    this.#clock = clock
    this.#log = log
    this.#store = store
    for (const oid of log.found) this.#enter(oid).recorded = true
  }

  /** Calls `then` once a write from this gateway may be carried out; with an error when it may not. */
  begin(oid: Oid, from: NodeKey = STRANGER, then: Done): void {
    const entry = this.#entries.get(oid) ?? this.#enter(oid)
    entry.touched = true
    if (!entry.writers.has(from)) entry.writers.add(from)
    if (entry.recorded) {
      then(Code.SUCCESS)
      return
    }
    entry.waiting.push(then)
    if (entry.waiting.length === 1) this.#record(oid, entry)
  }

  /** All writes of this gateway to these objects have ended on every copy. */
  settled(from: NodeKey, oids: readonly Oid[]): void {
    for (const oid of oids) this.#entries.get(oid)?.writers.delete(from)
    if (this.#log.isTight) this.#sweep()
  }

  /** The gateway is gone: objects it may have written to some copies only. */
  unsettledBy(gateway: NodeKey): Oid[] {
    const oids: Oid[] = []
    for (const [oid, { writers }] of this.#entries) {
      if (!writers.has(gateway) && !writers.has(STRANGER)) continue
      writers.delete(gateway)
      writers.delete(STRANGER)
      oids.push(oid)
    }
    return oids
  }

  /** Keeps the object recorded until `release`; `done` once the record is durable. */
  hold(oid: Oid, done: Done): void {
    const entry = this.#entries.get(oid) ?? this.#enter(oid)
    entry.held = true
    if (entry.recorded) {
      done(Code.SUCCESS)
      return
    }
    entry.waiting.push(done)
    if (entry.waiting.length === 1) this.#record(oid, entry)
  }

  release(oid: Oid): void {
    const entry = this.#entries.get(oid)
    if (entry === undefined || !entry.held) return
    entry.held = false
    entry.idleSweeps = 0
    this.#sweepLater()
  }

  /** The object has been removed: there is nothing to compare. */
  forget(oid: Oid): void {
    const entry = this.#entries.get(oid)
    if (entry === undefined || entry.waiting.length > 0) return
    this.#drop(oid)
  }

  /** None of the copies here counts any more. */
  async reset(): Promise<void> {
    for (const [oid, { waiting }] of this.#entries) if (waiting.length === 0) this.#drop(oid)
    await this.#log.clear()
  }

  /** The store has been closed, and all its objects are synced: what was settled need not be compared by the next start. */
  stop(): void {
    if (this.#stopped) return
    this.#stopped = true
    for (const [oid, { recorded, held, writers }] of this.#entries) {
      if (recorded && !held && writers.size === 0) this.#drop(oid)
    }
    this.#log.close()
  }

  /** No object is on record. */
  get isEmpty(): boolean {
    return this.#entries.size === 0
  }

  #enter(oid: Oid): Entry {
    const entry: Entry = {
      writers: new Set(),
      recorded: false,
      waiting: [],
      touched: true,
      idleSweeps: 0,
      held: false,
    }
    this.#entries.set(oid, entry)
    this.#sweepLater()
    return entry
  }

  #record(oid: Oid, entry: Entry): void {
    this.#log.add(oid, (code) => {
      entry.recorded = code === Code.SUCCESS
      if (!entry.recorded && this.#entries.get(oid) === entry) this.#entries.delete(oid)
      for (const waiting of entry.waiting.splice(0)) waiting(code)
    })
  }

  #drop(oid: Oid): void {
    this.#entries.delete(oid)
    this.#log.remove(oid)
  }

  #sweepLater(): void {
    if (this.#sweeping || this.#stopped) return
    this.#sweeping = true
    this.#clock.after(SWEEP_MS, () => {
      this.#sweeping = false
      if (this.#stopped) return
      this.#sweep()
      if (this.#entries.size > 0) this.#sweepLater()
    })
  }

  #sweep(): void {
    const isTight = this.#log.isTight
    for (const [oid, entry] of this.#entries) {
      if (!entry.recorded || entry.held) continue
      if (entry.touched) {
        entry.touched = false
        entry.idleSweeps = 0
        if (!isTight) continue
      } else entry.idleSweeps++
      if (entry.idleSweeps >= STRANGER_SWEEPS) entry.writers.delete(STRANGER)
      const isIdle = isTight || entry.idleSweeps >= IDLE_SWEEPS
      if (isIdle && entry.writers.size === 0) this.#idle.add(oid)
    }
    this.#clean()
  }

  /** Copies go to stable storage first: acknowledged bytes may differ between nodes after a power cut too. */
  #clean(): void {
    for (const oid of this.#idle) {
      if (this.#cleaning >= SYNCS_AT_ONCE) return
      this.#idle.delete(oid)
      const entry = this.#entries.get(oid)
      if (entry === undefined) continue
      entry.touched = false
      this.#cleaning++
      this.#store.syncObject(oid, (code) => {
        this.#cleaning--
        const isQuiet = !entry.touched && !entry.held && entry.writers.size === 0
        if (code === Code.SUCCESS && isQuiet && this.#entries.get(oid) === entry) this.#drop(oid)
        if (this.#cleaning > 0) return
        if (this.#idle.size > 0) this.#clean()
        else this.#log.tidy()
      })
    }
  }
}
