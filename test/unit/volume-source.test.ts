// Names of exports, and volumes shared between their users.
import test from 'ava'
import { Code, type SheepError } from '../../src/base/codes.js'
import { silentLog } from '../../src/base/log.js'
import type { SdTime } from '../../src/model/inode.js'
import { volumeSource } from '../../src/volume/source.js'
import type { Volume } from '../../src/volume/volume.js'
import { FakeCluster } from './support/fake-cluster.js'

const OBJECT = 1 << 20
const TAKEN = (1_700_000_000n << 32n) as SdTime

function sourceOf(cluster: FakeCluster) {
  return volumeSource({ objects: cluster, vdis: cluster, clock: cluster.clock, log: silentLog })
}

const codeOf = async (promise: Promise<unknown>): Promise<Code | undefined> =>
  promise.then(
    () => undefined,
    (error: SheepError) => error.code,
  )

function write(disk: Volume, text: string): Code | undefined {
  let result: Code | undefined
  disk.write(0, Buffer.from(text), false, (code) => {
    result = code
  })
  return result
}

function read(disk: Volume, length: number): string {
  const into = Buffer.alloc(length)
  disk.read(0, into, () => undefined)
  return into.toString()
}

async function withSnapshots(): Promise<FakeCluster> {
  const cluster = new FakeCluster()
  cluster.addVdi('Alice', 2 * OBJECT)
  const disk = await sourceOf(cluster).open('Alice')
  write(disk, 'one')
  await disk.close()
  cluster.snapshot('Alice', 'first')
  return cluster
}

test('a name alone is the working VDI, with a tag or an id a snapshot', async (t) => {
  const cluster = await withSnapshots()
  const source = sourceOf(cluster)
  const working = await source.open('Alice')
  t.false(working.readOnly)
  const byTag = await source.open('Alice@first')
  const byId = await source.open('Alice@1')
  t.true(byTag.readOnly && byId.readOnly)
  t.is(read(byTag, 3) + read(byId, 3), 'oneone')
  t.is((await source.stat('Alice@first')).readOnly, true)
})

test('a working VDI whose name has an @ comes before a snapshot', async (t) => {
  const cluster = await withSnapshots()
  cluster.addVdi('Alice@first', OBJECT)
  const disk = await sourceOf(cluster).open('Alice@first')
  t.false(disk.readOnly)
  t.is(disk.sizeBytes, OBJECT)
})

test('names that mean nothing are refused with the right code', async (t) => {
  const source = sourceOf(await withSnapshots())
  t.is(await codeOf(source.open('Bob')), Code.NO_VDI)
  t.is(await codeOf(source.open('Bob@1')), Code.NO_VDI)
  t.is(await codeOf(source.open('Alice@nope')), Code.NO_TAG)
  t.is(await codeOf(source.stat('Alice@7')), Code.NO_TAG)
  t.is(await codeOf(source.open('Alice@')), Code.NO_TAG)
  t.is(await codeOf(source.open('@first')), Code.NO_VDI)
  t.is(await codeOf(source.open('')), Code.NO_VDI)
  t.is(await codeOf(source.open('x'.repeat(256))), Code.NO_VDI)
})

test('volumes of a kind nobody knows are refused with a clear message and leave no lock', async (t) => {
  const cluster = new FakeCluster()
  const vid = cluster.addVdi('Huge', OBJECT, { storePolicy: 2 })
  const source = sourceOf(cluster)
  const error = await t.throwsAsync(source.open('Huge'))
  t.is((error as SheepError).code, Code.NO_SUPPORT)
  t.regex(error.message, /kind nobody knows/)
  t.is(cluster.vdi(vid).lockedBy, 0)
  t.deepEqual(await source.list(), [])
})

test('an inode with impossible numbers is refused before memory is taken', async (t) => {
  const cluster = new FakeCluster()
  cluster.addVdi('Odd', OBJECT, { blockSizeShift: 60 })
  cluster.addVdi('Long', 2 ** 45, { slots: new Uint32Array(1) })
  const source = sourceOf(cluster)
  t.is(await codeOf(source.open('Odd')), Code.NO_SUPPORT)
  t.is(await codeOf(source.open('Long')), Code.NO_SUPPORT)
})

test('the list names what opens again under that name', async (t) => {
  const cluster = new FakeCluster()
  const family = { snapCtime: TAKEN }
  cluster.addVdi('Alice', OBJECT, { ...family, snapId: 1, tag: 'monday' })
  cluster.addVdi('Alice', OBJECT, { ...family, snapId: 2 })
  cluster.addVdi('Alice', OBJECT, { ...family, snapId: 3, tag: '2024' })
  cluster.addVdi('Alice', OBJECT, { ...family, snapId: 4, tag: 'a@b' })
  cluster.addVdi('Alice', OBJECT, { ...family, snapId: 5, tag: 'twice' })
  cluster.addVdi('Alice', OBJECT, { ...family, snapId: 6, tag: 'twice' })
  cluster.addVdi('Alice', OBJECT, { ...family, snapId: 7, tag: 'other' })
  cluster.addVdi('Alice', OBJECT, { snapId: 8 })
  cluster.addVdi('Alice@other', OBJECT, { copies: 1 })
  cluster.addVdi('Coded', OBJECT, { policy: 0x22, copies: 6 })
  const source = sourceOf(cluster)
  const list = await source.list()
  t.deepEqual(
    list.map(({ name, description }) => [name, description]),
    [
      ['Alice', 'VDI Alice, 3 copies'],
      ['Alice@2', 'snapshot 2 of Alice, taken 2023-11-14 22:13:20 UTC'],
      ['Alice@3', 'snapshot 3 of Alice (2024), taken 2023-11-14 22:13:20 UTC'],
      ['Alice@4', 'snapshot 4 of Alice (a@b), taken 2023-11-14 22:13:20 UTC'],
      ['Alice@5', 'snapshot 5 of Alice (twice), taken 2023-11-14 22:13:20 UTC'],
      ['Alice@6', 'snapshot 6 of Alice (twice), taken 2023-11-14 22:13:20 UTC'],
      ['Alice@7', 'snapshot 7 of Alice (other), taken 2023-11-14 22:13:20 UTC'],
      ['Alice@monday', 'snapshot 1 of Alice (monday), taken 2023-11-14 22:13:20 UTC'],
      ['Alice@other', 'VDI Alice@other, 1 copy'],
      ['Coded', 'VDI Coded, erasure coded 4:2'],
    ],
  )
  for (const { name, description } of list) {
    t.is((await source.stat(name)).description, description)
  }
})

