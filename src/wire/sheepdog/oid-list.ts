/** Lists of object ids as nodes send them to each other: 8 bytes each, little-endian. */
import type { Oid } from '../../model/oid.js'

export const OID_BYTES = 8

export function encodeOids(oids: readonly Oid[]): Buffer {
  const bytes = Buffer.allocUnsafe(oids.length * OID_BYTES)
  oids.forEach((oid, i) => {
    bytes.writeBigUInt64LE(oid, i * OID_BYTES)
  })
  return bytes
}

/** An incomplete id at the end does not count. */
export function decodeOids(bytes: Buffer): Oid[] {
  const count = Math.floor(bytes.length / OID_BYTES)
  return Array.from({ length: count }, (_, i) => bytes.readBigUInt64LE(i * OID_BYTES) as Oid)
}
