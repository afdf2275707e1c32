/** How a cluster gets mounted and who may do what then: options, other users, fstab; and what scripts of sheepdog 1.0 find. */
import { chmod, chown, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import test from 'ava'
import { startCluster, type TestCluster } from './support/cluster.js'
import { patternBytes, sameFiles } from './support/images.js'
import { Mount, mountCluster } from './support/mount.js'
import type { Owner } from './support/owner.js'
import { SHEEPFS } from './support/paths.js'
import { type RunResult, run, start, tryRun, until } from './support/run.js'
import { mountTest } from './support/sheepfs.js'
import type { RealTest } from './support/suite.js'

const MiB = 1024 * 1024
const NOBODY = 65_534
const START_MS = 30_000
const register = mountTest('setpriv', 'mount.fuse3', 'mount', 'pgrep')
const realTest: RealTest = (title, body) => {
  if (process.getuid?.() === 0) register(title, body)
  else test.serial.skip(`${title} (needs root, to become somebody else)`, body)
}

/** Words as somebody runs them who is neither root nor the owner of anything. */
function asNobody(...words: readonly string[]): string[] {
  return ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--', ...words]
}

async function withAlice(t: Owner): Promise<TestCluster> {
  const cluster = await startCluster(t, { nodes: 1, copies: 1 })
  await cluster.dog('vdi create', 'Alice', '8M')
  // Others look in.
  await chmod(cluster.directory, 0o755)
  return cluster
}

function tryAsNobody(...words: readonly string[]): Promise<RunResult> {
  return tryRun(asNobody(...words))
}

realTest(
  'others are let in where the mount says so, and may do there what modes say',
  async (t) => {
    t.timeout(120_000)
    const cluster = await withAlice(t)
    const bytes = patternBytes(1, MiB)
    const own = await mountCluster(t, cluster)
    await writeFile(own.disk('Alice'), bytes)
    const refused = await tryAsNobody('cat', own.disk('Alice'))
    t.regex(refused.stderr, /Permission denied/)
    const open = await mountCluster(t, cluster, ['-o', 'allow_other'])
    const read = await tryAsNobody('head', '-c', `${MiB}`, open.disk('Alice'))
    t.true(read.bytes.equals(bytes))
    const write = (mount: Mount): Promise<RunResult> =>
      tryAsNobody(
        'dd',
        'if=/dev/zero',
        `of=${mount.disk('Alice')}`,
        'bs=4k',
        'count=1',
        'conv=notrunc',
      )
    t.regex((await write(open)).stderr, /Permission denied/)
    t.regex((await tryAsNobody('mkdir', open.path('vdi', 'Bob'))).stderr, /Permission denied/)
    const given = await mountCluster(t, cluster, ['-o', `allow_other,uid=${NOBODY}`])
    t.is((await write(given)).code, 0)
    t.is((await stat(given.disk('Alice'))).uid, NOBODY)
    t.true((await readFile(own.disk('Alice'))).subarray(0, 4096).every((byte) => byte === 0))
    for (const mount of [own, open, given]) t.is(await mount.unmount(), 0)
  },
)

realTest('through a mount with ro nothing can be changed', async (t) => {
  t.timeout(120_000)
  const cluster = await withAlice(t)
  const mount = await mountCluster(t, cluster, ['-o', 'ro,noexec'])
  const entry = (await readFile('/proc/self/mounts', 'utf8'))
    .split('\n')
    .find((line) => line.includes(` ${mount.at} `))
  const options = entry?.split(' ')[3]?.split(',') ?? []
  for (const option of ['ro', 'nosuid', 'nodev', 'noexec']) t.true(options.includes(option), option)
  t.is((await stat(mount.disk('Alice'))).mode & 0o777, 0o444)
  t.is((await readFile(mount.disk('Alice'))).length, 8 * MiB)
  const alice = mount.path('vdi', 'Alice')
  for (const words of [
    ['truncate', '-s', '1M', mount.disk('Alice')],
    ['mkdir', `${alice}/snapshots/before`],
    ['mkdir', mount.path('vdi', 'Bob')],
    ['rmdir', alice],
    ['mv', alice, mount.path('vdi', 'Bob')],
    ['touch', `${alice}/attributes/key`],
    ['dd', 'if=/dev/zero', `of=${mount.path('volume', 'Alice')}`, 'count=1', 'conv=notrunc'],
  ]) {
    const { code, stderr } = await tryRun(words)
    t.is(code, 1, words.join(' '))
    t.regex(stderr, /Read-only file system/, words.join(' '))
  }
  t.is(await mount.unmount(), 0)
})

realTest('who is not root mounts by fusermount3', async (t) => {
  t.timeout(120_000)
  const cluster = await withAlice(t)
  const probe = await tryAsNobody(process.execPath, SHEEPFS, '--version')
  if (probe.code !== 0) {
    t.log(`not shown here: others cannot read the program (${probe.stderr.split('\n')[0]})`)
    t.pass()
    return
  }
  const at = `${cluster.directory}/mine`
  await mkdir(at)
  await chown(at, NOBODY, NOBODY)
  const { host, port } = cluster.node(0)
  const words = [process.execPath, SHEEPFS, '-f', `${host}:${port}`, at, '-o', 'noatime']
  const running = start(asNobody(...words))
  t.teardown(async () => {
    running.kill('SIGKILL')
    const { stdout, stderr } = await running.done
    await tryRun(['umount', '-fl', at])
    if (!t.passed) t.log(`--- sheepfs\n${stdout}${stderr}`)
  })
  await until(`a mount at ${at}`, START_MS, async () => {
    if (running.ended()) throw new Error((await running.done).stderr)
    return (await readFile('/proc/self/mounts', 'utf8')).includes(` ${at} fuse.sheepfs`)
  })
  const mount = new Mount(at, running)
  const copy = ['dd', 'if=/dev/urandom', `of=${mount.disk('Alice')}`, 'bs=1M', 'count=2']
  await run(asNobody(...copy, 'conv=notrunc,fsync'))
  const { bytes } = await run(asNobody('head', '-c', `${2 * MiB}`, mount.disk('Alice')))
  await run(asNobody('fusermount3', '-u', at))
  t.is((await running.done).code, 0)
  const own = await mountCluster(t, cluster)
  t.true((await readFile(own.disk('Alice'))).subarray(0, 2 * MiB).equals(bytes))
  t.is(await own.unmount(), 0)
})

realTest('a line in fstab mounts it, and umount ends the process', async (t) => {
  t.timeout(120_000)
  const cluster = await withAlice(t)
  const at = `${cluster.directory}/from fstab`
  const programs = `${cluster.directory}/programs`
  await mkdir(at)
  await mkdir(programs)
  const { host, port } = cluster.node(0)
  await writeFile(`${programs}/sheepfs`, `#!/bin/sh\nexec ${process.execPath} ${SHEEPFS} "$@"\n`)
  await chmod(`${programs}/sheepfs`, 0o755)
  const fstab = `${cluster.directory}/fstab`
  const options = 'allow_other,_netdev,nofail,io_timeout=20,noatime,x-systemd.automount'
  // mount(8) has a PATH of its own, with the places things are installed in.
  const type = `fuse.${programs}/sheepfs`
  const line = `${host}:${port} ${at.replace(' ', '\\040')} ${type} ${options} 0 0\n`
  await writeFile(fstab, line)
  t.teardown(async () => void (await tryRun(['umount', '-fl', at])))
  await run(['mount', '-T', fstab, at])
  t.deepEqual(await readdir(`${at}/volume`), ['Alice'])
  await writeFile(`${at}/vdi/Alice/disk.raw`, patternBytes(4, MiB))
  const processes = async (): Promise<number> => {
    const { stdout } = await tryRun(['pgrep', '-f', '--', `${SHEEPFS} ${host}:${port} ${at}`])
    return stdout.split('\n').filter(Boolean).length
  }
  t.is(await processes(), 1)
  await run(['umount', at])
  await until('the end of the process', START_MS, async () => (await processes()) === 0)
  const { stdout } = await cluster.dog('vdi list', '-r')
  t.regex(stdout, /^= Alice \d+ 1048576 /m)
})

realTest('what scripts of sheepdog 1.0 use is where it was', async (t) => {
  t.timeout(120_000)
  const cluster = await withAlice(t)
  const mount = await mountCluster(t, cluster)
  const text = (...names: string[]): Promise<string> => readFile(mount.path(...names), 'utf8')
  for (const [words, ...names] of [
    ['vdi list', 'vdi', 'list'],
    ['cluster info', 'cluster', 'info'],
    ['node list', 'node', 'list'],
  ] as const) {
    t.is(await text(...names), (await cluster.dog(words)).stdout, words)
  }
  t.regex(await text('node', 'info'), /^Id\tSize\tUsed\tAvail\tUse%/)
  t.is(JSON.parse(await text('node', 'list.json')).nodes.length, 1)
  t.is(await text('config', 'sheep_info'), `127.0.0.1:${cluster.node(0).port}\n`)
  t.is(await text('config', 'object_cache'), '0\n')

  const volume = mount.path('volume', 'Alice')
  const bytes = patternBytes(6, 4 * MiB)
  const source = `${cluster.directory}/source`
  await writeFile(source, bytes)
  await run(['dd', `if=${source}`, `of=${volume}`, 'bs=1M'])
  t.is((await stat(volume)).size, 8 * MiB, "the size is the VDI's")
  t.true((await readFile(volume)).subarray(0, 4 * MiB).equals(bytes))
  const behind = await tryRun([
    'dd',
    `if=${source}`,
    `of=${volume}`,
    'bs=1M',
    'seek=6',
    'conv=notrunc',
  ])
  t.regex(behind.stderr, /No space left on device/)

  const control = (name: string, word: string): Promise<void> =>
    writeFile(mount.path('vdi', name), `${word}\n`)
  await control('unmount', 'Alice')
  t.deepEqual(await readdir(mount.path('volume')), [])
  await t.throwsAsync(control('unmount', 'Alice'), { code: 'EINVAL' })
  await control('mount', 'Alice')
  await t.throwsAsync(control('mount', 'Bob'), { code: 'EINVAL' })
  t.deepEqual(await readdir(mount.path('volume')), ['Alice'])

  await writeFile(mount.path('config', 'page_cache'), '1\n')
  t.is(await text('config', 'page_cache'), '1\n')
  await t.throwsAsync(writeFile(mount.path('config', 'page_cache'), 'x'), { code: 'EINVAL' })
  await run(['cp', source, volume])
  await writeFile(mount.path('config', 'page_cache'), '0\n')
  const tail = (await readFile(volume)).subarray(6 * MiB)
  t.true(tail.equals(bytes.subarray(0, 2 * MiB)))
  await sameFiles(volume, mount.disk('Alice'))
  t.is(await mount.unmount(), 0)
})
