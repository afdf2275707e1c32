/** Disks that are plugged, unplugged, fail, are missing at a start, or come back with what they held. */
import test, { type ExecutionContext } from 'ava'
import { Code } from '../../src/base/codes.js'
import { oidName } from '../../src/model/oid.js'
import type { PlainStore } from '../../src/store/plain-store.js'
import { FakeFiles } from './support/fake-files.js'
import { META, openFakeStore } from './support/fake-store.js'
import { create, data, flush, INODE, read, text, VID, write } from './support/store-calls.js'

const DISKS = ['/d1', '/d2', '/d3']
const COUNT = 60

async function filled(files: FakeFiles, disks = DISKS): Promise<PlainStore> {
  const store = await openFakeStore(files, { disks })
  store.diskControl.watch(() => undefined)
  for (let i = 0; i < COUNT; i++) await create(store, data(i), `${i}`, { bytes: 512 })
  return store
}

const all = Array.from({ length: COUNT }, (_, i) => data(i))

function on(files: FakeFiles, path: string): bigint[] {
  return all.filter((oid) => files.exists(`${path}/${oidName(oid)}`))
}

async function failure(t: ExecutionContext, work: Promise<unknown>): Promise<string> {
  return (await t.throwsAsync(work))?.message ?? ''
}

test('a failing disk is told once, takes its objects with it, and the others serve on', async (t) => {
  const files = new FakeFiles()
  const store = await filled(files)
  const told: string[] = []
  store.diskControl.watch((path) => told.push(path))
  const gone = on(files, '/d2')
  files.cold = true
  files.fault = (operation, path) =>
    operation === 'read' && path.startsWith('/d2/') ? 'EIO' : undefined
  t.is(await read(store, data(Number(gone[0]! & 0xffn)), 0, 2), Code.NETWORK_ERROR)
  t.is(await read(store, data(Number(gone[1]! & 0xffn)), 0, 2), Code.NETWORK_ERROR)
  t.deepEqual(told, ['/d2'])
  const lost = await store.diskControl.drop('/d2')
  t.deepEqual([...lost.everything].sort(), gone.sort())
  t.deepEqual(
    store.listWorking(),
    all.filter((oid) => !gone.includes(oid)),
  )
  for (const oid of all) t.is(store.has(oid), !gone.includes(oid))
  t.deepEqual(store.diskControl.paths(), ['/d1', '/d3'])
  for (const oid of gone) {
    t.is(await create(store, data(Number(oid & 0xffn)), 'again', { bytes: 512 }), Code.SUCCESS)
  }
  t.is(store.listWorking().length, COUNT)
})

test('writes that wait for the disk when it goes are not reported as done', async (t) => {
  const files = new FakeFiles()
  const store = await filled(files)
  const oid = all.find((id) => on(files, '/d1').includes(id))!
  files.hold = (operation) => operation === 'sync'
  const durable = write(store, oid, 0, 'x', true)
  const lost = await store.diskControl.drop('/d1')
  files.hold = () => false
  files.resume()
  t.is(await durable, Code.NETWORK_ERROR)
  t.true(lost.unsynced.has(oid))
  t.is(await read(store, oid, 0, 4), Code.NO_OBJ)
})

test('an unflushed write lost with its disk is named, a flushed one is not', async (t) => {
  const files = new FakeFiles()
  const store = await filled(files)
  const [first, second] = all.filter((id) => on(files, '/d1').includes(id))
  await write(store, first!, 0, 'x')
  await flush(store, VID)
  await write(store, second!, 0, 'y')
  const lost = await store.diskControl.drop('/d1')
  t.deepEqual([...lost.unsynced], [second!])
})

test('the last disk stays', async (t) => {
  const files = new FakeFiles()
  const store = await filled(files, ['/d1'])
  t.regex(await failure(t, store.diskControl.drop('/d1')), /last disk/)
  t.regex(await failure(t, store.diskControl.drop('/d9')), /no disk of this sheep/)
  t.is(await text(store, data(1), 1), '1')
})

