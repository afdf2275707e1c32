// Hypervolumes: an index that survives a crash at any write, checked against a model; and whole nodes that serve
// volumes of petabytes as block devices.
import test, { type ExecutionContext } from 'ava'
import { Code, type Done } from '../../src/base/codes.js'
import { LIMITS } from '../../src/base/limits.js'
import type { ObjectAccess, ObjectRef } from '../../src/model/access.js'
import { decodeTreeHead, encodeTreeHead } from '../../src/model/hyper-tree.js'
import { type InodeHeader, SLOTS_OFFSET } from '../../src/model/inode.js'
import { asVid, inodeOid, type Oid, oidKind, type Vid } from '../../src/model/oid.js'
import { HyperIndex } from '../../src/volume/hyper-index.js'
import { leavesNow, ownerIn } from '../../src/volume/hyper-leaves.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { dice } from '../faults/dice.js'
import { withSeeds } from './support/seeds.js'
import { headerOf, object, readObject, vdi, vdiId, writeObject } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { SparseBytes } from './support/sparse-bytes.js'
import { discard, flush, read, write } from './support/volume-io.js'

const VID = asVid(77)
const OWN = VID

/** Objects in memory, whose machine dies before or after a chosen write. */
class DyingObjects {
  readonly objects = new Map<Oid, SparseBytes>()
  /** Writes until it dies; the last one happens or not. */
  left = Number.POSITIVE_INFINITY
  lastHappens = true

  constructor() {
    const inode = new SparseBytes()
    inode.write(SLOTS_OFFSET, encodeTreeHead(1, 0))
    this.objects.set(inodeOid(VID), inode)
  }

  get access(): ObjectAccess {
    const changes = (act: () => Code, done: Done): void => {
      if (this.left <= 0) {
        done(Code.SHUTDOWN)
        return
      }
      this.left--
      const isLast = this.left === 0
      const code = isLast && !this.lastHappens ? Code.SUCCESS : act()
      done(isLast ? Code.SHUTDOWN : code)
    }
    const access = {
      ref: (oid: Oid) => ({ oid }),
      read: ({ oid }: ObjectRef, offset: number, into: Uint8Array, done: Done) => {
        const bytes = this.objects.get(oid)
        if (bytes !== undefined) into.set(bytes.read(offset, into.length))
        done(bytes === undefined ? Code.NO_OBJ : Code.SUCCESS)
      },
      write: (...[{ oid }, offset, data, , done]: [ObjectRef, number, Uint8Array, boolean, Done]) =>
        changes(() => {
          const bytes = this.objects.get(oid)
          bytes?.write(offset, data)
          return bytes === undefined ? Code.NO_OBJ : Code.SUCCESS
        }, done),
      create: (
        ...[{ oid }, offset, data, , done]: [ObjectRef, number, Uint8Array, unknown, Done]
      ) =>
        changes(() => {
          const bytes = new SparseBytes()
          bytes.write(offset, data)
          this.objects.set(oid, bytes)
          return Code.SUCCESS
        }, done),
      remove: (oid: Oid, done: Done) =>
        changes(() => (this.objects.delete(oid) ? Code.SUCCESS : Code.NO_OBJ), done),
    }
    return access as unknown as ObjectAccess
  }
}

const header = (btreeCounter: number): InodeHeader =>
  ({ vid: VID, btreeCounter }) as unknown as InodeHeader

async function open(objects: DyingObjects): Promise<HyperIndex> {
  const counter = objects.objects.get(inodeOid(VID))!.read(568, 4).readUInt32LE(0)
  return HyperIndex.load({ objects: objects.access, header: header(counter), entriesMax: 6 })
}

