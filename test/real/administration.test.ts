/**
 * What an administrator does to real nodes, seen on their disks and in what dog prints: zones, `dog node kill`, `-R`,
 * `-W`, and a recovery that avoids full disks (`dog cluster format -F`).
 */
import { mkdir, readdir, rename } from 'node:fs/promises'
import test, { type ExecutionContext } from 'ava'
import { planCluster, startCluster, type TestCluster } from './support/cluster.js'
import { patternBytes } from './support/images.js'
import { scratch } from './support/owner.js'
import { run, until } from './support/run.js'
import { needing } from './support/suite.js'

const MIB = 1024 * 1024
/** Of one command's output so much is kept. */
const READ_BYTES = 32 * MIB
const NOTICE_MS = 60_000
const DISK_MIB = 96
const realTest = needing()
const rootTest =
  process.getuid?.() === 0
    ? needing('mount')
    : (title: string) => test.serial.skip(`${title} (needs root)`, () => undefined)

/** Nodes that have each data object in their working directories. */
async function holders(cluster: TestCluster): Promise<Map<string, number[]>> {
  const found = new Map<string, number[]>()
  for (const [index, node] of cluster.nodes.entries()) {
    for (const name of await readdir(node.objects)) {
      if (/^00[0-9a-f]{14}$/.test(name)) found.set(name, [...(found.get(name) ?? []), index])
    }
  }
  return found
}

async function reads(
  t: ExecutionContext,
  cluster: TestCluster,
  index: number,
  bytes: Buffer,
): Promise<void> {
  for (let at = 0; at < bytes.length; at += READ_BYTES) {
    const part = bytes.subarray(at, at + READ_BYTES)
    const found = await cluster.dogAt(index, 'vdi read', ['Alice', `${at}`, `${part.length}`])
    t.true(found.bytes.equals(part), `node ${index} reads something else from ${at} on`)
  }
}

interface NodeJson {
  readonly id: number
  readonly port: number
  readonly zone: number
}

async function nodesOf(cluster: TestCluster, index: number): Promise<readonly NodeJson[]> {
  const { stdout } = await cluster.dogAt(index, 'node list', ['--json'])
  return (JSON.parse(stdout) as { nodes: NodeJson[] }).nodes
}

realTest('a zone never has two copies, and takes none away when it dies as a whole', async (t) => {
  const zones = [7, 7, 9, 9]
  const cluster = await planCluster(t, {
    nodes: zones.length,
    place: (index) => ({ options: ['-z', `${zones[index]}`] }),
  })
  await cluster.startAll()
  await cluster.dog('cluster format', '-c', '2')
  t.deepEqual((await nodesOf(cluster, 3)).map(({ zone }) => zone).sort(), zones)
  const bytes = patternBytes(11, 48 * MIB)
  await cluster.dog('vdi create', 'Alice', '48M')
  await cluster.dogAt(0, 'vdi write', ['Alice', '0'], { input: bytes })
  const inZones = async (): Promise<void> => {
    const copies = [...(await holders(cluster)).values()]
    t.is(copies.length, 12)
    for (const nodes of copies) t.deepEqual(nodes.map((index) => zones[index]).sort(), [7, 9])
  }
  await inZones()

  await Promise.all([0, 1].map((index) => cluster.node(index).kill()))
  await cluster.members(2, 2)
  await reads(t, cluster, 3, bytes)
  await cluster.dogAt(2, 'vdi write', ['Alice', '0'], { input: bytes.subarray(0, MIB).fill(1) })
  for (const index of [0, 1]) await cluster.node(index).start()
  await cluster.recovered()
  await inZones()
  await reads(t, cluster, 0, bytes)
})