test('a plugged disk is used, found without moving what is there, and used after a restart', async (t) => {
  const files = new FakeFiles()
  const store = await filled(files, ['/d1'])
  files.mkdir('/new')
  await store.diskControl.plug('/new/')
  for (let i = 0; i < COUNT; i++) t.is(await text(store, data(i), `${i}`.length), `${i}`)
  for (let i = COUNT; i < 2 * COUNT; i++) {
    await create(store, data(i), 'new', { bytes: 512 })
  }
  const held = (await files.readDir('/new')).length
  t.true(held > COUNT / 4, `${held}`)
  await store.close()
  const again = await openFakeStore(files, { disks: ['/d1'] })
  t.deepEqual(again.diskControl.paths(), ['/d1', '/new'])
  t.is(again.listWorking().length, 2 * COUNT)
})

test('what can be no disk is not plugged, and says why', async (t) => {
  const files = new FakeFiles()
  const store = await filled(files, ['/d1'])
  for (const path of ['/other/epoch', '/tree/meta', '/d1/below', '/foreign', '/fine']) {
    files.mkdir(path)
  }
  await files.writeFileAtomic('/other/config', Buffer.alloc(40))
  await files.writeFileAtomic('/foreign/00a0390700000005', Buffer.alloc(512))
  const reasons: Record<string, RegExp> = {
    '/d1': /in use already/,
    '/absent': /does not exist/,
    '/other': /meta directory/,
    '/tree': /tree store/,
    '/d1/below': /contain one another/,
    '/foreign': /objects of another store/,
    fine: /absolute/,
  }
  for (const [path, reason] of Object.entries(reasons)) {
    t.regex(await failure(t, store.diskControl.plug(path)), reason)
  }
  files.fault = (operation, path) =>
    operation === 'setAttribute' && path === '/fine' ? 'ENOTSUP' : undefined
  t.regex(await failure(t, store.diskControl.plug('/fine')), /extended attributes/)
  t.deepEqual(store.diskControl.paths(), ['/d1'])
})

test('a disk that comes back holds old copies only, which are no working objects', async (t) => {
  const files = new FakeFiles()
  const store = await filled(files)
  const gone = on(files, '/d2')
  await store.diskControl.drop('/d2')
  await store.diskControl.recordLoss(7)
  const [kept] = gone
  await create(store, data(Number(kept! & 0xffn)), 'newer', { bytes: 512 })
  await store.diskControl.plug('/d2')
  t.is(await text(store, data(Number(kept! & 0xffn)), 5), 'newer')
  for (const oid of gone) {
    t.is(store.has(oid as typeof kept & (typeof all)[0]), oid === kept)
    t.deepEqual(store.staleEpochs(oid as (typeof all)[0]), [6])
  }
  t.deepEqual(store.list(), all)
})

test('an unplugged disk was current to the end, so its copies are of the epoch it went in', async (t) => {
  const files = new FakeFiles()
  const store = await filled(files)
  const [first] = on(files, '/d2') as (typeof all)[0][]
  await store.diskControl.unplug('/d2')
  await store.diskControl.recordLoss(7)
  await store.diskControl.plug('/d2')
  t.deepEqual(store.staleEpochs(first!), [7])
})

test('what a disk held when it failed in the first epoch goes out of sight, not away', async (t) => {
  const files = new FakeFiles()
  const store = await filled(files)
  const gone = on(files, '/d2')
  await store.diskControl.drop('/d2')
  await store.diskControl.recordLoss(1)
  await store.diskControl.plug('/d2')
  const names = await files.readDir('/d2')
  t.is(names.filter((name) => name.startsWith('.twin.')).length, gone.length)
  t.is(store.list().length, COUNT - gone.length)
})

test('a disk that was taken out stays out over restarts, with or without being given', async (t) => {
  for (const disks of [DISKS, ['/d1', '/d3']]) {
    const files = new FakeFiles()
    const store = await filled(files)
    const gone = on(files, '/d2')
    await store.diskControl.drop('/d2')
    await store.diskControl.recordLoss(3)
    await create(store, data(Number(gone[0]! & 0xffn)), 'newer', { bytes: 512 })
    await store.close()
    const again = await openFakeStore(files, { disks })
    t.deepEqual(again.diskControl.paths(), ['/d1', '/d3'])
    t.deepEqual(again.diskControl.unrecorded(), [])
    t.is(await text(again, data(Number(gone[0]! & 0xffn)), 5), 'newer')
    await again.diskControl.plug('/d2')
    t.is(await text(again, data(Number(gone[0]! & 0xffn)), 5), 'newer')
  }
})