/** `maybe`: an index whose change was cut off, and what it was to become. */
function compare(
  t: ExecutionContext,
  index: HyperIndex,
  model: ReadonlyMap<number, Vid>,
  maybe?: readonly [number, Vid],
): void {
  const wanted = [...model].filter(([, vid]) => vid !== 0).map(([at]) => at)
  const found: number[] = []
  for (let at = index.nextAllocated(0, 2 ** 32); at !== undefined; ) {
    found.push(at)
    at = index.nextAllocated(at + 1, 2 ** 32)
  }
  const others = (list: number[]): number[] => list.filter((at) => at !== maybe?.[0])
  t.deepEqual(
    others(found),
    others(wanted).sort((a, b) => a - b),
  )
  for (const [at, vid] of model) if (at !== maybe?.[0]) t.is(index.vid(at), vid)
  if (maybe !== undefined) {
    const before = model.get(maybe[0]) ?? 0
    t.true([before, maybe[1]].includes(index.vid(maybe[0])))
  }
}

test('whatever order objects come in, all are found again', async (t) => {
  await withSeeds(6, async (seed) => {
    const chance = dice(seed)
    const objects = new DyingObjects()
    let index = await open(objects)
    const model = new Map<number, Vid>()
    for (let round = 0; round < 150; round++) {
      const inOrder = seed % 3 === 0
      const at = inOrder ? round * 3 : chance.below(seed % 2 === 0 ? 200 : 2 ** 31) * 2
      const vid = chance.below(5) === 0 && model.has(at) ? asVid(0) : OWN
      await index.set(at, vid)
      model.set(at, vid)
      if (round % 50 === 49) {
        index = await open(objects)
        compare(t, index, model)
      }
    }
    const root = objects.objects.get(inodeOid(VID))!.read(SLOTS_OFFSET, 8)
    t.is(decodeTreeHead(root).depth, 2)
    // Nothing but what the root points to is left behind.
    t.is(objects.objects.size - 1, decodeTreeHead(root).entries)
  })
})

test('after a crash at any write the index names all it named before', async (t) => {
  await withSeeds(4, async (seed) => {
    for (let deadline = 1; deadline < 120; deadline++) {
      const chance = dice(seed * 1000 + deadline)
      const objects = new DyingObjects()
      const index = await open(objects)
      const model = new Map<number, Vid>()
      objects.left = deadline
      objects.lastHappens = chance.below(2) === 0
      let cutOff: readonly [number, Vid] | undefined
      while (cutOff === undefined) {
        const at = chance.below(150)
        const vid = chance.below(6) === 0 ? asVid(0) : OWN
        try {
          await index.set(at, vid)
          model.set(at, vid)
        } catch {
          cutOff = [at, vid]
        }
      }
      objects.left = Number.POSITIVE_INFINITY
      compare(t, await open(objects), model, cutOff)
      // The same process, had it lived: it looks again before it goes on.
      t.true(index.isUnsure)
      await index.settle()
      const settled = index.vid(cutOff[0])
      compare(t, index, model, cutOff)
      model.set(cutOff[0], settled)
      for (const at of [1, 151, 77, ...Array.from({ length: 20 }, () => chance.below(200))]) {
        await index.set(at, OWN)
        model.set(at, OWN)
      }
      compare(t, await open(objects), model)
    }
  })
})

test('who reads the index without its lock misses nothing that was there when he began', async (t) => {
  await withSeeds(6, async (seed) => {
    const chance = dice(seed)
    const objects = new DyingObjects()
    const index = await open(objects)
    const model = new Set<number>()
    const turns = async (most: number): Promise<void> => {
      for (let left = chance.below(most); left > 0; left--) await Promise.resolve()
    }
    const { access } = objects
    const slow: ObjectAccess = {
      ...access,
      read: (...words) => void turns(12).then(() => access.read(...words)),
    }
    let isOver = false
    const writer = (async () => {
      while (model.size < 150) {
        const at = chance.below(seed % 2 === 0 ? 400 : 2 ** 31)
        await index.set(at, OWN)
        model.add(at)
        await turns(250)
      }
      isOver = true
    })()
    let looks = 0
    while (!isOver) {
      const known = [...model]
      const leaves = await leavesNow(slow, VID)
      looks++
      for (const at of known) t.is(ownerIn(leaves, at), OWN)
    }
    await writer
    t.true(looks > 20)
  })
})

