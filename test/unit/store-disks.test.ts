/** Opening directories: what is refused, what is found, what is left alone. */
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { INODE_BYTES, oidName } from '../../src/model/oid.js'
import { FakeFiles } from './support/fake-files.js'
import { freshFakeStore, META, openFakeStore } from './support/fake-store.js'
import {
  create,
  data,
  INODE,
  LEDGER,
  OBJECT_BYTES,
  read,
  remove,
  text,
  write,
} from './support/store-calls.js'

const OBJ = `${META}/obj`

function put(files: FakeFiles, path: string, content: string, size = OBJECT_BYTES): void {
  const file = files.open(path, { write: true, create: true })
  file.writeNow(Buffer.from(content), 0)
  file.writeNow(Buffer.alloc(1), size - 1)
  file.close()
}

test('a directory laid out by sheepdog 1.0 is served as it is', async (t) => {
  const files = new FakeFiles()
  files.mkdir(`${OBJ}/.stale`)
  const weight = Buffer.from('0000401900000000', 'hex')
  files.setAttribute(OBJ, 'user.md.size', weight)
  put(files, `${OBJ}/80a0390700000000`, 'alice', INODE_BYTES)
  put(files, `${OBJ}/00a0390700000005`, 'five')
  put(files, `${OBJ}/0039b88300000000_1`, 'piece', 2097152)
  put(files, `${OBJ}/00a0390700000006.tmp`, 'unfinished')
  put(files, `${OBJ}/notes.tmp`, 'not ours')
  put(files, `${OBJ}/.stale/00a0390700000005.3`, 'old five')
  put(files, `${OBJ}/.stale/00a0390700000007.4`, 'old seven')
  const store = await openFakeStore(files)
  t.is(store.spaceBytes, 0x19400000)
  t.deepEqual(store.listWorking(), [data(5), INODE])
  t.is(await text(store, INODE, 5), 'alice')
  t.is(await text(store, data(5), 4), 'five')
  t.deepEqual(store.staleEpochs(data(5)), [3])
  t.is(await store.restoreStale(data(7), 4), Code.SUCCESS)
  t.is(await text(store, data(7), 9), 'old seven')
  t.is(await read(store, data(6), 0, 1), Code.NO_OBJ)
  const names = await files.readDir(OBJ)
  t.false(names.includes('00a0390700000006.tmp'))
  t.true(names.includes('notes.tmp'))
  t.deepEqual(files.getAttribute(OBJ, 'user.md.size'), weight)
})

test('what is created has the names and sizes 1.0 looks for', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, INODE, 'alice', { bytes: INODE_BYTES })
  await create(store, data(5), 'five')
  await create(store, data(6), 'piece', { bytes: 2097152, fragment: 3 })
  await store.setAside(12, (oid) => oid === data(5))
  const size = (name: string): number => files.readFile(`${OBJ}/${name}`).length
  t.is(size('80a0390700000000'), INODE_BYTES)
  t.is(size('.stale/00a0390700000005.12'), OBJECT_BYTES)
  t.is(size('00a0390700000006_3'), 2097152)
  t.true(files.usedBytes(`${OBJ}/80a0390700000000`) <= 8192)
})

test('erasing an inode or a ledger gives its blocks back', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, INODE, Buffer.alloc(INODE_BYTES, 1), { bytes: INODE_BYTES })
  await write(store, INODE, 4664, Buffer.alloc(INODE_BYTES - 4664))
  t.true(files.usedBytes(`${OBJ}/80a0390700000000`) <= 3 * 4096)
  t.is(files.readFile(`${OBJ}/80a0390700000000`).length, INODE_BYTES)
  await create(store, LEDGER, Buffer.alloc(OBJECT_BYTES, 1))
  t.is(await write(store, LEDGER, 0, Buffer.alloc(OBJECT_BYTES)), Code.SUCCESS)
  t.is(files.usedBytes(`${OBJ}/08a0390700000000`), 0)
  t.deepEqual(await read(store, LEDGER, 0, OBJECT_BYTES), Buffer.alloc(OBJECT_BYTES))
})

test('the weight is the free space at first use and stays', async (t) => {
  const files = new FakeFiles()
  const { freeBytes } = files.space(OBJ)
  const store = await openFakeStore(files)
  t.is(store.spaceBytes, freeBytes)
  await create(store, data(1), 'x')
  await store.close()
  t.is((await openFakeStore(files)).spaceBytes, freeBytes)
})

