// What disks hold, from excerpts of real ones, and what becomes of them when somebody changes bytes: the reader never
// asks for what is not on the disk, never for much, and always ends.
import test from 'ava'
import type { Content } from '../../src/inspect/content.js'
import { inspectDisk } from '../../src/inspect/inspect.js'
import { excerptOf, goldenDisk, mbrSector, TestDisk } from './support/disk-bytes.js'
import { withSeeds } from './support/seeds.js'

const MIB = 1024 * 1024
/** The tables of FAT16 and the bitmap of NTFS are counted: nothing else is of any size. */
const READ_BYTES_MAX = 8 * MIB

const GOLDEN: Readonly<Record<string, Partial<Content>>> = {
  ext2: {
    ...{ type: 'ext2', label: 'e2', blockBytes: 1024, sizeBytes: 16777216 },
    ...{ usedBytes: 1201152, freeBytes: 15576064 },
  },
  ext4: {
    ...{ type: 'ext4', label: 'root fs', uuid: 'bcdd0c63-1175-40be-b85d-3c15f111f0f1' },
    ...{ blockBytes: 1024, sizeBytes: 67108864, usedBytes: 9741312, freeBytes: 57367552 },
  },
  xfs: {
    ...{ type: 'xfs', version: '5', label: 'xlabel', uuid: '0d5a1759-5112-46f6-aa7e-475633777309' },
    ...{ blockBytes: 4096, sizeBytes: 335544320, freeBytes: 268304384 },
  },
  btrfs: {
    ...{ type: 'btrfs', label: 'b label', uuid: '000ba667-abc8-463b-ae83-78b99a799ffc' },
    ...{ sizeBytes: 134217728, usedBytes: 147456 },
  },
  fat12: {
    ...{ type: 'vfat', version: 'FAT12', label: 'TWELVE', uuid: '3F91-B68B' },
    ...{ sizeBytes: 2 * MIB, usedBytes: 0, freeBytes: 2076672 },
  },
  fat16: {
    ...{ type: 'vfat', version: 'FAT16', label: 'SIXTEEN', uuid: '3F91-E515' },
    ...{ sizeBytes: 20 * MIB, usedBytes: 0, freeBytes: 20912128 },
  },
  fat32: {
    ...{ type: 'vfat', version: 'FAT32', label: 'THIRTYTWO', uuid: '3F92-2DBD' },
    ...{ sizeBytes: 64 * MIB, usedBytes: 512, freeBytes: 66058752 },
  },
  exfat: {
    ...{ type: 'exfat', label: 'exlabel', uuid: 'FB8B-F3F9', blockBytes: 4096 },
    ...{ sizeBytes: 33554432, usedBytes: 0, freeBytes: 31457280 },
  },
  ntfs: {
    ...{ type: 'ntfs', version: '3.1', label: 'n label', uuid: '1785B5775442A57D' },
    ...{ blockBytes: 4096, sizeBytes: 16773120, usedBytes: 2560000, freeBytes: 14213120 },
  },
  iso9660: {
    ...{ type: 'iso9660', version: 'Joliet', label: 'An Iso', uuid: '2026-11-21-23-06-33-00' },
    ...{ blockBytes: 2048, sizeBytes: 372736, freeBytes: 0 },
  },
  swap: {
    ...{ type: 'swap', label: 'swp', uuid: '56e12fa3-0877-4ca8-9ead-a0e03b21648d' },
    ...{ blockBytes: 4096, sizeBytes: 8 * MIB },
  },
  luks1: {
    ...{ type: 'crypto_LUKS', version: '1', uuid: '429b0063-2f73-4562-8d1b-752d985c7aea' },
    ...{ label: '', sizeBytes: 31457280, details: ['aes-xts-plain64'] },
  },
  luks2: {
    ...{ type: 'crypto_LUKS', version: '2', uuid: '8f3738d1-1c64-4166-a01f-19b453a6845d' },
    ...{ label: 'lks' },
  },
  lvm: {
    ...{ type: 'LVM2_member', uuid: 'GGksZT-dUTL-dLB8-D0Mj-lKvn-0y9S-h54u7f' },
    ...{ sizeBytes: 32 * MIB, details: ['volume group vgtest'] },
  },
  qcow2: { type: 'qcow2', version: '3', sizeBytes: 1024 * MIB, blockBytes: 65536 },
}
const NAMES = Object.keys(GOLDEN)

