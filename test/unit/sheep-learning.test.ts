// Joiners learn volumes and locks from members; some of those may be joiners themselves, who have heard half of it.
import test from 'ava'
import { withSeeds } from './support/seeds.js'
import { newVdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const SIZE = 64 << 20

test('a lock that ended while two nodes were learning is held by nobody, as every node sees it', async (t) => {
  await withSeeds(6, async (seed) => {
    const cluster = await SmallCluster.start({ seed, nodes: 4, copies: 3 })
    const client = await cluster.client(0)
    const vid = await newVdi(client, 'alice', SIZE)
    await cluster.source(2).open('alice')
    await cluster.kill(3)
    await cluster.settle()
    // The joiner hears of the lock from node 0, and then waits for node 1: TCP tries again only after a while.
    cluster.card(1).isCut = true
    const joined = cluster.boot(3)
    await cluster.clock.sleep(500)
    await cluster.kill(2)
    cluster.card(1).isCut = false
    await Promise.all([joined, cluster.boot(2)])
    await cluster.settle()
    const seen = cluster.up().map((index) => cluster.node(index).locks.of(vid).state)
    t.deepEqual(seen, ['unlocked', 'unlocked', 'unlocked', 'unlocked'], `seed ${seed}`)
    cluster.close()
  })
})
