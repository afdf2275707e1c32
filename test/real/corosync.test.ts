/** The corosync driver with real corosync daemons and real sheep. */
import { readFile } from 'node:fs/promises'
import test, { type ExecutionContext } from 'ava'
import { nbdcopy } from './support/clients.js'
import { planCluster, type TestCluster, type TestNode } from './support/cluster.js'
import { type CorosyncRing, startCorosync } from './support/corosync.js'
import { type Slot, startFlushingWriter, wrongSlots } from './support/flushing-writer.js'
import { scratch } from './support/owner.js'
import { DOG, SHEEP } from './support/paths.js'
import { start, tryRun, until } from './support/run.js'
import { copiesSettled } from './support/same-copies.js'
import { needing } from './support/suite.js'

/** Detection with the token of the test ring, the driver's grace, and a loaded machine. */
const NOTICE_MS = 60_000
const PATIENCE_MS = 300_000
const SLOT_BYTES = 64 * 1024
const SLOTS = 64

const isRoot = process.getuid?.() === 0

/** Also skips where namespaces cannot be made; without the binding only where headers cannot be installed. */
function realTest(title: string, body: (t: ExecutionContext) => Promise<void>): void {
  const register = needing(
    'qemu-io',
    'nbdcopy',
    'corosync',
    'corosync-cmapctl',
    'unshare',
    'nsenter',
    'ip',
    '/usr/include/corosync/cpg.h',
    '/usr/include/corosync/quorum.h',
    '/usr/include/corosync/cfg.h',
  )
  const patient = (t: ExecutionContext): Promise<void> => {
    t.timeout(PATIENCE_MS)
    return body(t)
  }
  if (isRoot) register(title, patient)
  else test.serial.skip(`${title} (needs root for network namespaces)`, body)
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

realTest('a corosync that dies takes its node out until it runs again', async (t) => {
  const ring = await startCorosync(t, { hosts: 3 })
  const cluster = await sheepOn(t, ring, [0, 1, 2])
  await formatted(cluster)
  await ring.host(2).kill()
  await says(cluster, 2, /node.suspended.*corosync of this host does not run/)
  await seesMembers(cluster, 0, 2)
  await cluster.dog('vdi create', 'Bob', '16M')
  await ring.host(2).start()
  await ring.host(2).sees()
  await seesMembers(cluster, 0, 3)
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
    await says(cluster, index, /node.suspended.* of 4 members may not go on alone/)
  }
  await writers[1].done
  await seesMembers(cluster, 0, 2)
  t.deepEqual(await wrongIn(cluster, 'Bob', 1, writers[1].slots), [])
  const before = writers[0].flushes()
  await until('the writer of the living half going on', NOTICE_MS, () => {
    return writers[0].flushes() > before + 3
  })

  await ring.heal([0, 1], [2, 3])
  await seesMembers(cluster, 0, 4)
  await cluster.recovered()
  await cluster.node(0).stop()
  await writers[0].done
  await cluster.node(0).start()
  t.deepEqual(await copiesSettled(cluster), [])
  t.deepEqual(await wrongIn(cluster, 'Alice', 2, writers[0].slots), [])
  t.deepEqual(await wrongIn(cluster, 'Bob', 3, writers[1].slots), [])
})

realTest('a sheep that is stopped is left behind, and comes back when it goes on', async (t) => {
  const ring = await startCorosync(t, { hosts: 3 })
  const cluster = await sheepOn(t, ring, [0, 1, 2])
  await formatted(cluster)
  cluster.node(2).signal('SIGSTOP')
  await seesMembers(cluster, 0, 2)
  await cluster.dog('vdi create', 'Carol', '16M')
  cluster.node(2).signal('SIGCONT')
  await says(cluster, 2, /node.suspended.*silent for too long/)
  await seesMembers(cluster, 0, 3)
  t.deepEqual(await copiesSettled(cluster), [])
})

realTest('without the quorum of votequorum a node stops, and comes back with it', async (t) => {
  const ring = await startCorosync(t, { hosts: 2, expectedVotes: 2 })
  const cluster = await sheepOn(t, ring, [0, 1])
  await formatted(cluster)
  // By its own rule the first host would go on: it has half of the members and the lowest one.
  await ring.cut([0], [1])
  await says(cluster, 0, /node.suspended.*(lost quorum|may not go on alone)/)
  await says(cluster, 1, /node.suspended/)
  await ring.heal([0], [1])
  await seesMembers(cluster, 0, 2)
  t.deepEqual(await copiesSettled(cluster), [])
})

realTest('the address of corosync is announced, and corosync is the default driver', async (t) => {
  const ring = await startCorosync(t)
  const cluster = await sheepOn(t, ring, [0])
  const node = cluster.node(0)
  const all = node.command()
  const drop = new Set(['-c', '-y'])
  const words = all.filter((word, i) => !drop.has(word) && !drop.has(all[i - 1] ?? ''))
  const sheep = start(words)
  t.teardown(async () => {
    sheep.kill('SIGKILL')
    await sheep.done
  })
  await until('the sheep', NOTICE_MS, async () => {
    const list = await tryRun([process.execPath, DOG, 'node', 'list', '-r', ...at(node)])
    return list.stdout.includes(`${ring.host(0).address}:${node.port}`)
  })
  t.pass()
})

realTest(
  'without a running corosync the message says how to start it, and what else there is',
  async (t) => {
    const directory = await scratch(t)
    const nowhere = ['unshare', '-n', process.execPath, SHEEP, '-f']
    const asked = await tryRun([...nowhere, '-c', 'corosync', directory])
    t.is(asked.code, 1)
    t.regex(asked.stderr, /systemctl start corosync/)
    const silent = await tryRun([...nowhere, directory])
    t.is(silent.code, 1)
    t.regex(silent.stderr, /no -c is given.*systemctl start corosync.*-c zookeeper:HOST.*-c local/)
  },
)

function at(node: TestNode): string[] {
  return ['-a', node.host, '-p', `${node.port}`]
}

async function says(cluster: TestCluster, index: number, what: RegExp): Promise<void> {
  await until(`${what} in the log of sheep ${index}`, NOTICE_MS, async () =>
    what.test(await cluster.node(index).logTail()),
  )
}

/** A node that starts over refuses connections for a moment. */
async function seesMembers(cluster: TestCluster, index: number, count: number): Promise<void> {
  const node = cluster.node(index)
  await until(`${count} members`, NOTICE_MS, async () => {
    const { code, stdout } = await tryRun([
      process.execPath,
      DOG,
      'node',
      'list',
      '-r',
      ...at(node),
    ])
    return code === 0 && stdout.trim().split('\n').length === count
  })
}

/** As many copies as nodes, so that all object directories must be alike. */
async function formatted(cluster: TestCluster): Promise<void> {
  await cluster.startAll()
  await cluster.dog('cluster format', '-c', `${cluster.nodes.length}`)
  for (const name of ['Alice', 'Bob']) {
    if (cluster.nodes.length > 3) await cluster.dog('vdi create', name, '16M')
  }
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
