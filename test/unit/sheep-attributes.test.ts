// Attributes of volumes: where they lie, that sets and searches respect each other, and what becomes of them. And the
// saved states of virtual machines, which are written and read in parts of any size.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { fnv1a64, vidHash } from '../../src/model/hash.js'
import { ATTRIBUTE_BYTES, asVid, attributeOid, oidName, vmstateOid } from '../../src/model/oid.js'
import type { SheepClient } from '../../src/peer/client.js'
import {
  AttributeFlag,
  type AttributeRecord,
  attributeIdentity,
  decodeAttribute,
  encodeAttribute,
} from '../../src/wire/sheepdog/attribute.js'
import type { Frame } from '../../src/wire/sheepdog/frame.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { decodeVdiReply } from '../../src/wire/sheepdog/replies.js'
import { vdiRequest } from '../../src/wire/sheepdog/requests.js'
import {
  createObject,
  newVdi,
  readObject,
  snapshot,
  vdi,
  writeObject,
} from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const { CREATE, EXCLUSIVE, DELETE } = AttributeFlag
const SIZE = 4 << 20

const attribute = (part: Partial<AttributeRecord> = {}): AttributeRecord => ({
  ...{ name: 't1', tag: '', snapId: 0, key: 'color', value: Buffer.alloc(0) },
  ...part,
})

function ask(client: SheepClient, flags: number, record: Buffer): Promise<Frame> {
  const dataLength = record.length
  return client.call(
    vdiRequest({ opcode: Op.GET_VDI_ATTR, flags: Flag.WRITE | flags, dataLength }),
    record,
  )
}

async function resultOf(
  client: SheepClient,
  flags: number,
  part: Partial<AttributeRecord> = {},
): Promise<number> {
  return (await ask(client, flags, encodeAttribute(attribute(part)))).result
}

/** The value, as clients get it: the slot from one request, the object by another. */
async function textOf(
  client: SheepClient,
  part: Partial<AttributeRecord> = {},
): Promise<string | number> {
  const found = await ask(client, 0, encodeAttribute(attribute(part)))
  if (found.result !== Code.SUCCESS) return found.result
  const { vid, attributeId } = decodeVdiReply(found)
  const { body } = await readObject(client, attributeOid(vid, attributeId), 0, ATTRIBUTE_BYTES)
  return decodeAttribute(body).value.toString()
}

async function setting(policy = 0) {
  const cluster = await SmallCluster.start({ policy })
  const client = await cluster.client(0)
  const vid = await newVdi(client, 't1', SIZE)
  return { cluster, client, vid }
}

const value = (text: string): { value: Buffer } => ({ value: Buffer.from(text) })

test('the slot of an attribute is the one of the specification', (t) => {
  const slotOf = (name: string): string => {
    const identity = attributeIdentity(encodeAttribute(attribute({ name })))
    const slot = Number(fnv1a64(identity) & 0xffffffffn)
    return oidName(attributeOid(asVid(vidHash(name)), slot))
  }
  t.is(slotOf('t1'), '206a5e16f921de63')
  t.is(slotOf('e1'), '2039b8830580689e')
})

for (const policy of [0, 0x11]) {
  test(`an attribute is set, read, set again and deleted (policy ${policy})`, async (t) => {
    const { cluster, client } = await setting(policy)
    t.is(await resultOf(client, 0), Code.NO_OBJ)
    t.is(await resultOf(client, DELETE), Code.NO_OBJ)
    t.is(await resultOf(client, CREATE, value('red')), Code.SUCCESS)
    t.is(await textOf(await cluster.client(2)), 'red')
    t.is(await resultOf(client, CREATE | EXCLUSIVE, value('blue')), Code.VDI_EXIST)
    t.is(await resultOf(client, EXCLUSIVE), Code.VDI_EXIST)
    t.is(await resultOf(client, CREATE, value('green')), Code.SUCCESS)
    t.is(await textOf(client), 'green')
    t.is(await resultOf(client, DELETE), Code.SUCCESS)
    t.is(await textOf(client), Code.NO_OBJ)
    t.deepEqual(cluster.objects('attribute'), [])
    t.is(await resultOf(client, CREATE | EXCLUSIVE, { value: Buffer.alloc(65_536, 1) }), 0)
    t.is(((await textOf(client)) as string).length, 65_536)
    t.deepEqual(cluster.failures(), [])
    cluster.close()
  })
}

