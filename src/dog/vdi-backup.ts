/** `dog vdi backup`: what one snapshot has other than an earlier one, as a stream on stdout. */
import { SheepError } from '../base/codes.js'
import { encodeRecordHead, encodeStreamEnd, encodeStreamHead } from './backup-stream.js'
import { inOrder } from './bounded.js'
import type { Context, Subcommand } from './command.js'
import { Exit, failed, misused } from './failure.js'
import { type OpenedVdi, openVdi } from './image.js'
import { vdiOption as option } from './options.js'
import { piecesOf } from './pieces.js'
import { VdiReader } from './vdi-reader.js'

/** Equal ends are cut away in these. */
const SECTOR_BYTES = 512

export const backup: Subcommand = {
  name: 'backup',
  summary: 'create an incremental backup between two snapshots',
  options: [
    ...[option.snapshot, option.from, option.address, option.port, option.help, option.time],
  ],
  synopsis: '<vdiname>',
  needsOperand: true,
  run: runBackup,
}

async function runBackup(context: Context): Promise<number> {
  const { operands, options, out, sheep } = context
  const name = operands[0] ?? ''
  if (options.from === undefined || options.snapshot === undefined) {
    throw misused("Please specify snapshots with '-F' and '-s' options")
  }
  const older = await openVdi(sheep, name, options.from)
  const newer = await openVdi(sheep, name, options.snapshot)
  if (older.header.blockSizeShift !== newer.header.blockSizeShift) {
    throw failed('The objects of these snapshots are of different sizes')
  }
  try {
    const before = await VdiReader.open(context, older)
    const after = await VdiReader.open(context, newer)
    await out.bytes(encodeStreamHead())
    for (const index of suspects(before, after, newer)) {
      for await (const bytes of recordOf({ before, after, index, newer })) await out.bytes(bytes)
    }
    await out.bytes(encodeStreamEnd())
  } catch (error) {
    if (error instanceof SheepError) throw failed('Failed to back up VDI')
    throw error
  }
  return Exit.ok
}

/** Objects that are not one and the same on both sides; one that is has never been written since. */
function* suspects(before: VdiReader, after: VdiReader, newer: OpenedVdi): Generator<number> {
  const count = Math.ceil(newer.header.sizeBytes / 2 ** newer.header.blockSizeShift)
  for (let index = 0; index < count; index++) {
    const next = Math.min(
      before.map.next(index, count) ?? count,
      after.map.next(index, count) ?? count,
    )
    if (next >= count) return
    index = next
    if (before.map.vid(index) !== after.map.vid(index)) yield index
  }
}

interface Pair {
  readonly before: VdiReader
  readonly after: VdiReader
  readonly index: number
  readonly newer: OpenedVdi
}

/** Nothing for objects whose bytes are the same. Large objects are read twice rather than held. */
async function* recordOf(pair: Pair): AsyncGenerator<Buffer, void, undefined> {
  const { after, index, newer } = pair
  const range = await differingRange(pair)
  if (range === undefined) return
  const { start, end } = range
  yield encodeRecordHead({ index, offset: start, length: end - start })
  const { blockSizeShift } = newer.header
  const from = index * 2 ** blockSizeShift
  const pieces = piecesOf(from + start, from + end, blockSizeShift)
  yield* inOrder(pieces, (piece) => after.readPiece(piece))
}

async function differingRange({
  before,
  after,
  index,
  newer,
}: Pair): Promise<{ readonly start: number; readonly end: number } | undefined> {
  const { blockSizeShift } = newer.header
  const objectBytes = 2 ** blockSizeShift
  const from = index * objectBytes
  let start: number | undefined
  let end = 0
  for (const piece of piecesOf(from, from + objectBytes, blockSizeShift)) {
    const [old, now] = await Promise.all([before.readPiece(piece), after.readPiece(piece)])
    if (old.equals(now)) continue
    for (let at = 0; at < now.length; at += SECTOR_BYTES) {
      const sector = now.subarray(at, at + SECTOR_BYTES)
      if (sector.equals(old.subarray(at, at + SECTOR_BYTES))) continue
      start ??= piece.offset + at
      end = piece.offset + at + sector.length
    }
  }
  return start === undefined ? undefined : { start, end }
}
