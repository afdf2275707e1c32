// Clusters that start again: with all of their nodes, with some missing, and by force without them.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { decodeNodes, NODE_BYTES } from '../../src/model/node.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { withSeeds } from './support/seeds.js'
import { ask, newVdi } from './support/sheep-wire.js'
import { SmallCluster, type SmallClusterOptions } from './support/small-cluster.js'
import { read, write } from './support/volume-io.js'

const OBJECT = 1 << 20
const COUNT = 8
const ROOM = 64 * NODE_BYTES

async function withData(options: SmallClusterOptions, value = 1) {
  const cluster = await SmallCluster.start(options)
  const client = await cluster.client(0)
  await newVdi(client, 'Alice', COUNT * OBJECT)
  client.close()
  await fill(cluster, 0, value)
  return cluster
}

async function fill(cluster: SmallCluster, index: number, value: number): Promise<void> {
  const disk = await cluster.source(index).open('Alice')
  for (let i = 0; i < COUNT; i++) {
    const code = await write(disk, i * OBJECT, Buffer.alloc(4096, value), true)
    if (code !== Code.SUCCESS) throw new Error(`write: ${code}`)
  }
  await disk.close()
}

/** First byte of each object as read through a node; a code where there is none. */
async function look(cluster: SmallCluster, index: number): Promise<(number | string)[]> {
  const disk = await cluster.source(index).open('Alice')
  const found: (number | string)[] = []
  for (let i = 0; i < COUNT; i++) {
    const bytes = await read(disk, i * OBJECT, 1)
    found.push(Buffer.isBuffer(bytes) ? bytes[0]! : `code ${bytes}`)
  }
  await disk.close()
  return found
}

function stopAll(cluster: SmallCluster): void {
  for (const index of cluster.up()) cluster.kill(index)
}

async function bootOnly(cluster: SmallCluster, ...indexes: number[]): Promise<void> {
  for (const index of indexes) await cluster.boot(index)
}

async function force(cluster: SmallCluster, index: number) {
  const client = await cluster.client(index)
  const reply = await ask(client, Op.FORCE_RECOVER, ROOM)
  client.close()
  return reply
}

const all = (value: number): number[] => Array.from({ length: COUNT }, () => value)

test('a cluster waits for every node of its last epoch, and clients are told so', async (t) => {
  const cluster = await withData({ nodes: 3 })
  stopAll(cluster)
  await bootOnly(cluster, 0, 2)
  const client = await cluster.client(0)
  t.is((await ask(client, Op.STAT_SHEEP)).result, Code.WAIT_FOR_JOIN)
  await t.throwsAsync(cluster.source(2).open('Alice'), { message: /[Ww]aiting for other nodes/ })
  await cluster.boot(1)
  await cluster.settle()
  t.is(cluster.node(0).state.epoch, 1)
  t.deepEqual(await look(cluster, 0), all(1))
  cluster.close()
})

test('after a shutdown in order the epoch stays, and nothing is looked for', async (t) => {
  const cluster = await withData({ nodes: 3 })
  // The record of writes that were under way is given back a while after the last one.
  await cluster.clock.sleep(60_000)
  const client = await cluster.client(0)
  t.is((await ask(client, Op.SHUTDOWN)).result, Code.SUCCESS)
  await cluster.clock.until('all to be gone', () => cluster.up().length === 0)
  await bootOnly(cluster, 2, 1, 0)
  await cluster.settle()
  t.is(cluster.node(0).state.epoch, 1)
  t.deepEqual(
    cluster.logged.filter((line) => line.includes('recovery.start')),
    [],
  )
  t.deepEqual(await look(cluster, 1), all(1))
  cluster.close()
})

test('forcing is refused while the cluster runs, and where nothing is known', async (t) => {
  const cluster = await withData({ nodes: 2 })
  t.is((await force(cluster, 0)).result, Code.FORCE_RECOVER)
  t.is(cluster.node(0).state.epoch, 1)
  cluster.close()
  const fresh = await SmallCluster.start({ nodes: 2, format: false })
  t.is((await force(fresh, 0)).result, Code.FORCE_RECOVER)
  fresh.close()
})

