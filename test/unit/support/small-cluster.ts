/**
 * A few whole sheep in one process: real nodes, stores and doors over file systems, a network and a clock of
 * memory. Everything is decided by one seed. A machine can be stopped in order, killed (its page cache
 * survives) or cut off from power (it loses what was not synced), and started again on its disk.
 */
import { createHash } from 'node:crypto'
import { type Log, type LogFields, silentLog } from '../../../src/base/log.js'
import { type MemoryCluster, memoryCluster } from '../../../src/cluster/memory.js'
import { NbdHall } from '../../../src/doors/nbd/hall.js'
import { type SheepdogServer, startSheepdogServer } from '../../../src/doors/sheepdog/server.js'
import { REFS_OFFSET } from '../../../src/model/inode.js'
import type { SdNode } from '../../../src/model/node.js'
import { type Oid, type OidKind, oidKind, oidName, oidVid } from '../../../src/model/oid.js'
import { ownersOf } from '../../../src/model/ring.js'
import { SheepClient } from '../../../src/peer/client.js'
import type { CacheOptions } from '../../../src/sheep/cache/object-cache.js'
import { learnFromDisk } from '../../../src/sheep/known-volumes.js'
import { SheepNode } from '../../../src/sheep/node.js'
import { PatientAccess } from '../../../src/sheep/patient-access.js'
import type { RecoveryPlan } from '../../../src/sheep/recovery/plan.js'
import { configFor, type Role, weightOf } from '../../../src/sheep/role.js'
import { vdiAccess } from '../../../src/sheep/vdi-access.js'
import { readConfig, writeConfig } from '../../../src/store/config.js'
import { openEpochLog } from '../../../src/store/epoch-log.js'
import { openInFlightLog } from '../../../src/store/in-flight-log.js'
import { lockStore } from '../../../src/store/lock.js'
import { openPlainStore } from '../../../src/store/plain-store.js'
import { volumeSource } from '../../../src/volume/source.js'
import type { VolumeSource } from '../../../src/volume/volume.js'
import { ClusterFlag, Op } from '../../../src/wire/sheepdog/opcodes.js'
import { clusterRequest } from '../../../src/wire/sheepdog/requests.js'
import type { Clock, Files, World } from '../../../src/world/world.js'
import { Dice } from './fake-cluster.js'
import { FakeFiles } from './fake-files.js'
import { type Card, MemoryNetwork } from './memory-network.js'
import { SimProcess } from './sim-process.js'
import { VirtualClock } from './virtual-clock.js'

const SPARSE_WINDOW_BYTES = 16 * 1024
/** Larger ones are compared where tests write: at both ends. */
const COMPARED_BYTES_MAX = 16 * 1024 * 1024
const META = '/sheep'
const PORT_FIRST = 7000
/** Ports of the second network. */
export const IO_PORT_FIRST = 17000
const DISK_BYTES = 8 * 1024 ** 3

export interface SmallClusterOptions {
  readonly nodes?: number
  readonly copies?: number
  /** Erasure coding by default, as a policy byte. */
  readonly policy?: number
  readonly seed?: number
  readonly blockSizeShift?: number
  readonly flags?: number
  /** False: started, joined, not formatted. */
  readonly format?: boolean
  /** Directories objects live in; the one in the meta directory when not given. */
  readonly disks?: readonly string[]
  /** Disk of each machine. */
  readonly totalBytes?: number
  /** What each machine's sheep is started as; they store objects by default. */
  readonly role?: (index: number) => Role
  /** A zone each by default. */
  readonly zone?: (index: number) => number
  /** How late a member sees the next event of the cluster. */
  readonly delayMs?: (member: SdNode) => number
  /** Every node has an address on a second network. */
  readonly io?: boolean
  /** A node whose process is stopped for this long is thrown out. */
  readonly leaseMs?: number
  /** Size of a machine's object cache; undefined: it has none. */
  readonly cacheBytes?: (index: number) => number | undefined
}

/** A process on a machine: what it holds is dead with it. */
interface Running {
  readonly node: SheepNode
  readonly server: SheepdogServer
  readonly card: Card
  readonly process: SimProcess
  readonly source: VolumeSource
  /** Why the node ended by itself; undefined while it runs. */
  over: { reason: string | undefined } | undefined
}

export class Machine {
  readonly self: SdNode
  readonly files: FakeFiles
  running: Running | undefined
  /** What its sheep is started as next. */
  role: Role = { kind: 'automatic' }
  /** While it is set, file operations complete before the call returns: nothing is left half-done. */
  atOnce = false
  /** How often it has been started after a power cut. */
  boots = 0
  /** The one that runs on it, or ran last. */
  process: SimProcess | undefined

