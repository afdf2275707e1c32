// The parts of the object cache by themselves: blocks, what is noted as dirty, the order of pushes, the budget, and a
// disk that fails under it.
import test, { type ExecutionContext } from 'ava'
import { Code, type Done } from '../../src/base/codes.js'
import { silentLog } from '../../src/base/log.js'
import type { ObjectRef } from '../../src/model/access.js'
import { asVid, dataOid, oidIndex } from '../../src/model/oid.js'
import { BlockSet, blockBytesOf, blocksTouched } from '../../src/sheep/cache/blocks.js'
import { CachedVolume } from '../../src/sheep/cache/cached-volume.js'
import { DirtyFile, readDirty } from '../../src/sheep/cache/dirty-file.js'
import { ObjectCache } from '../../src/sheep/cache/object-cache.js'
import { FakeFiles } from './support/fake-files.js'
import { VirtualClock } from './support/virtual-clock.js'

const OBJECT = 1 << 20
const BLOCK = OBJECT / 64
const VID = asVid(0xabc)
const HEAD = { ctime: 5n, epoch: 7, blockSizeShift: 20 }

/** Owners that keep objects in memory, and hold writes back on demand. */
class Owners {
  readonly objects = new Map<number, Buffer>()
  /** Writes in the order they came, as `object:offset+length`. */
  readonly writes: string[] = []
  readonly reads: string[] = []
  held: (() => void)[] | undefined
  result: Code = Code.SUCCESS

  readonly ref = (oid: ReturnType<typeof dataOid>): ObjectRef => ({ oid })

  readonly read = (ref: ObjectRef, offset: number, into: Uint8Array, done: Done): void => {
    const object = this.objects.get(oidIndex(ref.oid))
    this.reads.push(`${oidIndex(ref.oid)}:${offset}+${into.length}`)
    if (object === undefined) {
      done(Code.NO_OBJ)
      return
    }
    into.set(object.subarray(offset, offset + into.length))
    setImmediate(() => done(Code.SUCCESS))
  }

  readonly write = (
    ref: ObjectRef,
    offset: number,
    data: Uint8Array,
    durable: boolean,
    done: Done,
  ): void => {
    const index = oidIndex(ref.oid)
    this.writes.push(`${index}:${offset}+${data.length}${durable ? ' durable' : ''}`)
    const act = (): void => {
      if (this.result === Code.SUCCESS) this.objects.get(index)!.set(data, offset)
      done(this.result)
    }
    if (this.held === undefined) setImmediate(act)
    else this.held.push(act)
  }
}

async function made(t: ExecutionContext, sizeBytes = 16 * OBJECT, objects = 4, directio = false) {
  const files = new FakeFiles()
  const owners = new Owners()
  const clock = new VirtualClock()
  const options = { sizeBytes, directory: '/ssd', directio, boot: 'one' }
  for (let i = 0; i < objects; i++) owners.objects.set(i, Buffer.alloc(OBJECT, 1))
  const cache = new ObjectCache(options, { files, log: silentLog })
  const open = () =>
    CachedVolume.open({
      ...{ vid: VID, cache, backing: owners, clock, log: silentLog, head: HEAD },
    })
  const volume = await open()
  t.teardown(() => volume.close())
  return { files, owners, clock, cache, options, volume }
}

type Made = Awaited<ReturnType<typeof made>>

function put({ volume }: Made, at: number, data: Buffer, durable = false): Promise<Code> {
  const ref = { oid: dataOid(VID, Math.floor(at / OBJECT)) }
  return new Promise((resolve) => volume.write(ref, at % OBJECT, data, durable, resolve))
}

async function get({ volume }: Made, at: number, length = 512): Promise<Buffer | Code> {
  const into = Buffer.alloc(length)
  const ref = { oid: dataOid(VID, Math.floor(at / OBJECT)) }
  const code = await new Promise<Code>((resolve) =>
    volume.read(ref, at % OBJECT, into, true, resolve),
  )
  return code === Code.SUCCESS ? into : code
}

const of = (value: number, length = 512): Buffer => Buffer.alloc(length, value)

/** Turns of the event loop until it holds; false when it does not come to that. */
async function soon(holds: () => boolean): Promise<boolean> {
  for (let i = 0; i < 1000 && !holds(); i++) await new Promise((resolve) => setImmediate(resolve))
  return holds()
}

test('an object has 64 blocks of whole pages, whatever its size', (t) => {
  t.is(blockBytesOf(4 << 20), 65536)
  t.is(blockBytesOf(1 << 20), 16384)
  t.is(blockBytesOf(100_000), 4096)
  t.deepEqual(blocksTouched(BLOCK - 1, 2, BLOCK), { first: 0, end: 2 })
  t.deepEqual(blocksTouched(BLOCK, BLOCK, BLOCK), { first: 1, end: 2 })
  t.deepEqual(blocksTouched(5 * BLOCK, 0, BLOCK), { first: 5, end: 5 })
  const set = new BlockSet()
  set.add({ first: 0, end: 64 })
  set.delete({ first: 7, end: 9 })
  t.deepEqual(set.runs(), [
    { first: 0, end: 7 },
    { first: 9, end: 64 },
  ])
  t.deepEqual(set.missing({ first: 5, end: 12 }), [{ first: 7, end: 9 }])
  t.true(set.hasAll({ first: 9, end: 64 }))
  t.false(set.copy().hasAll({ first: 6, end: 8 }))
})