for (const name of NAMES) {
  test(`${name}: type, label, id, size and usage`, async (t) => {
    const { content, table } = await inspectDisk(goldenDisk(name))
    t.is(table, undefined)
    t.like(content, { ...GOLDEN[name], problems: [] })
  })

  test(`${name}: the same inside a partition`, async (t) => {
    const inner = goldenDisk(name)
    const startBytes = 3 * MIB
    const outer = new TestDisk(startBytes + inner.sizeBytes + MIB)
    const sectors = inner.sizeBytes / 512
    outer.bytes.write(0, mbrSector([{ number: 1, first: startBytes / 512, sectors }]))
    for (let at = 0; at < inner.sizeBytes; at += MIB) {
      const length = Math.min(MIB, inner.sizeBytes - at)
      const part = inner.bytes.read(at, length)
      if (!part.every((byte) => byte === 0)) outer.bytes.write(startBytes + at, part)
    }
    const { content, partitions } = await inspectDisk(outer)
    t.is(content, undefined)
    t.like(partitions[0]?.content, { ...GOLDEN[name], problems: [] })
  })

  test(`${name}: whatever bytes are changed, it ends, and asks for little that is there`, async (t) => {
    await withSeeds(150, async (seed) => {
      const disk = mutated(name, seed)
      const found = await inspectDisk(disk)
      for (const content of [found.content, ...found.partitions.map((one) => one.content)]) {
        for (const bytes of [content?.sizeBytes, content?.usedBytes, content?.freeBytes]) {
          if (bytes !== undefined && !(Number.isSafeInteger(bytes) && bytes >= 0)) {
            throw new Error(`${bytes} bytes`)
          }
        }
      }
      if (disk.readBytes > READ_BYTES_MAX) throw new Error(`${disk.readBytes} bytes read`)
    })
    t.pass()
  })
}

/** Some bytes of those that are not zero, or next to them, replaced; sometimes the disk is cut. */
function mutated(name: string, seed: number): TestDisk {
  const disk = goldenDisk(name)
  const { parts } = excerptOf(name)
  let state = seed * 2_654_435_761
  const below = (limit: number): number => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0
    return ((state ^ (state >>> 13)) >>> 0) % limit
  }
  for (let i = below(24) + 1; i > 0; i--) {
    const [at] = parts[below(parts.length)]!
    const evil = [0, 0xff, 0x7f, 0x80, 1, below(256)][below(6)]!
    disk.bytes.write(at + below(16), Buffer.alloc(below(8) + 1, evil))
  }
  const sizeBytes = below(4) === 0 ? below(disk.sizeBytes) : disk.sizeBytes
  return new TestDisk(sizeBytes, disk.bytes)
}

test('a damaged superblock is shown with what is wrong with it', async (t) => {
  for (const [name, at] of [
    ['ext4', 1024 + 200],
    ['xfs', 180],
    ['btrfs', 65536 + 900],
    ['lvm', 512 + 90],
  ] as const) {
    const disk = goldenDisk(name)
    disk.bytes.write(at, Buffer.from([0x5a]))
    const { content } = await inspectDisk(disk)
    t.regex(content?.problems?.join() ?? '', /checksum is wrong/, name)
  }
})

test('counters that contradict the size are not repeated as if they were true', async (t) => {
  const disk = goldenDisk('ext2')
  disk.bytes.write(1024 + 12, Buffer.from('ffffff7f', 'hex'))
  const { content } = await inspectDisk(disk)
  t.is(content?.usedBytes, undefined)
  t.is(content?.freeBytes, undefined)
  t.deepEqual(content?.problems, ['its counters of used and free space cannot be'])
})

test('a file system larger than its disk is told of', async (t) => {
  const cut = new TestDisk(8 * MIB, goldenDisk('ext2').bytes)
  const { content } = await inspectDisk(cut)
  t.regex(content?.problems?.join() ?? '', /do not fit into the 8388608 bytes/)
})

test('a torn record of NTFS is not believed', async (t) => {
  const disk = goldenDisk('ntfs')
  const boot = disk.bytes.read(0, 512)
  const record = Number(boot.readBigUInt64LE(48)) * 4096 + 3 * 1024
  disk.bytes.write(record + 510, Buffer.from([0xee, 0xee]))
  const { content } = await inspectDisk(disk)
  t.like(content, { type: 'ntfs', label: '', problems: ['its master file table cannot be read'] })
})

test('little is read of a disk of a petabyte', async (t) => {
  const disk = new TestDisk(2 ** 50, goldenDisk('ext4').bytes)
  await inspectDisk(disk)
  t.true(disk.readBytes < 200_000)
})

test('a disk of zeros, and of a few bytes, holds nothing', async (t) => {
  for (const size of [0, 1, 511, 512, 4096, 100_000, 10 * MIB]) {
    const found = await inspectDisk(new TestDisk(size))
    t.deepEqual(found, { sizeBytes: size, table: undefined, partitions: [], content: undefined })
  }
})
