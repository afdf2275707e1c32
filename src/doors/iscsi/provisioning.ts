/** Commands about which blocks take space: UNMAP, WRITE SAME, GET LBA STATUS (SBC-3, 4.7). */
import { noBytes, zeros } from '../../base/bytes.js'
import type { ByteRange } from '../../volume/volume.js'
import { type BlockRange, lba64, range10, range16, writeLba64 } from '../../wire/scsi/cdb.js'
import { Opcode, SCSI_LIMITS, ServiceAction } from '../../wire/scsi/constants.js'
import {
  BAD_LIST_LENGTH,
  GOOD,
  INVALID_FIELD,
  INVALID_PARAMETER,
  OUT_OF_RANGE,
  type Outcome,
} from '../../wire/scsi/sense.js'
import type { End, LogicalUnit } from './logical-unit.js'
import { ANYWHERE, bytesOf, type Command, end, isOutcome, type Plan, reply } from './plan.js'

const PROTECT = 0xe0
const ANCHOR = 0x10
const UNMAP_BIT = 0x08
const NO_DATA = 0x01
const UNMAP_HEAD_BYTES = 8
const DESCRIPTOR_BYTES = 16

const UNMAP: Command = {
  ...{ name: 'UNMAP', opcode: Opcode.UNMAP, access: 'write', changes: true },
  usage: [0x42, 0x00, 0, 0, 0, 0, 0, 0xff, 0xff, 0],
  plan: ({ unit, cdb }): Plan => {
    const bytes = cdb.readUInt16BE(7)
    if ((cdb[1]! & 1) !== 0) return end(INVALID_FIELD)
    if (bytes === 0) return end(GOOD)
    const run = (data: Buffer, ended: End): void => {
      const ranges = unmapRanges(unit, data)
      if (Array.isArray(ranges)) unmapAll(unit, ranges, ended)
      else ended(ranges)
    }
    return { kind: 'take', bytes, change: ANYWHERE, run }
  },
}

/** All of them are looked at before anything is done. */
function unmapRanges(unit: LogicalUnit, data: Buffer): ByteRange[] | Outcome {
  if (data.length < UNMAP_HEAD_BYTES) return BAD_LIST_LENGTH
  const listBytes = data.readUInt16BE(2)
  const count = Math.floor(Math.min(listBytes, data.length - UNMAP_HEAD_BYTES) / DESCRIPTOR_BYTES)
  if (count > SCSI_LIMITS.unmapDescriptorsMax) return INVALID_PARAMETER
  const ranges: ByteRange[] = []
  for (let i = 0; i < count; i++) {
    const at = UNMAP_HEAD_BYTES + i * DESCRIPTOR_BYTES
    const range = { lba: lba64(data, at), count: data.readUInt32BE(at + 8) }
    const bytes = bytesOf(unit, range, Number.MAX_SAFE_INTEGER)
    if (isOutcome(bytes)) return bytes
    if (bytes.length > 0) ranges.push(bytes)
  }
  return ranges
}

/** What is unmapped reads as zeros, also where a part of an object cannot be given back: LBPRZ says so. */
function unmapAll(unit: LogicalUnit, ranges: readonly ByteRange[], ended: End): void {
  let i = 0
  const step = (outcome: Outcome): void => {
    const range = ranges[i++]
    if (outcome !== GOOD || range === undefined) ended(outcome)
    else unit.zero(range, true, step)
  }
  step(GOOD)
}

