/**
 * A process in the group: feeds what corosync tells to the order, keeps the lease, judges tears.
 *
 * It ends with its connection, with its LEAVE, when it is turned away, and when it cannot be sure any more that
 * the others wait for it. Then nothing is delivered any more; whether to come back is the driver's matter.
 */
import { Code, SheepError } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import type { SdNode } from '../../model/node.js'
import type { Corosync, Departure, Group, GroupChange, ProcessId } from '../../world/corosync.js'
import type { World } from '../../world/world.js'
import { Delivery } from '../delivery.js'
import type { DriverEvents } from '../driver.js'
import type { Entry, MemberId } from '../membership.js'
import { BEAT_GROUP } from './beat.js'
import { History } from './history.js'
import {
  decodeMessage,
  encodeMessage,
  GROUP,
  INCARNATION_BYTES,
  type Message,
  type MessageType,
  PLAIN,
  type ProcessKey,
  processKey,
} from './message.js'
import { Order, SELF } from './order.js'
import { Outlet } from './outlet.js'
import { LEFT_BEHIND, Pulse } from './pulse.js'
import { decodeStand, encodeStand, type Stand } from './stand.js'
import { Tears, WAIT_MS } from './tears.js'

/** The oldest member answers within milliseconds, unless a member that is not heard of is waited for. */
const ANSWER_MS = 60_000
/** A ring that turns orders a leave within milliseconds; after this long the closed connection tells the others. */
const LEAVE_MS = 2_000

/** How it ended. */
export type End =
  /** Left as it was asked to. */
  | { readonly kind: 'left' }
  /** Never let in: the cluster does not want it. */
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'unanswered'; readonly reason: string }
  /** The others may go on, or have gone on, without it. */
  | { readonly kind: 'outside'; readonly reason: string; readonly wasMember: boolean }
  /** The connection to corosync is gone, or never came about. */
  | { readonly kind: 'disconnected'; readonly reason: string; readonly wasMember: boolean }
  /** An event could not be handled: nobody knows what this member has seen. */
  | { readonly kind: 'broken'; readonly reason: string; readonly wasMember: boolean }

export interface MemberOptions {
  readonly world: Pick<World, 'clock' | 'random'>
  readonly corosync: Corosync
  readonly log: Log
  readonly self: SdNode
  readonly request: Buffer
  readonly events: DriverEvents
  /** The own accept has been delivered. */
  entered(): void
  over(end: End): void
}

export class CorosyncMember {
  readonly #options: MemberOptions
  readonly #incarnation: string
  readonly #cancels = new Set<() => void>()
  readonly #delivery: Delivery
  #beats: Outlet | undefined
  #messages: Outlet | undefined
  #groups: Group[] = []
  #process: ProcessId | undefined
  #order: Order | undefined
  #pulse: Pulse | undefined
  #tears: Tears | undefined
  readonly #history: History
  #cancelGivingUp: (() => void) | undefined
  /** The own join is answered: this process is one of those that count. */
  #counts = false
  /** Who went between the own arrival and the answer, which may still name it: told to the pulse afterwards. */
  #early: (() => void)[] = []
  /** Left behind by the others; what they answered afterwards counts nowhere. */
  readonly #evicted = new Set<ProcessKey>()
  #isOver = false
  #isLeaving = false

