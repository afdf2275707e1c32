// One behaviour of a cluster volume each, over the cluster in memory; everything completes at once
// unless a test asks for more.
import { setImmediate as turn } from 'node:timers/promises'
import test from 'ava'
import { Code, SheepError } from '../../src/base/codes.js'
import { silentLog } from '../../src/base/log.js'
import { asVid, dataOid } from '../../src/model/oid.js'
import { volumeSource } from '../../src/volume/source.js'
import type { Volume, ZeroOptions } from '../../src/volume/volume.js'
import { type Call, FakeCluster } from './support/fake-cluster.js'

const OBJECT = 1 << 20

async function opened(sizeBytes = 4 * OBJECT): Promise<{ cluster: FakeCluster; disk: Volume }> {
  const cluster = new FakeCluster()
  cluster.addVdi('Alice', sizeBytes)
  return { cluster, disk: await openAlice(cluster) }
}

function openAlice(cluster: FakeCluster): Promise<Volume> {
  const { clock } = cluster
  return volumeSource({ objects: cluster, vdis: cluster, clock, log: silentLog }).open('Alice')
}

/** Runs what waits until the operation has completed. */
async function outcome(cluster: FakeCluster, start: (done: (code: Code) => void) => void) {
  let code: Code | undefined
  start((result) => {
    code = result
  })
  for (let i = 0; i < 2000 && code === undefined; i++) {
    if (cluster.pending > 0) cluster.step()
    await turn()
  }
  return code
}

const write = (cluster: FakeCluster, disk: Volume, offset: number, data: Buffer, fua = false) =>
  outcome(cluster, (done) => disk.write(offset, data, fua, done))

const zero = (
  cluster: FakeCluster,
  disk: Volume,
  range: { offset: number; length: number },
  options: Partial<ZeroOptions>,
) =>
  outcome(cluster, (done) =>
    disk.zero(range, { fua: false, mayUnmap: false, fastOnly: false, ...options }, done),
  )

async function readBack(cluster: FakeCluster, disk: Volume, offset: number, length: number) {
  const into = Buffer.alloc(length, 0xee)
  const code = await outcome(cluster, (done) => disk.read(offset, into, done))
  return code === Code.SUCCESS ? into : code
}

const verbs = (calls: readonly Call[]): string[] => calls.map(({ verb }) => verb)

test('a hole reads as zeros without asking the cluster', async (t) => {
  const { cluster, disk } = await opened()
  t.deepEqual(await readBack(cluster, disk, OBJECT - 5, 10), Buffer.alloc(10))
  t.deepEqual(cluster.calls, [])
})

test('while the node is not sure of its membership a hole is not vouched for', async (t) => {
  const { cluster, disk } = await opened()
  cluster.sure = false
  const into = Buffer.alloc(10, 0xee)
  let code: Code | undefined
  disk.read(0, into, (result) => {
    code = result
  })
  t.is(code, undefined)
  t.deepEqual(disk.extents({ offset: 0, length: OBJECT }), [{ length: OBJECT, hole: false }])
  cluster.step()
  t.is(code, undefined)
  cluster.sure = true
  cluster.step()
  t.is(code, Code.SUCCESS)
  t.deepEqual(into, Buffer.alloc(10))
  t.deepEqual(disk.extents({ offset: 0, length: OBJECT }), [{ length: OBJECT, hole: true }])
})

test('a write into a hole creates the object, then names it in the slot', async (t) => {
  const { cluster, disk } = await opened()
  t.is(await write(cluster, disk, OBJECT + 7, Buffer.from('hello')), Code.SUCCESS)
  t.deepEqual(verbs(cluster.calls), ['create', 'setSlots'])
  t.deepEqual([...cluster.working('Alice').slots], [0, 1, 0, 0])
  t.deepEqual(await readBack(cluster, disk, OBJECT + 6, 7), Buffer.from('\0hello\0'))
})

test('a request across object borders is served in parts', async (t) => {
  const { cluster, disk } = await opened()
  const data = Buffer.alloc(2 * OBJECT + 20, 0x41)
  t.is(await write(cluster, disk, OBJECT - 10, data), Code.SUCCESS)
  t.deepEqual([...cluster.working('Alice').slots], [1, 1, 1, 1])
  const read = await readBack(cluster, disk, OBJECT - 10, data.length)
  t.true(Buffer.isBuffer(read) && read.equals(data))
})