const PIB = 2 ** 50
const OBJECT = 4 << 20

async function hyperCluster(options: { readonly policy?: number } = {}) {
  const cluster = await SmallCluster.start({ totalBytes: 64 * 1024 ** 3, ...options })
  const client = await cluster.client(0)
  const sizeBytes = 8 * PIB - 4096
  const vid = await vdiId(client, Op.NEW_VDI, 'huge', { sizeBytes, storePolicy: 1 })
  return { cluster, client, vid, sizeBytes }
}

for (const policy of [0, 0x11]) {
  test(`a disk of eight pebibytes is written at both ends and survives a power cut (policy ${policy})`, async (t) => {
    const { cluster, client, vid, sizeBytes } = await hyperCluster({ policy })
    const data = Buffer.from(Array.from({ length: 9000 }, (_, i) => (i * 7) & 0xff))
    const places = [sizeBytes - 9000, 0, 2 ** 40 - 4500, 5 * 2 ** 49]
    const disk = await cluster.source(0).open('huge')
    t.is(disk.sizeBytes, sizeBytes)
    for (const at of places) t.is(await write(disk, at, data), Code.SUCCESS)
    t.is(await flush(disk), Code.SUCCESS)
    // A client that keeps the index itself must not while the door does.
    const root = await writeObject(client, inodeOid(vid), SLOTS_OFFSET, Buffer.alloc(8, 1))
    t.is(root.result, Code.VDI_LOCKED)
    await cluster.cutPower()
    const again = await cluster.source(1).open('huge')
    for (const at of places) t.deepEqual(await read(again, at, 9000), data)
    t.deepEqual(await read(again, 2 ** 45, 4096), Buffer.alloc(4096))
    const extents = again.extents({ offset: 0, length: sizeBytes })
    t.is(
      extents.reduce((sum, { length }) => sum + length, 0),
      sizeBytes,
    )
    t.is(extents.filter(({ hole }) => !hole).length, 4)
    t.is(await discard(again, 0, 2 ** 41), Code.SUCCESS)
    t.deepEqual(await read(again, 2 ** 40 - 4500, 9000), Buffer.alloc(9000))
    t.deepEqual(await read(again, places[0]!, 9000), data)
    const pieces = again.extents({ offset: 0, length: sizeBytes }).filter(({ hole }) => !hole)
    t.is(pieces.length, 2)
    await again.close()
    t.deepEqual(cluster.failures(), [])
    cluster.close()
  })
}

test('a step over two objects of a hypervolume is whole, whatever is written meanwhile', async (t) => {
  const { cluster } = await hyperCluster()
  const [one, two] = [await cluster.source(0).open('huge'), await cluster.source(0).open('huge')]
  const counter = { offset: 2 ** 40 - 4, length: 8 }
  const raised = (found: Buffer): Buffer => {
    const next = Buffer.alloc(8)
    next.writeBigUInt64BE(found.readBigUInt64BE() + 1n)
    return next
  }
  const codes = await Promise.all(
    Array.from({ length: 20 }, (_, i) => {
      const disk = i % 2 === 0 ? one : two
      const step = new Promise((done) => disk.update(counter, raised, false, done))
      return [step, write(disk, counter.offset + 8, Buffer.alloc(16, i))]
    }).flat(),
  )
  t.true(codes.every((code) => code === Code.SUCCESS))
  t.is(((await read(one, counter.offset, 8)) as Buffer).readBigUInt64BE(), 20n)
  await Promise.all([one.close(), two.close()])
  t.deepEqual(cluster.failures(), [])
  cluster.close()
})