test('a disk that was taken out and is gone is not made anew', async (t) => {
  const files = new FakeFiles()
  const store = await filled(files)
  files.loseDirectory('/d2')
  await store.diskControl.drop('/d2')
  await store.diskControl.recordLoss(3)
  await store.close()
  const again = await openFakeStore(files, { disks: DISKS })
  t.deepEqual(again.diskControl.paths(), ['/d1', '/d3'])
  t.false(files.exists('/d2'))
})

test('a disk that is not mounted is missed, not taken for an empty one', async (t) => {
  const files = new FakeFiles()
  const store = await filled(files)
  const gone = on(files, '/d2')
  await store.close()
  files.loseDirectory('/d2')
  files.mkdir('/d2')
  const again = await openFakeStore(files, { disks: DISKS })
  t.deepEqual(again.diskControl.unrecorded(), ['/d2'])
  t.deepEqual(again.diskControl.paths(), ['/d1', '/d3'])
  t.deepEqual(await files.readDir('/d2'), [])
  t.is(again.listWorking().length, COUNT - gone.length)
  // Until the node has noted the loss every start says so again.
  await again.close()
  const third = await openFakeStore(files, { disks: DISKS })
  t.deepEqual(third.diskControl.unrecorded(), ['/d2'])
  await third.diskControl.recordLoss(4)
  t.deepEqual(third.diskControl.unrecorded(), [])
  // The new disk at the old place may be taken in.
  await third.diskControl.plug('/d2')
  t.deepEqual(third.diskControl.paths(), ['/d1', '/d3', '/d2'])
})

test('a disk left off the command line is missed; one given at another path is the same', async (t) => {
  const files = new FakeFiles()
  await (await filled(files)).close()
  const fewer = await openFakeStore(files, { disks: ['/d1', '/d3'] })
  t.deepEqual(fewer.diskControl.unrecorded(), ['/d2'])
  await fewer.close()
  const moved = await openFakeStore(files, { disks: DISKS })
  t.deepEqual(moved.diskControl.unrecorded(), [])
  t.is(moved.listWorking().length, COUNT)
})

test('a disk that cannot be read at a start is left out while there are others', async (t) => {
  const files = new FakeFiles()
  await (await filled(files)).close()
  files.fault = (operation, path) =>
    path.startsWith('/d2') && operation === 'readDir' ? 'EIO' : undefined
  const store = await openFakeStore(files, { disks: DISKS })
  t.deepEqual(store.diskControl.unrecorded(), ['/d2'])
  files.fault = (_operation, path) => (path.startsWith('/d') ? 'EIO' : undefined)
  await t.throwsAsync(openFakeStore(files, { disks: DISKS }), { message: /cannot be read.*EIO/ })
})

test('a new disk that holds another store’s objects is refused at a start', async (t) => {
  const files = new FakeFiles()
  await (await filled(files, ['/d1'])).close()
  files.mkdir('/d2')
  await files.writeFileAtomic('/d2/00a0390700000005', Buffer.alloc(512))
  await t.throwsAsync(openFakeStore(files, { disks: ['/d1', '/d2'] }), {
    message: /^\/d2 holds objects of another store/,
  })
})

test('a table of disks nobody can read stops the start', async (t) => {
  const files = new FakeFiles()
  await (await filled(files, ['/d1'])).close()
  await files.writeFileAtomic(`${META}/disks`, Buffer.from('{"version":1,"disks":[{}]}'))
  await t.throwsAsync(openFakeStore(files, { disks: ['/d1'] }), {
    message: /^\/sheep\/disks is not a table of disks/,
  })
})

test('a full disk leaves new objects to the others, and its last bytes to inodes', async (t) => {
  const files = new FakeFiles({ totalBytes: 64 * 1024 * 1024 })
  const store = await openFakeStore(files, { disks: ['/d1', '/d2'] })
  files.space = (path) => ({ totalBytes: 1 << 26, freeBytes: path === '/d1' ? 65_536 : 1 << 25 })
  for (let i = 0; i < 20; i++) {
    t.is(await create(store, data(i), 'x', { bytes: 65_536 }), Code.SUCCESS)
  }
  t.deepEqual(on(files, '/d1'), [])
  files.space = () => ({ totalBytes: 1 << 26, freeBytes: 65_536 })
  t.is(await create(store, data(20), 'x', { bytes: 65_536 }), Code.NO_SPACE)
  t.is(await create(store, INODE, 'alice', { bytes: 65_536 }), Code.SUCCESS)
  t.is(await write(store, data(1), 0, 'y'), Code.SUCCESS)
})
