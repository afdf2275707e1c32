/** How a byte range falls on the objects of a volume. */
import type { Done } from '../base/codes.js'
import { spread } from './spread.js'
import type { ByteRange } from './volume.js'

export interface Geometry {
  readonly objectBytes: number
  readonly sizeBytes: number
}

/** A piece of one object: `at` counts from the object's start. */
export interface Piece {
  readonly slot: number
  readonly at: number
  readonly length: number
}

export interface Cut {
  /** Objects the range covers as a whole: [first, end). The last object ends where the VDI ends. */
  readonly first: number
  readonly end: number
  /** What it covers of other objects, at most two pieces. */
  readonly partial: readonly Piece[]
}

export function cutRange(range: ByteRange, geometry: Geometry): Cut {
  const { objectBytes, sizeBytes } = geometry
  const until = range.offset + range.length
  const first = Math.ceil(range.offset / objectBytes)
  const rounded =
    until >= sizeBytes ? Math.ceil(until / objectBytes) : Math.floor(until / objectBytes)
  const end = Math.max(first, rounded)
  const partial: Piece[] = []
  const headEnd = Math.min(until, first * objectBytes)
  if (range.offset < headEnd) partial.push(pieceOf(range.offset, headEnd, objectBytes))
  if (end * objectBytes < until) partial.push(pieceOf(end * objectBytes, until, objectBytes))
  return { first, end, partial }
}

function pieceOf(from: number, until: number, objectBytes: number): Piece {
  const slot = Math.floor(from / objectBytes)
  return { slot, at: from - slot * objectBytes, length: until - from }
}

/** The objects a range lies in, in order. */
export function piecesOf({ offset, length }: ByteRange, objectBytes: number): Piece[] {
  const pieces: Piece[] = []
  for (let from = offset; from < offset + length; ) {
    const slot = Math.floor(from / objectBytes)
    const until = Math.min(offset + length, (slot + 1) * objectBytes)
    pieces.push(pieceOf(from, until, objectBytes))
    from = until
  }
  return pieces
}

/** Work on a part of one object: `part` is memory shared with the request's. */
export type PieceStep = (slot: number, at: number, part: Uint8Array, done: Done) => void

/** Does a request, which may cross object borders: all its pieces at once; the first failure wins. */
export function byPieces(
  offset: number,
  bytes: Uint8Array,
  objectBytes: number,
  step: PieceStep,
  done: Done,
): void {
  const first = Math.floor(offset / objectBytes)
  const count = Math.ceil((offset + bytes.length) / objectBytes) - first
  const start = (index: number, ended: Done): void => {
    const slot = first + index
    const from = Math.max(0, slot * objectBytes - offset)
    const until = Math.min(bytes.length, (slot + 1) * objectBytes - offset)
    step(slot, offset + from - slot * objectBytes, bytes.subarray(from, until), ended)
  }
  spread(count, count, start, done)
}
