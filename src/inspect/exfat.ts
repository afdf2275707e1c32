/** exFAT (Microsoft, "exFAT file system specification"): the boot sector, and the label from the root directory. */
import type { Prober } from './content.js'
import { type DiskView, readWithin, times, wideTextOf } from './disk.js'

const NAME = Buffer.from('EXFAT   ')
const LABEL_ENTRY = 0x83
const ENTRY_BYTES = 32
const LABEL_LETTERS_MAX = 11
/** Of the root directory; the label is one of its first entries. */
const ROOT_BYTES_MAX = 4096
const UNKNOWN_PERCENT = 0xff

export const exfat: Prober = {
  type: 'exfat',
  async probe(head, disk) {
    if (head.length < 512 || !head.subarray(3, 11).equals(NAME)) return undefined
    const [sectorShift, clusterShift] = [head[108]!, head[109]!]
    if (sectorShift < 9 || sectorShift > 12 || clusterShift > 25 - sectorShift) return undefined
    const sectorBytes = 2 ** sectorShift
    const clusterBytes = sectorBytes * 2 ** clusterShift
    const heapAt = head.readUInt32LE(88) * sectorBytes
    const serial = head.readUInt32LE(100).toString(16).toUpperCase().padStart(8, '0')
    const percent = head[112]!
    const heapBytes = head.readUInt32LE(92) * clusterBytes
    const isTold = percent <= 100 && percent !== UNKNOWN_PERCENT
    const usedBytes = isTold ? Math.round((heapBytes * percent) / 100) : undefined
    return {
      type: 'exfat',
      label: await rootLabel(disk, heapAt + (head.readUInt32LE(96) - 2) * clusterBytes),
      uuid: `${serial.slice(0, 4)}-${serial.slice(4)}`,
      blockBytes: clusterBytes,
      sizeBytes: times(head.readBigUInt64LE(72), sectorBytes),
      usedBytes,
      freeBytes: usedBytes === undefined ? undefined : heapBytes - usedBytes,
      details: isTold ? ['usage to whole percents'] : [],
    }
  },
}

async function rootLabel(disk: DiskView, at: number): Promise<string> {
  const root = await readWithin(disk, at, ROOT_BYTES_MAX)
  if (root === undefined) return ''
  for (let i = 0; i < root.length && root[i] !== 0; i += ENTRY_BYTES) {
    if (root[i] !== LABEL_ENTRY) continue
    const letters = Math.min(root[i + 1]!, LABEL_LETTERS_MAX)
    return wideTextOf(root.subarray(i + 2, i + 2 + 2 * letters))
  }
  return ''
}
