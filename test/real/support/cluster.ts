/**
 * Real daemons on loopback: started, killed, brought back and stopped by their own pid, with their stores
 * and logs in the test's directory. When a test fails, the tails of the daemons' logs go into its report.
 */
import { existsSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { type Owner, scratch } from './owner.js'
import { DOG, SHEEP } from './paths.js'
import { freePorts } from './ports.js'
import { type Running, type RunOptions, type RunResult, run, start, until } from './run.js'

/** Five start at once in some tests, on machines that have more to do. */
const START_MS = 60_000
const RECOVERY_MS = 90_000
const STOP_MS = 15_000
const LOG_TAIL_BYTES = 6000

export interface NodePlace {
  readonly index: number
  readonly port: number
  readonly nbdPort: number
  readonly directory: string
  /** What `-c` gets: the membership driver and where its members meet. */
  readonly driver: string
  /** Its address; loopback by default. */
  readonly host?: string
  /** Options of its own, such as those that make it a gateway. */
  readonly options?: readonly string[]
  /** Directories its objects live in, when not in the store's own; they must exist. */
  readonly disks?: readonly string[]
  /** Words before the daemon's command line, such as those that enter a network namespace. */
  readonly inside?: readonly string[]
}

/** One sheep. Its ports and directory stay its own over kills and restarts. */
export class TestNode {
  readonly place: NodePlace
  private running: Running | undefined

  constructor(place: NodePlace) {
    this.place = place
  }

  get port(): number {
    return this.place.port
  }

  get host(): string {
    return this.place.host ?? '127.0.0.1'
  }

  get objects(): string {
    return `${this.place.directory}/obj`
  }

  get pid(): number {
    return this.running?.pid ?? -1
  }

  /** `more`: options of the daemon beside those every test needs. */
  command(more: readonly string[] = []): string[] {
    const { index, port, nbdPort, directory, driver, options = [], disks = [] } = this.place
    const where = ['-b', this.host, '-y', this.host, '-p', `${port}`, '-z', `${index + 1}`]
    const nbd = ['--nbd', `${this.host}:${nbdPort}`]
    const daemon = [
      process.execPath,
      SHEEP,
      '-f',
      '-c',
      driver,
      ...where,
      ...nbd,
      ...options,
      ...more,
      [directory, ...disks].join(','),
    ]
    return [...(this.place.inside ?? []), ...daemon]
  }

  /** Starts and waits until both doors accept connections. Throws with the daemon's words if it ends. */
  async start(more: readonly string[] = []): Promise<void> {
    await mkdir(this.place.directory, { recursive: true })
    const running = start(this.command(more))
    this.running = running
    await until(`sheep on port ${this.port} accepting connections`, START_MS, async () => {
      if (running.ended()) return 'ended' as const
      const doors = [this.port, this.place.nbdPort]
      const open = await Promise.all(doors.map((port) => accepts(this.host, port)))
      return open.every(Boolean)
    })
    if (running.ended()) {
      const { code, signal, stdout, stderr } = await running.done
      const words = `${stdout}${stderr}${await this.logTail()}`
      throw new Error(`sheep on port ${this.port} ended at once (${signal || code}):\n${words}`)
    }
  }

  /** SIGKILL, and waits until the process is gone. */
  async kill(): Promise<void> {
    this.running?.kill('SIGKILL')
    await this.running?.done
    this.running = undefined
  }

  /** SIGSTOP and SIGCONT, say. */
  signal(signal: NodeJS.Signals): void {
    this.running?.kill(signal)
  }

  /** It was started and has ended by itself. */
  ended(): boolean {
    return this.running?.ended() === true
  }

  /** SIGTERM, the orderly stop. Throws when it takes longer than it may. */
  async stop(): Promise<RunResult | undefined> {
    const running = this.running
    if (running === undefined) return undefined
    running.kill('SIGTERM')
    const late = pause(STOP_MS, undefined, { ref: false })
    const result = await Promise.race([running.done, late])
    if (result === undefined) {
      await this.kill()
      throw new Error(`sheep on port ${this.port} did not stop within ${STOP_MS} ms of SIGTERM`)
    }
    this.running = undefined
    return result
  }

  /** The epoch whose recovery this node began last, when it is over everywhere; 0 when it never began any. */
  async recoveredEpoch(): Promise<number | undefined> {
    const log = (await readFile(this.log)).toString()
    const begun = [...log.matchAll(/recovery\.start epoch=(\d+)/g)].at(-1)
    if (begun === undefined) return 0
    const over = log.indexOf(`recovery.gathered epoch=${begun[1]}`, begun.index)
    return over < 0 ? undefined : Number(begun[1])
  }

  get log(): string {
    return `${this.place.directory}/sheep.log`
  }

  async logTail(): Promise<string> {
    if (!existsSync(this.log)) return ''
    return (await readFile(this.log)).subarray(-LOG_TAIL_BYTES).toString()
  }
}

export interface ClusterPlan {
  readonly nodes?: number
  /** Replicas, or `4:2`. */
  readonly copies?: number | string
  /** What `-c` gets after `local:`; a directory of the test by default. */
  readonly meeting?: string
  /** What is different about a node's place: another driver, an address and a host of its own. */
  readonly place?: (index: number) => Partial<NodePlace>
  /** Where the temporary directory is made; the system's place by default. */
  readonly top?: string
}

export class TestCluster {
  readonly directory: string
  readonly nodes: readonly TestNode[]
  /** All were started before: what there is has been formatted. */
  #hasRun = false

  constructor(directory: string, nodes: readonly TestNode[]) {
    this.directory = directory
    this.nodes = nodes
  }

  node(index: number): TestNode {
    const node = this.nodes[index]
    if (node === undefined) throw new RangeError(`no node ${index}`)
    return node
  }

  /** Runs `dog`, its first two words in one string: `dog('vdi create', 'Alice', '1G')`. */
  dog(verb: string, ...rest: readonly string[]): Promise<RunResult> {
    return this.dogAt(0, verb, rest)
  }

  dogAt(
    index: number,
    verb: string,
    rest: readonly string[] = [],
    options: RunOptions = {},
  ): Promise<RunResult> {
    const at = ['-a', this.node(index).host, '-p', `${this.node(index).port}`]
    return run([process.execPath, DOG, ...verb.split(' '), ...at, ...rest], options)
  }

  uri(name: string, index = 0): string {
    return `${this.server(index)}/${encodeURIComponent(name)}`
  }

  /** The NBD door itself, without an export's name. */
  server(index = 0): string {
    return `nbd://${this.node(index).host}:${this.node(index).place.nbdPort}`
  }

  /** The first one founds the cluster, the others come at once. */
  async startAll(): Promise<void> {
    const [first, ...others] = this.nodes
    await first?.start()
    await Promise.all(others.map((node) => node.start()))
    await this.members(this.nodes.length)
    if (this.#hasRun) await this.#nobodyWaits()
    this.#hasRun = true
  }

  /** Who knows all members may still be about to begin their epoch, and refuses clients until then. */
  async #nobodyWaits(): Promise<void> {
    await until('a cluster that no node waits for', START_MS, async () => {
      const said = await Promise.all(
        this.nodes.map((_, index) => this.dogAt(index, 'cluster info')),
      )
      return said.every(({ stdout }) => !stdout.includes('for other nodes'))
    })
  }

  /** Every daemon at once, as a power cut of the whole rack would. */
  async killAll(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.kill()))
  }

  async stopAll(): Promise<void> {
    for (const node of this.nodes) await node.stop()
  }

  async members(count: number, index = 0): Promise<void> {
    await until(`${count} members`, START_MS, async () => {
      const { stdout } = await this.dogAt(index, 'node list', ['-r'])
      return stdout.trim().split('\n').filter(Boolean).length === count
    })
  }

  /**
   * Waits until all nodes are members and each one's log says that the recovery it began last is over in
   * the whole cluster, and that they speak of the same epoch. Seen twice in a row: a recovery may be about to begin.
   */
  async recovered(): Promise<void> {
    await this.members(this.nodes.length)
    let quiet = 0
    await until('the end of recovery', RECOVERY_MS, async () => {
      const epochs = await Promise.all(this.nodes.map((node) => node.recoveredEpoch()))
      quiet = epochs[0] !== undefined && new Set(epochs).size === 1 ? quiet + 1 : 0
      return quiet >= 2
    })
  }
}

