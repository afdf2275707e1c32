/** Captures bent out of shape: requests out of order, fields at their limits, flipped bits, lengths that lie, cut ends. */
import type { Dice } from '../faults/dice.js'
import { CAPTURES } from './captures.js'

/** Where the header's fields are, and how wide (protocol spec, section 2). */
const FIELDS: readonly (readonly [number, 1 | 2 | 4 | 8])[] = [
  ...([0, 1, 28, 29, 30, 31, 32, 33, 34, 44] as const).map((at) => [at, 1] as const),
  ...([2, 34] as const).map((at) => [at, 2] as const),
  ...([4, 8, 12, 16, 20, 24, 28, 32, 36, 40] as const).map((at) => [at, 4] as const),
  ...([16, 24] as const).map((at) => [at, 8] as const),
]
const CURIOUS = [
  ...[0n, 1n, 2n, 4n, 7n, 255n, 256n, 511n, 512n, 513n, 4663n, 4664n, 65_536n],
  ...[0x7fffn, 0xffffn, 0x00ff_ffffn, 0x0100_0000n, 0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn],
  ...[1n << 53n, 1n << 59n, 1n << 60n, 1n << 61n, 1n << 62n, 1n << 63n, (1n << 64n) - 1n],
]
const HEADER_BYTES = 48
const CHUNK_BYTES = [1, 7, 47, 48, 49, 1000, 4096, 65_536]
const BODY_BYTES_MAX = 600

/** A request of a capture, perhaps with something wrong about it. */
export function mutated(frame: Buffer, dice: Dice): Buffer {
  if (dice.below(10) < 3) return frame
  let bytes: Buffer = Buffer.from(frame)
  const times = 1 + dice.below(3)
  for (let i = 0; i < times; i++) bytes = bend(bytes, dice)
  return bytes
}

function bend(bytes: Buffer, dice: Dice): Buffer {
  switch (dice.below(8)) {
    case 0:
    case 1:
    case 2:
      setField(bytes, dice)
      return bytes
    case 3:
      bytes[dice.below(bytes.length)]! ^= 1 << dice.below(8)
      return bytes
    case 4:
      bytes[dice.below(Math.min(HEADER_BYTES, bytes.length))] = dice.below(256)
      return bytes
    case 5:
      // The version its opcode wants, so that it gets further than the first look.
      if (bytes.length > 1) bytes[0] = bytes[1]! < 0x80 ? 2 : 0x0a
      return bytes
    case 6:
      return bytes.subarray(0, Math.max(1, dice.below(bytes.length)))
    default:
      return withBody(bytes, dice.below(BODY_BYTES_MAX), dice)
  }
}

function setField(bytes: Buffer, dice: Dice): void {
  const [at, width] = dice.pick(FIELDS)
  if (at + width > bytes.length) return
  const value = dice.pick(CURIOUS) + BigInt(dice.below(3)) - 1n
  const field = BigInt.asUintN(8 * width, value)
  if (width === 8) bytes.writeBigUInt64LE(field, at)
  else bytes.writeUIntLE(Number(field), at, width)
}

/** Another payload, announced as it is, or not. */
function withBody(bytes: Buffer, length: number, dice: Dice): Buffer {
  if (bytes.length < HEADER_BYTES) return bytes
  const next = Buffer.alloc(HEADER_BYTES + length, dice.below(256))
  bytes.copy(next, 0, 0, HEADER_BYTES)
  next.writeUInt16LE(next.readUInt16LE(2) | 1, 2)
  if (dice.below(4) > 0) next.writeUInt32LE(length, 12)
  return next
}

/** What one connection brings: some requests of one capture, perhaps with some of another one in between. */
export function* conversation(dice: Dice, frames: number): Generator<Buffer> {
  let capture = dice.pick(CAPTURES)
  for (let i = 0; i < frames; i++) {
    if (dice.below(8) === 0) capture = dice.pick(CAPTURES)
    const frame = dice.below(4) === 0 ? dice.pick(capture) : capture[i % capture.length]!
    yield mutated(frame, dice)
  }
}

/** The same bytes, cut as a network might. */
export function chunksOf(bytes: Buffer, dice: Dice): Buffer[] {
  const chunks: Buffer[] = []
  const isWhole = dice.below(3) === 0
  for (let at = 0; at < bytes.length; ) {
    const size = isWhole ? bytes.length : dice.pick(CHUNK_BYTES)
    chunks.push(bytes.subarray(at, at + size))
    at += size
  }
  return chunks
}
