/** The binding against real files in a temporary directory. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { loadNative } from '../../src/world/node/native.js'

const native = loadNative()
const dir = fs.mkdtempSync(join(tmpdir(), 'native-'))
const started: ChildProcess[] = []
test.after.always(() => {
  for (const child of started) child.kill('SIGKILL')
  fs.rmSync(dir, { recursive: true })
})

let made = 0
function file(bytes: Uint8Array = Buffer.alloc(0)): { path: string; fd: number } {
  const path = join(dir, `file-${made++}`)
  fs.writeFileSync(path, bytes)
  return { path, fd: fs.openSync(path, 'r+') }
}

const call = (name: string, args: readonly unknown[]): unknown => {
  const fn = (native as unknown as Record<string, (...args: unknown[]) => unknown>)[name]
  return fn?.(...args)
}

/** Starts a process that takes the lock, says so, and holds it until it dies. */
async function startHolder(path: string): Promise<ChildProcess> {
  const module = new URL('../../src/world/node/native.js', import.meta.url).href
  const script = `
    const { loadNative } = await import(${JSON.stringify(module)})
    console.log(loadNative().lock(${JSON.stringify(path)}) >= 0 ? 'held' : 'refused')
    setInterval(() => undefined, 1000)`
  const args = ['--input-type=module', '-e', script]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  started.push(child)
  const [said] = await once(child.stdout, 'data')
  if (String(said).trim() !== 'held') throw new Error(`the holder said ${said}`)
  return child
}

test('wrong argument types are refused before anything is touched', (t) => {
  const { fd, path } = file(Buffer.from('safe'))
  const bytes = Buffer.alloc(4)
  const wrong: readonly [string, unknown[]][] = [
    ['readNow', []],
    ['readNow', ['0', bytes, 0]],
    ['readNow', [fd, 'text', 0]],
    ['readNow', [fd, new Uint16Array(4), 0]],
    ['readNow', [fd, new DataView(new ArrayBuffer(4)), 0]],
    ['readNow', [fd, bytes, 0n]],
    ['writeNow', [fd, null, 0]],
    ['writeNow', [fd, bytes]],
    ['seekData', [fd, undefined]],
    ['getAttribute', [null, 'user.x']],
    ['getAttribute', [path, 5]],
    ['setAttribute', [path, 'user.x', 'text']],
    ['lock', [5]],
    ['allocate', [fd, 0, '5']],
    ['punch', [fd]],
    ['syncfs', [undefined]],
    ['syslog', ['6', 'x']],
  ]
  for (const [name, args] of wrong) {
    t.throws(() => call(name, args), { instanceOf: TypeError }, name)
  }
  t.is(fs.readFileSync(path, 'utf8'), 'safe')
})

test('numbers and strings out of range are refused before anything is touched', (t) => {
  const { fd, path } = file(Buffer.from('safe'))
  const bytes = Buffer.alloc(4)
  const wrong: readonly [string, unknown[]][] = [
    ['readNow', [-1, bytes, 0]],
    ['readNow', [2 ** 31, bytes, 0]],
    ['readNow', [fd, bytes, -1]],
    ['readNow', [fd, bytes, 0.5]],
    ['readNow', [fd, bytes, Number.NaN]],
    ['writeNow', [fd, bytes, Number.POSITIVE_INFINITY]],
    ['writeNow', [fd, bytes, 2 ** 53]],
    ['getAttribute', [path, 'user.'.padEnd(256, 'x')]],
    ['getAttribute', [`${path}\0`, 'user.x']],
    ['getAttribute', ['/'.padEnd(4096, 'x'), 'user.x']],
    ['setAttribute', ['', 'user.x', bytes]],
    ['lock', ['']],
    ['allocate', [fd, 0, -1]],
    ['syslog', [8, 'x']],
  ]
  for (const [name, args] of wrong) {
    t.throws(() => call(name, args), { instanceOf: RangeError }, name)
  }
  t.is(fs.readFileSync(path, 'utf8'), 'safe')
})

test('a failed call says which one and why', async (t) => {
  const { fd, path } = file(Buffer.alloc(4))
  fs.closeSync(fd)
  t.throws(() => native.writeNow(fs.openSync(path, 'r'), Buffer.alloc(1), 0), { code: 'EBADF' })
  const missing = t.throws(() => native.getAttribute(join(dir, 'none'), 'user.x'), {
    code: 'ENOENT',
  }) as NodeJS.ErrnoException
  t.is(missing.errno, -2)
  t.is(missing.syscall, 'getxattr')
  const rejected = await t.throwsAsync(native.syncfs(join(dir, 'none')), { code: 'ENOENT' })
  t.is((rejected as NodeJS.ErrnoException).syscall, 'syncfs')
  const reader = fs.openSync(path, 'r')
  await t.throwsAsync(native.allocate(reader, 0, 4096), { code: 'EBADF' })
})

