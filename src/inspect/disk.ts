/**
 * A disk as those who look at it see it: bytes that somebody else wrote. Nothing on it is believed, every length is
 * bounded by a named limit before it is read.
 */

/** Where the bytes come from. */
export interface DiskView {
  readonly sizeBytes: number
  /** Exactly `length` bytes; the range is inside the disk. Rejects with the reader's own error. */
  read(offset: number, length: number): Promise<Buffer>
}

/** A stretch of a disk as a disk of its own. It lies inside. */
export function sliceOf(disk: DiskView, startBytes: number, sizeBytes: number): DiskView {
  return {
    sizeBytes,
    read: (offset, length) => disk.read(startBytes + offset, length),
  }
}

/** Undefined when the disk does not have the whole range. */
export async function readWithin(
  disk: DiskView,
  offset: number,
  length: number,
): Promise<Buffer | undefined> {
  const isInside = offset >= 0 && Number.isSafeInteger(offset + length)
  if (!isInside || offset + length > disk.sizeBytes) return undefined
  return await disk.read(offset, length)
}

/** What no number holds exactly becomes undefined: no disk of ours is as large. */
export function safe(value: bigint): number | undefined {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : undefined
}

/** The product, unless it is inexact. */
export function times(count: bigint | number, unit: number): number | undefined {
  const product = Number(count) * unit
  return Number.isSafeInteger(product) ? product : undefined
}

export function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value))
}

/** 16 bytes in their order: `6b1e...-....`, as Linux file systems write it; undefined when all are zero. */
export function uuidText(bytes: Buffer): string | undefined {
  if (bytes.every((byte) => byte === 0)) return undefined
  const hex = bytes.toString('hex')
  const cuts = [0, 8, 12, 16, 20, 32]
  return cuts
    .slice(1)
    .map((end, i) => hex.slice(cuts[i], end))
    .join('-')
}

/** 16 bytes whose first three fields are little endian, as EFI has it: upper case, as tools print it. */
export function guidText(bytes: Buffer): string {
  const swapped = Buffer.from(bytes)
  swapped.subarray(0, 4).swap32()
  swapped.subarray(4, 8).swap16()
  return (uuidText(swapped) ?? '00000000-0000-0000-0000-000000000000').toUpperCase()
}

/** A text field: ends at its first NUL, blanks at the end are padding. Bytes that are not UTF-8 are latin1. */
export function textOf(field: Buffer): string {
  const end = field.indexOf(0)
  const bytes = end < 0 ? field : field.subarray(0, end)
  const text = bytes.toString('utf8')
  const isUtf8 = Buffer.from(text, 'utf8').equals(bytes)
  return (isUtf8 ? text : bytes.toString('latin1')).trimEnd()
}

/** UTF-16 as `utf16le` or its reverse, up to its first NUL. */
export function wideTextOf(field: Buffer, order: 'little' | 'big' = 'little'): string {
  const even = field.subarray(0, field.length & ~1)
  const bytes = order === 'big' ? Buffer.from(even).swap16() : even
  const text = bytes.toString('utf16le')
  const end = text.indexOf('\0')
  return (end < 0 ? text : text.slice(0, end)).trimEnd()
}