  constructor(self: SdNode, clock: VirtualClock, dice: Dice, totalBytes: number) {
    this.self = self
    const later = (fn: () => void): void => {
      // What a dead process asked for still happens; nobody hears of it.
      const { process } = this
      const arrive = (): void => {
        if (process?.alive === true) process.run(fn)
        else fn()
      }
      if (this.atOnce) fn()
      else if (dice.chance(0.3)) clock.after(dice.below(3), arrive)
      else clock.soon(arrive)
    }
    this.files = new FakeFiles({ later, totalBytes })
  }

  /** What the process can see; nothing any more once it is dead. */
  world(network: Card, clock: Clock, dice: Dice, process: SimProcess): World {
    const guard = (fn: () => void) => (): void => process.run(fn)
    return {
      network,
      random: {
        below: (limit) => dice.below(limit),
        bytes: (length) => Buffer.from(Array.from({ length }, () => dice.below(256))),
      },
      clock: {
        now: () => clock.now(),
        monotonic: () => clock.monotonic(),
        after: (delayMs, fn) => clock.after(delayMs, guard(fn)),
        soon: (fn) => clock.soon(guard(fn)),
      },
      files: new Proxy<Files>(this.files, {
        get: (files, name) => {
          const member: unknown = Reflect.get(files, name)
          if (typeof member !== 'function') return member
          return (...args: unknown[]): unknown => {
            if (process.alive) return Reflect.apply(member, files, args)
            throw Object.assign(new Error(`EIO: ${String(name)} of a dead process`), {
              code: 'EIO',
            })
          }
        },
      }),
    }
  }
}

export class SmallCluster {
  readonly clock = new VirtualClock()
  readonly dice: Dice
  readonly machines: Machine[] = []
  /** Everything the nodes logged at warn or above, for failing tests. */
  readonly logged: string[] = []
  readonly #network: MemoryNetwork
  readonly #driver: MemoryCluster
  readonly #clients: SheepClient[] = []
  readonly #options: SmallClusterOptions