test('a file system without extended attributes is refused by name, with a remedy', async (t) => {
  const files = new FakeFiles()
  files.fault = (operation) => (operation === 'setAttribute' ? 'ENOTSUP' : undefined)
  await t.throwsAsync(openFakeStore(files), {
    message: /^\/sheep\/obj: .*no extended attributes.*ext4, xfs or btrfs/,
  })
})

test('a weight that is no size is refused', async (t) => {
  const files = new FakeFiles()
  files.mkdir(OBJ)
  files.setAttribute(OBJ, 'user.md.size', Buffer.from('big'))
  await t.throwsAsync(openFakeStore(files), { message: /user\.md\.size is not a size/ })
})

test('a meta directory, a tree store or one disk twice are refused', async (t) => {
  const files = new FakeFiles()
  files.mkdir('/other/epoch')
  await files.writeFileAtomic('/other/config', Buffer.alloc(40))
  files.mkdir('/tree/meta')
  const open = (...disks: string[]) => openFakeStore(files, { disks })
  await t.throwsAsync(open('/other'), { message: /^\/other is the meta directory/ })
  await t.throwsAsync(open('/tree'), { message: /^\/tree holds a tree store/ })
  await t.throwsAsync(open('/d1', '/d1///'), { message: /^\/d1 is given twice/ })
})

test('with disks given only they hold objects, each where the ring says', async (t) => {
  const files = new FakeFiles()
  const disks = ['/d1/', '/d2', '/d3']
  const store = await openFakeStore(files, { disks })
  for (let i = 0; i < 60; i++) await create(store, data(i), `${i}`, { bytes: 512 })
  const counts = await Promise.all(
    ['/d1', '/d2', '/d3'].map(async (path) => (await files.readDir(path)).length - 1),
  )
  t.is(
    counts.reduce((sum, count) => sum + count),
    60,
  )
  t.true(
    counts.every((count) => count > 5),
    String(counts),
  )
  t.false(files.exists(`${META}/obj`))
  await store.close()
  const again = await openFakeStore(files, { disks })
  for (let i = 0; i < 60; i++) t.is(await text(again, data(i), `${i}`.length), `${i}`)
})

test('an object on another disk than the ring says is served, replaced and removed there', async (t) => {
  const files = new FakeFiles()
  const disks = ['/d1', '/d2']
  const first = await openFakeStore(files, { disks })
  for (let i = 0; i < 10; i++) await create(first, data(i), 'before', { bytes: 512 })
  await first.close()
  for (let i = 0; i < 10; i++) {
    const name = oidName(data(i))
    const [from, to] = files.exists(`/d1/${name}`) ? ['/d1', '/d2'] : ['/d2', '/d1']
    await files.rename(`${from}/${name}`, `${to}/${name}`)
  }
  const store = await openFakeStore(files, { disks })
  for (let i = 0; i < 10; i++) {
    t.is(await text(store, data(i), 6), 'before')
    t.is(await create(store, data(i), 'after ', { bytes: 512 }), Code.SUCCESS)
    t.is(await text(store, data(i), 6), 'after ')
    const name = oidName(data(i))
    t.not(files.exists(`/d1/${name}`), files.exists(`/d2/${name}`))
    t.is(await remove(store, data(i)), Code.SUCCESS)
    t.false(files.exists(`/d1/${name}`) || files.exists(`/d2/${name}`))
  }
})

test('of two copies on two disks the ring’s one is served and the other is kept out of sight', async (t) => {
  const files = new FakeFiles()
  const disks = ['/d1', '/d2']
  const first = await openFakeStore(files, { disks })
  for (let i = 0; i < 6; i++) await create(first, data(i), 'right', { bytes: 512 })
  await first.close()
  for (let i = 0; i < 6; i++) {
    const name = oidName(data(i))
    put(files, files.exists(`/d1/${name}`) ? `/d2/${name}` : `/d1/${name}`, 'wrong', 512)
  }
  const store = await openFakeStore(files, { disks })
  for (let i = 0; i < 6; i++) t.is(await text(store, data(i), 5), 'right')
  const names = [...(await files.readDir('/d1')), ...(await files.readDir('/d2'))]
  t.is(names.filter((name) => name.startsWith('.twin.')).length, 6)
  await store.close()
  t.is((await openFakeStore(files, { disks })).listWorking().length, 6)
})
