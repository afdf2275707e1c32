// `dog vdi object` and `track`: 1.0's transcripts, where the owners are those 1.0's nodes worked out; and what it got wrong.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { InodeImage, sdTime } from '../../src/model/inode.js'
import { asVid, INODE_BYTES, inodeOid, type Oid, oidName } from '../../src/model/oid.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectFields } from '../../src/wire/sheepdog/requests.js'
import { asTranscript, readGolden, runDog } from './support/dog-rig.js'
import { FakeSheep } from './support/fake-sheep.js'
import { MemoryImages } from './support/memory-images.js'

process.env.TZ = 'UTC'

/** Of the transcript: which ports have what. */
const HOLDERS: Readonly<Record<string, readonly number[]>> = {
  '80d2758a00000000': [7020, 7022, 7025],
  '80d2758400000000': [7022, 7023, 7025],
  '00d2758400000000': [7023, 7024, 7025],
  '00d2758400000001': [7022, 7023, 7025],
}

function nodes(count: number): FakeSheep['nodes'] {
  return Array.from({ length: count }, (_, i) => ({
    ...{ host: '127.0.0.1', port: 7020 + i, vnodes: 128, zone: i, spaceBytes: 1e9 },
  }))
}

/** `img` with six snapshots: three objects of the first, one of the sixth. */
async function stage(count = 6): Promise<FakeSheep> {
  const sheep = new FakeSheep(nodes(count))
  sheep.nowMs = 1_795_253_998_000
  await runDog(sheep, ['cluster', 'format', '-f', '-c', '3'], { stdin: 'yes\n' })
  await runDog(sheep, ['vdi', 'create', 'img', '20M'])
  await runDog(sheep, ['vdi', 'write', 'img'], { stdin: Buffer.alloc(12 * 2 ** 20, 'x') })
  for (let i = 1; i <= 5; i++) await runDog(sheep, ['vdi', 'snapshot', 'img', '-s', `tag ${i}`])
  await runDog(sheep, ['vdi', 'write', 'img', '12M'], { stdin: 'x' })
  await runDog(sheep, ['vdi', 'snapshot', 'img', '-s', 'tag 6'])
  sheep.answers.set(Op.EXIST, (request, port) => {
    const isThere = HOLDERS[oidName(objectFields.oid(request))]?.includes(port)
    return { result: isThere ? Code.SUCCESS : Code.NO_OBJ }
  })
  return sheep
}

test('every command of the transcript answers as 1.0 did', async (t) => {
  const sheep = await stage()
  for (const { argv, line, answer } of readGolden('object')) {
    const result = await runDog(sheep, argv, { images: new MemoryImages() })
    t.is(asTranscript(result), answer.join('\n').trimEnd(), `object.txt:${line}`)
  }
})

test('an index no plain volume has is a hole (1.0 died of it)', async (t) => {
  const { stdout, status } = await runDog(await stage(), [
    ...['vdi', 'object', 'location', '-i', '4294967295', 'img'],
  ])
  t.is(stdout, 'The inode object 0xd2758a idx 4294967295 is not allocated\n')
  t.is(status, 0)
})

test('with fewer nodes than copies every node should have it, and each epoch is shown once', async (t) => {
  const sheep = await stage(2)
  sheep.nodes = nodes(1)
  sheep.newEpoch()
  const where = await runDog(sheep, ['vdi', 'object', 'location', 'img'])
  t.regex(
    where.stdout,
    /\nBecause number of nodes \(1\) is less than number of copies \(3\), the object should be located at every nodes\.\n$/,
  )
  const { stdout } = await runDog(sheep, ['vdi', 'track', 'img', '--json'])
  t.deepEqual((JSON.parse(stdout) as { epochs: unknown }).epochs, [
    { epoch: 2, places: ['127.0.0.1:7020'] },
    { epoch: 1, places: ['127.0.0.1:7020', '127.0.0.1:7021'] },
  ])
})

test('a node that does not tell is named, and the others are asked', async (t) => {
  const sheep = await stage()
  sheep.answers.set(Op.EXIST, (_request, port) => ({
    result: port === 7021 ? Code.EIO : Code.NO_OBJ,
  }))
  const { stdout, stderr } = await runDog(sheep, ['vdi', 'object', 'location', 'img', '--json'])
  t.is(stderr, '127.0.0.1:7021: hit an unexpected error (I/O error)\n')
  const told = JSON.parse(stdout) as { nodes: { hasObject: boolean | null }[]; places: string[] }
  t.deepEqual(
    told.nodes.map((one) => one.hasObject),
    [false, null, false, false, false, false],
  )
  t.deepEqual(told.places, ['127.0.0.1:7025', '127.0.0.1:7020', '127.0.0.1:7022'])
})

