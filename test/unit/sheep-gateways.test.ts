// Nodes without storage, nodes with a number of vnodes of their own, and weights that change while a disk is used.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import type { Role } from '../../src/sheep/role.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { decodeNodeReply } from '../../src/wire/sheepdog/replies.js'
import { plainRequest } from '../../src/wire/sheepdog/requests.js'
import { BlockWriter } from './support/block-writer.js'
import { withSeeds } from './support/seeds.js'
import { ask, newVdi, snapshot } from './support/sheep-wire.js'
import { SmallCluster, type SmallClusterOptions } from './support/small-cluster.js'
import { read, write } from './support/volume-io.js'

const OBJECT = 1 << 20
const SIZE = 8 * OBJECT
const GATEWAY: Role = { kind: 'gateway' }
const AUTOMATIC: Role = { kind: 'automatic' }

const firstIsGateway = (index: number): Role => (index === 0 ? GATEWAY : AUTOMATIC)

async function withDisk(options: SmallClusterOptions) {
  const cluster = await SmallCluster.start(options)
  const client = await cluster.client(0)
  await newVdi(client, 'Alice', SIZE)
  const disk = await cluster.source(0).open('Alice')
  return { cluster, client, disk }
}

function objectsOn(cluster: SmallCluster, index: number): number {
  return cluster.node(index).store.list().length
}

test('a gateway serves disks, keeps no object, and looks after the cluster when it is the first', async (t) => {
  await withSeeds(4, async (seed) => {
    const { cluster, client, disk } = await withDisk({ seed, nodes: 4, role: firstIsGateway })
    const writer = new BlockWriter(disk, cluster.dice, 32)
    writer.start()
    await cluster.clock.until('some writes', () => writer.acknowledged > 20)
    await snapshot(client, 'Alice')
    cluster.kill(2)
    const before = writer.acknowledged
    await cluster.clock.until('more writes', () => writer.acknowledged > before + 20)
    await cluster.boot(2)
    await writer.stop()
    await cluster.settle()
    t.deepEqual(writer.failures, [], `SEED=${seed}`)
    t.deepEqual(writer.faults(await writer.look(disk)), [], `SEED=${seed}`)
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    t.is(objectsOn(cluster, 0), 0)
    t.deepEqual(
      cluster.node(0).state.epochNodes.map(({ vnodes }) => vnodes),
      [0, 128, 128, 128],
    )
    const told = decodeNodeReply(await ask(client, Op.STAT_SHEEP))
    t.deepEqual([told.storeBytes, told.freeBytes], [0, 0])
    cluster.close()
  })
})

test('a format with gateways present is over at once, everywhere', async (t) => {
  const cluster = await SmallCluster.start({
    ...{ nodes: 4, format: false },
    role: (index) => (index % 2 === 0 ? GATEWAY : AUTOMATIC),
  })
  const before = cluster.clock.now()
  await cluster.format()
  t.true(cluster.clock.now() - before < 10_000)
  for (const index of cluster.up()) t.is(cluster.node(index).state.status, 'ok')
  cluster.close()
})

test('gateways outlive the last storage node: they refuse, and go on when it is back', async (t) => {
  await withSeeds(3, async (seed) => {
    const options = { seed, nodes: 3, copies: 2, role: firstIsGateway }
    const { cluster, disk } = await withDisk(options)
    const bytes = Buffer.alloc(4096, 7)
    t.is(await write(disk, 5 * OBJECT, bytes, true), Code.SUCCESS)
    await cluster.stop(1)
    await cluster.stop(2)
    await cluster.clock.until('to be alone', () => cluster.node(0).state.members.length === 1)
    t.is(await read(disk, 5 * OBJECT, 4096), Code.HALT)
    t.is(await write(disk, 5 * OBJECT, bytes), Code.HALT)
    t.deepEqual(cluster.failures(), [])
    await cluster.clock.sleep(20_000)
    await cluster.boot(2)
    t.deepEqual(await read(disk, 5 * OBJECT, 4096), bytes)
    await cluster.boot(1)
    await cluster.settle()
    t.deepEqual(await cluster.copyFaults(), [])
    t.is(await write(disk, 5 * OBJECT, Buffer.alloc(4096, 8), true), Code.SUCCESS)
    cluster.close()
  })
})

test('a storage node that comes back as a gateway hands over what it had', async (t) => {
  const { cluster, disk } = await withDisk({ nodes: 4, copies: 2, role: firstIsGateway })
  for (let i = 0; i < 8; i++) {
    t.is(await write(disk, i * OBJECT, Buffer.alloc(4096, i + 1), true), Code.SUCCESS)
  }
  cluster.machines[1]!.role = GATEWAY
  await disk.close()
  await cluster.cutPower()
  t.is(cluster.node(0).state.epoch, 2)
  const again = await cluster.source(1).open('Alice')
  for (let i = 0; i < 8; i++) {
    t.deepEqual(await read(again, i * OBJECT, 4096), Buffer.alloc(4096, i + 1))
  }
  t.deepEqual(await cluster.copyFaults(), [])
  t.is(objectsOn(cluster, 1), 0)
  cluster.close()
})

