/**
 * Which connection of each node is the one that counts. A node that gives up a silent connection says HELLO on
 * a new one; before it gets its answer nothing that it sent on older ones is waiting or under way any more, and
 * nothing of it will be done later. So it may write again without being overtaken by itself.
 */
import { Code } from '../../base/codes.js'
import { LIMITS } from '../../base/limits.js'
import type { NodeKey } from '../../model/node.js'
import type { Caller } from '../../sheep/caller.js'
import type { Hello } from '../../wire/sheepdog/hello.js'

/** A connection, as far as this is concerned. */
export interface Greeter {
  readonly caller: Caller
  /** Closes it; what it asked for and was not begun is dropped. */
  cut(): void
  /** Calls `fn` once nothing of it is under way that may change anything. */
  whenIdle(fn: () => void): void
}

interface Known {
  incarnation: string
  serial: number
  /** The process before this one: its late connections are refused. */
  before: string | undefined
  /** The newest connection, and older ones with something under way. */
  readonly greeters: Set<Greeter>
}

export class Greetings {
  readonly #known = new Map<NodeKey, Known>()
  readonly #members: () => ReadonlySet<NodeKey>

  /** `members`: the nodes whose newest connection is remembered after it has ended. */
  constructor(members: () => ReadonlySet<NodeKey>) {
    this.#members = members
  }

  get size(): number {
    return this.#known.size
  }

  /** `answer` is called when the greeter's requests may be begun; a greeter that is too old is cut. */
  greet(greeter: Greeter, hello: Hello, answer: (code: Code) => void): void {
    const { caller } = greeter
    const known = this.#known.get(hello.node) ?? this.#meet(hello)
    if (caller.origin !== undefined) {
      // Said again, to hear whether anybody is there.
      const isSame = caller.origin === hello.node && known.greeters.has(greeter)
      answer(isSame ? Code.SUCCESS : Code.INVALID_PARMS)
      return
    }
    if (!isNewer(known, hello)) {
      answer(Code.AGAIN)
      greeter.cut()
      return
    }
    if (hello.incarnation !== known.incarnation) known.before = known.incarnation
    known.incarnation = hello.incarnation
    known.serial = hello.serial
    caller.origin = hello.node
    const older = [...known.greeters]
    known.greeters.add(greeter)
    caller.onLeave(() => greeter.whenIdle(() => this.#gone(hello.node, greeter)))
    let waiting = older.length
    if (waiting === 0) answer(Code.SUCCESS)
    for (const one of older) {
      one.cut()
      one.whenIdle(() => {
        if (--waiting === 0) answer(Code.SUCCESS)
      })
    }
  }

  #meet(hello: Hello): Known {
    if (this.#known.size >= LIMITS.nodesMax) this.#forgetStrangers()
    const known: Known = {
      incarnation: hello.incarnation,
      serial: hello.serial - 1,
      before: undefined,
      greeters: new Set(),
    }
    this.#known.set(hello.node, known)
    return known
  }

  #gone(node: NodeKey, greeter: Greeter): void {
    const known = this.#known.get(node)
    known?.greeters.delete(greeter)
    if (known?.greeters.size === 0 && !this.#members().has(node)) this.#known.delete(node)
  }

  /** Members that left while they were not connected. */
  #forgetStrangers(): void {
    const members = this.#members()
    for (const [node, { greeters }] of this.#known) {
      if (greeters.size === 0 && !members.has(node)) this.#known.delete(node)
    }
  }
}

function isNewer(known: Known, hello: Hello): boolean {
  if (hello.incarnation !== known.incarnation) return hello.incarnation !== known.before
  return ((hello.serial - known.serial) | 0) > 0
}
