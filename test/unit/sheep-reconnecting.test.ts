// QEMU and tgt ask again when their connection ends, and take any error for a broken disk: neither of a node that is
// not in yet, nor of one on its way out, they hear anything else.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { dataOid, type Oid } from '../../src/model/oid.js'
import type { SheepClient } from '../../src/peer/client.js'
import type { Frame } from '../../src/wire/sheepdog/frame.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectRequest, plainRequest } from '../../src/wire/sheepdog/requests.js'
import { createObject, newVdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const OBJECT = 1 << 20

function read(client: SheepClient, version: number, oid: Oid): Promise<Frame> {
  const head = objectRequest({ opcode: Op.READ_OBJ, oid, dataLength: 4 })
  head[0] = version
  return client.call(head)
}

async function withObject(nodes: number) {
  const cluster = await SmallCluster.start({ nodes, copies: 2 })
  const client = await cluster.client(0)
  const oid = dataOid(await newVdi(client, 'alice', OBJECT), 0)
  await createObject(client, oid, 0, Buffer.from('data'))
  return { cluster, client, oid }
}

test('a request of QEMU waits for the node to be let in, one of dog is told why it cannot', async (t) => {
  const { cluster, oid } = await withObject(2)
  for (const index of cluster.up()) cluster.kill(index)
  const first = await cluster.launch(0)
  const client = await cluster.client(0)
  const waiting = read(client, 0, oid)
  t.is((await read(await cluster.client(0), 2, oid)).result, Code.WAIT_FOR_JOIN)
  await cluster.boot(1)
  await first.joined
  const answer = await waiting
  t.is(answer.result, Code.SUCCESS)
  t.is(answer.body.toString(), 'data')
  cluster.close()
})

test('a node that stops while it waits for its cluster lets go of what waits with it', async (t) => {
  const { cluster, oid } = await withObject(2)
  for (const index of cluster.up()) cluster.kill(index)
  const { joined } = await cluster.launch(0)
  joined.catch(() => undefined)
  const waiting = read(await cluster.client(0), 0, oid)
  const lost = t.throwsAsync(waiting)
  const began = cluster.clock.now()
  await cluster.stop(0)
  await lost
  t.true(cluster.clock.now() - began < 1_000)
  cluster.close()
})

test('a node that has shut down ends the connection of QEMU without a word, and tells dog', async (t) => {
  const { cluster, client, oid } = await withObject(2)
  const { state } = cluster.node(0)
  state.status = 'shutdown'
  t.is((await read(client, 2, oid)).result, Code.SHUTDOWN)
  const old = await cluster.client(0)
  await t.throwsAsync(read(old, 1, oid))
  // What is no I/O of a disk is answered whoever asks.
  const other = plainRequest({ opcode: Op.READ_VDIS, dataLength: 4 })
  other[0] = 0
  t.is((await (await cluster.client(0)).call(other)).result, Code.SHUTDOWN)
  state.status = 'ok'
  cluster.close()
})
