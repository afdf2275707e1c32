/**
 * What a member knows of its fellows beside the order of events: who counts (votes.ts), who has been heard of
 * lately, and until when it may be sure of itself (lease.ts). All of it goes through beats (beat.ts).
 */
import type { Log } from '../../base/log.js'
import type { ProcessId } from '../../world/corosync.js'
import type { Clock } from '../../world/world.js'
import { type Beat, decodeBeat, encodeBeat, NO_INCARNATION, SILENCE } from './beat.js'
import { BEAT_MS, Lease } from './lease.js'
import { type ProcessKey, processKey } from './message.js'
import type { Outlet } from './outlet.js'
import { Votes } from './votes.js'

/** A member whose process is stopped holds everybody up; after this long the others go on without it. */
const SILENT_MS = 10_000

/** Own beats that have not come back; more are not sent. */
const UNDER_WAY_MAX = 2

/** Processes that were members and are remembered. */
const FORMER_MAX = 1_024

/** Two clusters whose ages differ by less are as old as each other. */
const AGE_SECONDS = 2

export const LEFT_BEHIND = 'this node was silent for too long, the others went on without it'

export interface PulseOptions {
  readonly clock: Clock
  readonly log: Log
  readonly self: ProcessId
  readonly incarnation: string
  readonly outlet: Outlet
  /** As Clock.after, but it ends with the member. */
  readonly after: (delayMs: number, fn: () => void) => void
  /** As DriverEvents.isServing. */
  isServing(): boolean
  /** This member waits for what becomes of others (tear.ts). */
  isTorn(): boolean
  /** This member cannot go on. */
  outside(reason: string): void
  /** This member, not let in yet, is turned away. */
  refused(reason: string): void
  /** The eviction this member asked for is in force: the order may learn of it. */
  evicted(process: ProcessId): void
  /** It may be sure again, or for longer. */
  renewed(): void
}

export class Pulse {
  readonly #options: PulseOptions
  readonly #lease: Lease
  #votes: Votes | undefined
  #sureUntil = Number.NEGATIVE_INFINITY
  /** Members of before, as long as they may come back as they were: their processes. */
  readonly #former = new Set<string>()
  /** Since when the cluster has had members, by the own clock. */
  #foundedAt = Number.POSITIVE_INFINITY
  /** What the members before a tear call themselves. */
  #ground = new Map<ProcessKey, string>()
  #isQuorate = true

  constructor(options: PulseOptions) {
    this.#options = options
    this.#lease = new Lease(options.self, options.incarnation)
  }

  /** By the monotonic clock. */
  get sureUntil(): number {
    return this.#isQuorate ? this.#sureUntil : Number.NEGATIVE_INFINITY
  }

  /** While the corosync of this host has no quorum this member is not sure, whatever the others say. */
  get isQuorate(): boolean {
    return this.#isQuorate
  }

  set isQuorate(isQuorate: boolean) {
    this.#isQuorate = isQuorate
  }

  get isSure(): boolean {
    return this.sureUntil > this.#options.clock.monotonic()
  }

  /** As Lease.turnedMs: a stopped ring lets nobody wait for nothing. */
  get turnedMs(): number {
    return this.#lease.turnedMs
  }

