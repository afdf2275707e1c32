/**
 * CRC-32 (IEEE 802.3, the one of zlib) and CRC-32C (Castagnoli, the one of ext4, xfs and btrfs): they find torn and
 * rotten records, and are no defence against forgery.
 */

const TABLE = makeTable(0xedb88320)
const TABLE_C = makeTable(0x82f63b78)

function makeTable(polynomial: number): Uint32Array {
  const table = new Uint32Array(256)
  for (let i = 0; i < 256; i++) {
    let value = i
    for (let bit = 0; bit < 8; bit++) {
      value = (value & 1) === 1 ? (value >>> 1) ^ polynomial : value >>> 1
    }
    table[i] = value
  }
  return table
}

/** Without the inversions at both ends, which some formats leave out. */
function rawCrc(table: Uint32Array, bytes: Uint8Array, start: number): number {
  let crc = start
  for (const byte of bytes) crc = (crc >>> 8) ^ table[(crc ^ byte) & 0xff]!
  return crc >>> 0
}

/** Unsigned 32-bit checksum of `bytes`; `crc32('123456789')` is 0xcbf43926. */
export function crc32(bytes: Uint8Array): number {
  return (rawCrc(TABLE, bytes, 0xffffffff) ^ 0xffffffff) >>> 0
}

/** CRC-32 continued from `start`, not inverted at either end. */
export function crc32From(start: number, bytes: Uint8Array): number {
  return rawCrc(TABLE, bytes, start)
}

/** Unsigned 32-bit CRC-32C of `bytes`; `crc32c('123456789')` is 0xe3069283. */
export function crc32c(bytes: Uint8Array): number {
  return (rawCrc(TABLE_C, bytes, 0xffffffff) ^ 0xffffffff) >>> 0
}

/** CRC-32C continued from `start`, not inverted at either end. */
export function crc32cFrom(start: number, bytes: Uint8Array): number {
  return rawCrc(TABLE_C, bytes, start)
}
