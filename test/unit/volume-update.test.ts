// Reading and writing a range as one step: against everything else that is done to the volume, through snapshots and growth
// of objects, over a cluster that completes in any order.
import { setImmediate as turn } from 'node:timers/promises'
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { silentLog } from '../../src/base/log.js'
import { volumeSource } from '../../src/volume/source.js'
import type { Volume } from '../../src/volume/volume.js'
import { FakeCluster } from './support/fake-cluster.js'

const OBJECT = 1 << 20
/** Across the border of two objects: four bytes in each. */
const COUNTER = { offset: OBJECT - 4, length: 8 }
const MARK = 32

async function opened(cluster: FakeCluster): Promise<readonly [Volume, Volume]> {
  cluster.addVdi('Alice', 4 * OBJECT)
  const { clock } = cluster
  const source = volumeSource({ objects: cluster, vdis: cluster, clock, log: silentLog })
  // Two doors of one node.
  const both = Promise.all([source.open('Alice'), source.open('Alice')])
  await drain(cluster, both)
  return both
}

async function drain(cluster: FakeCluster, promise: Promise<unknown>): Promise<void> {
  let isOver = false
  void promise.finally(() => {
    isOver = true
  })
  for (let i = 0; i < 20_000 && !isOver; i++) {
    if (cluster.pending > 0) cluster.step()
    if (cluster.pending === 0 || i % 8 === 0) await turn()
  }
  if (!isOver) throw new Error('it never ended')
}

function raised(found: Buffer): Buffer {
  const next = Buffer.alloc(8)
  next.writeBigUInt64BE(found.readBigUInt64BE() + 1n)
  return next
}

const update = (disk: Volume, fua: boolean, decide = raised): Promise<Code> =>
  new Promise((resolve) => disk.update(COUNTER, decide, fua, resolve))

async function counted(cluster: FakeCluster, disk: Volume): Promise<bigint> {
  const into = Buffer.alloc(8)
  await drain(cluster, new Promise((resolve) => disk.read(COUNTER.offset, into, resolve)))
  return into.readBigUInt64BE()
}

test('no step is lost, whatever is written beside it and however often a snapshot is taken', async (t) => {
  for (let seed = 1; seed <= 40; seed++) {
    const cluster = new FakeCluster({ seed, atOnce: [0, 0.3, 0.8][seed % 3]! })
    const [one, two] = await opened(cluster)
    const steps: Promise<Code>[] = []
    const others: Promise<Code>[] = []
    for (let i = 0; i < 30; i++) {
      steps.push(update(i % 2 === 0 ? one : two, cluster.dice.chance(0.5)))
      const mark = Buffer.alloc(MARK, i)
      others.push(
        new Promise((resolve) => one.write(COUNTER.offset - MARK, mark, false, resolve)),
        new Promise((resolve) => two.write(COUNTER.offset + 8, mark, true, resolve)),
      )
      if (cluster.dice.chance(0.1)) cluster.snapshot('Alice', `s${i}`)
      for (let n = cluster.dice.below(6); n > 0 && cluster.pending > 0; n--) cluster.step()
      if (cluster.dice.chance(0.3)) await turn()
    }
    await drain(cluster, Promise.all([...steps, ...others]))
    for (const step of [...steps, ...others]) t.is(await step, Code.SUCCESS)
    t.is(await counted(cluster, two), 30n, `seed ${seed}`)
    t.deepEqual(cluster.violations, [])
  }
})

test('what is decided against leaves everything as it was', async (t) => {
  const cluster = new FakeCluster()
  const [disk] = await opened(cluster)
  const code = update(disk, false, () => undefined as unknown as Buffer)
  await drain(cluster, code)
  t.is(await code, Code.SUCCESS)
  t.deepEqual(cluster.calls, [])
})

test('a write that comes meanwhile waits for the step, and one under way is waited for', async (t) => {
  const cluster = new FakeCluster({ atOnce: 0 })
  const [one, two] = await opened(cluster)
  await drain(cluster, update(one, false))
  const order: string[] = []
  const mark = (name: string) => (): void => void order.push(name)
  const bytes = (value: number): Buffer => Buffer.from([0, 0, 0, 0, 0, 0, 0, value])
  two.write(COUNTER.offset, bytes(10), false, mark('before'))
  const step = new Promise<void>((resolve) =>
    one.update(COUNTER, raised, false, () => {
      order.push('step')
      resolve()
    }),
  )
  two.write(COUNTER.offset, bytes(50), false, mark('after'))
  await drain(cluster, step)
  await drain(cluster, turn())
  t.deepEqual(order.slice(0, 2), ['before', 'step'])
  t.is(await counted(cluster, one), 50n)
})

test('a snapshot between the two objects of one step does not make it decide twice', async (t) => {
  const cluster = new FakeCluster()
  const [disk] = await opened(cluster)
  await drain(cluster, update(disk, false))
  let writes = 0
  cluster.refuse = ({ verb }) => {
    if (verb !== 'write' || ++writes !== 2) return undefined
    cluster.snapshot('Alice', 'monday')
    return { code: Code.READONLY, applied: false }
  }
  let decisions = 0
  const carry = (found: Buffer): Buffer => {
    decisions++
    return found.map((byte) => byte + 1) as Buffer
  }
  const code = update(disk, true, carry)
  await drain(cluster, code)
  t.deepEqual([await code, decisions], [Code.SUCCESS, 1])
  t.is(await counted(cluster, disk), 0x0101010101010102n)
  t.is(cluster.working('Alice').header.snapId, 2)
})
