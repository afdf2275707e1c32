/**
 * A cluster of real daemons with faults that are asked for, and the account of them: which node was in what
 * trouble when, whether an error of a client is explained by it, and whether the cluster is clean again.
 */
import { mkdir, rename, rm } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { performance } from 'node:perf_hooks'
import type { TestCluster, TestNode } from '../real/support/cluster.js'
import { until } from '../real/support/run.js'
import { NodeLog } from './node-log.js'
import {
  type Action,
  isAway,
  mending,
  type NodeCondition,
  type NodeStatus,
  type ServerStatus,
} from './schedule.js'
import type { Gateway } from './verifying-writer.js'

/** A gateway's clients may feel a fault this long after it was mended. */
const AFTERMATH_MS = 5_000
/** A node may end itself this long after a cut or a pause was over. */
const FAULT_MEMORY_MS = 60_000
const CLEAN_POLL_MS = 200
/** A node under load notices within this that a disk is gone. */
const DISK_NOTICED_MS = 60_000
/** A host that can be reached answers a connect within this. */
const CONNECT_MS = 500

/** Cutting a node off and joining it again; only where nodes have networks of their own. */
export interface Cables {
  /** Clients reach a node that is cut off from the others. */
  readonly clientsStay: boolean
  cut(node: number): Promise<void>
  heal(node: number): Promise<void>
}

/** A service that hosts have of their own, or all share: how one of them dies and comes back. */
export interface Services {
  readonly count: number
  kill(index: number): Promise<void>
  /** Resolves when it serves again. */
  start(index: number): Promise<void>
}

interface Keeping {
  readonly node: TestNode
  readonly log: NodeLog
  condition: NodeCondition
  unsettled: boolean
  /** Its second disk is gone. */
  lacksDisk: boolean
  sinceMs: number
  /** When the newest fault began, and when what it did was over (infinite while it lasts). */
  faultFromMs: number
  faultUntilMs: number
}

export interface FaultClusterOptions {
  readonly cluster: TestCluster
  readonly cables: Cables | undefined
  /** What agrees on the members on each node's own host. */
  readonly daemons: Services | undefined
  /** What agrees on the members for all nodes; its majority is enough. */
  readonly servers: Services | undefined
  /** Nodes an object is spread over. */
  readonly width: number
  readonly say: (line: string) => void
  /** Something happened that must not happen. */
  readonly failure: (what: string) => void
}

export class FaultCluster {
  readonly #options: FaultClusterOptions
  readonly #nodes: Keeping[]
  readonly #servers: { isUp: boolean; sinceMs: number }[]
  /** Nodes there were at the format. */
  readonly #formatted: number
  /** Gathered over the whole run: kind of fault and how often. */
  readonly done = new Map<string, number>()
  /** Seconds from the moment everything was mended until all nodes were clean. */
  readonly cleanSeconds: number[] = []