  private constructor(options: SmallClusterOptions) {
    this.#options = options
    this.dice = new Dice(options.seed ?? 1)
    this.#network = new MemoryNetwork(this.clock, this.dice)
    const { delayMs, leaseMs } = options
    this.#driver = memoryCluster({
      clock: this.clock,
      ...(delayMs && { delayMs }),
      ...(leaseMs && { leaseMs }),
    })
  }

  static async start(options: SmallClusterOptions = {}): Promise<SmallCluster> {
    const cluster = new SmallCluster(options)
    for (let i = 0; i < (options.nodes ?? 3); i++) cluster.addMachine()
    for (let i = 0; i < cluster.machines.length; i++) await cluster.boot(i)
    if (options.format !== false) await cluster.format()
    return cluster
  }

  /** One more machine, switched off. */
  addMachine(): number {
    const index = this.machines.length
    const self = {
      host: '127.0.0.1',
      port: PORT_FIRST + index,
      ...(this.#options.io === true && { io: { host: '127.0.0.2', port: IO_PORT_FIRST + index } }),
      vnodes: 128,
      zone: this.#options.zone?.(index) ?? index + 1,
      spaceBytes: DISK_BYTES,
    }
    const totalBytes = this.#options.totalBytes ?? DISK_BYTES
    const machine = new Machine(self, this.clock, this.dice, totalBytes)
    machine.role = this.#options.role?.(index) ?? machine.role
    this.machines.push(machine)
    return index
  }

  node(index: number): SheepNode {
    return this.#running(index).node
  }

  source(index: number): VolumeSource {
    return this.#running(index).source
  }

  card(index: number): Card {
    return this.#running(index).card
  }

  /** The cable of the machine's second network. */
  cutIo(index: number, isCut: boolean): void {
    this.#network.cut(IO_PORT_FIRST + index, isCut)
  }

  /** Indexes of the machines that run. */
  up(): number[] {
    return this.machines.flatMap(({ running }, index) => (running === undefined ? [] : [index]))
  }

  #running(index: number): Running {
    const running = this.machines[index]?.running
    if (running === undefined) throw new Error(`machine ${index} does not run`)
    return running
  }

  /** What a dead process goes on to do, and complains about, never happened. */
  #log(port: number, process: { readonly alive: boolean }): Log {
    const note =
      (level: string) =>
      (event: string, fields: LogFields = {}): void => {
        if (!process.alive) return
        const values = Object.entries(fields).map(([name, value]) => `${name}=${value}`)
        this.logged.push(`${this.clock.now()} ${port} ${level} ${event} ${values.join(' ')}`)
      }
    return { ...silentLog, warn: note('warn'), error: note('error'), info: note('info') }
  }

  /** Starts the machine's sheep on what is on its disk; resolves when it is a member. */
  async boot(index: number, recovery: RecoveryPlan = {}): Promise<void> {
    await (await this.launch(index, recovery)).joined
  }

  /** As `boot`, but gives its end to the caller: a cluster that waits for others lets nobody in. */
  async launch(
    index: number,
    recovery: RecoveryPlan = {},
  ): Promise<{ readonly joined: Promise<void> }> {
    const machine = this.machines[index]!
    const process = new SimProcess(this.clock)
    machine.process = process
    const log = this.#log(machine.self.port, process)
    const card = this.#network.card(process.run)
    const world = machine.world(card, this.clock, this.dice, process)
    lockStore(world.files, META)
    const known = readConfig(world.files, META)
    const store = await openPlainStore({
      ...world,
      log,
      metaDirectory: META,
      disks: this.#options.disks ?? [],
      durable: true,
    })
    const config = configFor(machine.role, known, DISK_BYTES)
    await writeConfig(world.files, META, config)
    if (known !== undefined) await store.syncAll()
    const self = { ...machine.self, ...weightOf(machine.role, config) }
    const node: SheepNode = new SheepNode({
      ...{ world, log, store, config, self, recovery, cache: this.#cache(index) },
      driver: this.#driver.driver(world.clock),
      metaDirectory: META,
      epochLog: await openEpochLog(world.files, META),
      inFlightLog: await openInFlightLog({
        ...{ files: world.files, log, metaDirectory: META },
        durable: true,
      }),
      over: (reason) => this.#ended(index, node, reason),
    })
    await learnFromDisk(node.state.vids, store, log)
    const server = await startSheepdogServer({
      ...{ world, log, scribble: true },
      addresses: [self, ...(self.io === undefined ? [] : [self.io])],
      context: {
        node,
        kill: () => void this.stop(index),
        logLevel: { get: () => 6, set: (level) => level >= 0 && level <= 7 },
        nbd: new NbdHall(world.clock),
      },
    })
    const source = volumeSource({
      ...{ objects: new PatientAccess(node), vdis: vdiAccess(node), clock: world.clock, log },
    })
    machine.running = { node, server, card, process, source, over: undefined }
    return { joined: node.join() }
  }

  #cache(index: number): CacheOptions | undefined {
    const sizeBytes = this.#options.cacheBytes?.(index)
    const boot = `boot ${this.machines[index]!.boots}`
    if (sizeBytes === undefined) return undefined
    // Every other one goes past the page cache.
    return { sizeBytes, directory: META, directio: index % 2 === 1, boot }
  }

  /** The node ended by itself; its process follows. */
  #ended(index: number, node: SheepNode, reason: string | undefined): void {
    const { running } = this.machines[index]!
    if (running?.node !== node) return
    running.over = { reason }
    this.clock.soon(() => void this.stop(index))
  }

  /** Reason a node gave up, of machines that still count as running. */
  failures(): string[] {
    return this.logged.filter((line) => line.includes(' error node.failed'))
  }

  async stop(index: number): Promise<void> {
    const machine = this.machines[index]!
    const { running } = machine
    if (running === undefined) return
    machine.running = undefined
    await running.node.stop()
    await running.server.close()
    this.#bury(machine, running)
  }

  /** The process dies, at once and wherever it is. `power`: the machine loses what was not synced. */
  kill(index: number, how: { readonly power?: boolean } = {}): void {
    const machine = this.machines[index]!
    const { running } = machine
    if (running === undefined) return
    machine.running = undefined
    if (how.power === true) {
      machine.boots++
      machine.files.crash()
    }
    this.#bury(machine, running)
    this.#driver.kill(machine.self)
  }

  /** All go down at once, and are started again; with `share` below 1 some had just written everything back. */
  async cutPower(share = 1): Promise<void> {
    for (const index of this.up()) this.kill(index, { power: this.dice.chance(share) })
    const starts = await Promise.all(this.machines.map((_, index) => this.launch(index)))
    await Promise.all(starts.map(({ joined }) => joined))
    await this.settle()
  }

  #bury(machine: Machine, { card, process }: Running): void {
    process.die()
    card.unplug()
    machine.atOnce = true
    void machine.files.syncAll('/')
    machine.atOnce = false
    machine.files.crash()
  }

  /** SIGSTOP: the process stands still, what happens meanwhile happens to it afterwards. */
  freeze(index: number): void {
    this.#running(index).process.stop()
  }

  /** SIGCONT. */
  thaw(index: number): void {
    this.#running(index).process.continue()
  }

  /** The network card of a machine that is no node. */
  outside(): Card {
    return this.#network.card()
  }

  async client(index: number): Promise<SheepClient> {
    const { host, port } = this.machines[index]!.self
    const world = { clock: this.clock, network: this.#network.card() }
    const client = await SheepClient.connect(world, { host, port })
    this.#clients.push(client)
    return client
  }

  async format(): Promise<void> {
    const client = await this.client(this.up()[0]!)
    const body = Buffer.from('plain\0')
    const isFixed = this.machines.some(({ role }) => role.kind === 'fixed')
    const strategy = isFixed ? 0 : ClusterFlag.AUTO_VNODES
    const head = clusterRequest({
      opcode: Op.MAKE_FS,
      flags: 1,
      dataLength: body.length,
      ctime: 0x1234n,
      copies: this.#options.copies ?? 2,
      policy: this.#options.policy ?? 0,
      clusterFlags: strategy | (this.#options.flags ?? 0),
      blockSizeShift: this.#options.blockSizeShift ?? 20,
    })
    const { result } = await client.call(head, body)
    if (result !== 0) throw new Error(`format: ${result}`)
    client.close()
    await this.settle()
  }

  /** Resolves when all nodes that run serve one epoch and have nothing left to do. */
  settle(limitMs = 120_000): Promise<void> {
    const isQuiet = (): boolean => {
      const nodes = this.up().map((index) => this.node(index))
      return nodes.every(
        (node) =>
          node.state.status === 'ok' &&
          node.state.epoch === nodes[0]!.state.epoch &&
          node.state.members.length === nodes.length &&
          !node.recovery.progress().inRecovery &&
          node.reclaim.backlog === 0,
      )
    }
    return this.clock.until('a quiet cluster', isQuiet, { quietMs: 2_000, limitMs })
  }

  /** Working objects of these kinds, over all nodes that run. */
  objects(...kinds: OidKind[]): Oid[] {
    const all = this.up().flatMap((index) => this.node(index).store.listWorking())
    return [...new Set(all)].filter((oid) => kinds.includes(oidKind(oid)))
  }

  /** Complaints about copies that are missing, misplaced or different. */
  async copyFaults(): Promise<string[]> {
    const faults: string[] = []
    for (const oid of this.objects('inode', 'data', 'ledger', 'vmstate')) {
      const { state } = this.node(this.up()[0]!)
      const owners = ownersOf(state.view.ring, oid, state.copiesOf(oidVid(oid)))
      const hashes = new Set<string>()
      for (const index of this.up()) {
        const { store, local } = this.node(index)
        const isOwner = owners.some(({ port }) => port === this.machines[index]!.self.port)
        if (store.has(oid) !== isOwner) {
          faults.push(`${oidName(oid)} is ${isOwner ? 'missing' : 'misplaced'} on ${index}`)
        } else if (isOwner) {
          hashes.add(await fingerprint(store, oid, local.bytesOf(oid)))
        }
      }
      if (hashes.size > 1) faults.push(`the copies of ${oidName(oid)} differ`)
    }
    return faults
  }

  /** Ends everything at once; nothing of it runs on. */
  close(): void {
    for (const client of this.#clients) client.close()
    for (const index of this.up()) this.kill(index)
  }
}

/** Of the whole object; of sparse ones the parts that small volumes use. */
async function fingerprint(store: SheepNode['store'], oid: Oid, bytes: number): Promise<string> {
  const kind = oidKind(oid)
  const isLarge = bytes > COMPARED_BYTES_MAX
  const isSparse = kind === 'inode' || kind === 'ledger' || isLarge
  const second = kind === 'inode' ? REFS_OFFSET : isLarge ? bytes - SPARSE_WINDOW_BYTES : 0
  const windows = isSparse ? [0, second] : [0]
  const hash = createHash('sha1')
  for (const offset of windows) {
    const into = Buffer.alloc(isSparse ? SPARSE_WINDOW_BYTES : bytes)
    const code = await new Promise((resolve) => store.read(oid, offset, into, resolve))
    hash.update(`${code}`).update(into)
  }
  return hash.digest('hex')
}
