// Partition tables as disks have them, good, damaged and hostile. The tables are made here, byte for byte.
import test from 'ava'
import { crc32 } from '../../src/base/crc32.js'
import { readPartitionTable } from '../../src/inspect/partitions.js'
import { mbrSector, TestDisk } from './support/disk-bytes.js'

const MIB = 1024 * 1024
const LINUX = Buffer.from('af3dc60f838472478e793d69d8477de4', 'hex')
const ENTRIES = 128
const ENTRY_BYTES = 128

interface GptPlan {
  readonly sectorBytes?: number
  readonly sizeBytes?: number
  /** First and last sector of partitions, in the places of their entries. */
  readonly partitions: readonly (readonly [bigint, bigint] | undefined)[]
  readonly entries?: number
  readonly entryBytes?: number
}

/** A disk with both headers, and the protective MBR. */
function gptDisk(plan: GptPlan): TestDisk {
  const { sectorBytes = 512, sizeBytes = 64 * MIB } = plan
  const { entries: count = ENTRIES, entryBytes = ENTRY_BYTES } = plan
  const sectors = sizeBytes / sectorBytes
  const entries = Buffer.alloc(Math.min(count * entryBytes, 4 * MIB))
  for (const [i, range] of plan.partitions.entries()) {
    if (range === undefined) continue
    const at = i * entryBytes
    LINUX.copy(entries, at)
    entries.fill(i + 1, at + 16, at + 32)
    entries.writeBigUInt64LE(range[0], at + 32)
    entries.writeBigUInt64LE(range[1], at + 40)
    entries.write(`part ${i + 1}`, at + 56, 'utf16le')
  }
  const lastEntries = sectors - 1 - Math.ceil(entries.length / sectorBytes)
  const places = [
    { own: 1, other: sectors - 1, entriesAt: 2 },
    { own: sectors - 1, other: 1, entriesAt: lastEntries },
  ]
  const disk = TestDisk.of(
    [[0, mbrSector([{ number: 1, first: 1, sectors: 0xffffffff, type: 0xee }])]],
    sizeBytes,
  )
  for (const { own, other, entriesAt } of places) {
    const header = Buffer.alloc(sectorBytes)
    header.write('EFI PART')
    header.writeUInt32LE(0x10000, 8)
    header.writeUInt32LE(92, 12)
    header.writeBigUInt64LE(BigInt(own), 24)
    header.writeBigUInt64LE(BigInt(other), 32)
    header.writeBigUInt64LE(BigInt(2 + 16384 / sectorBytes), 40)
    header.writeBigUInt64LE(BigInt(lastEntries - 1), 48)
    header.fill(0x77, 56, 72)
    header.writeBigUInt64LE(BigInt(entriesAt), 72)
    header.writeUInt32LE(count, 80)
    header.writeUInt32LE(entryBytes, 84)
    header.writeUInt32LE(crc32(entries), 88)
    header.writeUInt32LE(crc32(header.subarray(0, 92)), 16)
    disk.bytes.write(own * sectorBytes, header)
    disk.bytes.write(entriesAt * sectorBytes, entries)
  }
  return disk
}

const places = (table: Awaited<ReturnType<typeof readPartitionTable>>): unknown =>
  table?.partitions.map(({ number, startBytes, sizeBytes }) => [number, startBytes, sizeBytes])

test('a disk of zeros has no partition table, and neither has one smaller than a sector', async (t) => {
  t.is(await readPartitionTable(new TestDisk(64 * MIB)), undefined)
  t.is(await readPartitionTable(new TestDisk(100)), undefined)
  t.is(await readPartitionTable(new TestDisk(0)), undefined)
})

