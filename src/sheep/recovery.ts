/**
 * Brings the objects this node owns under the newest membership here (objects spec, section 16).
 *
 * Which copy is right. A write is acknowledged only when every owner of its epoch has it. So when one
 * living owner of epoch E lacks an object, no write to it was acknowledged in E, and what E-1 knew is as
 * good. When all owners of E are gone nobody can tell; then an older copy is not used and the object stays
 * unavailable until one of them is back, instead of letting old data win silently (defects O20, O23).
 *
 * While an object is on its way, requests for it wait in order. Everything written to its other copies
 * after our read of them is in that queue as well, so applying the queue makes the copies equal.
 */
import { Code, type Done, SheepError, toCode } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import type { Log } from '../base/log.js'
import { decodeNodes, NODE_BYTES, type NodeKey, nodeKey, type SdNode } from '../model/node.js'
import { type Oid, objectBytes, oidName, oidVid } from '../model/oid.js'
import { buildRing, ownersOf, type Ring } from '../model/ring.js'
import type { EpochLog } from '../store/epoch-log.js'
import type { ObjectStore } from '../store/object-store.js'
import { Flag, Op } from '../wire/sheepdog/opcodes.js'
import type { RecoveryState } from '../wire/sheepdog/records.js'
import { decodeHashReply } from '../wire/sheepdog/replies.js'
import { objectRequest } from '../wire/sheepdog/requests.js'
import type { Clock } from '../world/world.js'
import type { Peers } from './peers.js'
import type { NodeState } from './state.js'

const OBJECTS_AT_ONCE = 4
const RETRY_MS = 500
const LIST_BYTES_START = 1024 * 1024

export interface RecoveryOptions {
  readonly state: NodeState
  readonly store: ObjectStore
  readonly epochLog: EpochLog
  readonly peers: Peers
  readonly clock: Clock
  readonly log: Log
  /** Nothing lies in the working area that this node does not own in `epoch`; made durable. */
  readonly placed: (epoch: number) => Promise<void>
  /** This node has everything it owns in `epoch`. */
  readonly finished: (epoch: number) => void
}

/** What asking the owners of one epoch gave. */
type Found = 'found' | 'absent' | 'removed' | 'unknown' | 'unreachable'

interface HashQuestion {
  readonly oid: Oid
  /** Epoch of our stale copy. */
  readonly stale: number
  readonly node: SdNode
  readonly epoch: number
  readonly target: number
}

interface Fetch {
  readonly waiters: Done[]
  forgotten: boolean
}

interface Run {
  readonly epoch: number
  phase: number
  finished: number
  total: number
}

