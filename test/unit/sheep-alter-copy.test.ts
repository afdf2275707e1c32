// Volumes whose number of copies changes while they are used, and while nodes die.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { asVid, inodeOid, oidVid, type Vid } from '../../src/model/oid.js'
import type { SheepClient } from '../../src/peer/client.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { decodeClusterDefault } from '../../src/wire/sheepdog/replies.js'
import { clusterRequest, plainRequest, vdiStateRequest } from '../../src/wire/sheepdog/requests.js'
import { BlockWriter } from './support/block-writer.js'
import { withSeeds } from './support/seeds.js'
import { newVdi, writeObject } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { read, write } from './support/volume-io.js'

const OBJECT = 1 << 20
const COUNT = 6
/** Where an inode keeps the number of copies (objects spec, section 4.1). */
const COPIES_OFFSET = 554

function alter(client: SheepClient, newVid: Vid, copies: number) {
  const fields = { newVid, copies, oldVid: asVid(0), setBitmap: false, policy: 0 }
  return client.call(vdiStateRequest({ opcode: Op.ALTER_VDI_COPY, ...fields, blockSizeShift: 20 }))
}

async function withDisk(copies: number, seed: number) {
  const cluster = await SmallCluster.start({ nodes: 4, copies, seed })
  const client = await cluster.client(0)
  const vid = await newVdi(client, 'Alice', COUNT * OBJECT)
  const disk = await cluster.source(0).open('Alice')
  return { cluster, client, vid, disk }
}

/** How many nodes hold each object of the volume. */
function holders(cluster: SmallCluster, vid: Vid): number[] {
  const oids = cluster.objects('inode', 'data').filter((oid) => oidVid(oid) === vid)
  const nodes = cluster.up().map((index) => cluster.node(index).store)
  return oids.map((oid) => nodes.filter((store) => store.has(oid)).length)
}

test('copies are raised and lowered under a disk in use', async (t) => {
  await withSeeds(3, async (seed) => {
    const { cluster, client, vid, disk } = await withDisk(2, seed)
    const writer = new BlockWriter(disk, cluster.dice, 24)
    writer.start()
    for (const copies of [3, 1, 4]) {
      const before = writer.acknowledged
      await cluster.clock.until('some writes', () => writer.acknowledged > before + 20)
      t.is((await alter(client, vid, copies)).result, Code.SUCCESS)
      await cluster.settle()
      const then = writer.acknowledged
      await cluster.clock.until('more writes', () => writer.acknowledged > then + 10)
      t.true(
        holders(cluster, vid).every((count) => count === copies),
        `SEED=${seed} ${copies}: ${holders(cluster, vid)}`,
      )
    }
    await writer.stop()
    await cluster.settle()
    t.deepEqual(writer.failures, [], `SEED=${seed}`)
    t.deepEqual(writer.faults(await writer.look(disk)), [], `SEED=${seed}`)
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    t.is(cluster.node(0).state.epoch, 4)
    cluster.close()
  })
})

test('an owner that is new and lacks an object does not make an older copy count', async (t) => {
  await withSeeds(4, async (seed) => {
    const { cluster, client, vid, disk } = await withDisk(2, seed)
    for (let i = 0; i < COUNT; i++) await write(disk, i * OBJECT, Buffer.alloc(4096, 1), true)
    // An older copy on node 3, which is away while the newer bytes are written.
    cluster.kill(3)
    await cluster.clock.until('to be three', () => cluster.node(0).state.members.length === 3)
    for (let i = 0; i < COUNT; i++) await write(disk, i * OBJECT, Buffer.alloc(4096, 2), true)
    t.is((await alter(client, vid, 3)).result, Code.SUCCESS)
    await cluster.clock.until('the epoch', () => cluster.node(0).state.epoch === 3)
    // Before the new owner has anything the old ones are gone, for a while.
    cluster.kill(1)
    cluster.kill(2)
    await cluster.boot(3)
    await cluster.clock.sleep(30_000)
    for (let i = 0; i < COUNT; i++) {
      const waited = cluster.clock.sleep(2_000).then(() => 'waits')
      const found = await Promise.race([read(disk, i * OBJECT, 1), waited])
      const isHonest = Buffer.isBuffer(found) ? found[0] === 2 : found === 'waits'
      t.true(isHonest, `SEED=${seed} object ${i}: ${Buffer.isBuffer(found) ? found[0] : found}`)
    }
    await cluster.boot(1)
    await cluster.boot(2)
    await cluster.settle()
    for (let i = 0; i < COUNT; i++) {
      const found = await read(disk, i * OBJECT, 1)
      t.deepEqual(found, Buffer.alloc(1, 2), `SEED=${seed} object ${i}`)
    }
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('the fewest copies there were is remembered until everybody has everything', async (t) => {
  const { cluster, client, vid } = await withDisk(2, 1)
  const least = (index: number) => cluster.node(index).state.vids.get(vid)?.leastCopies
  await alter(client, vid, 4)
  await cluster.clock.until('the epoch', () => cluster.node(0).state.epoch === 2)
  t.is(least(0), 2)
  const copies = Buffer.from([4])
  t.is((await writeObject(client, inodeOid(vid), COPIES_OFFSET, copies)).result, Code.SUCCESS)
  await cluster.cutPower()
  await cluster.settle()
  t.is(least(1), undefined)
  t.is(cluster.node(1).state.copiesOf(vid), 4)
  t.true(holders(cluster, vid).every((count) => count === 4))
  cluster.close()
})

test('what cannot be altered is refused by name', async (t) => {
  const { cluster, client, vid } = await withDisk(2, 1)
  t.is((await alter(client, asVid(77), 3)).result, Code.NO_VDI)
  t.is((await alter(client, vid, 0)).result, Code.INVALID_PARMS)
  t.is((await alter(client, vid, 32)).result, Code.INVALID_PARMS)
  t.is((await alter(client, vid, 2)).result, Code.SUCCESS)
  await cluster.clock.sleep(1000)
  t.is(cluster.node(0).state.epoch, 1)
  cluster.close()
})

test('the default of new volumes changes on every node and outlives a restart', async (t) => {
  const { cluster, client, vid, disk } = await withDisk(2, 1)
  const head = (copies: number, policy = 0) =>
    clusterRequest({ opcode: Op.ALTER_CLUSTER_COPY, copies, policy, flags: Flag.WRITE })
  t.is((await client.call(head(6, 0x22))).result, Code.NO_SUPPORT)
  t.is((await client.call(head(0))).result, Code.INVALID_PARMS)
  t.is((await client.call(head(3))).result, Code.SUCCESS)
  await disk.close()
  await cluster.cutPower()
  const late = cluster.addMachine()
  await cluster.boot(late)
  await cluster.settle()
  const asked = await cluster.client(late)
  const reply = await asked.call(plainRequest({ opcode: Op.GET_CLUSTER_DEFAULT }))
  t.is(decodeClusterDefault(reply).copies, 3)
  t.is(cluster.node(2).state.copiesOf(vid), 2)
  const bob = await newVdi(asked, 'Bob', OBJECT)
  t.is(cluster.node(1).state.copiesOf(bob), 3)
  cluster.close()
})
