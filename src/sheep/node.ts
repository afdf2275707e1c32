/**
 * A sheep: its disks, its place in the cluster, and everything doors need of it.
 *
 * Events of the cluster driver change the node's idea of the membership at once (`#info`), so that the
 * answer to a join never lags behind the order of events; what follows from them (files, placement,
 * volumes) is done one after the other behind a queue, in the same order.
 */
import { Code } from '../base/codes.js'
import { describe, type Log } from '../base/log.js'
import type { ClusterDriver, DriverEvents } from '../cluster/driver.js'
import { nodeKey, type SdNode, sortNodes } from '../model/node.js'
import type { Vid } from '../model/oid.js'
import type { EpochLog } from '../store/epoch-log.js'
import type { ObjectStore } from '../store/object-store.js'
import { decodeClusterMessage } from '../wire/sheepdog/cluster-message.js'
import type { Frame } from '../wire/sheepdog/frame.js'
import { type ClusterInfo, decodeClusterInfo, encodeClusterInfo } from '../wire/sheepdog/records.js'
import type { World } from '../world/world.js'
import { Alterations } from './alterations.js'
import { type Answer, failed } from './answer.js'
import { VolumeCache } from './cache/volume-cache.js'
import { Caretaker, INTENTS } from './caretaker.js'
import { ClusterOps } from './cluster-ops.js'
import { Completion } from './completion.js'
import { equalCopies } from './equal/equal-copies.js'
import type { InFlight } from './equal/in-flight.js'
import type { Settling } from './equal/settling.js'
import type { Suspects } from './equal/suspects.js'
import { Gateway } from './gateway.js'
import { History } from './history.js'
import { InodeCopies } from './inode-copies.js'
import { InodeIo } from './inode-io.js'
import { judgeJoin } from './join-rules.js'
import { type Lesson, learnVolumes } from './learning.js'
import { type Lease, leaseOf } from './lease.js'
import { leaveInTime } from './leaving.js'
import { Ledgers } from './ledger.js'
import { LocalObjects } from './local-objects.js'
import { LockKeeper } from './lock-keeper.js'
import {
  answerJoin,
  type Effect,
  onAccepted,
  onLeft,
  onUpdated,
  type RecoverFrom,
  type Step,
} from './membership.js'
import { NodeDisks } from './node-disks.js'
import { type Duties, NODE_OPERATIONS } from './node-operations.js'
import type { NodeOptions } from './node-options.js'
import { onMessage } from './ordered-steps.js'
import { Peers } from './peers.js'
import { Placed } from './placed.js'
import { Reclaim } from './reclaim.js'
import { Recovery } from './recovery/engine.js'
import { otherStorers } from './recovery/epoch-rings.js'
import { SharedVolumes } from './shared-volumes.js'
import { NodeState } from './state.js'
import { Stats } from './stats.js'
import { VdiService } from './vdi-service.js'
import { VolumeWatch } from './volume-watch.js'
import { Weights } from './weights.js'
import { Witness } from './witness.js'

/** Other nodes get this long to hear that the writes of this one have ended. */
const SETTLE_PATIENCE_MS = 1_000

export class SheepNode {
  readonly state: NodeState
  readonly gateway: Gateway
  /** What doors use objects through. */
  readonly cache: VolumeCache
  readonly local: LocalObjects
  readonly peers: Peers
  readonly inFlight: InFlight
  readonly suspects: Suspects
  readonly recovery: Recovery
  readonly reclaim: Reclaim
  readonly inodes: InodeIo
  readonly ledgers: Ledgers
  readonly ops: ClusterOps
  readonly locks: LockKeeper
  readonly shared: SharedVolumes
  readonly disks: NodeDisks
  readonly store: ObjectStore
  readonly epochLog: EpochLog
  readonly stats = new Stats()
  readonly weights: Weights
  readonly log: Log
  readonly #world: World
  readonly #driver: ClusterDriver
  readonly #over: NodeOptions['over']
  readonly #volumes = new VolumeWatch()
  readonly caretaker: Caretaker
  readonly #history: History
  readonly #placed: Placed
  readonly #lease: Lease
  readonly #completion: Completion
  readonly #alterations: Alterations
  readonly #settling: Settling
  readonly #duties: Duties
  #info: ClusterInfo
  /** Members by the order of events; `state.members` follows when the queue gets there. */
  #latestMembers: readonly SdNode[] = []
  #queue: Promise<void> = Promise.resolve()
  /** A member went: operations it may have left half-done are looked for once its epoch is over. */
  #memberWent = false
  #ended = false
  #stopped = false
  #suspended = false
  /** The whole cluster was shut down, with every object where it belongs. */
  #shutDownClean = false

