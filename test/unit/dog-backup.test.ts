// `dog vdi backup` and `restore`: 1.0's texts and bytes, and the ways in which 1.0 lost volumes.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { vidHash } from '../../src/model/hash.js'
import { asVid, oidKind } from '../../src/model/oid.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectFields } from '../../src/wire/sheepdog/requests.js'
import { asTranscript, type DogHow, type DogResult, readGolden, runDog } from './support/dog-rig.js'
import { FakeSheep } from './support/fake-sheep.js'
import { MemoryImages } from './support/memory-images.js'

const MIB = 1024 * 1024
const node = { host: '127.0.0.1', port: 7020, vnodes: 128, zone: 1, spaceBytes: 1 }

type Dog = (line: string, how?: DogHow) => Promise<DogResult>

/** 1.0's example: bk of 12 MiB with snapshots s1 (an `a` in front) and s2 (a `1` in the second object). */
async function stage(): Promise<{ sheep: FakeSheep; images: MemoryImages; dog: Dog }> {
  const sheep = new FakeSheep([node])
  sheep.nowMs = 1_795_253_998_000
  const images = new MemoryImages()
  const dog: Dog = (line, how = {}) => runDog(sheep, line.split(' '), { images, ...how })
  await dog('cluster format -c 1')
  await dog('vdi create bk 12M')
  await dog('vdi write bk', { stdin: 'a\n' })
  await dog('vdi snapshot bk -s s1')
  await dog('vdi write bk 4M', { stdin: '1\n' })
  await dog('vdi snapshot bk -s s2')
  return { sheep, images, dog }
}

const read = async (dog: Dog, which = ''): Promise<Buffer> =>
  (await dog(`vdi read bk${which === '' ? '' : ` -s ${which}`}`)).bytes

/** Name, id, parent's place in the family and own objects of each VDI, as `tree --json` has it. */
async function family(dog: Dog): Promise<string[]> {
  const { stdout } = await dog('vdi list --json')
  const { vdis } = JSON.parse(stdout) as {
    vdis: { snapshotId: number; tag: string; vid: string; parentVid: string | null }[]
  }
  const label = (vid: string | null): string => {
    const found = vdis.find((one) => one.vid === vid)
    return found === undefined ? 'nothing' : `${found.snapshotId}${found.tag}`
  }
  return vdis.map((one) => `${label(one.vid)} on ${label(one.parentVid)}`)
}

test('every command of the transcript answers as 1.0 did', async (t) => {
  const { sheep, images } = await stage()
  for (const { argv, line, answer } of readGolden('backup')) {
    const result = await runDog(sheep, argv, { images })
    t.is(asTranscript(result), answer.join('\n').trimEnd(), `backup.txt:${line}`)
  }
})

test('the streams are those 1.0 writes, byte for byte', async (t) => {
  const { dog } = await stage()
  const start = '0100000092119211'
  const end = 'ffffffff000000000000000000000000'
  const record = '01000000000000000002000000000000'
  const sector = Buffer.alloc(512)
  sector.write('1\n')
  const forth = await dog('vdi backup bk -F s1 -s s2')
  t.is(forth.stderr, '')
  t.is(forth.bytes.toString('hex'), `${start}${record}${sector.toString('hex')}${end}`)
  const back = await dog('vdi backup bk -F s2 -s s1')
  t.is(back.bytes.toString('hex'), `${start}${record}${Buffer.alloc(512).toString('hex')}${end}`)
  t.is((await dog('vdi backup bk -F s2 -s s2')).bytes.toString('hex'), `${start}${end}`)
})

test('of an object that differs the middle is stored, cut at sectors', async (t) => {
  const { dog } = await stage()
  await dog('vdi write bk 4195000', { stdin: 'x' })
  await dog('vdi write bk 6000000', { stdin: 'y' })
  await dog('vdi snapshot bk -s s3')
  const { bytes } = await dog('vdi backup bk -F s2 -s s3')
  t.is(bytes.readUInt32LE(8), 1)
  t.is(bytes.readUInt32LE(12), 512)
  t.is(bytes.readUInt32LE(16), Math.floor((6000000 - 4194304) / 512) * 512)
  t.is(bytes.length, 8 + 16 + bytes.readUInt32LE(16) + 16)
})

test('a restored backup is a snapshot of its own, and the working VDI stands where it stood', async (t) => {
  const { dog } = await stage()
  const { bytes: stream } = await dog('vdi backup bk -F s1 -s s2')
  const [working, s2] = [await read(dog), await read(dog, 's2')]
  const result = await dog('vdi restore bk -s s1', { stdin: stream })
  t.is(result.stderr, '')
  t.is(result.status, 0)
  t.deepEqual((await family(dog)).sort(), ['0 on 2s2', '1s1 on nothing', '2s2 on 1s1', '3 on 1s1'])
  t.true((await read(dog, '3')).equals(s2))
  t.true((await read(dog)).equals(working))
})