test('an MBR: four places, their numbers, types and flags', async (t) => {
  const sector = mbrSector([
    { number: 1, first: 2048, sectors: 4096, type: 0x0c, bootable: true },
    { number: 3, first: 8192, sectors: 1, type: 0x7f },
  ])
  const table = await readPartitionTable(TestDisk.of([[0, sector]], 64 * MIB))
  t.like(table, { kind: 'mbr', id: '1234abcd', problems: [] })
  t.deepEqual(table?.partitions, [
    {
      ...{ number: 1, startBytes: MIB, sizeBytes: 2 * MIB, type: '0c', typeName: 'FAT32 (LBA)' },
      ...{ label: '', uuid: '1234abcd-01', isBootable: true, isContainer: false },
    },
    {
      ...{ number: 3, startBytes: 4 * MIB, sizeBytes: 512, type: '7f', typeName: undefined },
      ...{ label: '', uuid: '1234abcd-03', isBootable: false, isContainer: false },
    },
  ])
})

test('logical partitions are counted from 5, wherever their chain leads', async (t) => {
  const extended = { number: 2, first: 10_000, sectors: 90_000, type: 0x05 }
  // The second record lies behind the third: links count from the extended partition's beginning.
  const disk = TestDisk.of(
    [
      [0, mbrSector([{ number: 1, first: 2048, sectors: 100 }, extended])],
      [
        10_000 * 512,
        mbrSector([
          { number: 1, first: 63, sectors: 10 },
          { number: 2, first: 50_000, sectors: 100, type: 5 },
        ]),
      ],
      [
        60_000 * 512,
        mbrSector([
          { number: 1, first: 63, sectors: 20 },
          { number: 2, first: 20_000, sectors: 100, type: 5 },
        ]),
      ],
      [30_000 * 512, mbrSector([{ number: 1, first: 63, sectors: 30 }])],
    ],
    64 * MIB,
  )
  const table = await readPartitionTable(disk)
  t.deepEqual(table?.problems, [])
  t.deepEqual(places(table), [
    [1, 2048 * 512, 100 * 512],
    [2, 10_000 * 512, 90_000 * 512],
    [5, 10_063 * 512, 10 * 512],
    [6, 60_063 * 512, 20 * 512],
    [7, 30_063 * 512, 30 * 512],
  ])
  t.true(table?.partitions[1]?.isContainer)
})

test('a chain that leads in a circle, off the disk or to garbage ends, and is told of', async (t) => {
  const extended = { number: 1, first: 1000, sectors: 100_000, type: 0x0f }
  const record = (link: number): Buffer =>
    mbrSector([
      { number: 1, first: 1, sectors: 5 },
      { number: 2, first: link, sectors: 9, type: 5 },
    ])
  const read = (link: number) =>
    readPartitionTable(
      TestDisk.of(
        [
          [0, mbrSector([extended])],
          [512_000, record(link)],
        ],
        64 * MIB,
      ),
    )
  t.deepEqual((await read(0))?.problems, ['the logical partitions lead in a circle'])
  t.deepEqual((await read(77))?.problems, ['the logical partitions break off at sector 1077'])
  const far = await read(0xffffffff)
  t.deepEqual(far?.problems, ['the logical partitions break off at sector 4294968295'])
  t.deepEqual(places(far), [
    [1, 512_000, 51_200_000],
    [5, 1001 * 512, 5 * 512],
  ])
})

test('a chain without end is followed so far and no further', async (t) => {
  const disk = TestDisk.of(
    [[0, mbrSector([{ number: 1, first: 1000, sectors: 100_000, type: 5 }])]],
    64 * MIB,
  )
  for (let i = 0; i < 2000; i++) {
    const link = { number: 2, first: i + 1, sectors: 1, type: 5 }
    disk.bytes.write((1000 + i) * 512, mbrSector([{ number: 1, first: 50_000, sectors: 1 }, link]))
  }
  const table = await readPartitionTable(disk)
  t.is(table?.partitions.length, 1 + 256)
  t.true(table?.problems.includes('there are too many logical partitions'))
  t.true(disk.reads < 300)
})

