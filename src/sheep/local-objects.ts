/**
 * Object requests on this node's own copies, whoever asks: another sheep, or the gateway in here.
 *
 * The epoch rule (protocol spec, section 11): a request of an older epoch is refused, one of a newer epoch
 * waits for ours. A success that completes after the epoch moved on is refused too: the new owners may
 * have fetched the object before it, and the gateway will write again under the new membership.
 */
import { Code, type Done } from '../base/codes.js'
import {
  fragmentId,
  fragmentOf,
  isFragment,
  type Oid,
  objectBytes,
  objectOf,
  oidKind,
  oidVid,
  type StoredId,
  type Vid,
} from '../model/oid.js'
import { stripsOf } from '../model/policy.js'
import type { ObjectStore } from '../store/object-store.js'
import { Caller, park } from './caller.js'
import type { InFlight } from './equal/in-flight.js'
import type { Suspects } from './equal/suspects.js'
import { moreTelling } from './outcome.js'
import type { Recovery } from './recovery/engine.js'
import type { NodeState } from './state.js'

/** Serial comparison: negative when `a` is the older epoch. */
function compareEpochs(a: number, b: number): number {
  return (a - b) | 0
}

/** What the header of a peer's request says of the object. */
export interface PeerTarget {
  readonly oid: Oid
  /** 0: replicated, or the peer does not say. */
  readonly policy: number
  readonly index: number
  /** Size of the volume's objects; 0: the peer does not say. */
  readonly shift: number
}

/** Copies of these epochs will do; both ends belong to it. */
export interface EpochRange {
  readonly from: number
  readonly to: number
}

/** `epochs`: newest first. */
export function newestIn(epochs: readonly number[], { from, to }: EpochRange): number | undefined {
  return epochs.find((epoch) => epoch >= from && epoch <= to)
}

/** Nobody hears it; but what was asked for counts as ended. */
const gaveUp = (done: Done) => (): void => done(Code.AGAIN)

export interface LocalObjectsOptions {
  readonly state: NodeState
  readonly store: ObjectStore
  readonly recovery: Recovery
  readonly inFlight: InFlight
  readonly suspects: Suspects
}

/** What another node needs of an object for its own copy. */
export interface RecoveryRead {
  readonly epoch: number
  readonly target: EpochRange
  readonly id: StoredId
  readonly offset: number
  readonly into: Uint8Array
  readonly caller: Caller
}

/** A write as it reaches the copies of this node. */
export interface LocalWrite {
  readonly epoch: number
  readonly id: StoredId
  readonly offset: number
  readonly data: Uint8Array
  /** Who sends it; this node's own gateway when not given. */
  readonly caller?: Caller
}

export class LocalObjects {
  readonly #state: NodeState
  readonly #store: ObjectStore
  readonly #recovery: Recovery
  readonly #inFlight: InFlight
  readonly #suspects: Suspects
  /** This node's own gateway: never goes without the rest. */
  readonly #self = new Caller()
  /** Requests of future epochs that wait for ours. */
  #parked = 0

  constructor(options: LocalObjectsOptions) {
    this.#state = options.state
    this.#store = options.store
    this.#recovery = options.recovery
    this.#inFlight = options.inFlight
    this.#suspects = options.suspects
    this.#self.origin = options.state.selfKey
  }

  get parked(): number {
    return this.#parked
  }

  has(id: StoredId): boolean {
    return this.#store.has(id)
  }

