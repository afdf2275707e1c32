/**
 * One member's view of the cluster's events: nothing before its own accept (but the duty to answer
 * joins), nothing after its own leave, one callback at a time and in order whatever callbacks do.
 */
import type { DriverEvents } from './driver.js'
import { type ClusterEvent, JOIN_BYTES_MAX, type MemberId } from './membership.js'

/** What the driver must do about this member itself. */
export interface Duties {
  /** This member answers the join of `joiner`; `answer` is to be ordered as its ACCEPT. */
  answered(joiner: MemberId, answer: Buffer): void
  /** This member turns `joiner` away; to be ordered as its DECLINE. */
  declined(joiner: MemberId, reason: string): void
  /** The own accept has been delivered. */
  entered(): void
  /** The own LEAVE came by, or the DECLINE with its reason; nothing is delivered any more. */
  departed(declined: string | undefined): void
}

export class Delivery {
  readonly #self: MemberId
  readonly #events: DriverEvents
  readonly #duties: Duties
  #queue: ClusterEvent[] = []
  #running = false
  #stage: 'outside' | 'inside' | 'gone' = 'outside'
  #blocking = false

  constructor(self: MemberId, events: DriverEvents, duties: Duties) {
    this.#self = self
    this.#events = events
    this.#duties = duties
  }

  /** True from the own accept to the own leave. */
  get inside(): boolean {
    return this.#stage === 'inside'
  }

  push(events: readonly ClusterEvent[]): void {
    for (const event of events) this.#queue.push(event)
  }

  /**
   * Delivers everything queued. A call from inside a callback returns at once: the outer one goes on.
   * An exception of a callback passes through and ends the delivery: the node's state is unknown then.
   */
  run(): void {
    if (this.#running) return
    this.#running = true
    while (this.#queue.length > 0) {
      const batch = this.#queue
      this.#queue = []
      for (const event of batch) this.#deliver(event)
    }
    this.#running = false
  }

  /** Nothing is delivered from now on. */
  stop(): void {
    this.#stage = 'gone'
    this.#queue = []
  }

  /** This member's BLOCK is the active one and not answered yet. */
  get blocking(): boolean {
    return this.#blocking
  }

  /** The active BLOCK is answered: its UNBLOCK is on the way. */
  endBlock(): void {
    this.#blocking = false
  }

  #deliver(event: ClusterEvent): void {
    if (this.#stage === 'gone') return
    if (event.kind === 'asked') this.#ask(event)
    else if (this.#stage === 'outside') this.#enter(event)
    else this.#pass(event)
  }

  #ask(event: Extract<ClusterEvent, { kind: 'asked' }>): void {
    if (event.acceptor !== this.#self) return
    const { joiner, members } = event
    const refusal = this.#events.joinRefusal?.(joiner.node, members, joiner.request)
    if (refusal !== undefined) {
      this.#duties.declined(joiner.id, refusal)
      return
    }
    const answer = this.#events.joinRequest(joiner.node, members, joiner.request)
    if (answer.length > JOIN_BYTES_MAX) {
      throw new RangeError(`join answer of ${answer.length} bytes, at most ${JOIN_BYTES_MAX} fit`)
    }
    this.#duties.answered(joiner.id, answer)
  }

  #enter(event: ClusterEvent): void {
    if (event.kind === 'withdrawn' && event.member.id === this.#self) this.#depart(event.reason)
    if (event.kind !== 'accepted' || event.joiner.id !== this.#self) return
    this.#stage = 'inside'
    this.#events.accepted(event.joiner.node, event.members, event.answer)
    this.#duties.entered()
  }

  #pass(event: Exclude<ClusterEvent, { kind: 'asked' }>): void {
    switch (event.kind) {
      case 'accepted':
        this.#events.accepted(event.joiner.node, event.members, event.answer)
        break
      case 'left':
        if (event.member.id === this.#self) this.#depart(undefined)
        else this.#events.left(event.member.node, event.members)
        break
      case 'notified':
        this.#events.notified(event.sender, event.message)
        break
      case 'blocked':
        if (event.owner !== this.#self) break
        this.#blocking = true
        this.#events.blocked()
        break
      case 'updated':
        this.#events.updated(event.node, event.members)
        break
      case 'withdrawn':
        break
    }
  }

  #depart(declined: string | undefined): void {
    this.stop()
    this.#duties.departed(declined)
  }
}