test('boot sectors of file systems are no partition tables', async (t) => {
  const code = mbrSector([{ number: 1, first: 0x12345678, sectors: 0x9abcdef0 }])
  t.is(await readPartitionTable(TestDisk.of([[0, code]], 64 * MIB)), undefined)
  const flags = mbrSector([{ number: 1, first: 1, sectors: 1 }])
  flags[446] = 0x20
  t.is(await readPartitionTable(TestDisk.of([[0, flags]], 64 * MIB)), undefined)
  const jump = mbrSector([])
  jump[0] = 0xeb
  t.is(await readPartitionTable(TestDisk.of([[0, jump]], 64 * MIB)), undefined)
})

test('partitions that do not lie on the disk are told of and left out', async (t) => {
  const sector = mbrSector([
    { number: 1, first: 2048, sectors: 2048 },
    { number: 2, first: 131_071, sectors: 2 },
    { number: 3, first: 0, sectors: 2 },
  ])
  const table = await readPartitionTable(TestDisk.of([[0, sector]], 64 * MIB))
  t.deepEqual(places(table), [[1, MIB, MIB]])
  t.deepEqual(table?.problems, [
    'partition 2 does not lie on the disk',
    'partition 3 does not lie on the disk',
  ])
})

test('partitions that overlap are both there, and told of', async (t) => {
  const sector = mbrSector([
    { number: 1, first: 2048, sectors: 2048 },
    { number: 2, first: 4096, sectors: 2048 },
    { number: 4, first: 4095, sectors: 2 },
  ])
  const table = await readPartitionTable(TestDisk.of([[0, sector]], 64 * MIB))
  t.is(table?.partitions.length, 3)
  t.deepEqual(table?.problems, ['partitions 1 and 4 overlap', 'partitions 4 and 2 overlap'])
})

for (const sectorBytes of [512, 4096]) {
  test(`a GPT with sectors of ${sectorBytes} bytes`, async (t) => {
    const disk = gptDisk({ sectorBytes, partitions: [[40n, 47n], undefined, [48n, 48n]] })
    const table = await readPartitionTable(disk)
    t.like(table, { kind: 'gpt', id: '77777777-7777-7777-7777-777777777777', sectorBytes })
    t.deepEqual(table?.problems, [])
    t.deepEqual(table?.partitions, [
      {
        ...{ number: 1, startBytes: 40 * sectorBytes, sizeBytes: 8 * sectorBytes },
        ...{ type: '0FC63DAF-8483-4772-8E79-3D69D8477DE4', typeName: 'Linux filesystem' },
        ...{ label: 'part 1', uuid: '01010101-0101-0101-0101-010101010101' },
        ...{ isBootable: false, isContainer: false },
      },
      {
        ...{ number: 3, startBytes: 48 * sectorBytes, sizeBytes: sectorBytes },
        ...{ type: '0FC63DAF-8483-4772-8E79-3D69D8477DE4', typeName: 'Linux filesystem' },
        ...{ label: 'part 3', uuid: '03030303-0303-0303-0303-030303030303' },
        ...{ isBootable: false, isContainer: false },
      },
    ])
  })
}

