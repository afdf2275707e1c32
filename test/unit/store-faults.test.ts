/**
 * Power cuts and failing disks, on a file system in memory that forgets what was not synced. Each step
 * of an operation is made to fail, or the power is cut after it, one run per step.
 */
import test from 'ava'
import { Code, SheepError } from '../../src/base/codes.js'
import { INODE_BYTES } from '../../src/model/oid.js'
import type { FakeFiles, FakeOperation } from './support/fake-files.js'
import { freshFakeStore, META, openFakeStore } from './support/fake-store.js'
import {
  create,
  data,
  flush,
  INODE,
  LEDGER,
  OTHER_VID,
  read,
  remove,
  settle,
  text,
  write,
} from './support/store-calls.js'

const OBJ = `${META}/obj`
/** More operations than any tested call needs. */
const STEPS_MAX = 30

async function temporaries(files: FakeFiles): Promise<string[]> {
  return (await files.readDir(OBJ)).filter((name) => name.endsWith('.tmp'))
}

/** Makes the n-th operation from now on fail, once. Tells whether it came to that. */
function failStep(files: FakeFiles, step: number, errno: string): () => boolean {
  let left = step
  let failed = false
  files.fault = (operation) => {
    // What is done about a failure is tested apart.
    if (operation === 'unlink' || left-- !== 0) return undefined
    failed = true
    return errno
  }
  return () => failed
}

for (const [errno, code] of [
  ['ENOSPC', Code.NO_SPACE],
  ['EDQUOT', Code.NO_SPACE],
  ['EMFILE', Code.NETWORK_ERROR],
  ['EINTR', Code.NETWORK_ERROR],
  ['EROFS', Code.EIO],
] as const) {
  test(`a create that fails with ${errno} at any step leaves the old object and no remains`, async (t) => {
    let step = 0
    for (; step < STEPS_MAX; step++) {
      const { files, store } = await freshFakeStore()
      await create(store, data(1), 'old old')
      const failed = failStep(files, step, errno)
      const result = await create(store, data(1), 'new new')
      if (!failed()) break
      files.fault = () => undefined
      t.is(result, code, `step ${step}`)
      t.deepEqual(await temporaries(files), [])
      const renamed = files.count('rename', /700000001\.tmp$/) === 2
      const syncFailed = files.calls.at(-2)?.operation === 'syncDir'
      t.is(await text(store, data(1), 7), renamed && syncFailed ? 'new new' : 'old old')
      t.is(await create(store, data(1), 'later  '), Code.SUCCESS)
      t.is(await text(store, data(1), 7), 'later  ')
    }
    t.true(step >= 5 && step < STEPS_MAX, `${step} steps`)
  })
}

test('a power cut at any step of a create keeps the old object or has the new one whole', async (t) => {
  for (let step = 0; step < STEPS_MAX; step++) {
    const { files, store } = await freshFakeStore()
    await create(store, data(1), Buffer.alloc(100_000, 'o'))
    let left = step
    // From this operation on nothing completes any more.
    files.hold = () => left-- <= 0
    let outcome: Code | undefined
    void create(store, data(1), Buffer.alloc(100_000, 'n')).then((code) => {
      outcome = code
    })
    await settle()
    files.hold = () => false
    files.crash()
    const again = await openFakeStore(files)
    t.deepEqual(await temporaries(files), [])
    const found = await read(again, data(1), 0, 100_000)
    const letter = typeof found === 'number' ? found : String.fromCharCode(found[0]!)
    t.true(Buffer.alloc(100_000, letter as string).equals(found as Buffer))
    if (outcome !== undefined) {
      t.is(outcome, Code.SUCCESS)
      t.is(letter, 'n')
      t.true(step > 4)
      return
    }
  }
  t.fail('the create never completed')
})

test('an acknowledged create survives a power cut, for every kind of object', async (t) => {
  const { files, store } = await freshFakeStore()
  t.is(await create(store, data(1), 'data'), Code.SUCCESS)
  t.is(await create(store, INODE, 'inode', { bytes: INODE_BYTES }), Code.SUCCESS)
  t.is(await create(store, LEDGER, 'ledger'), Code.SUCCESS)
  files.crash()
  const again = await openFakeStore(files)
  t.is(await text(again, data(1), 4), 'data')
  t.is(await text(again, INODE, 5), 'inode')
  t.is(await text(again, LEDGER, 6), 'ledger')
})

