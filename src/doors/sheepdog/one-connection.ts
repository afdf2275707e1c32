/**
 * QEMU writes over one connection, and tgt over several that it connects again when they end. What was not answered is sent
 * once more, and the client goes on as soon as that is done; but what it had sent on the connection before may still be
 * under way here, waiting for another membership, and would come late, over newer data. So a write waits for those to the
 * same object that came
 *
 *   over any other connection    of a client that has one (it states no version)
 *   over one that has ended      of a client that has several, and orders what it sends over them (version 1)
 *
 * `dog` states version 2 and does not send anything again.
 */
import { Code } from '../../base/codes.js'
import type { Oid } from '../../model/oid.js'
import { failed, type Reply } from '../../sheep/answer.js'
import type { Caller } from '../../sheep/caller.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { Op } from '../../wire/sheepdog/opcodes.js'
import { objectFields } from '../../wire/sheepdog/requests.js'

const WRITES: ReadonlySet<number> = new Set([Op.WRITE_OBJ, Op.CREATE_AND_WRITE_OBJ])
const UNSTATED = 0
const LAST_RESENDING = 1

interface Write {
  readonly caller: Caller
  readonly hasOne: boolean
}

interface Waiting extends Write {
  readonly go: () => void
}

interface Turn {
  /** How many writes of whom are under way. */
  readonly underWay: Map<Caller, number>
  readonly waiting: Waiting[]
}

export class OneConnection {
  readonly #turns = new Map<Oid, Turn>()

  /** Objects somebody writes to. */
  get size(): number {
    return this.#turns.size
  }

  /** Calls `run`, once, when it is this connection's turn; answers for it when the caller leaves before. */
  inTurn(request: Frame, caller: Caller, reply: Reply, run: (reply: Reply) => void): void {
    if (request.version > LAST_RESENDING || !WRITES.has(request.opcode)) {
      run(reply)
      return
    }
    const oid = objectFields.oid(request)
    const turn = this.#turns.get(oid) ?? { underWay: new Map<Caller, number>(), waiting: [] }
    this.#turns.set(oid, turn)
    const write = { caller, hasOne: request.version === UNSTATED }
    const begin = (): void =>
      run((answer) => {
        reply(answer)
        this.#ended(oid, caller)
      })
    if (turn.waiting.length === 0 && isFree(turn, write)) {
      count(turn, caller, 1)
      begin()
    } else {
      const go = caller.unlessGone(() => reply(failed(Code.SHUTDOWN)), begin)
      turn.waiting.push({ ...write, go })
    }
  }

  /** One write has ended; when whoever waits longest may go on, so do all that wait and may then. */
  #ended(oid: Oid, caller: Caller): void {
    const turn = this.#turns.get(oid)!
    count(turn, caller, -1)
    const waiting = turn.waiting.filter((one) => !one.caller.isGone)
    turn.waiting.splice(0, turn.waiting.length, ...waiting)
    const [first] = waiting
    if (first === undefined || !isFree(turn, first)) {
      if (turn.underWay.size === 0) this.#turns.delete(oid)
      return
    }
    const begun = waiting.filter((one) => {
      if (!isFree(turn, one)) return false
      count(turn, one.caller, 1)
      return true
    })
    turn.waiting.splice(0, turn.waiting.length, ...waiting.filter((one) => !begun.includes(one)))
    // What one of them ends with may end the connection of the others.
    for (const one of begun) one.caller.isGone ? this.#ended(oid, one.caller) : one.go()
  }
}

function isFree({ underWay }: Turn, { caller, hasOne }: Write): boolean {
  for (const other of underWay.keys()) {
    if (other !== caller && (hasOne || other.isGone)) return false
  }
  return true
}

function count({ underWay }: Turn, caller: Caller, by: 1 | -1): void {
  const next = (underWay.get(caller) ?? 0) + by
  if (next > 0) underWay.set(caller, next)
  else underWay.delete(caller)
}
