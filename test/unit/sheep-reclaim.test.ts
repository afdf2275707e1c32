// What gives objects back, and what must never be taken: whole nodes over a network of memory.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { withSeeds } from './support/seeds.js'
import { newVdi } from './support/sheep-wire.js'
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
