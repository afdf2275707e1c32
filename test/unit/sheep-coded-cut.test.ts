// Writes of coded volumes that are cut off by the death of their gateway, or of everybody: fragments must fit each other.
import test from 'ava'
import { BlockWriter } from './support/block-writer.js'
import { codedFaults } from './support/coded-faults.js'
import { withSeeds } from './support/seeds.js'
import { newVdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const SIZE = 2 << 20

async function inUse(seed: number, nodes = 6) {
  const cluster = await SmallCluster.start({ seed, nodes, policy: 0x22 })
  const client = await cluster.client(1)
  await newVdi(client, 'e1', SIZE)
  client.close()
  const writer = new BlockWriter(await cluster.source(0).open('e1'), cluster.dice, 16)
  writer.start(8)
  await cluster.clock.until('some writes', () => writer.acknowledged > 20 + seed)
  return { cluster, writer }
}

test('after the death of a gateway with writes under way all fragments are of one encoding', async (t) => {
  await withSeeds(2, async (seed) => {
    const { cluster } = await inUse(seed)
    cluster.kill(0)
    if (seed % 2 === 0) await cluster.clock.sleep(300)
    await cluster.boot(0)
    await cluster.settle()
    t.deepEqual(await codedFaults(cluster), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('after the loss of power of everybody all fragments are of one encoding', async (t) => {
  await withSeeds(2, async (seed) => {
    const { cluster } = await inUse(seed)
    await cluster.cutPower(0.5)
    t.deepEqual(await codedFaults(cluster), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('nodes that return while fragments are still being moved bring no other encoding back', async (t) => {
  await withSeeds(4, async (seed) => {
    const { cluster } = await inUse(seed, 7)
    const { dice, clock } = cluster
    // Too few nodes are left; one without any fragment comes, and those that have older ones soon after it.
    const second = 1 + dice.below(6)
    cluster.kill(0)
    await clock.sleep(dice.below(200))
    cluster.kill(second)
    await clock.sleep(dice.below(1000))
    await cluster.boot(cluster.addMachine())
    await clock.sleep(dice.below(300))
    await cluster.boot(0)
    if (dice.chance(0.5)) await clock.sleep(dice.below(300))
    await cluster.boot(second)
    await cluster.settle()
    t.deepEqual(await codedFaults(cluster), [], `SEED=${seed}`)
    cluster.close()
  })
})
