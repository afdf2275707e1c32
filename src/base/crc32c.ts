/**
 * CRC32C (Castagnoli, reflected polynomial 0x82f63b78), as iSCSI's digests use it. Eight bytes a step with eight
 * tables ("slicing by 8"): three to four times a plain table, which matters for data digests.
 */

const POLYNOMIAL = 0x82f63b78
const SLICES = 8

const TABLES: readonly Uint32Array[] = makeTables()

function makeTables(): Uint32Array[] {
  const tables = Array.from({ length: SLICES }, () => new Uint32Array(256))
  const [first] = tables as [Uint32Array]
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 0 ? crc >>> 1 : (crc >>> 1) ^ POLYNOMIAL
    first[byte] = crc
  }
  for (let slice = 1; slice < SLICES; slice++) {
    for (let byte = 0; byte < 256; byte++) {
      const below = tables[slice - 1]![byte]!
      tables[slice]![byte] = (below >>> 8) ^ first[below & 0xff]!
    }
  }
  return tables
}

/** Of `bytes`, after what `before` is the CRC of; 0 to begin. An unsigned number of 32 bits. */
export function crc32c(bytes: Uint8Array, before = 0): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = TABLES as Uint32Array[]
  const length = bytes.length
  const whole = length - (length % SLICES)
  let crc = ~before
  let at = 0
  for (; at < whole; at += SLICES) {
    const low =
      crc ^ (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24))
    crc =
      t7![low & 0xff]! ^
      t6![(low >>> 8) & 0xff]! ^
      t5![(low >>> 16) & 0xff]! ^
      t4![low >>> 24]! ^
      t3![bytes[at + 4]!]! ^
      t2![bytes[at + 5]!]! ^
      t1![bytes[at + 6]!]! ^
      t0![bytes[at + 7]!]!
  }
  for (; at < length; at++) crc = (crc >>> 8) ^ t0![(crc ^ bytes[at]!) & 0xff]!
  return ~crc >>> 0
}