test('opens of one name share a volume and its lock until the last close', async (t) => {
  const cluster = new FakeCluster({ atOnce: 0.5, seed: 7 })
  const vid = cluster.addVdi('Alice', OBJECT)
  cluster.atOnce = 1
  const source = sourceOf(cluster)
  const [a, b] = await Promise.all([source.open('Alice'), source.open('Alice')])
  t.is(cluster.vdi(vid).lockedBy, 1)
  t.is(await codeOf(sourceOf(cluster).open('Alice')), Code.VDI_LOCKED)
  write(a, 'shared')
  t.is(read(b, 6), 'shared')
  await a.close()
  await a.close()
  t.is(cluster.vdi(vid).lockedBy, 1, 'closing one share twice is closing it once')
  t.is(write(a, 'late'), Code.SHUTDOWN)
  t.is(write(b, 'fine'), Code.SUCCESS)
  await b.close()
  t.is(cluster.vdi(vid).lockedBy, 0)
  t.is(cluster.contents(vid, 'stable').toString('latin1', 0, 4), 'fine')
})

test('an open during the last close gets a fresh volume', async (t) => {
  const cluster = new FakeCluster()
  cluster.addVdi('Alice', OBJECT)
  const source = sourceOf(cluster)
  const first = await source.open('Alice')
  const closed = first.close()
  const second = await source.open('Alice')
  await closed
  t.is(write(second, 'x'), Code.SUCCESS)
  t.is(cluster.working('Alice').lockedBy, 1)
  await second.close()
  t.is(cluster.working('Alice').lockedBy, 0)
})

test('an open that failed does not stand in the way of the next', async (t) => {
  const cluster = new FakeCluster()
  const source = sourceOf(cluster)
  t.is(await codeOf(source.open('Alice')), Code.NO_VDI)
  cluster.addVdi('Alice', OBJECT)
  t.is(await codeOf(source.open('Alice')), undefined)
})

test('the last close gives back the lock of the VDI that came out of a snapshot', async (t) => {
  const cluster = new FakeCluster()
  cluster.addVdi('Alice', OBJECT)
  const disk = await sourceOf(cluster).open('Alice')
  cluster.snapshot('Alice', 's1')
  await disk.close()
  t.true([...cluster.vdis.values()].every(({ lockedBy }) => lockedBy === 0))
})

test('a last flush that fails is reported, and the lock is given back all the same', async (t) => {
  const cluster = new FakeCluster()
  const vid = cluster.addVdi('Alice', OBJECT)
  const disk = await sourceOf(cluster).open('Alice')
  cluster.refuse = ({ verb }) => (verb === 'flush' ? { code: Code.EIO, applied: false } : undefined)
  t.is(await codeOf(disk.close()), Code.EIO)
  t.is(cluster.vdi(vid).lockedBy, 0)
})

test('a snapshot refuses every change', async (t) => {
  const source = sourceOf(await withSnapshots())
  const disk = await source.open('Alice@first')
  const codes: Code[] = []
  const note = (code: Code): void => {
    codes.push(code)
  }
  disk.write(0, Buffer.from('x'), false, note)
  disk.zero({ offset: 0, length: 5 }, { fua: false, mayUnmap: true, fastOnly: false }, note)
  disk.discard({ offset: 0, length: OBJECT }, false, note)
  t.deepEqual(codes, [Code.READONLY, Code.READONLY, Code.READONLY])
  t.is(read(disk, 3), 'one')
})

// dog writes a new size into the inode through any node: the others are not told.
test('who shares a volume that has grown unnoticed sees its new size, and uses it', async (t) => {
  const cluster = new FakeCluster()
  cluster.addVdi('Alice', OBJECT)
  const source = sourceOf(cluster)
  const first = await source.open('Alice')
  const { watchers } = cluster.working('Alice')
  const told = [...watchers]
  watchers.clear()
  cluster.grow('Alice', 2 * OBJECT)
  for (const one of told) watchers.add(one)
  t.is(first.sizeBytes, OBJECT)
  const second = await source.open('Alice')
  t.is(second.sizeBytes, 2 * OBJECT)
  t.is(first.sizeBytes, 2 * OBJECT)
  let wrote: Code | undefined
  second.write(OBJECT, Buffer.from('far'), false, (code) => {
    wrote = code
  })
  t.is(wrote, Code.SUCCESS)
})
