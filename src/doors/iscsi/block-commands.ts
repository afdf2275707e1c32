/** Commands that read, write and compare blocks (SBC-3, 5). */
import type { ByteRange } from '../../volume/volume.js'
import { ISCSI_LIMITS } from '../../wire/iscsi/constants.js'
import { type BlockRange, lba64, range6, range10, range12, range16 } from '../../wire/scsi/cdb.js'
import { Asc, Opcode, SCSI_LIMITS, SenseKey } from '../../wire/scsi/constants.js'
import { check, GOOD, INVALID_FIELD, type Outcome } from '../../wire/scsi/sense.js'
import type { End, LogicalUnit } from './logical-unit.js'
import { bytesOf, type Command, end, type Issue, isOutcome, type Plan } from './plan.js'

const PROTECT = 0xe0
const FUA = 0x08
const BYTCHK = 0x06
/** Bits of byte 1 in REPORT SUPPORTED OPCODES: protection, DPO, FUA. */
const DPO_FUA = 0x18

type Ranger = (cdb: Buffer) => BlockRange
type Size = 6 | 10 | 12 | 16

const RANGERS: Readonly<Record<Size, Ranger>> = { 6: range6, 10: range10, 12: range12, 16: range16 }

/** Usage bits of a CDB with an address and a count. */
function usage(opcode: number, size: Size, byte1: number): number[] {
  const bits = new Array<number>(size).fill(0xff)
  bits[0] = opcode
  bits[1] = size === 6 ? 0x1f : byte1
  bits[size - 1] = 0
  if (size === 10) bits[6] = 0
  if (size === 12 || size === 16) bits[size - 2] = 0
  return bits
}

/** The bytes of a command that has no protection information, or how it ends at once. */
function rangeOf(
  { unit, cdb }: Issue,
  size: Size,
  bytesMax: number = ISCSI_LIMITS.transferBytesMax,
): ByteRange | Outcome {
  if (size !== 6 && (cdb[1]! & PROTECT) !== 0) return INVALID_FIELD
  return bytesOf(unit, RANGERS[size](cdb), bytesMax)
}

function read(opcode: number, size: Size): Command {
  return {
    ...{ name: `READ(${size})`, opcode, access: 'read', usage: usage(opcode, size, DPO_FUA) },
    plan: (issue) => {
      const range = rangeOf(issue, size)
      if (isOutcome(range)) return end(range)
      if (range.length === 0) return end(GOOD)
      const fua = size !== 6 && (issue.cdb[1]! & FUA) !== 0
      return { kind: 'read', offset: range.offset, length: range.length, fua }
    },
  }
}

function write(opcode: number, size: Size): Command {
  return {
    ...{ name: `WRITE(${size})`, opcode, access: 'write', changes: true },
    usage: usage(opcode, size, DPO_FUA),
    plan: (issue) => {
      const range = rangeOf(issue, size)
      if (isOutcome(range)) return end(range)
      if (range.length === 0) return end(GOOD)
      const fua = size !== 6 && (issue.cdb[1]! & FUA) !== 0
      const { unit } = issue
      const run = (data: Buffer, ended: End): void =>
        unit.write(range.offset, wholeBlocks(unit, data), fua, ended)
      return { kind: 'take', bytes: range.length, change: range, run }
    },
  }
}

/** Where an initiator announces fewer bytes than its CDB says. */
function wholeBlocks(unit: LogicalUnit, data: Buffer): Buffer {
  return data.subarray(0, data.length - (data.length % unit.blockBytes))
}

