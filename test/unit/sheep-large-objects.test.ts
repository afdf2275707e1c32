// Volumes of objects larger than a request (block_size_shift 25 to 31): they move between nodes in pieces, and are
// copied on write in pieces. Content lies at the ends and around the borders of pieces; the rest is a hole.
import test, { type ExecutionContext } from 'ava'
import { Code } from '../../src/base/codes.js'
import { LIMITS } from '../../src/base/limits.js'
import { dataOid, type Oid, type Vid } from '../../src/model/oid.js'
import type { SheepClient } from '../../src/peer/client.js'
import { codedObjects } from './support/coded-faults.js'
import {
  createObject,
  newVdi,
  readObject,
  setSlot,
  snapshot,
  writeObject,
} from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { read, write } from './support/volume-io.js'

const PIECE = LIMITS.pieceBytesMax
const GIB = 1024 ** 3

/** Bytes at the start, over the border of two pieces, and at the very end. */
function marksOf(bytes: number): { readonly offset: number; readonly data: Buffer }[] {
  return [0, PIECE - 300, 3 * PIECE - 512, bytes - 5000].map((offset, i) => ({
    offset,
    data: Buffer.from(Array.from({ length: 5000 }, (_, at) => (at * 7 + i * 31 + 1) & 0xff)),
  }))
}

async function fill(client: SheepClient, oid: Oid, bytes: number): Promise<void> {
  const [first, ...rest] = marksOf(bytes)
  const created = await createObject(client, oid, first!.offset, first!.data)
  if (created.result !== Code.SUCCESS) throw new Error(`create: ${created.result}`)
  for (const { offset, data } of rest) {
    const { result } = await writeObject(client, oid, offset, data)
    if (result !== Code.SUCCESS) throw new Error(`write at ${offset}: ${result}`)
  }
}

async function checkMarks(
  t: ExecutionContext,
  client: SheepClient,
  oid: Oid,
  bytes: number,
): Promise<void> {
  for (const { offset, data } of marksOf(bytes)) {
    const reply = await readObject(client, oid, offset, data.length)
    t.is(reply.result, Code.SUCCESS, `at ${offset}`)
    t.true(reply.body.equals(data), `at ${offset}`)
  }
  const between = await readObject(client, oid, PIECE + 8192, 4096)
  t.true(between.body.equals(Buffer.alloc(4096)))
}

async function clusterOf(options: {
  readonly blockSizeShift: number
  readonly nodes?: number
  readonly policy?: number
}): Promise<{ cluster: SmallCluster; client: SheepClient; vid: Vid; bytes: number }> {
  const cluster = await SmallCluster.start({ totalBytes: 64 * GIB, ...options })
  const client = await cluster.client(0)
  const bytes = 2 ** options.blockSizeShift
  return { cluster, client, vid: await newVdi(client, 'alice', 4 * bytes), bytes }
}

test('an object of 32 MiB is written, copied on write and recovered', async (t) => {
  const { cluster, client, vid, bytes } = await clusterOf({ blockSizeShift: 25 })
  const oid = dataOid(vid, 1)
  await fill(client, oid, bytes)
  await setSlot(client, vid, 1, vid)
  const heir = await snapshot(client, 'alice', 's1')
  // Between the marks, over a border, so that two pieces are copied around it.
  const data = Buffer.alloc(9000, 0xab)
  const own = dataOid(heir, 1)
  t.is((await createObject(client, own, 2 * PIECE - 4500, data, oid)).result, Code.SUCCESS)
  await setSlot(client, heir, 1, heir)
  await checkMarks(t, client, own, bytes)
  t.true((await readObject(client, own, 2 * PIECE - 4500, 9000)).body.equals(data))
  t.true((await readObject(client, oid, 2 * PIECE - 4500, 9000)).body.equals(Buffer.alloc(9000)))
  // Away and back: what it had is old, and everything moves once more.
  cluster.kill(2)
  await cluster.settle()
  await writeObject(client, own, bytes - 10, Buffer.from('end of it!'))
  await cluster.boot(2)
  await cluster.settle()
  t.deepEqual(await cluster.copyFaults(), [])
  for (const index of cluster.up()) {
    const there = await cluster.client(index)
    await checkMarks(t, there, oid, bytes)
    t.is(
      (await readObject(there, own, bytes - 10, 10)).body.toString('latin1'),
      'end of it!',
      `node ${index}`,
    )
  }
  t.deepEqual(cluster.failures(), [])
  cluster.close()
})

test('copy on write of nothing makes nothing', async (t) => {
  const { cluster, client, vid } = await clusterOf({ blockSizeShift: 25 })
  const made = await createObject(client, dataOid(vid, 0), 0, Buffer.from('x'), dataOid(vid, 3))
  t.is(made.result, Code.NO_OBJ)
  t.deepEqual(cluster.objects('data'), [])
  cluster.close()
})

test('data at the end of a 2 GiB object moves to a new node, and nothing around it', async (t) => {
  const { cluster, client, vid, bytes } = await clusterOf({ blockSizeShift: 31, nodes: 2 })
  const oid = dataOid(vid, 2)
  t.is(bytes, 2 * GIB)
  await fill(client, oid, bytes)
  await setSlot(client, vid, 2, vid)
  // Two nodes hold two copies; of three some object moves, and whoever goes makes the rest move.
  cluster.addMachine()
  await cluster.boot(2)
  await cluster.settle()
  cluster.kill(0)
  await cluster.settle()
  const there = await cluster.client(2)
  await checkMarks(t, there, oid, bytes)
  t.deepEqual(await cluster.copyFaults(), [])
  const beyond = await writeObject(there, oid, bytes - 1, Buffer.from('xy'))
  t.is(beyond.result, Code.INVALID_PARMS)
  t.deepEqual(cluster.failures(), [])
  cluster.close()
})

test('a coded object of 64 MiB survives a node, and its return', async (t) => {
  const options = { blockSizeShift: 26, nodes: 4, policy: 0x11 }
  const { cluster, client, vid, bytes } = await clusterOf(options)
  const oid = dataOid(vid, 0)
  await fill(client, oid, bytes)
  await setSlot(client, vid, 0, vid)
  const holder = cluster.up().find((i) => i > 0 && cluster.node(i).store.piecesOf(oid).length > 0)!
  cluster.kill(holder)
  await cluster.settle()
  await checkMarks(t, client, oid, bytes)
  await writeObject(client, oid, bytes - 700, Buffer.alloc(700, 0x5a))
  await cluster.boot(holder)
  await cluster.settle()
  const there = await cluster.client(holder)
  t.true((await readObject(there, oid, bytes - 700, 700)).body.equals(Buffer.alloc(700, 0x5a)))
  t.deepEqual(codedObjects(cluster), [oid])
  t.deepEqual(cluster.failures(), [])
  cluster.close()
})

test('a block volume of 2 GiB objects reads and writes across their border', async (t) => {
  const { cluster, bytes } = await clusterOf({ blockSizeShift: 31, nodes: 1 })
  const disk = await cluster.source(0).open('alice')
  const data = Buffer.from(Array.from({ length: 8192 }, (_, i) => (i * 11) & 0xff))
  t.is(await write(disk, bytes - 4096, data, true), Code.SUCCESS)
  t.deepEqual(await read(disk, bytes - 4096, 8192), data)
  t.deepEqual(await read(disk, 3 * bytes, 512), Buffer.alloc(512))
  t.is(cluster.objects('data').length, 2)
  await disk.close()
  cluster.close()
})
