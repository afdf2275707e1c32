/** Order of operations on one object, and the bound on open files. */
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { Lanes } from '../../src/store/lanes.js'
import { SharedSync, type SyncDone } from '../../src/store/shared-sync.js'
import { freshFakeStore, META, openFakeStore } from './support/fake-store.js'
import { create, data, flush, read, remove, settle, text, write } from './support/store-calls.js'

test('cached reads and small writes complete within the call', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), 'x')
  const codes: Code[] = []
  store.write(data(1), 0, Buffer.from('now'), { durable: false }, (code) => codes.push(code))
  const into = Buffer.alloc(3)
  store.read(data(1), 0, into, (code) => codes.push(code))
  t.deepEqual(codes, [Code.SUCCESS, Code.SUCCESS])
  t.is(into.toString(), 'now')
  t.is(files.count('read'), 0)
})

test('a read that is cached in part goes to the disk for the rest', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), 'abcdef')
  await store.close()
  const plainOpen = files.open.bind(files)
  files.open = (path, how) => {
    const file = plainOpen(path, how)
    const readNow = file.readNow.bind(file)
    file.readNow = (into, position) => readNow(into.subarray(0, 2), position)
    return file
  }
  const again = await openFakeStore(files)
  t.is(await text(again, data(1), 6), 'abcdef')
})

test('reads run beside a waiting read; a write waits for both and holds up who follows', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), 'before')
  const order: string[] = []
  const readNoting = (what: string): void => {
    const into = Buffer.alloc(6)
    store.read(data(1), 0, into, (code) => order.push(`${what}:${code}:${into}`))
  }
  files.cold = true
  files.hold = (operation) => operation === 'read'
  readNoting('slow')
  files.cold = false
  readNoting('fast')
  store.write(data(1), 0, Buffer.from('after '), { durable: false }, () => order.push('write'))
  readNoting('follower')
  store.read(data(2), 0, Buffer.alloc(1), (code) => order.push(`other:${code}`))
  await settle()
  t.deepEqual(order, ['fast:0:before', 'other:2'])
  files.hold = () => false
  files.resume()
  await settle()
  t.deepEqual(order.slice(2), ['slow:0:before', 'write', 'follower:0:after '])
})

test('small writes do not overtake a big one', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), '')
  files.hold = (operation) => operation === 'write'
  const big = write(store, data(1), 0, Buffer.alloc(100_000, 'b'))
  const small = write(store, data(1), 0, 'small')
  await settle()
  files.hold = () => false
  files.resume()
  await Promise.all([big, small])
  t.is(await text(store, data(1), 6), 'smallb')
})

test('two creates of one object take effect in order', async (t) => {
  const { store } = await freshFakeStore()
  const codes = await Promise.all([create(store, data(1), 'one'), create(store, data(1), 'two')])
  t.deepEqual(codes, [Code.SUCCESS, Code.SUCCESS])
  t.is(await text(store, data(1), 3), 'two')
})

test('a removed object’s file stays open for those who use it, then is closed', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), '')
  await write(store, data(1), 0, 'x')
  files.hold = (operation) => operation === 'sync'
  const flushed = flush(store)
  t.is(await remove(store, data(1)), Code.SUCCESS)
  t.is(files.openCount, 1)
  files.hold = () => false
  files.resume()
  t.is(await flushed, Code.SUCCESS)
  t.is(files.openCount, 0)
})

test('no more files are open than allowed, and dirty ones are synced before they are closed', async (t) => {
  const { files, store } = await freshFakeStore({ openObjectsMax: 8 })
  for (let i = 0; i < 40; i++) await create(store, data(i), '')
  t.true(files.openCount <= 9)
  files.openMost = 0
  const codes = await Promise.all(
    Array.from({ length: 40 }, (_, i) => write(store, data(i), 0, `object ${i}`)),
  )
  t.true(codes.every((code) => code === Code.SUCCESS))
  t.true(files.openMost <= 9, `${files.openMost}`)
  const found = await Promise.all(Array.from({ length: 40 }, (_, i) => text(store, data(i), 9)))
  found.forEach((content, i) => {
    t.is(content, `object ${i}`.padEnd(9, '\0'))
  })
  t.is(await flush(store), Code.SUCCESS)
  files.crash()
  const again = await openFakeStore(files)
  for (let i = 0; i < 40; i++) t.is(await text(again, data(i), 8), `object ${i}`.slice(0, 8))
})

test('a file that could not be synced on its way out fails the next flush', async (t) => {
  const { files, store } = await freshFakeStore({ openObjectsMax: 2 })
  for (let i = 0; i < 6; i++) await create(store, data(i), '')
  await write(store, data(0), 0, 'lost')
  files.fault = (operation) => (operation === 'sync' ? 'EIO' : undefined)
  for (let i = 1; i < 6; i++) await read(store, data(i), 0, 1)
  files.fault = () => undefined
  t.is(await flush(store), Code.EIO)
})

