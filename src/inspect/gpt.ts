/**
 * The GUID partition table (UEFI 2.10, section 5.3): a header behind the MBR and a copy in the last sector, each with a
 * checksum of its own and one of the entries it points to. Sectors are of 512 bytes, or of 4096.
 *
 *   'EFI PART' | revision u32 | header bytes u32 | header crc u32 | 0 u32 | own sector u64 | the other's u64
 *   first usable u64 | last usable u64 | disk guid 16 | entries' sector u64 | entries u32 | entry bytes u32 | crc u32
 *
 *   entry   type guid 16 | guid 16 | first sector u64 | last sector u64 | attributes u64 | name 72 (UTF-16)
 */
import { crc32 } from '../base/crc32.js'
import { type DiskView, guidText, isPowerOfTwo, readWithin, safe, wideTextOf } from './disk.js'
import { gptTypeName } from './partition-types.js'
import type { Partition, PartitionTable } from './partitions.js'

const SIGNATURE = Buffer.from('EFI PART')
const SECTOR_SIZES = [512, 4096] as const
const HEADER_BYTES_MIN = 92
const CRC_OFFSET = 16
const ENTRY_BYTES_MIN = 128
/** Of all entries; the usual 128 take 16 KiB. */
const ENTRIES_BYTES_MAX = 1024 * 1024
const NAME_OFFSET = 56
const NAME_BYTES = 72
/** Legacy BIOS bootable. */
const BOOTABLE = 4n

interface Header {
  readonly sectorBytes: number
  readonly id: string
  readonly otherSector: number
  readonly firstUsable: number
  readonly lastUsable: number
  readonly entries: Buffer
  readonly entryBytes: number
}

/** Of one of the two headers: its content, what is wrong with it, or undefined where there is none at all. */
type Found = Header | string | undefined

/** Undefined for a disk without any; the second header serves where the first is damaged. */
export async function readGpt(disk: DiskView): Promise<PartitionTable | undefined> {
  for (const sectorBytes of SECTOR_SIZES) {
    const table = await readWith(disk, sectorBytes)
    if (table !== undefined) return table
  }
  return undefined
}

async function readWith(disk: DiskView, sectorBytes: number): Promise<PartitionTable | undefined> {
  const first = await readHeader(disk, sectorBytes, 1)
  const lastSector = Math.floor(disk.sizeBytes / sectorBytes) - 1
  const problems: string[] = []
  if (typeof first === 'object') {
    const second = await readHeader(disk, sectorBytes, first.otherSector)
    if (first.otherSector !== lastSector && typeof second === 'object') {
      problems.push('its copy is not at the end of the disk: the disk has grown')
    } else if (first.otherSector > lastSector) {
      problems.push('its copy is behind the end of the disk: the disk was cut')
    } else if (typeof second !== 'object') {
      problems.push(`its copy at the end of the disk is damaged (${second ?? 'no header'})`)
    } else if (!second.entries.equals(first.entries)) {
      problems.push('its copy at the end of the disk has other partitions')
    }
    return tableOf(disk, first, problems)
  }
  const second = await readHeader(disk, sectorBytes, lastSector)
  if (typeof second === 'object') {
    problems.push(`the first header is damaged (${first ?? 'no header'}); this is its copy`)
    return tableOf(disk, second, problems)
  }
  return undefined
}

async function readHeader(disk: DiskView, sectorBytes: number, at: number): Promise<Found> {
  const sector = await readWithin(disk, at * sectorBytes, sectorBytes)
  if (sector === undefined || !sector.subarray(0, 8).equals(SIGNATURE)) return undefined
  const headerBytes = sector.readUInt32LE(12)
  if (headerBytes < HEADER_BYTES_MIN || headerBytes > sectorBytes) return 'its length is wrong'
  const checked = Buffer.from(sector.subarray(0, headerBytes))
  checked.writeUInt32LE(0, CRC_OFFSET)
  if (crc32(checked) !== sector.readUInt32LE(CRC_OFFSET)) return 'its checksum is wrong'
  const [own, other, firstUsable, lastUsable, entriesAt] = [24, 32, 40, 48, 72].map((offset) =>
    safe(sector.readBigUInt64LE(offset)),
  )
  if (own !== at) return 'it belongs elsewhere'
  const count = sector.readUInt32LE(80)
  const entryBytes = sector.readUInt32LE(84)
  const isSane =
    entryBytes >= ENTRY_BYTES_MIN &&
    isPowerOfTwo(entryBytes) &&
    count > 0 &&
    count * entryBytes <= ENTRIES_BYTES_MAX
  const areSafe = other !== undefined && firstUsable !== undefined && lastUsable !== undefined
  if (!isSane || !areSafe || entriesAt === undefined) return 'its fields cannot be'
  const entries = await readWithin(disk, entriesAt * sectorBytes, count * entryBytes)
  if (entries === undefined) return 'its entries are not on the disk'
  if (crc32(entries) !== sector.readUInt32LE(88)) return "its entries' checksum is wrong"
  const id = guidText(sector.subarray(56, 72))
  return { sectorBytes, id, otherSector: other, firstUsable, lastUsable, entries, entryBytes }
}

function tableOf(disk: DiskView, header: Header, problems: string[]): PartitionTable {
  const { entries, entryBytes, sectorBytes, id } = header
  const partitions: Partition[] = []
  for (let at = 0, number = 1; at < entries.length; at += entryBytes, number++) {
    const entry = entries.subarray(at, at + entryBytes)
    if (entry.subarray(0, 16).every((byte) => byte === 0)) continue
    const range = rangeOf(entry, header)
    const endBytes = range === undefined ? 0 : (range.last + 1) * sectorBytes
    if (range === undefined || endBytes > disk.sizeBytes) {
      problems.push(`partition ${number} does not lie on the disk`)
      continue
    }
    if (range.first < header.firstUsable || range.last > header.lastUsable) {
      problems.push(`partition ${number} reaches out of the usable part of the disk`)
    }
    const startBytes = range.first * sectorBytes
    partitions.push(partitionOf(entry, { number, startBytes, sizeBytes: endBytes - startBytes }))
  }
  return { kind: 'gpt', id, sectorBytes, partitions, problems }
}

function rangeOf(
  entry: Buffer,
  { sectorBytes }: Header,
): { readonly first: number; readonly last: number } | undefined {
  const first = safe(entry.readBigUInt64LE(32))
  const last = safe(entry.readBigUInt64LE(40))
  if (first === undefined || last === undefined || first === 0 || last < first) return undefined
  return Number.isSafeInteger((last + 1) * sectorBytes) ? { first, last } : undefined
}

function partitionOf(
  entry: Buffer,
  place: Pick<Partition, 'number' | 'startBytes' | 'sizeBytes'>,
): Partition {
  const type = guidText(entry.subarray(0, 16))
  return {
    ...place,
    type,
    typeName: gptTypeName(type),
    label: wideTextOf(entry.subarray(NAME_OFFSET, NAME_OFFSET + NAME_BYTES)),
    uuid: guidText(entry.subarray(16, 32)).toLowerCase(),
    isBootable: (entry.readBigUInt64LE(48) & BOOTABLE) !== 0n,
    isContainer: false,
  }
}
