/** Names, attributes, space and petabytes: what people do with files beside reading and writing them. */
import { access, mkdir, readdir, readFile, rename, stat, unlink, writeFile } from 'node:fs/promises'
import { qemuIo } from './support/clients.js'
import { startCluster } from './support/cluster.js'
import { patternBytes } from './support/images.js'
import { mountCluster, opened } from './support/mount.js'
import { run, tryRun } from './support/run.js'
import { mountTest } from './support/sheepfs.js'

const MiB = 1024 * 1024
const PiB = 2 ** 50
const realTest = mountTest('python3', 'qemu-io', 'fallocate')

/** Words of Python that see `path`; what they print. Node.js has no extended attributes, and no lseek. */
async function python(path: string, ...lines: readonly string[]): Promise<string> {
  const program = ['import os, sys', 'path = sys.argv[1]', ...lines].join('\n')
  return (await run(['python3', '-c', program, path])).stdout.trim()
}

realTest('snapshots and attributes can be renamed, and VDIs say why not', async (t) => {
  t.timeout(300_000)
  const cluster = await startCluster(t, { nodes: 1, copies: 1 })
  await cluster.dog('vdi create', 'Alice', '16M')
  const mount = await mountCluster(t, cluster)
  const alice = mount.path('vdi', 'Alice')
  const live = await opened(t, mount.disk('Alice'), 'r+')
  await live.write(patternBytes(1, MiB), 0, MiB, 0)
  await mkdir(`${alice}/snapshots/monday`)
  await live.write(patternBytes(2, MiB), 0, MiB, 0)
  const held = await opened(t, `${alice}/snapshots/monday/disk.raw`, 'r')
  await rename(`${alice}/snapshots/monday`, `${alice}/snapshots/before`)
  t.deepEqual(await readdir(`${alice}/snapshots`), ['before'])
  t.regex((await cluster.dog('vdi list', '-r')).stdout, /^s Alice 1 .* before /m)
  await mkdir(`${alice}/snapshots/monday`)
  const first = (path: string): Promise<Buffer> =>
    readFile(path).then((all) => all.subarray(0, MiB))
  t.true((await first(`${alice}/snapshots/before/disk.raw`)).equals(patternBytes(1, MiB)))
  t.true((await first(`${alice}/snapshots/monday/disk.raw`)).equals(patternBytes(2, MiB)))
  const found = Buffer.alloc(MiB)
  await held.read(found, 0, MiB, 0)
  t.true(found.equals(patternBytes(1, MiB)), 'what is open goes on under its new name')
  await held.close()
  const taken = rename(`${alice}/snapshots/monday`, `${alice}/snapshots/before`)
  await t.throwsAsync(taken, { code: 'EEXIST' })
  await t.throwsAsync(rename(`${alice}/snapshots/monday`, `${alice}/snapshots/7`), {
    code: 'EINVAL',
  })

  const { code, stderr } = await tryRun(['mv', alice, mount.path('vdi', 'Bob')])
  t.is(code, 1)
  t.regex(stderr, /Operation not supported/)
  t.deepEqual(await readdir(mount.path('vdi')), ['Alice', 'list', 'mount', 'unmount'])
  await live.write(patternBytes(3, MiB), 0, MiB, 0)
  await live.close()

  await writeFile(`${alice}/attributes/owner`, 'accounting')
  await run(['mv', `${alice}/attributes/owner`, `${alice}/attributes/payer`])
  t.is((await cluster.dog('vdi getattr', 'Alice', 'payer')).stdout.trim(), 'accounting')
  await t.throwsAsync(access(`${alice}/attributes/owner`), { code: 'ENOENT' })
  t.is(await mount.unmount(), 0)
  const { stdout } = await mount.running.done
  t.regex(stdout, /VDIs cannot be renamed.*dog vdi clone -s TAG Alice Bob/)
})

realTest('attributes are files, and extended attributes of the disk', async (t) => {
  t.timeout(300_000)
  const cluster = await startCluster(t, { nodes: 1, copies: 1 })
  await cluster.dog('vdi create', 'Alice', '16M')
  const { disk, path } = await mountCluster(t, cluster).then((mount) => ({
    disk: mount.disk('Alice'),
    path: (...names: string[]) => mount.path('vdi', 'Alice', ...names),
  }))
  await cluster.dog('vdi setattr', 'Alice', 'colour', 'red')
  t.is(await readFile(path('attributes', 'colour'), 'utf8'), 'red')
  const key = "'user.sheepdog.attribute.colour'"
  t.is(await python(disk, `print(os.getxattr(path, ${key}).decode())`), 'red')
  await python(disk, `os.setxattr(path, ${key}, b'blue')`)
  t.is((await cluster.dog('vdi getattr', 'Alice', 'colour')).stdout.trim(), 'blue')
  t.deepEqual(await readdir(path('attributes')), ['colour'])
  const names = (await python(disk, "print(' '.join(os.listxattr(path)))")).split(' ')
  for (const name of ['id', 'copies', 'size', 'created', 'attribute.colour']) {
    t.true(names.includes(`user.sheepdog.${name}`), name)
  }
  t.is(await python(disk, "print(os.getxattr(path, 'user.sheepdog.copies').decode())"), '1')
  await python(disk, `os.removexattr(path, ${key})`)
  t.deepEqual(await readdir(path('attributes')), [])
  const errnoOf = (line: string): Promise<string> =>
    python(disk, 'try:', `  ${line}`, 'except OSError as error:', '  print(error.strerror)')
  t.is(await errnoOf(`os.getxattr(path, ${key})`), 'No data available')
  t.is(await errnoOf("os.setxattr(path, 'user.sheepdog.id', b'1')"), 'Operation not permitted')
  t.is(await errnoOf("os.setxattr(path, 'user.other', b'1')"), 'Operation not permitted')
  await writeFile(path('attributes', 'colour'), 'green')
  await mkdir(path('snapshots', 'before'))
  await unlink(path('attributes', 'colour'))
  t.deepEqual(await readdir(path('attributes')), [])
  t.is(
    await python(
      path('snapshots', 'before', 'disk.raw'),
      "print(os.getxattr(path, 'user.sheepdog.tag').decode())",
    ),
    'before',
  )
})

