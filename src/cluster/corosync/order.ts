/**
 * The order of events as every member derives it from the one stream of its group: messages and changes of
 * the group arrive in the same order on all, and are put to the state machine all drivers share
 * (membership.ts) in the order of a list that all build alike.
 *
 *  - A process that joins gets a place in the list. Its JOIN message fills the place, the first ACCEPT
 *    settles it; nothing behind it counts before. So the answer is computed on exactly the state it is
 *    ordered after, although it is sent much later (cluster spec, section 11).
 *  - Sheepdog 1.0 has every member answer. Here the oldest one does; when it leaves first, its LEAVE is
 *    taken out of turn and the next one answers. Whatever is answered first counts on all.
 *  - Two clusters that grew up in parts of a torn network may be in one group for a while, and both answer a joiner.
 *    It belongs to the one that answered first; the other one takes its place away.
 *  - Who found only processes that came after it in its group is the first member, and answers itself.
 *  - When members are lost that may live, nothing counts any more (`freeze`) before all know what becomes of them: they
 *    are gone, and what came after their loss counts after it (`thaw`), or they are there again, and what came
 *    after it never was (`rewind`; tear.ts).
 */
import { nodeKey, type SdNode } from '../../model/node.js'
import type { ProcessId } from '../../world/corosync.js'
import {
  acceptorOf,
  applyRecord,
  type ClusterEvent,
  type ClusterState,
  EMPTY_CLUSTER,
  type Entry,
  type MemberId,
  mayAppend,
} from '../membership.js'
import { NO_INCARNATION } from './beat.js'
import { type Message, type Participant, type ProcessKey, processKey } from './message.js'

/** The own member's number; numbers are private to a process. */
export const SELF = 1 as MemberId

interface Place {
  readonly kind: 'place'
  readonly process: ProcessId
  /** Number of the arrival, as in all items. */
  readonly at: number
  join?: { readonly node: SdNode; readonly request: Buffer; readonly incarnation: string }
  accept?: { readonly by: ProcessKey; readonly at: number; readonly message: Message }
  /** Put to the state machine; its answer is awaited. */
  asked: boolean
}

interface Leave {
  readonly kind: 'leave'
  readonly process: ProcessId
  readonly at: number
}

interface Said {
  readonly kind: 'said'
  readonly process: ProcessId
  readonly at: number
  readonly entry: Entry
}

type Item = Place | Leave | Said

/** What a rewind leaves behind. */
export interface Rewound {
  /** What this process itself had said: to be said again, in this order. */
  readonly unsaid: readonly Entry[]
  /** Who asks to come in, as before. */
  readonly arrivals: readonly ProcessKey[]
}

export interface OrderDuties {
  /** In order, one batch a step. May call back into the driver, not into the order. */
  deliver(events: readonly ClusterEvent[]): void
  /** Every member refuses this join alike; `first` is set on the one that should say so. */
  refused(joiner: ProcessId, reason: string, first: boolean): void
}

export class Order {
  readonly #self: ProcessKey
  readonly #duties: OrderDuties
  readonly #ids = new Map<ProcessKey, MemberId>()
  readonly #processes = new Map<MemberId, ProcessId>()
  /** Processes of the group that were there before this one: somebody else is the first member. */
  readonly #elders: Set<ProcessKey>
  #list: Item[]
  #state: ClusterState | undefined
  #arrivals = 0
  #nextId = SELF + 1
  #advancing = false
  /** Arrivals until then count; undefined: all do. */
  #frozenAt: number | undefined
  /** The last time two parts of the ring found each other. */
  #mergedAt = 0

  /** `others`: the group as this process found it, without those that joined in the same moment. */
  constructor(self: ProcessId, others: readonly ProcessId[], duties: OrderDuties) {
    this.#self = processKey(self)
    this.#duties = duties
    this.#elders = new Set(others.map(processKey))
    this.#list = [{ kind: 'place', process: self, at: 0, asked: false }]
  }

  get state(): ClusterState | undefined {
    return this.#state
  }

  processOf(id: MemberId): ProcessId | undefined {
    return this.#processes.get(id)
  }

