/** What is inside of a disk, as files: partitions that can be written, and a snapshot that stands still under a busy file system. */
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import type { ExecutionContext } from 'ava'
import { startCluster } from './support/cluster.js'
import { patternBytes } from './support/images.js'
import { loopMount } from './support/loop.js'
import { type Mount, mountCluster, opened } from './support/mount.js'
import { run, tryRun } from './support/run.js'
import { mountTest } from './support/sheepfs.js'

const KiB = 1024
const MiB = 1024 * KiB
const realTest = mountTest('sfdisk', 'mke2fs', 'e2fsck', 'losetup', 'fsfreeze')

/** Where two partitions are, in sectors of 512 bytes. */
const PARTS = [
  { start: 2048, size: 16_384 },
  { start: 20_480, size: 65_536 },
] as const

async function partitioned(disk: string, label: 'dos' | 'gpt'): Promise<void> {
  const lines = PARTS.map(({ start, size }) => `start=${start}, size=${size}, type=L`)
  const input = [`label: ${label}`, ...lines, ''].join('\n')
  await run(['sfdisk', '-q', '--no-reread', '--no-tell-kernel', disk], { input })
}

async function usePartitions(
  t: ExecutionContext,
  mount: Mount,
  label: 'dos' | 'gpt',
): Promise<void> {
  const disk = mount.disk(label)
  const part = (n: number): string => mount.path('vdi', label, 'partitions', `${n}.raw`)
  t.deepEqual(await readdir(mount.path('vdi', label, 'partitions')), [])
  await partitioned(disk, label)
  t.deepEqual(await readdir(mount.path('vdi', label, 'partitions')), ['1.raw', '2.raw'])
  const [one, two] = PARTS
  t.is((await stat(part(1))).size, one.size * 512)
  t.is((await stat(part(2))).size, two.size * 512)
  await writeFile(part(1), patternBytes(1, one.size * 512))
  const before = await readFile(disk)
  t.true(
    before
      .subarray(one.start * 512, (one.start + one.size) * 512)
      .equals(patternBytes(1, one.size * 512)),
  )

  await run(['mke2fs', '-q', '-t', 'ext4', part(2)])
  const inside = await loopMount(t, part(2), `${mount.at}-${label}`)
  await writeFile(`${inside.at}/proof`, patternBytes(2, 3 * MiB))
  await inside.unmount()
  await run(['e2fsck', '-fn', part(2)])
  const after = await readFile(disk)
  const [start, end] = [two.start * 512, (two.start + two.size) * 512]
  t.true(after.subarray(0, start).equals(before.subarray(0, start)), 'nothing in front of it')
  t.true(after.subarray(end).equals(before.subarray(end)), 'nothing behind it')
  t.false(after.subarray(start, end).equals(before.subarray(start, end)))

  const file = await opened(t, part(1), 'r+')
  const block = Buffer.alloc(8 * KiB, 'x')
  const size = one.size * 512
  t.is((await file.write(block, 0, block.length, size - 4 * KiB)).bytesWritten, 4 * KiB)
  await t.throwsAsync(file.write(block, 0, block.length, size), { code: 'ENOSPC' })
  t.is((await file.read(block, 0, block.length, size)).bytesRead, 0)
  // Who has the disk open as well sees what is written into the partition.
  const whole = await opened(t, disk, 'r+')
  await file.write(Buffer.from('seen'), 0, 4, 0)
  const found = Buffer.alloc(4)
  await whole.read(found, 0, 4, one.start * 512)
  t.is(found.toString(), 'seen')
  await whole.close()
  await file.close()
  t.is(
    (await readFile(disk)).compare(
      after,
      20_480 * 512,
      20_480 * 512 + 4096,
      20_480 * 512,
      20_480 * 512 + 4096,
    ),
    0,
  )
}

realTest('partitions (MBR and GPT) are files that end where they end', async (t) => {
  t.timeout(300_000)
  const cluster = await startCluster(t, { nodes: 1, copies: 1 })
  const mount = await mountCluster(t, cluster)
  for (const label of ['dos', 'gpt'] as const) {
    await cluster.dog('vdi create', label, '64M')
    await usePartitions(t, mount, label)
  }
  t.is(await mount.unmount(), 0)
})

realTest('a snapshot holds each file as it was while the disk is being written', async (t) => {
  t.timeout(300_000)
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Alice', '64M')
  const mount = await mountCluster(t, cluster)
  await run(['mke2fs', '-q', '-F', '-t', 'ext4', mount.disk('Alice')])
  const live = await loopMount(t, mount.disk('Alice'), `${cluster.directory}/live`)
  const kept = `${cluster.directory}/kept`
  const sizeOf = (i: number): number => 1 + ((i * 7919) % (160 * KiB))
  for (let folder = 0; folder < 8; folder++) {
    await mkdir(`${live.at}/${folder}`)
    for (let i = 0; i < 10; i++) {
      const seed = folder * 10 + i
      await writeFile(`${live.at}/${folder}/${i}`, patternBytes(seed, sizeOf(seed)))
    }
  }
  await run(['cp', '-a', live.at, kept])
  await run(['fsfreeze', '-f', live.at])
  await mkdir(mount.path('vdi', 'Alice', 'snapshots', 'now')).finally(() =>
    run(['fsfreeze', '-u', live.at]),
  )
  let isOver = false
  const busy = (async () => {
    for (let round = 1; !isOver; round++) {
      for (let folder = 0; folder < 8; folder++) {
        const name = `${live.at}/${folder}/${round % 10}`
        await writeFile(name, patternBytes(1000 + round, sizeOf(round)))
      }
      await run(['sync', '-f', live.at])
    }
  })()
  const raw = mount.path('vdi', 'Alice', 'snapshots', 'now', 'disk.raw')
  for (let round = 0; round < 3; round++) {
    const was = await loopMount(t, raw, `${cluster.directory}/was`, 'ro,noload')
    const { code, stdout, stderr } = await tryRun(['diff', '-r', kept, was.at])
    t.is(code, 0, stdout + stderr)
    await was.unmount()
  }
  isOver = true
  await busy
  t.is((await tryRun(['diff', '-rq', kept, live.at])).code, 1, 'the disk has changed meanwhile')
  await live.unmount()
  await run(['e2fsck', '-fn', mount.disk('Alice')])
  t.is(await mount.unmount(), 0)
})