test('bytes move at the asked place and inside the given view only', (t) => {
  const { fd, path } = file(Buffer.from('0123456789'))
  native.writeNow(fd, Buffer.from('_AB_').subarray(1, 3), 4)
  t.is(fs.readFileSync(path, 'latin1'), '0123AB6789')
  const around = Buffer.alloc(6, '.')
  const count = native.readNow(fd, around.subarray(1, 5), 3)
  if (count === -2) {
    t.log('no reads that do not wait on this file system')
    return
  }
  t.is(count, 4)
  t.is(around.toString(), '.3AB6.')
  t.is(native.readNow(fd, around, 8), 2, 'short at the end of the file')
  t.is(native.readNow(fd, around, 100), 0)
})

test('attributes keep any bytes and are absent, not empty, when absent', (t) => {
  const { fd, path } = file()
  const value = Buffer.from([0, 1, 2, 255, 0])
  t.is(native.getAttribute(path, 'user.test'), undefined)
  native.setAttribute(path, 'user.test', value)
  t.deepEqual(native.getAttribute(fd, 'user.test'), value)
  native.setAttribute(fd, 'user.test', Buffer.alloc(0))
  t.deepEqual(native.getAttribute(path, 'user.test'), Buffer.alloc(0))
  t.true(native.removeAttribute(path, 'user.test'))
  t.false(native.removeAttribute(fd, 'user.test'))
  t.is(native.getAttribute(path, 'user.test'), undefined)
})

test('a file system without attributes says ENOTSUP', (t) => {
  const set = (): void => native.setAttribute('/proc/self/status', 'user.test', Buffer.from('x'))
  t.throws(set, { code: 'ENOTSUP' })
})

test('a punched range reads as zeros, gives its blocks back and keeps the size', async (t) => {
  const { fd } = file(Buffer.alloc(1 << 20, 7))
  fs.fsyncSync(fd)
  const before = fs.fstatSync(fd)
  await native.punch(fd, 65536, 524288)
  const after = fs.fstatSync(fd)
  t.is(after.size, 1 << 20)
  t.true(after.blocks <= before.blocks - 524288 / 512)
  const found = Buffer.alloc(1 << 20)
  fs.readSync(fd, found, 0, found.length, 0)
  const expected = Buffer.alloc(1 << 20, 7).fill(0, 65536, 65536 + 524288)
  t.true(found.equals(expected))
  t.is(native.seekHole(fd, 0), 65536)
  t.is(native.seekData(fd, 65536), 65536 + 524288)
  t.is(native.seekHole(fd, 700000), 1 << 20)
  t.is(native.seekData(fd, 1 << 20), -1)
})

test('allocated space is the file’s before it is written', async (t) => {
  const { fd } = file(Buffer.from('abc'))
  await native.allocate(fd, 0, 1 << 20)
  const found = fs.fstatSync(fd)
  t.is(found.size, 1 << 20)
  t.true(found.blocks * 512 >= 1 << 20)
  t.is(fs.readFileSync(fd).subarray(0, 4).toString('latin1'), 'abc\0')
})

test('syncfs resolves on a directory and on a file', async (t) => {
  t.is(await native.syncfs(dir), undefined)
  t.is(await native.syncfs(file().path), undefined)
})

test('a lock excludes other processes and ends with SIGKILL', async (t) => {
  const path = join(dir, 'lock-processes')
  const holder = await startHolder(path)
  t.is(native.lock(path), -1)
  holder.kill('SIGKILL')
  await once(holder, 'exit')
  const fd = native.lock(path)
  t.true(fd >= 0)
  fs.closeSync(fd)
})

test('a lock excludes a second taker in the same process', (t) => {
  const path = join(dir, 'lock-twice')
  const fd = native.lock(path)
  t.is(native.lock(path), -1)
  fs.closeSync(fs.openSync(path, 'r+'))
  t.is(native.lock(path), -1, 'opening and closing the file by the way does not end the lock')
  fs.closeSync(fd)
  fs.closeSync(native.lock(path))
})

test('children do not inherit a lock', async (t) => {
  const path = join(dir, 'lock-children')
  const fd = native.lock(path)
  const child = spawn('sleep', ['60'])
  started.push(child)
  await once(child, 'spawn')
  fs.closeSync(fd)
  const again = native.lock(path)
  t.true(again >= 0)
  fs.closeSync(again)
})