test('the file used all the time stays open while others come and go', async (t) => {
  const { files, store } = await freshFakeStore({ openObjectsMax: 4 })
  for (let i = 0; i < 30; i++) await create(store, data(i), '')
  await read(store, data(0), 0, 1)
  const before = files.count('open', /700000000$/)
  for (let i = 1; i < 30; i++) {
    await read(store, data(i), 0, 1)
    await read(store, data(0), 0, 1)
  }
  t.true(files.count('open', /700000000$/) - before <= 1)
})

test('a flush does not wait for writes that are not complete', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), '')
  files.hold = (operation) => operation === 'write'
  const big = write(store, data(1), 0, Buffer.alloc(100_000, 1))
  t.is(await flush(store), Code.SUCCESS)
  files.hold = () => false
  files.resume()
  t.is(await big, Code.SUCCESS)
  const before = files.count('sync')
  await flush(store)
  t.is(files.count('sync'), before + 1)
})

test('a format waits for what runs and holds up what comes', async (t) => {
  const { files, store } = await freshFakeStore()
  files.hold = (operation) => operation === 'rename'
  const before = create(store, data(1), 'x')
  await settle()
  const formatted = store.format()
  const after = create(store, data(2), 'x')
  await settle()
  t.is(files.count('readDir', /obj$/), 1)
  files.hold = () => false
  files.resume()
  await Promise.all([before, formatted, after])
  t.deepEqual(store.list(), [data(2)])
  t.true(files.exists(`${META}/obj/00a0390700000002`))
})

test('setting many objects aside lets others run in between', async (t) => {
  const { store } = await freshFakeStore()
  for (let i = 0; i < 300; i++) await create(store, data(i), 'x', { bytes: 512 })
  let done = false
  let turns = 0
  const counting = (async () => {
    for (; !done; turns++) await settle(1)
  })()
  await store.setAside(2, () => false)
  done = true
  await counting
  t.true(turns >= 4)
})

test('a purge spares a copy that was set aside again in the same epoch while it ran', async (t) => {
  const { files, store } = await freshFakeStore()
  for (let i = 0; i < 70; i++) await create(store, data(i), `${i}`, { bytes: 512 })
  await store.setAside(3, () => true)
  files.hold = (operation, path) => operation === 'unlink' && path.endsWith('00.3')
  const purged = store.purgeStale()
  await settle()
  t.is(await store.restoreStale(data(69), 3), Code.SUCCESS)
  const again = store.setAside(3, () => true)
  await settle()
  files.hold = () => false
  files.resume()
  await Promise.all([purged, again])
  t.deepEqual(store.list(), [data(69)])
  t.is(await store.readStale(data(69), 3, 0, Buffer.alloc(2)), Code.SUCCESS)
})

test('a copy nobody wants any more when its turn comes is neither made nor brought back', async (t) => {
  const { store } = await freshFakeStore()
  const unwanted = { stillWanted: () => false }
  const request = { id: data(1), bytes: 512, offset: 0, data: Buffer.from('late') }
  const late = new Promise<Code>((resolve) => store.create({ ...request, ...unwanted }, resolve))
  t.is(await late, Code.NETWORK_ERROR)
  t.false(store.has(data(1)))
  await create(store, data(2), 'kept', { bytes: 512 })
  await store.setAside(3, () => true)
  t.is(await store.restoreStale(data(2), 3, unwanted.stillWanted), Code.NETWORK_ERROR)
  t.false(store.has(data(2)))
  t.is(await store.restoreStale(data(2), 3), Code.SUCCESS)
})

test('a removed object takes its stale copies along', async (t) => {
  const { store } = await freshFakeStore()
  await create(store, data(1), 'old', { bytes: 512 })
  await store.setAside(3, () => true)
  await create(store, data(1), 'new', { bytes: 512 })
  t.is(await remove(store, data(1)), Code.SUCCESS)
  t.deepEqual(store.list(), [])
})

test('a lane serves thousands of waiting operations without recursion', (t) => {
  const lanes = new Lanes()
  let release: (() => void) | undefined
  lanes.enter(data(1), true, (leave) => {
    release = leave
  })
  let served = 0
  for (let i = 0; i < 50_000; i++) {
    lanes.enter(data(1), i % 3 === 0, (leave) => {
      served++
      leave()
    })
  }
  t.is(served, 0)
  release?.()
  t.is(served, 50_000)
  t.true(lanes.mayWrite(data(1)))
})

test('a sync covers who asked before it started, and nobody who changed something since', (t) => {
  const started: SyncDone[] = []
  const sync = new SharedSync((done) => started.push(done))
  const covered: string[] = []
  const ask = (name: string): void => sync.request(() => covered.push(name))
  sync.touch()
  ask('first')
  ask('clean, joins')
  sync.touch()
  ask('changed')
  ask('changed too')
  t.is(started.length, 1)
  started[0]?.(null)
  t.deepEqual(covered, ['first', 'clean, joins'])
  t.is(started.length, 2)
  started[1]?.(null)
  t.deepEqual(covered.slice(2), ['changed', 'changed too'])
  t.false(sync.busy)
})
