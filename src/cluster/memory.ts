/**
 * A cluster inside one process, for tests and the simulator: the same state machine as the `local`
 * driver's, the order kept in memory. Members see events late and at their own pace, as they would.
 */
import { Code, SheepError } from '../base/codes.js'
import { type NodeKey, nodeKey, type SdNode } from '../model/node.js'
import type { Clock } from '../world/world.js'
import { Delivery } from './delivery.js'
import type { ClusterDriver, DriverEvents } from './driver.js'
import {
  applyRecord,
  type ClusterEvent,
  type ClusterState,
  EMPTY_CLUSTER,
  type Entry,
  type MemberId,
  mayAppend,
  memberByKey,
  nextToBury,
} from './membership.js'
import { Outbox } from './outbox.js'

export interface MemoryClusterOptions {
  readonly clock: Clock
  /** How late a member sees its next event; 0 (the default) is the next turn of the loop. */
  readonly delayMs?: (member: SdNode) => number
  /** A member whose process does not run for this long is thrown out. Undefined: never. */
  readonly leaseMs?: number
}

/** What a member knows ends before what the others grant it. */
const SURE_SHARE = 0.8
const RENEWALS = 5

export interface MemoryCluster {
  /** A new process's driver, on the process's own clock if it has one. */
  driver(clock?: Clock): ClusterDriver
  /** The process of that node dies: it sees and says nothing any more, the others see it leave. */
  kill(node: SdNode): void
  /** That node loses the cluster: it hears `lost`, the others see it leave. */
  lose(node: SdNode, reason: string): void
}

export function memoryCluster(options: MemoryClusterOptions): MemoryCluster {
  const order = new Order(options)
  return {
    driver: (clock = options.clock) => new MemoryDriver(order, clock),
    kill: (node) => order.kill(nodeKey(node), () => undefined),
    lose: (node, reason) => order.kill(nodeKey(node), (events) => events.lost(reason)),
  }
}

/** A member or a joiner of this cluster. */
interface Port {
  readonly id: MemberId
  readonly driver: MemoryDriver
  readonly node: SdNode
  readonly events: DriverEvents
  readonly delivery: Delivery
  readonly outbox: Outbox
  /** Events of records it has not seen yet. */
  readonly inbox: (readonly ClusterEvent[])[]
  reading: boolean
  leaving: (() => void) | undefined
}

interface WaitingJoin {
  readonly driver: MemoryDriver
  readonly node: SdNode
  readonly request: Buffer
  readonly events: DriverEvents
  resolve(): void
  reject(error: Error): void
}

class Order {
  readonly #options: MemoryClusterOptions
  readonly #ports = new Map<MemberId, Port>()
  readonly #dead = new Set<MemberId>()
  #joins: WaitingJoin[] = []
  #state: ClusterState = EMPTY_CLUSTER
  #woken = false

  constructor(options: MemoryClusterOptions) {
    this.#options = options
  }

