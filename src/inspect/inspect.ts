/** "What is on this disk": its partitions and what they hold, without attaching it. */
import { btrfs } from './btrfs.js'
import { luks, lvm, qcow2, raid, swap } from './containers.js'
import { type Content, type Prober, probe } from './content.js'
import { type DiskView, sliceOf } from './disk.js'
import { exfat } from './exfat.js'
import { ext } from './ext.js'
import { fat } from './fat.js'
import { iso9660 } from './iso9660.js'
import { ntfs } from './ntfs.js'
import { type Partition, type PartitionTable, readPartitionTable } from './partitions.js'
import { xfs } from './xfs.js'

/** The more certain their signature, the earlier: FAT has hardly any. */
const PROBERS: readonly Prober[] = [
  ...[luks, lvm, raid, qcow2, xfs, btrfs, ext, swap],
  ...[iso9660, ntfs, exfat, fat],
]

/** Partitions looked into; a GPT may have thousands. */
export const PARTITIONS_PROBED_MAX = 256

export interface InspectedPartition extends Partition {
  /** Undefined: nothing we know, or an extended partition. */
  readonly content: Content | undefined
}

export interface Inspection {
  readonly sizeBytes: number
  readonly table: Omit<PartitionTable, 'partitions'> | undefined
  readonly partitions: readonly InspectedPartition[]
  /** What the disk as a whole holds, beside or without partitions. */
  readonly content: Content | undefined
}

/** Reads little: some hundred KiB a partition. Rejects with the reader's error. */
export async function inspectDisk(disk: DiskView): Promise<Inspection> {
  const found = await readPartitionTable(disk)
  const content = await probe(disk, PROBERS)
  if (found === undefined || (found.partitions.length === 0 && content !== undefined)) {
    return { sizeBytes: disk.sizeBytes, table: undefined, partitions: [], content }
  }
  const { partitions, ...table } = found
  const inspected: InspectedPartition[] = []
  for (const partition of partitions) {
    const { startBytes, sizeBytes, isContainer } = partition
    const isProbed = !isContainer && inspected.length < PARTITIONS_PROBED_MAX
    const part = sliceOf(disk, startBytes, sizeBytes)
    inspected.push({ ...partition, content: isProbed ? await probe(part, PROBERS) : undefined })
  }
  return { sizeBytes: disk.sizeBytes, table, partitions: inspected, content }
}
