// Nodes that were away have something to bring back, also after the others have recovered all they know of.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { withSeeds } from './support/seeds.js'
import { newVdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { read, write } from './support/volume-io.js'

const OBJECT = 1 << 20
const COUNT = 8

async function withData(nodes: number, copies: number, seed: number) {
  const cluster = await SmallCluster.start({ nodes, copies, seed })
  const client = await cluster.client(0)
  await newVdi(client, 'Alice', COUNT * OBJECT)
  client.close()
  const disk = await cluster.source(0).open('Alice')
  for (let i = 0; i < COUNT; i++) {
    await write(disk, i * OBJECT, Buffer.alloc(4096, i + 1), true)
  }
  await disk.close()
  return cluster
}

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

test('both holders of objects die, the others recover what is left; back again, they have everything', async (t) => {
  await withSeeds(4, async (seed) => {
    const cluster = await withData(4, 2, seed)
    cluster.kill(1)
    cluster.kill(2)
    await cluster.clock.until('to be two', () => cluster.node(0).state.members.length === 2)
    await cluster.clock.sleep(60_000)
    await cluster.boot(2)
    await cluster.clock.sleep(60_000)
    await cluster.boot(1)
    await cluster.settle()
    const expected = Array.from({ length: COUNT }, (_, i) => i + 1)
    t.deepEqual(await look(cluster, 3), expected, `SEED=${seed}`)
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('the last storage nodes leave one after the other and come back in the other order', async (t) => {
  await withSeeds(2, async (seed) => {
    const cluster = await SmallCluster.start({
      ...{ nodes: 4, copies: 2, seed },
      role: (index) => ({ kind: index === 0 ? 'gateway' : 'automatic' }),
    })
    const client = await cluster.client(0)
    await newVdi(client, 'Alice', COUNT * OBJECT)
    const disk = await cluster.source(0).open('Alice')
    for (let i = 0; i < COUNT; i++) {
      t.is(await write(disk, i * OBJECT, Buffer.alloc(4096, i + 1), true), Code.SUCCESS)
    }
    await disk.close()
    for (const index of [1, 2, 3]) await cluster.stop(index)
    await cluster.clock.sleep(10_000)
    for (const index of [3, 2, 1]) {
      await cluster.boot(index)
      await cluster.clock.sleep(20_000)
    }
    await cluster.settle()
    t.deepEqual(
      await look(cluster, 1),
      Array.from({ length: COUNT }, (_, i) => i + 1),
      `SEED=${seed}`,
    )
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    cluster.close()
  })
})