export class Recovery {
  readonly #state: NodeState
  readonly #store: ObjectStore
  readonly #epochLog: EpochLog
  readonly #peers: Peers
  readonly #clock: Clock
  readonly #log: Log
  readonly #finished: (epoch: number) => void
  readonly #placed: (epoch: number) => Promise<void>
  readonly #fetches = new Map<Oid, Fetch>()
  readonly #rings = new Map<number, Ring>()
  #run: Run | undefined
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
    this.#clock = options.clock
    this.#log = options.log
    this.#finished = options.finished
    this.#placed = options.placed
  }

  /** Starts over for the view that has just been set; `from` is the epoch the objects were placed by. */
  start(from: number): void {
    const run: Run = { epoch: this.#state.epoch, phase: 0, finished: 0, total: 0 }
    this.#run = run
    this.#log.info('recovery.start', { epoch: run.epoch, from })
    this.#work(run, from).catch((error: unknown) => {
      this.#log.error('recovery.failed', { epoch: run.epoch, reason: String(error) })
    })
  }

  /**
   * Resolves when the objects this node stopped owning are out of the way. The next membership must not
   * begin before: it may make the node an owner again, and an object left behind would pass for current.
   */
  outOfTheWay(): Promise<void> {
    return this.#aside
  }

  progress(): RecoveryState {
    const run = this.#run
    if (run === undefined) return { inRecovery: false, phase: 0, finished: 0, total: 0 }
    return { inRecovery: true, phase: run.phase, finished: run.finished, total: run.total }
  }

  /** The cluster has been formatted: earlier epochs are another history's. */
  reset(): void {
    this.stop()
    this.#gatheredEpoch = 1
    this.#rings.clear()
    this.#removed.clear()
    for (const fetch of this.#fetches.values()) fetch.forgotten = true
  }

  /** What the cluster knows: older copies, of nodes that were away, may be of removed objects. */
  knowGathered(epoch: number): void {
    this.#gatheredEpoch = Math.max(this.#gatheredEpoch, epoch)
  }

  /** Every member finished `epoch`. */
  gathered(epoch: number): void {
    this.#gatheredEpoch = epoch
    this.#rings.clear()
    this.#removed.clear()
    this.#store.purgeStale().catch((error: unknown) => {
      this.#log.warn('stale.purge.failed', { reason: String(error) })
    })
  }

  /** Calls `done` once the object is here; NO_OBJ when nobody has it. Callers are served in order. */
  ensure(oid: Oid, done: Done): void {
    if (this.#store.has(oid)) {
      done(Code.SUCCESS)
      return
    }
    if (this.#removed.has(oid)) {
      done(Code.NO_OBJ)
      return
    }
    const under = this.#fetches.get(oid)
    if (under !== undefined) {
      under.waiters.push(done)
      return
    }
    const fetch: Fetch = { waiters: [done], forgotten: false }
    this.#fetches.set(oid, fetch)
    this.#fetch(oid, fetch).then(
      (code) => this.#fetched(oid, fetch, code),
      (error: unknown) => {
        this.#log.warn('recovery.object.failed', { oid: oidName(oid), reason: String(error) })
        const code = error instanceof SheepError ? error.code : Code.NETWORK_ERROR
        this.#fetched(oid, fetch, code)
      },
    )
  }

  /** Runs `then` when no fetch of the object is under way. */
  settled(oid: Oid, then: () => void): void {
    const under = this.#fetches.get(oid)
    if (under === undefined) then()
    else under.waiters.push(then)
  }

  /** The object is about to be created: there is nothing to be said against fetching it. */
  exists(oid: Oid): void {
    this.#removed.delete(oid)
  }

  /** An object that is not here is gone for good, whatever older copies there may be of it. */
  isRemoved(oid: Oid): boolean {
    return this.#removed.has(oid)
  }

  /** The object is about to be removed: no fetch must bring it back. */
  forget(oid: Oid, then: () => void): void {
    if (this.#gatheredEpoch < this.#state.epoch) this.#removed.add(oid)
    const under = this.#fetches.get(oid)
    if (under !== undefined) under.forgotten = true
    this.settled(oid, then)
  }

  stop(): void {
    this.#run = undefined
  }

  #fetched(oid: Oid, fetch: Fetch, code: Code): void {
    this.#fetches.delete(oid)
    for (const waiter of fetch.waiters) waiter(code)
  }

  async #work(run: Run, from: number): Promise<void> {
    const { ring } = this.#state.view
    this.#aside = this.#setAside(run, from, (oid) => !this.#owns(ring, oid))
    await this.#aside
    const wanted = await this.#listMissing(run)
    run.phase = 1
    run.total = wanted.length
    await this.#recoverAll(run, wanted)
    if (this.#run !== run) return
    run.phase = 2
    this.#run = undefined
    this.#log.info('recovery.finished', { epoch: run.epoch, objects: run.total })
    this.#finished(run.epoch)
  }

  /** Tries until it has worked or the node stops: what stays behind could pass for current later. */
  async #setAside(run: Run, from: number, gone: (oid: Oid) => boolean): Promise<void> {
    for (;;) {
      try {
        await this.#store.setAside(from, gone)
        await this.#placed(run.epoch)
        return
      } catch (error) {
        this.#log.error('recovery.set-aside.failed', { epoch: run.epoch, reason: String(error) })
        if (this.#run !== run) return
        await this.#pause()
      }
    }
  }

  #owns(ring: Ring, oid: Oid): boolean {
    const copies = this.#state.copiesOf(oidVid(oid))
    return ownersOf(ring, oid, copies).some((node) => this.#state.isSelf(node))
  }

  async #recoverAll(run: Run, wanted: Oid[]): Promise<void> {
    let next = 0
    const worker = async (): Promise<void> => {
      while (next < wanted.length && this.#run === run) {
        await this.#recoverOne(run, wanted[next++]!)
        run.finished++
      }
    }
    await Promise.all(Array.from({ length: OBJECTS_AT_ONCE }, worker))
  }

  /** Tries until the object is here, proves to be gone, or another membership takes over. */
  async #recoverOne(run: Run, oid: Oid): Promise<void> {
    while (this.#run === run) {
      const code = await new Promise<Code>((resolve) => this.ensure(oid, resolve))
      if (code === Code.SUCCESS || code === Code.NO_OBJ) return
      await this.#pause()
    }
  }

  /** Objects this node owns and lacks, ascending, by everybody's lists. */
  async #listMissing(run: Run): Promise<Oid[]> {
    const { ring } = this.#state.view
    const wanted = new Set<Oid>()
    const consider = (oids: Iterable<Oid>): void => {
      for (const oid of oids) {
        if (!this.#store.has(oid) && !wanted.has(oid) && this.#owns(ring, oid)) wanted.add(oid)
      }
    }
    consider(this.#store.list())
    for (const node of this.#others(ring.nodes)) {
      const list = await this.#listOf(run, node)
      if (list === undefined) return []
      consider(list)
    }
    return [...wanted].sort((a, b) => (a < b ? -1 : 1))
  }

  /** A member's list; asks again until it answers. Undefined when the membership changed meanwhile. */
  async #listOf(run: Run, node: SdNode): Promise<Oid[] | undefined> {
    let room = LIST_BYTES_START
    while (this.#run === run) {
      const head = objectRequest({
        opcode: Op.GET_OBJ_LIST,
        oid: 0n as Oid,
        targetEpoch: run.epoch,
        dataLength: room,
      })
      try {
        const reply = await this.#peers.call(node, head)
        if (reply.result === Code.SUCCESS) return decodeOids(reply.body)
        if (reply.result === Code.BUFFER_SMALL && room < LIMITS.sheepdogPayloadBytesMax) {
          room = Math.min(room * 4, LIMITS.sheepdogPayloadBytesMax)
          continue
        }
        this.#log.warn('recovery.list.refused', { node: nodeKey(node), result: reply.result })
      } catch (error) {
        this.#log.warn('recovery.list.failed', { node: nodeKey(node), reason: String(error) })
      }
      await this.#pause()
    }
    return undefined
  }

  #others(nodes: readonly SdNode[]): SdNode[] {
    return nodes.filter((node) => node.vnodes > 0 && !this.#state.isSelf(node))
  }

  async #fetch(oid: Oid, fetch: Fetch): Promise<Code> {
    const { epoch } = this.#state
    for (let target = epoch; target >= this.#gatheredEpoch; target--) {
      const ring = await this.#ringOf(target)
      if (ring === undefined) return Code.NETWORK_ERROR
      const found = await this.#fetchFrom(oid, fetch, epoch, target, ring)
      if (found === 'found') return Code.SUCCESS
      if (found === 'removed') return Code.NO_OBJ
      if (found === 'unreachable') return Code.NETWORK_ERROR
      if (found === 'unknown') {
        this.#log.error('object.holders.gone', { oid: oidName(oid), epoch: target })
        return Code.STALE_OBJ
      }
      if (this.#state.epoch !== epoch) return Code.NETWORK_ERROR
    }
    return Code.NO_OBJ
  }

  async #fetchFrom(
    oid: Oid,
    fetch: Fetch,
    epoch: number,
    target: number,
    ring: Ring,
  ): Promise<Found> {
    const owners = ownersOf(ring, oid, this.#state.copiesOf(oidVid(oid)))
    const living = new Set<NodeKey>(this.#state.members.map(nodeKey))
    let absent = false
    let unreachable = false
    if (owners.some((node) => this.#state.isSelf(node))) {
      if (target !== epoch && this.#store.staleEpochs(oid).includes(target)) {
        const wanted = this.#wanting(fetch, epoch)
        const code = await this.#store.restoreStale(oid, target, wanted)
        if (code === Code.SUCCESS) return 'found'
        throw new SheepError(code)
      }
      absent = true
    }
    for (const node of owners) {
      if (this.#state.isSelf(node) || !living.has(nodeKey(node))) continue
      const code = await this.#take(oid, fetch, node, epoch, target)
      if (code === Code.SUCCESS) return 'found'
      if (code === Code.NOT_FOUND) return 'removed'
      if (code === Code.NO_OBJ) absent = true
      else unreachable = true
    }
    if (unreachable) return 'unreachable'
    // In an epoch without storage there was nothing to write to.
    return absent || owners.length === 0 ? 'absent' : 'unknown'
  }

  /** Gets one node's copy: by name when ours of an earlier epoch has the same bytes, else as a whole. */
  async #take(oid: Oid, fetch: Fetch, node: SdNode, epoch: number, target: number): Promise<Code> {
    const stale = this.#store.staleEpochs(oid)[0]
    const stillWanted = this.#wanting(fetch, epoch)
    if (stale !== undefined && (await this.#isSame({ oid, stale, node, epoch, target }))) {
      return fetch.forgotten ? Code.NO_OBJ : this.#store.restoreStale(oid, stale, stillWanted)
    }
    const bytes = this.#bytesOf(oid)
    const head = objectRequest({
      opcode: Op.READ_PEER,
      flags: Flag.RECOVERY,
      epoch,
      oid,
      targetEpoch: target,
      dataLength: bytes,
    })
    const reply = await this.#peers.call(node, head).catch(() => undefined)
    if (reply === undefined) return Code.NETWORK_ERROR
    if (reply.result !== Code.SUCCESS) return toCode(reply.result)
    if (reply.body.length !== bytes) return Code.NETWORK_ERROR
    if (fetch.forgotten) return Code.NO_OBJ
    return new Promise((resolve) => {
      const content = { bytes, offset: 0, data: reply.body }
      this.#store.create({ oid, fragment: -1, ...content, stillWanted }, resolve)
    })
  }

  /** A copy that arrives after the membership changed may not be this node's to keep any more. */
  #wanting(fetch: Fetch, epoch: number): () => boolean {
    return () => this.#state.epoch === epoch && !fetch.forgotten
  }

  /** The node is in our epoch when it answers: what it acknowledges afterwards comes here too. */
  async #isSame(question: HashQuestion): Promise<boolean> {
    const { oid, stale, node, epoch, target } = question
    const head = objectRequest({ opcode: Op.GET_HASH, epoch, oid, targetEpoch: target })
    const reply = await this.#peers.call(node, head).catch(() => undefined)
    if (reply?.result !== Code.SUCCESS) return false
    const own = await this.#store.hashStale(oid, stale, this.#bytesOf(oid))
    return own?.equals(decodeHashReply(reply)) === true
  }

  #bytesOf(oid: Oid): number {
    return objectBytes(oid, this.#state.blockSizeShiftOf(oidVid(oid)))
  }

  async #ringOf(epoch: number): Promise<Ring | undefined> {
    if (epoch === this.#state.epoch) return this.#state.view.ring
    const known = this.#rings.get(epoch)
    if (known !== undefined) return known
    const nodes = this.#epochLog.read(epoch)?.nodes ?? (await this.#askForEpoch(epoch))
    if (nodes === undefined) return undefined
    const ring = buildRing(nodes)
    this.#rings.set(epoch, ring)
    return ring
  }

  /**
   * The cluster went on without this node. What it holds is of its own last epoch, except what that epoch had
   * begun to take from it and did not get out of the way before a crash: that is of `placed`.
   */
  async outdated(placed: number): Promise<void> {
    const last = this.#epochLog.latest()
    const ring = placed < last ? await this.#ringOf(last) : undefined
    if (ring !== undefined) await this.#store.setAside(placed, (oid) => !this.#owns(ring, oid))
    await this.#store.setAside(last, () => true)
  }

  /** Gets the epochs this node did not live through, so that its history has no gaps. */
  async fillEpochLog(): Promise<void> {
    for (let epoch = this.#state.epoch - 1; epoch > 0; epoch--) {
      if (this.#epochLog.read(epoch) !== undefined) continue
      if ((await this.#askForEpoch(epoch)) === undefined) return
    }
  }

  /** The nodes of an epoch this node did not live through, from whoever did. */
  async #askForEpoch(epoch: number): Promise<readonly SdNode[] | undefined> {
    for (const node of this.#others(this.#state.members)) {
      const head = objectRequest({
        opcode: Op.GET_EPOCH,
        oid: 0n as Oid,
        targetEpoch: epoch,
        dataLength: LIMITS.nodesMax * NODE_BYTES + 8,
      })
      const reply = await this.#peers.call(node, head).catch(() => undefined)
      if (reply?.result !== Code.SUCCESS || reply.body.length < NODE_BYTES + 8) continue
      const count = Math.floor((reply.body.length - 8) / NODE_BYTES)
      const nodes = decodeNodes(reply.body, count)
      const time = Number(reply.body.readBigUInt64LE(count * NODE_BYTES))
      await this.#epochLog.write(epoch, { nodes, time })
      return nodes
    }
    return undefined
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      this.#clock.after(RETRY_MS, resolve)
    })
  }
}

function decodeOids(bytes: Buffer): Oid[] {
  const count = Math.floor(bytes.length / 8)
  return Array.from({ length: count }, (_, i) => bytes.readBigUInt64LE(8 * i) as Oid)
}
