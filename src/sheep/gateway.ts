/**
 * One object operation on the right nodes: find the owners in the current membership, stamp the epoch, do
 * it on every copy, and do it again under the next membership when one of them has moved on.
 *
 * A write is acknowledged when every owner of the epoch it was stamped with has it, never before, and
 * repeating it is harmless: a retry writes the same bytes to the same place on every copy.
 */
import { Code, type Done, retryOf } from '../base/codes.js'
import type { Log } from '../base/log.js'
import type { ObjectAccess, ObjectRef, SlotUpdate } from '../model/access.js'
import { slotRange } from '../model/inode.js'
import { inodeOid, type Oid, type Vid } from '../model/oid.js'
import { ClusterFlag, Flag, Op } from '../wire/sheepdog/opcodes.js'
import { objectRequest } from '../wire/sheepdog/requests.js'
import type { World } from '../world/world.js'
import { type Attempt, CodedObjects } from './coded-objects.js'
import { copyAround } from './copy-around.js'
import type { Settling, Track } from './equal/settling.js'
import { askEveryNode, type Question, withinLimit } from './every-node.js'
import type { Layouts } from './layouts.js'
import type { LocalObjects } from './local-objects.js'
import { moreTelling, replyCode } from './outcome.js'
import type { Peers } from './peers.js'
import { PlacedRef } from './placed-ref.js'
import type { DroppedRef } from './reclaim.js'
import { readRemote } from './remote-read.js'
import { replaceSlots, type SlotSteps } from './replace-slots.js'
import type { NodeState } from './state.js'
import { Traffic } from './traffic.js'

const RETRY_MS_MIN = 10
const RETRY_MS_MAX = 1_000
/** Writes wait for owners that are away; a snapshot waits for them no longer than this. */
const DRAIN_MS_MAX = 60_000

/** One operation on all owners of an object, as sent to each of them. */
interface FanOut {
  readonly opcode: number
  readonly flags: number
  readonly offset: number
  readonly data: Uint8Array | undefined
  readonly onLocal: (epoch: number, done: Done) => void
}

/** A write of some kind on its way to the copies of one object. */
interface Sending {
  readonly ref: PlacedRef
  readonly track: Track
}

export interface GatewayOptions {
  readonly state: NodeState
  readonly local: LocalObjects
  readonly peers: Peers
  readonly settling: Settling
  readonly layouts: Layouts
  readonly log: Log
  readonly world: Pick<World, 'clock' | 'random' | 'strips'>
  /** References a slot update dropped, after it has become durable and before anybody is told. */
  readonly dropped: (refs: readonly DroppedRef[]) => void
  /** Called with them before the update: what must survive a crash in between is recorded. */
  readonly aboutToDrop: (refs: readonly DroppedRef[]) => Promise<void>
  /** Runs `create` when no removal decided on earlier can take away what it makes. */
  readonly beforeCreate: (oid: Oid, create: () => void) => void
  /** Calls `done` when what this node has cached of the volume's writes is on its owners. */
  readonly pushed: (vid: Vid, done: () => void) => void
}

export class Gateway implements ObjectAccess {
  readonly #state: NodeState
  readonly #local: LocalObjects
  readonly #peers: Peers
  readonly #settling: Settling
  readonly #world: Pick<World, 'clock' | 'random'>
  readonly #options: GatewayOptions
  readonly #coded: CodedObjects
  readonly #traffic = new Traffic()
  #stopping = false

