// tgt's sheepdog backing store: two targets on two sheep are two paths to one disk (README, "Multipath with tgt").
import type { ExecutionContext } from 'ava'
import { startLockingCluster } from './support/locking.js'
import { run, tryRun } from './support/run.js'
import { needing } from './support/suite.js'
import { BLOCK_BYTES, Path, Target } from './support/tgt.js'

const test = needing(
  'tgtd',
  'tgtadm',
  'qemu-io',
  '/usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so',
  'iscsi-inq',
)

/** Blocks that lie in one object. */
const PER_OBJECT = (4 * 1024 * 1024) / BLOCK_BYTES

async function twoPaths(t: ExecutionContext) {
  const cluster = await startLockingCluster(t)
  await cluster.dog('vdi create', 'Alice', '256M')
  const targets: [Target, Target] = [
    await Target.start(t, cluster.node(0)),
    await Target.start(t, cluster.node(1)),
  ]
  for (const target of targets) await target.attach('Alice')
  const holders = async (): Promise<{ port: number; coherence: string }[]> => {
    const { locks } = JSON.parse((await cluster.dogAt(2, 'vdi lock list', ['--json'])).stdout)
    return locks.flatMap((lock: { holders: [] }) => lock.holders)
  }
  return { cluster, targets, holders }
}

test('what one path writes the other one reads, also in objects both of them begin', async (t) => {
  const { targets, holders } = await twoPaths(t)
  const ports = targets.map(({ node }) => node.port)
  t.deepEqual(
    (await holders()).map(({ port }) => port),
    ports,
  )
  for (const page of ['0x80', '0x83']) {
    const pages = await Promise.all(
      targets.map(({ url }) => run(['iscsi-inq', '-e', '1', '-c', page, url])),
    )
    t.is(pages[0]!.stdout, pages[1]!.stdout, 'one disk')
  }
  const [one, two] = targets.map((target) => new Path(t, target)) as [Path, Path]
  for (let round = 0; round < 12; round++) {
    const [writer, reader] = round % 2 === 0 ? [one, two] : [two, one]
    const block = (round >> 2) * PER_OBJECT + round
    t.true(await writer.write(block, round + 1))
    t.true(await reader.holds(block, round + 1), `round ${round}`)
    t.true(await writer.holds(block, round + 1))
  }
  // Both at once, into objects that are not there yet.
  const own = (path: number, i: number): number => (8 + (i >> 1)) * PER_OBJECT + 2 * i + path
  await Promise.all(
    [one, two].map(async (path, p) => {
      for (let i = 0; i < 16; i++) t.true(await path.write(own(p, i), 100 + p))
    }),
  )
  for (let i = 0; i < 16; i++) {
    t.true(await one.holds(own(1, i), 101), `block ${i} of the second path`)
    t.true(await two.holds(own(0, i), 100), `block ${i} of the first path`)
  }
  await Promise.all([one.kill(), two.kill()])
  for (const target of targets) await target.detach()
  t.deepEqual(await holders(), [])
})

test('nobody else opens a disk that tgt has, and tgt none that somebody has', async (t) => {
  const { cluster, targets } = await twoPaths(t)
  const third = await Target.start(t, cluster.node(0))
  t.not(
    (await third.tryAttach('Alice')).code,
    0,
    'two targets on one sheep could not tell each other',
  )
  const refused = await tryRun(['qemu-img', 'info', cluster.uri('Alice', 2)])
  t.regex(refused.stderr, /Alice is locked by .*\(shared\)/)
  for (const target of targets) await target.detach()
  await cluster.dog('vdi create', 'Bob', '16M')
  await run(['qemu-img', 'info', cluster.uri('Alice', 2)])
  t.is((await third.tryAttach('Bob')).code, 0)
})

test('a target that dies leaves the disk to the other one, with all that was written', async (t) => {
  const { targets } = await twoPaths(t)
  const [one, two] = targets.map((target) => new Path(t, target)) as [Path, Path]
  let path = one
  for (let block = 0; block < 48; block++) {
    if (block === 20) void targets[0].kill()
    if (await path.write(block * 8, block + 1, 2_000)) continue
    // As multipath does it: the path failed, the next one gets what was not acknowledged.
    t.is(path, one, `block ${block}`)
    path = two
    t.true(await path.write(block * 8, block + 1))
  }
  t.is(path, two)
  for (let block = 0; block < 48; block++) t.true(await two.holds(block * 8, block + 1), `${block}`)
})

test('a sheep that dies leaves the disk to the other path; when it is back its path is current', async (t) => {
  const { cluster, targets } = await twoPaths(t)
  const [one, two] = targets.map((target) => new Path(t, target)) as [Path, Path]
  for (let i = 0; i < 4; i++) t.true(await one.write(i * PER_OBJECT, i + 1))
  t.true(await two.holds(0, 1))
  await cluster.node(0).kill()
  for (let i = 0; i < 8; i++) t.true(await two.write(i * PER_OBJECT, 0x40 + i), `object ${i}`)
  await cluster.node(0).start()
  await cluster.recovered()
  for (let i = 0; i < 8; i++) t.true(await one.holds(i * PER_OBJECT, 0x40 + i), `object ${i}`)
  t.true(await one.write(9 * PER_OBJECT, 0x77))
  t.true(await two.holds(9 * PER_OBJECT, 0x77))
})

test('a snapshot under both paths keeps what was, and neither path loses what it writes afterwards', async (t) => {
  const { cluster, targets, holders } = await twoPaths(t)
  const [one, two] = targets.map((target) => new Path(t, target)) as [Path, Path]
  for (let i = 0; i < 4; i++) t.true(await one.write(i * PER_OBJECT, i + 1))
  for (let i = 0; i < 4; i++) t.true(await two.holds(i * PER_OBJECT, i + 1))
  await cluster.dogAt(2, 'vdi snapshot', ['-s', 'monday', 'Alice'])
  t.true(await one.write(0, 0x51), 'first write')
  t.true(await one.holds(0, 0x51))
  t.true(await two.holds(0, 0x51), 'other path reads what the first has copied')
  t.true(await two.write(PER_OBJECT, 0x52))
  t.true(await one.holds(PER_OBJECT, 0x52))
  t.true(await two.holds(2 * PER_OBJECT, 3))
  // Now the second path notices by writing, after the first one has changed the volume.
  await cluster.dogAt(2, 'vdi snapshot', ['-s', 'tuesday', 'Alice'])
  t.true(await one.write(2 * PER_OBJECT, 0x61))
  t.true(await two.write(3 * PER_OBJECT, 0x62))
  t.true(await two.holds(2 * PER_OBJECT, 0x61))
  t.true(await one.holds(3 * PER_OBJECT, 0x62))
  t.is((await holders()).length, 2, 'the snapshots are nobody’s')
  const [monday, tuesday] = ['Alice@monday', 'Alice@tuesday'].map((name) => cluster.uri(name, 2))
  const holds = (name: string, object: number, pattern: number): Promise<unknown> => {
    const read = `read -P ${pattern} ${object * PER_OBJECT * BLOCK_BYTES} ${BLOCK_BYTES}`
    return run(['qemu-io', '-r', '-f', 'raw', '-c', read, name])
  }
  for (let i = 0; i < 4; i++) await holds(monday!, i, i + 1)
  for (const [i, pattern] of [0x51, 0x52, 3, 4].entries()) await holds(tuesday!, i, pattern)
})