realTest(
  'dog node kill stops the node it names, in order, and says no of one there is not',
  async (t) => {
    const cluster = await startCluster(t, { copies: 2 })
    const bytes = patternBytes(12, 8 * MIB)
    await cluster.dog('vdi create', 'Alice', '8M')
    await cluster.dogAt(0, 'vdi write', ['Alice', '0'], { input: bytes })
    const victim = cluster.node(1)
    const id = (await nodesOf(cluster, 0)).find(({ port }) => port === victim.port)?.id
    await t.throwsAsync(cluster.dog('node kill', '3'), { message: /Invalid node id '3'/ })
    await cluster.dog('node kill', `${id}`)
    await until('the end of the daemon', NOTICE_MS, () => victim.ended())
    t.is((await victim.stop())?.code, 0)
    await cluster.members(2)
    await reads(t, cluster, 2, bytes)
    await cluster.dogAt(2, 'node kill', ['-l'])
    await until('the end of the other daemon', NOTICE_MS, () => cluster.node(2).ended())
    await cluster.members(1)
    for (const index of [1, 2]) await cluster.node(index).start()
    await cluster.recovered()
    await reads(t, cluster, 1, bytes)
  },
)

realTest(
  '-W finds objects on nodes that should not have them; -R throttles from the start',
  async (t) => {
    const cluster = await startCluster(t, { copies: 1 })
    const bytes = patternBytes(13, 24 * MIB)
    await cluster.dog('vdi create', 'Alice', '24M')
    await cluster.dogAt(0, 'vdi write', ['Alice', '0'], { input: bytes })
    await cluster.stopAll()
    // As after somebody has mixed up disks: every object is on the next node.
    const moved = [...(await holders(cluster))]
    t.is(moved.length, 6)
    for (const [name, [index]] of moved) {
      const to = cluster.node((index! + 1) % 3)
      await rename(`${cluster.node(index!).objects}/${name}`, `${to.objects}/${name}`)
    }
    for (const node of cluster.nodes) await node.start(['-W', '-R', 'max=3,interval=200'])
    await cluster.recovered()
    const throttle = await cluster.dogAt(2, 'node recovery', ['get-throttle'])
    t.is(throttle.stderr, 'max (3), interval (200)\n')
    t.deepEqual([...(await holders(cluster))].sort(), moved.sort())
    await reads(t, cluster, 0, bytes)
  },
)

rootTest(
  'format -F: a recovery that would fill disks is held off until there is room',
  async (t) => {
    const top = await scratch(t)
    const disks = [0, 1, 2].map((index) => `${top}/small${index}`)
    for (const path of disks) {
      await mkdir(path)
      await run(['mount', '-t', 'tmpfs', '-o', `size=${DISK_MIB}m`, 'tmpfs', path])
      t.teardown(async () => void (await run(['umount', '-l', path])))
    }
    const cluster = await planCluster(t, { place: (index) => ({ disks: [disks[index]!] }) })
    await cluster.startAll()
    await cluster.dog('cluster format', '-c', '2', '-F')
    // Two thirds of it on each disk, by many small objects; more than one disk has when a node is gone.
    const bytes = patternBytes(14, 108 * MIB)
    await cluster.dog('vdi create', '-z', '20', 'Alice', '108M')
    await cluster.dogAt(0, 'vdi write', ['Alice', '0'], { input: bytes })
    const before = await holdersOn(disks)
    await cluster.node(2).kill()
    await cluster.members(2)
    await until('recovery being held off', NOTICE_MS, async () => {
      return /auto-recovery disabled/.test((await cluster.dog('cluster info')).stdout)
    })
    t.regex(await cluster.node(0).logTail(), /recovery\.would-fill-disk/)
    await reads(t, cluster, 1, bytes)
    await cluster.node(2).start()
    await cluster.members(3)
    await cluster.dog('cluster recover', 'enable')
    await cluster.recovered()
    t.deepEqual(await holdersOn(disks), before)
    await reads(t, cluster, 2, bytes)
  },
)

/** Data objects of each disk. */
async function holdersOn(disks: readonly string[]): Promise<string[][]> {
  const names = disks.map(async (path) => {
    return (await readdir(path)).filter((name) => /^00[0-9a-f]{14}$/.test(name)).sort()
  })
  return await Promise.all(names)
}
