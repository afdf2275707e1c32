/** What stands in for the native binding: locks, attributes and syncs are the same thing, the rest is said. */
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { loadAddon } from '../../src/world/node/addon.js'
import { NodeFiles } from '../../src/world/node/files.js'
import type { Native } from '../../src/world/node/native.js'
import { portableNative } from '../../src/world/node/portable.js'

// Attributes need a file system that has them: not every temporary directory is on one.
const dir = fs.mkdtempSync(join(fs.existsSync('/var/tmp') ? '/var/tmp' : tmpdir(), 'portable-'))
test.after.always(() => fs.rmSync(dir, { recursive: true }))
const binding = loadAddon('posix').binding as Native | undefined
const both = binding === undefined ? test.skip : test

let made = 0
function file(content = ''): string {
  const path = join(dir, `f${made++}`)
  fs.writeFileSync(path, content)
  return path
}

test('a lock excludes a second one until it is given back, and needs no process that holds it', (t) => {
  const path = file()
  const held = portableNative.lock(path)
  t.true(held >= 0)
  t.is(portableNative.lock(path), -1)
  fs.closeSync(held)
  const again = portableNative.lock(path)
  t.true(again >= 0)
  fs.closeSync(again)
})

both('sheep with and without the binding exclude each other', (t) => {
  const path = file()
  const portable = portableNative.lock(path)
  t.is(binding?.lock(path), -1)
  fs.closeSync(portable)
  const native = binding?.lock(path) ?? -1
  t.true(native >= 0)
  t.is(portableNative.lock(path), -1)
  fs.closeSync(native)
})

test('a file that cannot be locked at all is an error, not a lock', (t) => {
  t.throws(() => portableNative.lock(join(dir, 'no', 'such')), { code: 'ENOENT' })
})

test('attributes come back as they were set, any byte and length', (t) => {
  const path = file()
  const value = Buffer.from(Array.from({ length: 1000 }, (_, i) => i % 256))
  t.is(portableNative.getAttribute(path, 'user.a'), undefined)
  portableNative.setAttribute(path, 'user.a', value)
  t.true(portableNative.getAttribute(path, 'user.a')?.equals(value))
  portableNative.setAttribute(path, 'user.a', Buffer.alloc(0))
  t.is(portableNative.getAttribute(path, 'user.a')?.length, 0)
  t.true(portableNative.removeAttribute(path, 'user.a'))
  t.false(portableNative.removeAttribute(path, 'user.a'))
  t.throws(() => portableNative.getAttribute(join(dir, 'absent'), 'user.a'))
  t.throws(() => portableNative.setAttribute('/proc/self/status', 'user.a', value))
})

both('attributes are those the binding sees', (t) => {
  const path = file()
  portableNative.setAttribute(path, 'user.weight', Buffer.from('abc'))
  t.is(binding?.getAttribute(path, 'user.weight')?.toString(), 'abc')
  const fd = fs.openSync(path, 'r+')
  binding?.setAttribute(fd, 'user.id', Buffer.from([0, 255, 10]))
  t.deepEqual([...(portableNative.getAttribute(fd, 'user.id') ?? [])], [0, 255, 10])
  fs.closeSync(fd)
})

test('syncing a file system succeeds or says why not', async (t) => {
  await t.notThrowsAsync(portableNative.syncfs(dir))
  const error = await t.throwsAsync(portableNative.syncfs(join(dir, 'absent')))
  t.regex(error?.message ?? '', /^EIO: sync/)
})

test('files work as with the binding: reads wait, writes are whole, holes read as zeros', async (t) => {
  const files = new NodeFiles(portableNative)
  const path = file('0123456789')
  const open = files.open(path, { write: true })
  const into = Buffer.alloc(10)
  t.is(open.readNow(into, 0), -1)
  open.writeNow(Buffer.from('abc'), 2)
  await open.allocate(20)
  t.is(open.size(), 20)
  await open.punch(3, 4)
  const read = await new Promise<number>((resolve, reject) => {
    open.read(into, 0, (error, count) => (error === null ? resolve(count) : reject(error)))
  })
  t.is(read, 10)
  t.deepEqual([...into], [...Buffer.from('01a\0\0\0\u0000789', 'latin1')])
  open.close()
})

test('what may hold data is never called a hole', (t) => {
  const fd = fs.openSync(file('0123456789'), 'r')
  t.is(portableNative.seekData(fd, 4), 4)
  t.is(portableNative.seekHole(fd, 4), 10)
  t.is(portableNative.seekData(fd, 10), -1)
  fs.closeSync(fd)
})
