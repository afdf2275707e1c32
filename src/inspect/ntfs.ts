/**
 * NTFS: the boot sector, the label and the state from the file $Volume, and how many clusters are used from the file
 * $Bitmap where that is small (structure: the Linux-NTFS project's documentation).
 *
 * Records of the master file table are protected against torn writes: the last two bytes of each sector are the record's
 * number of updates, and what belongs there stands in its head.
 */
import type { Content, Prober } from './content.js'
import { type DiskView, isPowerOfTwo, readWithin, times, wideTextOf } from './disk.js'

const NAME = Buffer.from('NTFS    ')
const RECORD_BYTES_MAX = 64 * 1024
const SECTOR_BYTES = 512
const VOLUME_RECORD = 3
const BITMAP_RECORD = 6
const ATTRIBUTES_MAX = 64
const RUNS_MAX = 4096
/** Of $Bitmap; with the usual clusters of 4 KiB enough for 128 GiB. */
const BITMAP_BYTES_MAX = 4 * 1024 * 1024
const Attribute = {
  VOLUME_NAME: 0x60,
  VOLUME_INFORMATION: 0x70,
  DATA: 0x80,
  END: 0xffffffff,
} as const
const DIRTY = 0x1

interface Layout {
  readonly clusterBytes: number
  readonly clusters: number
  readonly tableAt: number
  readonly recordBytes: number
}

export const ntfs: Prober = {
  type: 'ntfs',
  async probe(head, disk) {
    if (head.length < 512 || !head.subarray(3, 11).equals(NAME)) return undefined
    const layout = layoutOf(head)
    if (layout === undefined) return undefined
    const { clusterBytes, clusters } = layout
    const volume = await readRecord(disk, layout, VOLUME_RECORD)
    const used = await countUsed(disk, layout)
    const information = volume && residentOf(volume, Attribute.VOLUME_INFORMATION)
    const isDirty =
      information !== undefined &&
      information.length >= 12 &&
      (information.readUInt16LE(10) & DIRTY) !== 0
    const name = volume && residentOf(volume, Attribute.VOLUME_NAME)
    const content: Content = {
      type: 'ntfs',
      version:
        information === undefined || information.length < 10
          ? undefined
          : `${information[8]}.${information[9]}`,
      label: name === undefined ? '' : wideTextOf(name),
      uuid: head.readBigUInt64LE(72).toString(16).toUpperCase().padStart(16, '0'),
      blockBytes: clusterBytes,
      sizeBytes: times(clusters, clusterBytes),
      usedBytes: used === undefined ? undefined : times(used, clusterBytes),
      freeBytes: used === undefined ? undefined : times(clusters - used, clusterBytes),
      details: isDirty ? ['to be checked'] : [],
      problems: volume === undefined ? ['its master file table cannot be read'] : [],
    }
    return content
  },
}

function layoutOf(head: Buffer): Layout | undefined {
  const sectorBytes = head.readUInt16LE(11)
  const isSane = isPowerOfTwo(sectorBytes) && sectorBytes >= 256 && sectorBytes <= 4096
  const perCluster = head[13]! <= 128 ? head[13]! : 2 ** (256 - head[13]!)
  const clusterBytes = sectorBytes * perCluster
  if (!isSane || !isPowerOfTwo(perCluster) || clusterBytes > 2 * 1024 * 1024) return undefined
  const sectors = times(head.readBigUInt64LE(40), 1)
  const tableAt = times(head.readBigUInt64LE(48), clusterBytes)
  const told = head.readInt8(64)
  const recordBytes = told > 0 ? told * clusterBytes : 2 ** -told
  const isRecord =
    isPowerOfTwo(recordBytes) && recordBytes >= 512 && recordBytes <= RECORD_BYTES_MAX
  if (sectors === undefined || tableAt === undefined || !isRecord) return undefined
  return { clusterBytes, clusters: Math.floor(sectors / perCluster), tableAt, recordBytes }
}

