/** Real sheep on real ZooKeeper servers: deaths, stops, servers that die or fall silent, and an ensemble that goes away. */
import type { ExecutionContext } from 'ava'
import { qemuIo } from './support/clients.js'
import { planCluster, type TestCluster } from './support/cluster.js'
import { SHEEP } from './support/paths.js'
import { pause, run, tryRun, until } from './support/run.js'
import { copiesSettled } from './support/same-copies.js'
import { needing } from './support/suite.js'
import { type Ensemble, startEnsemble } from './support/zookeeper.js'

const PATIENCE_MS = 300_000
/** Long enough that a loaded machine does not lose sessions by itself. */
const SESSION_MS = 8000
const NOTICE_MS = 90_000
const realTest = needing('java', 'zooinspector', 'qemu-io')

async function sheepOn(t: ExecutionContext, ensemble: Ensemble): Promise<TestCluster> {
  t.timeout(PATIENCE_MS)
  const driver = ensemble.choice('/real/test', `${SESSION_MS}ms`)
  const cluster = await planCluster(t, { place: () => ({ driver }) })
  await cluster.startAll()
  await cluster.dog('cluster format', '-c', '3')
  await cluster.dog('vdi create', 'Alice', '64M')
  await qemuIo(cluster.uri('Alice'), ['write -P 0x11 0 8M', 'flush'])
  return cluster
}

async function epochOf(cluster: TestCluster, index: number): Promise<number> {
  const { stdout } = await cluster.dogAt(index, 'cluster info', ['--json'])
  const { epochs } = JSON.parse(stdout) as { readonly epochs: readonly { epoch: number }[] }
  if (epochs[0] === undefined) throw new Error(`no epoch in ${stdout}`)
  return epochs[0].epoch
}

async function logged(cluster: TestCluster, index: number, what: RegExp): Promise<void> {
  await until(`${what} in the log of node ${index}`, NOTICE_MS, async () => {
    return what.test(await cluster.node(index).logTail())
  })
}

realTest('a killed sheep is out after the session time-out, and comes back', async (t) => {
  const cluster = await sheepOn(t, await startEnsemble(t, 1))
  await cluster.node(2).kill()
  await cluster.members(2)
  await qemuIo(cluster.uri('Alice', 1), ['read -P 0x11 0 8M', 'write -P 0x22 0 4M', 'flush'])
  await cluster.node(2).start()
  await cluster.members(3)
  await cluster.recovered()
  await qemuIo(cluster.uri('Alice', 2), ['read -P 0x22 0 4M', 'read -P 0x11 4M 4M'])
  t.deepEqual(await copiesSettled(cluster), [])
})

realTest('a sheep started at once after its death waits for its session and joins', async (t) => {
  const cluster = await sheepOn(t, await startEnsemble(t, 1))
  const epoch = await epochOf(cluster, 0)
  await cluster.node(1).kill()
  await cluster.node(1).start()
  await logged(cluster, 1, /cluster\.predecessor/)
  await until('the leave and the join', NOTICE_MS, async () => {
    return (await epochOf(cluster, 0)) === epoch + 2
  })
  await cluster.members(3)
  await cluster.recovered()
  t.deepEqual(await copiesSettled(cluster), [])
})

realTest('a stopped sheep knows by itself that it is out, and comes back by itself', async (t) => {
  const cluster = await sheepOn(t, await startEnsemble(t, 1))
  const { pid } = cluster.node(2)
  cluster.node(2).signal('SIGSTOP')
  await cluster.members(2)
  await qemuIo(cluster.uri('Alice', 0), ['write -P 0x33 0 8M', 'flush'])
  cluster.node(2).signal('SIGCONT')
  // Never the old bytes, from the very first read on: it is not sure, then suspended, then a member again.
  const { stdout } = await qemuIoAgain(cluster.uri('Alice', 2), 'read -P 0x33 0 8M')
  t.notRegex(stdout, /Pattern verification failed/)
  await cluster.members(3)
  await logged(cluster, 2, /node\.suspended/)
  await cluster.recovered()
  t.is(cluster.node(2).pid, pid, 'the same process')
  t.deepEqual(await copiesSettled(cluster), [])
})

