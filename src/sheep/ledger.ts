/**
 * The reference ledgers of shared objects (objects spec, section 6). A drop counts once, on every copy
 * alike: the first owner of a ledger computes what it becomes, drop by drop, and writes that to all. An
 * owner that counted for itself would, where it lacks the ledger, fetch it from one that has counted
 * already (defect O2). Nodes of sheepdog 1.0 still ask each owner to do that (DECREF_PEER).
 */
import { zeros } from '../base/bytes.js'
import { Code, type Done, toCode } from '../base/codes.js'
import { LEDGER_BYTES, type Oid, oidKind, oidVid } from '../model/oid.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { refRequest } from '../wire/sheepdog/requests.js'
import { Caller } from './caller.js'
import type { Gateway } from './gateway.js'
import type { LocalObjects } from './local-objects.js'
import type { Peers } from './peers.js'
import type { NodeState } from './state.js'

const ENTRY_BYTES = 4
const ENTRIES = LEDGER_BYTES / ENTRY_BYTES

/** ledger[generation] -= 1, ledger[generation + 1] += count. */
export interface LedgerChange {
  readonly ledger: Oid
  readonly generation: number
  readonly count: number
}

export interface LedgersOptions {
  readonly state: NodeState
  readonly gateway: Gateway
  readonly local: LocalObjects
  readonly peers: Peers
  /** True while objects this node owns may still be elsewhere only. */
  readonly isRecovering: () => boolean
}

export class Ledgers {
  readonly #options: LedgersOptions
  /** Changes of one ledger run one after the other. */
  readonly #queues = new Map<Oid, Promise<unknown>>()

  constructor(options: LedgersOptions) {
    this.#options = options
  }

  /** Has the first owner count a drop. */
  async drop(change: LedgerChange): Promise<Code> {
    const { state, peers } = this.#options
    const [first] = state.owners(change.ledger, oidVid(change.ledger))
    if (first === undefined) return Code.HALT
    if (state.isSelf(first)) return this.count(change)
    const head = refRequest({ opcode: Op.DECREF_OBJ, epoch: state.epoch, ...change })
    const reply = await peers.call(first, head).catch(() => undefined)
    return reply === undefined ? Code.NETWORK_ERROR : toCode(reply.result)
  }

  /** Counts a drop on all copies. INVALID_PARMS for what is no entry of a ledger (defect O4). */
  count(change: LedgerChange): Promise<Code> {
    if (!isSane(change)) return Promise.resolve(Code.INVALID_PARMS)
    return this.#inTurn(change.ledger, () => this.#countEverywhere(change))
  }

  /** Counts a drop on this node's copy alone, for a gateway that asks every owner to, and is waited for no longer than it is there. */
  countHere(epoch: number, change: LedgerChange, asker: Caller): Promise<Code> {
    if (!isSane(change)) return Promise.resolve(Code.INVALID_PARMS)
    // Nobody says when the others have counted: a caller without a name.
    const caller = new Caller()
    const stay = asker.onLeave(() => caller.leave())
    return this.#inTurn(change.ledger, () => this.#countLocally(epoch, change, caller)).finally(
      stay,
    )
  }

  async #countEverywhere(change: LedgerChange): Promise<Code> {
    const { gateway } = this.#options
    const ref = gateway.ref(change.ledger)
    const bytes = Buffer.alloc(LEDGER_BYTES)
    const found = await done((ended) => gateway.read(ref, 0, bytes, ended))
    if (found !== Code.SUCCESS && found !== Code.NO_OBJ) return found
    const exists = found === Code.SUCCESS
    const isOver = applyTo(bytes, exists, change)
    if (isOver) return exists ? done((ended) => gateway.remove(change.ledger, ended)) : Code.SUCCESS
    const [from, until] = [change.generation * ENTRY_BYTES, (change.generation + 2) * ENTRY_BYTES]
    const changed = bytes.subarray(exists ? from : 0, until)
    return exists
      ? done((ended) => gateway.write(ref, from, changed, true, ended))
      : done((ended) => gateway.create(ref, 0, changed, undefined, ended))
  }

  async #countLocally(epoch: number, change: LedgerChange, caller: Caller): Promise<Code> {
    const { local, isRecovering } = this.#options
    const bytes = Buffer.alloc(LEDGER_BYTES)
    const mayBeElsewhere = isRecovering()
    const found =
      mayBeElsewhere || local.has(change.ledger)
        ? await done((ended) => local.read(epoch, change.ledger, 0, bytes, ended, caller))
        : Code.NO_OBJ
    if (found !== Code.SUCCESS && found !== Code.NO_OBJ) return found
    const exists = found === Code.SUCCESS
    const isOver = applyTo(bytes, exists, change)
    if (!isOver) {
      const create = { epoch, id: change.ledger, offset: 0, data: bytes, caller }
      return done((ended) => local.create(create, ended))
    }
    return exists
      ? done((ended) => local.remove(epoch, change.ledger, ended, caller))
      : Code.SUCCESS
  }

  #inTurn(ledger: Oid, work: () => Promise<Code>): Promise<Code> {
    const turn = (this.#queues.get(ledger) ?? Promise.resolve()).then(work)
    this.#queues.set(ledger, turn)
    const leave = (): void => {
      if (this.#queues.get(ledger) === turn) this.#queues.delete(ledger)
    }
    turn.then(leave, leave)
    return turn
  }
}

function isSane({ ledger, generation }: LedgerChange): boolean {
  return oidKind(ledger) === 'ledger' && generation >= 0 && generation + 1 < ENTRIES
}

/** Changes `bytes`; an absent ledger counts one reference of generation 0. True: nothing is left. */
function applyTo(bytes: Buffer, exists: boolean, { generation, count }: LedgerChange): boolean {
  if (!exists) bytes.fill(0).writeInt32LE(1, 0)
  add(bytes, generation, -1)
  add(bytes, generation + 1, count | 0)
  return bytes.equals(zeros(LEDGER_BYTES))
}

function add(bytes: Buffer, entry: number, amount: number): void {
  const at = ENTRY_BYTES * entry
  bytes.writeInt32LE((bytes.readInt32LE(at) + amount) | 0, at)
}

function done(start: (ended: Done) => void): Promise<Code> {
  return new Promise((resolve) => start(resolve))
}