test('attributes that want one slot keep out of each other, also after a deletion (O24)', async (t) => {
  const { cluster, client } = await setting()
  const record = encodeAttribute(attribute(value('mine')))
  const slot = Number(fnv1a64(attributeIdentity(record)) & 0xffffffffn)
  // Somebody else's attribute lies where ours wants to be.
  const other = encodeAttribute(attribute({ key: 'other', ...value('not ours') }))
  const place = attributeOid(asVid(vidHash('t1')), slot)
  await createObject(client, place, 0, other)
  t.is(await resultOf(client, CREATE, value('mine')), Code.SUCCESS)
  t.true((await readObject(client, place, 0, ATTRIBUTE_BYTES)).body.equals(other))
  const found = await ask(client, 0, record)
  t.is(decodeVdiReply(found).attributeId, slot + 1)
  // The other one's name goes, as a deletion in the middle leaves it: ours is found behind it, and not made twice.
  await writeObject(client, place, 0, Buffer.alloc(1))
  t.is(await textOf(client), 'mine')
  t.is(await resultOf(client, CREATE, value('again')), Code.SUCCESS)
  t.is(decodeVdiReply(await ask(client, 0, record)).attributeId, slot + 1)
  // What comes next is put where the other one was.
  t.is(await resultOf(client, DELETE), Code.SUCCESS)
  t.is(await resultOf(client, CREATE, value('back')), Code.SUCCESS)
  t.is(decodeVdiReply(await ask(client, 0, record)).attributeId, slot)
  cluster.close()
})

test('deleting an attribute in the middle leaves those behind it reachable', async (t) => {
  const { cluster, client } = await setting()
  const record = encodeAttribute(attribute(value('first')))
  const slot = Number(fnv1a64(attributeIdentity(record)) & 0xffffffffn)
  t.is(await resultOf(client, CREATE, value('first')), Code.SUCCESS)
  const behind = encodeAttribute(attribute({ key: 'behind' }))
  await createObject(client, attributeOid(asVid(vidHash('t1')), slot + 1), 0, behind)
  t.is(await resultOf(client, DELETE), Code.SUCCESS)
  t.is(cluster.objects('attribute').length, 2)
  t.is(await textOf(client), Code.NO_OBJ)
  cluster.close()
})

test('attributes belong to a volume, a snapshot and a key; what names none is refused', async (t) => {
  const { cluster, client } = await setting()
  await resultOf(client, CREATE, value('working'))
  await snapshot(client, 't1', 's1')
  t.is(await textOf(client), 'working')
  t.is(await textOf(client, { tag: 's1' }), Code.NO_OBJ)
  t.is(await resultOf(client, CREATE, { tag: 's1', ...value('snapshot') }), Code.SUCCESS)
  t.is(await textOf(client, { tag: 's1' }), 'snapshot')
  t.is(await textOf(client), 'working')
  t.is(await textOf(client, { tag: 's2' }), Code.NO_TAG)
  t.is(await textOf(client, { name: 'nobody' }), Code.NO_VDI)
  t.is(await resultOf(client, CREATE, { key: '' }), Code.INVALID_PARMS)
  t.is((await ask(client, CREATE, Buffer.alloc(100))).result, Code.INVALID_PARMS)
  const tooLong = encodeAttribute(attribute())
  tooLong.writeUInt32LE(70_000, 524)
  t.is((await ask(client, CREATE, tooLong)).result, Code.INVALID_PARMS)
  cluster.close()
})

for (const policy of [0, 0x11]) {
  test(`a machine's state is saved in parts of any size, and anew (policy ${policy})`, async (t) => {
    const { cluster, client, vid } = await setting(policy)
    const state = Buffer.from(Array.from({ length: 140_000 }, (_, i) => (i * 13 + (i >> 8)) & 0xff))
    const oid = vmstateOid(vid, 0)
    const cuts = [0, 191, 4312, 137_638, state.length]
    for (const round of [0, 1]) {
      for (let i = 0; i + 1 < cuts.length; i++) {
        const part = state.subarray(cuts[i], cuts[i + 1])
        // The second time less is saved: nothing of the first may be left behind it.
        if (round === 1 && i > 1) break
        const put = i === 0 ? createObject : writeObject
        t.is((await put(client, oid, cuts[i]!, part)).result, Code.SUCCESS)
      }
    }
    const wanted = Buffer.alloc(state.length)
    state.copy(wanted, 0, 0, cuts[2])
    for (const [offset, length] of [
      [0, 140_000],
      [190, 3],
      [4000, 777],
    ] as const) {
      const { body } = await readObject(await cluster.client(1), oid, offset, length)
      t.true(body.equals(wanted.subarray(offset, offset + length)), `${length} at ${offset}`)
    }
    // Saved into the volume that becomes a snapshot, read from there, and gone with it.
    const heir = await snapshot(client, 't1', 'saved')
    t.true((await readObject(client, oid, 0, 140_000)).body.equals(wanted))
    t.is((await createObject(client, vmstateOid(heir, 0), 0, state)).result, Code.SUCCESS)
    t.is((await vdi(client, Op.DEL_VDI, 't1', { tag: 'saved' })).result, Code.SUCCESS)
    await cluster.settle()
    t.is((await readObject(client, oid, 0, 1)).result, Code.NO_OBJ)
    t.true((await readObject(client, vmstateOid(heir, 0), 0, 140_000)).body.equals(state))
    t.deepEqual(cluster.failures(), [])
    cluster.close()
  })
}