  /** Members and owners of waiting BLOCKs, for an ACCEPT: as they are before the join that is asked. */
  standing(): { readonly members: Participant[]; readonly blocks: ProcessId[] } {
    const members = this.#state?.members ?? []
    const blocks = this.#state?.blocks ?? []
    return {
      members: members.map(({ id, node }) => ({ process: this.#known(id), node })),
      blocks: blocks.map((id) => this.#known(id)),
    }
  }

  /** The place whose answer is awaited, and what the joiner calls itself. */
  get asking(): (Participant & { readonly incarnation: string }) | undefined {
    const head = this.#list[0]
    if (head?.kind !== 'place' || !head.asked || head.join === undefined) return undefined
    const { node, incarnation } = head.join
    return { process: head.process, node, incarnation }
  }

  arrived(process: ProcessId): void {
    this.#list.push({ kind: 'place', process, at: ++this.#arrivals, asked: false })
  }

  /** Nothing that arrives from now on counts for the time being. */
  freeze(): void {
    this.#frozenAt ??= this.#arrivals
  }

  /** It counts, in the order it came. */
  thaw(): void {
    this.#frozenAt = undefined
  }

  /** Two parts of the ring have found each other. */
  merged(): void {
    this.#mergedAt = this.#arrivals
  }

  /**
   * What arrived since `freeze` never was. Who asks to come in goes on asking when he came after the parts that are one
   * now found each other; the others ask again by themselves. These are missing now.
   */
  rewind(missing: readonly ProcessId[]): Rewound {
    const frozenAt = this.#frozenAt ?? this.#arrivals
    const isAsker = (item: Item): item is Place =>
      item.kind === 'place' && (item.accept === undefined || item.accept.at > frozenAt)
    const askers = this.#list.filter(isAsker)
    const kept = askers.filter(({ at, accept }) => accept === undefined && at > this.#mergedAt)
    const unsaid = this.#list.flatMap((item) =>
      item.kind === 'said' && item.at > frozenAt && processKey(item.process) === this.#self
        ? [item.entry]
        : [],
    )
    for (const place of askers) if (!kept.includes(place) && place.asked) this.#withdraw(place)
    const before = this.#list.filter((item) => !isAsker(item) && item.at <= frozenAt)
    const leaves = missing.map((process): Leave => ({ kind: 'leave', process, at: frozenAt + 1 }))
    this.#list = [...before, ...leaves, ...kept]
    return { unsaid, arrivals: kept.map(({ process }) => processKey(process)) }
  }

  /** True when the process was, or is about to be, a member. */
  departed(process: ProcessId): boolean {
    const key = processKey(process)
    this.#arrivals++
    this.#elders.delete(key)
    if (this.#drop(process)) return false
    const isGoing = this.#list.findLast(
      (item) => item.kind !== 'said' && processKey(item.process) === key,
    )
    if (isGoing?.kind === 'leave') return false
    const isKnown = this.#state === undefined || this.#ids.has(key) || isGoing !== undefined
    if (isKnown) this.#list.push({ kind: 'leave', process, at: this.#arrivals })
    return isKnown
  }

  /**
   * Another cluster in this group has answered the attempt of this process that calls itself so; no answer of this one
   * counts any more.
   */
  elsewhere(process: ProcessId, incarnation: string): void {
    const join = this.#placeOf(processKey(process))?.join
    if (join !== undefined && isAnswerTo(incarnation, join.incarnation)) this.#drop(process)
  }

  /** True when the message settles a join. */
  received(from: ProcessId, message: Message): boolean {
    this.#arrivals++
    const { type, subject, payload } = message
    switch (type) {
      case 'join':
        this.#fill(from, message)
        return false
      case 'accept':
        return this.#settle(from, message)
      case 'leave':
        // The driver makes a departure of it.
        return false
      case 'notify':
      case 'unblock':
        this.#said(from, { kind: type, message: payload })
        return false
      case 'block':
        this.#said(from, { kind: 'block' })
        return false
      case 'update':
        this.#said(from, { kind: 'update', node: subject.node })
        return false
    }
  }

  #said(process: ProcessId, entry: Entry): void {
    this.#list.push({ kind: 'said', process, at: this.#arrivals, entry })
  }

  /** Does what can be done now. */
  advance(): void {
    if (this.#advancing) return
    this.#advancing = true
    try {
      while (this.#frozenAt === undefined && this.#step());
    } finally {
      this.#advancing = false
    }
  }

  /** True when there may be more to do. */
  #step(): boolean {
    const head = this.#list[0]
    switch (head?.kind) {
      case undefined:
        return false
      case 'place':
        return this.#place(head)
      case 'leave':
        this.#leave(head)
        return true
      case 'said':
        this.#list.shift()
        this.#say(head)
        return true
    }
  }

  #place(place: Place): boolean {
    if (place.join === undefined) return false
    if (this.#state === undefined) {
      if (place.accept !== undefined) {
        this.#enter(place.accept.message, place.join)
        return true
      }
      if (this.#elders.size > 0) return false
      this.#state = EMPTY_CLUSTER
    }
    if (!place.asked) return this.#ask(place, place.join)
    const acceptor = acceptorOf(this.#state)
    const { accept } = place
    const isHis = accept !== undefined && this.#ids.get(accept.by) === acceptor
    // Somebody else answered: the oldest one had gone by then, or this is a node of sheepdog 1.0.
    const leave = isHis ? undefined : this.#departureOf(acceptor, accept?.at)
    if (leave !== undefined) {
      this.#leave(leave)
      return true
    }
    if (accept === undefined || acceptor === undefined) return false
    this.#list.shift()
    const joiner = this.#idOf(place.process)
    this.#apply(acceptor, { kind: 'accept', joiner, answer: accept.message.payload })
    return true
  }

  #ask(place: Place, { node, request }: NonNullable<Place['join']>): true {
    const state = this.#state ?? EMPTY_CLUSTER
    const id = this.#idOf(place.process)
    const entry: Entry = { kind: 'join', node, request, mark: 0 }
    if (mayAppend(state, id, entry)) {
      place.asked = true
      this.#apply(id, entry)
      return true
    }
    this.#list.shift()
    this.#forget(place.process)
    const reason = `${nodeKey(node)} is already a member of the cluster`
    this.#duties.refused(place.process, reason, state.members[0]?.id === SELF)
    return true
  }

  /** The own accept: what the others know becomes what this member knows. */
  #enter(message: Message, { node, request }: NonNullable<Place['join']>): void {
    this.#list.shift()
    const members = message.members.map(({ process, node: member }) => ({
      id: this.#idOf(process),
      node: member,
      mark: 0,
    }))
    const blocks = message.blocks.flatMap((owner) => this.#ids.get(processKey(owner)) ?? [])
    this.#idOf(message.subject.process)
    const joining = { id: SELF, node, request, mark: 0 }
    this.#state = { nextSeq: 1, members, joining, blocks }
    const acceptor = acceptorOf(this.#state) ?? SELF
    this.#apply(acceptor, { kind: 'accept', joiner: SELF, answer: message.payload })
  }

  #leave(leave: Leave): void {
    this.#list.splice(this.#list.indexOf(leave), 1)
    const id = this.#ids.get(processKey(leave.process))
    if (id === undefined) return
    this.#apply(id, { kind: 'leave', member: id })
    this.#forget(leave.process)
  }

  /** A joiner is gone whose answer is not there yet. */
  #withdraw(place: Place): void {
    const id = this.#idOf(place.process)
    this.#apply(id, { kind: 'leave', member: id })
    this.#forget(place.process)
  }

  #say({ process, entry }: Said): void {
    const id = this.#ids.get(processKey(process))
    if (id !== undefined) this.#apply(id, entry)
  }

  #departureOf(id: MemberId | undefined, before = Number.POSITIVE_INFINITY): Leave | undefined {
    return this.#list.find(
      (item): item is Leave =>
        item.kind === 'leave' && item.at < before && this.#ids.get(processKey(item.process)) === id,
    )
  }