test('operations wait in order while a slot gets its object', async (t) => {
  const { cluster, disk } = await opened()
  cluster.atOnce = 0
  const ended: string[] = []
  const into = Buffer.alloc(4)
  disk.write(0, Buffer.from('aaaa'), false, () => ended.push('first'))
  disk.write(1, Buffer.from('bb'), false, () => ended.push('second'))
  disk.read(0, into, () => ended.push('read'))
  while (cluster.pending > 0) cluster.step()
  t.deepEqual([...ended].sort(), ['first', 'read', 'second'])
  t.is(ended[0], 'first')
  t.is(cluster.calls.filter(({ verb }) => verb === 'create').length, 1)
  t.is(into.toString(), 'abba')
})

test('a write with FUA makes durable the slot that an earlier one without set', async (t) => {
  const { cluster, disk } = await opened()
  await write(cluster, disk, 0, Buffer.from('one'))
  await write(cluster, disk, 3, Buffer.from('two'), true)
  const { vid } = cluster.working('Alice').header
  t.is(cluster.contents(vid, 'stable').toString('latin1', 3, 6), 'two')
  cluster.calls.length = 0
  await write(cluster, disk, 3, Buffer.from('six'), true)
  t.deepEqual(verbs(cluster.calls), ['write'], 'once is enough')
})

test('a flush that failed settles nothing', async (t) => {
  const { cluster, disk } = await opened()
  await write(cluster, disk, 0, Buffer.from('one'))
  cluster.refuse = ({ verb }) => (verb === 'flush' ? { code: Code.EIO, applied: false } : undefined)
  t.is(await outcome(cluster, (done) => disk.flush(done)), Code.EIO)
  await write(cluster, disk, 3, Buffer.from('two'), true)
  const { vid } = cluster.working('Alice').header
  t.is(cluster.contents(vid, 'stable').toString('latin1', 3, 6), 'two')
})

test('a flush covers writes that went to a VDI which is a snapshot by now', async (t) => {
  const { cluster, disk } = await opened()
  await write(cluster, disk, 0, Buffer.from('zzz'))
  await write(cluster, disk, 0, Buffer.from('old'))
  cluster.snapshot('Alice', 's1')
  await write(cluster, disk, OBJECT, Buffer.from('new'))
  t.is(await outcome(cluster, (done) => disk.flush(done)), Code.SUCCESS)
  const stable = cluster.contents(cluster.working('Alice').header.vid, 'stable')
  t.is(stable.toString('latin1', 0, 3), 'old')
  t.is(stable.toString('latin1', OBJECT, OBJECT + 3), 'new')
})

test('flushes that have not begun share one', async (t) => {
  const { cluster, disk } = await opened()
  cluster.atOnce = 0
  let ended = 0
  for (let i = 0; i < 5; i++) disk.flush(() => ended++)
  while (cluster.pending > 0) cluster.step()
  t.is(ended, 5)
  t.is(cluster.calls.filter(({ verb }) => verb === 'flush').length, 2)
})

test('after a snapshot a write copies the object and the snapshot keeps its own', async (t) => {
  const { cluster, disk } = await opened()
  await write(cluster, disk, 0, Buffer.from('before'))
  cluster.snapshot('Alice', 's1')
  t.is(await write(cluster, disk, 2, Buffer.from('XX')), Code.SUCCESS)
  t.is(cluster.contents(asVid(1)).toString('latin1', 0, 6), 'before')
  t.is(cluster.contents(asVid(2)).toString('latin1', 0, 6), 'beXXre')
  t.deepEqual(cluster.violations, [])
})

test('a snapshot that waits for a change to end is followed once it is there', async (t) => {
  const { cluster, disk } = await opened()
  cluster.atOnce = 0
  const first = outcome(cluster, (done) => disk.write(0, Buffer.from('a'), false, done))
  cluster.snapshot('Alice', 's1')
  t.is(await first, Code.SUCCESS)
  t.is(await write(cluster, disk, OBJECT, Buffer.from('b')), Code.SUCCESS)
  t.deepEqual([...cluster.working('Alice').slots], [1, 2, 0, 0])
})

test('writes fail with NO_VDI when the VDI was deleted', async (t) => {
  const { cluster, disk } = await opened()
  await write(cluster, disk, 0, Buffer.from('a'))
  cluster.removeVdi(asVid(1))
  t.is(await write(cluster, disk, 0, Buffer.from('b')), Code.NO_VDI)
})

test('a new VDI of the same name never gets the writes meant for the old one', async (t) => {
  const { cluster, disk } = await opened()
  cluster.removeVdi(asVid(1))
  cluster.addVdi('Alice', 4 * OBJECT)
  t.is(await write(cluster, disk, 0, Buffer.from('b')), Code.NO_VDI)
  t.deepEqual([...cluster.working('Alice').slots], [0, 0, 0, 0])
})

