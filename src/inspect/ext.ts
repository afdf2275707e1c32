/**
 * ext2, ext3 and ext4: the superblock at 1024 (Linux, Documentation/filesystems/ext4/super.rst). Which of the three it is
 * follows from its features.
 */
import { crc32cFrom } from '../base/crc32.js'
import type { Content, Prober } from './content.js'
import { textOf, times, uuidText } from './disk.js'

const AT = 1024
const BYTES = 1024
const MAGIC = 0xef53
const HAS_JOURNAL = 0x4
const RECOVER = 0x4
const JOURNAL_DEVICE = 0x8
const HAS_64BIT = 0x80
/** Features only ext4 has: extents, 64bit, mmp, flex_bg, inline data and so on; not filetype, recover, meta_bg. */
const EXT4_INCOMPATIBLE = 0xffff_ffff & ~(0x1 | 0x2 | 0x4 | 0x8 | 0x10)
/** Not sparse_super, large_file, btree_dir. */
const EXT4_READ_ONLY = 0xffff_ffff & ~(0x1 | 0x2 | 0x4)
const METADATA_CHECKSUM = 0x400
const CHECKSUM_AT = 0x3fc
const CLEAN = 0x1
const ERRORS = 0x2

export const ext: Prober = {
  type: 'ext',
  probe(head) {
    if (head.length < AT + BYTES) return undefined
    const block = head.subarray(AT, AT + BYTES)
    if (block.readUInt16LE(56) !== MAGIC || block.readUInt32LE(24) > 6) return undefined
    return contentOf(block)
  },
}

function contentOf(block: Buffer): Content {
  const blockBytes = 1024 * 2 ** block.readUInt32LE(24)
  const [compatible, incompatible, readOnly] = [92, 96, 100].map((at) =>
    block.readUInt32LE(at),
  ) as [number, number, number]
  const wide = (incompatible & HAS_64BIT) !== 0
  const count = (low: number, high: number): bigint =>
    BigInt(block.readUInt32LE(low)) | (wide ? BigInt(block.readUInt32LE(high)) << 32n : 0n)
  const [blocks, free] = [count(4, 0x150), count(12, 0x158)]
  const label = textOf(block.subarray(120, 136))
  return {
    type: kindOf(compatible, incompatible, readOnly),
    label,
    uuid: uuidText(block.subarray(104, 120)),
    blockBytes,
    sizeBytes: times(blocks, blockBytes),
    freeBytes: times(free, blockBytes),
    usedBytes: times(blocks - free, blockBytes),
    details: detailsOf(block, incompatible),
    problems: problemsOf(block, readOnly),
  }
}

function kindOf(compatible: number, incompatible: number, readOnly: number): string {
  if ((incompatible & JOURNAL_DEVICE) !== 0) return 'jbd'
  const isExt4 = (incompatible & EXT4_INCOMPATIBLE) !== 0 || (readOnly & EXT4_READ_ONLY) !== 0
  if (isExt4) return 'ext4'
  return (compatible & HAS_JOURNAL) !== 0 ? 'ext3' : 'ext2'
}

function detailsOf(block: Buffer, incompatible: number): string[] {
  const state = block.readUInt16LE(58)
  const details: string[] = []
  if ((incompatible & RECOVER) !== 0) details.push('journal to be replayed')
  else if ((state & CLEAN) === 0) details.push('not unmounted')
  if ((state & ERRORS) !== 0) details.push('errors were found in it')
  return details
}

function problemsOf(block: Buffer, readOnly: number): string[] {
  if ((readOnly & METADATA_CHECKSUM) === 0) return []
  const sum = crc32cFrom(0xffffffff, block.subarray(0, CHECKSUM_AT))
  return sum === block.readUInt32LE(CHECKSUM_AT) ? [] : ["its superblock's checksum is wrong"]
}