function verify(opcode: number, size: Size): Command {
  return {
    ...{ name: `VERIFY(${size})`, opcode, access: 'read', usage: usage(opcode, size, 0x16) },
    plan: (issue) => {
      const { unit, cdb } = issue
      const how = (cdb[1]! & BYTCHK) >> 1
      const range = rangeOf(issue, size)
      if (isOutcome(range)) return end(range)
      if (how === 2) return end(INVALID_FIELD)
      if (range.length === 0) return end(GOOD)
      if (how === 0) return { kind: 'run', run: (ended) => examine(unit, range, undefined, ended) }
      const bytes = how === 1 ? range.length : unit.blockBytes
      // Fewer bytes than announced by the CDB are compared as far as they go; one block with all.
      const run = (data: Buffer, ended: End): void => {
        const length = how === 1 ? data.length : range.length
        examine(unit, { offset: range.offset, length }, data, ended)
      }
      return { kind: 'take', bytes, run }
    },
  }
}

/** What is verified is what a power cut would leave (SBC-3, 4.15.2): what is newer goes there first. */
function examine(unit: LogicalUnit, range: ByteRange, data: Buffer | undefined, ended: End): void {
  unit.flush((flushed) => {
    if (flushed === GOOD) scan(unit, range, data, ended)
    else ended(flushed)
  })
}

/** Reads the range and compares it with `data`, over and over when that is shorter; undefined: only reads. */
function scan(unit: LogicalUnit, range: ByteRange, data: Buffer | undefined, ended: End): void {
  const piece = Buffer.allocUnsafe(Math.min(SCSI_LIMITS.pieceBytes, range.length))
  let at = 0
  const step = (outcome: Outcome): void => {
    if (outcome !== GOOD || at === range.length) {
      ended(outcome)
      return
    }
    const part = piece.subarray(0, Math.min(piece.length, range.length - at))
    const from = at
    at += part.length
    unit.read(range.offset + from, part, (read) => {
      const differs = read === GOOD && data !== undefined ? firstDifference(part, data, from) : -1
      step(differs < 0 ? read : check(SenseKey.MISCOMPARE, Asc.MISCOMPARE, from + differs))
    })
  }
  step(data?.length === 0 ? INVALID_FIELD : GOOD)
}

/** Where `part`, which begins at `from`, differs from `data` repeated; -1: nowhere. */
function firstDifference(part: Buffer, data: Buffer, from: number): number {
  for (let at = 0; at < part.length; ) {
    const inData = (from + at) % data.length
    const length = Math.min(part.length - at, data.length - inData)
    if (part.compare(data, inData, inData + length, at, at + length) !== 0) {
      while (part[at] === data[(from + at) % data.length]) at++
      return at
    }
    at += length
  }
  return -1
}

function writeVerify(opcode: number, size: Size): Command {
  return {
    ...{ name: `WRITE AND VERIFY(${size})`, opcode, access: 'write', changes: true },
    usage: usage(opcode, size, 0x16),
    plan: (issue) => {
      const { unit, cdb } = issue
      const how = (cdb[1]! & BYTCHK) >> 1
      const range = rangeOf(issue, size)
      if (isOutcome(range)) return end(range)
      if (how > 1) return end(INVALID_FIELD)
      if (range.length === 0) return end(GOOD)
      const run = (all: Buffer, ended: End): void => {
        const data = wholeBlocks(unit, all)
        const written = { offset: range.offset, length: data.length }
        unit.write(range.offset, data, true, (outcome) => {
          if (outcome !== GOOD || data.length === 0) ended(outcome)
          else scan(unit, written, how === 1 ? data : undefined, ended)
        })
      }
      return { kind: 'take', bytes: range.length, change: range, run }
    },
  }
}

/** Nothing is read ahead: GOOD says that the blocks did not find room in a cache (SBC-3, 5.9). */
function prefetch(opcode: number, size: Size): Command {
  return {
    ...{ name: `PRE-FETCH(${size})`, opcode, access: 'read', usage: usage(opcode, size, 0x02) },
    plan: ({ unit, cdb }) => {
      const range = bytesOf(unit, RANGERS[size](cdb), Number.MAX_SAFE_INTEGER)
      return end(isOutcome(range) ? range : GOOD)
    },
  }
}

