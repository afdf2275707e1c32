// Disks that fail, are pulled, plugged and missing under a disk in use, on nodes with several of them.
import test, { type ExecutionContext } from 'ava'
import { Code } from '../../src/base/codes.js'
import { type dataOid, oidName } from '../../src/model/oid.js'
import { BlockWriter } from './support/block-writer.js'
import { withSeeds } from './support/seeds.js'
import { newVdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const OBJECT = 1 << 20
const OBJECTS = 12
const BLOCKS = 48
const DISKS = ['/d1', '/d2', '/d3']

async function inUse(seed: number, nodes = 3, copies = 2) {
  const cluster = await SmallCluster.start({ seed, nodes, copies, disks: DISKS })
  const client = await cluster.client(0)
  await newVdi(client, 'Alice', OBJECTS * OBJECT)
  client.close()
  const home = cluster.dice.below(nodes)
  const disk = await cluster.source(home).open('Alice')
  const writer = new BlockWriter(disk, cluster.dice, BLOCKS)
  return { cluster, home, disk, writer }
}

/** From now on everything on that disk of the machine answers with an I/O error. */
function breakDisk(cluster: SmallCluster, index: number, path: string): void {
  const { files } = cluster.machines[index]!
  const before = files.fault
  files.fault = (operation, at) =>
    at === path || at.startsWith(`${path}/`) ? 'EIO' : before(operation, at)
}

async function more(cluster: SmallCluster, writer: BlockWriter, count: number): Promise<void> {
  const before = writer.acknowledged
  await cluster.clock.until('more writes', () => writer.acknowledged > before + count)
}

/** What every node reads, and whether all copies are there and alike. */
async function faults(cluster: SmallCluster, writer: BlockWriter): Promise<string[]> {
  await cluster.settle()
  const found: string[] = [...writer.failures].map(String)
  for (const index of cluster.up()) {
    const disk = await cluster.source(index).open('Alice')
    found.push(...writer.faults(await writer.look(disk)).map(String))
    await disk.close()
  }
  return [...found, ...(await cluster.copyFaults()), ...cluster.failures()]
}

test('a disk that fails under a disk in use costs no error and no byte', async (t) => {
  await withSeeds(4, async (seed) => {
    const { cluster, disk, writer } = await inUse(seed)
    writer.start()
    await more(cluster, writer, 30)
    const victim = cluster.dice.below(3)
    const path = DISKS[cluster.dice.below(3)]!
    breakDisk(cluster, victim, path)
    const { diskControl } = cluster.node(victim).store
    await more(cluster, writer, 60)
    await writer.flush()
    await cluster.clock.until('the disk to be out', () => !diskControl.paths().includes(path))
    await more(cluster, writer, 20)
    await writer.stop()
    await disk.close()
    t.deepEqual(await faults(cluster, writer), [], `SEED=${seed}`)
    t.true(cluster.node(0).state.epoch > 1)
    cluster.close()
  })
})

/** A node that has just come back loses a disk with copies of before. */
async function backAndBroken(t: ExecutionContext, seed: number): Promise<void> {
  const { cluster, home, disk, writer } = await inUse(seed)
  writer.start()
  await more(cluster, writer, 40)
  const victim = (home + 1) % 3
  cluster.kill(victim)
  await more(cluster, writer, 2)
  await cluster.boot(victim)
  await cluster.clock.sleep(cluster.dice.below(40))
  breakDisk(cluster, victim, DISKS[cluster.dice.below(3)]!)
  await more(cluster, writer, 60)
  await writer.stop()
  await disk.close()
  t.deepEqual(await faults(cluster, writer), [], `SEED=${seed}`)
  cluster.close()
}

test('a disk that fails while its node, just back, takes up what it held costs no error', async (t) => {
  await withSeeds(4, (seed) => backAndBroken(t, seed))
  // An object that went while the write to it was being put on record was said not to exist.
  await backAndBroken(t, 39)
})

test('a node that is killed after a disk failed comes back without it, and without its old copies', async (t) => {
  await withSeeds(4, async (seed) => {
    const { cluster, home, disk, writer } = await inUse(seed)
    writer.start()
    await more(cluster, writer, 30)
    const victim = (home + 1) % 3
    const path = DISKS[cluster.dice.below(3)]!
    const { diskControl } = cluster.node(victim).store
    breakDisk(cluster, victim, path)
    await cluster.clock.until('the disk to be out', () => !diskControl.paths().includes(path))
    await more(cluster, writer, cluster.dice.below(30))
    cluster.kill(victim, { power: seed % 2 === 0 })
    await more(cluster, writer, 20)
    // The disk can be read again, with what it held.
    cluster.machines[victim]!.files.fault = () => undefined
    await cluster.boot(victim)
    t.false(cluster.node(victim).store.diskControl.paths().includes(path), `SEED=${seed}`)
    await more(cluster, writer, 20)
    t.is(await cluster.node(victim).disks.plug([path]), Code.SUCCESS)
    await more(cluster, writer, 20)
    await writer.stop()
    await disk.close()
    t.deepEqual(await faults(cluster, writer), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('all nodes lose power with a disk just lost: what was flushed is there', async (t) => {
  await withSeeds(4, async (seed) => {
    const { cluster, writer } = await inUse(seed)
    writer.start()
    await more(cluster, writer, 30)
    const path = DISKS[cluster.dice.below(3)]!
    breakDisk(cluster, 1, path)
    await cluster.clock.sleep(cluster.dice.below(300))
    await writer.flush()
    await cluster.clock.sleep(cluster.dice.below(100))
    for (const index of cluster.up()) cluster.kill(index, { power: true })
    if (seed % 2 === 0) cluster.machines[1]!.files.fault = () => undefined
    const starts = await Promise.all([0, 1, 2].map((index) => cluster.launch(index)))
    await Promise.all(starts.map(({ joined }) => joined))
    await cluster.settle()
    for (const index of cluster.up()) {
      const again = await cluster.source(index).open('Alice')
      t.deepEqual(writer.faults(await writer.look(again), { lost: true }), [], `SEED=${seed}`)
      await again.close()
    }
    cluster.close()
  })
})

test('disks are unplugged and plugged under a disk in use, one node after the other', async (t) => {
  await withSeeds(3, async (seed) => {
    const { cluster, disk, writer } = await inUse(seed)
    writer.start()
    await more(cluster, writer, 30)
    for (const index of [0, 1, 2]) {
      const { disks } = cluster.node(index)
      const path = DISKS[cluster.dice.below(3)]!
      t.is(await disks.unplug([path]), Code.SUCCESS, `SEED=${seed}`)
      // While its objects have fewer copies no other one goes.
      const other = cluster.node((index + 1) % 3)
      const [first] = other.store.diskControl.paths()
      t.is(await other.disks.unplug([first!]), Code.NODE_IN_RECOVERY)
      await cluster.settle()
      await more(cluster, writer, 10)
      if (index > 0) t.is(await disks.plug([path]), Code.SUCCESS)
      cluster.machines[index]!.files.mkdir('/new')
      t.is(await disks.plug(['/new']), Code.SUCCESS)
      await more(cluster, writer, 10)
    }
    await writer.stop()
    await disk.close()
    t.deepEqual(await faults(cluster, writer), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('the last disk does not go, and objects without another copy keep theirs', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 2, copies: 1, disks: ['/d1', '/d2'] })
  const client = await cluster.client(0)
  await newVdi(client, 'Alice', OBJECT)
  client.close()
  t.is(await cluster.node(0).disks.unplug(['/d1']), Code.UNKNOWN)
  t.is(await cluster.node(0).disks.unplug(['/d9']), Code.UNKNOWN)
  t.true(cluster.logged.some((line) => line.includes('have no copy on another node')))
  cluster.close()
})

test('the last disk that fails ends the node, with a word, and the others go on', async (t) => {
  const { cluster, home, disk, writer } = await inUse(7)
  writer.start()
  await more(cluster, writer, 20)
  const victim = (home + 1) % 3
  for (const path of DISKS) breakDisk(cluster, victim, path)
  await cluster.clock.until('the node to be gone', () => !cluster.up().includes(victim))
  await more(cluster, writer, 20)
  await writer.stop()
  await disk.close()
  t.true(cluster.logged.some((line) => /the last disk, .d\d, has failed/.test(line)))
  t.deepEqual(writer.failures, [])
  cluster.close()
})

test('what every owner lost with a disk is missed, not replaced by something older', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 2, copies: 2, disks: ['/d1', '/d2'] })
  const client = await cluster.client(0)
  await newVdi(client, 'Alice', OBJECTS * OBJECT)
  client.close()
  const disk = await cluster.source(0).open('Alice')
  const writer = new BlockWriter(disk, cluster.dice, BLOCKS)
  writer.start()
  await more(cluster, writer, 60)
  await writer.flush()
  await writer.stop()
  const lost = cluster
    .objects('data')
    .filter((oid) =>
      [0, 1].every((index) => cluster.machines[index]!.files.exists(`/d1/${oidName(oid)}`)),
    )
  t.true(lost.length > 0)
  for (const index of [0, 1]) {
    breakDisk(cluster, index, '/d1')
    cluster.node(index).store.diskControl.paths()
  }
  const read = (index: number, oid: ReturnType<typeof dataOid>): Promise<Code> =>
    new Promise((resolve) => {
      const { gateway } = cluster.node(index)
      gateway.read(gateway.ref(oid), 0, Buffer.alloc(4096), resolve)
    })
  for (const { files } of cluster.machines) files.cold = true
  for (const oid of lost) {
    for (const index of [0, 1]) t.not(await read(index, oid), Code.SUCCESS)
  }
  cluster.close()
})
