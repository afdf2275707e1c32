/** What nodes are and become: gateways, nodes with vnodes of their own, clusters that wait and that are forced. */
import type { ExecutionContext } from 'ava'
import { planCluster, startCluster, type TestCluster, TestNode } from './support/cluster.js'
import { patternBytes } from './support/images.js'
import { freePort } from './support/ports.js'
import { type RunResult, tryRun, until } from './support/run.js'
import { needing } from './support/suite.js'

const MIB = 1024 * 1024
const WAIT_MS = 30_000
const realTest = needing()
const clientTest = needing('qemu-io')

const bytes = patternBytes(7, 9 * MIB)

async function fill(cluster: TestCluster, index = 0): Promise<void> {
  await cluster.dogAt(index, 'vdi create', ['Alice', '16M'])
  await cluster.dogAt(index, 'vdi write', ['Alice', '0'], { input: bytes })
}

async function holds(t: ExecutionContext, cluster: TestCluster, index: number): Promise<void> {
  const found = await cluster.dogAt(index, 'vdi read', ['Alice', '0', `${bytes.length}`])
  t.true(found.bytes.equals(bytes), `node ${index} reads something else`)
}

interface ClusterJson {
  readonly running: boolean
  readonly missing: readonly string[]
  readonly epochs: readonly { epoch: number; nodes: readonly { port: number; vnodes: number }[] }[]
}

async function info(cluster: TestCluster, index = 0): Promise<ClusterJson> {
  const { stdout } = await cluster.dogAt(index, 'cluster info', ['--json'])
  return JSON.parse(stdout) as ClusterJson
}

/** The refusal of a node that must not come in; it is started as its command line says. */
function tryStart(node: TestNode): Promise<RunResult> {
  return tryRun(node.command(), { timeoutMs: WAIT_MS })
}

clientTest(
  'a gateway serves disks by both doors, keeps nothing, and outlives the storage',
  async (t) => {
    const cluster = await planCluster(t, {
      nodes: 4,
      place: (index) => (index === 0 ? { options: ['-g'] } : {}),
    })
    await cluster.startAll()
    await cluster.dog('cluster format', '-c', '2')
    await fill(cluster)
    await holds(t, cluster, 2)
    const uri = cluster.uri('Alice')
    const io = (command: string) =>
      tryRun(['qemu-io', '-f', 'raw', '-c', command, uri], { timeoutMs: WAIT_MS })
    t.is((await io('write -P 0x5a 12M 64k')).code, 0)
    t.is((await io('read -P 0x5a 12M 64k')).code, 0)
    const { stdout } = await cluster.dog('node list', '-r')
    t.true(stdout.includes(`:${cluster.node(0).port} 0 1\n`), stdout)
    t.is(stdout.split('\n').filter((line) => / 128 \d$/.test(line)).length, 3)
    const rows = (await cluster.dog('node info', '-r')).stdout.trim().split('\n')
    t.is(rows.length, 4)
    for (const index of [1, 2, 3]) await cluster.node(index).stop()
    await cluster.members(1)
    const halted = await io('read 12M 64k')
    t.not(halted.code, 0)
    t.regex(halted.stderr, /halted/)
    for (const index of [3, 2, 1]) await cluster.node(index).start()
    await cluster.members(4)
    t.is((await io('read -P 0x5a 12M 64k')).code, 0)
    await holds(t, cluster, 0)
  },
)

