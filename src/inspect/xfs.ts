/** XFS: the superblock in its first sector, big endian (Linux, fs/xfs/libxfs/xfs_format.h; XFS Algorithms & Data Structures). */
import { crc32c } from '../base/crc32.js'
import type { Content, Prober } from './content.js'
import { isPowerOfTwo, textOf, times, uuidText } from './disk.js'

const MAGIC = Buffer.from('XFSB')
const HEADER_BYTES = 264
const CHECKSUM_AT = 224
const VERSION_MASK = 0xf
const WITH_CHECKSUM = 5

export const xfs: Prober = {
  type: 'xfs',
  probe(head) {
    if (head.length < HEADER_BYTES || !head.subarray(0, 4).equals(MAGIC)) return undefined
    const blockBytes = head.readUInt32BE(4)
    if (!isPowerOfTwo(blockBytes) || blockBytes < 512 || blockBytes > 65536) return undefined
    return contentOf(head, blockBytes)
  },
}

function contentOf(head: Buffer, blockBytes: number): Content {
  const version = head.readUInt16BE(100) & VERSION_MASK
  const blocks = head.readBigUInt64BE(8)
  const free = head.readBigUInt64BE(144)
  return {
    type: 'xfs',
    version: String(version),
    label: textOf(head.subarray(108, 120)),
    uuid: uuidText(head.subarray(32, 48)),
    blockBytes,
    sizeBytes: times(blocks, blockBytes),
    freeBytes: times(free, blockBytes),
    usedBytes: times(blocks - free, blockBytes),
    problems:
      version < WITH_CHECKSUM || isIntact(head) ? [] : ["its superblock's checksum is wrong"],
  }
}

/** The checksum covers the sector, itself as zeros, and is stored little endian. */
function isIntact(head: Buffer): boolean {
  const sectorBytes = head.readUInt16BE(102)
  if (sectorBytes < 512 || sectorBytes > 32768 || sectorBytes > head.length) return false
  const sector = Buffer.from(head.subarray(0, sectorBytes))
  sector.writeUInt32LE(0, CHECKSUM_AT)
  return crc32c(sector) === head.readUInt32LE(CHECKSUM_AT)
}
