// All sheep of a cluster are stopped at about the same moment, as by `systemctl stop sheep` on every host, and started again.
import test, { type ExecutionContext } from 'ava'
import { Code } from '../../src/base/codes.js'
import type { SheepClient } from '../../src/peer/client.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { withSeeds } from './support/seeds.js'
import { headerOf, newVdi, snapshot, vdi, vdiId } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { read, write } from './support/volume-io.js'

const SIZE = 4 << 20
const DELETED = ['Bob', 'Carol']
const LIVING = ['Alice', 'Dave', 'Eve', 'Frank', 'Grace']
const NAMES = [...LIVING, ...DELETED]

async function fill(cluster: SmallCluster): Promise<void> {
  const client = await cluster.client(0)
  for (const name of NAMES) {
    await newVdi(client, name, SIZE)
    const disk = await cluster.source(0).open(name)
    await write(disk, 0, Buffer.from(name))
    await disk.close()
  }
  for (const name of ['Alice', 'Bob', 'Eve']) await snapshot(client, name, 's')
  for (const name of DELETED) await vdi(client, Op.DEL_VDI, name)
  client.close()
  await cluster.settle()
}

/** In any order, at once or a moment after one another. The result: who was in the newest epoch. */
async function stopAll(cluster: SmallCluster): Promise<number[]> {
  const nodes = new Map(cluster.up().map((index) => [index, cluster.node(index)]))
  const stops: Promise<void>[] = []
  for (const index of shuffled(cluster, cluster.up())) {
    stops.push(cluster.stop(index))
    if (cluster.dice.chance(0.5)) await cluster.clock.sleep(cluster.dice.below(40))
  }
  await Promise.all(stops)
  const latest = [...nodes.values()].map(({ epochLog }) => epochLog.latest())
  return [...nodes].flatMap(([index, { epochLog }]) =>
    epochLog.latest() === Math.max(...latest) ? [index] : [],
  )
}

function shuffled(cluster: SmallCluster, items: readonly number[]): number[] {
  const rest = [...items]
  return items.map(() => rest.splice(cluster.dice.below(rest.length), 1)[0]!)
}

interface Known {
  readonly inUse: Buffer
  readonly deleted: Buffer
}

function knownTo(cluster: SmallCluster, index: number): Known {
  const { inUse, deleted } = cluster.node(index).state.vids
  return { inUse: Buffer.from(inUse), deleted: Buffer.from(deleted) }
}

function same(a: Known, b: Known): boolean {
  return a.inUse.equals(b.inUse) && a.deleted.equals(b.deleted)
}

async function readAll(t: ExecutionContext, cluster: SmallCluster, seen: SheepClient) {
  for (const name of LIVING) {
    const vid = await vdiId(seen, Op.GET_VDI_INFO, name)
    t.is((await headerOf(seen, vid)).name, name)
    const disk = await cluster.source(0).open(name)
    t.deepEqual(await read(disk, 0, name.length), Buffer.from(name))
    await disk.close()
  }
  for (const name of ['Alice', 'Eve']) await vdiId(seen, Op.GET_VDI_INFO, name, { tag: 's' })
  for (const name of DELETED) {
    t.is((await vdi(seen, Op.GET_VDI_INFO, name)).result, Code.NO_VDI, name)
  }
}

for (const [nodes, copies] of [
  [3, 1],
  [5, 2],
  [7, 3],
] as const) {
  test.serial(
    `${nodes} nodes with volumes of ${copies} copies that were all stopped at once know every volume`,
    async (t) => {
      await withSeeds(3, async (seed) => {
        const cluster = await SmallCluster.start({ seed, nodes, copies })
        await fill(cluster)
        const before = knownTo(cluster, 0)
        const last = await stopAll(cluster)
        await Promise.all(last.map(async (index) => (await cluster.launch(index)).joined))
        // These serve already. No id of a volume whose inode is on the others may be given out.
        for (const index of last) t.true(same(knownTo(cluster, index), before), `seed ${seed}`)
        const early = await cluster.client(last[0]!)
        const again = vdi(early, Op.NEW_VDI, 'Alice', { sizeBytes: SIZE })
        await cluster.clock.sleep(2_000)
        const others = [...cluster.machines.keys()].filter((index) => !last.includes(index))
        for (const index of shuffled(cluster, others)) await cluster.boot(index)
        await cluster.settle()
        t.not((await again).result, Code.SUCCESS)
        for (const index of cluster.up()) {
          t.true(same(knownTo(cluster, index), before), `node ${index}, seed ${seed}`)
        }
        await readAll(t, cluster, early)
        t.deepEqual(await cluster.copyFaults(), [])
        cluster.close()
      })
    },
  )
}