test('by force a cluster starts without a node: what had another copy is whole', async (t) => {
  await withSeeds(4, async (seed) => {
    const cluster = await withData({ nodes: 3, copies: 2, seed })
    stopAll(cluster)
    const missing = cluster.dice.below(3)
    const rest = [0, 1, 2].filter((index) => index !== missing)
    await bootOnly(cluster, ...rest)
    const reply = await force(cluster, rest[1]!)
    t.is(reply.result, Code.SUCCESS)
    t.deepEqual(
      decodeNodes(reply.body, 3).map(({ port }) => port),
      [7000, 7001, 7002],
    )
    await cluster.settle()
    t.deepEqual(await look(cluster, rest[0]!), all(1))
    t.deepEqual(await cluster.copyFaults(), [])
    t.deepEqual(
      rest.map((index) => cluster.node(index).state.epoch),
      [2, 2],
    )
    await fill(cluster, rest[0]!, 2)
    await cluster.boot(missing)
    await cluster.settle()
    t.deepEqual(await look(cluster, missing), all(2))
    t.deepEqual(await cluster.copyFaults(), [])
    cluster.close()
  })
})

/** Node 0 is a gateway; 1 and 2 have the newer data, 3 alone is left with the older. */
async function onlyOlder(seed: number) {
  const cluster = await withData({
    ...{ nodes: 4, copies: 3, seed },
    role: (index) => ({ kind: index === 0 ? 'gateway' : 'automatic' }),
  })
  cluster.kill(3)
  await cluster.clock.until('the next epoch', () => cluster.node(0).state.epoch === 2)
  await cluster.settle()
  // Never gathered: the older copies are still what 3 comes back with.
  await fill(cluster, 0, 2)
  stopAll(cluster)
  await bootOnly(cluster, 0, 3)
  return cluster
}

test('by force older copies count, and each of them is named (defect C26)', async (t) => {
  await withSeeds(3, async (seed) => {
    const cluster = await onlyOlder(seed)
    await cluster.clock.sleep(60_000)
    t.is(cluster.node(3).state.status, 'wait')
    t.is((await force(cluster, 3)).result, Code.SUCCESS)
    await cluster.settle()
    const found = await look(cluster, 0)
    t.deepEqual(found, all(1))
    const named = cluster.logged.filter((line) => line.includes('object.older-copy'))
    t.true(named.length > COUNT, named.join('\n'))
    t.true(named.every((line) => line.includes('epoch=1') && line.includes('newestLost=2')))
    cluster.close()
  })
})

test('what was decided by force outlives restarts, and who comes back late changes nothing', async (t) => {
  const cluster = await onlyOlder(1)
  await force(cluster, 0)
  await cluster.clock.until('the forced epoch', () => cluster.node(3).state.epoch === 3)
  // Nothing may have been fetched yet: the decision is on disk all the same.
  stopAll(cluster)
  await bootOnly(cluster, 0, 3)
  await cluster.settle()
  t.deepEqual(await look(cluster, 0), all(1))
  await bootOnly(cluster, 1, 2)
  await cluster.settle()
  t.deepEqual(await look(cluster, 1), all(1))
  t.deepEqual(await cluster.copyFaults(), [])
  cluster.close()
})

test('without force an older copy never counts: the objects wait for their nodes', async (t) => {
  const cluster = await onlyOlder(2)
  await bootOnly(cluster, 1)
  await bootOnly(cluster, 2)
  await cluster.settle()
  t.deepEqual(await look(cluster, 3), all(2))
  t.deepEqual(await cluster.copyFaults(), [])
  cluster.close()
})

test('two halves that were both forced do not come together again (defect C14)', async (t) => {
  const cluster = await withData({ nodes: 2, copies: 2 })
  stopAll(cluster)
  await bootOnly(cluster, 0)
  t.is((await force(cluster, 0)).result, Code.SUCCESS)
  await cluster.settle()
  stopAll(cluster)
  await bootOnly(cluster, 1)
  t.is((await force(cluster, 1)).result, Code.SUCCESS)
  await cluster.settle()
  const { joined } = await cluster.launch(0)
  const error = await t.throwsAsync(joined)
  t.regex(error.message, /split.*empty directory/)
  t.is(cluster.node(1).state.epoch, 2)
  t.deepEqual(await look(cluster, 1), all(1))
  cluster.close()
})