function writeSame(opcode: number, size: 10 | 16): Command {
  const tail = size === 10 ? [0, 0xff, 0xff, 0] : [0xff, 0xff, 0xff, 0xff, 0, 0]
  const address = new Array<number>(size === 10 ? 4 : 8).fill(0xff)
  return {
    ...{ name: `WRITE SAME(${size})`, opcode, access: 'write', changes: true },
    usage: [opcode, size === 10 ? UNMAP_BIT : UNMAP_BIT | NO_DATA, ...address, ...tail],
    plan: ({ unit, cdb, dataBytes }) => {
      const flags = cdb[1]!
      if ((flags & (PROTECT | ANCHOR)) !== 0) return end(INVALID_FIELD)
      const range = sameRange(unit, size === 10 ? range10(cdb) : range16(cdb))
      if (isOutcome(range)) return end(range)
      const mayUnmap = (flags & UNMAP_BIT) !== 0
      if (size === 16 && (flags & NO_DATA) !== 0) {
        const run = (ended: End): void => unit.zero(range, mayUnmap, ended)
        return { kind: 'run', change: range, run }
      }
      if (dataBytes !== unit.blockBytes) return end(INVALID_FIELD)
      // Only zeros can be unmapped: what is read afterwards is what was written (SBC-3, 4.7.3.4).
      const run = (data: Buffer, ended: End): void => {
        if (data.equals(zeros(data.length))) unit.zero(range, mayUnmap, ended)
        else repeat(unit, range, data, ended)
      }
      return { kind: 'take', bytes: unit.blockBytes, change: range, run }
    },
  }
}

/** No count means: to the end. */
function sameRange(unit: LogicalUnit, { lba, count }: BlockRange): ByteRange | Outcome {
  if (lba >= unit.blocks) return OUT_OF_RANGE
  const blocks = count === 0 ? unit.blocks - lba : count
  return bytesOf(unit, { lba, count: blocks }, SCSI_LIMITS.writeSameBytesMax)
}

function repeat(unit: LogicalUnit, range: ByteRange, block: Buffer, ended: End): void {
  const piece = Buffer.alloc(Math.min(range.length, SCSI_LIMITS.pieceBytes), block)
  let at = 0
  const step = (outcome: Outcome): void => {
    if (outcome !== GOOD || at === range.length) {
      ended(outcome)
      return
    }
    const from = at
    const length = Math.min(piece.length, range.length - at)
    at += length
    unit.write(range.offset + from, piece.subarray(0, length), false, step)
  }
  step(GOOD)
}

const GET_LBA_STATUS: Command = {
  ...{ name: 'GET LBA STATUS', opcode: Opcode.SERVICE_ACTION_IN, access: 'read' },
  action: ServiceAction.GET_LBA_STATUS,
  usage: [0x9e, 0x12, ...new Array<number>(12).fill(0xff), 0, 0],
  plan: ({ unit, cdb }) => {
    const lba = lba64(cdb, 2)
    if (lba >= unit.blocks) return end(OUT_OF_RANGE)
    const room = cdb.readUInt32BE(10)
    const list = lbaStatus(unit, lba)
    const head = Buffer.alloc(8)
    head.writeUInt32BE(4 + list.length)
    return reply(Buffer.concat([head, list]), room)
  },
}

/** Descriptors from `lba` on, from the volume's map of objects. */
function lbaStatus(unit: LogicalUnit, lba: number): Buffer {
  const { volume, blockBytes } = unit
  const offset = lba * blockBytes
  // More than this no answer can describe: neighbours are objects at least.
  const span = SCSI_LIMITS.lbaStatusMax * volume.objectBytes
  const length = Math.min(unit.blocks * blockBytes - offset, span)
  const extents = volume.extents({ offset, length })
  let from = lba
  const parts: Buffer[] = []
  for (const extent of extents.slice(0, SCSI_LIMITS.lbaStatusMax)) {
    const count = Math.min(Math.floor(extent.length / blockBytes), 0xffffffff)
    if (count === 0) break
    const descriptor = Buffer.alloc(DESCRIPTOR_BYTES)
    writeLba64(descriptor, 0, from)
    descriptor.writeUInt32BE(count, 8)
    descriptor[12] = extent.hole ? 1 : 0
    parts.push(descriptor)
    from += count
  }
  return parts.length === 0 ? noBytes() : Buffer.concat(parts)
}

export const PROVISIONING_COMMANDS: readonly Command[] = [
  UNMAP,
  writeSame(Opcode.WRITE_SAME_10, 10),
  writeSame(Opcode.WRITE_SAME_16, 16),
  GET_LBA_STATUS,
]
