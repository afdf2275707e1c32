/**
 * A byte range of a volume cut at object borders, and never into more than a request should
 * carry.
 */

/** Also what one operation of `vdi read` and `vdi write` holds in memory. */
export const PIECE_BYTES_MAX = 4 * 1024 * 1024

export interface Piece {
  /** Of the object. */
  readonly index: number
  /** Inside the object. */
  readonly offset: number
  readonly length: number
}

/**
 * The piece that starts at `position` and ends with the object, the limit or `end`, whichever is
 * first.
 */
export function pieceAt(position: number, end: number, blockSizeShift: number): Piece {
  const objectBytes = 2 ** blockSizeShift
  const index = Math.floor(position / objectBytes)
  const offset = position - index * objectBytes
  const border = PIECE_BYTES_MAX - (offset % PIECE_BYTES_MAX)
  return { index, offset, length: Math.min(objectBytes - offset, border, end - position) }
}

export function* piecesOf(start: number, end: number, blockSizeShift: number): Generator<Piece> {
  for (let at = start; at < end; ) {
    const piece = pieceAt(at, end, blockSizeShift)
    yield piece
    at += piece.length
  }
}
