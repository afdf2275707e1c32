/** Each cache mode of QEMU 5.2's driver, with every daemon killed right after what the mode calls safe. */
import { startCluster, type TestCluster } from './support/cluster.js'
import { type CacheMode, img, io, OpenVolume, vdiName } from './support/sheepdog-clients.js'
import { needingQemu52 } from './support/suite.js'

const realTest = needingQemu52()

async function flushesAt(cluster: TestCluster, index: number): Promise<number> {
  const { stdout } = await cluster.dogAt(index, 'node stat', ['--json'])
  return (JSON.parse(stdout) as { client: { flushes: number } }).client.flushes
}

/** Writes through a QEMU that stays open until everything is dead, and looks afterwards through other nodes. */
async function killedAfter(cluster: TestCluster, cache: CacheMode, fill: number): Promise<void> {
  const open = await OpenVolume.open(vdiName(cluster, 'Alice'), cache)
  try {
    await open.tell(`write -P ${fill} 1M 6M`, /wrote 6291456/)
    await open.tell(`write -P ${fill + 1} 3000320 512`, /wrote 512/)
    // The other two need none: each of their writes is safe when it is answered.
    if (cache === 'writeback' || cache === 'none') await open.tell('flush')
    await cluster.killAll()
  } finally {
    await open.kill()
  }
  await cluster.startAll()
  const expected = [`read -P ${fill} 1M 1951744`, `read -P ${fill + 1} 3000320 512`]
  for (const index of [1, 2]) {
    await io(vdiName(cluster, 'Alice', index), [...expected, `read -P ${fill} 3000832 4339200`])
  }
}

realTest(
  'cache=none, writeback, writethrough, directsync: all daemons killed right after',
  async (t) => {
    t.timeout(300_000)
    const cluster = await startCluster(t)
    await img('create', '-f', 'raw', vdiName(cluster, 'Alice'), '16M')
    for (const [i, mode] of (
      ['none', 'writeback', 'writethrough', 'directsync'] as const
    ).entries()) {
      await t.notThrowsAsync(killedAfter(cluster, mode, 0x10 * (i + 1)), mode)
    }
  },
)

realTest('QEMU goes on flushing, and caching, because flushes succeed', async (t) => {
  const cluster = await startCluster(t)
  const alice = vdiName(cluster, 'Alice')
  await img('create', '-f', 'raw', alice, '16M')
  const before = await flushesAt(cluster, 0)
  await io(alice, [
    'write -P 1 0 4k',
    'flush',
    'write -P 2 0 4k',
    'flush',
    'write -P 3 0 4k',
    'flush',
  ])
  const flushes = (await flushesAt(cluster, 0)) - before
  // After a refusal it would never ask again.
  t.true(flushes >= 3, `${flushes} flushes`)
})

const IN_FLIGHT = 16

/**
 * All requests are under way when the sheep dies, and nothing is asked for until it is back: QEMU 5.2 connects again,
 * but with one request at a time it dies of its own assertion while it does ("aio_co_enter: self != co").
 */
realTest(
  'what is under way when the sheep dies is sent again when it is back, and done',
  async (t) => {
    const cluster = await startCluster(t)
    const alice = vdiName(cluster, 'Alice')
    await img('create', '-f', 'raw', alice, '64M')
    for (const fill of [1, 101]) {
      const open = await OpenVolume.open(alice)
      t.teardown(() => open.kill())
      // Some of the requests are for objects that exist, others create them.
      await open.tell(`write -P ${fill} 0 ${fill === 1 ? 16 : 48}M`, /wrote/)
      cluster.node(0).signal('SIGSTOP')
      const places = Array.from({ length: IN_FLIGHT }, (_, i) => [fill + i, i * 3] as const)
      for (const [value, mebibyte] of places) {
        await open.tell(`aio_write -P ${value} ${mebibyte}M 16k`)
      }
      await cluster.node(0).kill()
      await cluster.node(0).start()
      const said = await open.tell('aio_flush')
      t.is([...said.matchAll(/^(?:qemu-io> )?wrote 16384/gm)].length, IN_FLIGHT, said)
      await open.close()
      const written = places.map(([value, mebibyte]) => `read -P ${value} ${mebibyte}M 16k`)
      await io(vdiName(cluster, 'Alice', 1), written)
    }
  },
)