test('deleting a hypervolume gives everything back, the index too', async (t) => {
  const { cluster, client } = await hyperCluster()
  const disk = await cluster.source(0).open('huge')
  const order = [9, 3, 7, 1, 8, 2, 40, 0]
  for (const index of order) {
    t.is(await write(disk, index * OBJECT, Buffer.alloc(512, index + 1), true), Code.SUCCESS)
  }
  t.true(cluster.objects('btree').length > 0)
  t.is((await vdi(client, Op.DEL_VDI, 'huge')).result, Code.VDI_LOCKED)
  await disk.close()
  t.is((await vdi(client, Op.DEL_VDI, 'huge')).result, Code.SUCCESS)
  await cluster.settle()
  t.deepEqual(cluster.objects('data', 'btree', 'ledger'), [])
  t.deepEqual(cluster.failures(), [])
  cluster.close()
})

test('what 1.0 writes over an index before it deletes the volume does not lose its objects (O9)', async (t) => {
  const { cluster, client, vid } = await hyperCluster()
  const disk = await cluster.source(0).open('huge')
  await write(disk, 3 * OBJECT, Buffer.alloc(512, 1), true)
  await disk.close()
  const zeros = await writeObject(client, inodeOid(vid), SLOTS_OFFSET, Buffer.alloc(1024))
  t.is(zeros.result, Code.SUCCESS)
  const { body } = await readObject(client, inodeOid(vid), SLOTS_OFFSET, 16)
  t.is(body.toString('hex', 0, 8), '7462010001000000')
  t.is(body.readUInt32LE(8), 3)
  t.is((await vdi(client, Op.DEL_VDI, 'huge')).result, Code.SUCCESS)
  await cluster.settle()
  t.deepEqual(cluster.objects('data', 'btree'), [])
  cluster.close()
})

test('a client keeps the index itself, as 1.0 does: nothing is taken for slots', async (t) => {
  const { cluster, client, vid } = await hyperCluster()
  const entry = Buffer.from('7462010001000000' + '05000000' + '00000000', 'hex')
  entry.writeUInt32LE(vid, 12)
  t.is((await writeObject(client, inodeOid(vid), SLOTS_OFFSET, entry)).result, Code.SUCCESS)
  const leaf = { oid: (0x1000000000000000n | (BigInt(vid) << 32n)) as Oid }
  t.is(oidKind(leaf.oid), 'btree')
  t.is((await object(client, Op.CREATE_AND_WRITE_OBJ, leaf, entry)).result, Code.SUCCESS)
  await cluster.settle()
  t.deepEqual(
    cluster.logged.filter((line) => line.includes('reclaim.failed')),
    [],
  )
  cluster.close()
})

test('a hypervolume is made as the format says, and not beyond what numbers can count', async (t) => {
  const { cluster, client, vid } = await hyperCluster()
  const { storePolicy, blockSizeShift } = await headerOf(client, vid)
  t.is(storePolicy, 1)
  t.is(blockSizeShift, 22)
  const { body } = await readObject(client, inodeOid(vid), SLOTS_OFFSET, 8)
  t.is(body.toString('hex'), '7462010000000000')
  const make = async (name: string, sizeBytes: number, shift = 0): Promise<number> =>
    (await vdi(client, Op.NEW_VDI, name, { sizeBytes, storePolicy: 1, blockSizeShift: shift }))
      .result
  t.is(await make('most', LIMITS.volumeBytesMax), Code.SUCCESS)
  t.is(await make('beyond', 2 ** 54), Code.INVALID_PARMS)
  t.is(await make('objects', 2 ** 53 - 1, 20), Code.INVALID_PARMS)
  const snapshot = await vdi(client, Op.NEW_VDI, 'huge', { base: vid, snapId: 1 })
  t.is(snapshot.result, Code.NO_SUPPORT)
  const names = (await cluster.source(0).list()).map(({ name }) => name)
  t.deepEqual(names.sort(), ['huge', 'most'])
  cluster.close()
})
