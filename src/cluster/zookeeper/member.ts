/**
 * A node in a cluster on ZooKeeper, for the life of one session: reads the order of events, puts into it what
 * this node has to say, answers joins when that is its part (cluster spec, section 10.4).
 *
 * Everybody stops reading at a JOIN until the master has rewritten it as its ACCEPT. So the answer is made of
 * exactly what is ordered before it. The master is the member with the lowest /master number; ZooKeeper takes
 * the rewriting only from a living session and only once (the node's version).
 */
import { Code, SheepError } from '../../base/codes.js'
import { LIMITS } from '../../base/limits.js'
import type { Log } from '../../base/log.js'
import { type NodeKey, nodeKey, type SdNode } from '../../model/node.js'
import { ZkCode, ZkError } from '../../wire/zookeeper/messages.js'
import type { World } from '../../world/world.js'
import { Delivery } from '../delivery.js'
import type { DriverEvents } from '../driver.js'
import {
  acceptorOf,
  applyRecord,
  type ClusterState,
  EMPTY_CLUSTER,
  type Entry,
  type Member,
  type MemberId,
  memberByKey,
} from '../membership.js'
import { Outbox } from '../outbox.js'
import { Bell } from './bell.js'
import { Deaths } from './deaths.js'
import { Election } from './election.js'
import type { Entrance } from './entrance.js'
import { Keeper } from './keeper.js'
import { claim, isExpiry, isUnsure, type Layout } from './layout.js'
import { append } from './queue.js'
import {
  type AcceptRecord,
  decodeEvent,
  type EventRecord,
  EventType,
  encodeAccept,
  encodeDecline,
  encodeEntry,
  encodeLeave,
  type JoinRecord,
  nodeText,
} from './record.js'
import type { ZkSession } from './session.js'

/** An orderly leave takes this long at most; then the end of the session tells the others. */
const LEAVE_WAIT_MS = 5000
const NOBODY = 0 as MemberId

/** Why it is over: as asked, for another try with a new session, or for good. */
export interface Ending {
  readonly kind: 'left' | 'again' | 'failed'
  readonly reason: string
  /** It had been let in. */
  readonly inside: boolean
}

export interface MemberOptions {
  readonly zk: ZkSession
  readonly layout: Layout
  readonly world: Pick<World, 'clock' | 'random'>
  readonly log: Log
  readonly self: SdNode
  readonly entrance: Entrance
  readonly events: DriverEvents
  entered(): void
  over(ending: Ending): void
}

export class ZookeeperMember {
  readonly #options: MemberOptions
  readonly #bell = new Bell()
  readonly #outbox = new Outbox()
  readonly #deaths: Deaths
  readonly #keeper: Keeper
  readonly #joinedAt = new Map<MemberId, number>()
  readonly #election: Election
  #delivery: Delivery
  #refusal: string | undefined
  #state: ClusterState = EMPTY_CLUSTER
  /** Next position to read. */
  #position: number
  #phase: 'running' | 'leaving' | 'over' = 'running'
  #pushing = false
  /** What is being pushed, and where it was read when that came first. */
  #pending: { readonly id: bigint; readAt: number | undefined } | undefined
  #leaveTold = false
  #cancelLeave: () => void = () => undefined
  #answer: Buffer | undefined
  /** A node of sheepdog 1.0 let this one in and did not tell whose BLOCKs wait. */
  #blocksUnknown = false

