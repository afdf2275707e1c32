// An older version of an object must not win silently (defect O20): not when its newest owners are gone, and not
// because a node lost its disk and so lacks what it once had.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { asVid, dataOid, type Oid } from '../../src/model/oid.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { ask, createObject, readObject, writeObject } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const VID = asVid(0xabc)

/** An object of two copies written when machines 0 and 1 were alone, and again by the owners it had then. */
async function writtenOnce(): Promise<{ cluster: SmallCluster; oid: Oid }> {
  const cluster = await SmallCluster.start({ nodes: 3, copies: 2 })
  const { state } = cluster.node(0)
  // Owned by machines 0 and 1 as long as all three are there.
  let oid = dataOid(VID, 0)
  const owners = (): number[] => state.owners(oid, VID).map(({ port }) => port - 7000)
  for (let i = 0; owners().sort().join() !== '0,1'; i++) oid = dataOid(VID, i)
  const client = await cluster.client(0)
  const { result } = await createObject(client, oid, 0, Buffer.from('old'))
  if (result !== Code.SUCCESS) throw new Error(`create: ${result}`)
  client.close()
  return { cluster, oid }
}

async function write(cluster: SmallCluster, index: number, oid: Oid, text: string): Promise<Code> {
  const client = await cluster.client(index)
  const { result } = await writeObject(client, oid, 0, Buffer.from(text))
  client.close()
  return result as Code
}

/** What a client gets; undefined when there is no answer within the time. */
async function read(cluster: SmallCluster, index: number, oid: Oid): Promise<string | number> {
  const client = await cluster.client(index)
  const reply = await Promise.race([
    readObject(client, oid, 0, 3),
    cluster.clock.sleep(20_000).then(() => undefined),
  ])
  client.close()
  if (reply === undefined) return 'no answer'
  return reply.result === Code.SUCCESS ? reply.body.toString() : reply.result
}

/** The disk of a machine that is off is replaced by an empty one. */
async function replaceDisk(cluster: SmallCluster, index: number): Promise<void> {
  const { files } = cluster.machines[index]!
  for (const directory of ['/sheep/obj/.stale', '/sheep/obj', '/sheep/epoch', '/sheep']) {
    if (!files.exists(directory)) continue
    for (const name of await files.readDir(directory)) {
      if (!['obj', 'epoch', '.stale', 'sock'].includes(name)) {
        await files.unlink(`${directory}/${name}`)
      }
    }
  }
}

test('the old copy of a node that was away is not served while whoever had the new one is gone', async (t) => {
  const { cluster, oid } = await writtenOnce()
  cluster.kill(1)
  await cluster.settle()
  t.is(await write(cluster, 0, oid, 'new'), Code.SUCCESS)
  cluster.kill(2)
  await cluster.settle()
  // Only machine 0 has what was written last. It goes, and machine 1 comes back with what was there before.
  cluster.kill(0)
  const starts = await Promise.all([1, 2].map((index) => cluster.launch(index)))
  const up = Promise.all(starts.map(({ joined }) => joined))
  await cluster.clock.sleep(30_000)
  for (const index of [1, 2]) {
    t.not(await read(cluster, index, oid), 'old', `machine ${index}`)
  }
  await cluster.boot(0)
  await up
  await cluster.settle()
  for (const index of [0, 1, 2]) t.is(await read(cluster, index, oid), 'new')
  t.deepEqual(await cluster.copyFaults(), [])
  cluster.close()
})

test('a node whose disk was replaced does not vouch for the absence of what it had', async (t) => {
  const { cluster, oid } = await writtenOnce()
  // Recovery is held off: machine 2 never gets its copy, so only 0 and the disk of 1 have the object.
  const client = await cluster.client(2)
  t.is((await ask(client, Op.DISABLE_RECOVER)).result, Code.SUCCESS)
  client.close()
  cluster.kill(1)
  await cluster.clock.until('an epoch without 1', () => cluster.node(2).state.epoch === 2)
  cluster.kill(0)
  await cluster.clock.until('an epoch without 0', () => cluster.node(2).state.epoch === 3)
  await replaceDisk(cluster, 1)
  const booted = cluster.boot(1)
  await cluster.clock.until('machine 1', () => cluster.node(2).state.epoch === 4)
  await booted
  // Nobody there has it, and nobody can say that there was none.
  for (const index of [1, 2]) {
    t.is(await read(cluster, index, oid), Code.STALE_OBJ, `machine ${index}`)
  }
  await cluster.boot(0)
  for (const index of [0, 1, 2]) t.is(await read(cluster, index, oid), 'old')
  cluster.close()
})

test('objects that went with a disk are not taken for ones that never were', async (t) => {
  const { cluster, oid } = await writtenOnce()
  const { store, recovery } = cluster.node(1)
  await store.format()
  cluster.kill(0)
  recovery.restart({ lost: true })
  await cluster.clock.until('an epoch without 0', () => cluster.node(1).state.epoch === 2)
  await cluster.clock.sleep(5_000)
  for (const index of [1, 2]) {
    t.is(await read(cluster, index, oid), Code.STALE_OBJ, `machine ${index}`)
  }
  // It remembers that over a restart.
  cluster.kill(1)
  await cluster.boot(1)
  t.is(await read(cluster, 1, oid), Code.STALE_OBJ)
  await cluster.boot(0)
  await cluster.settle()
  for (const index of [0, 1, 2]) t.is(await read(cluster, index, oid), 'old')
  cluster.close()
})

test('what was never written is not waited for, also on a node that is new', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 3, copies: 2 })
  const index = cluster.addMachine()
  await cluster.boot(index)
  for (let i = 0; i < 8; i++) {
    t.is(await read(cluster, index, dataOid(VID, i)), Code.NO_OBJ)
  }
  cluster.close()
})

test('objects whose owners all died are waited for, and are there when the owners come back', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 5, copies: 2 })
  const oids = Array.from({ length: 30 }, (_, i) => dataOid(VID, i))
  const client = await cluster.client(0)
  for (const oid of oids) {
    t.is((await createObject(client, oid, 0, Buffer.from('old'))).result, Code.SUCCESS)
  }
  const { state } = cluster.node(0)
  const isOn = (oid: Oid): boolean =>
    state.owners(oid, VID).every(({ port }) => port === 7003 || port === 7004)
  const gone = oids.filter(isOn)
  t.true(gone.length > 0)
  cluster.kill(3)
  cluster.kill(4)
  await cluster.settle()
  for (const oid of gone) t.is(await read(cluster, 0, oid), Code.STALE_OBJ)
  await cluster.boot(3)
  await cluster.boot(4)
  await cluster.settle()
  for (const oid of oids) t.is(await read(cluster, 0, oid), 'old')
  t.deepEqual(await cluster.copyFaults(), [])
  // Now that everybody is there, copies of earlier epochs are of no use any more.
  for (const index of cluster.up()) {
    const { store } = cluster.node(index)
    t.deepEqual(store.list(), store.listWorking())
  }
  cluster.close()
})