  /** Of the cluster, in whole seconds. */
  get age(): number {
    return Math.max(0, Math.floor((this.#options.clock.monotonic() - this.#foundedAt) / 1000))
  }

  get members(): readonly ProcessId[] {
    return this.#votes?.members ?? []
  }

  isMember(process: ProcessId): boolean {
    return this.#votes?.isMember(processKey(process)) === true
  }

  /** A process has asked to join under this name. */
  expect(process: ProcessId, incarnation: string): void {
    this.#lease.expect(process, incarnation)
  }

  /** All members are known to share the view of them. */
  get isSettled(): boolean {
    return this.#votes === undefined || this.#votes.unsettled === 1
  }

  /** Let in so lately that it does not go on without anybody. */
  get isNew(): boolean {
    return this.#votes?.isPartial === true
  }

  /** This member is in, with these; `isSettled`: whoever answered was. */
  begin(others: readonly ProcessId[], isSettled: boolean): void {
    const { self } = this.#options
    this.#votes = others.length === 0 ? new Votes(self) : Votes.joining(self, others, isSettled)
    this.#foundedAt = this.#options.clock.monotonic()
    this.#beat()
  }

  /** Another one is in; before `begin` that says nothing. */
  joined(process: ProcessId): void {
    if (this.#votes === undefined) return
    this.#votes.joined(process)
    this.#former.delete(processKey(process))
    this.#send()
  }

  /** Left, or died where somebody saw it. */
  gone(process: ProcessId): void {
    this.#remember(process)
    this.#votes?.gone(process)
    this.#lease.forget(process)
  }

  /** True when the others are enough to go on without these. */
  unreachable(processes: readonly ProcessId[]): boolean {
    for (const process of processes) {
      this.#lease.forget(process)
      this.#remember(process)
    }
    return this.#votes?.unreachable(processes) !== false
  }

  /** Members are about to be lost, and may return. */
  hold(): void {
    this.#votes?.hold()
    const known = this.members.map((one) => [processKey(one), this.#lease.incarnationOf(one)])
    this.#ground = new Map(known.filter((one): one is [string, string] => one[1] !== undefined))
  }

  /** As Votes has them. */
  areEnough(alive: ReadonlySet<ProcessKey>): boolean {
    return this.#votes?.areEnough(alive) === true
  }

  wereEnough(alive: ReadonlySet<ProcessKey>): boolean {
    return this.#votes?.wereEnough(alive) === true
  }

  /** These are there again as they were; those are missing now. */
  reunited(returned: readonly ProcessId[], missing: readonly ProcessId[]): void {
    this.#votes?.restore()
    for (const process of returned) {
      const key = processKey(process)
      this.#former.delete(key)
      const incarnation = this.#ground.get(key)
      this.#lease.expect(process, incarnation ?? NO_INCARNATION)
      // Counted from now on, should it be silent.
      if (incarnation !== undefined) this.#lease.receive(process, { ...SILENCE, incarnation })
    }
    if (missing.length === 0) this.settled()
    else this.unreachable(missing)
  }

  /** Nobody returns any more, or everybody has. */
  settled(): void {
    this.#ground = new Map()
    this.#votes?.release()
  }

  #remember(former: ProcessId): void {
    if (!this.isMember(former)) return
    this.#former.add(processKey(former))
    const [oldest] = this.#former
    if (this.#former.size > FORMER_MAX && oldest !== undefined) this.#former.delete(oldest)
  }

  /** Tells a joiner why it stays outside. */
  refuse(joiner: ProcessId, reason: string): void {
    const incarnation = this.#lease.expectedOf(joiner) ?? NO_INCARNATION
    this.#aside({ kind: 'refusal', entries: [{ process: joiner, incarnation, number: 0 }], reason })
  }

  received(from: ProcessId, bytes: Buffer): void {
    let beat: Beat
    try {
      beat = decodeBeat(bytes)
    } catch (error) {
      const fields = { from: processKey(from), reason: String(error) }
      this.#options.log.warn('corosync.beat.bad', fields)
      return
    }
    if (beat.kind === 'refusal') this.#refusalCame(beat)
    else if (beat.kind === 'eviction') this.#evictionCame(from, beat)
    else this.#heard(from, beat)
  }

  #beat(): void {
    this.#send()
    this.#options.after(BEAT_MS, () => this.#beat())
  }

  #send(): void {
    // While the ring stands still beats would pile up, and then count for time in which others were silent.
    if (this.#options.outlet.isWaiting || this.#lease.underWay >= UNDER_WAY_MAX) return
    const beat = this.#lease.beat(this.#options.clock.monotonic(), this.members)
    const { isSure, age } = this
    const [isServing, isTorn] = [this.#options.isServing(), this.#options.isTorn()]
    this.#options.outlet.send([encodeBeat({ ...beat, isSure, isServing, isTorn, age })])
  }

  #aside(what: Pick<Beat, 'kind' | 'entries' | 'reason'>): void {
    const { incarnation } = this.#options
    this.#options.outlet.send([encodeBeat({ ...SILENCE, ...what, incarnation })])
  }

  #heard(from: ProcessId, beat: Beat): void {
    const votes = this.#votes
    if (votes === undefined) return
    const view = beat.entries.map(({ process }) => process)
    if (!this.isMember(from)) {
      this.#meet(from, view, beat)
      return
    }
    if (!this.#lease.receive(from, beat)) return
    const foundedAt = this.#options.clock.monotonic() - beat.age * 1000
    this.#foundedAt = Math.min(this.#foundedAt, foundedAt)
    votes.heard(processKey(from), view)
    this.#sureUntil = this.#lease.sureUntil((alive) => votes.areEnough(alive))
    this.#lookForSilent(votes)
    this.#options.renewed()
  }

  /**
   * A beat of a member of another cluster of this name, which grew up in another part of the network. Who only waits
   * joins the one that serves; else who is not sure of itself joins the other one anew, else the younger one does (it
   * waits for the older one's nodes, most likely), else the smaller one.
   */
  #meet(from: ProcessId, theirs: readonly ProcessId[], beat: Beat): void {
    const { isSure, isServing, isTorn, age } = beat
    const ours = this.members
    const self = processKey(this.#options.self)
    if (theirs.length === 0 || theirs.some((process) => processKey(process) === self)) return
    // It decides nothing before it knows itself what it belongs to.
    if (isTorn) return
    if (this.#ground.get(processKey(from)) === beat.incarnation) {
      this.#options.outside(`met ${theirs.length} members who went on without this one`)
      return
    }
    // What is left of a part that was cut off finds its way back by itself, whatever it thinks of itself now.
    const areFormer = theirs.every((process) => this.#former.has(processKey(process)))
    if (areFormer && 2 * theirs.length <= ours.length) return
    const [mine, other] = [lowestOf(ours), lowestOf(theirs)]
    const better =
      Number(isServing) - Number(this.#options.isServing()) ||
      Number(isSure) - Number(this.isSure) ||
      (Math.abs(age - this.age) > AGE_SECONDS ? age - this.age : 0) ||
      theirs.length - ours.length ||
      mine.nodeId - other.nodeId ||
      mine.pid - other.pid
    if (better <= 0) return
    const sizes = `${theirs.length} members, this one had ${ours.length}`
    this.#options.outside(`met a part of the cluster with ${sizes}`)
  }

  #lookForSilent(votes: Votes): void {
    const lease = this.#lease
    const silent = votes.members.find((process) => lease.silentMs(process) >= SILENT_MS)
    const incarnation = silent === undefined ? undefined : lease.incarnationOf(silent)
    // Whoever is not sure of itself may be the one that hears nothing.
    if (silent === undefined || incarnation === undefined || !this.isSure) return
    const rest = votes.members.map(processKey).filter((key) => key !== processKey(silent))
    if (!votes.areEnough(new Set(rest))) return
    this.#options.log.warn('corosync.silent', { process: processKey(silent) })
    const entries = [{ process: silent, incarnation, number: 0 }]
    this.#aside({ kind: 'eviction', entries, reason: '' })
    // Once is enough: counting begins anew.
    lease.receive(silent, { ...SILENCE, incarnation })
  }

  /** From here on nobody acknowledges its beats; only now may the others be told that it is out. */
  #evictionCame(from: ProcessId, { entries }: Beat): void {
    const [entry] = entries
    if (entry === undefined || !this.isMember(from)) return
    this.#lease.evict(entry.incarnation)
    if (entry.incarnation === this.#options.incarnation) this.#options.outside(LEFT_BEHIND)
    else if (processKey(from) === processKey(this.#options.self)) {
      this.#options.evicted(entry.process)
    }
  }

  #refusalCame({ entries, reason }: Beat): void {
    const isMine = entries[0]?.incarnation === this.#options.incarnation
    if (isMine && this.#votes === undefined) this.#options.refused(reason)
  }
}

function lowestOf(processes: readonly ProcessId[]): ProcessId {
  const [lowest] = [...processes].sort((a, b) => a.nodeId - b.nodeId || a.pid - b.pid)
  return lowest ?? { nodeId: 0, pid: 0 }
}