realTest('a disk of four pebibytes is a sparse file', async (t) => {
  t.timeout(300_000)
  const cluster = await startCluster(t, { nodes: 1, copies: 1 })
  await cluster.dog('vdi create', 'huge', '4P', '-y')
  const mount = await mountCluster(t, cluster)
  const disk = mount.disk('huge')
  t.is((await stat(disk)).size, 4 * PiB)
  t.is((await stat(disk)).blocks, 0)
  const places = [0, 3 * PiB + 12_345, 4 * PiB - MiB]
  const file = await opened(t, disk, 'r+')
  for (const [i, at] of places.entries())
    await file.write(Buffer.alloc(65_536, i + 1), 0, 65_536, at)
  await file.sync()
  await file.close()
  // From here on without its lock.
  const reader = await opened(t, disk, 'r')
  const found = Buffer.alloc(65_536)
  for (const [i, at] of places.entries()) {
    await reader.read(found, 0, found.length, at)
    t.true(found.every((byte) => byte === i + 1))
  }
  await reader.read(found, 0, found.length, 2 * PiB)
  t.true(found.every((byte) => byte === 0))
  await reader.close()
  t.is((await stat(disk)).blocks * 512, 3 * 4 * MiB)
  const data = await python(
    disk,
    'file = os.open(path, os.O_RDONLY)',
    'at, found = 0, []',
    'while at < os.fstat(file).st_size:',
    '  start = os.lseek(file, at, os.SEEK_DATA)',
    '  at = os.lseek(file, start, os.SEEK_HOLE)',
    '  found += [start, at]',
    'print(found)',
  )
  const far = 3 * PiB
  t.deepEqual(JSON.parse(data), [0, 4 * MiB, far, far + 4 * MiB, 4 * PiB - 4 * MiB, 4 * PiB])
  const map = JSON.parse(await readFile(mount.path('vdi', 'huge', 'map.json'), 'utf8')) as {
    data: boolean
  }[]
  t.deepEqual(
    map.map((row) => row.data),
    [true, false, true, false, true],
  )
  const { stdout } = await qemuIo(cluster.uri('huge'), [`read -P 2 ${places[1]} 64k`])
  t.false(/verification failed/.test(stdout), stdout)
  t.is(await mount.unmount(), 0)
})

realTest('fallocate gives space back and takes it; statfs tells what there is', async (t) => {
  t.timeout(300_000)
  const cluster = await startCluster(t, { nodes: 2, copies: 2 })
  await cluster.dog('vdi create', 'Alice', '16M')
  const mount = await mountCluster(t, cluster)
  const disk = mount.disk('Alice')
  const used = async (): Promise<number> => (await stat(disk)).blocks * 512
  const bytes = patternBytes(1, 16 * MiB)
  await writeFile(disk, bytes)
  t.is(await used(), 16 * MiB)
  await run(['fallocate', '-p', '-o', `${3 * MiB}`, '-l', `${9 * MiB}`, disk])
  bytes.fill(0, 3 * MiB, 12 * MiB)
  t.true((await readFile(disk)).equals(bytes))
  t.is(await used(), 8 * MiB, 'two objects are given back, a piece of one is zeros')
  await run(['fallocate', '-o', '0', '-l', `${16 * MiB}`, disk])
  t.is(await used(), 16 * MiB)
  t.true((await readFile(disk)).equals(bytes), 'what was there is there')
  await run(['fallocate', '-z', '-o', '0', '-l', `${MiB}`, disk])
  bytes.fill(0, 0, MiB)
  t.true((await readFile(disk)).equals(bytes))
  await run(['fallocate', '-l', `${24 * MiB}`, disk])
  t.is((await stat(disk)).size, 24 * MiB)
  const { stdout } = await run(['stat', '-f', '-c', '%S %b %f %T', mount.at])
  const [block = 0, total = 0, free = 0] = stdout.split(' ').map(Number)
  t.is(block, 4096)
  t.true(free > 0 && free <= total)
  const rows = (await cluster.dog('node info', '-r')).stdout.split('\n').slice(0, 2)
  const avail = rows.reduce((sum, row) => sum + Number(row.split(' ')[3]), 0) / 2
  // Others work on this machine's disk, too.
  t.true(Math.abs(free * block - avail) < avail / 4, `${free * block} of ${avail}`)
  t.is(await mount.unmount(), 0)
})