  constructor(options: NodeOptions) {
    const { world, log, self, store, epochLog } = options
    this.log = log
    this.store = store
    this.epochLog = epochLog
    this.#world = world
    this.#driver = options.driver
    this.#over = options.over
    this.#placed = new Placed(world.files, options.metaDirectory)
    this.state = new NodeState(self)
    this.locks = new LockKeeper(this.state)
    this.#lease = leaseOf(this.state, options)
    this.peers = new Peers(world, log, self)
    const equal = equalCopies({
      ...{ state: this.state, store, peers: this.peers, clock: world.clock, log },
      inFlightLog: options.inFlightLog,
      compare: (oid) => this.recovery.compare(oid),
    })
    this.inFlight = equal.inFlight
    this.suspects = equal.suspects
    this.#settling = equal.settling
    this.recovery = new Recovery({
      ...{ state: this.state, strips: world.strips },
      store,
      epochLog,
      peers: this.peers,
      suspects: this.suspects,
      witness: new Witness(options, this.state),
      clock: world.clock,
      log,
      plan: options.recovery,
      placed: (epoch) => this.#placed.write(this.state.settings.ctime, epoch),
      finished: (epoch) => this.#completion.announce(epoch),
      overfull: () => this.#completion.holdOff(),
    })
    this.local = new LocalObjects({
      ...{ state: this.state, store, recovery: this.recovery },
      ...{ inFlight: this.inFlight, suspects: this.suspects },
    })
    this.gateway = new Gateway({
      ...{ state: this.state, layouts: this.recovery.layouts, log },
      local: this.local,
      peers: this.peers,
      settling: this.#settling,
      world,
      dropped: (refs) => this.reclaim.dropped(refs),
      aboutToDrop: (refs) => this.reclaim.aboutToDrop(refs),
      beforeCreate: (oid, create) => this.reclaim.beforeCreate(oid, create),
      pushed: (vid, done) => this.cache.pushed(vid, done),
    })
    this.inodes = new InodeIo(this.gateway)
    this.ledgers = new Ledgers({
      ...{ state: this.state, gateway: this.gateway, local: this.local, peers: this.peers },
      isRecovering: () =>
        this.recovery.progress().inRecovery || this.state.lost.epoch >= this.state.epoch,
    })
    this.reclaim = new Reclaim({
      ...{ state: this.state, gateway: this.gateway, files: world.files, log },
      ...{ inodes: this.inodes, ledgers: this.ledgers },
      directory: `${options.metaDirectory}/${INTENTS}`,
    })
    this.ops = new ClusterOps({
      ...{ state: this.state, driver: options.driver, log, locks: this.locks },
      vdis: new VdiService({
        state: this.state,
        gateway: this.gateway,
        inodes: this.inodes,
        clock: world.clock,
        announcer: () => this.ops,
        guardOf: (vid) => this.locks.guardOf(vid),
      }),
      lockGranted: (vid, serial) => this.shared.afterLock(vid, serial),
      perform: async (request, sender) => this.#perform(request, sender),
      ...{ forceable: () => this.#info, changed: (vid) => this.volumeChanged(vid) },
      deletedHere: (vid) => this.reclaim.deleteVolume(vid),
    })
    this.shared = new SharedVolumes({
      ...{ state: this.state, locks: this.locks, peers: this.peers, clock: world.clock },
      broadcast: (head) => this.ops.broadcast(head),
      drainWrites: (vid, done) => this.gateway.drain(vid, done),
    })
    this.cache = new VolumeCache({
      ...{ ...options, ...world, state: this.state, peers: this.peers, gateway: this.gateway },
      broadcast: (head) => this.ops.broadcast(head),
    })
    this.caretaker = new Caretaker({
      ...{ ...world, log, state: this.state, directory: options.metaDirectory },
      ...{ ops: this.ops, inodes: this.inodes, reclaim: this.reclaim },
      copies: new InodeCopies({ state: this.state, local: this.local, peers: this.peers }),
      ...{ node: this, changed: (vid) => this.volumeChanged(vid) },
      isHeld: (vid) => this.#volumes.isWatched(vid) || this.cache.isCaching(vid),
    })
    this.#completion = new Completion({
      ...{ state: this.state, log },
      broadcast: (head, payload) => this.ops.broadcast(head, payload),
      mayForget: (epoch) => this.recovery.mayForget(epoch),
      gathered: (epoch) => this.#gathered(epoch),
    })
    this.#alterations = new Alterations({ ...options, ...world, vids: this.state.vids })
    this.weights = new Weights({
      ...{ ...options, state: this.state },
      record: (spaceBytes) => this.#history.recordSpace(spaceBytes),
    })
    this.#duties = {
      ...{ state: this.state, locks: this.locks, store, weights: this.weights },
      ...{ cache: this.cache, alterations: this.#alterations },
      recycling: this.caretaker.recycling,
      recordCopies: (copies) => this.#history.recordCopies(copies),
      completion: this.#completion,
      recovery: this.recovery,
      shutDown: () => this.#shutDown(),
      volumeChanged: (vid) => this.volumeChanged(vid),
    }
    this.#history = new History({ ...options, ...world, vids: this.state.vids })
    this.#info = this.#history.clusterInfo()
    this.state.takeSettings(this.#info)
    const { state, recovery, ops } = this
    this.disks = new NodeDisks({ ...options, state, recovery, ops, fail: (why) => this.#fail(why) })
  }

  /** Becomes a member; resolves when this node has been accepted and has done what followed. */
  async join(): Promise<void> {
    const request = encodeClusterInfo(this.#info)
    await this.cache.start()
    await this.#driver.join(this.state.self, request, this.#events())
    await this.#queue
    if (!this.#ended) this.#lease.watch()
  }

  /** What GET_NODE_LIST, CLUSTER_INFO and the like are answered from. */
  get clusterInfo(): ClusterInfo {
    return this.#info
  }

  onVolumeChange(vid: Vid, changed: () => void): () => void {
    return this.#volumes.watch(vid, changed)
  }

  after(delayMs: number, fn: () => void): () => void {
    return this.#world.clock.after(delayMs, fn)
  }

  volumeChanged(vid: Vid): void {
    this.#volumes.changed(vid)
    this.cache.changed(vid)
  }

  /** An orderly stop of this node alone: what waits is finished, the others see it leave. */
  async stop(): Promise<void> {
    if (this.#stopped) return
    this.#stopped = true
    await this.cache.stop()
    this.#ended = true
    this.log.info('node.stop', { epoch: this.state.epoch })
    await this.#settling.stop(SETTLE_PATIENCE_MS)
    this.cutShort()
    this.#lease.stop()
    await leaveInTime(this.#driver, this.#world.clock, this.log)
    this.state.status = this.state.status === 'shutdown' ? 'shutdown' : 'killed'
    this.state.wakeViewWaiters()
    await this.#queue // Or it would meet the next life on the same store.
    if (!(await this.disks.close())) this.#shutDownClean = false
    this.inFlight.stop()
    // Only now is everything where the mark says it is.
    if (this.#shutDownClean && this.inFlight.isEmpty)
      await this.#history.recordShutdown(this.#info, true)
  }

  /** What waits for other nodes fails now, also what waits for an object they are to give. */
  cutShort(): void {
    this.recovery.stop()
    this.suspects.stop()
    this.caretaker.recycling.stop()
    this.gateway.stop()
    this.peers.close()
    this.ops.end(Code.KILLED)
  }

  #events(): DriverEvents {
    return {
      joinRefusal: (joiner, members, request) => {
        const { log, epochLog } = this
        return judgeJoin({ own: this.#info, joiner, members, log, epochLog, request })
      },
      joinRequest: (joiner, members, request) => {
        const answer = answerJoin(this.#info, joiner, members, decodeClusterInfo(request))
        return encodeClusterInfo(answer)
      },
      accepted: (joiner, members, answer) => {
        const info = decodeClusterInfo(answer)
        const arrival = { self: this.state.self, joiner, members, answer: info }
        this.log.info('member.joined', { node: nodeKey(joiner), members: members.length })
        this.#take(members, onAccepted(this.#info, arrival))
      },
      left: (node, members) => {
        this.log.info('member.left', { node: nodeKey(node), members: members.length })
        this.#take(members, onLeft(this.#info, node, members))
      },
      notified: (sender, message) => this.#notified(sender, message),
      blocked: () => this.#enqueue(async () => this.ops.onTurn()),
      updated: (node, members) => {
        const { vnodes, spaceBytes } = node
        this.log.info('member.updated', { node: nodeKey(node), vnodes, spaceBytes })
        if (this.state.isSelf(node)) this.state.self = node
        this.#take(members, onUpdated(this.#info, members))
      },
      isServing: () => this.#info.status !== 'wait',
      suspended: (reason) => this.#suspend(reason),
      lost: (reason) => this.#fail(`the cluster driver gave up: ${reason}`),
    }
  }

  #take(members: readonly SdNode[], step: Step): void {
    this.#info = step.next
    this.#latestMembers = members
    this.#enqueue(async () => {
      this.state.members = sortNodes(members)
      for (const effect of step.effects)
        if (!this.#ended) await this.#carryOut(effect, step.next.epoch)
    })
  }

  #notified(sender: SdNode, message: Buffer): void {
    const place = { self: this.state.self, own: this.#info, members: this.#latestMembers }
    const step = onMessage(place, decodeClusterMessage(message))
    if (step !== undefined) this.#info = step.next
    this.#enqueue(async () => {
      if (step?.formats === true) await this.#format(step.next)
      for (const effect of step?.effects ?? []) await this.#carryOut(effect, step!.next.epoch)
      await this.ops.onMessage(sender, message)
    })
  }

  #enqueue(work: () => Promise<void>): void {
    const next = this.#queue.then(() => (this.#ended ? undefined : work()))
    this.#queue = next.catch((error: unknown) => {
      this.#fail(`an event of the cluster could not be handled: ${describe(error)}`)
    })
  }

  /** `epoch`: the one that begins with the event. */
  async #carryOut(effect: Effect, epoch: number): Promise<void> {
    switch (effect.kind) {
      case 'refused':
        this.#fail(effect.reason)
        return
      case 'outdated': {
        const epoch = this.epochLog.latest()
        this.log.info('store.outdated', { epoch })
        // Its suspects stay on record: where all owners come back like this, their copies are the newest there are.
        await this.recovery.outdated(this.#placed.read(this.state.settings.ctime) ?? epoch)
        return
      }
      case 'learn':
        await this.#learn(effect, epoch)
        return
      case 'serve':
        await this.#serve(effect.info, effect.recover)
        return
      case 'left':
        this.peers.drop(effect.node)
        this.suspects.add(this.inFlight.unsettledBy(nodeKey(effect.node)))
        this.locks.left(effect.node)
        this.#memberWent = true
    }
  }

  #learn(what: Pick<Lesson, 'from' | 'keepOwn'>, epoch: number): Promise<void> {
    const { state, peers, log } = this
    return learnVolumes({
      ...{ state, peers, log, ...what, epoch },
      clock: this.#world.clock,
      isMember: (key) =>
        !this.#ended && this.#latestMembers.some((member) => nodeKey(member) === key),
    })
  }

  async #serve(info: ClusterInfo, recover: RecoverFrom): Promise<void> {
    await this.recovery.outOfTheWay()
    const restarted = this.state.status === 'wait'
    const wasClean = this.#history.wasCleanShutdown
    this.state.takeSettings(info)
    await this.disks.beforeServing(recover.epoch)
    await this.#alterations.apply(info.ctime)
    await this.#history.record(info)
    this.#completion.reset()
    if (this.#suspended) return
    this.#begin(info)
    this.log.info('epoch.serve', { epoch: info.epoch, nodes: info.nodes.length })
    this.recovery.knowGathered(info.gathered ?? 0)
    this.recovery.knowForced(info.forced ?? 0)
    if (!recover.sameMembers || !wasClean || this.recovery.isWildcard) {
      this.recovery.start(this.#placed.read(info.ctime) ?? recover.epoch)
    }
    if (restarted) {
      this.caretaker.resumeIntents()
      void this.recovery.fillEpochLog().catch((error: unknown) => {
        this.log.warn('epoch.log.incomplete', { reason: describe(error) })
      })
    }
    if (restarted || this.#memberWent) this.caretaker.settleSoon(restarted)
    this.#memberWent = false
    this.disks.served()
  }

  async #format(info: ClusterInfo): Promise<void> {
    this.recovery.reset()
    await this.recovery.outOfTheWay()
    await this.store.format()
    await this.suspects.reset()
    await this.epochLog.remove(this.epochLog.list())
    this.state.vids.clear()
    await this.#placed.write(info.ctime, info.epoch)
    await this.#history.record(info)
    this.state.takeSettings(info)
    if (this.#suspended) return
    this.#begin(info)
    this.log.info('cluster.formatted', { copies: info.copies, store: info.store })
  }

  /** Requests run under this membership from now on. */
  #begin(info: ClusterInfo): void {
    this.state.status = 'ok'
    this.locks.checkpoint(info.epoch)
    this.caretaker.recycling.begin()
    this.suspects.begin(info.epoch)
    this.state.setView(info.epoch, info.nodes)
    void this.suspects.gather(otherStorers(this.state, info.nodes))
  }

  /** Operations that every node performs when the message arrives in order. */
  #perform(request: Frame, sender: SdNode): Promise<Answer> | Answer {
    const perform = NODE_OPERATIONS.get(request.opcode)
    if (perform !== undefined) return perform(this.#duties, request, sender)
    this.log.debug('cluster.operation.ignored', { op: request.opcode, sender: nodeKey(sender) })
    return failed(Code.INVALID_PARMS)
  }

  #shutDown(): void {
    this.state.status = 'shutdown'
    this.gateway.stop()
    const isSettled = !this.recovery.progress().inRecovery && this.reclaim.backlog === 0
    this.#shutDownClean = this.state.formatted && isSettled
    // The answer to whoever asked must leave first.
    this.#world.clock.after(0, () => this.#over(undefined))
  }

  /** Every node has everything of `epoch`: older copies of removed objects may be forgotten. */
  async #gathered(epoch: number): Promise<void> {
    await this.#history.recordGathered(epoch)
    await this.#alterations.clear(this.state.settings.ctime)
    // A format may be ordered already that this node has not carried out yet.
    const isCurrent = this.#info.ctime === this.state.settings.ctime
    if (isCurrent) this.#info = { ...this.#info, gathered: epoch }
    this.recovery.gathered(epoch)
  }

  /** The others go on without this node, and what it was doing is theirs to settle: nothing of it is finished. */
  #suspend(reason: string): void {
    if (this.#ended) return
    this.#suspended = true
    this.log.warn('node.suspended', { reason, epoch: this.#info.epoch })
    // First of all: the clients' connections end before they can be told of failures that are none.
    this.#over(reason, true)
    this.#end('wait', Code.WAIT_FOR_JOIN)
  }

  #fail(reason: string): void {
    if (this.#ended) return
    this.log.error('node.failed', { reason })
    this.#end('killed', Code.KILLED)
    this.#over(reason)
  }

  /** Nothing is served any more; what waits for other nodes ends with `code`. */
  #end(status: 'wait' | 'killed', code: Code): void {
    this.#ended = true
    this.state.status = status
    this.gateway.stop()
    this.recovery.stop()
    this.#lease.stop()
    this.state.wakeViewWaiters()
    this.ops.abandon(code)
  }
}