test('a hypervolume has an index, and its map costs as much as it has objects', async (t) => {
  const sheep = await stage()
  await runDog(sheep, ['vdi', 'create', 'hv', '-y', '1P'])
  const [vid] = [...sheep.vids].filter((one) => sheep.header(one).name === 'hv')
  const root = Buffer.alloc(8 + 16)
  root.writeUInt16LE(0x6274, 0)
  root.writeUInt16LE(1, 2)
  root.writeUInt32LE(2, 4)
  root.writeUInt32LE(vid!, 12)
  root.writeUInt32LE(131072000, 16)
  root.writeUInt32LE(vid!, 20)
  sheep.objects.get(inodeOid(vid!))!.write(4664, root)
  sheep.requests.length = 0
  const { stdout } = await runDog(sheep, ['vdi', 'object', 'map', 'hv'])
  const id = vid!.toString(16)
  t.is(stdout, `Index       VID\n00000000 ${id.padStart(8)}\n131072000 ${id.padStart(8)}\n`)
  t.true(sheep.requests.length < 10)
  const oid = `00${id.padStart(6, '0')}07d00000`
  const listed = await runDog(sheep, ['vdi', 'list', '-r', '-o', oid])
  t.regex(listed.stdout, /^= hv 0 .*\n$/)
})

test("an inode's file is shown as 1.0 shows it", async (t) => {
  const inode = new InodeImage()
  inode.setHeader({
    ...{ name: 'img', tag: '', createTime: 0x6b01671407edbd48n as ReturnType<typeof sdTime> },
    ...{ snapCtime: sdTime(0), vmClockNsec: 0n, sizeBytes: 20971520, vmStateBytes: 0n },
    ...{ policy: 0, storePolicy: 0, copies: 3, blockSizeShift: 22, snapId: 1 },
    ...{ vid: asVid(0xd27584), parent: asVid(0), btreeCounter: 0 },
  })
  inode.setSlot(0, 0xd27584)
  inode.setRef(0, { generation: 0, count: 2 })
  inode.setSlot(2, 0xd27584)
  const images = new MemoryImages()
  images.put('inode', INODE_BYTES, [[0, inode.bytes]])
  const { stdout } = await runDog(new FakeSheep([]), ['vdi', 'object', 'dump-inode', 'inode'], {
    images,
  })
  t.deepEqual(stdout.split('\n'), [
    ...['name: img', 'tag: ', 'create_time: 6b01671407edbd48', 'snap_ctime: 0', 'vm_clock_nsec: 0'],
    ...['vdi_size: 20971520', 'vm_state_size: 0', 'copy_policy: 0', 'store_policy: 0'],
    ...['nr_copies: 3', 'block_size_shift: 22', 'snap_id: 1', 'vdi_id: d27584'],
    ...['parent_vdi_id: 0', 'btree_counter: 0', 'data_vdi_id:', '0: d27584', '2: d27584'],
    ...['gref:', '0: d27584, 0, 2', '2: d27584, 0, 0', ''],
  ])
  images.put('short', 100, [])
  const short = await runDog(new FakeSheep([]), ['vdi', 'object', 'dump-inode', 'short'], {
    images,
  })
  t.is(short.stderr, 'failed to read inode object file: 100 bytes, an inode has 12587576\n')
  t.is(short.status, 1)
})

test('of a coded object a fragment counts as the object', async (t) => {
  const sheep = await stage()
  sheep.setPolicy('img', 0x22)
  const asked: (readonly [Oid, number])[] = []
  sheep.answers.set(Op.EXIST, (request, port) => {
    asked.push([objectFields.oid(request), objectFields.fragment(request)])
    const isThere = port === 7022 && objectFields.fragment(request) === 2
    return { result: isThere ? Code.SUCCESS : Code.NO_OBJ }
  })
  const { stdout } = await runDog(sheep, ['vdi', 'object', 'location', '-i', '0', 'img'])
  t.regex(stdout, /127.0.0.1:7022 has the object/)
  t.is(stdout.match(/ has the object/g)?.length, 1)
  t.is(asked.length, 6 * 3)
})
