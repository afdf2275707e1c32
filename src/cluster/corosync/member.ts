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
import type { MemberId } from '../membership.js'
import { BEAT_GROUP, type Beat, decodeBeat, encodeBeat, NO_INCARNATION } from './beat.js'
import { BEAT_MS, GRACE_MS, Lease } from './lease.js'
import {
  decodeMessage,
  encodeMessage,
  GROUP,
  INCARNATION_BYTES,
  type Message,
  type MessageType,
  PLAIN,
  processKey,
} from './message.js'
import { Order, SELF } from './order.js'
import { Outlet } from './outlet.js'
import { Votes } from './votes.js'

/** The oldest member answers within milliseconds, unless a member that is not heard of is waited for. */
const ANSWER_MS = 60_000
/** A member whose process is stopped holds everybody up; after this long the others go on without it. */
const SILENT_MS = 10_000
/** An orderly leave takes this long at most; then the closed connection tells the others. */
const LEAVE_MS = 5_000

/** How it ended. */
export type End =
  /** Left as it was asked to. */
  | { readonly kind: 'left' }
  /** Never let in: the cluster does not want it, or did not answer. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** The others may go on, or have gone on, without it. */
  | { readonly kind: 'outside'; readonly reason: string; readonly wasMember: boolean }
  /** Corosync is gone, or an event could not be handled. */
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
  #votes: Votes | undefined
  #lease: Lease | undefined
  #sureUntil = Number.NEGATIVE_INFINITY
  #cancelWait: (() => void) | undefined
  #isOver = false
  #isLeaving = false

  constructor(options: MemberOptions) {
    this.#options = options
    this.#incarnation = options.world.random.bytes(INCARNATION_BYTES).toString('hex')
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
      message: (from, bytes) => this.#beatCame(from, bytes),
      changed: () => undefined,
    })
    this.#beats = new Outlet(beats, this.#options.world.clock)
  }

  get inside(): boolean {
    return this.#delivery.inside && !this.#isOver
  }

  get sureUntil(): number {
    return this.#sureUntil
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
    this.#messages?.send(parts)
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

  /** Gives up being a member at once; the others see the connection close. */
  withdraw(reason: string): void {
    this.#outside(reason)
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
      closed: (reason) => this.#end({ kind: 'broken', reason, wasMember: this.inside }),
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
    if (this.#votes === undefined && (isTorn || isMerged)) {
      // Who was to answer may be in the part that has to stop: ask whoever is there now.
      this.#outside('the network changed while this node was joining')
      return
    }
    this.#depart(left)
    for (const { process, why } of joined) {
      // Who comes from another part of the network leaves and joins anew before it counts.
      if (why === 'joined') this.#order.arrived(process)
      else this.#options.log.warn('corosync.stranger', { process: processKey(process) })
    }
    this.#advance()
  }

  #start(members: readonly ProcessId[], joined: GroupChange['joined']): void {
    const self = processKey(this.#self)
    if (!joined.some(({ process }) => processKey(process) === self)) return
    const others = members.filter((process) => processKey(process) !== self)
    this.#lease = new Lease(this.#self, this.#incarnation)
    this.#order = new Order(this.#self, others, {
      deliver: (events) => {
        this.#delivery.push(events)
        this.#delivery.run()
      },
      refused: (joiner, reason, isMine) => {
        if (isMine) this.#refuse(joiner, reason)
      },
    })
    const { request } = this.#options
    this.#messages?.send(encodeMessage(this.#message('join', { process: this.#self }, request)))
    this.#after(ANSWER_MS, () => {
      if (this.inside) return
      const elders = others.map(processKey).join(', ')
      const reason = `no member answered within ${ANSWER_MS / 1000} s (node/process: ${elders})`
      this.#end({ kind: 'refused', reason })
    })
  }

  #depart(left: readonly { readonly process: ProcessId; readonly why: Departure }[]): void {
    const now = this.#options.world.clock.monotonic()
    for (const { process, why } of left) {
      if (why === 'node-down') continue
      this.#order?.departed(process, now)
      this.#votes?.gone(process)
      this.#lease?.forget(process)
    }
    const lost = left.flatMap(({ process, why }) => (why === 'node-down' ? [process] : []))
    if (lost.length > 0) this.#tear(lost, 'cannot be reached')
  }

  /** Members are missing and nobody knows whether they live. */
  #tear(lost: readonly ProcessId[], what: string): void {
    const votes = this.#votes
    if (votes === undefined) return
    const missing = lost.filter((process) => votes.isMember(processKey(process)))
    const all = votes.members.length
    const goesOn = votes.unreachable(missing)
    const names = missing.map(processKey).join(', ')
    const fields = { missing: names, members: all }
    if (!goesOn) {
      const rest = all - missing.length
      this.#options.log.error('corosync.minority', fields)
      this.#outside(`${names} ${what}, and ${rest} of ${all} members may not go on alone`)
      return
    }
    if (missing.length > 0) this.#options.log.warn('corosync.torn', fields)
    const dueAt = this.#options.world.clock.monotonic() + GRACE_MS
    for (const process of lost) {
      this.#order?.departed(process, dueAt)
      this.#lease?.forget(process)
    }
  }

  #received(from: ProcessId, bytes: Buffer): void {
    const order = this.#order
    if (order === undefined) return
    let message: Message
    try {
      message = decodeMessage(bytes)
    } catch (error) {
      this.#options.log.warn('corosync.message.bad', {
        from: processKey(from),
        reason: String(error),
      })
      return
    }
    const { process } = message.subject
    if (message.type === 'leave') this.#leaveCame(from, process)
    else if (message.type === 'join') this.#lease?.expect(from, message.incarnation)
    if (order.received(from, message)) this.#settled(message)
    this.#advance()
  }

  #leaveCame(from: ProcessId, process: ProcessId): void {
    if (processKey(from) === processKey(process)) {
      this.#depart([{ process, why: 'left' }])
    } else if (processKey(process) === processKey(this.#self)) {
      this.#outside('this node was silent for too long, the others went on without it')
    } else if (this.#votes?.isMember(processKey(process)) === true) {
      this.#tear([process], 'was silent for too long')
    }
  }

  /** A join is answered: from now on the joiner counts. */
  #settled({ subject, members }: Message): void {
    if (processKey(subject.process) === processKey(this.#self)) {
      const before = members.map(({ process }) => process)
      this.#votes = new Votes(this.#self, [...before, this.#self])
      this.#beat()
    } else if (this.#votes !== undefined) {
      this.#votes.joined(subject.process)
      this.#sendBeat()
    }
  }

  // ---- beats

  #beat(): void {
    this.#sendBeat()
    this.#after(BEAT_MS, () => this.#beat())
  }

  #sendBeat(): void {
    const { clock } = this.#options.world
    const beat = this.#lease?.beat(clock.monotonic(), this.#votes?.members ?? [])
    if (beat !== undefined) this.#beats?.send([encodeBeat(beat)])
  }

  #beatCame(from: ProcessId, bytes: Buffer): void {
    let beat: Beat
    try {
      beat = decodeBeat(bytes)
    } catch (error) {
      this.#options.log.warn('corosync.beat.bad', { from: processKey(from), reason: String(error) })
      return
    }
    if (beat.kind === 'refusal') this.#refusalCame(beat)
    else if (beat.kind === 'eviction') this.#evictionCame(from, beat)
    else this.#heard(from, beat)
  }

  #heard(from: ProcessId, beat: Beat): void {
    const votes = this.#votes
    const lease = this.#lease
    if (votes === undefined || lease === undefined) return
    const view = beat.entries.map(({ process }) => process)
    if (!votes.isMember(processKey(from))) {
      this.#meet(view)
      return
    }
    if (!lease.receive(from, beat)) return
    votes.heard(processKey(from), view)
    this.#sureUntil = lease.sureUntil((alive) => votes.areEnough(alive))
    this.#lookForSilent()
  }

  /** A beat of a member of another cluster of this name: the smaller one joins the larger one anew. */
  #meet(theirs: readonly ProcessId[]): void {
    const ours = this.#votes?.members ?? []
    const self = processKey(this.#self)
    if (theirs.length === 0 || theirs.some((process) => processKey(process) === self)) return
    const [mine, other] = [lowestOf(ours), lowestOf(theirs)]
    const isOther = theirs.length - ours.length || mine[0] - other[0] || mine[1] - other[1]
    if (isOther <= 0) return
    this.#outside(
      `met a part of the cluster with ${theirs.length} members, this one had ${ours.length}`,
    )
  }

  #lookForSilent(): void {
    const [votes, lease] = [this.#votes, this.#lease]
    if (votes === undefined || lease === undefined) return
    const silent = votes.members.find((process) => lease.silentMs(process) >= SILENT_MS)
    const incarnation = silent === undefined ? undefined : lease.incarnationOf(silent)
    if (silent === undefined || incarnation === undefined) return
    const rest = votes.members.map(processKey).filter((key) => key !== processKey(silent))
    if (!votes.areEnough(new Set(rest))) return
    this.#options.log.warn('corosync.silent', { process: processKey(silent) })
    this.#aside('eviction', { process: silent, incarnation, number: 0 }, '')
    // Once is enough; if it speaks before this is ordered, the beats start counting anew.
    lease.receive(silent, { kind: 'beat', incarnation, number: 0, entries: [], reason: '' })
  }

  /** From here on nobody acknowledges its beats; now the others may be told that it is out. */
  #evictionCame(from: ProcessId, { entries }: Beat): void {
    const [entry] = entries
    if (entry === undefined || this.#votes?.isMember(processKey(from)) !== true) return
    this.#lease?.evict(entry.incarnation)
    if (entry.incarnation === this.#incarnation) {
      this.#outside('this node was silent for too long, the others went on without it')
      return
    }
    if (processKey(from) !== processKey(this.#self)) return
    const subject = { process: entry.process, node: this.#options.self }
    this.#messages?.send(encodeMessage({ ...PLAIN, type: 'leave', subject }))
  }

  #refusalCame({ entries, reason }: Beat): void {
    if (entries[0]?.incarnation !== this.#incarnation || this.inside) return
    this.#end({ kind: 'refused', reason })
  }

  // ---- what it says

  #answer(joiner: MemberId, answer: Buffer): void {
    const order = this.#order
    const subject = order?.asking
    if (order === undefined || subject === undefined) return
    if (processKey(subject.process) !== processKey(order.processOf(joiner) ?? this.#self)) return
    try {
      const accept = { ...PLAIN, ...order.standing(), type: 'accept', subject } as const
      this.#messages?.send(encodeMessage({ ...accept, payload: answer }))
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
    const incarnation = this.#lease?.expectedOf(joiner) ?? NO_INCARNATION
    this.#aside('refusal', { process: joiner, incarnation, number: 0 }, reason)
  }

  #aside(kind: Beat['kind'], entry: Beat['entries'][number], reason: string): void {
    const beat = { kind, incarnation: this.#incarnation, number: 0, entries: [entry], reason }
    this.#beats?.send([encodeBeat(beat)])
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
    const { clock } = this.#options.world
    const at = this.#order?.advance(clock.monotonic())
    this.#cancelWait?.()
    this.#cancelWait = undefined
    if (at === undefined || this.#isOver) return
    const delay = Math.max(1, Math.ceil(at - clock.monotonic()))
    this.#cancelWait = this.#after(delay, () => this.#advance())
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
    this.#sureUntil = Number.NEGATIVE_INFINITY
    this.#delivery.stop()
    for (const cancel of this.#cancels) cancel()
    this.#cancels.clear()
    this.#beats?.stop()
    this.#messages?.stop()
    for (const group of this.#groups) group.close()
    this.#options.over(end)
  }
}

function lowestOf(processes: readonly ProcessId[]): [number, number] {
  const [lowest] = [...processes].sort((a, b) => a.nodeId - b.nodeId || a.pid - b.pid)
  return [lowest?.nodeId ?? 0, lowest?.pid ?? 0]
}
