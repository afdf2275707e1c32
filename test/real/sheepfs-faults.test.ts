/** A mount under load: many readers, snapshots, daemons and the file system's own process killed. No wrong byte, nothing durable lost. */
import { type FileHandle, mkdir, readFile } from 'node:fs/promises'
import { nbdcopy } from './support/clients.js'
import { startCluster } from './support/cluster.js'
import { exercise } from './support/exerciser.js'
import { patternBytes, sameFiles } from './support/images.js'
import { mountCluster, opened } from './support/mount.js'
import { type Running, run, start, tryRun, until } from './support/run.js'
import { mountTest } from './support/sheepfs.js'

const KiB = 1024
const MiB = 1024 * KiB
const BLOCK = 64 * KiB
const START_MS = 30_000
const realTest = mountTest('fusermount3', 'nbdcopy')

/** A block says everywhere which round wrote it. */
const block = (round: number): Buffer => Buffer.alloc(BLOCK, round)

async function writeBlock(file: FileHandle, at: number, round: number): Promise<void> {
  const { bytesWritten } = await file.write(block(round), 0, BLOCK, at * BLOCK)
  if (bytesWritten !== BLOCK) throw new Error(`a short write of ${bytesWritten} bytes`)
}

realTest('ten readers see whole blocks and an unchanging snapshot while one writes', async (t) => {
  t.timeout(600_000)
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Alice', '8M')
  const mount = await mountCluster(t, cluster)
  const live = await opened(t, mount.disk('Alice'), 'r+')
  const before = patternBytes(5, 4 * MiB)
  await live.write(before, 0, before.length, 4 * MiB)
  await mkdir(mount.path('vdi', 'Alice', 'snapshots', 'before'))
  const snapshot = mount.path('vdi', 'Alice', 'snapshots', 'before', 'disk.raw')
  await nbdcopy(cluster.uri('Alice@before', 1), `${cluster.directory}/before`)
  let isOver = false
  let torn = 0
  const reader = async (seed: number): Promise<void> => {
    const file = await opened(t, mount.disk('Alice'), 'r')
    const into = Buffer.alloc(BLOCK)
    for (let i = seed; !isOver; i++) {
      await file.read(into, 0, BLOCK, (i % 64) * BLOCK)
      if (into.some((byte) => byte !== into[0])) torn++
    }
    await file.close()
  }
  const readers = Array.from({ length: 10 }, (_, i) => reader(i * 7))
  for (let round = 1; round <= 4; round++) {
    for (let at = 0; at < 64; at++) await writeBlock(live, at, round)
    await sameFiles(`${cluster.directory}/before`, snapshot)
  }
  isOver = true
  await Promise.all(readers)
  await live.sync()
  await live.close()
  t.is(torn, 0)
  await nbdcopy(cluster.uri('Alice', 2), `${cluster.directory}/after`)
  const after = await readFile(`${cluster.directory}/after`)
  t.true(after.subarray(0, 4 * MiB).every((byte) => byte === 4))
  t.true(after.subarray(4 * MiB).equals(before))
})

realTest(
  'when its sheep is killed, a writer notices nothing; when all are, it waits, or fails as told',
  async (t) => {
    t.timeout(600_000)
    const cluster = await startCluster(t)
    await cluster.dog('vdi create', 'Alice', '8M')
    await cluster.dog('vdi create', 'Bob', '8M')
    const mount = await mountCluster(t, cluster)
    const hasty = await mountCluster(t, cluster, ['-o', 'io_timeout=2'])
    const live = await opened(t, mount.disk('Alice'), 'r+')
    const bob = await opened(t, hasty.disk('Bob'), 'r+')
    await writeBlock(bob, 0, 1)
    for (let at = 0; at < 128; at++) {
      if (at === 40) await cluster.node(0).kill()
      await writeBlock(live, at, at)
    }
    await live.sync()
    // The sheep that was named is dead; this is asked of another one.
    t.regex(await readFile(mount.path('node', 'list'), 'utf8'), /Host:Port/)
    await run(['df', mount.at])
    // Another process, which has no lock.
    const after = await readFile(hasty.disk('Alice'))
    for (let at = 0; at < 128; at++) {
      t.is(after[at * BLOCK], at)
      t.is(after[(at + 1) * BLOCK - 1], at)
    }
    await cluster.killAll()
    const waiting = writeBlock(live, 0, 200)
    await t.throwsAsync(writeBlock(bob, 0, 2), { code: 'EIO' })
    await Promise.all(cluster.nodes.map((node) => node.start()))
    await waiting
    await live.sync()
    await live.close()
    t.is((await readFile(mount.disk('Alice')))[0], 200)
  },
)

