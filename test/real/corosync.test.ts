/** The corosync driver with real corosync daemons and real sheep. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { nbdcopy } from './support/clients.js'
import { planCluster, type TestCluster } from './support/cluster.js'
import { type CorosyncRing, startCorosync } from './support/corosync.js'
import { type Slot, startFlushingWriter, wrongSlots } from './support/flushing-writer.js'
import { until } from './support/run.js'
import { copiesSettled } from './support/same-copies.js'
import { needing } from './support/suite.js'

/** Detection with the token of the test ring, the driver's grace, and a loaded machine. */
const NOTICE_MS = 60_000
const PATIENCE_MS = 300_000
const SLOT_BYTES = 64 * 1024
const SLOTS = 64

const isBuilt = existsSync(fileURLToPath(new URL('../../native/cpg.node', import.meta.url)))
const isRoot = process.getuid?.() === 0

/** Also skips where namespaces cannot be made, or the binding was built without corosync's headers. */
function realTest(title: string, body: (t: ExecutionContext) => Promise<void>): void {
  const register = needing(
    'qemu-io',
    'nbdcopy',
    'corosync',
    'corosync-cmapctl',
    'unshare',
    'nsenter',
    'ip',
  )
  const patient = (t: ExecutionContext): Promise<void> => {
    t.timeout(PATIENCE_MS)
    return body(t)
  }
  if (isBuilt && isRoot) register(title, patient)
  else test.serial.skip(`${title} (needs root and a build with corosync's headers)`, body)
}

/** Sheep on the hosts of the ring, as many as `hostOf` names. */
async function sheepOn(
  t: ExecutionContext,
  ring: CorosyncRing,
  hostOf: readonly number[],
): Promise<TestCluster> {
  return planCluster(t, {
    nodes: hostOf.length,
    place: (index) => {
      const { address, inside } = ring.host(hostOf[index]!)
      return { driver: 'corosync', host: address, inside }
    },
  })
}

realTest('three sheep of one host: format, write, crash and return', async (t) => {
  const ring = await startCorosync(t)
  const cluster = await sheepOn(t, ring, [0, 0, 0])
  await cluster.startAll()
  await cluster.dog('cluster format', '-c', '3')
  await cluster.dog('vdi create', 'Alice', '64M')
  await cluster.node(2).kill()
  await cluster.members(2)
  await cluster.node(2).start()
  await cluster.members(3)
  await cluster.recovered()
  await cluster.node(1).stop()
  await cluster.members(2)
  const { stdout } = await cluster.dog('vdi list', '-r')
  t.regex(stdout, /Alice/)
})

realTest('a corosync that dies takes its node out; the others go on without it', async (t) => {
  const ring = await startCorosync(t, { hosts: 3 })
  const cluster = await sheepOn(t, ring, [0, 1, 2])
  await formatted(cluster)
  await ring.host(2).kill()
  await until('the end of the sheep', NOTICE_MS, () => cluster.node(2).ended())
  t.regex(await cluster.node(2).logTail(), /corosync of this host does not run/)
  await until('two members', NOTICE_MS, async () => (await membersOf(cluster, 0)) === 2)
  await cluster.dog('vdi create', 'Bob', '16M')
  await ring.host(2).start()
  await ring.host(2).sees()
  await cluster.node(2).start()
  t.deepEqual(await copiesSettled(cluster), [])
})

realTest('torn in two halves, one lives, and has all that was flushed on the other', async (t) => {
  const ring = await startCorosync(t, { hosts: 4 })
  const cluster = await sheepOn(t, ring, [0, 1, 2, 3])
  await formatted(cluster)
  const writers = [writer(cluster, 'Alice', 0), writer(cluster, 'Bob', 3)] as const
  for (const one of writers) await until('some flushes', NOTICE_MS, () => one.flushes() > 3)

  await ring.cut([0, 1], [2, 3])
  for (const index of [2, 3]) {
    await until(`the end of sheep ${index}`, NOTICE_MS, () => cluster.node(index).ended())
    t.regex(await cluster.node(index).logTail(), /2 of 4 members may not go on alone/)
  }
  await writers[1].done
  await until('two members', NOTICE_MS, async () => (await membersOf(cluster, 0)) === 2)
  t.deepEqual(await wrongIn(cluster, 'Bob', 1, writers[1].slots), [])
  const before = writers[0].flushes()
  await until('the writer of the living half going on', NOTICE_MS, () => {
    return writers[0].flushes() > before + 3
  })

  await ring.heal([0, 1], [2, 3])
  for (const host of ring.hosts) await host.sees()
  for (const index of [2, 3]) await cluster.node(index).start()
  await cluster.recovered()
  await cluster.node(0).stop()
  await writers[0].done
  await cluster.node(0).start()
  t.deepEqual(await copiesSettled(cluster), [])
  t.deepEqual(await wrongIn(cluster, 'Alice', 2, writers[0].slots), [])
  t.deepEqual(await wrongIn(cluster, 'Bob', 3, writers[1].slots), [])
})

/** As many copies as nodes, so that all object directories must be alike. */
async function formatted(cluster: TestCluster): Promise<void> {
  await cluster.startAll()
  await cluster.dog('cluster format', '-c', `${cluster.nodes.length}`)
  for (const name of ['Alice', 'Bob']) {
    if (cluster.nodes.length > 3) await cluster.dog('vdi create', name, '16M')
  }
}

async function membersOf(cluster: TestCluster, index: number): Promise<number> {
  const { stdout } = await cluster.dogAt(index, 'node list', ['-r'])
  return stdout.trim().split('\n').length
}

function writer(cluster: TestCluster, name: string, index: number) {
  const slots: Slot[] = Array.from({ length: SLOTS }, () => ({ flushed: 0, later: [] }))
  let seed = 17 + index
  const below = (limit: number): number => {
    seed = (seed * 48271) % 2147483647
    return seed % limit
  }
  const uri = cluster.uri(name, index)
  return { slots, ...startFlushingWriter({ uri, slots, slotBytes: SLOT_BYTES, below }) }
}

/** Reads the volume through the node and compares it with what its writer asked for. */
async function wrongIn(
  cluster: TestCluster,
  name: string,
  index: number,
  slots: readonly Slot[],
): Promise<string[]> {
  const image = `${cluster.directory}/${name}-${index}.img`
  await nbdcopy(cluster.uri(name, index), image)
  return wrongSlots(await readFile(image), slots, SLOT_BYTES)
}