test('what is dirty is found again, and what is not is gone', async (t) => {
  const files = new FakeFiles()
  files.mkdir('/v')
  const head = { ...HEAD, boot: 'one', synced: false }
  const file = await DirtyFile.make(files, '/v/dirty', { head, objects: new Map() })
  const blocks = new BlockSet()
  blocks.add({ first: 3, end: 5 })
  for (const index of [9, 4, 1 << 19]) file.note(index, blocks)
  file.note(4, new BlockSet())
  blocks.add({ first: 63, end: 64 })
  file.note(70, blocks)
  file.note(9, blocks)
  file.stamp({ epoch: 8 })
  file.close()
  const found = await readDirty(files, '/v/dirty')
  t.deepEqual(found?.head, { ...head, epoch: 8 })
  const runs = [...found!.objects].map(([index, dirty]) => [index, dirty.runs().length])
  t.deepEqual(
    new Map(runs as [number, number][]),
    new Map([
      [9, 2],
      [70, 2],
      [1 << 19, 1],
    ]),
  )
  files.open('/v/dirty', { write: true }).writeNow(Buffer.from('rot'), 0)
  t.is(await readDirty(files, '/v/dirty'), undefined)
})

test('a write pulls only the blocks it covers in part, and a push sends whole blocks', async (t) => {
  const rig = await made(t)
  t.is(await put(rig, BLOCK + 512, of(2, 2 * BLOCK)), Code.SUCCESS)
  t.deepEqual(rig.owners.reads, [`0:${BLOCK}+${BLOCK}`, `0:${3 * BLOCK}+${BLOCK}`])
  t.is(await rig.volume.push(), Code.SUCCESS)
  t.deepEqual(rig.owners.writes, [`0:${BLOCK}+${3 * BLOCK} durable`])
  t.is(rig.owners.objects.get(0)![BLOCK + 511], 1)
  t.is(rig.owners.objects.get(0)![BLOCK + 512], 2)
  t.is(rig.volume.dirtyCount, 0)
})

test('a write to what does not exist fails at once', async (t) => {
  const rig = await made(t)
  t.is(await put(rig, 9 * OBJECT, of(2, BLOCK)), Code.NO_OBJ)
  t.is(await put(rig, 9 * OBJECT + 512, of(2)), Code.NO_OBJ)
  t.is(rig.volume.dirtyCount, 0)
})

test('an older content never follows a newer one to the owners', async (t) => {
  const rig = await made(t)
  const { owners, volume } = rig
  owners.held = []
  await put(rig, 0, of(2))
  const first = volume.push()
  t.true(await soon(() => owners.held!.length === 1))
  t.is(await put(rig, 0, of(3)), Code.SUCCESS)
  t.deepEqual(await get(rig, 0), of(3))
  const durable = put(rig, 512, of(4), true)
  t.false(await soon(() => owners.held!.length > 1), 'the second push waits for the first')
  owners.held.shift()!()
  t.true(await soon(() => owners.held!.length === 1))
  t.is(owners.objects.get(0)![0], 2)
  t.is(volume.dirtyCount, 1)
  owners.held.shift()!()
  t.is(await durable, Code.SUCCESS)
  t.is(await first, Code.SUCCESS)
  t.deepEqual(owners.objects.get(0)!.subarray(0, 1024), Buffer.concat([of(3), of(4)]))
})

test('a push that fails leaves everything dirty, on disk too', async (t) => {
  const rig = await made(t)
  rig.owners.result = Code.NO_SPACE
  await put(rig, 0, of(2))
  t.is(await rig.volume.push(), Code.NO_SPACE)
  t.is(rig.volume.dirtyCount, 1)
  t.is((await readDirty(rig.files, '/ssd/cache/000abc/dirty'))?.objects.size, 1)
  rig.owners.result = Code.SUCCESS
  t.is(await rig.volume.push(), Code.SUCCESS)
  t.is((await readDirty(rig.files, '/ssd/cache/000abc/dirty'))?.objects.size, 0)
})

test('the size is kept: what was used longest ago goes, what is dirty is sent first', async (t) => {
  const rig = await made(t, 5 * OBJECT, 8)
  await put(rig, 0, of(2))
  for (let slot = 1; slot < 8; slot++) {
    t.deepEqual(await get(rig, slot * OBJECT), of(1))
    t.true(rig.cache.usedBytes <= 5 * OBJECT, `${slot}`)
  }
  const names = await rig.files.readDir('/ssd/cache/000abc')
  t.false(names.includes('0000000000000001'))
  t.true(names.includes('0000000000000007'))
  rig.owners.reads.length = 0
  t.deepEqual(await get(rig, 7 * OBJECT), of(1))
  t.deepEqual(rig.owners.reads, [])
  t.deepEqual(await get(rig, 0), of(2))
})

