/** Reading whole objects: nominal bytes, zeros where the file is short. */
import { createHash } from 'node:crypto'
import { zeros } from '../base/bytes.js'
import type { OpenFile } from '../world/world.js'
import { readAt } from './file-io.js'

const PIECE_BYTES = 1024 * 1024

/** SHA-1 over the first `bytes` bytes, zeros past the end of the file. */
export async function digest(file: OpenFile, bytes: number): Promise<Buffer> {
  const hash = createHash('sha1')
  const piece = Buffer.alloc(Math.min(PIECE_BYTES, bytes))
  let at = 0
  let count = 1
  while (at < bytes && count > 0) {
    const part = piece.subarray(0, Math.min(piece.length, bytes - at))
    count = await readAt(file, part, at)
    hash.update(part.subarray(0, count))
    at += count
  }
  for (; at < bytes; at += PIECE_BYTES) hash.update(zeros(Math.min(PIECE_BYTES, bytes - at)))
  return hash.digest()
}

/** Fills `into` from `offset`; returns the bytes that were there. */
export async function readZeroFilled(
  file: OpenFile,
  into: Uint8Array,
  offset: number,
): Promise<number> {
  const count = await readAt(file, into, offset)
  into.fill(0, count)
  return count
}
