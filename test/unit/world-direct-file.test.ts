// Files past the page cache: any bytes at any offset above, whole blocks in aligned memory below; with the kernel and without.
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { readAt, writeAt } from '../../src/store/file-io.js'
import { DirectFile, DirectMemory, PIECE_BYTES } from '../../src/world/node/direct-file.js'
import { NodeFiles } from '../../src/world/node/files.js'
import { loadNative } from '../../src/world/node/native.js'
import { portableNative } from '../../src/world/node/portable.js'
import type { FileDone, OpenFile } from '../../src/world/world.js'
import { Dice } from './support/fake-cluster.js'
import { FakeFiles } from './support/fake-files.js'

const BLOCK = 4096
const SIZE = 3 * PIECE_BYTES
const native = loadNative()

/** Looks at what a device would refuse, and at how much is asked of it. */
function strict(file: OpenFile, asked: string[]): OpenFile {
  const check = (what: string, bytes: Uint8Array, position: number): void => {
    const isWhole = [bytes.length, position, native.directOffset(bytes)].every(
      (one) => one % BLOCK === 0,
    )
    if (!isWhole) throw new Error(`EINVAL: ${what} of ${bytes.length} at ${position}`)
    asked.push(`${what} ${position / BLOCK}+${bytes.length / BLOCK}`)
  }
  return {
    readNow: () => -1,
    writeNow: () => undefined,
    read: (into: Uint8Array, position: number, done: FileDone) => {
      check('read', into, position)
      file.read(into, position, done)
    },
    write: (data: Uint8Array, position: number, done: FileDone) => {
      check('write', data, position)
      file.write(data, position, done)
    },
    sync: (done: FileDone) => file.sync(done),
    allocate: (length: number) => file.allocate(length),
    punch: (offset: number, length: number) => file.punch(offset, length),
    truncate: (length: number) => file.truncate(length),
    size: () => file.size(),
    close: () => file.close(),
  }
}

async function made(sizeBytes = SIZE) {
  const files = new FakeFiles()
  const below = files.open('/f', { write: true, create: true })
  await below.allocate(sizeBytes)
  const asked: string[] = []
  const file = new DirectFile(strict(below, asked), new DirectMemory(native))
  return { files, below, file, asked }
}

/** Random transfers against a copy in memory. */
async function exercise(t: ExecutionContext, file: OpenFile, dice: Dice, steps: number) {
  const model = Buffer.alloc(SIZE)
  for (let step = 0; step < steps; step++) {
    const most = dice.chance(0.2) ? 2 * PIECE_BYTES : 3 * BLOCK
    const offset = dice.below(SIZE)
    const length = Math.min(dice.below(most), SIZE - offset)
    if (dice.chance(0.5)) {
      const data = Buffer.alloc(length, dice.below(256))
      data.copy(model, offset)
      await writeAt(file, data, offset)
    } else {
      const into = Buffer.alloc(length, 0xee)
      t.is(await readAt(file, into, offset), length)
      t.true(into.equals(model.subarray(offset, offset + length)), `${step}: ${offset}+${length}`)
    }
  }
  return model
}

test('only the blocks a write covers in part are read before it', async (t) => {
  const { file, asked } = await made()
  const wrote = async (offset: number, length: number): Promise<string[]> => {
    asked.length = 0
    await writeAt(file, Buffer.alloc(length, 1), offset)
    return [...asked]
  }
  t.deepEqual(await wrote(BLOCK, 2 * BLOCK), ['write 1+2'])
  t.deepEqual(await wrote(BLOCK, 512), ['read 1+1', 'write 1+1'])
  t.deepEqual(await wrote(BLOCK + 512, 512), ['read 1+1', 'write 1+1'])
  t.deepEqual(await wrote(2 * BLOCK - 512, 512), ['read 1+1', 'write 1+1'])
  t.deepEqual(await wrote(BLOCK + 512, BLOCK), ['read 1+1', 'read 2+1', 'write 1+2'])
  t.deepEqual(await wrote(BLOCK + 512, 3 * BLOCK - 512), ['read 1+1', 'write 1+3'])
  t.deepEqual(await wrote(BLOCK, 3 * BLOCK - 1), ['read 3+1', 'write 1+3'])
  t.deepEqual(await wrote(0, 0), [])
  const blocks = PIECE_BYTES / BLOCK
  const over = ['read 0+1', `write 0+${blocks}`, `read ${blocks}+1`, `write ${blocks}+1`]
  t.deepEqual(await wrote(1, PIECE_BYTES), over)
})

