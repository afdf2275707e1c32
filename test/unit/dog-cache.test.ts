// `dog vdi cache` against a sheep of memory: the words of 0.9, and what is ours.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { encodeInodeHeader, type SdTime } from '../../src/model/inode.js'
import { asVid, inodeOid, type Vid } from '../../src/model/oid.js'
import { decodeCacheInfo, encodeCacheInfo, rightChangeOf } from '../../src/wire/sheepdog/cache.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectFields } from '../../src/wire/sheepdog/requests.js'
import { runDog } from './support/dog-rig.js'
import { FakeSheep } from './support/fake-sheep.js'
import { SparseBytes } from './support/sparse-bytes.js'

const MIB = 1024 * 1024
const ALICE = asVid(0x15d167)

function withCache(): FakeSheep {
  const sheep = new FakeSheep([
    { host: '127.0.0.1', port: 7020, vnodes: 128, zone: 1, spaceBytes: 1 << 30 },
  ])
  sheep.formatted = { ...sheep.formatted, ctime: 1n, copies: 1, store: 'plain' }
  addVdi(sheep, ALICE, 'Alice')
  const info = {
    ...{ sizeBytes: 100 * MIB, usedBytes: 8 * MIB, directio: false },
    volumes: [{ vid: ALICE, dirty: 1, total: 2 }],
  }
  sheep.answers.set(Op.GET_CACHE_INFO, () => ({ body: encodeCacheInfo(info) }))
  for (const op of [Op.CACHE_PURGE, Op.DELETE_CACHE, Op.FLUSH_VDI])
    sheep.answers.set(op, () => ({}))
  return sheep
}

function addVdi(sheep: FakeSheep, vid: Vid, name: string): void {
  const header = encodeInodeHeader({
    ...{ name, tag: '', vid, parent: asVid(0), sizeBytes: 8 * MIB, copies: 1, policy: 0 },
    ...{ createTime: 1n as SdTime, snapCtime: 0n as SdTime, vmClockNsec: 0n, vmStateBytes: 0n },
    ...{ storePolicy: 0, blockSizeShift: 22, snapId: 1, btreeCounter: 0 },
  })
  const bytes = new SparseBytes()
  bytes.write(0, header)
  sheep.objects.set(inodeOid(vid), bytes)
  sheep.vids.add(vid)
}

function sent(sheep: FakeSheep, opcode: number) {
  return sheep.requests.filter((request) => request.opcode === opcode)
}

test('the cache of a sheep is shown as in 0.9', async (t) => {
  const { status, stdout } = await runDog(withCache(), ['vdi', 'cache', 'info'])
  const table = 'Name\tTag\tTotal\tDirty\tClean\nAlice\t\t8.0 MB\t4.0 MB\t4.0 MB\n'
  t.is(stdout, `${table}\nCache size 100 MB, used 8.0 MB, non-directio\n`)
  t.is(status, 0)
  const json = await runDog(withCache(), ['vdi', 'cache', 'info', '--json'])
  t.deepEqual(JSON.parse(json.stdout), {
    ...{ sizeBytes: 100 * MIB, usedBytes: 8 * MIB, directio: false },
    vdis: [
      {
        ...{ name: 'Alice', tag: '', totalBytes: 8 * MIB, dirtyBytes: 4 * MIB },
        vid: ALICE.toString(16),
      },
    ],
  })
})

test('flush, delete and purge name the volume, and a purge of all asks first', async (t) => {
  const sheep = withCache()
  t.is((await runDog(sheep, ['vdi', 'cache', 'flush', 'Alice'])).status, 0)
  t.is((await runDog(sheep, ['vdi', 'cache', 'delete', 'Alice'])).status, 0)
  t.is((await runDog(sheep, ['vdi', 'cache', 'purge', 'Alice'])).status, 0)
  for (const opcode of [Op.FLUSH_VDI, Op.DELETE_CACHE, Op.CACHE_PURGE]) {
    const [request] = sent(sheep, opcode)
    t.is(objectFields.oid(request!), inodeOid(ALICE))
  }
  t.is(sent(sheep, Op.CACHE_PURGE)[0]!.flags, 1)
  t.is(rightChangeOf(sent(sheep, Op.DELETE_CACHE)[0]!), undefined)
  const no = await runDog(sheep, ['vdi', 'cache', 'purge'], { stdin: 'no\n' })
  const question = 'This operation purges the cache of all the vdi. Continue? [yes/no]: '
  t.is(no.stdout, question)
  t.is(sent(sheep, Op.CACHE_PURGE).length, 1)
  await runDog(sheep, ['vdi', 'cache', 'purge'], { stdin: 'yes\n' })
  await runDog(sheep, ['vdi', 'cache', 'purge', '-f'])
  const all = sent(sheep, Op.CACHE_PURGE).slice(1)
  t.deepEqual(
    all.map(({ flags }) => flags),
    [0, 0],
  )
})

test('a volume that is not named, not there, or a sheep without a cache: each has its words', async (t) => {
  const sheep = withCache()
  const unnamed = await runDog(sheep, ['vdi', 'cache', 'flush'])
  t.regex(unnamed.stderr, /^please specify VDI name\n/)
  t.is(unnamed.status, 64)
  const unknown = await runDog(sheep, ['vdi', 'cache', 'delete', 'Bob'])
  t.regex(unknown.stderr, /Failed to open VDI Bob/)
  for (const result of [Code.NO_CACHE, Code.INVALID_PARMS]) {
    sheep.answers.set(Op.GET_CACHE_INFO, () => ({ result }))
    const { status, stderr } = await runDog(sheep, ['vdi', 'cache', 'info'])
    t.is(status, 1)
    t.regex(stderr, /127\.0\.0\.1:7020 has no object cache: start it with -w size=S/)
  }
})

test('the record of the cache has the layout of 0.9', (t) => {
  const volumes = [
    { vid: ALICE, dirty: 3, total: 7 },
    { vid: asVid(2), dirty: 0, total: 1 },
  ]
  const info = { sizeBytes: 2 ** 40, usedBytes: 5, volumes, directio: true }
  const bytes = encodeCacheInfo(info)
  t.is(bytes.length, 12312)
  t.is(bytes.readBigUInt64LE(0), 2n ** 40n)
  t.is(bytes.readUInt32LE(16 + 12), 2)
  t.is(bytes.readInt32LE(12304), 2)
  t.is(bytes[12308], 1)
  t.deepEqual(decodeCacheInfo(bytes), info)
  bytes.writeInt32LE(1025, 12304)
  t.throws(() => decodeCacheInfo(bytes), { instanceOf: RangeError })
  t.throws(() => decodeCacheInfo(bytes.subarray(1)), { instanceOf: RangeError })
})
