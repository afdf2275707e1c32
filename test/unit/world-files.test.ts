/** NodeFiles on a real temporary directory; file systems that lack something are played by a stand-in. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { NodeFiles } from '../../src/world/node/files.js'
import { loadNative, type Native } from '../../src/world/node/native.js'
import type { OpenFile } from '../../src/world/world.js'

const native = loadNative()
const files = new NodeFiles(native)
const root = fs.mkdtempSync(join(tmpdir(), 'files-'))
test.after.always(() => fs.rmSync(root, { recursive: true }))

let made = 0
function fresh(): string {
  const path = join(root, `dir-${made++}`)
  files.mkdir(path)
  return path
}

type Moved = { error: NodeJS.ErrnoException | null; count: number }
const read = (file: OpenFile, into: Uint8Array, position: number): Promise<Moved> =>
  new Promise((done) => file.read(into, position, (error, count) => done({ error, count })))
const write = (file: OpenFile, data: Uint8Array, position: number): Promise<Moved> =>
  new Promise((done) => file.write(data, position, (error, count) => done({ error, count })))
const sync = (file: OpenFile): Promise<Moved> =>
  new Promise((done) => file.sync((error, count) => done({ error, count })))

const unsupported = (): Promise<void> =>
  Promise.reject(Object.assign(new Error('ENOTSUP'), { code: 'ENOTSUP' }))

async function until(condition: () => boolean): Promise<boolean> {
  for (let i = 0; i < 300 && !condition(); i++) await new Promise((go) => setTimeout(go, 10))
  return condition()
}

test('how a file is opened decides what may be there', (t) => {
  const path = join(fresh(), 'a')
  t.throws(() => files.open(path, {}), { code: 'ENOENT' })
  t.throws(() => files.open(path, { write: true }), { code: 'ENOENT' })
  const file = files.open(path, { write: true, create: true, exclusive: true })
  file.writeNow(Buffer.from('abc'), 0)
  t.is(file.size(), 3)
  file.close()
  t.throws(() => files.open(path, { write: true, create: true, exclusive: true }), {
    code: 'EEXIST',
  })
  const reader = files.open(path, {})
  t.throws(() => reader.writeNow(Buffer.from('x'), 0), { code: 'EBADF' })
  reader.close()
  const emptied = files.open(path, { write: true, truncate: true })
  t.is(emptied.size(), 0)
  emptied.close()
})

test('reads and writes move all bytes, short at the end of the file only', async (t) => {
  const file = files.open(join(fresh(), 'a'), { write: true, create: true })
  const data = Buffer.alloc(3 << 20, 'sheep')
  t.deepEqual(await write(file, data, 5), { error: null, count: data.length })
  t.deepEqual(await sync(file), { error: null, count: 0 })
  t.is(file.size(), data.length + 5)
  const back = Buffer.alloc(data.length + 100)
  t.deepEqual(await read(file, back, 5), { error: null, count: data.length })
  t.true(back.subarray(0, data.length).equals(data))
  t.deepEqual(await read(file, back, 1 << 30), { error: null, count: 0 })
  file.close()
})

test('an error of the disk reaches the callback with its name', async (t) => {
  const file = files.open('/dev/full', { write: true })
  const { error, count } = await write(file, Buffer.from('x'), 0)
  t.is(error?.code, 'ENOSPC')
  t.is(count, 0)
  t.throws(() => file.writeNow(Buffer.from('x'), 0), { code: 'ENOSPC' })
  file.close()
})

test('cold bytes are refused at once and read through the disk', async (t) => {
  const path = join(fresh(), 'a')
  const file = files.open(path, { write: true, create: true })
  const data = Buffer.alloc(1 << 20, 'cold')
  file.writeNow(data, 0)
  await sync(file)
  const into = Buffer.alloc(4096)
  if (native.readNow(fs.openSync(path, 'r'), into, 0) === -2) {
    t.is(file.readNow(into, 0), -1)
    t.log('no reads that do not wait on this file system')
    return
  }
  t.is(file.readNow(into, 0), 4096, 'just written: in the page cache')
  // dd asks the kernel to forget the file's pages; it may decline, so a few tries.
  const forget = (): void => {
    execFileSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0'], { stdio: 'ignore' })
  }
  let count = 0
  for (let i = 0; i < 50 && count !== -1; i++) {
    forget()
    count = file.readNow(into, 524288)
  }
  t.is(count, -1)
  t.deepEqual(await read(file, into, 524288), { error: null, count: 4096 })
  t.true(into.equals(data.subarray(524288, 524288 + 4096)))
  t.is(file.readNow(into, 524288), 4096, 'warm again')
  file.close()
})

test('a file system without such reads is asked once', (t) => {
  let asked = 0
  const readNow = (): number => {
    asked++
    return -2
  }
  const file = new NodeFiles({ ...native, readNow }).open('/dev/zero', {})
  t.is(file.readNow(Buffer.alloc(1), 0), -1)
  t.is(file.readNow(Buffer.alloc(1), 0), -1)
  t.is(asked, 1)
  file.close()
})

test('a descriptor closed with a read under way is not given to the next file too early', async (t) => {
  const dir = fresh()
  fs.writeFileSync(join(dir, 'a'), 'aaaa')
  fs.writeFileSync(join(dir, 'b'), 'bbbb')
  for (let i = 0; i < 50; i++) {
    const first = files.open(join(dir, 'a'), {})
    const into = Buffer.alloc(4)
    const answer = read(first, into, 0)
    first.close()
    const second = files.open(join(dir, 'b'), {})
    t.deepEqual(await answer, { error: null, count: 4 })
    t.is(into.toString(), 'aaaa')
    second.close()
    t.throws(() => first.size(), { code: 'EBADF' })
    t.throws(() => first.close(), { code: 'EBADF' })
  }
})

test('allocate grows, reserves and never shrinks', async (t) => {
  const path = join(fresh(), 'a')
  const file = files.open(path, { write: true, create: true })
  await file.allocate(1 << 20)
  t.is(file.size(), 1 << 20)
  t.true(files.usedBytes(path) >= 1 << 20)
  await file.allocate(0)
  await file.allocate(4096)
  t.is(file.size(), 1 << 20)
  await file.truncate(10)
  t.is(file.size(), 10)
  file.close()
})

test('without fallocate the size still grows and a hole still reads as zeros', async (t) => {
  const poor: Native = { ...native, allocate: unsupported, punch: unsupported }
  const file = new NodeFiles(poor).open(join(fresh(), 'a'), { write: true, create: true })
  await file.allocate(3 << 20)
  t.is(file.size(), 3 << 20)
  await file.allocate(1000)
  t.is(file.size(), 3 << 20)
  const data = Buffer.alloc(3 << 20, 1)
  await write(file, data, 0)
  await file.punch(1000, 2 << 20)
  await file.punch((3 << 20) - 10, 1 << 20)
  t.is(file.size(), 3 << 20, 'zeros are not written past the end')
  data.fill(0, 1000, 1000 + (2 << 20)).fill(0, (3 << 20) - 10)
  const back = Buffer.alloc(data.length)
  await read(file, back, 0)
  t.true(back.equals(data))
  file.close()
})

test('other failures of fallocate are not papered over', async (t) => {
  const full = (): Promise<void> =>
    Promise.reject(Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' }))
  const poor: Native = { ...native, allocate: full, punch: full }
  const file = new NodeFiles(poor).open(join(fresh(), 'a'), { write: true, create: true })
  await t.throwsAsync(file.allocate(4096), { code: 'ENOSPC' })
  await t.throwsAsync(file.punch(0, 4096), { code: 'ENOSPC' })
  t.is(file.size(), 0)
  file.close()
})

test('atomic writes to one name end in the order of the calls and leave nothing behind', async (t) => {
  const dir = fresh()
  const path = join(dir, 'config')
  const writes = Array.from({ length: 20 }, (_, i) =>
    files.writeFileAtomic(path, Buffer.alloc(20000 - 1000 * i, `${i % 10}`)),
  )
  await Promise.all(writes)
  t.is(files.readFile(path).toString(), '9'.repeat(1000))
  t.deepEqual(await files.readDir(dir), ['config'])
})

test('a failed atomic write tells its caller, leaves nothing behind and stops no later one', async (t) => {
  const dir = fresh()
  await t.throwsAsync(files.writeFileAtomic(join(dir, 'none', 'a'), Buffer.from('x')), {
    code: 'ENOENT',
  })
  const path = join(dir, 'a')
  files.mkdir(path)
  const failed = files.writeFileAtomic(path, Buffer.from('first'))
  await t.throwsAsync(failed, { code: 'EISDIR' })
  t.deepEqual(await files.readDir(dir), ['a'])
  fs.rmdirSync(path)
  const missing = join(dir, 'b', 'c')
  const outcomes = [files.writeFileAtomic(missing, Buffer.from('1'))]
  outcomes.push(files.writeFileAtomic(missing, Buffer.from('2')))
  t.is((await Promise.allSettled(outcomes)).filter((o) => o.status === 'rejected').length, 2)
  await files.writeFileAtomic(path, Buffer.from('second'))
  t.is(files.readFile(path).toString(), 'second')
  t.deepEqual(await files.readDir(dir), ['a'])
})

test('names come, move and go', async (t) => {
  const dir = fresh()
  const [a, b, c] = [join(dir, 'a'), join(dir, 'b'), join(dir, 'c')]
  t.false(files.exists(a))
  await files.writeFileAtomic(a, Buffer.from('x'))
  await files.link(a, b)
  await files.rename(a, c)
  await files.syncDir(dir)
  await files.syncAll(dir)
  t.deepEqual([files.exists(a), files.exists(b), files.exists(c)], [false, true, true])
  await files.unlink(b)
  await t.throwsAsync(files.unlink(b), { code: 'ENOENT' })
  await t.throwsAsync(files.syncAll(b), { code: 'ENOENT', message: /dir-\d+\/b/ })
  files.mkdir(join(dir, 'deep', 'er'))
  files.mkdir(join(dir, 'deep', 'er'))
  t.deepEqual((await files.readDir(dir)).sort(), ['c', 'deep'])
})

test('space is what df shows', (t) => {
  const line = execFileSync('df', ['-B1', '--output=size,avail', root]).toString().split('\n')[1]
  const [total, free] = String(line).trim().split(/\s+/).map(Number)
  const found = files.space(root)
  t.is(found.totalBytes, total ?? 0)
  t.true(Math.abs(found.freeBytes - (free ?? 0)) < 1 << 30, 'others write meanwhile')
})

test('attributes come back; their errors name the file', (t) => {
  const path = join(fresh(), 'a')
  fs.writeFileSync(path, '')
  t.is(files.getAttribute(path, 'user.test'), undefined)
  files.setAttribute(path, 'user.test', Buffer.from('value'))
  t.deepEqual(files.getAttribute(path, 'user.test'), Buffer.from('value'))
  t.throws(() => files.setAttribute('/proc/self/status', 'user.test', Buffer.from('x')), {
    code: 'ENOTSUP',
    message: /\/proc\/self\/status/,
  })
})

test('a lock is had once and free after its release', (t) => {
  const path = join(fresh(), 'lock')
  const lock = files.lock(path)
  t.is(files.lock(path), undefined)
  lock?.release()
  lock?.release()
  const again = files.lock(path)
  t.not(again, undefined)
  again?.release()
  t.throws(() => files.lock(join(path, 'below')), { code: 'ENOTDIR', message: /below/ })
})

test('a watched tree tells of changes in directories old and new, until it is ended', async (t) => {
  const dir = fresh()
  files.mkdir(join(dir, 'old'))
  let changes = 0
  const end = files.watch(dir, () => changes++)
  const told = async (act: () => void): Promise<boolean> => {
    const before = changes
    act()
    return until(() => changes > before)
  }
  t.true(await told(() => fs.writeFileSync(join(dir, 'a'), 'x')))
  t.true(await told(() => fs.appendFileSync(join(dir, 'a'), 'y')))
  t.true(await told(() => fs.writeFileSync(join(dir, 'old', 'b'), 'x')))
  t.true(await told(() => files.mkdir(join(dir, 'new'))))
  t.true(await told(() => fs.writeFileSync(join(dir, 'new', 'c'), 'x')))
  t.true(await told(() => fs.rmSync(join(dir, 'new'), { recursive: true })))
  await new Promise((go) => setTimeout(go, 50))
  end()
  const before = changes
  fs.writeFileSync(join(dir, 'old', 'd'), 'x')
  await new Promise((go) => setTimeout(go, 50))
  t.is(changes, before)
})

test('a watched file is still watched after another one took its name', async (t) => {
  const path = join(fresh(), 'a')
  await files.writeFileAtomic(path, Buffer.from('1'))
  let changes = 0
  const end = files.watch(path, () => changes++)
  for (let i = 0; i < 3; i++) {
    const before = changes
    await files.writeFileAtomic(path, Buffer.from('2'))
    t.true(await until(() => changes > before))
    await new Promise((go) => setTimeout(go, 20))
  }
  end()
  t.throws(() => files.watch(`${path}-none`, () => undefined), { code: 'ENOENT' })
})
