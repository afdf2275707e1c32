// Volumes that clients of several nodes use at once, as tgt's multipath targets do: whole nodes in one process.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { dataOid, inodeOid, type Vid } from '../../src/model/oid.js'
import { ClusterFlag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectRequest } from '../../src/wire/sheepdog/requests.js'
import { withSeeds } from './support/seeds.js'
import { Sharer, SLOTS_READ } from './support/sharer.js'
import { newVdi, object, setSlot, snapshot } from './support/sheep-wire.js'
import { SmallCluster, type SmallClusterOptions } from './support/small-cluster.js'

const OBJECT = 1 << 20

async function start(options: SmallClusterOptions = {}) {
  const cluster = await SmallCluster.start({
    ...{ nodes: 3, flags: ClusterFlag.USE_LOCK },
    ...options,
  })
  const vid = await newVdi(await cluster.client(0), 'Alice', SLOTS_READ * OBJECT)
  return { cluster, vid }
}

function states(cluster: SmallCluster, vid: Vid, index = 0): string[] {
  return cluster
    .node(index)
    .locks.of(vid)
    .participants.map((one) => one.coherence)
}

test('the sequence of two daemons that was verified with 1.0', async (t) => {
  const { cluster, vid } = await start()
  const one = new Sharer(await cluster.client(0), vid)
  const two = new Sharer(await cluster.client(1), vid)
  t.is(await one.lock(), Code.SUCCESS)
  t.deepEqual(states(cluster, vid), ['modified'])
  t.is(await two.lock(), Code.SUCCESS)
  t.deepEqual(states(cluster, vid), ['modified', 'invalidated'])
  t.is((await two.read(inodeOid(vid), 0, 512)).result, Code.INODE_INVALIDATED)
  t.is(await two.refresh(), Code.SUCCESS)
  t.deepEqual(states(cluster, vid), ['shared', 'shared'])
  t.is(await two.writeOnce(0, 0, Buffer.from('two')), Code.SUCCESS)
  t.deepEqual(states(cluster, vid), ['invalidated', 'modified'])
  t.is((await one.read(inodeOid(vid), 0, 512)).result, Code.INODE_INVALIDATED)
  t.is(await one.refresh(), Code.SUCCESS)
  t.deepEqual(states(cluster, vid), ['shared', 'shared'])
  for (const index of [1, 2]) t.deepEqual(states(cluster, vid, index), states(cluster, vid))
  cluster.close()
})

test('the same daemon does not share twice, and one that leaves is removed', async (t) => {
  const { cluster, vid } = await start()
  const one = await Sharer.attach(cluster, 0, vid)
  const two = await Sharer.attach(cluster, 1, vid)
  t.is(await two.lock(), Code.VDI_LOCKED)
  cluster.kill(1)
  await cluster.settle()
  t.deepEqual(states(cluster, vid), ['shared'])
  t.is(await one.release(), Code.SUCCESS)
  t.is(cluster.node(2).locks.of(vid).state, 'unlocked')
  cluster.close()
})

test('a request without the TGT flag is not told of coherence, one with it is at every object', async (t) => {
  const { cluster, vid } = await start()
  const one = await Sharer.attach(cluster, 0, vid)
  const two = await Sharer.attach(cluster, 1, vid)
  await two.write(0, 0, Buffer.from('two'))
  t.is((await one.read(dataOid(vid, 0), 0, 3)).result, Code.INODE_INVALIDATED)
  t.is(await one.writeOnce(1, 0, Buffer.from('one')), Code.INODE_INVALIDATED)
  t.is(await one.name(1), Code.INODE_INVALIDATED)
  const plain = { opcode: Op.READ_OBJ, oid: dataOid(vid, 0), dataLength: 3 }
  t.is((await one.client.call(objectRequest(plain))).result, Code.SUCCESS)
  cluster.close()
})

test('what one path writes the other reads, however late the daemons hear of each other', async (t) => {
  await withSeeds(6, async (seed) => {
    let late = 0
    const delayMs = ({ port }: { port: number }): number => (port === late ? 60 : 0)
    const { cluster, vid } = await start({ seed, delayMs })
    const paths = [await Sharer.attach(cluster, 0, vid), await Sharer.attach(cluster, 1, vid)]
    for (let round = 0; round < 24; round++) {
      const [writer, reader] = round % 2 === 0 ? paths : [...paths].reverse()
      late = 7000 + cluster.dice.below(3)
      const index = cluster.dice.below(8)
      const data = Buffer.from(`${seed}/${round} `.padEnd(16))
      await writer!.write(index, round * 16, data)
      t.deepEqual(await reader!.readBack(index, round * 16, 16), data, `SEED=${seed} ${round}`)
    }
    t.deepEqual(await cluster.copyFaults(), [])
    cluster.close()
  })
})