  read(
    epoch: number,
    id: StoredId,
    offset: number,
    into: Uint8Array,
    done: Done,
    caller: Caller = this.#self,
  ): void {
    const again = (): void => this.read(epoch, id, offset, into, done, caller)
    if (!this.#admit(epoch, done, again, caller)) return
    this.#recovery.pace.clientOperation()
    if (this.#inBounds(id, offset, into.length, done)) {
      if (this.#mayServe(id)) this.#store.read(id, offset, into, this.#unlessMoved(done))
      else this.#ensure(id, done, again, caller)
    }
  }

  /**
   * Serves another node's recovery: the working copy, else the stale one. NOT_FOUND: it was removed. STALE_OBJ:
   * this node cannot tell whether there was one.
   */
  readForRecovery(read: RecoveryRead, done: Done): void {
    const { epoch, target, id, offset, into, caller } = read
    const again = (): void => this.readForRecovery(read, done)
    if (!this.#admit(epoch, done, again, caller)) return
    if (!this.#inBounds(id, offset, into.length, done)) return
    if (this.#store.has(id)) {
      const told = this.#unlessLost(done)
      this.#store.read(id, offset, into, (code) => {
        // Set aside while this waited: it is there all the same, and 'absent' would prove that it never was.
        if (code !== Code.NO_OBJ) told(code)
        else if (this.#store.has(id)) told(Code.NETWORK_ERROR)
        else again()
      })
      return
    }
    const lacks = this.#recovery.reasonOfLack(objectOf(id), target.from)
    const stale = newestIn(this.#store.staleEpochs(id), target)
    if (lacks === Code.NOT_FOUND || stale === undefined) done(lacks)
    else {
      const told = this.#unlessLost(done)
      this.#store.readStale(id, stale, offset, into).then(
        (code) => told(code === Code.NO_OBJ ? lacks : code),
        () => done(Code.EIO),
      )
    }
  }

  /**
   * The same for an owner who makes his fragment fit the others. AGAIN: the one here is still being brought, or this node has not
   * heard that they may differ.
   */
  readToFit(read: RecoveryRead, done: Done): void {
    const { epoch, target, id, caller } = read
    const again = (): void => this.readToFit(read, done)
    if (!this.#admit(epoch, done, again, caller)) return
    if (this.#store.has(id) && this.#suspects.hasHeardOf(objectOf(id))) {
      this.readForRecovery(read, done)
      return
    }
    const lacks = this.#recovery.reasonOfLack(objectOf(id), target.from)
    if (!this.#store.has(id) && (lacks === Code.NOT_FOUND || this.#recovery.isNowhere(id))) {
      done(lacks)
      return
    }
    if (!this.#store.has(id)) this.#recovery.ensure(id, () => undefined)
    done(Code.AGAIN)
  }

  write(write: LocalWrite, durable: boolean, done: Done): void {
    const { epoch, id, offset, data, caller = this.#self } = write
    const again = (): void => this.write(write, durable, done)
    if (!this.#admit(epoch, done, again, caller)) return
    this.#recovery.pace.clientOperation()
    if (!this.#inBounds(id, offset, data.length, done)) return
    if (!this.#mayServe(id)) {
      this.#ensure(id, done, again, caller)
      return
    }
    const told = this.#unlessLost(done)
    this.#recorded(write, done, again, () => {
      this.#store.write(id, offset, data, { durable }, this.#sameEpoch(told))
    })
  }

  create(create: LocalWrite, done: Done): void {
    const { epoch, id, offset, data, caller = this.#self } = create
    const begin = (): void => this.create(create, done)
    if (!this.#admit(epoch, done, begin, caller)) return
    if (!this.#inBounds(id, offset, data.length, done) || this.#isWithheld(id, done)) return
    if (this.#store.has(id) && this.#suspects.holds(objectOf(id))) {
      this.#ensure(id, done, begin, caller)
      return
    }
    const bytes = this.bytesOf(id)
    const stillWanted = (): boolean => this.#state.epoch === epoch
    const request = { id, bytes, offset, data, stillWanted }
    this.#recovery.exists(objectOf(id))
    const settled = caller.unlessGone(gaveUp(done), () => {
      this.#recorded(create, done, begin, () => {
        this.#store.create(request, this.#sameEpoch(this.#settling(id, done)))
      })
    })
    this.#recovery.settled(id, settled)
  }

  remove(epoch: number, id: StoredId, done: Done, caller: Caller = this.#self): void {
    const begin = (): void => this.remove(epoch, id, done, caller)
    if (!this.#admit(epoch, done, begin, caller) || this.#isWithheld(id, done)) return
    const forgotten = caller.unlessGone(gaveUp(done), () => {
      if (!this.#admit(epoch, done, begin, caller)) return
      this.#state.lost.synced(id)
      const removed = this.#sameEpoch((code) => {
        if (code === Code.SUCCESS) this.#suspects.forget(objectOf(id))
        done(code)
      })
      this.#removeOthers(id, () => this.#store.remove(id, removed))
    })
    this.#recovery.forget(id, forgotten)
  }

  /** A write failed on some copies: they are compared before this one is served again. */
  distrust(epoch: number, oid: Oid, done: Done, caller: Caller = this.#self): void {
    const again = (): void => this.distrust(epoch, oid, done, caller)
    if (!this.#admit(epoch, done, again, caller)) return
    const isHere = this.#store.piecesOf(oid).some((piece) => this.#store.has(piece))
    if (isHere) {
      this.#suspects.distrust(oid, this.#sameEpoch(done))
      return
    }
    this.#suspects.distrustOthers(oid)
    done(Code.SUCCESS)
  }

  /** Objects of which acknowledged writes were lost with a disk have to be here again first. */
  flush(vid: Vid, done: Done): void {
    const { lost } = this.#state
    const { losses } = lost
    if (!lost.isSettled) {
      done(Code.NETWORK_ERROR)
      return
    }
    // What went while it was being flushed has not been.
    const sameDisks: Done = (code) =>
      done(code === Code.SUCCESS && lost.losses !== losses ? Code.NETWORK_ERROR : code)
    const gone = lost.unsyncedOf(vid).filter((id) => this.#owns(id))
    let waiting = gone.length + 1
    let outcome: Code = Code.SUCCESS
    const one = (code: Code): void => {
      // Nobody else has it: what was written cannot be made durable any more.
      const isOver = code === Code.NO_OBJ || code === Code.STALE_OBJ
      outcome = moreTelling(outcome, isOver ? Code.EIO : code)
      if (--waiting > 0) return
      if (outcome === Code.SUCCESS) this.#store.flush(vid, sameDisks)
      else done(outcome)
    }
    for (const id of gone) this.#recovery.ensure(id, this.#settling(id, one))
    one(Code.SUCCESS)
  }

  /**
   * Under which id this node stores what a peer asks for. AGAIN: the peer knows more of the volume than this node,
   * which has not been told yet. INVALID_PARMS: there is no such fragment. Sheepdog 1.0 does not tell the policy.
   */
  storedId({ oid, policy, index, shift }: PeerTarget): StoredId | Code {
    const kind = oidKind(oid)
    const isSized = kind === 'data' || kind === 'vmstate'
    if (isSized && shift !== 0 && shift !== this.#state.blockSizeShiftOf(oidVid(oid))) {
      return Code.AGAIN
    }
    const coding = this.#state.codingOf(oid)
    const isKnown = this.#state.vids.get(oidVid(oid)) !== undefined || kind === 'attribute'
    if (policy !== coding && (policy !== 0 || !isKnown)) return Code.AGAIN
    const strips = stripsOf(coding)
    if (strips === undefined) return oid
    return index < strips.data + strips.parity ? fragmentId(oid, index) : Code.INVALID_PARMS
  }

  /** Of the object as a whole, or of one fragment of it. */
  bytesOf(id: StoredId): number {
    const shift = this.#state.blockSizeShiftOf(oidVid(id))
    if (!isFragment(id)) return objectBytes(id, shift)
    return 2 ** shift / (stripsOf(this.#state.codingOf(id))?.data ?? 1)
  }

  /** Fragments of other indexes, of earlier memberships: they would pass for the object with who was away. */
  #removeOthers(id: StoredId, then: () => void): void {
    const others = isFragment(id) ? this.#store.piecesOf(objectOf(id)) : []
    const next = (): void => {
      const other = others.pop()
      if (other === undefined) then()
      else if (other === id) next()
      else this.#store.remove(other, next)
    }
    next()
  }

  /** True: go on now. False: `done` has been or will be called, perhaps by way of `again`. */
  #admit(epoch: number, done: Done, again: () => void, caller: Caller): boolean {
    const state = this.#state
    if (state.status !== 'ok') {
      done(state.status === 'wait' ? Code.WAIT_FOR_JOIN : Code.KILLED)
      return false
    }
    if (!state.isSure()) {
      done(Code.WAIT_FOR_JOIN)
      return false
    }
    const order = compareEpochs(epoch, state.epoch)
    if (order === 0) return true
    if (order < 0) {
      done(Code.OLD_NODE_VER)
      return false
    }
    this.#parked++
    const over = (then: () => void) => (): void => {
      this.#parked--
      then()
    }
    park(state, caller, { again: over(again), givenUp: over(gaveUp(done)) })
    return false
  }

  /** The copy is here, and is the one every owner has. */
  #mayServe(id: StoredId): boolean {
    return this.#store.has(id) && !this.#suspects.holds(objectOf(id))
  }

  /**
   * Runs `act` once it is on record that the object's copies may differ from now on. That may take a while: what was
   * admitted then need not be any more.
   */
  #recorded(
    { epoch, id, caller = this.#self }: LocalWrite,
    done: Done,
    again: () => void,
    act: () => void,
  ): void {
    if (!this.#hasOtherCopies(id)) {
      if (this.#admit(epoch, done, again, caller)) act()
      return
    }
    this.#inFlight.begin(objectOf(id), caller.origin, (code) => {
      if (code !== Code.SUCCESS) done(code)
      else if (this.#admit(epoch, done, again, caller)) act()
    })
  }

  #hasOtherCopies(id: StoredId): boolean {
    return this.#state.view.ring.zones > 1 && this.#state.copiesOf(oidVid(id)) > 1
  }

  #inBounds(id: StoredId, offset: number, length: number, done: Done): boolean {
    if (offset + length <= this.bytesOf(id)) return true
    done(Code.INVALID_PARMS)
    return false
  }

  #ensure(id: StoredId, done: Done, again: () => void, caller: Caller): void {
    const there = caller.unlessGone(gaveUp(done), (code: Code) => {
      if (code === Code.SUCCESS) again()
      else done(code)
    })
    // The copy that was to be taken may have gone with its disk just now.
    this.#recovery.ensure(id, this.#unlessLost(there))
  }

  #owns(id: StoredId): boolean {
    const owners = this.#state.owners(objectOf(id), oidVid(id))
    const index = fragmentOf(id)
    const wanted = index < 0 ? owners : owners.slice(index, index + 1)
    return wanted.some((node) => this.#state.isSelf(node))
  }

  /** The object is here, durably, once this succeeds. */
  #settling(id: StoredId, done: Done): Done {
    return (code) => {
      if (code === Code.SUCCESS) this.#state.lost.synced(id)
      done(code)
    }
  }

  /** Nothing happens to an object in the epoch it was lost in. True: `done` has been called. */
  #isWithheld(id: StoredId, done: Done): boolean {
    const { lost, epoch } = this.#state
    if (this.#store.has(id) || !lost.isWithheld(id, epoch)) return false
    done(Code.NETWORK_ERROR)
    return true
  }

  #sameEpoch(done: Done): Done {
    const { epoch } = this.#state
    return this.#unlessMoved((code) => {
      const moved = code === Code.SUCCESS && this.#state.epoch !== epoch
      done(moved ? Code.OLD_NODE_VER : code)
    })
  }

  /** An object that is not here any more when the operation's turn comes has new owners: that is no lack of it. */
  #unlessMoved(done: Done): Done {
    const { epoch } = this.#state
    return this.#unlessLost((code) => {
      const moved = code === Code.NO_OBJ && this.#state.epoch !== epoch
      done(moved ? Code.OLD_NODE_VER : code)
    })
  }

  /** An object that was here when the operation began, and went with its disk, is not absent. */
  #unlessLost(done: Done): Done {
    const { lost } = this.#state
    const { losses, isSettled } = lost
    return (code) => {
      const isLost = code === Code.NO_OBJ && (!isSettled || lost.losses !== losses)
      done(isLost ? Code.NETWORK_ERROR : code)
    }
  }
}
