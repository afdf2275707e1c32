/**
 * What every ObjectStore must do, whatever is below it. `open` gives an empty store; `reopen` closes it
 * in order and opens it again on the same disks.
 */
import { createHash } from 'node:crypto'
import test, { type ExecutionContext } from 'ava'
import { Code } from '../../../src/base/codes.js'
import { fragmentId, INODE_BYTES, inodeOid, type Oid } from '../../../src/model/oid.js'
import type { ObjectStore } from '../../../src/store/object-store.js'
import {
  create,
  data,
  flush,
  INODE,
  LEDGER,
  OBJECT_BYTES,
  OTHER_VID,
  read,
  remove,
  text,
  VID,
  write,
} from './store-calls.js'

export interface StoreUnderTest {
  readonly store: ObjectStore
  reopen(): Promise<ObjectStore>
  dispose(): Promise<void>
}

type Body = (t: ExecutionContext, subject: StoreUnderTest) => Promise<void>

const CASES: Readonly<Record<string, Body>> = {
  'an absent object is NO_OBJ to everybody': async (t, { store }) => {
    t.is(await read(store, data(1), 0, 8), Code.NO_OBJ)
    t.is(await write(store, data(1), 0, 'x'), Code.NO_OBJ)
    t.is(await remove(store, data(1)), Code.NO_OBJ)
    t.is(await store.hash(data(1), OBJECT_BYTES), undefined)
    t.is(await store.hashStale(data(1), 1, OBJECT_BYTES), undefined)
    t.is(await store.readStale(data(1), 1, 0, Buffer.alloc(1)), Code.NO_OBJ)
    t.is(await store.restoreStale(data(1), 1), Code.NO_OBJ)
    t.false(store.has(data(1)))
  },

  'a created object has its content and zeros elsewhere': async (t, { store }) => {
    t.is(await create(store, data(1), 'hello', { offset: 10_000 }), Code.SUCCESS)
    t.true(store.has(data(1)))
    const found = (await read(store, data(1), 9_990, 30)) as Buffer
    const wanted = Buffer.alloc(30)
    wanted.write('hello', 10)
    t.deepEqual(found, wanted)
    t.deepEqual(await read(store, data(1), OBJECT_BYTES - 5, 10), Buffer.alloc(10))
  },

  'an object made of pieces is there as a whole or not at all': async (t, { store, reopen }) => {
    await create(store, data(1), Buffer.alloc(OBJECT_BYTES, 1))
    const made = await store.assemble(data(1), OBJECT_BYTES)
    const other = await store.assemble(data(1), OBJECT_BYTES)
    if (typeof made === 'number' || typeof other === 'number') return t.fail()
    t.is(await made.write(OBJECT_BYTES - 3, Buffer.from('end')), Code.SUCCESS)
    t.is(await other.write(0, Buffer.from('other')), Code.SUCCESS)
    t.is(await made.write(OBJECT_BYTES - 2, Buffer.from('end')), Code.INVALID_PARMS)
    t.is(((await read(store, data(1), 0, 1)) as Buffer)[0], 1)
    t.is(await other.finish(() => false), Code.NETWORK_ERROR)
    t.is(((await read(store, data(1), 0, 1)) as Buffer)[0], 1)
    t.is(await made.finish(() => true), Code.SUCCESS)
    const wanted = Buffer.alloc(OBJECT_BYTES)
    wanted.write('end', OBJECT_BYTES - 3)
    t.true(wanted.equals((await read(store, data(1), 0, OBJECT_BYTES)) as Buffer))
    const left = await store.assemble(data(2), OBJECT_BYTES)
    if (typeof left === 'number') return t.fail()
    await left.abandon()
    const again = await reopen()
    t.false(again.has(data(2)))
    t.true(wanted.equals((await read(again, data(1), 0, OBJECT_BYTES)) as Buffer))
  },

  'a create over an object replaces all of it': async (t, { store }) => {
    await create(store, data(1), Buffer.alloc(OBJECT_BYTES, 1))
    t.is(await create(store, data(1), Buffer.alloc(10, 2), { offset: 5 }), Code.SUCCESS)
    const wanted = Buffer.alloc(OBJECT_BYTES)
    wanted.fill(2, 5, 15)
    t.true(wanted.equals((await read(store, data(1), 0, OBJECT_BYTES)) as Buffer))
  },

  'writes of all sizes and alignments are read back': async (t, { store }) => {
    const model = Buffer.alloc(OBJECT_BYTES)
    await create(store, data(1), '')
    const lengths = [1, 511, 512, 4096, 4097, 65_536, 65_537, 1_000_001]
    for (const [i, length] of lengths.entries()) {
      const offset = (i * 524_287) % (OBJECT_BYTES - length)
      const piece = Buffer.alloc(length, i + 1)
      piece.copy(model, offset)
      t.is(await write(store, data(1), offset, piece, i % 2 === 0), Code.SUCCESS)
    }
    t.true(model.equals((await read(store, data(1), 0, OBJECT_BYTES)) as Buffer))
  },

  'inodes and ledgers with zeros in the middle keep every byte': async (t, { store }) => {
    const content = Buffer.alloc(INODE_BYTES)
    content.write('alice', 0)
    content.fill(7, 4_300_000, 4_300_100)
    content.fill(9, INODE_BYTES - 3)
    t.is(await create(store, INODE, content, { bytes: INODE_BYTES }), Code.SUCCESS)
    t.true(content.equals((await read(store, INODE, 0, INODE_BYTES)) as Buffer))
    const erased = Buffer.alloc(INODE_BYTES - 4664)
    erased.fill(5, 200_000, 200_010)
    t.is(await write(store, INODE, 4664, erased), Code.SUCCESS)
    erased.copy(content, 4664)
    t.true(content.equals((await read(store, INODE, 0, INODE_BYTES)) as Buffer))
    t.is(await create(store, LEDGER, Buffer.alloc(OBJECT_BYTES)), Code.SUCCESS)
    t.deepEqual(await read(store, LEDGER, 4096, 8), Buffer.alloc(8))
  },

  'offsets that are no offsets are refused': async (t, { store }) => {
    await create(store, data(1), 'x')
    for (const offset of [-1, 0.5, Number.NaN, 2 ** 53]) {
      t.is(await read(store, data(1), offset, 1), Code.INVALID_PARMS)
      t.is(await write(store, data(1), offset, 'y'), Code.INVALID_PARMS)
      t.is(await create(store, data(1), 'y', { offset }), Code.INVALID_PARMS)
    }
    t.is(await create(store, data(1), 'too long', { bytes: 4 }), Code.INVALID_PARMS)
    t.is(await text(store, data(1), 1), 'x')
  },

  'a removed object is gone, also after a restart': async (t, subject) => {
    await create(subject.store, data(1), 'x')
    await create(subject.store, data(2), 'y')
    t.is(await remove(subject.store, data(1)), Code.SUCCESS)
    t.is(await remove(subject.store, data(1)), Code.NO_OBJ)
    const again = await subject.reopen()
    t.deepEqual(again.list(), [data(2)])
  },

  'lists are ascending and unsigned': async (t, { store }) => {
    for (const oid of [INODE, data(3), LEDGER, data(1), inodeOid(OTHER_VID)]) {
      await create(store, oid, 'x')
    }
    const wanted = [data(1), data(3), LEDGER, inodeOid(OTHER_VID), INODE]
    t.deepEqual(store.list(), wanted)
    t.deepEqual(store.listWorking(), wanted)
  },

  'a flush covers one volume and a clean one has nothing to do': async (t, { store }) => {
    await create(store, data(1), 'x')
    await write(store, data(1), 0, 'y')
    t.is(await flush(store, OTHER_VID), Code.SUCCESS)
    t.is(await flush(store, VID), Code.SUCCESS)
    t.is(await flush(store, VID), Code.SUCCESS)
    await store.syncAll()
  },

  'the hash is the SHA-1 of the nominal bytes': async (t, { store }) => {
    await create(store, data(1), 'abc', { bytes: 100 })
    const wanted = Buffer.alloc(3_000_000)
    wanted.write('abc')
    const sha1 = createHash('sha1').update(wanted).digest()
    t.deepEqual(await store.hash(data(1), wanted.length), sha1)
    t.not(await store.hash(data(1), wanted.length - 1), sha1)
  },

  'objects set aside are stale, by epoch, and survive a restart': async (t, subject) => {
    for (const i of [1, 2, 3]) await create(subject.store, data(i), `object ${i}`)
    await subject.store.setAside(7, (oid) => oid !== data(2))
    await create(subject.store, data(1), 'object A')
    await subject.store.setAside(9, (oid) => oid === data(1))
    await onBoth(subject, async (store) => {
      t.deepEqual(store.listWorking(), [data(2)])
      t.deepEqual(store.list(), [data(1), data(2), data(3)])
      t.deepEqual(store.staleEpochs(data(1)), [9, 7])
      const into = Buffer.alloc(8)
      t.is(await store.readStale(data(1), 7, 0, into), Code.SUCCESS)
      t.is(into.toString(), 'object 1')
      t.is(await store.readStale(data(1), 9, 0, into), Code.SUCCESS)
      t.is(into.toString(), 'object A')
      t.is(await store.readStale(data(1), 8, 0, into), Code.NO_OBJ)
      t.is(await read(store, data(1), 0, 8), Code.NO_OBJ)
    })
  },

  'a stale copy is restored with its content and can then be written': async (t, subject) => {
    const { store } = subject
    await create(store, data(1), 'object 1')
    const hash = await store.hash(data(1), OBJECT_BYTES)
    await store.setAside(7, () => true)
    t.deepEqual(await store.hashStale(data(1), 7, OBJECT_BYTES), hash)
    t.is(await store.restoreStale(data(1), 6), Code.NO_OBJ)
    t.is(await store.restoreStale(data(1), 7), Code.SUCCESS)
    t.is(await store.restoreStale(data(1), 7), Code.SUCCESS)
    t.deepEqual(await store.hash(data(1), OBJECT_BYTES), hash)
    t.is(await write(store, data(1), 0, 'OBJECT'), Code.SUCCESS)
    await store.purgeStale()
    t.deepEqual(store.staleEpochs(data(1)), [])
    const again = await subject.reopen()
    t.is(await text(again, data(1), 8), 'OBJECT 1')
  },

  'setting aside again in the epoch of a restored copy leaves one name': async (t, subject) => {
    await create(subject.store, data(1), 'x')
    await subject.store.setAside(7, () => true)
    await subject.store.restoreStale(data(1), 7)
    await subject.store.setAside(7, () => true)
    const again = await subject.reopen()
    t.deepEqual(again.listWorking(), [])
    t.deepEqual(again.staleEpochs(data(1)), [7])
  },

  'a restore does not replace a working object': async (t, { store }) => {
    await create(store, data(1), 'old')
    await store.setAside(7, () => true)
    await create(store, data(1), 'new')
    t.is(await store.restoreStale(data(1), 7), Code.SUCCESS)
    t.is(await text(store, data(1), 3), 'new')
  },

  'purging spares what is set aside while it runs': async (t, { store }) => {
    await create(store, data(1), 'one')
    await create(store, data(2), 'two')
    await store.setAside(7, (oid) => oid === data(1))
    await Promise.all([store.purgeStale(), store.setAside(8, () => true)])
    t.deepEqual(store.staleEpochs(data(1)), [])
    t.deepEqual(store.staleEpochs(data(2)), [8])
    t.is(await store.readStale(data(2), 8, 0, Buffer.alloc(3)), Code.SUCCESS)
  },

  'many objects are set aside and purged completely': async (t, subject) => {
    const oids: Oid[] = []
    for (let i = 0; i < 200; i++) oids.push(data(i))
    await Promise.all(oids.map((oid) => create(subject.store, oid, 'x', { bytes: 512 })))
    await subject.store.setAside(3, (oid) => oid !== data(5))
    t.deepEqual(subject.store.listWorking(), [data(5)])
    t.is(subject.store.list().length, 200)
    await subject.store.purgeStale()
    const again = await subject.reopen()
    t.deepEqual(again.list(), [data(5)])
  },

  'a format leaves nothing, also after a restart': async (t, subject) => {
    const { store } = subject
    await create(store, data(1), 'x')
    await create(store, data(2), 'x')
    await create(store, data(3), 'x', { fragment: 2 })
    await store.setAside(7, (oid) => oid === data(2))
    const creating = create(store, data(4), 'x')
    await store.format()
    t.is(await creating, Code.SUCCESS)
    t.deepEqual(store.list(), [])
    t.is(await read(store, data(1), 0, 1), Code.NO_OBJ)
    t.is(await create(store, data(9), 'new'), Code.SUCCESS)
    const again = await subject.reopen()
    t.deepEqual(again.list(), [data(9)])
    t.deepEqual(again.staleEpochs(data(2)), [])
  },

  'a fragment is an object of its own, listed under the one it is of': async (t, subject) => {
    const piece = fragmentId(data(1), 2)
    const other = fragmentId(data(1), 30)
    await create(subject.store, data(1), 'piece', { fragment: 2, bytes: 512 })
    await create(subject.store, data(1), 'other', { fragment: 30, bytes: 512 })
    t.is(await write(subject.store, piece, 1, 'I', true), Code.SUCCESS)
    await onBoth(subject, async (store) => {
      t.deepEqual(store.list(), [data(1)])
      t.deepEqual(store.listWorking(), [])
      t.deepEqual(store.piecesOf(data(1)), [piece, other])
      t.deepEqual(store.piecesOf(data(2)), [])
      t.false(store.has(data(1)))
      t.true(store.has(piece))
      t.is(await read(store, data(1), 0, 5), Code.NO_OBJ)
      t.is(await text(store, piece, 5), 'pIece')
      t.is(await text(store, other, 5), 'other')
      t.is(await flush(store, VID), Code.SUCCESS)
    })
  },

  'a fragment is set aside, restored and removed by its index': async (t, subject) => {
    const { store } = subject
    const [piece, other] = [fragmentId(data(1), 0), fragmentId(data(1), 1)]
    await create(store, data(1), 'piece', { fragment: 0, bytes: 512 })
    await create(store, data(1), 'other', { fragment: 1, bytes: 512 })
    await store.setAside(7, (id) => id === piece)
    t.deepEqual(store.staleEpochs(piece), [7])
    t.deepEqual(store.staleEpochs(other), [])
    t.true(store.has(other))
    t.is(await remove(store, other), Code.SUCCESS)
    t.deepEqual(store.piecesOf(data(1)), [piece])
    t.is(await store.restoreStale(piece, 7), Code.SUCCESS)
    const again = await subject.reopen()
    t.is(await text(again, piece, 5), 'piece')
    t.is(await remove(again, piece), Code.SUCCESS)
    t.deepEqual(again.piecesOf(data(1)), [])
  },

  'space grows by a create and shrinks by a remove': async (t, { store }) => {
    const before = store.space()
    await create(store, data(1), 'x')
    const after = store.space()
    t.true(after.usedBytes >= before.usedBytes + OBJECT_BYTES)
    t.is(after.totalBytes, after.usedBytes + after.freeBytes)
    await remove(store, data(1))
    t.is(store.space().usedBytes, before.usedBytes)
    t.is(store.disks().length, 1)
  },

  'operations issued without waiting take effect in order': async (t, { store }) => {
    const big = Buffer.alloc(200_000, 2)
    const codes = Promise.all([
      create(store, data(1), Buffer.alloc(200_000, 1)),
      write(store, data(1), 0, big),
      write(store, data(1), 0, 'small'),
      write(store, data(1), 100_000, big, true),
    ])
    const middle = read(store, data(1), 0, 6)
    const removed = remove(store, data(1))
    const late = read(store, data(1), 0, 6)
    t.deepEqual(await codes, [0, 0, 0, 0])
    t.deepEqual(await middle, Buffer.concat([Buffer.from('small'), Buffer.from([2])]))
    t.is(await removed, Code.SUCCESS)
    t.is(await late, Code.NO_OBJ)
  },

  'a closed store answers SHUTDOWN': async (t, { store }) => {
    await create(store, data(1), 'x')
    await write(store, data(1), 0, 'y')
    await store.close()
    t.is(await read(store, data(1), 0, 1), Code.SHUTDOWN)
    t.is(await write(store, data(1), 0, 'z'), Code.SHUTDOWN)
    t.is(await create(store, data(2), 'z'), Code.SHUTDOWN)
    t.is(await remove(store, data(1)), Code.SHUTDOWN)
  },
}

/** What holds now must hold after a restart. */
async function onBoth(
  subject: StoreUnderTest,
  check: (store: ObjectStore) => Promise<void>,
): Promise<void> {
  await check(subject.store)
  await check(await subject.reopen())
}

export function objectStoreSuite(name: string, open: () => Promise<StoreUnderTest>): void {
  for (const [behaviour, body] of Object.entries(CASES)) {
    test(`${name}: ${behaviour}`, async (t) => {
      const subject = await open()
      try {
        await body(t, subject)
      } finally {
        await subject.dispose()
      }
    })
  }
}