test('a successor that never appears fails what waits for it', async (t) => {
  const { cluster, disk } = await opened()
  cluster.vdi(asVid(1)).isSnapshot = true
  cluster.find = () => Promise.resolve(asVid(1))
  t.is(await write(cluster, disk, 0, Buffer.from('b')), Code.READONLY)
})

test('a create that fails leaves the hole a hole', async (t) => {
  const { cluster, disk } = await opened()
  cluster.refuse = ({ verb }) =>
    verb === 'create' ? { code: Code.NO_SPACE, applied: false } : undefined
  t.is(await write(cluster, disk, 0, Buffer.from('b')), Code.NO_SPACE)
  cluster.refuse = undefined
  t.deepEqual(disk.extents({ offset: 0, length: OBJECT }), [{ length: OBJECT, hole: true }])
  t.is(await write(cluster, disk, 0, Buffer.from('c')), Code.SUCCESS)
})

for (const applied of [true, false]) {
  const what = applied ? 'happened' : 'did not happen'
  test(`a slot update that failed and ${what} is looked up before it is relied on`, async (t) => {
    const { cluster, disk } = await opened()
    await write(cluster, disk, 0, Buffer.from('base'))
    cluster.snapshot('Alice', 's1')
    cluster.refuse = ({ verb }) => (verb === 'setSlots' ? { code: Code.EIO, applied } : undefined)
    t.is(await write(cluster, disk, 0, Buffer.from('f')), Code.EIO)
    cluster.refuse = undefined
    t.is(await write(cluster, disk, 1, Buffer.from('OK')), Code.SUCCESS)
    const read = await readBack(cluster, disk, 0, 4)
    t.is(String(read), applied ? 'fOKe' : 'bOKe')
    t.deepEqual(cluster.violations, [])
  })
}

test('while the slots are in doubt and cannot be read nothing is served', async (t) => {
  const { cluster, disk } = await opened()
  cluster.refuse = ({ verb }) =>
    verb === 'setSlots' ? { code: Code.EIO, applied: true } : undefined
  const { readSlots } = cluster
  cluster.readSlots = () => Promise.reject(new SheepError(Code.NETWORK_ERROR))
  t.is(await write(cluster, disk, 0, Buffer.from('f')), Code.EIO)
  t.is(await readBack(cluster, disk, 0, 4), Code.NETWORK_ERROR)
  t.deepEqual(disk.extents({ offset: 0, length: 9 }), [{ length: 9, hole: false }])
  cluster.readSlots = readSlots
  t.deepEqual(await readBack(cluster, disk, 0, 2), Buffer.from('f\0'))
})

test('zeroing whole objects with unmap empties their slots in one update', async (t) => {
  const { cluster, disk } = await opened(4 * OBJECT + 100)
  await write(cluster, disk, 0, Buffer.alloc(disk.sizeBytes, 1))
  cluster.calls.length = 0
  const range = { offset: OBJECT, length: 3 * OBJECT + 100 }
  t.is(await zero(cluster, disk, range, { mayUnmap: true, fastOnly: true }), Code.SUCCESS)
  t.deepEqual(verbs(cluster.calls), ['setSlots'])
  t.deepEqual([...cluster.working('Alice').slots], [1, 0, 0, 0, 0])
  t.deepEqual(cluster.leaked(), [])
  t.deepEqual(cluster.calls[0]?.update?.previous, Uint32Array.of(1, 1, 1, 1))
})

test('big unmaps are cut into bounded updates of the inode', async (t) => {
  const { cluster, disk } = await opened(2500 * OBJECT)
  const slots = [3, 1030, 2499]
  for (const slot of slots) await write(cluster, disk, slot * OBJECT, Buffer.from('x'))
  cluster.calls.length = 0
  const whole = { offset: 0, length: disk.sizeBytes }
  t.is(await outcome(cluster, (done) => disk.discard(whole, true, done)), Code.SUCCESS)
  t.deepEqual(verbs(cluster.calls), ['setSlots', 'setSlots', 'setSlots'])
  t.true(cluster.calls.every(({ durable }) => durable))
  t.true(cluster.working('Alice').slots.every((slot) => slot === 0))
})

test('zeroing without unmap leaves everything allocated', async (t) => {
  const { cluster, disk } = await opened()
  await write(cluster, disk, 0, Buffer.from('own'))
  cluster.snapshot('Alice', 's1')
  await write(cluster, disk, OBJECT, Buffer.from('own'))
  cluster.calls.length = 0
  t.is(await zero(cluster, disk, { offset: 0, length: 3 * OBJECT + 1 }, {}), Code.SUCCESS)
  t.deepEqual([...cluster.working('Alice').slots], [2, 2, 2, 2])
  t.deepEqual(disk.extents({ offset: 0, length: 4 * OBJECT }), [
    { length: 4 * OBJECT, hole: false },
  ])
  t.true(cluster.contents(asVid(2)).equals(Buffer.alloc(4 * OBJECT)))
  t.is(cluster.contents(asVid(1)).toString('latin1', 0, 3), 'own')
})

