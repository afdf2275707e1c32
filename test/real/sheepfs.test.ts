/** VDIs as files: what people and programs do with files, on a real mount of a real cluster. */
import { mkdir, open, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises'
import { nbdcopy, qemuImg } from './support/clients.js'
import { startCluster } from './support/cluster.js'
import { makeImage, patternBytes, sameFiles } from './support/images.js'
import { mountCluster } from './support/mount.js'
import { run, tryRun } from './support/run.js'
import { mountTest } from './support/sheepfs.js'

const MiB = 1024 * 1024
const realTest = mountTest('qemu-img', 'nbdcopy', 'rsync', 'mke2fs', 'e2fsck', 'debugfs', 'losetup')

realTest(
  'files and disks become each other by cp, dd, rsync, tar and qemu-img, holes stay holes',
  async (t) => {
    t.timeout(600_000)
    const cluster = await startCluster(t)
    await cluster.dog('vdi create', 'Alice', '64M')
    const { at } = await mountCluster(t, cluster)
    const disk = (name: string): string => `${at}/vdi/${name}/disk.raw`
    const file = (name: string): string => `${cluster.directory}/${name}`
    // 8 MiB of data in 64 MiB: two ends, and nothing between them.
    await makeImage(file('end'), 4, 7)
    await run(['truncate', '-s', '64M', file('image')])
    for (const seek of [0, 60]) {
      const to = [`of=${file('image')}`, 'bs=1M', `seek=${seek}`, 'conv=notrunc']
      await run(['dd', `if=${file('end')}`, ...to])
    }
    await qemuImg('convert', '-n', '-f', 'raw', '-O', 'raw', file('image'), disk('Alice'))
    await sameFiles(file('image'), disk('Alice'))
    await mkdir(`${at}/vdi/Bob`)
    await run(['cp', '--sparse=always', disk('Alice'), disk('Bob')])
    await mkdir(`${at}/vdi/Carol`)
    await run(['dd', `if=${disk('Alice')}`, `of=${disk('Carol')}`, 'bs=4M', 'conv=sparse,fsync'])
    await mkdir(`${at}/vdi/Dave`)
    await run(['rsync', '--inplace', '--whole-file', disk('Alice'), disk('Dave')])
    await run(['tar', '-C', `${at}/vdi/Alice`, '-Scf', file('tar'), 'disk.raw'])
    await mkdir(file('untarred'))
    await run(['tar', '-C', file('untarred'), '-xf', file('tar')])
    await sameFiles(file('image'), file('untarred/disk.raw'))
    await qemuImg('convert', '-f', 'raw', '-O', 'qcow2', disk('Bob'), file('qcow2'))
    await qemuImg('compare', '-f', 'raw', '-F', 'qcow2', file('image'), file('qcow2'))
    for (const name of ['Bob', 'Carol', 'Dave']) {
      t.is((await stat(disk(name))).size, 64 * MiB, name)
      await nbdcopy(cluster.uri(name, 1), file(name))
      await sameFiles(file('image'), file(name))
    }
    // Two ends of 4 MiB are two objects.
    for (const name of ['Bob', 'Carol']) t.is((await stat(disk(name))).blocks * 512, 8 * MiB, name)
    t.true((await stat(file('tar'))).size < 9 * MiB)
  },
)

realTest('what one does to files is done to VDIs, and what dog does shows', async (t) => {
  t.timeout(600_000)
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Alice', '16M')
  const mount = await mountCluster(t, cluster)
  const alice = mount.path('vdi', 'Alice')
  const bytes = patternBytes(3, 5 * MiB)
  const live = await open(mount.disk('Alice'), 'r+')
  await live.write(bytes, 0, bytes.length, 2 * MiB)
  await live.sync()
  await mkdir(`${alice}/snapshots/before`)
  await live.write(Buffer.alloc(MiB, 'x'), 0, MiB, 3 * MiB)
  await live.close()
  const snapshot = await readFile(`${alice}/snapshots/before/disk.raw`)
  t.true(snapshot.subarray(2 * MiB, 7 * MiB).equals(bytes))
  await nbdcopy(cluster.uri('Alice@before', 2), `${cluster.directory}/before`)
  await sameFiles(`${cluster.directory}/before`, `${alice}/snapshots/before/disk.raw`)
  t.deepEqual(JSON.parse(await readFile(`${alice}/changes-since/before.map`, 'utf8')), [
    { start: 0, length: 4 * MiB },
  ])
  await t.throwsAsync(writeFile(`${alice}/snapshots/before/disk.raw`, 'x'), { code: 'EROFS' })
  await truncate(mount.disk('Alice'), 100 * MiB)
  const { stdout } = await cluster.dog('vdi list', '-r')
  t.regex(stdout, /^= Alice \d+ 104857600 /m)
  await truncate(mount.disk('Alice'), 3 * MiB)
  t.is((await readFile(mount.disk('Alice'))).length, 3 * MiB)
  await truncate(mount.disk('Alice'), 8 * MiB)
  t.true((await readFile(mount.disk('Alice'))).subarray(3 * MiB).every((byte) => byte === 0))
  await writeFile(`${alice}/attributes/owner`, 'accounting')
  t.is((await cluster.dog('vdi getattr', 'Alice', 'owner')).stdout.trim(), 'accounting')
  await run(['rmdir', `${alice}/snapshots/before`])
  t.deepEqual(await readdir(`${alice}/snapshots`), [])
  await cluster.dog('vdi create', 'Dolly', '8M')
  await t.notThrowsAsync(stat(mount.disk('Dolly')))
  await run(['rmdir', mount.path('vdi', 'Dolly')])
  t.false((await cluster.dog('vdi list', '-r')).stdout.includes('Dolly'))
  t.is((await tryRun(['rm', mount.disk('Alice')])).code, 1)
  t.is(await mount.unmount(), 0)
})

realTest('an ext4 in disk.raw is mounted by a loop device, and found again over NBD', async (t) => {
  t.timeout(600_000)
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Alice', '64M')
  const mount = await mountCluster(t, cluster)
  await run(['mke2fs', '-q', '-F', '-t', 'ext4', mount.disk('Alice')])
  const { stdout } = await run(['losetup', '-f', '--show', mount.disk('Alice')])
  const loop = stdout.trim()
  const at = `${cluster.directory}/ext4`
  await mkdir(at)
  t.teardown(async () => {
    await tryRun(['umount', '-l', at])
    await tryRun(['losetup', '-d', loop])
  })
  const backing = await readFile(`/sys/block/${loop.slice('/dev/'.length)}/loop/backing_file`)
  t.is(backing.toString().trim(), mount.disk('Alice'))
  await run(['mount', loop, at])
  await writeFile(`${at}/proof`, patternBytes(9, 3 * MiB))
  await run(['sync', '-f', at])
  await run(['umount', at])
  await run(['losetup', '-d', loop])
  await run(['e2fsck', '-fn', mount.disk('Alice')])
  t.is(await mount.unmount(), 0)
  await nbdcopy(cluster.uri('Alice', 1), `${cluster.directory}/image`)
  await run(['e2fsck', '-fn', `${cluster.directory}/image`])
  await run([
    'debugfs',
    '-R',
    `dump /proof ${cluster.directory}/proof`,
    `${cluster.directory}/image`,
  ])
  t.true((await readFile(`${cluster.directory}/proof`)).equals(patternBytes(9, 3 * MiB)))
})