realTest(
  'what was synced before the file system process is killed is there, and the lock is not',
  async (t) => {
    t.timeout(600_000)
    const cluster = await startCluster(t)
    await cluster.dog('vdi create', 'Alice', '8M')
    const mount = await mountCluster(t, cluster)
    const live = await opened(t, mount.disk('Alice'), 'r+')
    for (let at = 0; at < 64; at++) await writeBlock(live, at, 7)
    await live.sync()
    const late = (async () => {
      for (let at = 64; ; at = 64 + ((at + 1) % 64)) await writeBlock(live, at, 9)
    })()
    mount.running.kill('SIGKILL')
    await t.throwsAsync(late)
    await mount.running.done
    await live.close().catch(() => undefined)
    await tryRun(['umount', '-fl', mount.at])
    const again = await mountCluster(t, cluster)
    const file = await opened(t, again.disk('Alice'), 'r+')
    const bytes = await readFile(again.disk('Alice'))
    t.true(bytes.subarray(0, 64 * BLOCK).every((byte) => byte === 7))
    await writeBlock(file, 0, 8)
    await file.close()
    t.is(await again.unmount(), 0)
  },
)

/** It has been started, and sleeps: `cat` and `stat` have nothing to wait for but the file system. */
async function waitsForFiles({ pid }: Running, name: string): Promise<void> {
  await until(`${name} waiting`, START_MS, async () => {
    const [, command, state] = /\((.*)\) (.)/.exec(await readFile(`/proc/${pid}/stat`, 'utf8'))!
    return command === name && (state === 'S' || state === 'D')
  })
}

realTest('while no sheep answers files wait, and who waits can be interrupted', async (t) => {
  t.timeout(300_000)
  const cluster = await startCluster(t, { nodes: 1, copies: 1 })
  await cluster.dog('vdi create', 'Alice', '8M')
  const mount = await mountCluster(t, cluster)
  const live = await opened(t, mount.disk('Alice'), 'r+')
  await writeBlock(live, 0, 7)
  await cluster.killAll()
  for (const [words, signal] of [
    [['cat', mount.disk('Alice')], 'SIGINT'],
    [['stat', mount.path('vdi', 'Bob')], 'SIGKILL'],
    [['cat', mount.path('cluster', 'info')], 'SIGTERM'],
  ] as const) {
    const waiting = start(words)
    await waitsForFiles(waiting, words[0])
    t.false(waiting.ended())
    waiting.kill(signal)
    t.is((await waiting.done).signal, signal)
  }
  const written = writeBlock(live, 1, 8)
  await cluster.node(0).start()
  await written
  await live.close()
  const bytes = await readFile(mount.disk('Alice'))
  t.deepEqual([bytes[0], bytes[BLOCK]], [7, 8])
  t.is(await mount.unmount(), 0)
})

realTest('random operations on a disk end as on any file', async (t) => {
  t.timeout(600_000)
  const cluster = await startCluster(t)
  const mount = await mountCluster(t, cluster)
  await mkdir(mount.path('vdi', 'Alice'))
  const done = await exercise(mount.disk('Alice'), {
    seed: 42,
    operations: 300,
    fileBytesMax: 12 * MiB,
  })
  t.log(done)
  t.is(await mount.unmount(), 0)
})