  #fill(from: ProcessId, { subject, payload, incarnation }: Message): void {
    const place = this.#placeOf(processKey(from))
    if (place === undefined || place.join !== undefined) return
    place.join = { node: subject.node, request: payload, incarnation }
  }

  #settle(from: ProcessId, message: Message): boolean {
    const key = processKey(message.subject.process)
    const place = this.#placeOf(key)
    if (place?.join === undefined || place.accept !== undefined) return false
    // The answer to an earlier attempt of this process may have waited for the ring to turn.
    if (!isAnswerTo(message.incarnation, place.join.incarnation)) return false
    place.accept = { by: processKey(from), at: this.#arrivals, message }
    if (key === this.#self) this.#dropStrangers(message)
    return true
  }

  /** Takes the place of a process away that nobody has answered. False when there is none. */
  #drop(process: ProcessId): boolean {
    const key = processKey(process)
    const at = this.#list.findIndex(
      (item) =>
        item.kind === 'place' && item.accept === undefined && processKey(item.process) === key,
    )
    const place = this.#list[at]
    if (place?.kind !== 'place') return false
    this.#list.splice(at, 1)
    if (place.asked) this.#withdraw(place)
    return true
  }

  /** Who came later may have been let in by another cluster before this member knew which one its own is. */
  #dropStrangers({ members }: Message): void {
    const known = new Set([this.#self, ...members.map(({ process }) => processKey(process))])
    this.#list = this.#list.filter((item) => {
      if (item.kind !== 'place' || item.accept === undefined) return true
      const isOurs = known.has(item.accept.by) || processKey(item.process) === this.#self
      if (isOurs) known.add(processKey(item.process))
      return isOurs
    })
  }

  #placeOf(key: ProcessKey): Place | undefined {
    return this.#list.findLast(
      (item): item is Place => item.kind === 'place' && processKey(item.process) === key,
    )
  }

  #apply(sender: MemberId, entry: Entry): void {
    const before = this.#state ?? EMPTY_CLUSTER
    const { state, events } = applyRecord(before, { seq: before.nextSeq, sender, entry })
    this.#state = state
    if (events.length > 0) this.#duties.deliver(events)
  }

  #idOf(process: ProcessId): MemberId {
    const key = processKey(process)
    const id = this.#ids.get(key) ?? (key === this.#self ? SELF : (this.#nextId++ as MemberId))
    this.#ids.set(key, id)
    this.#processes.set(id, process)
    return id
  }

  #forget(process: ProcessId): void {
    const key = processKey(process)
    const id = this.#ids.get(key)
    if (id !== undefined) this.#processes.delete(id)
    this.#ids.delete(key)
  }

  #known(id: MemberId): ProcessId {
    const process = this.#processes.get(id)
    if (process === undefined) throw new Error(`member ${id} has no process`)
    return process
  }
}

/** Sheepdog 1.0 names no attempt. */
function isAnswerTo(answered: string, asked: string): boolean {
  return answered === '' || answered === NO_INCARNATION || answered === asked
}
