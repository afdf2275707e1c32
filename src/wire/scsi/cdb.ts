/** Command descriptor blocks that name blocks: where they begin and how many (SBC-3, 5). */

/** `lba` and `count` are blocks; beyond 2^53 they are not exact, and out of every range. */
export interface BlockRange {
  readonly lba: number
  readonly count: number
}

export function range6(cdb: Buffer): BlockRange {
  const lba = cdb.readUIntBE(1, 3) & 0x1fffff
  return { lba, count: cdb[4] === 0 ? 256 : cdb[4]! }
}

export function range10(cdb: Buffer): BlockRange {
  return { lba: cdb.readUInt32BE(2), count: cdb.readUInt16BE(7) }
}

export function range12(cdb: Buffer): BlockRange {
  return { lba: cdb.readUInt32BE(2), count: cdb.readUInt32BE(6) }
}

export function range16(cdb: Buffer): BlockRange {
  return { lba: lba64(cdb, 2), count: cdb.readUInt32BE(10) }
}

export function lba64(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4)
}

export function writeLba64(bytes: Buffer, at: number, lba: number): void {
  bytes.writeUInt32BE(Math.floor(lba / 2 ** 32), at)
  bytes.writeUInt32BE(lba % 2 ** 32, at + 4)
}