/** With its sectors' ends put right; undefined for what is no record, or a torn one. */
async function readRecord(
  disk: DiskView,
  { tableAt, recordBytes }: Layout,
  number: number,
): Promise<Buffer | undefined> {
  const read = await readWithin(disk, tableAt + number * recordBytes, recordBytes)
  if (read === undefined || read.toString('latin1', 0, 4) !== 'FILE') return undefined
  const record = Buffer.from(read)
  const [at, count] = [record.readUInt16LE(4), record.readUInt16LE(6)]
  const sectors = recordBytes / SECTOR_BYTES
  if (count !== sectors + 1 || at + 2 * count > SECTOR_BYTES - 2) return undefined
  for (let i = 1; i <= sectors; i++) {
    const end = i * SECTOR_BYTES - 2
    if (record.readUInt16LE(end) !== record.readUInt16LE(at)) return undefined
    record.writeUInt16LE(record.readUInt16LE(at + 2 * i), end)
  }
  return record
}

/** The first attribute of a type without a name, from its head on. */
function attributeOf(record: Buffer, type: number): Buffer | undefined {
  let at = record.readUInt16LE(20)
  for (let i = 0; i < ATTRIBUTES_MAX && at + 24 <= record.length; i++) {
    const found = record.readUInt32LE(at)
    const length = record.readUInt32LE(at + 4)
    if (found === Attribute.END || length < 24 || at + length > record.length) return undefined
    if (found === type && record[at + 9] === 0) return record.subarray(at, at + length)
    at += length
  }
  return undefined
}

function residentOf(record: Buffer, type: number): Buffer | undefined {
  const attribute = attributeOf(record, type)
  if (attribute === undefined || attribute[8] !== 0) return undefined
  const [length, at] = [attribute.readUInt32LE(16), attribute.readUInt16LE(20)]
  return at + length <= attribute.length ? attribute.subarray(at, at + length) : undefined
}

/** Used clusters; undefined where the bitmap is too large, or not as it should be. */
async function countUsed(disk: DiskView, layout: Layout): Promise<number | undefined> {
  const record = await readRecord(disk, layout, BITMAP_RECORD)
  const attribute = record && attributeOf(record, Attribute.DATA)
  const bytes = Math.ceil(layout.clusters / 8)
  if (attribute === undefined || attribute[8] !== 1 || attribute.length < 64) return undefined
  if (bytes > BITMAP_BYTES_MAX) return undefined
  let left = bytes
  let used = 0
  for (const { first, count } of runsOf(attribute)) {
    const length = Math.min(left, count * layout.clusterBytes)
    const part = await readWithin(disk, first * layout.clusterBytes, length)
    if (part === undefined) return undefined
    used += bitsOf(part, (bytes - left) * 8, layout.clusters)
    left -= length
    if (left === 0) return used
  }
  return undefined
}

/** Set bits before number `end`; the first one of `part` has number `from`. */
function bitsOf(part: Buffer, from: number, end: number): number {
  let count = 0
  for (const [i, byte] of part.entries()) {
    const room = end - from - i * 8
    let rest = room >= 8 ? byte : byte & (2 ** Math.max(0, room) - 1)
    for (; rest !== 0; rest &= rest - 1) count++
  }
  return count
}

/** Clusters an attribute's bytes lie in; ends early at what cannot be. */
function* runsOf(attribute: Buffer): Generator<{ readonly first: number; readonly count: number }> {
  let at = attribute.readUInt16LE(32)
  let first = 0
  for (let i = 0; i < RUNS_MAX && at < attribute.length && attribute[at] !== 0; i++) {
    const [counts, offsets] = [attribute[at]! & 0xf, attribute[at]! >> 4]
    const isSane = counts > 0 && counts <= 6 && offsets > 0 && offsets <= 6
    if (!isSane || at + 1 + counts + offsets > attribute.length) return
    const count = attribute.readUIntLE(at + 1, counts)
    first += attribute.readIntLE(at + 1 + counts, offsets)
    if (first < 0 || count === 0) return
    yield { first, count }
    at += 1 + counts + offsets
  }
}