  portOf(driver: MemoryDriver): Port | undefined {
    return [...this.#ports.values()].find((port) => port.driver === driver)
  }

  enter(join: WaitingJoin): void {
    this.#joins.push(join)
    this.wake()
  }

  kill(key: NodeKey, tell: (events: DriverEvents) => void): void {
    this.#joins = this.#joins.filter((join) => nodeKey(join.node) !== key)
    const port = [...this.#ports.values()].find((one) => nodeKey(one.node) === key)
    if (port === undefined) return
    this.#ports.delete(port.id)
    this.#dead.add(port.id)
    port.delivery.stop()
    tell(port.events)
    this.wake()
  }

  renew(port: Port): void {
    const { leaseMs } = this.#options
    if (leaseMs === undefined || this.#ports.get(port.id) !== port) return
    const { clock } = this.#options
    port.driver.renewedAt = clock.monotonic()
    clock.after(leaseMs, () => {
      if (clock.monotonic() - port.driver.renewedAt < leaseMs) return
      if (this.#ports.get(port.id) !== port) return
      const late = (events: DriverEvents): void => events.lost('no sign of life for too long')
      this.kill(nodeKey(port.node), (events) => port.driver.clock.soon(() => late(events)))
    })
    port.driver.clock.after(leaseMs / RENEWALS, () => this.renew(port))
  }

  get leaseMs(): number | undefined {
    return this.#options.leaseMs
  }

  wake(): void {
    if (this.#woken) return
    this.#woken = true
    this.#options.clock.soon(() => {
      this.#woken = false
      this.#settle()
    })
  }

  /** Orders everything that may be ordered now. */
  #settle(): void {
    while (this.#step());
    this.#joins = this.#joins.filter((join) => !this.#admit(join))
  }

  #step(): boolean {
    const dead = nextToBury(this.#state, (id) => this.#dead.has(id))
    if (dead !== undefined) {
      this.#append(dead, { kind: 'leave', member: dead })
      return true
    }
    return [...this.#ports.values()].some((port) => this.#sayOne(port))
  }

  #sayOne(port: Port): boolean {
    const { id, outbox, leaving } = port
    const entry = outbox.next(this.#state, id)
    if (entry !== undefined) {
      outbox.taken(entry)
      this.#append(id, entry)
      return true
    }
    const leave: Entry = { kind: 'leave', member: id }
    if (leaving === undefined || !mayAppend(this.#state, id, leave)) return false
    this.#append(id, leave)
    return true
  }

  /** True when the join needs no further attempt. */
  #admit(join: WaitingJoin): boolean {
    const { node, request } = join
    const key = nodeKey(node)
    const present = memberByKey(this.#state, key)
    if (present !== undefined && !this.#dead.has(present.id)) {
      join.reject(new SheepError(Code.JOIN_FAILED, `${key} is already a member`))
      return true
    }
    const id = this.#state.nextSeq as MemberId
    const entry: Entry = { kind: 'join', node, request, mark: 0 }
    if (!mayAppend(this.#state, id, entry)) return false
    const port = this.#openPort(id, join)
    this.#ports.set(id, port)
    this.renew(port)
    this.#append(id, entry)
    return true
  }

  #openPort(id: MemberId, join: WaitingJoin): Port {
    const outbox = new Outbox()
    const delivery = new Delivery(id, join.events, {
      answered: (joiner, answer) => {
        outbox.answer(joiner, answer)
        this.wake()
      },
      declined: (joiner, reason) => {
        outbox.decline(joiner, reason)
        this.wake()
      },
      entered: () => join.resolve(),
      departed: (declined) => this.#departed(id, join, declined),
    })
    const { driver, node, events } = join
    const inbox: Port['inbox'] = []
    return {
      id,
      driver,
      node,
      events,
      delivery,
      outbox,
      inbox,
      reading: false,
      leaving: undefined,
    }
  }

  #departed(id: MemberId, join: WaitingJoin, declined: string | undefined): void {
    const port = this.#ports.get(id)
    this.#ports.delete(id)
    join.reject(new SheepError(Code.JOIN_FAILED, declined ?? 'left before it was let in'))
    port?.leaving?.()
  }

  #append(sender: MemberId, entry: Entry): void {
    const record = { seq: this.#state.nextSeq, sender, entry }
    const { state, events } = applyRecord(this.#state, record)
    this.#state = state
    for (const port of this.#ports.values()) {
      port.inbox.push(events)
      this.#read(port)
    }
    // Waiting joins look again when the order has moved on.
    if (this.#joins.length > 0) this.wake()
  }

  /** Delivers one record, then the next one later. */
  #read(port: Port): void {
    if (port.reading || port.inbox.length === 0) return
    port.reading = true
    const { delayMs } = this.#options
    const { clock } = port.driver
    const read = (): void => {
      port.reading = false
      port.delivery.push(port.inbox.shift() ?? [])
      port.delivery.run()
      this.#read(port)
    }
    const delay = delayMs?.(port.node) ?? 0
    if (delay === 0) clock.soon(read)
    else clock.after(delay, read)
  }
}

class MemoryDriver implements ClusterDriver {
  readonly name = 'memory'
  readonly clock: Clock
  /** By the monotonic clock: when its process last ran as a member. */
  renewedAt = Number.NEGATIVE_INFINITY
  readonly #order: Order

  constructor(order: Order, clock: Clock) {
    this.#order = order
    this.clock = clock
  }

  localAddress(): string {
    return '127.0.0.1'
  }

  sureUntil(): number {
    const { leaseMs } = this.#order
    if (leaseMs === undefined) return Number.POSITIVE_INFINITY
    // What the process itself knows: that it has been thrown out it may not have heard yet.
    return this.renewedAt + leaseMs * SURE_SHARE
  }

  join(self: SdNode, request: Buffer, events: DriverEvents): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#order.enter({ driver: this, node: self, request, events, resolve, reject })
    })
  }

  leave(): Promise<void> {
    const port = this.#order.portOf(this)
    if (port === undefined) return Promise.resolve()
    return new Promise((resolve) => {
      port.leaving = resolve
      this.#order.wake()
    })
  }

  notify(message: Buffer): void {
    this.#send({ kind: 'notify', message })
  }

  block(): void {
    this.#send({ kind: 'block' })
  }

  unblock(message: Buffer): void {
    const { delivery } = this.#inside()
    if (!delivery.blocking) {
      throw new SheepError(Code.CLUSTER_ERROR, 'unblock without an active block')
    }
    this.#send({ kind: 'unblock', message })
    delivery.endBlock()
  }

  updateNode(node: SdNode): void {
    if (nodeKey(node) !== nodeKey(this.#inside().node)) {
      throw new SheepError(Code.CLUSTER_ERROR, 'a node can update itself only')
    }
    this.#send({ kind: 'update', node })
  }

  #send(entry: Entry): void {
    this.#inside().outbox.add(entry)
    this.#order.wake()
  }

  #inside(): Port {
    const port = this.#order.portOf(this)
    if (port?.delivery.inside !== true) {
      throw new SheepError(Code.CLUSTER_ERROR, 'this node is not a member of the cluster')
    }
    return port
  }
}
