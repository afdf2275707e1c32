// One disk over the iSCSI doors of two sheep: coherent, with one identity, and still there when either sheep dies.
import type { ExecutionContext } from 'ava'
import { startCluster, type TestCluster } from './support/cluster.js'
import { freePort } from './support/ports.js'
import { run } from './support/run.js'
import { needing } from './support/suite.js'
import { Path } from './support/tgt.js'

const test = needing(
  ...(['iscsi-inq', 'iscsi-ls', 'qemu-io'] as const),
  '/usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so',
)

async function twoDoors(t: ExecutionContext) {
  const ports = [await freePort(), await freePort()]
  const cluster = await startCluster(t, {
    ...{ nodes: 3, copies: 2 },
    place: (i) => ({ options: i < 2 ? ['--iscsi', `127.0.0.1:${ports[i]}`] : [] }),
  })
  await cluster.dog('vdi create', 'Alice', '64M')
  const urls = ports.map((port) => `iscsi://127.0.0.1:${port}/iqn.2026-11.io.sheepdog:Alice/0`)
  return { cluster, urls }
}

const holder = async (cluster: TestCluster, through: number): Promise<number[]> => {
  const { stdout } = await cluster.dogAt(through, 'vdi lock list', ['--json'])
  const { locks } = JSON.parse(stdout) as { locks: { holders: { port: number }[] }[] }
  return locks.flatMap(({ holders }) => holders.map(({ port }) => port))
}

test('what one sheep is told the other one tells, at once and side by side', async (t) => {
  const { cluster, urls } = await twoDoors(t)
  // Of two that come at the same time to a disk nobody has, one has to come again.
  const one = new Path(t, { url: urls[0]! })
  t.true(await one.write(0, 1))
  const two = new Path(t, { url: urls[1]! })
  for (let round = 0; round < 8; round++) {
    const [writer, reader] = round % 2 === 0 ? [one, two] : [two, one]
    t.true(await writer.write(round, round + 1))
    t.true(await reader.holds(round, round + 1), `round ${round}`)
  }
  await Promise.all(
    [one, two].map(async (path, p) => {
      for (let i = 0; i < 16; i++) t.true(await path.write(100 + 2 * i + p, 100 + p))
    }),
  )
  for (let i = 0; i < 16; i++) {
    t.true(await one.holds(101 + 2 * i, 101))
    t.true(await two.holds(100 + 2 * i, 100))
  }
  const pages = (page: string) =>
    Promise.all(
      urls.map(async (url) => (await run(['iscsi-inq', '-e', '1', '-c', page, url])).stdout),
    )
  const [serials, ids] = [await pages('128'), await pages('131')]
  t.is(serials[0], serials[1], 'one disk')
  t.not(ids[0], ids[1], 'two ports')
  // One of the sheep has it for both.
  const [port, ...others] = await holder(cluster, 2)
  t.deepEqual(others, [])
  t.true([0, 1].some((i) => cluster.node(i).port === port))
})

test('either sheep may die: what was acknowledged over any path is read over the one that is left', async (t) => {
  const { cluster, urls } = await twoDoors(t)
  const one = new Path(t, { url: urls[0]! })
  t.true(await one.write(0, 1))
  const two = new Path(t, { url: urls[1]! })
  for (let i = 1; i < 8; i++) t.true(await (i % 2 === 0 ? one : two).write(i, i + 1))
  t.deepEqual(await holder(cluster, 2), [cluster.node(0).port])
  await cluster.node(0).kill()
  // The session over the second sheep ends with the first one, and is made anew.
  for (let i = 0; i < 8; i++) t.true(await two.holds(i, i + 1), `block ${i}`)
  t.true(await two.write(0, 0x51))
  t.deepEqual(await holder(cluster, 2), [cluster.node(1).port])
  await one.kill()
  await cluster.node(0).start()
  await cluster.recovered()
  // Now it is the first one that passes on.
  const again = new Path(t, { url: urls[0]! })
  t.true(await again.holds(0, 0x51))
  t.true(await again.write(1, 0x52))
  t.true(await two.holds(1, 0x52))
  t.deepEqual(await holder(cluster, 2), [cluster.node(1).port])
})
