// Recovery as it is asked for: from whoever has the object (-W), and not over the edge of a disk (format -F).
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { asVid, dataOid, type Oid } from '../../src/model/oid.js'
import { ClusterFlag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { ask, createObject, readObject } from './support/sheep-wire.js'
import { SmallCluster, type SmallClusterOptions } from './support/small-cluster.js'

const OBJECT = 1 << 20
const VID = asVid(0xabc)
const OIDS = Array.from({ length: 40 }, (_, i) => dataOid(VID, i))

async function filled(options: SmallClusterOptions): Promise<SmallCluster> {
  const cluster = await SmallCluster.start(options)
  const client = await cluster.client(0)
  for (const oid of OIDS) {
    const { result } = await createObject(client, oid, 0, Buffer.from('content'))
    if (result !== Code.SUCCESS) throw new Error(`create: ${result}`)
  }
  client.close()
  return cluster
}

function ownerOf(cluster: SmallCluster, oid: Oid): number {
  return cluster.node(cluster.up()[0]!).state.owners(oid, VID)[0]!.port - 7000
}

/** What is where no ring of the history says it is. */
async function misplace(cluster: SmallCluster, oid: Oid): Promise<number> {
  const owner = ownerOf(cluster, oid)
  const other = (owner + 1) % 3
  const done = (run: (ended: (code: Code) => void) => void): Promise<Code> => new Promise(run)
  const data = Buffer.from('content')
  const request = { id: oid, bytes: OBJECT, offset: 0, data }
  await done((ended) => cluster.node(other).store.create(request, ended))
  await done((ended) => cluster.node(owner).store.remove(oid, ended))
  return owner
}

for (const wildcard of [false, true]) {
  const what = wildcard ? 'is found by a node told to look everywhere' : 'is not found as a rule'
  test(`an object where it never belonged ${what}`, async (t) => {
    const cluster = await filled({ nodes: 3, copies: 1 })
    const oid = OIDS[0]!
    const owner = await misplace(cluster, oid)
    await cluster.stop(owner)
    await cluster.clock.sleep(3_000)
    await cluster.boot(owner, { wildcard })
    await cluster.settle()
    t.is(cluster.node(owner).store.has(oid), wildcard)
    // The recovery after that is one as any other.
    t.false(cluster.node(owner).recovery.isWildcard)
    cluster.close()
  })
}

test('told to avoid full disks, recovery is held off everywhere before it fills one', async (t) => {
  const flags = ClusterFlag.AVOID_DISKFULL
  const cluster = await filled({ nodes: 3, copies: 2, flags })
  const joiner = cluster.addMachine()
  const { files } = cluster.machines[joiner]!
  const space = { totalBytes: 8 * OBJECT, freeBytes: 3 * OBJECT }
  Object.assign(files, { space: () => space })
  await cluster.boot(joiner)
  await cluster.clock.sleep(30_000)
  const { store, recovery } = cluster.node(joiner)
  t.true(recovery.progress().inRecovery)
  t.true(recovery.progress().total > 3)
  t.is(recovery.progress().finished, 0)
  t.deepEqual(store.listWorking(), [])
  for (const index of cluster.up()) t.true(cluster.node(index).state.settings.recoveryDisabled)
  t.is(cluster.logged.filter((line) => line.includes('recovery.would-fill-disk')).length, 1)
  // What is used is served all the same.
  const client = await cluster.client(joiner)
  for (const oid of OIDS.slice(0, 4)) {
    t.is((await readObject(client, oid, 0, 7)).body.toString(), 'content')
  }
  // Somebody made room.
  space.freeBytes = 100 * OBJECT
  t.is((await ask(client, Op.ENABLE_RECOVER)).result, Code.SUCCESS)
  client.close()
  await cluster.settle()
  t.deepEqual(await cluster.copyFaults(), [])
  cluster.close()
})

test('told to avoid full disks, recovery goes on where there is room', async (t) => {
  const cluster = await filled({ nodes: 3, copies: 2, flags: ClusterFlag.AVOID_DISKFULL })
  cluster.kill(2)
  await cluster.settle()
  await cluster.boot(2)
  await cluster.settle()
  t.deepEqual(await cluster.copyFaults(), [])
  t.false(cluster.node(0).state.settings.recoveryDisabled)
  cluster.close()
})
