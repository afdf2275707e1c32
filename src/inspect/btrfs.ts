/** Btrfs: the first of its superblocks, at 64 KiB (btrfs documentation, "On-disk format"). */
import { crc32c } from '../base/crc32.js'
import type { Content, Prober } from './content.js'
import { safe, textOf, uuidText } from './disk.js'

const AT = 64 * 1024
const BYTES = 4096
const MAGIC = Buffer.from('_BHRfS_M')
const CHECKSUM_BYTES = 32
const CRC32C = 0

export const btrfs: Prober = {
  type: 'btrfs',
  probe(head) {
    if (head.length < AT + BYTES) return undefined
    const block = head.subarray(AT, AT + BYTES)
    return block.subarray(64, 72).equals(MAGIC) ? contentOf(block) : undefined
  },
}

function contentOf(block: Buffer): Content {
  const devices = block.readBigUInt64LE(136)
  const sizeBytes = safe(block.readBigUInt64LE(devices === 1n ? 112 : 209))
  // Of several devices only the whole has a count of what is used.
  const usedBytes = devices === 1n ? safe(block.readBigUInt64LE(120)) : undefined
  const isKnown = sizeBytes !== undefined && usedBytes !== undefined
  return {
    type: 'btrfs',
    label: textOf(block.subarray(299, 299 + 256)),
    uuid: uuidText(block.subarray(32, 48)),
    blockBytes: block.readUInt32LE(144),
    sizeBytes,
    usedBytes,
    freeBytes: isKnown ? sizeBytes - usedBytes : undefined,
    details: devices === 1n ? [] : [`device ${block.readBigUInt64LE(201)} of ${devices}`],
    problems: isIntact(block) ? [] : ["its superblock's checksum is wrong"],
  }
}

/** Other kinds of checksums are not checked. */
function isIntact(block: Buffer): boolean {
  if (block.readUInt16LE(196) !== CRC32C) return true
  return crc32c(block.subarray(CHECKSUM_BYTES)) === block.readUInt32LE(0)
}