  /** The first `running` nodes of the cluster have been started; the rest are spares. */
  constructor(options: FaultClusterOptions, running: number) {
    this.#options = options
    this.#formatted = running
    this.#servers = Array.from({ length: options.servers?.count ?? 0 }, () => {
      return { isUp: true, sinceMs: performance.now() }
    })
    this.#nodes = options.cluster.nodes.map((node, index) => ({
      node,
      log: new NodeLog(node.log),
      condition: index < running ? 'up' : 'spare',
      unsettled: false,
      lacksDisk: false,
      sinceMs: performance.now(),
      faultFromMs: Number.NEGATIVE_INFINITY,
      faultUntilMs: Number.NEGATIVE_INFINITY,
    }))
  }

  status(): NodeStatus[] {
    const nowMs = performance.now()
    return this.#nodes.map(({ condition, unsettled, lacksDisk, sinceMs }, index) => {
      return { index, condition, unsettled, lacksDisk, sinceSeconds: (nowMs - sinceMs) / 1000 }
    })
  }

  servers(): ServerStatus[] {
    const nowMs = performance.now()
    return this.#servers.map(({ isUp, sinceMs }, index) => {
      return { index, isUp, sinceSeconds: (nowMs - sinceMs) / 1000 }
    })
  }

  /** Gateways a client may try: a client knows the addresses of the cluster, not who is well. */
  gateways(): Gateway[] {
    return this.#nodes.flatMap(({ node, condition }, index) =>
      condition === 'spare' || condition === 'dead' || condition === 'left'
        ? []
        : [{ index, place: { host: node.host, port: node.place.nbdPort } }],
    )
  }

  /** True when the gateway was in trouble at any time from `sinceMs` on. */
  excuses(gateway: number, sinceMs: number): boolean {
    const { faultUntilMs } = this.#keeping(gateway)
    return faultUntilMs + AFTERMATH_MS >= sinceMs
  }

  get living(): TestNode[] {
    return this.#nodes.filter(({ condition }) => condition === 'up').map(({ node }) => node)
  }

  async perform(action: Action): Promise<void> {
    this.done.set(action.kind, (this.done.get(action.kind) ?? 0) + 1)
    const isServer = action.kind === 'strike' || action.kind === 'repair'
    const what = isServer ? 'server' : 'node'
    this.#options.say(`${action.kind} ${what} ${action.node} (${this.#epochs()})`)
    if (isServer) return this.#serve(action.node, action.kind === 'repair')
    const keeping = this.#keeping(action.node)
    const { node } = keeping
    switch (action.kind) {
      case 'kill':
        this.#falls(keeping, 'dead')
        await node.kill()
        return
      case 'pause':
        this.#falls(keeping, 'paused')
        node.signal('SIGSTOP')
        return
      case 'leave':
        await this.#leave(keeping)
        return
      case 'cut':
        this.#falls(keeping, 'cut')
        await this.#options.cables?.cut(action.node)
        if (this.#options.cables?.clientsStay === false && (await answers(node.host, node.port))) {
          this.#options.failure(`node ${action.node} can still be reached after its cut`)
        }
        return
      case 'orphan':
        this.#falls(keeping, 'orphan')
        await this.#options.daemons?.kill(action.node)
        return
      case 'retire':
        this.#falls(keeping, 'spare')
        await node.kill()
        for (const path of [node.place.directory, ...(node.place.disks ?? [])]) {
          await rm(path, { recursive: true, force: true })
        }
        keeping.lacksDisk = false
        return
      case 'disk':
        keeping.lacksDisk = true
        keeping.unsettled = true
        // At once, as a cable is pulled: the node may be making files in it.
        await rename(secondDisk(node), `${secondDisk(node)}.lost`)
        await rm(`${secondDisk(node)}.lost`, { recursive: true, force: true })
        return
      case 'add':
        await makeDisks(node)
        await this.#start(keeping)
        return
      case 'restart':
        await this.#start(keeping)
        return
      case 'resume':
        node.signal('SIGCONT')
        this.#rises(keeping)
        return
      case 'heal':
        await this.#options.cables?.heal(action.node)
        this.#rises(keeping)
        return
      case 'adopt':
        await this.#options.daemons?.start(action.node)
        this.#rises(keeping)
        return
      case 'rest':
        return
    }
  }

  /**
   * Daemons that ended by themselves. One that was paused or cut longer than its session had to; it is
   * started again, as its supervisor would. Any other end is a failure.
   */
  async lookAfter(): Promise<void> {
    for (const keeping of this.#nodes) {
      const { node, condition } = keeping
      const isAlone = condition === 'cut' || condition === 'orphan'
      if ((condition !== 'up' && !isAlone) || !node.ended()) continue
      const excused = isAlone || this.#hadFaultSince(keeping, FAULT_MEMORY_MS)
      const what = `node ${node.place.index} ended by itself`
      this.#options.say(`${what}${excused ? ' after its fault' : ''}`)
      if (!excused) this.#options.failure(`${what}:\n${await node.logTail()}`)
      this.#falls(keeping, 'dead')
      if (condition === 'cut') await this.#options.cables?.heal(node.place.index)
      if (condition === 'orphan') await this.#options.daemons?.start(node.place.index)
      await node.kill()
    }
  }

  /** Mends everything and waits until the cluster is clean. Throws when that takes too long. */
  async rest(limitMs: number): Promise<number> {
    for (const status of this.status()) {
      if (status.condition === 'up' || status.condition === 'spare') continue
      await this.perform(mending(status))
    }
    for (const { index, isUp } of this.servers()) {
      if (!isUp) await this.perform({ kind: 'repair', node: index })
    }
    for (const keeping of this.#nodes) if (keeping.lacksDisk) await this.#newDisk(keeping)
    const began = performance.now()
    try {
      await until('the cluster being clean', limitMs, async () => {
        await this.#reviveDead()
        return this.settle()
      })
    } catch (error) {
      throw new Error(`${String(error)} ${this.#epochs()}`)
    }
    const seconds = (performance.now() - began) / 1000
    this.cleanSeconds.push(seconds)
    return seconds
  }

  /** Starts whoever has ended by itself meanwhile. */
  async #reviveDead(): Promise<void> {
    await this.lookAfter()
    for (const status of this.status()) {
      if (status.condition === 'dead') await this.perform(mending(status))
    }
  }

  /** Notes whether the cluster is clean now; then nobody is a danger any more. */
  settle(): boolean {
    const away = this.#nodes.some(({ condition }) => isAway(condition))
    const up = this.#nodes.filter(({ condition }) => condition === 'up')
    const views = up.map(({ log }) => ({ ...log.look() }))
    const epoch = views[0]?.epoch
    const clean =
      !away &&
      epoch !== undefined &&
      epoch > 0 &&
      views.every((view) => view.epoch === epoch && view.gathered === epoch) &&
      views.every(({ nodes }) => (nodes ?? this.#formatted) === up.length)
    // With fewer nodes than an object has parts, parts are missing however clean the rest is.
    const isWhole = clean && up.length >= this.#options.width
    if (isWhole) for (const keeping of this.#nodes) keeping.unsettled = keeping.lacksDisk
    return clean
  }

  async waitClean(limitMs: number): Promise<void> {
    await until('the cluster being clean', limitMs, async () => {
      await new Promise((resolve) => setTimeout(resolve, CLEAN_POLL_MS))
      return this.settle()
    })
  }

  /** Everything dies at once. */
  async killAll(): Promise<void> {
    for (const keeping of this.#nodes) {
      if (keeping.condition === 'up') this.#falls(keeping, 'dead')
    }
    await this.#options.cluster.killAll()
  }

  /** Every node that is dead comes back, all at about the same time. */
  async startAll(): Promise<void> {
    const dead = this.#nodes.filter(({ condition }) => condition === 'dead')
    await Promise.all(dead.map((keeping) => this.#start(keeping)))
  }

  async #serve(index: number, isUp: boolean): Promise<void> {
    const { servers } = this.#options
    await (isUp ? servers?.start(index) : servers?.kill(index))
    this.#servers[index] = { isUp, sinceMs: performance.now() }
  }

  async #start(keeping: Keeping): Promise<void> {
    keeping.log.restarted()
    await keeping.node.start()
    this.#rises(keeping)
  }

  /** Puts a new disk in where the lost one was, once the node has noticed that it is gone. */
  async #newDisk(keeping: Keeping): Promise<void> {
    const { node } = keeping
    const path = secondDisk(node)
    const { index } = node.place
    const { cluster, say } = this.#options
    await until(`node ${index} noticing that a disk is gone`, DISK_NOTICED_MS, async () => {
      // A daemon that ended after its fault notices nothing.
      await this.#reviveDead()
      const { stdout } = await cluster.dogAt(index, 'node md info', ['-r'])
      return !stdout.includes(path)
    })
    await mkdir(path, { recursive: true })
    await cluster.dogAt(index, 'node md plug', ['-f', path])
    keeping.lacksDisk = false
    say(`node ${index} has a new disk`)
  }

  async #leave(keeping: Keeping): Promise<void> {
    const { node } = keeping
    // A node that was cut or paused just now may be ending itself already.
    const excused = this.#hadFaultSince(keeping, FAULT_MEMORY_MS)
    this.#falls(keeping, 'left')
    const result = await node.stop()
    if (result === undefined || result.code === 0 || excused) return
    const tail = await node.logTail()
    this.#options.failure(`node ${node.place.index} stopped with code ${result.code}:\n${tail}`)
  }

  #falls(keeping: Keeping, condition: NodeCondition): void {
    this.#becomes(keeping, condition)
    keeping.unsettled = true
    keeping.faultFromMs = performance.now()
    keeping.faultUntilMs = Number.POSITIVE_INFINITY
  }

  #rises(keeping: Keeping): void {
    this.#becomes(keeping, 'up')
    keeping.faultUntilMs = performance.now()
  }

  #becomes(keeping: Keeping, condition: NodeCondition): void {
    keeping.condition = condition
    keeping.sinceMs = performance.now()
  }

  #hadFaultSince({ faultUntilMs }: Keeping, withinMs: number): boolean {
    return performance.now() - faultUntilMs < withinMs
  }

  #epochs(): string {
    const words = this.#nodes.map(({ log, condition }) => {
      const { epoch, gathered } = log.look()
      return condition === 'up' ? `${epoch}${gathered === epoch ? '' : '*'}` : condition
    })
    return `epochs ${words.join(' ')}`
  }

  #keeping(index: number): Keeping {
    const keeping = this.#nodes[index]
    if (keeping === undefined) throw new RangeError(`no node ${index}`)
    return keeping
  }
}

/** A node's disks are there before it starts. */
export async function makeDisks(node: TestNode): Promise<void> {
  for (const path of node.place.disks ?? []) await mkdir(path, { recursive: true })
}

/** The one that gets lost. */
function secondDisk(node: TestNode): string {
  const path = node.place.disks?.[1]
  if (path === undefined) throw new RangeError(`node ${node.place.index} has no second disk`)
  return path
}

function answers(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host, port, timeout: CONNECT_MS })
    const over = (answer: boolean): void => {
      socket.destroy()
      resolve(answer)
    }
    socket.once('connect', () => over(true))
    socket.once('timeout', () => over(false))
    socket.once('error', () => over(false))
  })
}