test('both paths write to objects that are not there yet: nothing acknowledged is lost', async (t) => {
  await withSeeds(8, async (seed) => {
    const lateness = { ms: 0 }
    const { cluster, vid } = await start({ seed, delayMs: () => lateness.ms })
    const paths = [await Sharer.attach(cluster, 0, vid), await Sharer.attach(cluster, 1, vid)]
    lateness.ms = cluster.dice.below(40)
    const write = async (path: number): Promise<void> => {
      for (let index = 0; index < 6; index++) {
        await cluster.clock.sleep(cluster.dice.below(20))
        await paths[path]!.write(index, 512 * path, Buffer.from(`path ${path}`))
      }
    }
    await Promise.all([write(0), write(1)])
    for (let index = 0; index < 6; index++) {
      for (const path of [0, 1]) {
        const found = await paths[1 - path]!.readBack(index, 512 * path, 6)
        t.is(found.toString(), `path ${path}`, `SEED=${seed} object ${index}`)
      }
    }
    cluster.close()
  })
})

test('a client that outlives its daemon reads the inode again before it goes on', async (t) => {
  const { cluster, vid } = await start()
  const one = await Sharer.attach(cluster, 0, vid)
  const two = await Sharer.attach(cluster, 1, vid)
  await one.write(0, 0, Buffer.from('one'))
  cluster.kill(0)
  await cluster.settle()
  await two.write(1, 0, Buffer.from('two'))
  await cluster.boot(0)
  await cluster.settle()
  const back = new Sharer(await cluster.client(0), vid)
  back.slots = [...one.slots]
  t.is((await back.read(dataOid(vid, 0), 0, 3)).result, Code.INODE_INVALIDATED)
  t.is((await back.readBack(1, 0, 3)).toString(), 'two')
  t.deepEqual(states(cluster, vid, 2).length, 2)
  await back.write(2, 0, Buffer.from('one'))
  t.is((await two.readBack(2, 0, 3)).toString(), 'one')
  cluster.close()
})

test('a participant that stands still holds changes up until it is thrown out', async (t) => {
  // It stores nothing: writes have no other reason to wait for it.
  const role = (index: number) => ({ kind: index === 1 ? 'gateway' : 'automatic' }) as const
  const { cluster, vid } = await start({ role })
  const one = await Sharer.attach(cluster, 0, vid)
  await Sharer.attach(cluster, 1, vid)
  cluster.freeze(1)
  let isDone = false
  const written = one.write(0, 0, Buffer.from('one')).then(() => {
    isDone = true
  })
  await cluster.clock.sleep(3_000)
  t.false(isDone)
  cluster.kill(1)
  await written
  t.deepEqual(states(cluster, vid), ['modified'])
  cluster.close()
})

test('whoever changes a shared volume beside makes everybody look again', async (t) => {
  const { cluster, vid } = await start()
  const one = await Sharer.attach(cluster, 0, vid)
  const two = await Sharer.attach(cluster, 1, vid)
  for (const index of [2, 0]) {
    const beside = await cluster.client(index)
    await object(beside, Op.CREATE_AND_WRITE_OBJ, { oid: dataOid(vid, index) }, Buffer.from('dog'))
    t.is((await setSlot(beside, vid, index, vid)).result, Code.SUCCESS)
    for (const path of [one, two]) {
      t.is((await path.read(inodeOid(vid), 0, 8)).result, Code.INODE_INVALIDATED)
      t.is((await path.readBack(index, 0, 3)).toString(), 'dog')
    }
  }
  cluster.close()
})

test('a snapshot hands the shared lock on, and each path asks for it when it notices', async (t) => {
  const { cluster, vid } = await start()
  const one = await Sharer.attach(cluster, 0, vid)
  const two = await Sharer.attach(cluster, 1, vid)
  await one.write(0, 0, Buffer.from('old'))
  await two.readBack(0, 0, 3)
  const successor = await snapshot(await cluster.client(2), 'Alice', 'monday')
  await t.throwsAsync(cluster.source(2).open('Alice'), { message: /shared/ })
  t.is(await one.writeOnce(0, 0, Buffer.from('new')), Code.READONLY)
  t.is(await one.lock(), Code.SUCCESS)
  const heir = new Sharer(one.client, successor)
  heir.slots = [...one.slots]
  await heir.write(0, 0, Buffer.from('new'))
  t.is(await one.lock(), Code.VDI_LOCKED)
  // The other path is told before it may rely on anything, and what it reads then is a snapshot.
  t.is(await two.writeOnce(0, 0, Buffer.from('lost')), Code.INODE_INVALIDATED)
  t.is((await two.read(dataOid(vid, 0), 0, 3)).result, Code.INODE_INVALIDATED)
  t.is(await two.refresh(), Code.SUCCESS)
  t.deepEqual(states(cluster, vid), [], 'nobody takes part in a snapshot')
  t.is((await two.read(dataOid(vid, 0), 0, 3)).result, Code.INODE_INVALIDATED)
  t.is(await two.release(), Code.SUCCESS, 'it never noticed, and releases what it knows')
  t.deepEqual(states(cluster, successor), ['modified'])
  cluster.close()
})

test('shared locks are of no account where locking was not formatted', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 2 })
  const vid = await newVdi(await cluster.client(0), 'Alice', SLOTS_READ * OBJECT)
  const one = await Sharer.attach(cluster, 0, vid)
  const two = await Sharer.attach(cluster, 0, vid)
  t.is(await one.writeOnce(0, 0, Buffer.from('one')), Code.SUCCESS)
  t.is((await two.read(dataOid(vid, 0), 0, 3)).result, Code.SUCCESS)
  t.is(cluster.node(1).locks.of(vid).state, 'unlocked')
  cluster.close()
})