test('a cache that is full of what cannot be pushed lets writes pass it, in order', async (t) => {
  const rig = await made(t, 2 * OBJECT, 4)
  rig.owners.result = Code.NO_SPACE
  await put(rig, 0, of(2))
  await put(rig, OBJECT, of(2))
  t.is(await put(rig, 2 * OBJECT, of(3)), Code.NO_SPACE)
  rig.owners.result = Code.SUCCESS
  t.is(await put(rig, 2 * OBJECT, of(4)), Code.SUCCESS)
  t.is(rig.owners.objects.get(2)![0], 4)
  t.deepEqual(await get(rig, 2 * OBJECT), of(4))
})

test('a disk without room costs the cache, not the write', async (t) => {
  const rig = await made(t)
  rig.files.fault = (operation) => (operation === 'allocate' ? 'ENOSPC' : undefined)
  t.is(await put(rig, 0, of(2)), Code.SUCCESS)
  t.is(rig.owners.objects.get(0)![0], 2)
  t.is(rig.cache.usedBytes, 0)
  t.deepEqual(await get(rig, 0), of(2))
})

test('after a sync of the cache failed no flush succeeds, and nothing is pushed from it', async (t) => {
  const rig = await made(t)
  await put(rig, 0, of(2))
  rig.files.fault = (operation, path) =>
    operation === 'sync' && path.endsWith('0000') ? 'EIO' : undefined
  t.is(await rig.volume.push(), Code.EIO)
  rig.files.fault = () => undefined
  t.is(await rig.volume.push(), Code.EIO)
  t.deepEqual(rig.owners.writes, [])
  await rig.volume.drop()
  t.is(await rig.volume.push(), Code.SUCCESS)
  t.deepEqual(await get(rig, 0), of(1))
})

test('a read the cache cannot serve from its disk is served by the owners', async (t) => {
  const rig = await made(t)
  t.deepEqual(await get(rig, 0), of(1))
  rig.files.fault = (operation) => (operation === 'read' ? 'EIO' : undefined)
  rig.files.cold = true
  t.deepEqual(await get(rig, 0), of(1))
  await put(rig, 0, of(2))
  t.is(await get(rig, 0), Code.EIO)
})

test('with directio nothing of an object goes through the page cache, and all else is as ever', async (t) => {
  const rig = await made(t, 5 * OBJECT, 8, true)
  await rig.cache.start()
  t.is(await put(rig, BLOCK + 512, of(2, 2 * BLOCK)), Code.SUCCESS)
  t.is(await put(rig, BLOCK + 1024, of(3)), Code.SUCCESS)
  t.deepEqual(await get(rig, BLOCK + 512, 1024), Buffer.concat([of(2), of(3)]))
  t.is(await rig.volume.push(), Code.SUCCESS)
  t.deepEqual(rig.owners.objects.get(0)!.subarray(BLOCK + 1024, BLOCK + 1536), of(3))
  for (let slot = 1; slot < 8; slot++) t.deepEqual(await get(rig, slot * OBJECT), of(1))
  t.deepEqual(await get(rig, BLOCK + 1024), of(3), 'after it was evicted')
  const ofObjects = /000abc\/0000/
  t.is(rig.files.count('writeNow', ofObjects), 0)
  t.true(rig.files.count('write', ofObjects) > 0)
  t.false((await rig.files.readDir('/ssd/cache')).includes('directio'))
})

test('a directory that takes no direct I/O is refused before anything is cached', async (t) => {
  const files = new FakeFiles()
  const options = { sizeBytes: 4 * OBJECT, directory: '/ssd', directio: true, boot: 'one' }
  for (const [operation, errno] of [
    ['open', 'EINVAL'],
    ['open', 'ENOTSUP'],
    ['write', 'EINVAL'],
  ] as const) {
    const cache = new ObjectCache(options, { files, log: silentLog })
    files.fault = (one, path) =>
      one === operation && path.endsWith('directio') ? errno : undefined
    await t.throwsAsync(cache.start(), {
      message: new RegExp(`^/ssd/cache takes no direct I/O \\(${errno}.*or leave out directio$`),
    })
    files.fault = () => undefined
    t.deepEqual(await files.readDir('/ssd/cache'), ['lock'])
    cache.close()
  }
})

test('one sheep a directory', async (t) => {
  const { files, options, cache } = await made(t)
  const again = () => new ObjectCache(options, { files, log: silentLog })
  t.throws(again, { message: /\/ssd\/cache is the object cache of another sheep/ })
  cache.close()
  t.notThrows(again)
})

test('what is dirty is sent without being asked for, what is so for longest first', async (t) => {
  const rig = await made(t, 32 * OBJECT, 12)
  for (let slot = 0; slot < 12; slot++) await put(rig, slot * OBJECT, of(2))
  t.true(await soon(() => rig.owners.writes.length > 0))
  t.regex(rig.owners.writes[0]!, /^0:/)
  await rig.clock.sleep(6_000)
  t.true(await soon(() => rig.volume.dirtyCount === 0))
})