realTest('a server that dies or falls silent costs the cluster nothing', async (t) => {
  const ensemble = await startEnsemble(t, 3)
  const cluster = await sheepOn(t, ensemble)
  const epoch = await epochOf(cluster, 0)
  await ensemble.server(0).kill()
  await cluster.dog('vdi create', 'Bob', '16M')
  ensemble.server(0).begin()
  await ensemble.server(0).serves()
  ensemble.server(1).signal('SIGSTOP')
  await cluster.dog('vdi create', 'Carol', '16M')
  await pause(1.25 * SESSION_MS)
  await qemuIo(cluster.uri('Alice', 1), ['write -P 0x44 0 4M', 'flush'])
  ensemble.server(1).signal('SIGCONT')
  await ensemble.server(1).serves()
  await cluster.members(3)
  t.is(await epochOf(cluster, 0), epoch)
  for (const node of cluster.nodes) t.notRegex(await node.logTail(), /node\.suspended/)
})

realTest('an ensemble that restarts as a whole finds the same cluster', async (t) => {
  const ensemble = await startEnsemble(t, 3)
  const cluster = await sheepOn(t, ensemble)
  const epoch = await epochOf(cluster, 0)
  await ensemble.kill()
  await ensemble.start()
  await cluster.dog('vdi create', 'Bob', '16M')
  await qemuIo(cluster.uri('Bob', 2), ['write -P 0x55 0 4M', 'flush'])
  await cluster.members(3)
  t.is(await epochOf(cluster, 0), epoch)
})

realTest('without an ensemble nothing is served; all goes on when it is back', async (t) => {
  const ensemble = await startEnsemble(t, 3)
  const cluster = await sheepOn(t, ensemble)
  await ensemble.kill()
  for (const index of [0, 1, 2]) await logged(cluster, index, /membership\.unsure/)
  const { timedOut } = await tryRun(
    ['qemu-io', '-f', 'raw', '-c', 'read 0 4k', cluster.uri('Alice')],
    { timeoutMs: 3000 },
  )
  t.true(timedOut, 'a read was answered by a node that could not be sure')
  await pause(SESSION_MS)
  await ensemble.start()
  await qemuIoAgain(cluster.uri('Alice', 1), 'read -P 0x11 0 8M')
  await cluster.members(3)
  await qemuIo(cluster.uri('Alice', 2), ['write -P 0x66 0 8M', 'flush'])
  t.deepEqual(await copiesSettled(cluster), [])
})

realTest('an ensemble that is not there is named, with what to do', async (t) => {
  t.timeout(PATIENCE_MS)
  const option = 'zookeeper:127.0.0.1:1,[::1]:2/x,timeout=2s'
  const directory = `/tmp/sheepdog-test-no-zookeeper-${process.pid}`
  const result = await tryRun([process.execPath, SHEEP, '-f', '-c', option, directory])
  await run(['rm', '-rf', directory])
  t.is(result.code, 1)
  t.regex(result.stderr, /no ZooKeeper server answered within 2000 ms/)
  t.regex(result.stderr, /127\.0\.0\.1:1 \(.*ECONNREFUSED/)
  t.regex(result.stderr, /start the ensemble/)
})

/** A node that is between two lives refuses connections; clients that reconnect are served. */
async function qemuIoAgain(uri: string, command: string) {
  return until('an answer', NOTICE_MS, async () => {
    const result = await tryRun(['qemu-io', '-f', 'raw', '-c', command, uri], { timeoutMs: 60_000 })
    return result.code === 0 || /verification failed/.test(result.stdout) ? result : undefined
  })
}
