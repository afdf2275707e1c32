// The recovery engine on whole nodes: held off and let go on, throttled, interrupted, started again.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import type { Oid } from '../../src/model/oid.js'
import type { Volume } from '../../src/volume/volume.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { decodeEpochLogRecord } from '../../src/wire/sheepdog/records.js'
import { clusterRequest } from '../../src/wire/sheepdog/requests.js'
import { ask, newVdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { read, write } from './support/volume-io.js'

const OBJECT = 1 << 20
const OBJECTS = 24

async function filled(nodes = 3, copies = 2): Promise<{ cluster: SmallCluster; disk: Volume }> {
  const cluster = await SmallCluster.start({ nodes, copies })
  const client = await cluster.client(0)
  await newVdi(client, 'Alice', OBJECTS * OBJECT)
  client.close()
  const disk = await cluster.source(0).open('Alice')
  for (let i = 0; i < OBJECTS; i++) {
    const code = await write(disk, i * OBJECT, Buffer.from(`object ${i}`))
    if (code !== Code.SUCCESS) throw new Error(`object ${i}: ${code}`)
  }
  return { cluster, disk }
}

async function faults(disk: Volume): Promise<string[]> {
  const found: string[] = []
  for (let i = 0; i < OBJECTS; i++) {
    const content = Buffer.from(`object ${i}`)
    const bytes = await read(disk, i * OBJECT, content.length)
    if (!Buffer.isBuffer(bytes) || !bytes.equals(content)) found.push(`${i}: ${bytes}`)
  }
  return found
}

async function tell(cluster: SmallCluster, opcode: number): Promise<void> {
  const client = await cluster.client(0)
  const { result } = await ask(client, opcode)
  if (result !== Code.SUCCESS) throw new Error(`result ${result}`)
  client.close()
}

/** Disabled or not as `dog cluster info` of that node shows it. */
async function isDisabled(cluster: SmallCluster, index: number): Promise<boolean> {
  const client = await cluster.client(index)
  const head = clusterRequest({
    opcode: Op.STAT_CLUSTER,
    dataLength: 48 + 80 * 16,
    nodeSlots: 16,
  })
  const reply = await client.call(head)
  client.close()
  return decodeEpochLogRecord(reply.body, 16).recoveryDisabled
}

const owned = (cluster: SmallCluster, index: number): Oid[] => {
  const { state, store } = cluster.node(index)
  const all = cluster.objects('data')
  const isOwner = (oid: Oid): boolean =>
    state.owners(oid, 0 as never).some((node) => state.isSelf(node))
  return all.filter((oid) => isOwner(oid) && !store.has(oid))
}

test('held off, nothing moves by itself, and what is used comes all the same', async (t) => {
  const { cluster, disk } = await filled()
  await tell(cluster, Op.DISABLE_RECOVER)
  const joiner = cluster.addMachine()
  await cluster.boot(joiner)
  await cluster.clock.sleep(60_000)
  const { store, recovery } = cluster.node(joiner)
  t.deepEqual(store.listWorking(), [])
  t.true(recovery.progress().inRecovery)
  t.is(recovery.progress().finished, 0)
  t.true(recovery.progress().total > 0)
  for (const index of cluster.up()) t.true(await isDisabled(cluster, index), `node ${index}`)

  const lacking = owned(cluster, joiner)
  t.true(lacking.length > 2)
  t.deepEqual(await faults(disk), [])
  for (let i = 0; i < OBJECTS; i++) {
    t.is(await write(disk, i * OBJECT + 4096, Buffer.from('new')), Code.SUCCESS)
  }
  t.deepEqual(owned(cluster, joiner), [], 'what was written to is not there')

  await tell(cluster, Op.ENABLE_RECOVER)
  t.false(await isDisabled(cluster, joiner))
  await cluster.settle()
  t.deepEqual(await faults(disk), [])
  t.deepEqual(await cluster.copyFaults(), [])
  cluster.close()
})

test('held off, a node that dies costs no byte, and the copies come back when it is let go on', async (t) => {
  const { cluster, disk } = await filled(4, 3)
  await tell(cluster, Op.DISABLE_RECOVER)
  cluster.kill(3)
  await cluster.clock.sleep(5_000)
  cluster.kill(2)
  await cluster.clock.sleep(30_000)
  t.deepEqual(await faults(disk), [])
  await tell(cluster, Op.ENABLE_RECOVER)
  await cluster.settle()
  t.deepEqual(await cluster.copyFaults(), [])
  cluster.close()
})

test('holding off ends with the cluster that was told to', async (t) => {
  const { cluster } = await filled()
  await tell(cluster, Op.DISABLE_RECOVER)
  for (const index of cluster.up()) cluster.kill(index)
  const starts = await Promise.all(cluster.machines.map((_, index) => cluster.launch(index)))
  await Promise.all(starts.map(({ joined }) => joined))
  await cluster.settle()
  t.false(await isDisabled(cluster, 0))
  t.deepEqual(await cluster.copyFaults(), [])
  cluster.close()
})

test('an object that cannot be had does not hold up the others', async (t) => {
  const { cluster } = await filled(3, 2)
  const joiner = cluster.addMachine()
  const { files } = cluster.machines[joiner]!
  // The first two that come: with two workers on one disk, nothing would move behind them.
  const refused = new Set<string>()
  files.fault = (operation, path) => {
    if (operation !== 'allocate' || !path.includes('/obj/')) return undefined
    if (refused.size < 2) refused.add(path)
    return refused.has(path) ? 'ENOSPC' : undefined
  }
  await cluster.boot(joiner)
  await cluster.clock.until('the others', () => owned(cluster, joiner).length === 2)
  t.true(cluster.node(joiner).recovery.progress().inRecovery)
  files.fault = () => undefined
  await cluster.settle()
  t.deepEqual(await cluster.copyFaults(), [])
  cluster.close()
})

test('started again in the same epoch it brings back what went missing', async (t) => {
  const { cluster, disk } = await filled()
  const { store, recovery, state } = cluster.node(1)
  await store.format()
  t.deepEqual(store.listWorking(), [])
  recovery.restart({ lost: true })
  await cluster.settle()
  t.is(state.epoch, 1)
  t.deepEqual(await cluster.copyFaults(), [])
  t.deepEqual(await faults(disk), [])
  cluster.close()
})
