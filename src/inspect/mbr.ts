/**
 * The master boot record and its chain of extended ones.
 *
 *   boot code 440 | disk id u32 | u16 | 4 entries of 16 bytes at 446 | 0x55 0xaa
 *   entry     flag u8 | chs 3 | type u8 | chs 3 | first sector u32 | sectors u32
 *
 * The second entry of an extended record leads to the next one, counted from the beginning of the extended partition.
 */
import { type DiskView, readWithin } from './disk.js'
import { mbrTypeName } from './partition-types.js'
import type { Partition, PartitionTable } from './partitions.js'

const SECTOR_BYTES = 512
const ID_OFFSET = 440
const ENTRIES_OFFSET = 446
const ENTRY_BYTES = 16
const EXTENDED_TYPES: readonly number[] = [0x05, 0x0f, 0x85]
const GPT_TYPE = 0xee
const FIRST_LOGICAL = 5
/** What boot sectors of FAT and NTFS begin with. */
const JUMPS: readonly number[] = [0xeb, 0xe9]
/** Extended records followed; Linux stops at 256 partitions. */
const CHAIN_MAX = 256

export interface Mbr extends PartitionTable {
  /** It stands in front of a GPT. */
  readonly isProtective: boolean
}

interface Entry {
  readonly isBootable: boolean
  readonly type: number
  readonly first: number
  readonly sectors: number
}

/**
 * `sector`: the disk's first 512 bytes. Undefined when that is no table: boot sectors of file systems end with the same
 * two bytes, and are told apart by their flags.
 */
export async function readMbr(disk: DiskView, sector: Buffer): Promise<Mbr | undefined> {
  const entries = entriesOf(sector)
  if (entries === undefined) return undefined
  const id = sector.readUInt32LE(ID_OFFSET).toString(16).padStart(8, '0')
  const problems: string[] = []
  const partitions: Partition[] = []
  const add = (number: number, entry: Entry, firstSector: number): void => {
    const partition = partitionOf({ id, number, entry, firstSector })
    if (isInside(disk, partition)) partitions.push(partition)
    else problems.push(`partition ${number} does not lie on the disk`)
  }
  for (const [i, entry] of entries.entries()) {
    if (!isUsed(entry)) continue
    add(i + 1, entry, entry.first)
  }
  // Where nothing lies on the disk it is the code of a boot sector rather than a table.
  const isBootSector = problems.length > 0 || JUMPS.includes(sector[0]!)
  if (partitions.length === 0 && isBootSector) return undefined
  let next = FIRST_LOGICAL
  for (const entry of entries) {
    if (!EXTENDED_TYPES.includes(entry.type)) continue
    const chain = await followChain(disk, entry)
    problems.push(...chain.problems)
    for (const { logical, firstSector } of chain.found) add(next++, logical, firstSector)
  }
  const isProtective = entries.some((entry) => entry.type === GPT_TYPE)
  return { kind: 'mbr', id, sectorBytes: SECTOR_BYTES, partitions, problems, isProtective }
}

function entriesOf(sector: Buffer): Entry[] | undefined {
  if (sector[510] !== 0x55 || sector[511] !== 0xaa) return undefined
  const entries: Entry[] = []
  for (let i = 0; i < 4; i++) {
    const at = ENTRIES_OFFSET + i * ENTRY_BYTES
    const flag = sector[at]!
    if (flag !== 0 && flag !== 0x80) return undefined
    entries.push({
      isBootable: flag === 0x80,
      type: sector[at + 4]!,
      first: sector.readUInt32LE(at + 8),
      sectors: sector.readUInt32LE(at + 12),
    })
  }
  return entries
}

function isUsed(entry: Entry): boolean {
  return entry.type !== 0 && entry.sectors !== 0
}

function isInside(disk: DiskView, partition: Partition): boolean {
  const { startBytes, sizeBytes, type } = partition
  if (startBytes === 0) return false
  // What stands in front of a GPT may claim as much as its fields hold.
  return startBytes + sizeBytes <= disk.sizeBytes || (type === 'ee' && startBytes < disk.sizeBytes)
}

function partitionOf(of: {
  readonly id: string
  readonly number: number
  readonly entry: Entry
  readonly firstSector: number
}): Partition {
  const { id, number, entry, firstSector } = of
  return {
    number,
    startBytes: firstSector * SECTOR_BYTES,
    sizeBytes: entry.sectors * SECTOR_BYTES,
    type: entry.type.toString(16).padStart(2, '0'),
    typeName: mbrTypeName(entry.type),
    label: '',
    uuid: `${id}-${number.toString(16).padStart(2, '0')}`,
    isBootable: entry.isBootable,
    isContainer: EXTENDED_TYPES.includes(entry.type),
  }
}

interface Chain {
  readonly found: readonly { readonly logical: Entry; readonly firstSector: number }[]
  readonly problems: readonly string[]
}

/** Ends at the first record that is none, or was met before. */
async function followChain(disk: DiskView, extended: Entry): Promise<Chain> {
  const found: { logical: Entry; firstSector: number }[] = []
  const met = new Set<number>()
  let at: number | undefined = extended.first
  while (at !== undefined) {
    if (met.has(at)) return { found, problems: ['the logical partitions lead in a circle'] }
    if (met.size === CHAIN_MAX)
      return { found, problems: ['there are too many logical partitions'] }
    met.add(at)
    const record: number = at
    const sector = await readWithin(disk, record * SECTOR_BYTES, SECTOR_BYTES)
    const entries = sector === undefined ? undefined : entriesOf(sector)
    if (entries === undefined) {
      return { found, problems: [`the logical partitions break off at sector ${record}`] }
    }
    for (const logical of entries) {
      if (!isUsed(logical) || EXTENDED_TYPES.includes(logical.type)) continue
      if (logical.first > 0) found.push({ logical, firstSector: record + logical.first })
    }
    const link = entries.find((entry) => EXTENDED_TYPES.includes(entry.type) && isUsed(entry))
    at = link === undefined ? undefined : extended.first + link.first
  }
  return { found, problems: [] }
}
