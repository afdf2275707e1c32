/**
 * Reading a range of a volume and writing what comes of it, as one step (SCSI's COMPARE AND WRITE). The slots it lies in are
 * claimed: what is under way on their objects ends first, whichever door it came by, and what comes later waits.
 */
import { Code, type Done } from '../base/codes.js'
import type { ObjectAccess } from '../model/access.js'
import type { Vid } from '../model/oid.js'
import type { Piece } from './cut.js'
import type { SlotChanges } from './slot-changes.js'
import type { SlotTable } from './slot-table.js'
import { spread } from './spread.js'
import type { Decide } from './volume.js'

export interface UpdateParts {
  readonly objects: ObjectAccess
  readonly table: SlotTable
  readonly changes: SlotChanges
}

export interface UpdateWish {
  /** Of neighbouring objects, in order; at least one. */
  readonly pieces: readonly Piece[]
  readonly decide: Decide
  readonly fua: boolean
}

export function updateSlots(parts: UpdateParts, wish: UpdateWish, done: Done): void {
  const { pieces, decide } = wish
  const found = Buffer.allocUnsafe(pieces.reduce((sum, { length }) => sum + length, 0))
  let next: Uint8Array | undefined
  let written = 0
  const write = (vid: Vid, data: Uint8Array, finish: Done): void => {
    const step = (i: number, at: number, ended: Done): void => {
      const piece = pieces[i]!
      if (i < written) {
        ended(Code.SUCCESS)
        return
      }
      writePiece(
        parts,
        vid,
        { piece, data: data.subarray(at, at + piece.length) },
        wish.fua,
        (code) => {
          if (code === Code.SUCCESS) written++
          ended(code)
        },
      )
    }
    inTurn(pieces, step, finish)
  }
  const act = (vid: Vid, finish: Done): void => {
    // A snapshot came between two objects: what has been decided is finished in its successor.
    if (next !== undefined && written > 0) {
      write(vid, next, finish)
      return
    }
    const read = (i: number, at: number, ended: Done): void =>
      readPiece(parts, pieces[i]!, found.subarray(at, at + pieces[i]!.length), ended)
    inTurn(pieces, read, (code) => {
      next = code === Code.SUCCESS ? decide(found) : undefined
      if (next === undefined) finish(code)
      else write(vid, next, finish)
    })
  }
  const [first, end] = [pieces[0]!.slot, pieces.at(-1)!.slot + 1]
  const run = (): void => parts.changes.alone({ first, end, act, again: run, done })
  run()
}

/** One piece after the other; `at` is where it lies in the bytes of all. */
export function inTurn(
  pieces: readonly Piece[],
  step: (index: number, at: number, ended: Done) => void,
  done: Done,
): void {
  let at = 0
  const one = (index: number, ended: Done): void => {
    const from = at
    at += pieces[index]!.length
    step(index, from, ended)
  }
  spread(pieces.length, 1, one, done)
}

function readPiece(parts: UpdateParts, piece: Piece, into: Uint8Array, done: Done): void {
  const { objects, table } = parts
  if (table.vid(piece.slot) !== 0) objects.read(table.ref(piece.slot), piece.at, into, done)
  else if (!objects.isSure()) objects.whenSure(() => readPiece(parts, piece, into, done), done)
  else {
    into.fill(0)
    done(Code.SUCCESS)
  }
}

function writePiece(
  { objects, table, changes }: UpdateParts,
  vid: Vid,
  { piece, data }: { readonly piece: Piece; readonly data: Uint8Array },
  fua: boolean,
  done: Done,
): void {
  const { slot, at } = piece
  if (table.vid(slot) !== vid) {
    changes.make(vid, slot, { at, data, overOld: true }, fua, done)
    return
  }
  objects.write(table.ref(slot), at, data, fua, (code) => {
    if (code === Code.SUCCESS && fua) changes.firm(vid, slot, done)
    else done(code)
  })
}
