// A snapshot waits for the writes that were begun before it, and all volume operations of the cluster wait for the
// snapshot: whatever goes wrong meanwhile, that wait has an end, and the volume goes on.
import test, { type ExecutionContext } from 'ava'
import { Code } from '../../src/base/codes.js'
import type { Vid } from '../../src/model/oid.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { vdiStateRequest } from '../../src/wire/sheepdog/requests.js'
import { newVdi, snapshot, vdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { read, write } from './support/volume-io.js'

const OBJECT = 1 << 20
const FORMAT = { copies: 2, policy: 0, blockSizeShift: 20 }

interface Rig {
  readonly cluster: SmallCluster
  readonly alice: Vid
  /** Ends the write that node 1 has under way. */
  readonly end: () => void
  /** The snapshot that waits for it. */
  readonly taken: Promise<number>
}

/** Alice's snapshot is being taken, and waits for a write under way on node 1. */
async function waiting(): Promise<Rig> {
  const cluster = await SmallCluster.start()
  const alice = await newVdi(await cluster.client(0), 'Alice', 4 * OBJECT)
  cluster.node(1).gateway.begin(alice)
  const taken = snapshot(await cluster.client(0), 'Alice', 'first').then(
    () => Code.SUCCESS as number,
    (error: unknown) => Number(/\d+/.exec(String(error))?.[0]),
  )
  const isHeard = (): boolean =>
    cluster.up().every((i) => cluster.node(i).state.vids.get(alice)?.snapshot === true)
  await cluster.clock.until('an announced snapshot', isHeard, { quietMs: 1_000 })
  return { cluster, alice, end: () => cluster.node(1).gateway.end(alice), taken }
}

async function goesOn(t: ExecutionContext, cluster: SmallCluster): Promise<void> {
  for (const index of cluster.up()) {
    const client = await cluster.client(index)
    t.is((await vdi(client, Op.GET_VDI_INFO, 'Alice')).result, Code.SUCCESS)
    const disk = await cluster.source(index).open('Alice')
    t.is(await write(disk, 0, Buffer.from(`by ${index}`)), Code.SUCCESS)
    await disk.close()
  }
  await snapshot(await cluster.client(2), 'Alice', 'later')
  const later = await cluster.source(0).open('Alice@later')
  t.deepEqual(await read(later, 0, 4), Buffer.from(`by ${cluster.up().at(-1)}`))
  await later.close()
  t.deepEqual(cluster.failures(), [])
}

test('a write that does not end makes the snapshot fail, and nothing else', async (t) => {
  const { cluster, alice, end, taken } = await waiting()
  t.is(await taken, Code.AGAIN)
  t.is(
    (await vdi(await cluster.client(2), Op.GET_VDI_INFO, 'Alice', { tag: 'first' })).result,
    Code.NO_TAG,
  )
  end()
  await cluster.settle()
  for (const index of cluster.up()) {
    const { vids } = cluster.node(index).state
    t.is(vids.get(alice)?.snapshot, false)
    t.deepEqual(vids.living(), [alice])
  }
  await goesOn(t, cluster)
  cluster.close()
})

test('the successor of a snapshot that failed is never announced again', async (t) => {
  const { cluster, alice, end, taken } = await waiting()
  t.is(await taken, Code.AGAIN)
  const [forgone] = cluster
    .node(0)
    .state.vids.family(alice)
    .filter((vid) => vid !== alice)
  end()
  const heir = await snapshot(await cluster.client(0), 'Alice', 'second')
  t.not(forgone, undefined)
  t.not(heir, forgone)
  cluster.close()
})

test('a node that joins while a snapshot waits does not hold it up', async (t) => {
  const { cluster, end, taken } = await waiting()
  await cluster.boot(cluster.addMachine())
  end()
  t.is(await taken, Code.SUCCESS)
  await goesOn(t, cluster)
  cluster.close()
})

test('a volume that is made a working one again does not hold up its snapshot', async (t) => {
  const { cluster, alice, end, taken } = await waiting()
  const what = {
    ...FORMAT,
    oldVid: 0 as Vid,
    newVid: alice,
    setBitmap: false,
    reopens: true as const,
  }
  const before = cluster.clock.now()
  await cluster.node(2).ops.announce(what)
  end()
  t.is(await taken, Code.AGAIN)
  t.true(cluster.clock.now() - before < 30_000)
  await goesOn(t, cluster)
  cluster.close()
})

test('a format while a snapshot waits ends both', async (t) => {
  const { cluster, end, taken } = await waiting()
  const formatted = cluster.format()
  end()
  t.not(await taken, Code.SUCCESS)
  await formatted
  await newVdi(await cluster.client(1), 'Alice', 4 * OBJECT)
  await goesOn(t, cluster)
  cluster.close()
})

test('a client cannot undo a snapshot by announcing its volume', async (t) => {
  const { cluster, alice, end, taken } = await waiting()
  const client = await cluster.client(2)
  const send = (part: { readonly oldVid?: Vid; readonly newVid?: Vid }) => {
    const what = { oldVid: 0 as Vid, newVid: alice, setBitmap: true, ...FORMAT, ...part }
    return client.call(vdiStateRequest({ opcode: Op.NOTIFY_VDI_ADD, ...what, reopens: true }))
  }
  const heir = cluster
    .node(0)
    .state.vids.family(alice)
    .find((vid) => vid !== alice)!
  const bob = 77 as Vid
  t.is((await send({})).result, Code.VDI_EXIST)
  t.is((await send({ newVid: heir })).result, Code.VDI_EXIST)
  t.is((await send({ newVid: bob })).result, Code.SUCCESS)
  // Its byte is cleared at the door: in the order of events it is an announcement like any other.
  t.is((await send({ newVid: bob })).result, Code.VDI_EXIST)
  t.is((await send({ oldVid: bob, newVid: 78 as Vid })).result, Code.INVALID_PARMS)
  end()
  t.is(await taken, Code.SUCCESS)
  await goesOn(t, cluster)
  cluster.close()
})

test('an announcement of a volume there is changes nothing, wherever it comes from', async (t) => {
  const { cluster, alice, end, taken } = await waiting()
  // As a node of sheepdog 1.0 would pass on what its clients send.
  await cluster
    .node(2)
    .ops.announce({ ...FORMAT, oldVid: 0 as Vid, newVid: alice, setBitmap: true })
  for (const index of cluster.up()) t.true(cluster.node(index).state.vids.get(alice)?.snapshot)
  end()
  t.is(await taken, Code.SUCCESS)
  await goesOn(t, cluster)
  cluster.close()
})
