/**
 * Real corosync daemons: hosts are network namespaces with an address on a bridge, each with its own corosync.
 * Sheep run inside (`place`), the test talks to them from outside. Needs root.
 *
 * Hosts are cut from each other by permanent neighbour entries with an address nobody has: packets are really
 * lost, in silence, in the direction and between the hosts the test says, on any kernel.
 */
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { type Owner, scratch } from './owner.js'
import { type Running, run, start, tryRun, until } from './run.js'

const READY_MS = 60_000
const SHARED = '/dev/shm'
const NOBODY = '02:00:00:00:00:99'
/** Milliseconds of corosync's token: short, so that tests are, but not shorter than a loaded machine stands. */
const TOKEN_MS = 1500

export interface CorosyncPlan {
  readonly hosts?: number
  /** votequorum, with this many expected votes. */
  readonly expectedVotes?: number
}

export class CorosyncHost {
  readonly index: number
  readonly address: string
  /** Words before a command that is to run on this host. */
  readonly inside: readonly string[]
  readonly #directory: string
  readonly #count: number
  #daemon: Running | undefined

  constructor(index: number, address: string, holder: number, directory: string, count: number) {
    this.index = index
    this.address = address
    this.inside = ['nsenter', '-t', `${holder}`, '-n', '-m']
    this.#directory = directory
    this.#count = count
  }

  async start(): Promise<void> {
    const words = ['corosync', '-f', '-c', `${this.#directory}/corosync.conf`]
    this.#daemon = start([...this.inside, ...words])
    await this.sees(1)
  }

  /** Until this corosync is in a ring of at least so many hosts. */
  async sees(hosts = this.#count): Promise<void> {
    await until(`corosync of host ${this.index} seeing ${hosts} hosts`, READY_MS, async () => {
      const { code, stdout } = await tryRun([...this.inside, 'corosync-cmapctl', 'runtime.members'])
      return code === 0 && stdout.split('= joined').length > hosts
    })
  }

  async kill(): Promise<void> {
    const daemon = this.#daemon
    if (daemon === undefined) return
    daemon.kill('SIGKILL')
    await daemon.done
    this.#daemon = undefined
    // What it shared with its clients would stay in memory.
    for (const name of await readdir(SHARED)) {
      if (!name.startsWith(`qb-${daemon.pid}-`)) continue
      await rm(`${SHARED}/${name}`, { recursive: true, force: true })
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#daemon?.kill(signal)
  }

  run(...words: readonly string[]): Promise<unknown> {
    return run([...this.inside, ...words])
  }
}

export class CorosyncRing {
  readonly hosts: readonly CorosyncHost[]

  constructor(hosts: readonly CorosyncHost[]) {
    this.hosts = hosts
  }

  host(index: number): CorosyncHost {
    const host = this.hosts[index]
    if (host === undefined) throw new RangeError(`no host ${index}`)
    return host
  }

  /** No packet passes between the two groups any more. */
  async cut(some: readonly number[], others: readonly number[]): Promise<void> {
    await this.#eachPair(some, others, 'replace')
  }

  async heal(some: readonly number[], others: readonly number[]): Promise<void> {
    await this.#eachPair(some, others, 'del')
  }

  async #eachPair(some: readonly number[], others: readonly number[], verb: string): Promise<void> {
    const what = verb === 'del' ? [] : ['lladdr', NOBODY, 'nud', 'permanent']
    const pairs = some.flatMap((a) => others.map((b) => [this.host(a), this.host(b)] as const))
    for (const [a, b] of [...pairs, ...pairs.map(([a, b]) => [b, a] as const)]) {
      await a.run('ip', 'neigh', verb, b.address, ...what, 'dev', 'eth0')
    }
  }
}