test('what a failed clean-up left is replaced, never taken for the object', async (t) => {
  const { files, store } = await freshFakeStore()
  files.fault = (operation) =>
    operation === 'sync' ? 'EIO' : operation === 'unlink' ? 'EROFS' : undefined
  t.is(await create(store, data(1), 'unfinished'), Code.EIO)
  files.fault = () => undefined
  t.is((await temporaries(files)).length, 1)
  t.false(store.has(data(1)))
  t.is(await read(store, data(1), 0, 1), Code.NO_OBJ)
  t.is(await create(store, data(1), 'finished'), Code.SUCCESS)
  t.is(await text(store, data(1), 10), 'finished\0\0')
  t.deepEqual(await temporaries(files), [])
})

test('a durable write is acknowledged after its sync only, and survives a power cut', async (t) => {
  for (const length of [100, 100_000]) {
    const { files, store } = await freshFakeStore()
    await create(store, data(1), '')
    files.hold = (operation) => operation === 'sync'
    let outcome: Code | undefined
    void write(store, data(1), 0, Buffer.alloc(length, 'd'), true).then((code) => {
      outcome = code
    })
    await settle()
    t.is(outcome, undefined)
    files.hold = () => false
    files.resume()
    await settle()
    t.is(outcome, Code.SUCCESS)
    files.crash()
    const again = await openFakeStore(files)
    t.deepEqual(await read(again, data(1), 0, length), Buffer.alloc(length, 'd'))
  }
})

test('a flushed write survives a power cut, and one of another volume need not', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), '')
  await create(store, data(1, OTHER_VID), '')
  await create(store, INODE, '', { bytes: INODE_BYTES })
  await write(store, data(1), 0, 'mine')
  await write(store, INODE, 0, 'inode')
  await write(store, data(1, OTHER_VID), 0, 'lost')
  t.is(await flush(store), Code.SUCCESS)
  files.crash()
  const again = await openFakeStore(files)
  t.is(await text(again, data(1), 4), 'mine')
  t.is(await text(again, INODE, 5), 'inode')
  t.is(await text(again, data(1, OTHER_VID), 4), '\0\0\0\0')
})

test('a write during a sync is not covered by it', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), '')
  await write(store, data(1), 0, 'first')
  files.hold = (operation) => operation === 'sync'
  const flushed = flush(store)
  await write(store, data(1), 10, 'second')
  const durable = write(store, data(1), 20, 'third', true)
  files.hold = () => false
  files.resume()
  t.is(await flushed, Code.SUCCESS)
  t.is(await durable, Code.SUCCESS)
  files.crash()
  const again = await openFakeStore(files)
  t.is(((await read(again, data(1), 20, 5)) as Buffer).toString(), 'third')
  t.is(((await read(again, data(1), 10, 6)) as Buffer).toString(), 'second')
})

test('durable writes of one object that wait together share a sync', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), '')
  const before = files.count('sync')
  const codes = await Promise.all(
    Array.from({ length: 20 }, (_, i) => write(store, data(1), i * 10, `${i}`, true)),
  )
  t.true(codes.every((code) => code === Code.SUCCESS))
  t.is(files.count('sync') - before, 2)
})

test('creates that wait together share the directory’s syncs', async (t) => {
  const { files, store } = await freshFakeStore()
  const before = files.count('syncDir')
  await Promise.all(Array.from({ length: 50 }, (_, i) => create(store, data(i), 'x')))
  t.true(files.count('syncDir') - before <= 5)
})

test('a failed sync fails that flush and every later one, until the object is created anew', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), '')
  await create(store, data(2), '')
  await write(store, data(1), 0, 'lost')
  await write(store, data(2), 0, 'kept')
  files.fault = (operation, path) =>
    operation === 'sync' && /700000001/.test(path) ? 'EIO' : undefined
  t.is(await flush(store), Code.EIO)
  files.fault = () => undefined
  t.is(await flush(store), Code.EIO)
  t.is(await write(store, data(1), 100, 'more', true), Code.EIO)
  t.is(await flush(store), Code.EIO)
  t.is(await flush(store, OTHER_VID), Code.SUCCESS)
  t.is(await create(store, data(1), 'anew'), Code.SUCCESS)
  t.is(await flush(store), Code.SUCCESS)
})

test('a failed sync of a durable write is never acknowledged', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), '')
  files.fault = (operation) => (operation === 'sync' ? 'EIO' : undefined)
  t.is(await write(store, data(1), 0, 'x', true), Code.EIO)
  t.is(await write(store, data(1), 0, Buffer.alloc(100_000), true), Code.EIO)
  files.fault = () => undefined
  t.is(await flush(store), Code.EIO)
})