test('the copy at the end of the disk serves where the first header is damaged', async (t) => {
  const disk = gptDisk({ partitions: [[40n, 47n]] })
  disk.bytes.write(512 + 60, Buffer.from([1]))
  const table = await readPartitionTable(disk)
  t.deepEqual(places(table), [[1, 40 * 512, 8 * 512]])
  t.deepEqual(table?.problems, [
    'the first header is damaged (its checksum is wrong); this is its copy',
  ])
  const entries = gptDisk({ partitions: [[40n, 47n]] })
  entries.bytes.write(1024 + 60, Buffer.from([1]))
  t.regex((await readPartitionTable(entries))?.problems[0] ?? '', /entries' checksum is wrong/)
})

test('a damaged copy, and a disk that has grown, are told of', async (t) => {
  const damaged = gptDisk({ partitions: [[40n, 47n]] })
  damaged.bytes.write(64 * MIB - 512 + 60, Buffer.from([1]))
  t.deepEqual((await readPartitionTable(damaged))?.problems, [
    'its copy at the end of the disk is damaged (its checksum is wrong)',
  ])
  const grown = new TestDisk(65 * MIB, gptDisk({ partitions: [[40n, 47n]] }).bytes)
  t.deepEqual((await readPartitionTable(grown))?.problems, [
    'its copy is not at the end of the disk: the disk has grown',
  ])
  const cut = new TestDisk(63 * MIB, gptDisk({ partitions: [[40n, 47n]] }).bytes)
  t.deepEqual((await readPartitionTable(cut))?.problems, [
    'its copy is behind the end of the disk: the disk was cut',
  ])
})

test('both headers gone: the MBR alone announces what is not there', async (t) => {
  const disk = gptDisk({ partitions: [[40n, 47n]] })
  for (const at of [512, 64 * MIB - 512]) disk.bytes.write(at, Buffer.alloc(8))
  const table = await readPartitionTable(disk)
  t.like(table, { kind: 'mbr', partitions: [] })
  t.deepEqual(table?.problems, ['the MBR announces a GPT, and there is none'])
})

test('a GPT without its MBR is shown and doubted; an ordinary MBR in front of one counts', async (t) => {
  const bare = gptDisk({ partitions: [[40n, 47n]] })
  bare.bytes.write(0, Buffer.alloc(512))
  const table = await readPartitionTable(bare)
  t.is(table?.kind, 'gpt')
  t.deepEqual(table?.problems, ['there is no protective MBR: Linux ignores such a GPT'])
  bare.bytes.write(0, mbrSector([{ number: 1, first: 2048, sectors: 1 }]))
  t.is((await readPartitionTable(bare))?.kind, 'mbr')
})

test('a hybrid MBR is told of', async (t) => {
  const disk = gptDisk({ partitions: [[40n, 47n]] })
  disk.bytes.write(
    0,
    mbrSector([
      { number: 1, first: 1, sectors: 39, type: 0xee },
      { number: 2, first: 40, sectors: 8, type: 0x0c },
    ]),
  )
  const table = await readPartitionTable(disk)
  t.is(table?.kind, 'gpt')
  t.regex(table?.problems[0] ?? '', /hybrid/)
})

test('a GPT of absurd fields takes no memory and loses nothing else', async (t) => {
  const cases: Partial<GptPlan>[] = [
    { entries: 0xffffffff },
    { entries: 0 },
    { entryBytes: 129 },
    { entryBytes: 64 },
    { entries: 0x10000, entryBytes: 0x10000 },
  ]
  for (const plan of cases) {
    const disk = gptDisk({ partitions: [], ...plan })
    const table = await readPartitionTable(disk)
    t.deepEqual(table?.problems, ['the MBR announces a GPT, and there is none'])
    t.true(disk.readBytes < 100_000)
  }
})

test('partitions of a GPT that cannot be are left out one by one', async (t) => {
  const disk = gptDisk({
    partitions: [
      [40n, 47n],
      [60n, 50n],
      [0n, 50n],
      [100n, 2n ** 63n],
      [100n, 131_072n],
      [2n ** 62n, 2n ** 62n],
      [50n, 51n],
    ],
  })
  const table = await readPartitionTable(disk)
  t.deepEqual(places(table), [
    [1, 40 * 512, 8 * 512],
    [7, 50 * 512, 2 * 512],
  ])
  t.is(table?.problems.length, 5)
})

test('a partition over the table itself is told of', async (t) => {
  const table = await readPartitionTable(gptDisk({ partitions: [[3n, 47n]] }))
  t.deepEqual(table?.problems, ['partition 1 reaches out of the usable part of the disk'])
})

test('a reader that fails is the reader of the table that fails', async (t) => {
  const disk = { sizeBytes: MIB, read: () => Promise.reject(new Error('torn')) }
  await t.throwsAsync(readPartitionTable(disk), { message: 'torn' })
})
