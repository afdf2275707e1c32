/**
 * QEMU writes over one connection. When it connects again it sends what was not answered once more, and goes on as soon
 * as that is done; but what it had sent on the connection before may still be under way here, waiting for
 * another membership, and would come late, over newer data. So a write waits for those to the same object that came
 * over other connections. (Clients that state a version have several connections and order their writes themselves.)
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

interface Waiting {
  readonly caller: Caller
  readonly go: () => void
}

interface Turn {
  /** Whose writes are under way, and how many. */
  caller: Caller
  underWay: number
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
    if (request.version !== UNSTATED || !WRITES.has(request.opcode)) {
      run(reply)
      return
    }
    const oid = objectFields.oid(request)
    const turn = this.#turns.get(oid)
    const begin = (): void =>
      run((answer) => {
        reply(answer)
        this.#ended(oid)
      })
    if (turn === undefined) {
      this.#turns.set(oid, { caller, underWay: 1, waiting: [] })
      begin()
    } else if (turn.caller === caller && turn.waiting.length === 0) {
      turn.underWay++
      begin()
    } else {
      const go = caller.unlessGone(() => reply(failed(Code.SHUTDOWN)), begin)
      turn.waiting.push({ caller, go })
    }
  }

  /** One write has ended; after the last one whoever waits longest goes on, with all of the same connection. */
  #ended(oid: Oid): void {
    const turn = this.#turns.get(oid)!
    if (--turn.underWay > 0) return
    const waiting = turn.waiting.filter(({ caller }) => !caller.isGone)
    const next = waiting[0]
    if (next === undefined) {
      this.#turns.delete(oid)
      return
    }
    const isNext = ({ caller }: Waiting): boolean => caller === next.caller
    const begun = waiting.filter(isNext)
    turn.waiting.splice(0, turn.waiting.length, ...waiting.filter((one) => !isNext(one)))
    turn.caller = next.caller
    turn.underWay = begun.length
    for (const { go } of begun) go()
  }
}
