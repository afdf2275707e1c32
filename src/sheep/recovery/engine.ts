/**
 * Brings the objects this node owns under the newest membership here (objects spec, section 16).
 *
 * While an object is on its way, requests for it wait in order. Everything written to its other copies
 * after our read of them is in that queue as well, so applying the queue makes the copies equal.
 */
import { Code, type Done, SheepError } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import type { StripMath } from '../../base/strips.js'
import { nodeKey } from '../../model/node.js'
import { isFragment, type Oid, objectOf, oidName, type StoredId } from '../../model/oid.js'
import type { EpochLog } from '../../store/epoch-log.js'
import type { ObjectStore } from '../../store/object-store.js'
import { ClusterFlag } from '../../wire/sheepdog/opcodes.js'
import type { RecoveryState } from '../../wire/sheepdog/records.js'
import type { Clock } from '../../world/world.js'
import { equalize } from '../equal/equalize.js'
import type { Suspects } from '../equal/suspects.js'
import { type Holdings, Layouts } from '../layouts.js'
import type { Peers } from '../peers.js'
import type { NodeState } from '../state.js'
import type { Witness } from '../witness.js'
import { bringFragment } from './bring-fragment.js'
import { CodedFetcher, type WantedFragment } from './coded.js'
import { EpochRings, otherStorers } from './epoch-rings.js'
import { Fetcher, type Wanted } from './fetch.js'
import { spareOwners, unaccounted } from './forgetting.js'
import { Inventories } from './inventories.js'
import { listMissing } from './lists.js'
import { OBJECTS_AT_ONCE_MAX, Pace } from './pace.js'
import { bytesToCome, type RecoveryPlan } from './plan.js'

const RETRY_MS = 500
const RETRY_MS_MAX = 5_000
const LIST_PAGE_BYTES_MAX = 256 * 1024

export interface RecoveryOptions {
  readonly strips?: StripMath | undefined
  readonly state: NodeState
  readonly store: ObjectStore
  readonly epochLog: EpochLog
  readonly peers: Peers
  readonly suspects: Suspects
  readonly witness: Witness
  readonly clock: Clock
  readonly log: Log
  readonly plan?: RecoveryPlan | undefined
  /** Nothing lies in the working area that this node does not own in `epoch`; made durable. */
  readonly placed: (epoch: number) => Promise<void>
  /** This node has everything it owns in `epoch`. */
  readonly finished: (epoch: number) => void
  /** Recovery would overfill this node's disks: every node is to hold it off. */
  readonly overfull: () => void
}

interface Fetch {
  readonly waiters: Done[]
  forgotten: boolean
}

interface Run {
  readonly epoch: number
  /** What was created in this epoch may be missing, too. */
  readonly fresh: boolean
  phase: number
  finished: number
  total: number
}

export class Recovery {
  readonly #state: NodeState
  readonly #store: ObjectStore
  readonly #epochLog: EpochLog
  readonly #peers: Peers
  readonly #suspects: Suspects
  readonly #witness: Witness
  readonly #clock: Clock
  readonly #log: Log
  readonly #finished: (epoch: number) => void
  readonly #placed: (epoch: number) => Promise<void>
  readonly #overfull: () => void
  readonly #fetches = new Map<StoredId, Fetch>()
  readonly #rings: EpochRings
  readonly #fetcher: Fetcher
  /** What this node tells others of what it has. */
  readonly inventories: Inventories
  readonly #codedFetcher: CodedFetcher
  /** Where the fragments of coded objects are. */
  readonly layouts: Layouts
  /** What background recovery waits for before each object. */
  readonly pace: Pace
  #run: Run | undefined
  #stopped = false
  /** Until the first recovery is over. */
  #isWildcard: boolean
  #disks = 1
  #aside: Promise<void> = Promise.resolve()
  /** Removed in an epoch that is not gathered yet: copies of before may still be somewhere. */
  readonly #removed = new Set<Oid>()
  /** The newest epoch in which everybody had everything: older copies are of no use. */
  #gatheredEpoch = 1