test('close reports what could not be made durable', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), '')
  await write(store, data(1), 0, 'x')
  files.fault = (operation) => (operation === 'sync' ? 'EIO' : undefined)
  const error = await t.throwsAsync(store.close(), { instanceOf: SheepError })
  t.is(error?.code, Code.EIO)
  t.is(files.openCount, 0)
})

test('an error of a disk is told to its keeper; a full disk is not', async (t) => {
  const failing: string[] = []
  const { files, store } = await freshFakeStore({ onDiskError: (path) => failing.push(path) })
  await create(store, INODE, '', { bytes: INODE_BYTES })
  files.fault = (operation) => (operation === 'writeNow' ? 'ENOSPC' : undefined)
  t.is(await write(store, INODE, 0, 'x'), Code.NO_SPACE)
  t.deepEqual(failing, [])
  const faulty = new Set<FakeOperation>(['readNow', 'read', 'write', 'writeNow'])
  files.fault = (operation) => (faulty.has(operation) ? 'EIO' : undefined)
  t.is(await read(store, INODE, 0, 1), Code.EIO)
  files.cold = true
  t.is(await read(store, INODE, 0, 1), Code.EIO)
  t.is(await write(store, INODE, 0, 'x'), Code.EIO)
  t.is(await write(store, INODE, 0, Buffer.alloc(100_000, 1)), Code.EIO)
  await t.throwsAsync(store.hash(INODE, 100), { instanceOf: SheepError })
  t.deepEqual(failing, [OBJ, OBJ, OBJ, OBJ, OBJ])
})

test('a directory that vanished is an I/O error, not absent objects', async (t) => {
  const failing: string[] = []
  const { files, store } = await freshFakeStore({ onDiskError: (path) => failing.push(path) })
  await create(store, data(1), 'x')
  await store.close()
  const again = await openFakeStore(files, { onDiskError: (path) => failing.push(path) })
  files.loseDirectory(OBJ)
  t.is(await read(again, data(1), 0, 1), Code.EIO)
  t.is(await create(again, data(2), 'x'), Code.EIO)
  t.is(await remove(again, data(1)), Code.EIO)
  t.deepEqual(failing, [OBJ, OBJ, OBJ])
  t.true(again.has(data(1)))
})

test('a file taken away behind our back is an absent object', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), 'x')
  await store.close()
  const again = await openFakeStore(files)
  await files.unlink(`${OBJ}/00a0390700000001`)
  t.is(await read(again, data(1), 0, 1), Code.NO_OBJ)
  t.false(again.has(data(1)))
})

test('an object that cannot be synced is not set aside, and the caller learns it', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), 'x')
  await create(store, data(2), 'x')
  await write(store, data(1), 0, 'dirty')
  files.fault = (operation) => (operation === 'sync' ? 'EIO' : undefined)
  await t.throwsAsync(
    store.setAside(3, () => true),
    { instanceOf: SheepError },
  )
  t.deepEqual(store.listWorking(), [data(1)])
  t.deepEqual(store.staleEpochs(data(2)), [3])
})

test('objects set aside, dirty ones too, are whole after a power cut', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), '')
  await write(store, data(1), 0, 'dirty')
  await store.setAside(3, () => true)
  files.crash()
  const again = await openFakeStore(files)
  t.deepEqual(again.listWorking(), [])
  const into = Buffer.alloc(5)
  t.is(await again.readStale(data(1), 3, 0, into), Code.SUCCESS)
  t.is(into.toString(), 'dirty')
})

test('a restored copy and a removed ledger stay so after a power cut', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), 'x')
  await create(store, LEDGER, 'x')
  await store.setAside(3, (oid) => oid === data(1))
  t.is(await store.restoreStale(data(1), 3), Code.SUCCESS)
  t.is(await remove(store, LEDGER), Code.SUCCESS)
  files.crash()
  t.deepEqual((await openFakeStore(files)).listWorking(), [data(1)])
})

test('a format that fails says so', async (t) => {
  const { files, store } = await freshFakeStore()
  await create(store, data(1), 'x')
  files.fault = (operation) => (operation === 'unlink' ? 'EIO' : undefined)
  await t.throwsAsync(store.format(), { instanceOf: SheepError })
})

test('without durability nothing is ever synced and everything is acknowledged', async (t) => {
  const { files, store } = await freshFakeStore({ durable: false })
  files.calls.length = 0
  t.is(await create(store, data(1), 'x'), Code.SUCCESS)
  t.is(await write(store, data(1), 0, 'y', true), Code.SUCCESS)
  t.is(await flush(store), Code.SUCCESS)
  await store.setAside(3, () => true)
  await store.close()
  t.is(files.count('sync') + files.count('syncDir'), 0)
})
