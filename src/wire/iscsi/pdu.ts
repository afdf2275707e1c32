/**
 * The basic header segment of iSCSI PDUs (RFC 7143, section 11.2).
 *
 *   opcode 1 | flags 1 | specific 2 | AHS length 1 (words) | data length 3 | LUN 8 | task tag 4 | specific 28     48 bytes
 *
 * A header is 48 bytes that stay as they came; these functions name its fields.
 */
import { BHS_BYTES } from './constants.js'

const IMMEDIATE = 0x40
const OPCODE = 0x3f

export function opcodeOf(header: Buffer): number {
  return header[0]! & OPCODE
}

export function isImmediate(header: Buffer): boolean {
  return (header[0]! & IMMEDIATE) !== 0
}

export function flagsOf(header: Buffer): number {
  return header[1]!
}

/** Bytes of additional header segments. */
export function ahsBytes(view: Buffer, at: number): number {
  return view[at + 4]! * 4
}

/** Bytes of data, without padding. */
export function dataBytes(view: Buffer, at: number): number {
  return view.readUIntBE(at + 5, 3)
}

export function padded(bytes: number): number {
  return (bytes + 3) & ~3
}

export function tagOf(header: Buffer): number {
  return header.readUInt32BE(16)
}

/** Bytes 20 to 23: the target's tag, the expected length of a command, the referenced task. */
export function secondTag(header: Buffer): number {
  return header.readUInt32BE(20)
}

export function cmdSn(header: Buffer): number {
  return header.readUInt32BE(24)
}

export function expStatSn(header: Buffer): number {
  return header.readUInt32BE(28)
}

export function dataSn(header: Buffer): number {
  return header.readUInt32BE(36)
}

export function bufferOffset(header: Buffer): number {
  return header.readUInt32BE(40)
}

/**
 * The LUN of the field at byte 8 (SAM-5, "LUN structures"): peripheral device or flat space addressing of one level.
 * Undefined: of another kind, which no LUN of ours has.
 */
export function lunOf(field: Buffer, at = 8): number | undefined {
  const method = field[at]! >> 6
  if (field.readUIntBE(at + 2, 6) !== 0) return undefined
  if (method === 0) return field[at] === 0 ? field[at + 1]! : undefined
  return method === 1 ? field.readUInt16BE(at) & 0x3fff : undefined
}

/** The field of a LUN below 256. */
export function writeLun(into: Buffer, at: number, lun: number): void {
  into.fill(0, at, at + 8)
  into[at + 1] = lun
}

/** Header of an answer; everything else is zero. */
export function writeHeader(into: Buffer, at: number, { opcode, flags, tag, bytes }: Head): void {
  // A loop: for so few bytes the call of `fill` costs more.
  for (let i = at + 2; i < at + BHS_BYTES; i++) into[i] = 0
  into[at] = opcode
  into[at + 1] = flags
  into.writeUIntBE(bytes, at + 5, 3)
  into.writeUInt32BE(tag, at + 16)
}

export interface Head {
  readonly opcode: number
  readonly flags: number
  readonly tag: number
  /** Bytes of data. */
  readonly bytes: number
}

/** Sequence numbers of every answer. */
export interface Numbers {
  readonly statSn: number
  readonly expCmdSn: number
  readonly maxCmdSn: number
}

export function writeNumbers(into: Buffer, at: number, numbers: Numbers): void {
  into.writeUInt32BE(numbers.statSn, at + 24)
  into.writeUInt32BE(numbers.expCmdSn, at + 28)
  into.writeUInt32BE(numbers.maxCmdSn, at + 32)
}

/** Serial number arithmetic of RFC 1982: whether `a` comes before `b`. */
export function isBefore(a: number, b: number): boolean {
  return ((a - b) | 0) < 0
}

export function next(serial: number): number {
  return (serial + 1) >>> 0
}
