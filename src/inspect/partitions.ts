/** The partition table of a disk, whichever kind it has. */
import { type DiskView, readWithin } from './disk.js'
import { readGpt } from './gpt.js'
import { type Mbr, readMbr } from './mbr.js'

export interface Partition {
  /** As Linux counts: 1 to 4 in an MBR, its logical ones from 5 on; the place of the entry in a GPT. */
  readonly number: number
  readonly startBytes: number
  readonly sizeBytes: number
  /** Two hex digits of an MBR, a GUID of a GPT. */
  readonly type: string
  /** Undefined for a type nobody here knows. */
  readonly typeName: string | undefined
  /** What a GPT calls it; empty in an MBR. */
  readonly label: string
  /** As Linux shows it as PARTUUID. */
  readonly uuid: string
  readonly isBootable: boolean
  /** An extended partition: it holds the logical ones and nothing of its own. */
  readonly isContainer: boolean
}

/** Every partition lies inside the disk; those that do not are among the problems. */
export interface PartitionTable {
  readonly kind: 'mbr' | 'gpt'
  /** Eight hex digits of an MBR, the GUID of a GPT. */
  readonly id: string
  readonly sectorBytes: number
  /** In the order of their numbers. */
  readonly partitions: readonly Partition[]
  /** Sentences about what is damaged or cannot be. */
  readonly problems: readonly string[]
}

/** Stands in an MBR for the GPT behind it, and is no partition. */
const PROTECTIVE_TYPE = 'ee'

/** Undefined for a disk without any. Rejects with the reader's error. */
export async function readPartitionTable(disk: DiskView): Promise<PartitionTable | undefined> {
  const sector = await readWithin(disk, 0, 512)
  if (sector === undefined) return undefined
  const mbr = await readMbr(disk, sector)
  // As Linux does it: a GPT counts when the MBR says so, or has nothing to say.
  if (mbr !== undefined && !mbr.isProtective) return withOverlaps(mbr)
  const gpt = await readGpt(disk)
  if (gpt !== undefined) return withOverlaps(withMbrProblems(gpt, mbr))
  if (mbr === undefined) return undefined
  const partitions = mbr.partitions.filter(({ type }) => type !== PROTECTIVE_TYPE)
  const problems = ['the MBR announces a GPT, and there is none', ...mbr.problems]
  return withOverlaps({ ...mbr, partitions, problems })
}

function withMbrProblems(gpt: PartitionTable, mbr: Mbr | undefined): PartitionTable {
  const problems = [...gpt.problems]
  if (mbr === undefined) problems.push('there is no protective MBR: Linux ignores such a GPT')
  else if (mbr.partitions.length > 1) {
    problems.push('the MBR has partitions beside the GPT (hybrid MBR); the GPT is shown')
  }
  return { ...gpt, problems }
}

/** Names one neighbour of each partition that begins before another one ends. */
function withOverlaps(table: PartitionTable): PartitionTable {
  const plain = table.partitions.filter(({ isContainer }) => !isContainer)
  const sorted = [...plain].sort((a, b) => a.startBytes - b.startBytes)
  const problems = [...table.problems]
  let last: Partition | undefined
  for (const partition of sorted) {
    if (last !== undefined && partition.startBytes < last.startBytes + last.sizeBytes) {
      problems.push(`partitions ${last.number} and ${partition.number} overlap`)
    }
    const end = partition.startBytes + partition.sizeBytes
    if (last === undefined || end > last.startBytes + last.sizeBytes) last = partition
  }
  const { kind, id, sectorBytes, partitions } = table
  return { kind, id, sectorBytes, partitions, problems }
}