function synchronize(opcode: number, size: Size): Command {
  return {
    ...{ name: `SYNCHRONIZE CACHE(${size})`, opcode, access: 'write' },
    usage: usage(opcode, size, 0x02),
    plan: ({ unit, cdb }) => {
      const range = bytesOf(unit, RANGERS[size](cdb), Number.MAX_SAFE_INTEGER)
      if (isOutcome(range)) return end(range)
      return { kind: 'run', run: (ended) => unit.flush(ended) }
    },
  }
}

const COMPARE_AND_WRITE: Command = {
  ...{ name: 'COMPARE AND WRITE', opcode: Opcode.COMPARE_AND_WRITE, access: 'write' },
  changes: true,
  usage: [0x89, 0x18, ...new Array<number>(8).fill(0xff), 0, 0, 0, 0xff, 0, 0],
  plan: ({ unit, cdb, dataBytes }): Plan => {
    if ((cdb[1]! & PROTECT) !== 0) return end(INVALID_FIELD)
    const range = bytesOf(
      unit,
      { lba: lba64(cdb, 2), count: cdb[13]! },
      ISCSI_LIMITS.transferBytesMax,
    )
    if (isOutcome(range)) return end(range)
    const { length } = range
    // More or less than it compares and writes: whoever sends that means something else.
    if (dataBytes !== 2 * length) return end(INVALID_FIELD)
    if (length === 0) return end(GOOD)
    const fua = (cdb[1]! & FUA) !== 0
    const run = (data: Buffer, ended: End): void => {
      let differs = -1
      const decide = (found: Buffer): Buffer | undefined => {
        differs = firstDifference(found, data.subarray(0, length), 0)
        return differs < 0 ? data.subarray(length) : undefined
      }
      unit.update(range, decide, fua, (outcome) => {
        const isEqual = outcome !== GOOD || differs < 0
        ended(isEqual ? outcome : check(SenseKey.MISCOMPARE, Asc.MISCOMPARE, differs))
      })
    }
    return { kind: 'take', bytes: 2 * length, change: range, run }
  },
}

const ORWRITE: Command = {
  ...{ name: 'ORWRITE(16)', opcode: Opcode.ORWRITE_16, access: 'write', changes: true },
  usage: usage(Opcode.ORWRITE_16, 16, DPO_FUA),
  plan: (issue): Plan => {
    const { unit, cdb } = issue
    const range = rangeOf(issue, 16)
    if (isOutcome(range)) return end(range)
    if (range.length === 0) return end(GOOD)
    const fua = (cdb[1]! & FUA) !== 0
    const run = (all: Buffer, ended: End): void => {
      const data = wholeBlocks(unit, all)
      const decide = (found: Buffer): Buffer => {
        for (let i = 0; i < found.length; i++) found[i] = found[i]! | data[i]!
        return found
      }
      const { offset } = range
      if (data.length === 0) ended(GOOD)
      else unit.update({ offset, length: data.length }, decide, fua, ended)
    }
    return { kind: 'take', bytes: range.length, change: range, run }
  },
}

export const BLOCK_COMMANDS: readonly Command[] = [
  read(Opcode.READ_6, 6),
  read(Opcode.READ_10, 10),
  read(Opcode.READ_12, 12),
  read(Opcode.READ_16, 16),
  write(Opcode.WRITE_6, 6),
  write(Opcode.WRITE_10, 10),
  write(Opcode.WRITE_12, 12),
  write(Opcode.WRITE_16, 16),
  verify(Opcode.VERIFY_10, 10),
  verify(Opcode.VERIFY_12, 12),
  verify(Opcode.VERIFY_16, 16),
  writeVerify(Opcode.WRITE_VERIFY_10, 10),
  writeVerify(Opcode.WRITE_VERIFY_12, 12),
  writeVerify(Opcode.WRITE_VERIFY_16, 16),
  prefetch(Opcode.PREFETCH_10, 10),
  prefetch(Opcode.PREFETCH_16, 16),
  synchronize(Opcode.SYNCHRONIZE_CACHE_10, 10),
  synchronize(Opcode.SYNCHRONIZE_CACHE_16, 16),
  COMPARE_AND_WRITE,
  ORWRITE,
]
