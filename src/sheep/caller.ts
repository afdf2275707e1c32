/**
 * Whoever sends requests over one connection of the sheepdog protocol. Requests that wait for something that
 * may take long (another epoch, an object under recovery) end with it: nobody would hear their answer, and
 * the node at the other end may already have sent them again.
 */
import type { NodeKey } from '../model/node.js'
import type { Connection } from '../world/world.js'
import type { NodeState } from './state.js'

/** The connection, for those who must end it or wait for what came over it. */
export interface CallerLink {
  cut(): void
  /** Calls `fn` once nothing that came over it can change anything any more. */
  whenIdle(fn: () => void): void
  /** After the next answer the connection is somebody else's. False: more is under way on it. */
  handOver?(to: (connection: Connection) => void): boolean
}

export class Caller {
  link: CallerLink | undefined
  /** The node it is, once it has said HELLO; undefined for clients and for nodes of sheepdog 1.0. */
  origin: NodeKey | undefined
  #isGone = false
  readonly #waits = new Set<() => void>()

  get isGone(): boolean {
    return this.#isGone
  }

  /** What waits is given up. Requests that were begun go on. */
  leave(): void {
    this.#isGone = true
    const waits = [...this.#waits]
    this.#waits.clear()
    for (const givenUp of waits) givenUp()
  }

  /** Calls `fn` once when the caller leaves, now if it has left; the returned function calls it off. */
  onLeave(fn: () => void): () => void {
    if (this.#isGone) {
      fn()
      return () => undefined
    }
    const wait = (): void => fn()
    this.#waits.add(wait)
    return () => void this.#waits.delete(wait)
  }

  /**
   * `go` for the end of a wait. When the caller leaves first, `givenUp` is called instead, and `go` is let go
   * of together with what it holds.
   */
  unlessGone<Args extends unknown[]>(
    givenUp: () => void,
    go: (...args: Args) => void,
  ): (...args: Args) => void {
    let held: ((...args: Args) => void) | undefined = go
    const calledOff = this.onLeave(() => {
      held = undefined
      givenUp()
    })
    return (...args) => {
      const run = held
      held = undefined
      calledOff()
      run?.(...args)
    }
  }
}

/** A request of a newer epoch than ours: `again` after the next change of the view. */
export function park(
  state: NodeState,
  caller: Caller,
  then: { readonly again: () => void; readonly givenUp: () => void },
): void {
  const stopWaiting = state.afterViewChange(() => {
    calledOff()
    then.again()
  })
  const calledOff = caller.onLeave(() => {
    stopWaiting()
    then.givenUp()
  })
}