  constructor(options: MemberOptions) {
    this.#options = options
    this.#position = options.entrance.position
    this.#delivery = this.#openDelivery(NOBODY)
    this.#deaths = new Deaths({
      ...options,
      members: () => this.#state.members,
      changed: () => void this.#push(),
      failed: (error) => this.#fail(error),
    })
    this.#election = new Election({ ...options, changed: this.#bell.ring })
    this.#keeper = new Keeper({
      ...options,
      position: () => this.#position,
      members: () => this.#state.members.map(({ node }) => node),
      lookAgain: this.#bell.ring,
      failed: (error) => this.#fail(error),
    })
  }

  start(): void {
    void this.#read()
  }

  get inside(): boolean {
    return this.#delivery.inside
  }

  /** Throws what Outbox.add throws. */
  send(entry: Entry): void {
    this.#outbox.add(entry)
    void this.#push()
  }

  /** Throws CLUSTER_ERROR when this member does not hold the active BLOCK, and what `send` throws. */
  unblock(message: Buffer): void {
    if (!this.#delivery.blocking) {
      throw new SheepError(Code.CLUSTER_ERROR, 'unblock without an active block')
    }
    this.send({ kind: 'unblock', message })
    this.#delivery.endBlock()
  }

  /** What was sent before is ordered before it. */
  leave(): void {
    if (this.#phase !== 'running') return
    if (!this.inside) {
      this.#end({ kind: 'left', reason: 'left before it was let in', inside: false })
      return
    }
    this.#phase = 'leaving'
    this.#cancelLeave = this.#options.world.clock.after(LEAVE_WAIT_MS, () => {
      if (this.#isOver()) return
      this.#options.log.warn('cluster.leave_unordered', { node: nodeKey(this.#options.self) })
      this.#end({ kind: 'left', reason: 'left the cluster', inside: true })
    })
    void this.#push()
  }

  /** The session is over. */
  expired(reason: string): void {
    this.#end({ kind: 'again', reason, inside: this.inside })
  }

  #openDelivery(id: MemberId): Delivery {
    const { events, self } = this.#options
    return new Delivery(id, events, {
      answered: (_joiner, answer) => {
        this.#answer = answer
      },
      declined: (_joiner, reason) => {
        this.#refusal = reason
      },
      entered: () => undefined,
      departed: () => {
        const isAsked = this.#phase === 'leaving'
        const reason = isAsked ? 'left the cluster' : `the others took ${nodeKey(self)} for dead`
        this.#end({ kind: isAsked ? 'left' : 'again', reason, inside: true })
      },
    })
  }

  async #read(): Promise<void> {
    try {
      while (!this.#isOver()) {
        const rung = this.#bell.next()
        if (!(await this.#step())) await rung
      }
    } catch (error) {
      this.#fail(error)
    }
  }

  /** False when there is nothing to read now; the bell has been asked to ring when there is. */
  async #step(): Promise<boolean> {
    const { zk, layout, log } = this.#options
    const position = this.#position
    const path = layout.event(position)
    const found = await zk.get(path)
    if (this.#isOver()) return false
    if (found === undefined) return (await zk.exists(path, this.#bell.ring)) !== undefined
    // What is kept of it must not keep the whole frame it came in.
    const event = decodeEvent(found.data)
    if (event === undefined) {
      log.error('cluster.event.unknown', { position, bytes: found.data.length })
    } else if ('request' in event) {
      return this.#join(event, found.stat.version)
    }
    this.#position = position + 1
    if (this.#pending?.id === event?.id && this.#pending !== undefined) {
      this.#pending.readAt = position
    }
    if (event !== undefined) this.#take(event, position)
    this.#deliver()
    this.#keeper.passed()
    if ('answer' in (event ?? {})) await this.#accepted()
    void this.#push()
    return true
  }

  /** At a JOIN nobody has answered yet. False: wait. */
  async #join(join: JoinRecord, version: number): Promise<boolean> {
    const { zk, layout } = this.#options
    const position = this.#position
    const path = layout.event(position)
    const watched = await zk.get(path, this.#bell.ring)
    if (watched?.stat.version !== version) return true
    const isOwn = position === this.#options.entrance.position
    const members = this.#state.members.map(({ node }) => node)
    const { isAlone, isMaster } = this.#election
    if (!(isOwn ? await isAlone() : await isMaster(members))) return false
    if (this.#isOver()) return false
    const data = this.#answerTo(join, position)
    this.#deliver()
    try {
      await zk.set(path, data, version)
    } catch (error) {
      // It happened, or somebody else has done it: the node tells.
      const isDone = error instanceof ZkError && error.code === ZkCode.BAD_VERSION
      if (!isDone && !isUnsure(error)) throw error
    }
    return true
  }

  #answerTo(join: JoinRecord, position: number): Buffer {
    this.#bury(join.sender)
    this.#deliver()
    const { members, blocks } = this.#state
    this.#answer = undefined
    this.#refusal = undefined
    const id = this.#state.nextSeq as MemberId
    const joiner = { id, node: join.sender, mark: 0, request: Buffer.from(join.request) }
    const acceptor = memberByKey(this.#state, nodeKey(this.#options.self))?.id ?? NOBODY
    try {
      const nodes = members.map(({ node }) => node)
      this.#delivery.push([{ kind: 'asked', acceptor, joiner, members: nodes }])
      this.#delivery.run()
      const refusal = this.#refusal
      if (refusal !== undefined && !join.isOld) return encodeDecline(join, refusal)
      // Nodes of sheepdog 1.0 know no refusal: they judge the answer themselves, and end.
      const { events } = this.#options
      const answer =
        this.#answer ?? (refusal && events.joinRequest(join.sender, nodes, join.request))
      if (members.length >= LIMITS.nodesMax)
        throw new Error(`${members.length} nodes are in already`)
      if (!answer) throw new Error('the node gave no answer')
      return encodeAccept(join, {
        answer,
        members: members.map(({ id: member, node }) => ({
          node,
          joinedAt: this.#joinedAt.get(member) ?? 0,
        })),
        blocks: blocks.map((owner) => members.findIndex((member) => member.id === owner)),
      })
    } catch (error) {
      // Whoever asks what cannot be answered must not stop the order for everybody.
      const fields = { node: nodeKey(join.sender), position, reason: String(error) }
      this.#options.log.error('cluster.join.declined', fields)
      return encodeDecline(join, 'the oldest node of the cluster cannot answer, see its log')
    }
  }

  #take(event: Exclude<ReturnType<typeof decodeEvent>, undefined>, position: number): void {
    if ('answer' in event) this.#accept(event, position)
    else if ('before' in event) this.#leave(event.sender, event.before)
    else this.#message(event)
    if (position === this.#options.entrance.position && !('answer' in event)) {
      this.#end({ kind: 'failed', reason: event.body.toString('utf8'), inside: false })
    }
  }

  #accept(event: AcceptRecord, position: number): void {
    const isOwn = position === this.#options.entrance.position
    if (isOwn) this.#learn(event)
    else this.#bury(event.sender)
    const id = this.#state.nextSeq as MemberId
    if (isOwn) this.#delivery = this.#openDelivery(id)
    this.#joinedAt.set(id, position)
    const [node, answer] = [event.sender, Buffer.from(event.answer)]
    this.#apply(id, { kind: 'join', node, request: answer, mark: 0 })
    const acceptor = acceptorOf(this.#state) ?? id
    this.#apply(acceptor, { kind: 'accept', joiner: id, answer })
  }

  /** Who is in, as the answer to the own JOIN says. */
  #learn(event: AcceptRecord): void {
    const members: Member[] = event.members.map(({ node, joinedAt }, i) => {
      const id = (i + 1) as MemberId
      this.#joinedAt.set(id, joinedAt)
      return { id, node, mark: 0 }
    })
    const blocks = (event.blocks ?? []).map((index) => members[index]!.id)
    this.#blocksUnknown = event.blocks === undefined
    this.#state = { nextSeq: members.length + 1, members, joining: undefined, blocks }
  }

  /** One death may be told many times, late too; it does not mean who has come back since. */
  #leave(node: SdNode, before: number | undefined): void {
    const member = memberByKey(this.#state, nodeKey(node))
    if (member === undefined) return
    if (before !== undefined && (this.#joinedAt.get(member.id) ?? 0) >= before) return
    this.#apply(member.id, { kind: 'leave', member: member.id })
  }

  /** Whoever joins anew is not in any more. */
  #bury(node: SdNode): void {
    this.#leave(node, undefined)
  }

  #message(event: EventRecord): void {
    const sender = memberByKey(this.#state, nodeKey(event.sender))?.id ?? NOBODY
    const message = Buffer.from(event.body)
    switch (event.type) {
      case EventType.BLOCK:
        this.#apply(sender, { kind: 'block' })
        break
      case EventType.UNBLOCK: {
        // One whose BLOCK this node has never heard of, unlike the others.
        const isStrange = this.#blocksUnknown && !this.#state.blocks.includes(sender)
        this.#apply(sender, { kind: isStrange ? 'notify' : 'unblock', message })
        break
      }
      case EventType.NOTIFY:
        this.#apply(sender, { kind: 'notify', message })
        break
      case EventType.UPDATE_NODE:
        this.#apply(sender, { kind: 'update', node: event.sender })
        break
    }
  }

  #apply(sender: MemberId, entry: Entry): void {
    const record = { seq: this.#state.nextSeq, sender, entry }
    const { state, events } = applyRecord(this.#state, record)
    this.#state = state
    // Joins are answered where they are read.
    this.#delivery.push(events.filter(({ kind }) => kind !== 'asked'))
    if (entry.kind === 'leave') this.#joinedAt.delete(entry.member)
  }

  #deliver(): void {
    this.#delivery.run()
  }

  /** After an ACCEPT: the own one makes this node a member in the eyes of the others. */
  async #accepted(): Promise<void> {
    const { zk, layout, self, entrance } = this.#options
    if (this.#isOver() || !this.inside) return
    if (this.#position === entrance.position + 1) {
      // 1.0 keeps the session's id and password here, for all to read; nobody needs them.
      const isClaimed = await claim(zk, `${layout.members}/${nodeText(self)}`, Buffer.alloc(24))
      if (!isClaimed) throw new Error(`another session is ${nodeText(self)}`)
      if (this.#isOver()) return
      this.#keeper.start()
      this.#deaths.start()
      await entrance.release()
      if (!this.#isOver()) this.#options.entered()
    } else this.#deaths.look()
  }

  /** One at a time: what is ordered in doubt must be found before the next one follows. */
  async #push(): Promise<void> {
    if (this.#pushing || !this.inside) return
    this.#pushing = true
    try {
      for (let next = this.#next(); next !== undefined; next = this.#next()) {
        const { zk, layout } = this.#options
        const { entry, id, data } = next
        const pending = { id, readAt: undefined }
        this.#pending = pending
        const from = (): number => this.#position
        await append(zk, layout, { id, data, from, readAt: () => pending.readAt })
        if (this.#isOver()) return
        if (entry !== undefined) this.#outbox.taken(entry)
        next.told()
      }
    } catch (error) {
      this.#fail(error)
    } finally {
      this.#pushing = false
    }
  }

  #next(): { id: bigint; data: Buffer; entry: Entry | undefined; told: () => void } | undefined {
    if (this.#isOver()) return undefined
    const id = this.#options.world.random.bytes(8).readBigUInt64LE(0)
    const told = (): void => undefined
    const dead = this.#deaths.next()
    if (dead !== undefined) {
      const data = encodeLeave(id, dead.node, this.#before(dead.id))
      return { id, data, entry: undefined, told: () => this.#deaths.told(dead.id) }
    }
    const self = memberByKey(this.#state, this.#key())
    if (self === undefined) return undefined
    const entry = this.#outbox.next(this.#state, self.id)
    if (entry !== undefined) return { id, data: encodeEntry(id, self.node, entry), entry, told }
    if (this.#phase !== 'leaving' || this.#leaveTold) return undefined
    const data = encodeLeave(id, self.node, this.#before(self.id))
    this.#leaveTold = true
    return { id, data, entry: undefined, told }
  }

  #key(): NodeKey {
    return nodeKey(this.#options.self)
  }

  #before(id: MemberId): number {
    return (this.#joinedAt.get(id) ?? 0) + 1
  }

  #fail(error: unknown): void {
    if (this.#isOver()) return
    // The session says so itself.
    if (isExpiry(error)) return
    const reason = error instanceof Error ? (error.stack ?? error.message) : String(error)
    this.#end({ kind: 'failed', reason, inside: this.inside })
  }

  #end(ending: Ending): void {
    if (this.#isOver()) return
    this.#phase = 'over'
    this.#cancelLeave()
    this.#delivery.stop()
    this.#deaths.stop()
    this.#keeper.stop()
    this.#bell.ring()
    this.#options.over(ending)
  }

  #isOver(): boolean {
    return this.#phase === 'over'
  }
}
