// What saves the data from QEMU's driver, which empties the map of the volume it has open when it deletes a snapshot.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { slotRange } from '../../src/model/inode.js'
import { dataOid, inodeOid, type Vid } from '../../src/model/oid.js'
import type { SheepClient } from '../../src/peer/client.js'
import type { Frame } from '../../src/wire/sheepdog/frame.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { type ObjectFields, objectRequest } from '../../src/wire/sheepdog/requests.js'
import {
  createObject,
  newVdi,
  readObject,
  setSlot,
  slotOf,
  snapshot,
  vdi,
  writeObject,
} from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const OBJECT = 1 << 20
const SLOTS = 4

/** As QEMU's driver sends it: no version in the header. */
function fromQemu(
  client: SheepClient,
  opcode: number,
  fields: ObjectFields,
  data: Buffer,
  flags = 0,
): Promise<Frame> {
  const dataLength = data.length
  const head = objectRequest({ opcode, flags: Flag.WRITE | flags, dataLength, ...fields })
  head[0] = 0
  return client.call(head, data)
}

interface Rig {
  readonly cluster: SmallCluster
  readonly client: SheepClient
  readonly vid: Vid
}

/** A volume with a byte in its objects 0 and 1 and a snapshot of an earlier state. */
async function rig(): Promise<Rig> {
  const cluster = await SmallCluster.start({ nodes: 3, copies: 2 })
  const client = await cluster.client(0)
  const first = await newVdi(client, 'alice', SLOTS * OBJECT)
  await fill(client, first, 0, 1)
  const vid = await snapshot(client, 'alice', 'before')
  await fill(client, vid, 1, 2)
  return { cluster, client, vid }
}

async function fill(client: SheepClient, vid: Vid, index: number, value: number): Promise<void> {
  await createObject(client, dataOid(vid, index), 0, Buffer.alloc(4096, value))
  await setSlot(client, vid, index, vid)
}

const emptying = (vid: Vid) => ({ oid: inodeOid(vid), offset: slotRange(0, 1).offset })

test('QEMU deleting a snapshot does not empty the volume it has open, and the snapshot goes', async (t) => {
  const { cluster, client, vid } = await rig()
  const before = [await slotOf(client, vid, 0), await slotOf(client, vid, 1)]
  const zeros = Buffer.alloc(4 * SLOTS)
  const emptied = await fromQemu(client, Op.WRITE_OBJ, emptying(vid), zeros, Flag.CACHE)
  t.is(emptied.result, Code.SUCCESS)
  t.is((await vdi(client, Op.DEL_VDI, 'alice', { tag: 'before' })).result, Code.SUCCESS)
  await cluster.settle()
  t.deepEqual([await slotOf(client, vid, 0), await slotOf(client, vid, 1)], before)
  t.is((await readObject(client, dataOid(before[0]!, 0), 0, 1)).body[0], 1)
  t.is((await readObject(client, dataOid(vid, 1), 0, 1)).body[0], 2)
  const gone = await vdi(client, Op.GET_VDI_INFO, 'alice', { tag: 'before' })
  t.is(gone.result, Code.NO_TAG)
  cluster.close()
})

test("dog's emptying of a volume before its deletion, and QEMU's discard of one slot, are done", async (t) => {
  const { cluster, client, vid } = await rig()
  const { oid } = emptying(vid)
  t.is((await fromQemu(client, Op.WRITE_OBJ, slotAt(vid, 1), Buffer.alloc(4))).result, 0)
  t.is(Number(await slotOf(client, vid, 1)), 0)
  await writeObject(client, oid, slotRange(0, 1).offset, Buffer.alloc(4 * SLOTS))
  t.is(Number(await slotOf(client, vid, 0)), 0)
  cluster.close()
})

const slotAt = (vid: Vid, index: number) => ({
  oid: inodeOid(vid),
  offset: slotRange(index, 1).offset,
})

test('a QEMU that lost its map cannot replace what it does not see', async (t) => {
  const { cluster, client, vid } = await rig()
  const blind = (index: number, data: Buffer) =>
    fromQemu(client, Op.CREATE_AND_WRITE_OBJ, { oid: dataOid(vid, index), offset: 512 }, data)
  t.is((await blind(1, Buffer.alloc(512, 9))).result, Code.EIO)
  t.is((await blind(0, Buffer.alloc(512, 9))).result, Code.EIO)
  t.true(cluster.logged.some((line) => line.includes('client.map.lost')))
  t.deepEqual((await readObject(client, dataOid(vid, 1), 0, 4096)).body, Buffer.alloc(4096, 2))
  t.is((await blind(2, Buffer.alloc(512, 9))).result, Code.SUCCESS)
  cluster.close()
})

test('a creation that is asked for again after its slot was written is a success', async (t) => {
  const { cluster, client, vid } = await rig()
  const target = { oid: dataOid(vid, 1), offset: 0 }
  const again = await fromQemu(client, Op.CREATE_AND_WRITE_OBJ, target, Buffer.alloc(4096, 2))
  t.is(again.result, Code.SUCCESS)
  cluster.close()
})

test('a creation waits for the discard of the same object', async (t) => {
  const { cluster, client, vid } = await rig()
  const target = { oid: dataOid(vid, 1), offset: 0 }
  const creating = fromQemu(client, Op.CREATE_AND_WRITE_OBJ, target, Buffer.alloc(512, 7))
  const discarded = await fromQemu(client, Op.WRITE_OBJ, slotAt(vid, 1), Buffer.alloc(4))
  t.is(discarded.result, Code.SUCCESS)
  t.is((await creating).result, Code.SUCCESS)
  await fromQemu(client, Op.WRITE_OBJ, slotAt(vid, 1), uint32(vid))
  await cluster.settle()
  t.is((await readObject(client, dataOid(vid, 1), 0, 1)).body[0], 7)
  t.is((await readObject(client, dataOid(vid, 1), 512, 1)).body[0], 0)
  cluster.close()
})

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}
