/**
 * Object requests on this node's own copies, whoever asks: another sheep, or the gateway in here.
 *
 * The epoch rule (protocol spec, section 11): a request of an older epoch is refused, one of a newer epoch
 * waits for ours. A success that completes after the epoch moved on is refused too: the new owners may
 * have fetched the object before it, and the gateway will write again under the new membership.
 */
import { Code, type Done } from '../base/codes.js'
import { type Oid, objectBytes, oidVid, type Vid } from '../model/oid.js'
import type { ObjectStore } from '../store/object-store.js'
import { Caller, park } from './caller.js'
import type { InFlight } from './equal/in-flight.js'
import type { Suspects } from './equal/suspects.js'
import type { Recovery } from './recovery/engine.js'
import type { NodeState } from './state.js'

/** Serial comparison: negative when `a` is the older epoch. */
function compareEpochs(a: number, b: number): number {
  return (a - b) | 0
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

/** A write as it reaches the copies of this node. */
export interface LocalWrite {
  readonly epoch: number
  readonly oid: Oid
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

  has(oid: Oid): boolean {
    return this.#store.has(oid)
  }

  read(
    epoch: number,
    oid: Oid,
    offset: number,
    into: Uint8Array,
    done: Done,
    caller: Caller = this.#self,
  ): void {
    const again = (): void => this.read(epoch, oid, offset, into, done, caller)
    if (!this.#admit(epoch, done, again, caller)) return
    this.#recovery.pace.clientOperation()
    if (this.#inBounds(oid, offset, into.length, done)) {
      if (this.#mayServe(oid)) this.#store.read(oid, offset, into, done)
      else this.#ensure(oid, done, again, caller)
    }
  }

  /**
   * Serves another node's recovery: the working copy, else the stale one. NOT_FOUND: it was removed. STALE_OBJ:
   * this node cannot tell whether there was one.
   */
  readForRecovery(
    epoch: number,
    targetEpoch: number,
    oid: Oid,
    into: Uint8Array,
    done: Done,
    caller: Caller = this.#self,
  ): void {
    const again = (): void => this.readForRecovery(epoch, targetEpoch, oid, into, done, caller)
    if (!this.#admit(epoch, done, again, caller)) return
    if (this.#store.has(oid)) {
      this.#store.read(oid, 0, into, done)
      return
    }
    const lacks = this.#recovery.reasonOfLack(oid, targetEpoch)
    if (lacks === Code.NOT_FOUND) done(lacks)
    else {
      this.#store.readStale(oid, targetEpoch, 0, into).then(
        (code) => done(code === Code.NO_OBJ ? lacks : code),
        () => done(Code.EIO),
      )
    }
  }

  write(write: LocalWrite, durable: boolean, done: Done): void {
    const { epoch, oid, offset, data, caller = this.#self } = write
    const again = (): void => this.write(write, durable, done)
    if (!this.#admit(epoch, done, again, caller)) return
    this.#recovery.pace.clientOperation()
    if (!this.#inBounds(oid, offset, data.length, done)) return
    if (!this.#mayServe(oid)) {
      this.#ensure(oid, done, again, caller)
      return
    }
    this.#recorded(write, done, again, () => {
      this.#store.write(oid, offset, data, { durable }, this.#sameEpoch(done))
    })
  }

  create(create: LocalWrite, done: Done): void {
    const { epoch, oid, offset, data, caller = this.#self } = create
    const begin = (): void => this.create(create, done)
    if (!this.#admit(epoch, done, begin, caller)) return
    if (!this.#inBounds(oid, offset, data.length, done)) return
    if (this.#store.has(oid) && this.#suspects.holds(oid)) {
      this.#ensure(oid, done, begin, caller)
      return
    }
    const bytes = this.bytesOf(oid)
    const stillWanted = (): boolean => this.#state.epoch === epoch
    const request = { id: oid, bytes, offset, data, stillWanted }
    this.#recovery.exists(oid)
    const settled = caller.unlessGone(gaveUp(done), () => {
      this.#recorded(create, done, begin, () => {
        this.#store.create(request, this.#sameEpoch(done))
      })
    })
    this.#recovery.settled(oid, settled)
  }

  remove(epoch: number, oid: Oid, done: Done, caller: Caller = this.#self): void {
    const begin = (): void => this.remove(epoch, oid, done, caller)
    if (!this.#admit(epoch, done, begin, caller)) return
    const forgotten = caller.unlessGone(gaveUp(done), () => {
      if (!this.#admit(epoch, done, begin, caller)) return
      const removed = this.#sameEpoch((code) => {
        if (code === Code.SUCCESS) this.#suspects.forget(oid)
        done(code)
      })
      this.#store.remove(oid, removed)
    })
    this.#recovery.forget(oid, forgotten)
  }

  /** A write failed on some copies: they are compared before this one is served again. */
  distrust(epoch: number, oid: Oid, done: Done, caller: Caller = this.#self): void {
    const again = (): void => this.distrust(epoch, oid, done, caller)
    if (!this.#admit(epoch, done, again, caller)) return
    if (this.#store.has(oid)) this.#suspects.distrust(oid, this.#sameEpoch(done))
    else done(Code.SUCCESS)
  }

  flush(vid: Vid, done: Done): void {
    this.#store.flush(vid, done)
  }

  bytesOf(oid: Oid): number {
    return objectBytes(oid, this.#state.blockSizeShiftOf(oidVid(oid)))
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
  #mayServe(oid: Oid): boolean {
    return this.#store.has(oid) && !this.#suspects.holds(oid)
  }

  /**
   * Runs `act` once it is on record that the object's copies may differ from now on. That may take a while: what was
   * admitted then need not be any more.
   */
  #recorded(
    { epoch, oid, caller = this.#self }: LocalWrite,
    done: Done,
    again: () => void,
    act: () => void,
  ): void {
    if (!this.#hasOtherCopies(oid)) {
      if (this.#admit(epoch, done, again, caller)) act()
      return
    }
    this.#inFlight.begin(oid, caller.origin, (code) => {
      if (code !== Code.SUCCESS) done(code)
      else if (this.#admit(epoch, done, again, caller)) act()
    })
  }

  #hasOtherCopies(oid: Oid): boolean {
    return this.#state.view.ring.zones > 1 && this.#state.copiesOf(oidVid(oid)) > 1
  }

  #inBounds(oid: Oid, offset: number, length: number, done: Done): boolean {
    if (offset + length <= this.bytesOf(oid)) return true
    done(Code.INVALID_PARMS)
    return false
  }

  #ensure(oid: Oid, done: Done, again: () => void, caller: Caller): void {
    const there = caller.unlessGone(gaveUp(done), (code: Code) => {
      if (code === Code.SUCCESS) again()
      else done(code)
    })
    this.#recovery.ensure(oid, there)
  }

  #sameEpoch(done: Done): Done {
    const { epoch } = this.#state
    return (code) => {
      const moved = code === Code.SUCCESS && this.#state.epoch !== epoch
      done(moved ? Code.OLD_NODE_VER : code)
    }
  }
}
