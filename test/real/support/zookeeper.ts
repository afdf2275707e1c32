/**
 * Real ZooKeeper servers on loopback, one or an ensemble of three: killed, stopped, restarted on their data.
 * Their ticks are short, so that sessions may be.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { type Owner, scratch } from './owner.js'
import { freePorts } from './ports.js'
import { type Running, start, until } from './run.js'

const READY_MS = 120_000
const TICK_MS = 500
const JARS = '/usr/share/java/zookeeper.jar'

export class ZookeeperServer {
  readonly host: string
  readonly port: number
  readonly #directory: string
  #process: Running | undefined

  constructor(host: string, port: number, directory: string) {
    this.host = host
    this.port = port
    this.#directory = directory
  }

  begin(): void {
    const quiet = '-Dorg.slf4j.simpleLogger.defaultLogLevel=error'
    const main = 'org.apache.zookeeper.server.quorum.QuorumPeerMain'
    const memory = ['-Xmx192m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1']
    const words = ['java', ...memory, quiet, '-cp', JARS, main, `${this.#directory}/zoo.cfg`]
    this.#process = start(words)
  }

  /** Until it is part of an ensemble that works. */
  async serves(): Promise<void> {
    await until(`ZooKeeper on port ${this.port}`, READY_MS, async () => {
      if (this.#process?.ended() === true) {
        const { stdout, stderr } = await this.#process.done
        throw new Error(`ZooKeeper on port ${this.port} ended: ${stdout}${stderr}`)
      }
      return /^Mode: /m.test(await this.#ask('srvr'))
    })
  }

  async kill(): Promise<void> {
    this.#process?.kill('SIGKILL')
    await this.#process?.done
    this.#process = undefined
  }

  signal(signal: NodeJS.Signals): void {
    this.#process?.kill(signal)
  }

  /** Clients connected to it. */
  async clients(): Promise<number> {
    const [, count = '0'] = /^Connections: (\d+)/m.exec(await this.#ask('srvr')) ?? []
    // Whoever asks is one.
    return Number(count) - 1
  }

  #ask(word: string): Promise<string> {
    return new Promise((resolve) => {
      const socket = createConnection({ port: this.port, host: this.host })
      let said = ''
      socket.setTimeout(5000, () => socket.destroy())
      socket.on('connect', () => socket.write(word))
      socket.on('data', (chunk) => {
        said += chunk.toString()
      })
      socket.on('error', () => undefined)
      socket.on('close', () => resolve(said))
    })
  }
}

export class Ensemble {
  readonly servers: readonly ZookeeperServer[]

  constructor(servers: readonly ZookeeperServer[]) {
    this.servers = servers
  }

  server(index: number): ZookeeperServer {
    const server = this.servers[index]
    if (server === undefined) throw new RangeError(`no server ${index}`)
    return server
  }

  get hosts(): string {
    return this.servers.map(({ host, port }) => `${host}:${port}`).join(',')
  }

  /** What `-c` gets. */
  choice(root: string, timeout: string): string {
    return `zookeeper:${this.hosts}${root},timeout=${timeout}`
  }

  async start(): Promise<void> {
    for (const server of this.servers) server.begin()
    for (const server of this.servers) await server.serves()
  }

  async kill(): Promise<void> {
    await Promise.all(this.servers.map((server) => server.kill()))
  }
}

/** Starts `count` servers (1 or 3) that end with the test; clients find them at `host`. */
export async function startEnsemble(t: Owner, count: 1 | 3, host = '127.0.0.1'): Promise<Ensemble> {
  const directory = await scratch(t)
  const ports = await freePorts(3 * count)
  const servers: ZookeeperServer[] = []
  for (let index = 0; index < count; index++) {
    const home = `${directory}/zk${index}`
    await mkdir(`${home}/data`, { recursive: true })
    await writeFile(`${home}/data/myid`, `${index + 1}\n`)
    await writeFile(`${home}/zoo.cfg`, configuration({ home, host, ports, index, count }))
    servers.push(new ZookeeperServer(host, ports[index]!, home))
  }
  const ensemble = new Ensemble(servers)
  t.teardown(() => ensemble.kill())
  await ensemble.start()
  return ensemble
}

interface Place {
  readonly home: string
  readonly host: string
  readonly ports: readonly number[]
  readonly index: number
  readonly count: number
}

function configuration({ home, host, ports, index, count }: Place): string {
  const lines = [
    `tickTime=${TICK_MS}`,
    'initLimit=40',
    'syncLimit=10',
    `dataDir=${home}/data`,
    `clientPort=${ports[index]}`,
    `clientPortAddress=${host}`,
    'admin.enableServer=false',
    '4lw.commands.whitelist=srvr,ruok',
    'maxClientCnxns=0',
    // A test's disk may be slow, and its machine does not lose power.
    'forceSync=no',
    'maxSessionTimeout=60000',
  ]
  for (let i = 0; count > 1 && i < count; i++) {
    const [peer, vote] = [ports[count + 2 * i], ports[count + 2 * i + 1]]
    lines.push(`server.${i + 1}=127.0.0.1:${peer}:${vote}`)
  }
  return `${lines.join('\n')}\n`
}