realTest('fixed vnodes: kept over restarts, checked at the start, changed by dog', async (t) => {
  const numbers = ['40', '100', '200']
  const cluster = await planCluster(t, { place: (index) => ({ options: ['-V', numbers[index]!] }) })
  await cluster.startAll()
  await t.throwsAsync(cluster.dog('cluster format', '-c', '2'), { message: /option of '-V'/ })
  await cluster.dog('cluster format', '-c', '2', '-V')
  await fill(cluster)
  const vnodes = async (): Promise<(number | undefined)[]> => {
    const { nodes } = (await info(cluster, 1)).epochs[0]!
    return cluster.nodes.map(({ port }) => nodes.find((node) => node.port === port)?.vnodes)
  }
  t.deepEqual(await vnodes(), [40, 100, 200])
  await cluster.dogAt(2, 'node vnodes', ['set', '60'])
  await until('the new number', WAIT_MS, async () => (await vnodes())[2] === 60)
  await cluster.recovered()
  await holds(t, cluster, 0)
  await cluster.node(2).stop()
  const refused = await tryStart(cluster.node(2))
  t.is(refused.code, 1)
  t.regex(refused.stderr, /60 vnodes, -V says 200.*dog node vnodes set/)
  const automatic = new TestNode({ ...cluster.node(2).place, options: [] })
  t.regex((await tryStart(automatic)).stderr, /start it with -V NUMBER/)
})

realTest('a joiner with the wrong strategy or of another cluster costs no epoch', async (t) => {
  const cluster = await startCluster(t, { copies: 2 })
  const other = await startCluster(t, { nodes: 1, copies: 1 })
  const { driver } = cluster.node(0).place
  const place = async (name: string) => ({
    ...{ index: 7, driver, port: await freePort(), nbdPort: await freePort() },
    directory: `${cluster.directory}/${name}`,
  })
  const fixed = await tryStart(new TestNode({ ...(await place('n7')), options: ['-V', '64'] }))
  t.is(fixed.code, 1)
  t.regex(fixed.stderr, /start without -V/)
  await other.node(0).stop()
  const { directory } = other.node(0).place
  const alien = await tryStart(new TestNode({ ...(await place('n8')), directory }))
  t.is(alien.code, 1)
  t.regex(alien.stderr, /another cluster/)
  t.is((await info(cluster)).epochs[0]?.epoch, 1)
})

realTest('a cluster names the nodes it waits for, and can be forced without them', async (t) => {
  const cluster = await startCluster(t, { copies: 2 })
  await fill(cluster)
  await cluster.killAll()
  await cluster.node(0).start()
  await cluster.node(1).start()
  await cluster.members(2)
  const waiting = await info(cluster)
  t.false(waiting.running)
  t.deepEqual(waiting.missing, [`127.0.0.1:${cluster.node(2).port}`])
  await t.throwsAsync(cluster.dog('vdi create', 'Bob', '8M'), { message: /[Ww]aiting for other/ })
  const forced = await cluster.dog('cluster recover', '-f', 'force')
  t.regex(
    forced.stderr,
    /Missing nodes of epoch 1: .*Volumes with more than 1 copies, or .* lose nothing/s,
  )
  t.true((await info(cluster)).running)
  await holds(t, cluster, 1)
  await cluster.node(2).start()
  await cluster.recovered()
  await holds(t, cluster, 2)
})

realTest('after a shutdown in order the cluster starts in the same epoch', async (t) => {
  const cluster = await startCluster(t, { copies: 2 })
  await fill(cluster)
  await cluster.recovered()
  await cluster.dog('cluster shutdown')
  for (const node of cluster.nodes) {
    await until('the end of the daemon', WAIT_MS, () => node.ended())
    t.is((await node.stop())?.code, 0)
  }
  await cluster.startAll()
  t.is((await info(cluster)).epochs[0]?.epoch, 1)
  await holds(t, cluster, 2)
})

realTest('reweighting, counters and log levels of real nodes', async (t) => {
  const cluster = await startCluster(t, { copies: 2 })
  await fill(cluster)
  await cluster.dog('cluster reweight')
  const { stdout } = await cluster.dog('node stat', '--json')
  const counters = JSON.parse(stdout) as { client: { writes: number; writtenBytes: number } }
  t.true(counters.client.writes > 2)
  t.true(counters.client.writtenBytes >= bytes.length)
  await cluster.dog('node log level', 'set', 'debug')
  t.is((await cluster.dog('node log level', 'get')).stderr, 'debug (7)\n')
})