/** Starts and formats a cluster that ends with the test. Three nodes and three copies by default. */
export async function startCluster(t: Owner, plan: ClusterPlan = {}): Promise<TestCluster> {
  const cluster = await planCluster(t, plan)
  await cluster.startAll()
  await cluster.dog('cluster format', '-c', `${plan.copies ?? 3}`)
  return cluster
}

/** The same, not started. */
export async function planCluster(t: Owner, plan: ClusterPlan = {}): Promise<TestCluster> {
  const directory = await scratch(t, plan.top)
  const count = plan.nodes ?? 3
  const ports = await freePorts(2 * count)
  const driver = `local:${plan.meeting ?? `${directory}/meeting`}`
  const nodes = Array.from({ length: count }, (_, index) => {
    const [port, nbdPort] = [ports[2 * index]!, ports[2 * index + 1]!]
    const place = { index, port, nbdPort, directory: `${directory}/n${index}`, driver }
    return new TestNode({ ...place, ...plan.place?.(index) })
  })
  const cluster = new TestCluster(directory, nodes)
  t.teardown(() => finish(t, cluster))
  return cluster
}

async function finish(t: Owner, cluster: TestCluster): Promise<void> {
  if (!t.passed) {
    for (const node of cluster.nodes) {
      const log = await node.logTail()
      if (log !== '') t.log(`--- log of the sheep on port ${node.port}\n${log}`)
    }
  }
  await cluster.killAll()
}

function accepts(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ port, host })
    const answer = (yes: boolean) => {
      socket.destroy()
      resolve(yes)
    }
    socket.once('connect', () => answer(true))
    socket.once('error', () => answer(false))
  })
}