  constructor(options: GatewayOptions) {
    this.#state = options.state
    this.#local = options.local
    this.#peers = options.peers
    this.#settling = options.settling
    this.#world = options.world
    this.#options = options
    this.#coded = new CodedObjects({
      ...options,
      strips: options.world.strips,
      retry: (what, done, again) => this.#retryWanted(what, done, again),
    })
  }

  /**
   * `isWanted`: false once its client is gone. What failed is not tried again then: the client may have sent it again
   * over another connection, and gone on.
   */
  ref(oid: Oid, isWanted?: () => boolean): PlacedRef {
    return new PlacedRef(oid, isWanted)
  }

  isSure(): boolean {
    return this.#state.isSure()
  }

  whenSure(go: () => void, fail: Done): void {
    this.#retry(Code.WAIT_FOR_JOIN, 0, fail, go)
  }

  read(ref: ObjectRef, offset: number, into: Uint8Array, done: Done): void {
    const placed = ref as PlacedRef
    if (this.#isCoded(placed)) this.#coded.read(placed, offset, into, done)
    else this.#readTry(placed, offset, into, done, 0)
  }

  write(ref: ObjectRef, offset: number, data: Uint8Array, durable: boolean, done: Done): void {
    const placed = ref as PlacedRef
    if (placed.isData && this.#state.vids.get(placed.vid)?.snapshot === true) {
      done(Code.READONLY)
      return
    }
    this.push(ref, offset, data, durable, done)
  }

  /** As `write`, also into a volume that has become a snapshot: of what was acknowledged before it did. */
  push(ref: ObjectRef, offset: number, data: Uint8Array, durable: boolean, done: Done): void {
    const placed = ref as PlacedRef
    this.#traffic.begin(placed.vid)
    const finish: Done = (code) => {
      this.end(placed.vid)
      done(code)
    }
    this.#write(placed, offset, data, durable, finish)
  }

  create(
    ref: ObjectRef,
    offset: number,
    data: Uint8Array,
    source: ObjectRef | undefined,
    done: Done,
  ): void {
    const placed = ref as PlacedRef
    if (source === undefined) {
      this.#create(placed, offset, data, done)
      return
    }
    const copy = {
      ...{ bytes: this.#local.bytesOf(placed.oid), offset, data },
      read: (at: number, into: Uint8Array, ended: Done) => this.read(source, at, into, ended),
      create: (at: number, whole: Uint8Array, ended: Done) =>
        this.#create(placed, at, whole, ended),
      write: (at: number, part: Uint8Array, ended: Done) =>
        this.#write(placed, at, part, true, ended),
      soon: (fn: () => void) => this.#world.clock.soon(fn),
    }
    copyAround(copy, done)
  }

  remove(oid: Oid, done: Done): void {
    const ref = this.ref(oid)
    if (this.#isCoded(ref)) {
      this.#coded.remove(ref, done)
      return
    }
    const head = { opcode: Op.REMOVE_PEER, flags: 0, offset: 0, data: undefined }
    this.#everywhere(ref, done, {
      ...head,
      onLocal: (epoch, localDone) => this.#local.remove(epoch, oid, localDone),
    })
  }

  setSlots(update: SlotUpdate, done: Done): void {
    const gone = update.previous.some((vid, i) => vid !== 0 && vid !== update.next[i])
    const bytes = Buffer.from(update.next.buffer, update.next.byteOffset, update.next.byteLength)
    const oid = inodeOid(update.vid)
    const inode = this.ref(oid, update.isWanted)
    const { offset } = slotRange(update.first, 0)
    if (!gone) {
      this.#write(inode, offset, bytes, update.durable, done)
      return
    }
    const { dropped, aboutToDrop } = this.#options
    const steps: SlotSteps = {
      ...{ dropped, aboutToDrop },
      read: (at, into, ended) => this.read(inode, at, into, ended),
      writeSlots: (ended) => this.#write(inode, offset, bytes, true, ended),
      // What has been begun is finished, whether anybody waits for it or not.
      writeRefs: (at, refs, ended) => this.#write(this.ref(oid), at, refs, true, ended),
    }
    replaceSlots(steps, update, done)
  }

  flush(vid: Vid, done: Done): void {
    const onSelf = (localDone: Done): void => this.#local.flush(vid, localDone)
    this.#everyNode({ opcode: Op.FLUSH_PEER, vid, heir: undefined, onSelf }, done)
  }

  /**
   * Waits until every gateway has heard of `heir`, the successor that makes the volume a snapshot, and has
   * none of the writes under way any more that it began before. AGAIN after a minute, or when something has made the
   * volume a working one again: all volume operations of the cluster wait for this one.
   */
  drainEverywhere(vid: Vid, heir: Vid, done: Done): void {
    const onSelf = (localDone: Done): void => this.drain(vid, () => localDone(Code.SUCCESS))
    const { vids } = this.#state
    const limited = withinLimit(this.#world.clock, DRAIN_MS_MAX, done)
    const isWanted = (): boolean => limited.isWanted() && vids.isHandedTo(vid, heir)
    this.#everyNode({ opcode: Op.FLUSH_NODES, vid, heir, onSelf, isWanted }, (code) =>
      limited.done(code === Code.SUCCESS && !vids.isHandedTo(vid, heir) ? Code.AGAIN : code),
    )
  }

  /** The same for this gateway alone. */
  drain(vid: Vid, done: () => void): void {
    this.#options.pushed(vid, () => this.#traffic.drain(vid, done))
  }

  begin(vid: Vid): boolean {
    if (this.#state.vids.get(vid)?.snapshot === true) return false
    this.#traffic.begin(vid)
    return true
  }

  end(vid: Vid): void {
    this.#traffic.end(vid)
  }

  get stopping(): boolean {
    return this.#stopping
  }

  /** Operations that wait for a better membership fail now. */
  stop(): void {
    this.#stopping = true
    this.#state.wakeViewWaiters()
  }

  /** True when a strict cluster has too few zones for writing this volume. */
  halted(vid: Vid): boolean {
    const { ring } = this.#state.view
    if (ring.zones === 0) return true
    return this.#state.has(ClusterFlag.STRICT) && ring.zones < this.#state.copiesOf(vid)
  }

  #isCoded(ref: PlacedRef): boolean {
    return ref.mayBeCoded && this.#state.policyOf(ref.vid) !== 0
  }

  #place(ref: PlacedRef): void {
    const { view } = this.#state
    if (ref.view === view) return
    const owners = this.#state.owners(ref.oid, ref.vid)
    ref.local = owners.some((node) => this.#state.isSelf(node))
    ref.remotes = owners.filter((node) => !this.#state.isSelf(node))
    ref.view = view
  }

  #readTry(ref: PlacedRef, offset: number, into: Uint8Array, done: Done, attempt: number): void {
    this.#place(ref)
    const again = (code: Code): void => {
      this.#retryWanted({ ref, code, attempt }, done, () =>
        this.#readTry(ref, offset, into, done, attempt + 1),
      )
    }
    if (!this.#state.isSure()) {
      again(Code.WAIT_FOR_JOIN)
      return
    }
    if (!ref.local) {
      this.#readRemote(ref, offset, into, done, again)
      return
    }
    const { view } = this.#state
    this.#local.read(view.epoch, ref.oid, offset, into, (code) => {
      if (code === Code.SUCCESS) done(code)
      // The other owners of then need not be owners now: what they still have may be old.
      else if (this.#state.view !== view) again(Code.OLD_NODE_VER)
      else if (ref.remotes.length > 0) this.#readRemote(ref, offset, into, done, again)
      else again(code)
    })
  }

  /** Asks the other owners, beginning with any of them; the first success wins. */
  #readRemote(
    ref: PlacedRef,
    offset: number,
    into: Uint8Array,
    done: Done,
    failed: (code: Code) => void,
  ): void {
    const nodes = ref.remotes
    if (nodes.length === 0) {
      failed(this.#state.status === 'ok' ? Code.HALT : Code.WAIT_FOR_JOIN)
      return
    }
    const start = this.#world.random.below(nodes.length)
    const { oid } = ref
    const { epoch } = this.#state
    const blockSizeShift = this.#state.blockSizeShiftOf(ref.vid)
    const read = { peers: this.#peers, nodes, start, epoch, oid, offset, blockSizeShift, into }
    readRemote(read, (code) => {
      if (code === Code.SUCCESS) done(code)
      else failed(code)
    })
  }

  #write(ref: PlacedRef, offset: number, data: Uint8Array, durable: boolean, done: Done): void {
    this.#tracked(ref, done, (track, ended) => {
      if (this.#isCoded(ref)) {
        this.#coded.write({ ref, track }, offset, data, durable, ended)
        return
      }
      this.#onOwners({ ref, track }, ended, {
        opcode: Op.WRITE_PEER,
        flags: Flag.WRITE | (durable ? Flag.DIRECT : Flag.CACHE),
        offset,
        data,
        onLocal: (epoch, localDone) => {
          const write = { epoch, id: ref.oid, offset, data }
          this.#local.write(write, durable, localDone)
        },
      })
    })
  }

  #create(ref: PlacedRef, offset: number, data: Uint8Array, done: Done): void {
    if (this.#state.status === 'ok' && this.halted(ref.vid)) {
      done(Code.HALT)
      return
    }
    const whenFree = (run: (track: Track, ended: Done) => void): void =>
      this.#options.beforeCreate(ref.oid, () => {
        if (ref.isWanted?.() === false) done(Code.NETWORK_ERROR)
        else this.#tracked(ref, done, run)
      })
    if (this.#isCoded(ref)) {
      whenFree((track, ended) => this.#coded.create({ ref, track }, offset, data, ended))
      return
    }
    const what: FanOut = {
      opcode: Op.CREATE_AND_WRITE_PEER,
      flags: Flag.WRITE | Flag.DIRECT,
      offset,
      data,
      onLocal: (epoch, localDone) => {
        const create = { epoch, id: ref.oid, offset, data }
        this.#local.create(create, localDone)
      },
    }
    whenFree((track, ended) => this.#onOwners({ ref, track }, ended, what))
  }

  /**
   * Keeps account of the write until it has ended. One that failed may have reached some copies: those are compared
   * before the caller, or anybody, goes on.
   */
  #tracked(ref: PlacedRef, done: Done, run: (track: Track, ended: Done) => void): void {
    const track = this.#settling.begin(ref.oid)
    run(track, (code) => {
      const finish = (): void => {
        this.#settling.end(track)
        done(code)
      }
      const isUndecided = code !== Code.SUCCESS && track.nodes.size > 1
      if (isUndecided && !this.#stopping) this.#distrust(ref, finish)
      else finish()
    })
  }

  /** Has every owner compare its copy; tries until all have it on record, or this node stops. */
  #distrust({ oid }: PlacedRef, done: () => void): void {
    const ref = this.ref(oid)
    const told: Done = (code) => {
      if (code !== Code.SUCCESS) this.#settling.leaveOpen(ref.oid)
      done()
    }
    if (this.#isCoded(ref)) this.#coded.distrust(ref, told)
    else
      this.#everywhere(ref, told, {
        opcode: Op.SUSPECT,
        flags: 0,
        offset: 0,
        data: undefined,
        onLocal: (epoch, localDone) => this.#local.distrust(epoch, ref.oid, localDone),
      })
  }

  /** A write to all owners, again under the next membership as long as that may help. */
  #onOwners(sending: Sending, done: Done, what: FanOut, attempt = 0): void {
    const { ref, track } = sending
    this.#place(ref)
    const again = (code: Code): void => {
      if (code === Code.SUCCESS) done(code)
      else {
        this.#retryWanted({ ref, code, attempt }, done, () =>
          this.#onOwners(sending, done, what, attempt + 1),
        )
      }
    }
    if (!this.#state.isSure()) {
      again(Code.WAIT_FOR_JOIN)
      return
    }
    if (this.halted(ref.vid)) {
      again(this.#state.status === 'ok' ? Code.HALT : Code.WAIT_FOR_JOIN)
      return
    }
    this.#settling.sending(track, ref.remotes, ref.local ? this.#state.self : undefined)
    this.#fanOut(ref, this.#state.epoch, again, what)
  }

  /** The operation on all owners, again under the next membership as long as that may help. */
  #everywhere(ref: PlacedRef, done: Done, what: FanOut, attempt = 0): void {
    this.#place(ref)
    const finish = (code: Code): void => {
      if (code === Code.SUCCESS) done(code)
      else {
        this.#retryWanted({ ref, code, attempt }, done, () =>
          this.#everywhere(ref, done, what, attempt + 1),
        )
      }
    }
    if (!this.#state.isSure()) {
      finish(Code.WAIT_FOR_JOIN)
      return
    }
    if (!ref.local && ref.remotes.length === 0) {
      finish(this.#state.status === 'ok' ? Code.HALT : Code.WAIT_FOR_JOIN)
      return
    }
    this.#fanOut(ref, this.#state.epoch, finish, what)
  }

  /** Sends to every owner of this epoch; `done` gets SUCCESS only when all of them succeeded. */
  #fanOut(ref: PlacedRef, epoch: number, done: Done, what: FanOut): void {
    if (ref.local && ref.remotes.length === 0) {
      what.onLocal(epoch, done)
      return
    }
    let waiting = ref.remotes.length + (ref.local ? 1 : 0)
    let outcome: Code = Code.SUCCESS
    const one = (code: Code): void => {
      outcome = moreTelling(outcome, code)
      if (--waiting === 0) done(outcome)
    }
    const blockSizeShift = this.#state.blockSizeShiftOf(ref.vid)
    for (const node of ref.remotes) {
      const head = objectRequest({
        opcode: what.opcode,
        flags: what.flags,
        epoch,
        oid: ref.oid,
        offset: what.offset,
        blockSizeShift,
        dataLength: what.data?.length ?? 0,
      })
      this.#peers.request(node, head, what.data, (reply) => one(replyCode(reply)))
    }
    if (ref.local) what.onLocal(epoch, one)
  }

  #everyNode(question: Question, done: Done, attempt = 0): void {
    askEveryNode({ state: this.#state, peers: this.#peers }, question, (code) => {
      if (code === Code.SUCCESS) done(code)
      else if (question.isWanted?.() === false) done(code)
      else this.#retry(code, attempt, done, () => this.#everyNode(question, done, attempt + 1))
    })
  }

  #retryWanted({ ref, code, attempt }: Attempt, done: Done, again: () => void): void {
    this.#retry(code, attempt, done, () => {
      if (ref.isWanted?.() === false) done(code)
      else again()
    })
  }

  #retry(code: Code, attempt: number, done: Done, again: () => void): void {
    if (retryOf(code) === 'never') {
      done(code)
      return
    }
    if (this.#stopping || this.#state.status === 'killed' || this.#state.status === 'shutdown') {
      done(Code.SHUTDOWN)
      return
    }
    let ran = false
    const once = (): void => {
      if (ran) return
      ran = true
      cancelTimer()
      cancelWait()
      again()
    }
    const delay = Math.min(RETRY_MS_MIN * 2 ** Math.min(attempt, 10), RETRY_MS_MAX)
    const cancelTimer = this.#world.clock.after(delay, once)
    const cancelWait = this.#state.afterViewChange(once)
  }
}
