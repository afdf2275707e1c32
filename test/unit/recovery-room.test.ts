// Nodes that come back to a cluster with hardly any room on their disks.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { withSeeds } from './support/seeds.js'
import { newVdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { write } from './support/volume-io.js'

const OBJECT = 1 << 20
const COUNT = 12

// With writes on record its copies are doubtful, and taken over from the others: as whole objects beside what was there,
// which had no room, so that the cluster's recovery never ended.
test('a node killed while written to needs no second room for what it had', async (t) => {
  await withSeeds(3, async (seed) => {
    const cluster = await SmallCluster.start({ nodes: 3, copies: 3, seed })
    const client = await cluster.client(0)
    await newVdi(client, 'Alice', COUNT * OBJECT)
    client.close()
    const disk = await cluster.source(0).open('Alice')
    for (let i = 0; i < COUNT; i++) {
      t.is(await write(disk, i * OBJECT, Buffer.alloc(4096, i + 1), true), Code.SUCCESS)
    }
    cluster.kill(2)
    await cluster.clock.until('an epoch without it', () => cluster.node(0).state.epoch === 2)
    const { files } = cluster.machines[2]!
    const { totalBytes, freeBytes } = files.space('/')
    // Room for two of its objects, beside what the store keeps for inodes.
    files.totalBytes = Math.ceil(((totalBytes - freeBytes + 2 * OBJECT) * 64) / 63)
    await cluster.boot(2)
    await cluster.settle()
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    await disk.close()
    cluster.close()
  })
})
