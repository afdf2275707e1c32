/** The judges of the real suites: each must see the fault it is there for. */
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import test, { type ExecutionContext } from 'ava'
import { cpio } from '../real/support/cpio.js'
import { wrongSlots } from '../real/support/flushing-writer.js'
import { CommandFailed, run, start, tryRun } from '../real/support/run.js'
import { differingObjects } from '../real/support/same-copies.js'
import { differingEntries } from '../real/support/trees.js'

async function directories(t: ExecutionContext, count: number): Promise<string[]> {
  const top = await mkdtemp(`${tmpdir()}/sheepdog-judges-`)
  t.teardown(() => rm(top, { recursive: true }))
  const all = Array.from({ length: count }, (_, i) => `${top}/${i}`)
  for (const each of all) await mkdir(each)
  return all
}

test('differing copies are seen: a byte, a length, a missing object; other files are not', async (t) => {
  const stores = await directories(t, 3)
  const [a, b, c] = ['00000000000000aa', '00000000000000bb', '00000000000000cc']
  for (const store of stores)
    for (const name of [a, b, c]) await writeFile(`${store}/${name}`, 'xyz')
  await writeFile(`${stores[0]}/00000000000000aa.tmp`, 'left over')
  t.deepEqual(await differingObjects(stores), [])
  await writeFile(`${stores[1]}/${a}`, 'xyZ')
  await writeFile(`${stores[2]}/${b}`, 'xyz\0')
  await rm(`${stores[2]}/${c}`)
  t.deepEqual(await differingObjects(stores), [
    `${a} differs`,
    `${b} differs`,
    `${c} is not in ${stores[2]}`,
  ])
})

test('differing trees are seen: bytes, modes, links, and entries on either side', async (t) => {
  const [one, other] = (await directories(t, 2)) as [string, string]
  for (const top of [one, other]) {
    await mkdir(`${top}/d`)
    for (const name of ['same', 'bytes', 'mode']) await writeFile(`${top}/d/${name}`, 'abc')
    await symlink('target', `${top}/link`)
  }
  t.deepEqual(await differingEntries(one, other), [])
  await writeFile(`${other}/d/bytes`, 'abd')
  await rm(`${other}/d/mode`)
  await writeFile(`${other}/d/mode`, 'abc', { mode: 0o600 })
  await rm(`${other}/link`)
  await symlink('elsewhere', `${other}/link`)
  await writeFile(`${other}/extra`, '')
  const found = await differingEntries(one, other)
  for (const path of ['/d/bytes', '/d/mode', '/link', '/extra']) {
    t.true(
      found.some((line) => line.startsWith(`${path}:`)),
      `${path} not in ${found.join('; ')}`,
    )
  }
  t.is(found.length, 4)
})

test('a slot may hold what was flushed or asked for later, sector by sector, and nothing else', (t) => {
  const image = Buffer.alloc(2048, 7)
  t.deepEqual(wrongSlots(image, [{ flushed: 7, later: [] }], 2048), [])
  image.fill(9, 512, 1024)
  t.deepEqual(wrongSlots(image, [{ flushed: 7, later: [9] }], 2048), [])
  t.is(wrongSlots(image, [{ flushed: 7, later: [] }], 2048).length, 1)
  image[600] = 7
  t.is(wrongSlots(image, [{ flushed: 7, later: [9] }], 2048).length, 1, 'a torn sector')
})

test('a command that fails brings its words, one that hangs is ended', async (t) => {
  const failed = await t.throwsAsync(run(['sh', '-c', 'echo out; echo err >&2; exit 3']), {
    instanceOf: CommandFailed,
  })
  t.regex(failed?.message ?? '', /code 3.*err.*out/s)
  const hung = await tryRun(['sleep', '60'], { timeoutMs: 200 })
  t.true(hung.timedOut)
  t.true(hung.wallMs < 30_000)
  const killed = start(['sleep', '60'])
  killed.kill('SIGKILL')
  t.is((await killed.done).signal, 'SIGKILL')
  t.true(killed.ended())
})

test("the guest's first archive has newc headers on multiples of four, and a trailer", (t) => {
  const data = Buffer.from('hello')
  const archive = cpio([
    { name: 'bin', kind: 'directory' },
    { name: 'bin/x', kind: 'file', mode: 0o755, data },
  ])
  t.is(archive.length % 4, 0)
  const second = 110 + 4 + 2
  t.is(archive.toString('latin1', 0, 6), '070701')
  t.is(archive.toString('latin1', second, second + 6), '070701')
  t.is(archive.toString('latin1', second + 14, second + 22), '000081ed')
  t.is(archive.toString('latin1', second + 54, second + 62), '00000005')
  t.true(archive.includes('hello'))
  t.true(archive.includes('TRAILER!!!\0'))
})
