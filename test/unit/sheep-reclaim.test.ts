// What gives objects back, and what must never be taken: whole nodes over a network of memory.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { asVid, dataOid, inodeOid, ledgerOid, type Oid, type Vid } from '../../src/model/oid.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { refRequest } from '../../src/wire/sheepdog/requests.js'
import { withSeeds } from './support/seeds.js'
import { newVdi, readObject, setSlot, snapshot, vdiId } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { discard, read, write } from './support/volume-io.js'

const OBJECT = 1 << 20

test('what is written right after a discard of the same object stays', async (t) => {
  // The object is created again before its slot names it: at that moment a removal that only asks
  // whether somebody names it would take it away. Users saw it as I/O errors after mkfs and fstrim.
  const cluster = await SmallCluster.start()
  await newVdi(await cluster.client(0), 'Alice', 4 * OBJECT)
  const disk = await cluster.source(1).open('Alice')
  t.is(await write(disk, 5, Buffer.from('first')), Code.SUCCESS)
  t.is(await discard(disk, 0, OBJECT), Code.SUCCESS)
  t.is(await write(disk, 5, Buffer.from('again')), Code.SUCCESS)
  await cluster.settle()
  t.deepEqual(await read(disk, 4, 7), Buffer.from('\0again\0'))
  t.deepEqual(await cluster.copyFaults(), [])
  cluster.close()
})

test('discards and writes in any order, from changing nodes, lose nothing and leave nothing', async (t) => {
  await withSeeds(6, async (seed) => {
    const cluster = await SmallCluster.start({ seed })
    const { dice } = cluster
    await newVdi(await cluster.client(0), 'Alice', 3 * OBJECT)
    const expected = [0, 0, 0]
    let disk = await cluster.source(0).open('Alice')
    for (let step = 1; step <= 60; step++) {
      const slot = dice.below(3)
      if (dice.chance(0.1)) {
        await disk.close()
        disk = await cluster.source(dice.below(3)).open('Alice')
      } else if (dice.chance(0.5)) {
        expected[slot] = 0
        t.is(await discard(disk, slot * OBJECT, OBJECT), Code.SUCCESS, `SEED=${seed}`)
      } else {
        expected[slot] = step
        t.is(await write(disk, slot * OBJECT, Buffer.of(step)), Code.SUCCESS, `SEED=${seed}`)
      }
      if (dice.chance(0.2)) await cluster.clock.sleep(dice.below(20))
      const look = dice.below(3)
      const found = await read(disk, look * OBJECT, 1)
      t.deepEqual(found, Buffer.of(expected[look]!), `SEED=${seed} step ${step}`)
    }
    await cluster.settle()
    const used = expected.filter((value) => value !== 0).length
    t.is(cluster.objects('data').length, used, `SEED=${seed}: objects are left behind`)
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    cluster.close()
  })
})

/** The entries of a ledger up to the last that is not zero; empty when there is none. */
async function ledgerOf(cluster: SmallCluster, data: Oid): Promise<number[]> {
  const client = await cluster.client(cluster.dice.below(3))
  const { body } = await readObject(client, ledgerOid(data), 0, 64)
  client.close()
  const entries = Array.from({ length: body.length / 4 }, (_, i) => body.readInt32LE(4 * i))
  return entries.slice(0, entries.findLastIndex((entry) => entry !== 0) + 1)
}

async function refOf(cluster: SmallCluster, vid: Vid, index: number): Promise<[number, number]> {
  const client = await cluster.client(0)
  const { body } = await readObject(client, inodeOid(vid), 4198968 + 8 * index, 8)
  client.close()
  return [body.readInt32LE(0), body.readInt32LE(4)]
}

test('references and ledgers go as in the example of the spec, alike on every copy', async (t) => {
  const cluster = await SmallCluster.start({ copies: 3 })
  const client = await cluster.client(0)
  const first = await newVdi(client, 'alice', 4 * OBJECT)
  const object = dataOid(first, 0)
  const disk = await cluster.source(0).open('alice')
  await write(disk, 0, Buffer.from('one'))
  t.deepEqual(await refOf(cluster, first, 0), [0, 0])

  const second = await snapshot(client, 'alice', 's1')
  t.deepEqual([first, second], [0xa03907, 0xa03908])
  t.deepEqual(await refOf(cluster, first, 0), [0, 1])
  t.deepEqual(await refOf(cluster, second, 0), [1, 0])

  await write(disk, 0, Buffer.from('two'))
  await cluster.settle()
  t.deepEqual(await refOf(cluster, second, 0), [0, 0])
  t.deepEqual(await ledgerOf(cluster, object), [1, -1])
  t.deepEqual(await cluster.copyFaults(), [])

  // As sheepdog 1.0's dog deletes: the slots first, then the volume.
  t.is((await setSlot(client, first, 0, asVid(0))).result, Code.SUCCESS)
  await vdiId(client, Op.DEL_VDI, 'alice', { tag: 's1' })
  await cluster.settle()
  t.deepEqual(cluster.objects('ledger'), [])
  t.deepEqual(cluster.objects('data'), [dataOid(second, 0)])
  t.deepEqual(await read(disk, 0, 3), Buffer.from('two'))
  cluster.close()
})

test('a drop of what no ledger has is refused and changes nothing', async (t) => {
  const cluster = await SmallCluster.start()
  const client = await cluster.client(0)
  const vid = await newVdi(client, 'Alice', OBJECT)
  const ledger = ledgerOid(dataOid(vid, 0))
  const refused = [
    { ledger, generation: 0x10000000, count: 0 },
    { ledger, generation: 1048575, count: 1 },
    { ledger: inodeOid(vid), generation: 0, count: 5 },
    { ledger: dataOid(vid, 0), generation: 0, count: 0 },
  ]
  for (const opcode of [Op.DECREF_OBJ, Op.DECREF_PEER]) {
    for (const fields of refused) {
      const { result } = await client.call(refRequest({ opcode, epoch: 1, ...fields }))
      t.is(result, Code.INVALID_PARMS)
    }
  }
  t.deepEqual(cluster.objects('inode', 'ledger', 'data'), [inodeOid(vid)])
  t.deepEqual(await cluster.copyFaults(), [])
  cluster.close()
})

test('a drop of an epoch that never comes waits no longer than its sender, and holds up no other', async (t) => {
  const cluster = await SmallCluster.start({ copies: 3 })
  const [rude, client] = [await cluster.client(0), await cluster.client(0)]
  const vid = await newVdi(client, 'Alice', OBJECT)
  const ledger = ledgerOid(dataOid(vid, 0))
  const drop = { opcode: Op.DECREF_PEER, ledger, generation: 0, count: 1 }
  const never = rude.call(refRequest({ ...drop, epoch: 1000 })).catch(() => undefined)
  const counted = client.call(refRequest({ ...drop, opcode: Op.DECREF_OBJ }))
  const late = cluster.clock.sleep(10_000).then(() => undefined)
  t.is((await Promise.race([counted, late]))?.result, Code.SUCCESS)
  rude.close()
  t.is(await never, undefined)
  await cluster.settle()
  t.is(cluster.node(0).local.parked, 0)
  cluster.close()
})