test('whatever is written where, it is read again, and nothing beside it changes', async (t) => {
  const { below, file } = await made()
  const model = await exercise(t, file, new Dice(11), 300)
  const found = Buffer.alloc(SIZE)
  below.readNow(found, 0)
  t.true(found.equals(model))
})

test('the end of the file shows, and a write past it is refused', async (t) => {
  const { file } = await made(2 * BLOCK)
  const into = Buffer.alloc(BLOCK, 7)
  t.is(await readAt(file, into, 2 * BLOCK - 100), 100)
  t.deepEqual(into.subarray(98, 102), Buffer.from([0, 0, 7, 7]))
  t.is(await readAt(file, into, 9 * BLOCK), 0)
  await t.throwsAsync(writeAt(file, into, 2 * BLOCK - 100), { code: 'EIO' })
})

test('errors of the device are told, and cost no memory', async (t) => {
  const { files, file } = await made()
  files.fault = (operation) => (operation === 'write' ? 'EIO' : undefined)
  for (let i = 0; i < 40; i++) {
    await t.throwsAsync(writeAt(file, Buffer.alloc(512), 0), { code: 'EIO' })
  }
  files.fault = (operation) => (operation === 'read' ? 'EIO' : undefined)
  for (let i = 0; i < 40; i++) {
    await t.throwsAsync(writeAt(file, Buffer.alloc(512), 0), { code: 'EIO' })
    await t.throwsAsync(readAt(file, Buffer.alloc(512), 0), { code: 'EIO' })
  }
  files.fault = () => undefined
  await writeAt(file, Buffer.alloc(512, 3), 0)
})

test('more transfers than there is memory for wait in order', async (t) => {
  const { file } = await made()
  await writeAt(file, Buffer.alloc(SIZE, 5), 0)
  const counts = await Promise.all(
    Array.from({ length: 100 }, (_, i) => readAt(file, Buffer.alloc(600), i * 512)),
  )
  t.true(counts.every((count) => count === 600))
})

test('a file is closed when what is under way has ended, and not used after', async (t) => {
  const { files, file } = await made()
  const write = writeAt(file, Buffer.alloc(2 * PIECE_BYTES, 1), 1)
  const sync = new Promise((resolve) => file.sync(resolve))
  file.close()
  t.is(files.openCount, 1)
  await write
  await sync
  t.is(files.openCount, 0)
  t.throws(() => file.read(Buffer.alloc(1), 0, () => undefined), { code: 'EBADF' })
  t.throws(() => file.close(), { code: 'EBADF' })
})

test('a real file system takes it, and the page cache sees the same bytes', async (t) => {
  const dir = fs.mkdtempSync(join(fs.existsSync('/var/tmp') ? '/var/tmp' : tmpdir(), 'direct-'))
  t.teardown(() => fs.rmSync(dir, { recursive: true }))
  const path = join(dir, 'f')
  const file = new NodeFiles(native).open(path, { write: true, create: true, direct: true })
  await file.allocate(SIZE)
  t.is(file.readNow(Buffer.alloc(1), 0), -1)
  t.throws(() => file.writeNow(Buffer.alloc(1), 0), { code: 'ENOTSUP' })
  const model = await exercise(t, file, new Dice(12), 100)
  t.true(fs.readFileSync(path).equals(model))
  await file.truncate(BLOCK + 100)
  t.is(await readAt(file, Buffer.alloc(BLOCK), BLOCK), 100)
  file.close()
})

test('without the binding a file past the page cache cannot be opened, and none is made', (t) => {
  const path = join(tmpdir(), `direct-${process.pid}`)
  const files = new NodeFiles(portableNative)
  const open = () => files.open(path, { write: true, create: true, direct: true })
  t.throws(open, { code: 'ENOTSUP', message: /native binding/ })
  t.false(fs.existsSync(path))
})
