// A block device whose objects are cached: snapshots taken under it, nodes that die, power cuts.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import type { Role } from '../../src/sheep/role.js'
import { BlockWriter } from './support/block-writer.js'
import { withSeeds } from './support/seeds.js'
import { newVdi, snapshot } from './support/sheep-wire.js'
import { SmallCluster, type SmallClusterOptions } from './support/small-cluster.js'
import { discard, flush, read, write } from './support/volume-io.js'

const OBJECT = 1 << 20
const SIZE = 8 * OBJECT
const AUTOMATIC: Role = { kind: 'automatic' }
const GATEWAY: Role = { kind: 'gateway' }

/** The first node stores nothing and caches, less than the disk has. */
async function withDisk(options: SmallClusterOptions) {
  const cluster = await SmallCluster.start({
    nodes: 4,
    role: (index) => (index === 0 ? GATEWAY : AUTOMATIC),
    cacheBytes: (index) => (index === 0 ? 5 * OBJECT : undefined),
    ...options,
  })
  const client = await cluster.client(1)
  await newVdi(client, 'Alice', SIZE)
  const disk = await cluster.source(0).open('Alice')
  return { cluster, client, disk }
}

function heldSince(cluster: SmallCluster, before: number): boolean {
  return cluster.logged.filter((line) => line.includes('cache.right.taken')).length > before
}

test('a guest writes on through snapshots and dying nodes, and finds what it wrote', async (t) => {
  await withSeeds(3, async (seed) => {
    const { cluster, client, disk } = await withDisk({ seed })
    const writer = new BlockWriter(disk, cluster.dice, 48)
    writer.start()
    await cluster.clock.until('cached writes', () => heldSince(cluster, 0))
    await cluster.clock.until('some writes', () => writer.acknowledged > 100)
    await snapshot(client, 'Alice', 'first')
    cluster.kill(2)
    const before = writer.acknowledged
    await cluster.clock.until('more writes', () => writer.acknowledged > before + 100)
    await cluster.boot(2)
    await writer.stop()
    await writer.flush()
    await cluster.settle()
    t.deepEqual(writer.failures, [], `SEED=${seed}`)
    t.deepEqual(writer.faults(await writer.look(disk)), [], `SEED=${seed}`)
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    t.true(cluster.node(0).cache.info()!.usedBytes <= 5 * OBJECT)
    t.is(cluster.node(1).cache.info(), undefined)
    await disk.close()
    cluster.close()
  })
})

test('a power cut everywhere takes nothing that was flushed', async (t) => {
  await withSeeds(4, async (seed) => {
    const { cluster, disk } = await withDisk({ seed })
    const writer = new BlockWriter(disk, cluster.dice, 48)
    writer.start()
    await cluster.clock.until('cached writes', () => heldSince(cluster, 0))
    for (let round = 0; round < 3; round++) {
      const before = writer.acknowledged
      await cluster.clock.until('writes', () => writer.acknowledged > before + 40)
      await writer.flush()
    }
    await cluster.clock.until('unflushed writes', () => writer.acknowledged > 150)
    await cluster.cutPower(seed % 2)
    const again = await cluster.source(0).open('Alice')
    const found = await writer.look(again)
    t.deepEqual(writer.faults(found, { lost: true }), [], `SEED=${seed}`)
    // Whoever looks again, there or elsewhere, finds the same.
    await again.close()
    const elsewhere = await cluster.source(3).open('Alice')
    t.deepEqual(await writer.look(elsewhere), found, `SEED=${seed}`)
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('what is discarded and written again has nothing of before, cached or not', async (t) => {
  await withSeeds(2, async (seed) => {
    const { cluster, disk } = await withDisk({ seed })
    const before = Buffer.alloc(OBJECT, 1)
    t.is(await write(disk, 0, before), Code.SUCCESS)
    t.is(await write(disk, 0, Buffer.alloc(4096, 2)), Code.SUCCESS)
    await cluster.clock.until('cached writes', () => heldSince(cluster, 0))
    t.is(await write(disk, 8192, Buffer.alloc(4096, 3)), Code.SUCCESS)
    t.is(await discard(disk, 0, OBJECT), Code.SUCCESS)
    t.deepEqual(await read(disk, 0, 4096), Buffer.alloc(4096))
    t.is(await write(disk, 512, Buffer.alloc(512, 4)), Code.SUCCESS)
    t.is(await write(disk, 1024, Buffer.alloc(512, 5)), Code.SUCCESS)
    t.is(await flush(disk), Code.SUCCESS)
    const expected = Buffer.alloc(OBJECT)
    expected.fill(4, 512, 1024).fill(5, 1024, 1536)
    t.deepEqual(await read(disk, 0, OBJECT), expected)
    await disk.close()
    const elsewhere = await cluster.source(2).open('Alice')
    t.deepEqual(await read(elsewhere, 0, OBJECT), expected)
    cluster.close()
  })
})

/** A node to spare, besides the one that caches. */
const CODED: SmallClusterOptions = { nodes: 8, copies: 6, policy: 0x22 }

test('4:2: a guest writes on through snapshots and dying nodes, and finds what it wrote', async (t) => {
  await withSeeds(1, async (seed) => {
    const { cluster, client, disk } = await withDisk({ seed, ...CODED })
    const writer = new BlockWriter(disk, cluster.dice, 48)
    writer.start()
    await cluster.clock.until('cached writes', () => heldSince(cluster, 0))
    await cluster.clock.until('some writes', () => writer.acknowledged > 100)
    await snapshot(client, 'Alice', 'first')
    cluster.kill(2)
    const before = writer.acknowledged
    await cluster.clock.until('more writes', () => writer.acknowledged > before + 100)
    await cluster.boot(2)
    await writer.stop()
    await writer.flush()
    await cluster.settle()
    t.deepEqual(writer.failures, [], `SEED=${seed}`)
    const found = await writer.look(disk)
    t.deepEqual(writer.faults(found), [], `SEED=${seed}`)
    await disk.close()
    // Past the cache, and with two fragments missing of every object.
    cluster.kill(4)
    cluster.kill(5)
    const elsewhere = await cluster.source(3).open('Alice')
    t.deepEqual(await writer.look(elsewhere), found, `SEED=${seed}`)
    cluster.close()
  })
})

test('4:2: what was flushed through the cache survives a power cut everywhere', async (t) => {
  await withSeeds(1, async (seed) => {
    const { cluster, disk } = await withDisk({ seed, ...CODED })
    const writer = new BlockWriter(disk, cluster.dice, 48)
    writer.start()
    await cluster.clock.until('cached writes', () => heldSince(cluster, 0))
    await cluster.clock.until('some writes', () => writer.acknowledged > 150)
    await writer.stop()
    await writer.flush()
    await cluster.cutPower(1)
    const elsewhere = await cluster.source(3).open('Alice')
    t.deepEqual(writer.faults(await writer.look(elsewhere)), [], `SEED=${seed}`)
    t.deepEqual(cluster.failures(), [])
    cluster.close()
  })
})
