/**
 * `dog vdi read` and `write`: the bytes of a volume, streamed, with a bounded number of objects
 * under way.
 */
import type { InodeHeader } from '../model/inode.js'
import { InFlight, inOrder } from './bounded.js'
import type { Context, Subcommand } from './command.js'
import { errnoText } from './errno.js'
import { Exit, Failure, failed } from './failure.js'
import { openHyper } from './hyper-writer.js'
import { isHyper, type OpenedVdi, openVdi } from './image.js'
import { vdiOption as option, WORKING } from './options.js'
import { type Piece, pieceAt, piecesOf } from './pieces.js'
import { parseSize } from './sizes.js'
import { VdiReader } from './vdi-reader.js'
import { VdiWriter } from './vdi-writer.js'

export const read: Subcommand = {
  name: 'read',
  summary: 'read data from an image',
  options: [option.snapshot, option.address, option.port, option.help, option.time],
  synopsis: '<vdiname> [<offset> [<len>]]',
  needsOperand: true,
  run: runRead,
}

export const write: Subcommand = {
  name: 'write',
  summary: 'write data to an image',
  options: [option.address, option.port, option.writeback, option.help, option.time],
  synopsis: '<vdiname> [<offset> [<len>]]',
  needsOperand: true,
  run: runWrite,
}

interface AskedRange {
  readonly offset: number
  readonly length: number
}

function askedRange(operands: readonly string[]): AskedRange {
  const offset = parseSize(operands[1] ?? '')
  const length = operands[2] === undefined ? Number.POSITIVE_INFINITY : parseSize(operands[2])
  return { offset, length }
}

/** First byte and the one after the last, clipped at the end of the volume. */
function clip(
  verb: 'Read' | 'Write',
  asked: AskedRange,
  header: InodeHeader,
): { readonly start: number; readonly end: number } {
  if (asked.offset > header.sizeBytes) throw failed(`${verb} offset is beyond the end of the VDI`)
  return { start: asked.offset, end: Math.min(header.sizeBytes, asked.offset + asked.length) }
}

async function runRead(context: Context): Promise<number> {
  const { operands, options, out, sheep } = context
  const name = operands[0] ?? ''
  const asked = askedRange(operands)
  const vdi = await openVdi(sheep, name, options.snapshot ?? WORKING)
  const { start, end } = clip('Read', asked, vdi.header)
  try {
    const reader = await VdiReader.open(context, vdi)
    const pieces = piecesOf(start, end, vdi.header.blockSizeShift)
    for await (const bytes of inOrder(pieces, (piece) => reader.readPiece(piece))) {
      await out.bytes(bytes)
    }
  } catch (error) {
    if (error instanceof Failure) throw error
    throw failed('Failed to read VDI')
  }
  return Exit.ok
}

async function runWrite(context: Context): Promise<number> {
  const { operands, sheep } = context
  const name = operands[0] ?? ''
  const asked = askedRange(operands)
  const vdi = await openVdi(sheep, name, WORKING)
  const { start, end } = clip('Write', asked, vdi.header)
  const sink = await openSink(context, name, vdi)
  const inFlight = new InFlight()
  try {
    for await (const filled of fill(context.io.stdin, start, end, vdi.header.blockSizeShift)) {
      await inFlight.start(() => sink.write(filled))
    }
    await inFlight.finish()
    await sink.finish()
  } catch (error) {
    await inFlight.finish().catch(() => undefined)
    await sink.abandon()
    if (error instanceof Failure && error.status !== Exit.failed) throw error
    throw failed(...(error instanceof Failure ? error.lines : []), 'Failed to write VDI')
  }
  return Exit.ok
}

/** Where the pieces go. */
interface Sink {
  write(piece: FilledPiece): Promise<void>
  /** Everything is as durable as was asked for. */
  finish(): Promise<void>
  /** After a failure. */
  abandon(): Promise<void>
}

async function openSink(context: Context, name: string, vdi: OpenedVdi): Promise<Sink> {
  const { options, sheep } = context
  const writeback = options.writeback ?? false
  if (isHyper(vdi.header)) {
    const volume = await openHyper(context, name, !writeback)
    const objectBytes = 2 ** vdi.header.blockSizeShift
    return {
      write: ({ index, offset, data }) => volume.write(index * objectBytes + offset, data),
      finish: async () => {
        await volume.flush()
        await volume.close()
      },
      abandon: () => volume.close().catch(() => undefined),
    }
  }
  const writer = await VdiWriter.open(context, name, vdi, writeback)
  return {
    write: ({ index, offset, data }) => writer.write(index, offset, data),
    finish: async () => {
      if (writeback) await sheep.flush(writer.vdi.vid)
    },
    abandon: () => Promise.resolve(),
  }
}

interface FilledPiece {
  readonly index: number
  readonly offset: number
  readonly data: Buffer
}

/**
 * Cuts the input into pieces from `start` on; the last is as long as the input, whatever follows
 * stays unread.
 */
async function* fill(
  input: AsyncIterable<Buffer>,
  start: number,
  end: number,
  blockSizeShift: number,
): AsyncGenerator<FilledPiece, void, undefined> {
  let position = start
  let gathered: Buffer[] = []
  let gatheredBytes = 0
  const take = (piece: Piece, length: number): FilledPiece => {
    const all = Buffer.concat(gathered)
    gathered = all.length > length ? [all.subarray(length)] : []
    gatheredBytes = all.length - length
    position += length
    return { index: piece.index, offset: piece.offset, data: all.subarray(0, length) }
  }
  if (position >= end) return
  for await (const chunk of readable(input)) {
    gathered.push(chunk)
    gatheredBytes += chunk.length
    for (;;) {
      const piece = pieceAt(position, end, blockSizeShift)
      if (gatheredBytes < piece.length) break
      yield take(piece, piece.length)
      if (position >= end) return
    }
  }
  if (gatheredBytes > 0) yield take(pieceAt(position, end, blockSizeShift), gatheredBytes)
}

async function* readable(input: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  try {
    yield* input
  } catch (error) {
    throw new Failure(Exit.system, [`Failed to read from stdin: ${errnoText(error)}`])
  }
}