test('a fast zero is refused unless slots are all it takes', async (t) => {
  const { cluster, disk } = await opened()
  await write(cluster, disk, 0, Buffer.from('x'))
  const fast = { fastOnly: true, mayUnmap: true }
  const across = { offset: 100, length: OBJECT }
  t.is(await zero(cluster, disk, across, fast), Code.NO_SUPPORT)
  t.is(await zero(cluster, disk, { offset: OBJECT + 1, length: OBJECT }, fast), Code.SUCCESS)
  const allocate = { fastOnly: true, mayUnmap: false }
  t.is(await zero(cluster, disk, { offset: 0, length: OBJECT }, allocate), Code.NO_SUPPORT)
  t.is(String(await readBack(cluster, disk, 0, 1)), 'x')
})

test('a discard leaves what it covers only in part', async (t) => {
  const { cluster, disk } = await opened()
  await write(cluster, disk, 0, Buffer.alloc(4 * OBJECT, 7))
  const range = { offset: 1, length: 3 * OBJECT }
  t.is(await outcome(cluster, (done) => disk.discard(range, false, done)), Code.SUCCESS)
  t.deepEqual(disk.extents({ offset: 0, length: 4 * OBJECT }), [
    { length: OBJECT, hole: false },
    { length: 2 * OBJECT, hole: true },
    { length: OBJECT, hole: false },
  ])
  t.deepEqual(await readBack(cluster, disk, OBJECT - 1, 2), Buffer.from([7, 0]))
})

test('an unmap waits for the reads in flight on its object', async (t) => {
  const { cluster, disk } = await opened()
  await write(cluster, disk, 0, Buffer.from('x'))
  cluster.atOnce = 0
  cluster.calls.length = 0
  const codes: Code[] = []
  disk.read(0, Buffer.alloc(1), (code) => codes.push(code))
  disk.discard({ offset: 0, length: OBJECT }, false, (code) => codes.push(code))
  while (cluster.pending > 0) cluster.step()
  t.deepEqual(verbs(cluster.calls), ['read', 'setSlots'])
  t.deepEqual(codes, [Code.SUCCESS, Code.SUCCESS])
  t.is(cluster.objects.has(dataOid(asVid(1), 0)), false)
})

test('a VDI that grows gets more slots, and keeps its data', async (t) => {
  const { cluster, disk } = await opened(OBJECT + 5)
  await write(cluster, disk, OBJECT, Buffer.from('tail'))
  cluster.snapshot('Alice', 's1')
  cluster.grow('Alice', 3 * OBJECT)
  await write(cluster, disk, 0, Buffer.from('a'))
  t.is(disk.sizeBytes, 3 * OBJECT)
  t.is(await write(cluster, disk, 2 * OBJECT, Buffer.from('far')), Code.SUCCESS)
  t.is(String(await readBack(cluster, disk, OBJECT, 4)), 'tail')
  t.is(String(await readBack(cluster, disk, 2 * OBJECT, 3)), 'far')
})

test('growth is noticed after a snapshot was followed', async (t) => {
  const { cluster, disk } = await opened(OBJECT)
  cluster.snapshot('Alice', 's1')
  await write(cluster, disk, 0, Buffer.from('a'))
  cluster.grow('Alice', 2 * OBJECT)
  for (let i = 0; i < 20; i++) await turn()
  t.is(disk.sizeBytes, 2 * OBJECT)
})

test('a write that meets a snapshot while the volume is closed fails', async (t) => {
  const { cluster, disk } = await opened()
  await write(cluster, disk, 0, Buffer.from('a'))
  let answer: ((code: Code) => void) | undefined
  cluster.write = (_ref, _offset, _data, _durable, done) => {
    answer = done
  }
  const late = write(cluster, disk, 0, Buffer.from('b'))
  await disk.close()
  answer?.(Code.READONLY)
  t.is(await late, Code.SHUTDOWN)
})

test('growth is noticed without any write', async (t) => {
  const { cluster, disk } = await opened(OBJECT)
  cluster.grow('Alice', 2 * OBJECT)
  for (let i = 0; i < 20; i++) await turn()
  t.is(disk.sizeBytes, 2 * OBJECT)
})
