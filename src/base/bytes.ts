/** Small helpers over byte arrays that several codecs need. */

const EMPTY = Buffer.alloc(0)

/** A shared empty buffer. */
export function noBytes(): Buffer {
  return EMPTY
}

const ZEROS = Buffer.alloc(4 * 1024 * 1024)

/** Zero bytes to read from, never to write to; a view when small, freshly made when large. */
export function zeros(length: number): Buffer {
  return length <= ZEROS.length ? ZEROS.subarray(0, length) : Buffer.alloc(length)
}

/** Reads a NUL-padded string field of `length` bytes. Bytes that are not UTF-8 survive as latin1. */
export function readCString(from: Buffer, offset: number, length: number): string {
  const field = from.subarray(offset, offset + length)
  const end = field.indexOf(0)
  return decodeText(end < 0 ? field : field.subarray(0, end))
}

/** Writes `text` NUL-padded into a field of `length` bytes, cut so that a NUL remains. */
export function writeCString(into: Buffer, offset: number, length: number, text: string): void {
  into.fill(0, offset, offset + length)
  encodeText(text).copy(into, offset, 0, length - 1)
}

/** A fresh NUL-padded field. */
export function cString(text: string, length: number): Buffer {
  const field = Buffer.alloc(length)
  writeCString(field, 0, length, text)
  return field
}

/*
 * Names are bytes on disk and on the wire, strings in here. UTF-8 round-trips as itself; a name that
 * is not UTF-8 is carried byte for byte in the private-use block U+F700..U+F7FF so that it still
 * round-trips and never collides with a readable name.
 */
const RAW_BASE = 0xf700

function decodeText(bytes: Buffer): string {
  const text = bytes.toString('utf8')
  if (Buffer.from(text, 'utf8').equals(bytes)) return text
  return Array.from(bytes, (byte) => String.fromCharCode(RAW_BASE + byte)).join('')
}

export function encodeText(text: string): Buffer {
  let raw = text.length > 0
  for (let i = 0; i < text.length && raw; i++) raw = text.charCodeAt(i) >> 8 === RAW_BASE >> 8
  if (!raw) return Buffer.from(text, 'utf8')
  return Buffer.from(Array.from(text, (char) => char.charCodeAt(0) & 0xff))
}

export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit
}

export function roundDown(value: number, unit: number): number {
  return Math.floor(value / unit) * unit
}