/** Starts the daemons and waits until all have found each other. They end with the test. */
export async function startCorosync(t: Owner, plan: CorosyncPlan = {}): Promise<CorosyncRing> {
  const count = plan.hosts ?? 1
  const directory = await scratch(t)
  const tag = `${process.pid % 100000}`
  const net = `10.${100 + (process.pid % 100)}.${Math.floor(process.pid / 100) % 250}`
  const bridge = `sd${tag}`
  await run(['ip', 'link', 'add', bridge, 'type', 'bridge'])
  t.teardown(async () => void (await tryRun(['ip', 'link', 'del', bridge])))
  await run(['ip', 'addr', 'add', `${net}.254/24`, 'dev', bridge])
  await run(['ip', 'link', 'set', bridge, 'up'])
  const hosts: CorosyncHost[] = []
  for (let index = 0; index < count; index++) {
    const address = `${net}.${index + 1}`
    const home = `${directory}/host${index}`
    await mkdir(`${home}/state`, { recursive: true })
    await writeFile(`${home}/corosync.conf`, configuration(plan, net, home))
    const holder = await openHost(t, { bridge, cable: `sd${tag}v${index}`, address })
    const host = new CorosyncHost(index, address, holder, home, count)
    t.teardown(() => host.kill())
    hosts.push(host)
  }
  for (const host of hosts) await host.start()
  for (const host of hosts) await host.sees()
  return new CorosyncRing(hosts)
}

interface Cable {
  readonly bridge: string
  readonly cable: string
  readonly address: string
}

/** A namespace with a leg on the bridge, kept by a process that does nothing; its pid. */
async function openHost(t: Owner, { bridge, cable, address }: Cable): Promise<number> {
  const script =
    'mount -t tmpfs tmpfs /run && ip link set lo up && echo ready && exec sleep 1000000'
  const holder = start(['unshare', '-n', '-m', 'sh', '-c', script])
  t.teardown(async () => {
    holder.kill('SIGKILL')
    await holder.done
  })
  let said = ''
  holder.child.stdout?.on('data', (chunk: Buffer) => {
    said += chunk.toString()
  })
  await until('a network namespace', READY_MS, () => said.includes('ready'))
  const inside = ['nsenter', '-t', `${holder.pid}`, '-n']
  const peer = ['peer', 'name', 'eth0', 'netns', `${holder.pid}`]
  await run(['ip', 'link', 'add', cable, 'type', 'veth', ...peer])
  // The kernel takes its time with the links of a namespace that is gone.
  t.teardown(async () => void (await tryRun(['ip', 'link', 'del', cable])))
  await run(['ip', 'link', 'set', cable, 'master', bridge, 'up'])
  await run([...inside, 'ip', 'addr', 'add', `${address}/24`, 'dev', 'eth0'])
  await run([...inside, 'ip', 'link', 'set', 'eth0', 'up'])
  return holder.pid
}

function configuration({ hosts = 1, expectedVotes }: CorosyncPlan, net: string, home: string) {
  const nodes = Array.from({ length: hosts }, (_, i) =>
    block('node', [`ring0_addr: ${net}.${i + 1}`, `nodeid: ${i + 1}`, `name: host${i}`]),
  )
  const quorum =
    expectedVotes === undefined
      ? []
      : ['provider: corosync_votequorum', `expected_votes: ${expectedVotes}`]
  return [
    block('totem', [
      'version: 2',
      'cluster_name: sheepdog-test',
      'transport: udpu',
      `token: ${TOKEN_MS}`,
    ]),
    block('nodelist', nodes),
    block('quorum', quorum),
    block('logging', [
      'to_stderr: no',
      'to_syslog: no',
      'to_logfile: yes',
      `logfile: ${home}/corosync.log`,
    ]),
    // Real-time scheduling is for machines of one's own.
    block('system', ['sched_rr: no', 'move_to_root_cgroup: no', `state_dir: ${home}/state`]),
  ].join('\n')
}

function block(name: string, lines: readonly string[]): string {
  return `${name} {\n${lines.join('\n')}\n}`
}