  constructor(options: MemberOptions) {
    this.#options = options
    this.#incarnation = options.world.random.bytes(INCARNATION_BYTES).toString('hex')
    this.#history = new History(this.#incarnation)
    this.#delivery = new Delivery(SELF, options.events, {
      answered: (joiner, answer) => this.#answer(joiner, answer),
      declined: (_joiner, reason) => this.#decline(reason),
      entered: () => options.entered(),
      departed: () => this.#end({ kind: 'left' }),
    })
  }

  /** Connects and asks to come in. Throws RangeError when the request is longer than a message. */
  start(): void {
    encodeMessage(this.#message('join', { process: { nodeId: 0, pid: 0 } }, this.#options.request))
    const beats = this.#join(BEAT_GROUP, {
      opened: () =>
        this.#join(GROUP, {
          opened: (self, group) => {
            this.#process = self
            this.#messages = new Outlet(group, this.#options.world.clock)
          },
          message: (from, bytes) => this.#received(from, bytes),
          changed: (change) => this.#changed(change),
        }),
      message: (from, bytes) => this.#pulse?.received(from, bytes),
      changed: () => undefined,
    })
    this.#beats = new Outlet(beats, this.#options.world.clock)
  }

  get inside(): boolean {
    return this.#delivery.inside && !this.#isOver
  }

  get sureUntil(): number {
    return (this.#isOver ? undefined : this.#pulse?.sureUntil) ?? Number.NEGATIVE_INFINITY
  }

  get blocking(): boolean {
    return this.#delivery.blocking
  }

  /** Throws INVALID_PARMS when the payload does not fit, AGAIN when too much waits. */
  send(type: MessageType, payload: Buffer = PLAIN.payload, node = this.#options.self): void {
    const subject = { process: this.#self, node }
    let parts: Buffer[]
    try {
      parts = encodeMessage({ ...PLAIN, type, subject, payload })
    } catch (error) {
      throw new SheepError(Code.INVALID_PARMS, (error as Error).message)
    }
    // While members are missing it could reach a part of them only.
    const isKept = this.#tears?.isTorn === true && type !== 'leave'
    if (isKept) this.#messages?.keep(parts)
    else this.#messages?.send(parts)
  }

  endBlock(): void {
    this.#delivery.endBlock()
  }

  leave(): void {
    if (this.#isOver || this.#isLeaving) return
    this.#isLeaving = true
    if (!this.inside) {
      this.#end({ kind: 'left' })
      return
    }
    this.#after(LEAVE_MS, () => {
      this.#options.log.warn('corosync.leave_unordered', { process: processKey(this.#self) })
      this.#end({ kind: 'left' })
    })
    this.#guard(() => this.send('leave'))
  }

  /** Whether the corosync of this host has quorum: without it this member serves nothing, and gives up at last. */
  quorum(isQuorate: boolean, reason: string): void {
    if (this.#pulse !== undefined) this.#pulse.isQuorate = isQuorate
    this.#cancelGivingUp?.()
    this.#cancelGivingUp = undefined
    if (isQuorate) return
    if (!this.#counts) this.#outside(reason)
    else this.#cancelGivingUp = this.#after(WAIT_MS, () => this.#outside(reason))
  }

  /** Gives up being a member at once; the others see the connection close. */
  withdraw(kind: 'outside' | 'disconnected', reason: string): void {
    this.#end({ kind, reason, wasMember: this.inside })
  }

  get #self(): ProcessId {
    return this.#process ?? { nodeId: 0, pid: 0 }
  }

  #join(
    name: string,
    events: {
      opened(self: ProcessId, group: Group): void
      message(from: ProcessId, bytes: Buffer): void
      changed(change: GroupChange): void
    },
  ): Group {
    const group: Group = this.#options.corosync.join(name, {
      opened: (self) => this.#guard(() => events.opened(self, group)),
      message: (from, bytes) => this.#guard(() => events.message(from, bytes)),
      changed: (change) => this.#guard(() => events.changed(change)),
      closed: (reason) => this.#end({ kind: 'disconnected', reason, wasMember: this.inside }),
    })
    this.#groups.push(group)
    return group
  }

  // ---- what corosync tells

  #changed({ members, left, joined }: GroupChange): void {
    if (this.#order === undefined) {
      this.#start(members, joined)
      return
    }
    const isTorn = left.some(({ why }) => why === 'node-down')
    const isMerged = joined.some(({ why }) => why === 'node-up')
    if (!this.#counts && (isTorn || isMerged)) {
      // Who was to answer may be in the part that has to stop: ask whoever is there now.
      this.#outside('the network changed while this node was joining')
      return
    }
    this.#tears?.changed(members, isMerged)
    this.#depart(left)
    for (const { process, why } of joined) {
      this.#evicted.delete(processKey(process))
      // Who comes from another part of the network is missed here, or leaves and joins anew before it counts.
      if (why === 'joined') this.#arrived(process)
      else this.#options.log.warn('corosync.stranger', { process: processKey(process) })
    }
    this.#tears?.state()
    this.#advance()
  }

  #arrived(process: ProcessId): void {
    this.#history.add('arrived', processKey(process))
    this.#order?.arrived(process)
    this.#tears?.gone(process)
  }

  #start(members: readonly ProcessId[], joined: GroupChange['joined']): void {
    const self = processKey(this.#self)
    const beats = this.#beats
    if (beats === undefined || !joined.some(({ process }) => processKey(process) === self)) return
    const others = members.filter((process) => processKey(process) !== self)
    const pulse = this.#newPulse(beats)
    this.#pulse = pulse
    const order = new Order(this.#self, others, {
      deliver: (events) => {
        this.#delivery.push(events)
        this.#delivery.run()
      },
      refused: (joiner, reason, isMine) => {
        if (isMine) this.#refuse(joiner, reason)
      },
    })
    this.#order = order
    this.#tears = this.#newTears(order, pulse)
    this.#tears.changed(members, false)
    const { request } = this.#options
    this.#messages?.send(encodeMessage(this.#message('join', { process: this.#self }, request)))
    this.#after(ANSWER_MS, () => {
      if (this.inside) return
      const elders = others.map(processKey).join(', ')
      const reason = `no member answered within ${ANSWER_MS / 1000} s (node/process: ${elders})`
      this.#end({ kind: 'unanswered', reason })
    })
  }

  #newTears(order: Order, pulse: Pulse): Tears {
    const { world, log } = this.#options
    return new Tears({
      clock: world.clock,
      log,
      self: this.#self,
      order,
      pulse,
      history: this.#history,
      after: (delayMs, fn) => void this.#after(delayMs, fn),
      send: (stand) => this.#messages?.send([encodeStand(this.#self, stand)]),
      outside: (reason) => this.#outside(reason),
      over: (unsaid) => this.#resay(unsaid),
    })
  }

  #resay(unsaid: readonly Entry[]): void {
    for (const entry of unsaid) {
      if (entry.kind === 'update') this.send('update', undefined, entry.node)
      else if (entry.kind === 'notify' || entry.kind === 'unblock')
        this.send(entry.kind, entry.message)
      else if (entry.kind === 'block') this.send('block')
    }
    this.#messages?.release()
  }

  #newPulse(outlet: Outlet): Pulse {
    return new Pulse({
      clock: this.#options.world.clock,
      log: this.#options.log,
      self: this.#self,
      incarnation: this.#incarnation,
      outlet,
      after: (delayMs, fn) => void this.#after(delayMs, fn),
      isServing: () => this.inside && this.#options.events.isServing?.() === true,
      isTorn: () => this.#tears?.isTorn === true,
      outside: (reason) => this.#outside(reason),
      refused: (reason) => this.#end({ kind: 'refused', reason }),
      evicted: (process) => {
        const subject = { process, node: this.#options.self }
        this.#messages?.send(encodeMessage({ ...PLAIN, type: 'leave', subject }))
      },
      renewed: () => this.#advance(),
    })
  }

  #depart(left: readonly { readonly process: ProcessId; readonly why: Departure }[]): void {
    for (const { process, why } of left) {
      if (why === 'node-down') continue
      this.#history.add('gone', processKey(process))
      this.#order?.departed(process)
      this.#tears?.gone(process)
      if (this.#counts) this.#pulse?.gone(process)
      else this.#early.push(() => this.#pulse?.gone(process))
    }
    const lost = left.flatMap(({ process, why }) => (why === 'node-down' ? [process] : []))
    if (lost.length > 0) this.#tears?.lose(lost, 'cannot be reached')
  }

  #received(from: ProcessId, bytes: Buffer): void {
    const order = this.#order
    if (order === undefined) return
    let message: Message
    try {
      const stand = decodeStand(bytes)
      if (stand !== undefined) {
        this.#stood(from, stand)
        return
      }
      message = decodeMessage(bytes)
    } catch (error) {
      this.#options.log.warn('corosync.message.bad', {
        from: processKey(from),
        reason: String(error),
      })
      return
    }
    const { process } = message.subject
    // A leave is told as what follows from it.
    if (message.type !== 'leave') this.#history.add('said', processKey(from))
    if (message.type === 'leave') this.#leaveCame(from, process)
    else if (message.type === 'join') this.#pulse?.expect(from, message.incarnation)
    const isVain = message.type === 'accept' && !this.#mayAnswer(from, message)
    if (!isVain && order.received(from, message)) this.#settled(message)
    this.#advance()
  }

  #stood(from: ProcessId, stand: Stand): void {
    this.#tears?.said(from, stand)
    this.#advance()
  }

  /** Whether this answer lets a joiner into this cluster. */
  #mayAnswer(from: ProcessId, { subject, incarnation }: Message): boolean {
    if (this.#evicted.has(processKey(from))) return false
    // Who is not in yet is let in by whoever answers first.
    if (!this.#counts || this.#pulse?.isMember(from) === true) return true
    this.#order?.elsewhere(subject.process, incarnation)
    return false
  }

  #leaveCame(from: ProcessId, process: ProcessId): void {
    if (processKey(from) === processKey(process)) {
      // What waits in front of it, for somebody who is not heard of, does not matter to who leaves.
      if (this.#isLeaving && processKey(from) === processKey(this.#self))
        this.#end({ kind: 'left' })
      else this.#depart([{ process, why: 'left' }])
    } else if (processKey(process) === processKey(this.#self)) {
      this.#outside(LEFT_BEHIND)
    } else {
      this.#evicted.add(processKey(process))
      // Who was to answer waits for what becomes of that one.
      if (!this.#counts) this.#outside('a member was left behind while this node was joining')
      else if (this.#pulse?.isMember(process) === true) {
        this.#tears?.lose([process], 'was silent for too long')
        this.#tears?.gone(process)
        this.#tears?.state()
      }
    }
  }

  /** A join is answered: from now on the joiner counts. */
  #settled({ subject, members, isSettled, history }: Message): void {
    if (processKey(subject.process) === processKey(this.#self)) {
      this.#counts = true
      this.#history.begin(history)
      const others = members.map(({ process }) => process)
      this.#pulse?.begin(others, isSettled)
      for (const tell of this.#early.splice(0)) tell()
    } else {
      this.#pulse?.joined(subject.process)
    }
  }

  // ---- what it says

  #answer(joiner: MemberId, answer: Buffer): void {
    const order = this.#order
    const subject = order?.asking
    if (order === undefined || subject === undefined) return
    if (processKey(subject.process) !== processKey(order.processOf(joiner) ?? this.#self)) return
    try {
      const { incarnation } = subject
      const history = this.#history.ofArrival(processKey(subject.process))
      const isSettled = this.#pulse?.isSettled !== false
      const accept = { ...PLAIN, ...order.standing(), type: 'accept', subject } as const
      const message = { ...accept, incarnation, history, isSettled, payload: answer }
      this.#messages?.send(encodeMessage(message))
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
      this.#refuse(subject.process, error.message)
    }
  }

  #decline(reason: string): void {
    const joiner = this.#order?.asking?.process
    if (joiner !== undefined) this.#refuse(joiner, reason)
  }

  /** The joiner leaves when it hears this, and that takes its place out of the order. */
  #refuse(joiner: ProcessId, reason: string): void {
    if (processKey(joiner) === processKey(this.#self)) {
      this.#end({ kind: 'refused', reason })
      return
    }
    this.#pulse?.refuse(joiner, reason)
  }

  #message(
    type: MessageType,
    { process }: { readonly process: ProcessId },
    payload: Buffer,
  ): Message {
    const subject = { process, node: this.#options.self }
    return { ...PLAIN, type, subject, incarnation: this.#incarnation, payload }
  }

  // ---- time and end

  #advance(): void {
    if (this.#isOver) return
    this.#tears?.look()
    if (!this.#isOver) this.#order?.advance()
  }

  #after(delayMs: number, fn: () => void): () => void {
    const cancel = this.#options.world.clock.after(delayMs, () => {
      this.#cancels.delete(cancel)
      this.#guard(fn)
    })
    this.#cancels.add(cancel)
    return () => {
      this.#cancels.delete(cancel)
      cancel()
    }
  }

  /** After an exception nobody knows what this member has seen: it ends. */
  #guard(fn: () => void): void {
    if (this.#isOver) return
    try {
      fn()
    } catch (error) {
      const reason = error instanceof Error ? (error.stack ?? error.message) : String(error)
      this.#end({ kind: 'broken', reason, wasMember: this.inside })
    }
  }

  #outside(reason: string): void {
    this.#end({ kind: 'outside', reason, wasMember: this.inside })
  }

  #end(end: End): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#delivery.stop()
    for (const cancel of this.#cancels) cancel()
    this.#cancels.clear()
    this.#beats?.stop()
    this.#messages?.stop()
    for (const group of this.#groups) group.close()
    this.#options.over(end)
  }
}