test('what the working VDI had since its last snapshot is kept as one (1.0: gone)', async (t) => {
  const { dog } = await stage()
  const { bytes: stream } = await dog('vdi backup bk -F s1 -s s2')
  await dog('vdi write bk 8M', { stdin: 'only in the working VDI' })
  const working = await read(dog)
  t.is((await dog('vdi restore bk -s s1', { stdin: stream })).status, 0)
  t.true((await read(dog)).equals(working))
  t.true((await family(dog)).includes('0 on 3'))
  t.true((await read(dog, '4')).equals(await read(dog, 's2')))
})

test('a stream that is cut or rotten is refused before anything is touched (1.0: the VDI is gone)', async (t) => {
  const { dog, images, sheep } = await stage()
  const { bytes: stream } = await dog('vdi backup bk -F s1 -s s2')
  const broken = (at: number, value: number): Buffer => {
    const copy = Buffer.from(stream)
    copy.writeUInt32LE(value, at)
    return copy
  }
  const cases: readonly (readonly [Buffer, string])[] = [
    [Buffer.alloc(100), 'The backup file is corrupted\n'],
    [broken(0, 2), 'The backup file is corrupted\n'],
    [broken(8, 0xfffffff0), 'The backup file is corrupted\n'],
    [broken(12, 4 * MIB), 'The backup file is corrupted\n'],
    [broken(16, 0), 'The backup file is corrupted\n'],
    [broken(16, 0xffffffff), 'The backup file is corrupted\n'],
    [broken(20, 1), 'The backup file is corrupted\n'],
    [Buffer.alloc(0), 'failed to read backup data\n'],
    [Buffer.alloc(6), 'failed to read backup data\n'],
    ...Array.from({ length: 24 }, (_, i): readonly [Buffer, string] => [
      stream.subarray(0, 8 + i * 23),
      'failed to read backup data\n',
    ]),
  ]
  const before = await family(dog)
  sheep.requests.length = 0
  for (const [stdin, told] of cases) {
    const { stderr, status } = await dog('vdi restore bk -s s1', { stdin })
    t.is(stderr, told, `${stdin.length} bytes`)
    t.is(status, 1)
  }
  const changing: readonly number[] = [
    Op.DEL_VDI,
    Op.NEW_VDI,
    Op.WRITE_OBJ,
    Op.CREATE_AND_WRITE_OBJ,
  ]
  t.false(sheep.opcodes.some((opcode) => changing.includes(opcode)))
  t.deepEqual(await family(dog), before)
  t.is(images.files.size, 0)
})

test('a cluster that fails in the middle: the working VDI comes back, and the failure is told', async (t) => {
  const { dog, sheep } = await stage()
  const { bytes: stream } = await dog('vdi backup bk -F s1 -s s2')
  const working = await read(dog)
  sheep.answers.set(Op.CREATE_AND_WRITE_OBJ, (request, port) =>
    oidKind(objectFields.oid(request)) === 'data'
      ? { result: Code.NO_SPACE }
      : sheep.usual(request, port),
  )
  const { status, stderr } = await dog('vdi restore bk -s s1', { stdin: stream })
  t.is(status, 1)
  t.regex(stderr, /^Failed to write object [0-9a-f]{16}: Server has no space for new objects\n$/)
  t.true((await read(dog)).equals(working))
  t.deepEqual((await family(dog)).sort(), ['0 on 2s2', '1s1 on nothing', '2s2 on 1s1'])
})

test('a VDI in use is not restored over, and stays as it is', async (t) => {
  const { dog, sheep } = await stage()
  const { bytes: stream } = await dog('vdi backup bk -F s1 -s s2')
  const before = await family(dog)
  sheep.answers.set(Op.DEL_VDI, () => ({ result: Code.VDI_LOCKED }))
  const { status, stderr } = await dog('vdi restore bk -s s1', { stdin: stream })
  t.is(status, 1)
  t.is(stderr, 'Failed to delete bk: VDI is already locked\n')
  t.deepEqual(await family(dog), before)
})

test('a backup of a volume that has grown makes the restored one large enough', async (t) => {
  const { dog } = await stage()
  await dog('vdi resize bk 40M')
  await dog('vdi write bk 36M', { stdin: 'far' })
  await dog('vdi snapshot bk -s s3')
  const { bytes: stream } = await dog('vdi backup bk -F s1 -s s3')
  t.is((await dog('vdi restore bk -s s1', { stdin: stream })).stderr, '')
  const { stdout } = await dog('vdi list --json')
  const { vdis } = JSON.parse(stdout) as { vdis: { snapshotId: number; sizeBytes: number }[] }
  const restored = vdis.find(({ snapshotId }) => snapshotId === 4)
  t.is(restored?.sizeBytes, 36 * MIB + 512)
  const bytes = await read(dog, '4')
  t.is(bytes.toString('latin1', 36 * MIB, 36 * MIB + 3), 'far')
})

test('an object of which both sides name the same one is not even read', async (t) => {
  const { dog, sheep } = await stage()
  sheep.requests.length = 0
  await dog('vdi backup bk -F s1 -s s2')
  const own = vidHash('bk')
  const data = sheep.requests
    .filter(({ opcode }) => opcode === Op.READ_OBJ)
    .map((request) => objectFields.oid(request))
    .filter((oid) => oidKind(oid) === 'data')
  t.deepEqual([...new Set(data)], [(BigInt(asVid(own + 1)) << 32n) | 1n])
})
