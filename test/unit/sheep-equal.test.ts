// Writes in flight when a gateway dies, when the power fails, or when one copy cannot take them: the copies are
// made equal before anybody reads them.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { silentLog } from '../../src/base/log.js'
import { openInFlightLog } from '../../src/store/in-flight-log.js'
import { BlockWriter } from './support/block-writer.js'
import { withSeeds } from './support/seeds.js'
import { newVdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { write } from './support/volume-io.js'

const OBJECT = 1 << 20
const SIZE = 4 * OBJECT
const BLOCKS = 32

async function inUse(seed: number, nodes = 3, copies = 3) {
  const cluster = await SmallCluster.start({ seed, nodes, copies })
  const client = await cluster.client(0)
  await newVdi(client, 'Alice', SIZE)
  client.close()
  const home = cluster.dice.below(nodes)
  const disk = await cluster.source(home).open('Alice')
  const writer = new BlockWriter(disk, cluster.dice, BLOCKS)
  return { cluster, home, disk, writer }
}

async function look(cluster: SmallCluster, writer: BlockWriter, index: number) {
  const disk = await cluster.source(index).open('Alice')
  const found = await writer.look(disk)
  await disk.close()
  return found
}

/** What every node that runs reads, one after the other. */
async function lookEverywhere(cluster: SmallCluster, writer: BlockWriter) {
  const found: (number | string)[][] = []
  for (const index of cluster.up()) found.push(await look(cluster, writer, index))
  return found
}

async function recordsOf(cluster: SmallCluster, index: number) {
  const { files } = cluster.machines[index]!
  const log = await openInFlightLog({
    files,
    log: silentLog,
    metaDirectory: '/sheep',
    durable: true,
  })
  return log.found
}

for (const copies of [2, 3]) {
  test(`every node reads the same after a disk's node has died, ${copies} copies`, async (t) => {
    await withSeeds(3, async (seed) => {
      const { cluster, home, writer } = await inUse(seed, 4, copies)
      writer.start(12)
      await cluster.clock.until('some writes', () => writer.acknowledged > 60)
      cluster.kill(home)
      // Nobody waits for the end of recovery: what is read first is what stays.
      const others = cluster.up()
      await cluster.clock.until('the next epoch', () =>
        others.every((index) => cluster.node(index).state.epoch === 2),
      )
      const [first, ...rest] = await lookEverywhere(cluster, writer)
      for (const found of rest) t.deepEqual(found, first, `SEED=${seed}`)
      await cluster.settle()
      for (const found of await lookEverywhere(cluster, writer)) {
        t.deepEqual(found, first, `SEED=${seed}`)
        t.deepEqual(writer.faults(found), [], `SEED=${seed}`)
      }
      t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
      cluster.close()
    })
  })
}

for (const share of [0, 0.5, 1]) {
  test(`every node reads the same after all died, ${share * 100} % without power`, async (t) => {
    await withSeeds(3, async (seed) => {
      const { cluster, writer } = await inUse(seed)
      writer.start(12)
      await cluster.clock.until('some writes', () => writer.acknowledged > 60)
      await cluster.cutPower(share)
      const [first, ...others] = await lookEverywhere(cluster, writer)
      for (const found of others) t.deepEqual(found, first, `SEED=${seed}`)
      t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
      cluster.close()
    })
  })
}

test('what was read once stays, also when the nodes that compare die one after the other', async (t) => {
  await withSeeds(3, async (seed) => {
    const { cluster, home, writer } = await inUse(seed, 5, 3)
    writer.start(12)
    await cluster.clock.until('some writes', () => writer.acknowledged > 60)
    cluster.kill(home)
    await cluster.clock.sleep(cluster.dice.below(40))
    const [next, reader] = cluster.up() as [number, number]
    await cluster.clock.until('a reader', () => cluster.node(reader).state.epoch >= 2)
    const first = await look(cluster, writer, reader)
    cluster.kill(next)
    await cluster.settle()
    for (const found of await lookEverywhere(cluster, writer)) {
      t.deepEqual(found, first, `SEED=${seed}`)
    }
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('a write that one copy had no room for is on all copies or on none', async (t) => {
  await withSeeds(2, async (seed) => {
    const { cluster, home, disk } = await inUse(seed)
    t.is(await write(disk, 0, Buffer.alloc(4096, 1)), Code.SUCCESS)
    const { files } = cluster.machines[(home + 1) % 3]!
    files.fault = (operation, path) =>
      operation.startsWith('write') && path.includes('/obj/') ? 'ENOSPC' : undefined
    t.is(await write(disk, 0, Buffer.alloc(8192, 2)), Code.NO_SPACE, `SEED=${seed}`)
    files.fault = () => undefined
    await cluster.settle()
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    await disk.close()
    cluster.close()
  })
})

test('an object that rests is off the record on every node, and nothing is compared after a crash', async (t) => {
  const { cluster, disk, writer } = await inUse(7)
  writer.start(4)
  await cluster.clock.until('some writes', () => writer.acknowledged > 20)
  await writer.stop()
  for (const index of cluster.up()) t.true((await recordsOf(cluster, index)).length > 0)
  await cluster.clock.sleep(60_000)
  for (const index of cluster.up()) t.deepEqual(await recordsOf(cluster, index), [])
  await disk.close()
  await cluster.cutPower(1)
  const compared = cluster.logged.filter((line) => line.includes(' suspects '))
  t.deepEqual(compared, [])
  for (const found of await lookEverywhere(cluster, writer)) {
    t.deepEqual(writer.faults(found), [])
  }
  cluster.close()
})

test('a node that stops in order leaves nothing to compare', async (t) => {
  const { cluster, home, disk, writer } = await inUse(11)
  writer.start(4)
  await cluster.clock.until('some writes', () => writer.acknowledged > 20)
  await writer.stop()
  await disk.close()
  await cluster.stop(home)
  await cluster.settle()
  const compared = cluster.logged.filter((line) => line.includes(' suspects '))
  t.deepEqual(compared, [])
  cluster.close()
})

test('copies are equal when a gateway dies while a new node takes objects over', async (t) => {
  await withSeeds(4, async (seed) => {
    const { cluster, home, writer } = await inUse(seed, 3, 2)
    const joiner = cluster.addMachine()
    writer.start(12)
    await cluster.clock.until('some writes', () => writer.acknowledged > 60)
    const joined = cluster.boot(joiner)
    await cluster.clock.sleep(cluster.dice.below(60))
    cluster.kill(home)
    await joined
    await cluster.settle()
    const [first, ...others] = await lookEverywhere(cluster, writer)
    for (const found of others) t.deepEqual(found, first, `SEED=${seed}`)
    t.deepEqual(writer.faults(first!), [], `SEED=${seed}`)
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('copies are equal when all their nodes died and come back to a cluster that went on without them', async (t) => {
  await withSeeds(8, async (seed) => {
    const { cluster, home, writer } = await inUse(seed, 5, 2)
    writer.start(12)
    await cluster.clock.until('some writes', () => writer.acknowledged > 60)
    const stays = (home + 1) % 5
    for (const index of cluster.up()) if (index !== stays) cluster.kill(index)
    const before = cluster.node(stays).state.epoch
    await cluster.clock.until('it goes on', () => cluster.node(stays).state.members.length === 1)
    t.true(cluster.node(stays).state.epoch > before)
    for (let index = 0; index < 5; index++) if (index !== stays) await cluster.boot(index)
    await cluster.settle()
    const [first, ...rest] = await lookEverywhere(cluster, writer)
    for (const found of rest) t.deepEqual(found, first, `SEED=${seed}`)
    t.deepEqual(writer.faults(first ?? []), [], `SEED=${seed}`)
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('with one copy nothing is recorded', async (t) => {
  const { cluster, disk } = await inUse(3, 3, 1)
  t.is(await write(disk, 0, Buffer.alloc(4096, 1)), Code.SUCCESS)
  for (const index of cluster.up()) t.deepEqual(await recordsOf(cluster, index), [])
  await disk.close()
  cluster.close()
})