test('nodes in one zone never hold two copies of an object between them', async (t) => {
  const zone = (index: number): number => [1, 1, 2, 3][index]!
  const { cluster, disk } = await withDisk({ nodes: 4, copies: 2, zone })
  for (let i = 0; i < 8; i++) await write(disk, i * OBJECT, Buffer.alloc(4096, 1), true)
  const shared = cluster
    .node(0)
    .store.list()
    .filter((oid) => cluster.node(1).store.has(oid))
  t.deepEqual(shared, [])
  cluster.kill(2)
  await cluster.clock.sleep(20)
  await cluster.settle()
  t.deepEqual(await cluster.copyFaults(), [])
  cluster.kill(3)
  await cluster.clock.sleep(20)
  await cluster.settle()
  t.deepEqual(await cluster.copyFaults(), [])
  for (let i = 0; i < 8; i++) t.deepEqual(await read(disk, i * OBJECT, 1), Buffer.alloc(1, 1))
  cluster.close()
})

const fixed = (vnodes: number): Role => ({ kind: 'fixed', vnodes })

function setVnodes(vnodes: number): [Buffer, Buffer] {
  const body = Buffer.alloc(4)
  body.writeInt32LE(vnodes)
  return [plainRequest({ opcode: Op.SET_VNODES, flags: Flag.WRITE, dataLength: 4 }), body]
}

test('fixed vnodes are kept as given, and a new number moves objects in a new epoch', async (t) => {
  const numbers = [64, 200, 128]
  const { cluster, client, disk } = await withDisk({ role: (index) => fixed(numbers[index]!) })
  const vnodes = (): number[] => cluster.node(1).state.epochNodes.map((node) => node.vnodes)
  t.deepEqual(vnodes(), numbers)
  for (let i = 0; i < 8; i++) await write(disk, i * OBJECT, Buffer.alloc(4096, i + 1), true)
  t.is((await client.call(...setVnodes(0))).result, Code.INVALID_PARMS)
  t.is((await client.call(...setVnodes(65536))).result, Code.INVALID_PARMS)
  t.is((await client.call(...setVnodes(1))).result, Code.SUCCESS)
  await cluster.clock.until('the new epoch', () => cluster.node(1).state.epoch === 2)
  await cluster.settle()
  t.deepEqual(vnodes(), [1, 200, 128])
  t.is(cluster.node(0).state.self.vnodes, 1)
  t.deepEqual(await cluster.copyFaults(), [])
  for (let i = 0; i < 8; i++) t.deepEqual(await read(disk, i * OBJECT, 1), Buffer.alloc(1, i + 1))
  cluster.close()
})

test('the number of vnodes cannot be set where it is computed, nor on a gateway', async (t) => {
  const { cluster, client } = await withDisk({ nodes: 3, role: firstIsGateway })
  t.is((await client.call(...setVnodes(10))).result, Code.GATEWAY_MODE)
  const storing = await cluster.client(1)
  t.is((await storing.call(...setVnodes(10))).result, Code.INVALID_VNODES_STRATEGY)
  t.is(cluster.node(1).state.epoch, 1)
  cluster.close()
})

test('a joiner with the wrong strategy is turned away and costs no epoch', async (t) => {
  const { cluster } = await withDisk({ nodes: 3 })
  const index = cluster.addMachine()
  cluster.machines[index]!.role = fixed(64)
  const { joined } = await cluster.launch(index)
  const error = await t.throwsAsync(joined)
  t.regex(error.message, /start without -V/)
  await cluster.clock.sleep(1000)
  t.is(cluster.node(0).state.epoch, 1)
  t.is(cluster.node(0).state.members.length, 3)
  cluster.close()
})

test('reweighting measures the disks, and only a real difference moves objects', async (t) => {
  const { cluster, client, disk } = await withDisk({ nodes: 3 })
  for (let i = 0; i < 8; i++) await write(disk, i * OBJECT, Buffer.alloc(4096, i + 1), true)
  t.is((await ask(client, Op.REWEIGHT)).result, Code.SUCCESS)
  await cluster.clock.sleep(1000)
  t.is(cluster.node(0).state.epoch, 1)
  cluster.machines[2]!.files.totalBytes /= 2
  t.is((await ask(client, Op.REWEIGHT)).result, Code.SUCCESS)
  await cluster.clock.until('the new epoch', () => cluster.node(0).state.epoch === 2)
  await cluster.settle()
  const weights = cluster.node(0).state.epochNodes.map(({ vnodes }) => vnodes)
  t.deepEqual(weights, [154, 154, 77])
  t.deepEqual(await cluster.copyFaults(), [])
  await disk.close()
  await cluster.cutPower()
  t.is(cluster.node(0).state.epoch, 2)
  cluster.close()
})