  constructor(options: RecoveryOptions) {
    this.#state = options.state
    this.#store = options.store
    this.#epochLog = options.epochLog
    this.#peers = options.peers
    this.#suspects = options.suspects
    this.#witness = options.witness
    this.#clock = options.clock
    this.#log = options.log
    this.#finished = options.finished
    this.#placed = options.placed
    this.#overfull = options.overfull
    const { clock, plan = {} } = options
    const { throttling } = plan
    this.#isWildcard = plan.wildcard === true
    const disks = (): number => this.#disks
    this.pace = new Pace({ clock, disks, ...(throttling && { throttling }) })
    this.inventories = new Inventories(options, LIST_PAGE_BYTES_MAX)
    this.#rings = new EpochRings(options)
    this.#fetcher = new Fetcher({ ...options, rings: this.#rings })
    this.layouts = new Layouts(options.state, this.#rings)
    this.#codedFetcher = new CodedFetcher({ ...options, layouts: this.layouts })
  }

  /** Starts over for the view that has just been set; `from` is the epoch the objects were placed by. */
  start(from: number, fresh = false): void {
    const run: Run = { epoch: this.#state.epoch, fresh, phase: 0, finished: 0, total: 0 }
    this.#run = run
    this.#disks = this.#store.disks().length
    this.#witness.serves(run.epoch)
    this.pace.callOff()
    this.pace.hold(this.#state.settings.recoveryDisabled)
    this.#log.info('recovery.start', { epoch: run.epoch, from })
    this.#work(run, from).catch((error: unknown) => {
      this.#log.error('recovery.failed', { epoch: run.epoch, reason: String(error) })
    })
  }

  /** Objects went while `epoch` was served; durable. Rejects with an errno error. */
  async declareLost(epoch: number): Promise<void> {
    this.#witness.lost(epoch)
    await this.#witness.save()
  }

  /** Looks once more for what this node owns and lacks in the epoch it is in: a disk came, or went (`lost`). */
  restart({ lost }: { readonly lost: boolean }): void {
    if (lost) this.#witness.lost(this.#state.epoch)
    if (this.#state.status === 'ok') this.start(this.#state.epoch, true)
  }

  /** Background recovery pauses before its next object, or goes on; objects in use are still fetched. */
  setDisabled(disabled: boolean): void {
    this.pace.hold(disabled)
  }

  /**
   * Resolves when the objects this node stopped owning are out of the way. The next membership must not
   * begin before: it may make the node an owner again, and an object left behind would pass for current.
   */
  outOfTheWay(): Promise<void> {
    return this.#aside
  }

  /** Told to look everywhere (`sheep -W`), and not through with it. */
  get isWildcard(): boolean {
    return this.#isWildcard
  }

  /** Every node has everything it owns in this epoch, and nothing is under way here. */
  get isWhole(): boolean {
    return this.#run === undefined && this.#gatheredEpoch === this.#state.epoch
  }

  progress(): RecoveryState {
    const run = this.#run
    if (run === undefined) return { inRecovery: false, phase: 0, finished: 0, total: 0 }
    return { inRecovery: true, phase: run.phase, finished: run.finished, total: run.total }
  }

  /** The cluster has been formatted: earlier epochs are another history's. */
  reset(): void {
    this.#run = undefined
    this.pace.callOff()
    this.#gatheredEpoch = 1
    this.#witness.reset()
    this.#state.lost.forget()
    this.#fetcher.forced = 0
    this.#codedFetcher.forced = 0
    this.#rings.clear()
    this.#removed.clear()
    for (const fetch of this.#fetches.values()) fetch.forgotten = true
  }

  /** What the cluster knows: older copies, of nodes that were away, may be of removed objects. */
  knowGathered(epoch: number): void {
    this.#gatheredEpoch = Math.max(this.#gatheredEpoch, epoch)
  }

  /** An administrator gave up on what was missing then: copies from before it count without their witnesses. */
  knowForced(epoch: number): void {
    this.#fetcher.forced = Math.max(this.#fetcher.forced, epoch)
    this.#codedFetcher.forced = this.#fetcher.forced
  }

  /**
   * False: objects may exist of which only nodes that are gone have copies, so older ones must not be forgotten. Asks
   * nobody: it decides in the order of events.
   */
  mayForget(epoch: number): boolean {
    const now = new Set(this.#state.epochNodes.map(nodeKey))
    const spare = (zones: number): number => spareOwners(this.#state, zones)
    for (let then = Math.max(this.#gatheredEpoch, this.#fetcher.forced); then <= epoch; then++) {
      const nodes = this.#epochLog.read(then)?.nodes
      // What a disk took with it is as gone as a node.
      if (!this.#witness.knows(then)) now.delete(this.#state.selfKey)
      else now.add(this.#state.selfKey)
      const gone = nodes === undefined ? undefined : unaccounted(nodes, now, spare)
      if (gone?.length === 0) continue
      const missing = gone?.map(nodeKey).join() ?? 'unknown'
      const remedy =
        'start them, or delete the volumes with too few copies; older copies are kept until then'
      this.#log.warn('recovery.copies-elsewhere', { epoch, then, missing, remedy })
      return false
    }
    return true
  }

  /** Every member finished `epoch`. */
  gathered(epoch: number): void {
    this.#suspects.gathered()
    this.#gatheredEpoch = epoch
    this.#rings.clear()
    this.#removed.clear()
    this.#store.purgeStale().catch((error: unknown) => {
      this.#log.warn('stale.purge.failed', { reason: String(error) })
    })
  }

  /**
   * Calls `done` once the object is here and its copy the one all owners have; NO_OBJ when nobody has it. Callers are
   * served in order.
   */
  ensure(oid: StoredId, done: Done): void {
    if (this.#mayServe(oid)) {
      done(Code.SUCCESS)
      return
    }
    if (this.#removed.has(objectOf(oid))) {
      done(Code.NO_OBJ)
      return
    }
    // Lost in this very epoch: it comes back in the next one, which has been asked for.
    if (this.#state.lost.isWithheld(oid, this.#state.epoch)) {
      done(Code.NETWORK_ERROR)
      return
    }
    const under = this.#fetches.get(oid)
    if (under !== undefined) {
      under.waiters.push(done)
      return
    }
    const fetch: Fetch = { waiters: [done], forgotten: false }
    this.#fetches.set(oid, fetch)
    const how = { epoch: this.#state.epoch, isWanted: () => !fetch.forgotten }
    const brought = isFragment(oid)
      ? this.#bringFragment({ id: oid, ...how })
      : this.#bring({ oid, ...how })
    brought.then(
      (code) => this.#fetched(oid, fetch, code),
      (error: unknown) => {
        this.#log.warn('recovery.object.failed', { oid: oidName(oid), reason: String(error) })
        const code = error instanceof SheepError ? error.code : Code.NETWORK_ERROR
        this.#fetched(oid, fetch, code)
      },
    )
  }

  /** The copy is here, and is the one every owner has. */
  #mayServe(id: StoredId): boolean {
    return this.#store.has(id) && !this.#suspects.holds(objectOf(id))
  }

  /** One more object here is to be compared; done in the background until it has worked. */
  compare(oid: Oid): void {
    const id = this.#store.piecesOf(oid).find((piece) => this.#store.has(piece)) ?? oid
    this.ensure(id, () => {
      if (!this.#stopped && this.#suspects.holds(oid) && this.#store.has(id)) {
        this.#clock.after(RETRY_MS, () => this.compare(oid))
      }
    })
  }

  /** Runs `then` when no fetch of the object is under way. */
  settled(oid: StoredId, then: () => void): void {
    const under = this.#fetches.get(oid)
    if (under === undefined) then()
    else under.waiters.push(then)
  }

  /** The object is about to be created: there is nothing to be said against fetching it. */
  exists(oid: Oid): void {
    this.#removed.delete(oid)
  }

  /** This node has looked for its fragment under the membership of now, and nobody could have it made. */
  isNowhere(id: StoredId): boolean {
    return this.#codedFetcher.isNowhere(id)
  }

  /** Why this node has no copy of an object of that epoch to give, in the codes recovery works with. */
  reasonOfLack(oid: Oid, epoch: number): Code {
    if (this.#removed.has(oid)) return Code.NOT_FOUND
    const knows = this.#witness.knows(epoch) && this.#state.lost.isSettled
    return knows ? Code.NO_OBJ : Code.STALE_OBJ
  }

  /** The object is about to be removed: no fetch must bring it back. */
  forget(oid: StoredId, then: () => void): void {
    if (this.#gatheredEpoch < this.#state.epoch) this.#removed.add(objectOf(oid))
    const under = this.#fetches.get(oid)
    if (under !== undefined) under.forgotten = true
    this.settled(oid, then)
  }

  stop(): void {
    this.#stopped = true
    this.#run = undefined
    this.pace.callOff()
  }

  async #bringFragment(wanted: WantedFragment): Promise<Code> {
    await new Promise<void>((resolve) => this.#suspects.whenGathered(resolve))
    if (this.#stopped || this.#state.epoch !== wanted.epoch) return Code.NETWORK_ERROR
    const [state, store, gatheredEpoch] = [this.#state, this.#store, this.#gatheredEpoch]
    const [suspects, fetcher, pause] = [this.#suspects, this.#codedFetcher, () => this.#pause()]
    return bringFragment({ state, store, suspects, fetcher, gatheredEpoch, pause }, wanted)
  }

  /** Fetches the object, or compares the copy that is here. */
  async #bring(wanted: Wanted): Promise<Code> {
    const { oid, epoch, isWanted } = wanted
    await new Promise<void>((resolve) => this.#suspects.whenGathered(resolve))
    if (this.#stopped || this.#state.epoch !== epoch) return Code.NETWORK_ERROR
    const source = this.#suspects.sourceOf(oid)
    const isOurs = source === undefined || this.#state.isSelf(source)
    if (!this.#store.has(oid)) {
      const oldest = this.#gatheredEpoch
      if (isOurs && this.#isWildcard) return this.#fetcher.fetchFromAnybody(wanted, oldest)
      if (isOurs) return this.#fetcher.fetch(wanted, oldest)
      return this.#fetcher.fetchFrom(wanted, source)
    }
    const [state, store, peers] = [this.#state, this.#store, this.#peers]
    const both = !this.#suspects.isBeingRepaired(oid)
    const code = isOurs
      ? Code.SUCCESS
      : await equalize({ state, store, peers, oid, epoch, source, both, isWanted })
    // Where the right one should be there is none: ours is what its owner will fetch.
    const isOnlyOne = code === Code.NO_OBJ && isWanted()
    if (code !== Code.SUCCESS && !isOnlyOne) return code
    if (this.#state.epoch !== epoch) return Code.NETWORK_ERROR
    this.#suspects.equal(oid)
    return Code.SUCCESS
  }

  /**
   * The cluster went on without this node. What it holds is of its own last epoch, except what that epoch had
   * begun to take from it and did not get out of the way before a crash: that is of `placed`.
   */
  async outdated(placed: number): Promise<void> {
    const last = this.#epochLog.latest()
    if (placed < last) {
      const holds = await this.layouts.holdings(last)
      await this.#store.setAside(placed, (id) => holds(objectOf(id)) !== id)
    }
    await this.#store.setAside(last, () => true)
  }

  /** Gets the epochs this node did not live through, so that its history has no gaps. */
  fillEpochLog(): Promise<void> {
    return this.#rings.fillLog()
  }

  #fetched(oid: StoredId, fetch: Fetch, code: Code): void {
    this.#fetches.delete(oid)
    for (const waiter of fetch.waiters) waiter(code)
  }

  async #work(run: Run, from: number): Promise<void> {
    const { ring } = this.#state.view
    let holds: Holdings | undefined
    // One after the other: what the move before has not come to yet would get this one's epoch.
    this.#aside = this.#aside.then(async () => {
      holds = await this.#setAside(run, from)
    })
    await this.#aside
    if (holds === undefined) return
    const wanted = await listMissing({
      store: this.#store,
      peers: this.#peers,
      log: this.#log,
      clock: this.#clock,
      epoch: run.epoch,
      fresh: run.fresh,
      others: this.#state.self.vnodes > 0 ? otherStorers(this.#state, ring.nodes) : [],
      holds,
      // A comparison is a part of recovery: older copies are needed until all are equal.
      suspects: () => this.#suspects.open(),
      isCurrent: () => this.#run === run,
      pause: () => this.#pause(),
    })
    run.phase = 1
    run.total = wanted.length
    if (this.#state.has(ClusterFlag.AVOID_DISKFULL)) await this.#checkSpace(run, wanted)
    await this.#recoverAll(run, wanted, holds)
    // Who was there in between decides whether older copies may be forgotten.
    for (let epoch = this.#gatheredEpoch; epoch < run.epoch; epoch++) await this.#rings.of(epoch)
    if (this.#run !== run) return
    run.phase = 2
    this.#run = undefined
    this.#isWildcard = false
    this.#log.info('recovery.finished', { epoch: run.epoch, objects: run.total })
    // Others do not know what this node has lost: it is its word that older copies are needed no more.
    if (this.mayForget(run.epoch)) this.#finished(run.epoch)
  }

  /** A cluster told to avoid full disks holds recovery off, until somebody has made room and lets it go on. */
  async #checkSpace(run: Run, wanted: ArrayLike<bigint>): Promise<void> {
    const [state, store, clock] = [this.#state, this.#store, this.#clock]
    const neededBytes = await bytesToCome(wanted, { state, store, clock })
    const { freeBytes } = store.space()
    if (this.#run !== run || neededBytes <= freeBytes) return
    this.#log.error('recovery.would-fill-disk', { epoch: run.epoch, neededBytes, freeBytes })
    this.pace.hold(true)
    this.#overfull()
  }

  /** Tries until it has worked or the node stops: what stays behind could pass for current later. */
  async #setAside(run: Run, from: number): Promise<Holdings | undefined> {
    for (;;) {
      try {
        const holds = await this.layouts.holdings(run.epoch)
        await this.#store.setAside(from, (id) => holds(objectOf(id)) !== id)
        await this.#witness.save()
        await this.#placed(run.epoch)
        return holds
      } catch (error) {
        this.#log.error('recovery.set-aside.failed', { epoch: run.epoch, reason: String(error) })
        if (this.#run !== run) return undefined
        await this.#pause()
      }
    }
  }

  /** Works the list off, again and again until each object is here or proves to be gone. */
  async #recoverAll(run: Run, wanted: ArrayLike<bigint>, holds: Holdings): Promise<void> {
    let left = wanted
    for (let waitMs = RETRY_MS; ; waitMs = Math.min(2 * waitMs, RETRY_MS_MAX)) {
      left = await this.#recoverOnce(run, left, holds)
      if (left.length === 0 || this.#run !== run) return
      const fields = { epoch: run.epoch, objects: left.length, first: oidName(left[0] as Oid) }
      this.#log.warn('recovery.objects.unavailable', fields)
      await this.#pause(waitMs)
    }
  }

  /** Those that cannot be had now. */
  async #recoverOnce(run: Run, wanted: ArrayLike<bigint>, holds: Holdings): Promise<Oid[]> {
    const failed: Oid[] = []
    let next = 0
    const worker = async (): Promise<void> => {
      while (next < wanted.length && this.#run === run) {
        const oid = wanted[next++] as Oid
        const done = await this.pace.turn()
        if (done === undefined) return
        if (this.#run !== run) {
          // It may not be this node's any more.
          done()
          return
        }
        const id = holds(oid) ?? oid
        const code = await new Promise<Code>((resolve) => this.ensure(id, resolve))
        done()
        if (code === Code.SUCCESS || code === Code.NO_OBJ) run.finished++
        else failed.push(oid)
      }
    }
    const workers = Math.min(OBJECTS_AT_ONCE_MAX, wanted.length)
    await Promise.all(Array.from({ length: workers }, worker))
    return failed
  }

  #pause(delayMs = RETRY_MS): Promise<void> {
    return new Promise((resolve) => {
      this.#clock.after(delayMs, resolve)
    })
  }
}
