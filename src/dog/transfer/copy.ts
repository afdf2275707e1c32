/** Moving a disk's content: what may be data is read, what is not zeros is written. */
import { zeros } from '../../base/bytes.js'
import type { ByteStretch } from '../../world/images.js'
import { InFlight } from '../bounded.js'
import { Failure } from '../failure.js'

/** Of one read and of one write; pieces do not reach over multiples of it. */
export const PIECE_BYTES = 4 * 1024 * 1024
/** What a shell reports for a program ended by SIGINT. */
const EXIT_INTERRUPTED = 130

export interface Source {
  readonly sizeBytes: number
  /** The next stretch that may hold anything but zeros, from `from` on; undefined behind the last. */
  nextData(from: number): ByteStretch | undefined
  read(offset: number, length: number): Promise<Buffer>
}

export interface CopyHow {
  /** Zeros are told from data in units of so many bytes; 0: they are data. */
  readonly grain: number
  readonly write: (offset: number, data: Uint8Array) => Promise<void>
  /** Bytes that are done, holes among them. */
  readonly progress: (bytes: number) => void
  readonly stop: AbortSignal
}

/** Resolves with the bytes that were written. Rejects with the first failure, or the interruption. */
export async function copyData(source: Source, how: CopyHow): Promise<number> {
  const inFlight = new InFlight()
  let written = 0
  let done = 0
  try {
    for (const { offset, length } of piecesOf(source)) {
      checkStop(how.stop)
      how.progress(offset - done)
      done = offset + length
      await inFlight.start(async () => {
        const bytes = await source.read(offset, length)
        for (const { start, end } of dataRuns(bytes, how.grain)) {
          await how.write(offset + start, bytes.subarray(start, end))
          written += end - start
        }
        how.progress(length)
      })
    }
  } finally {
    // Nobody closes anything under a write that is still going on.
    await inFlight.finish().catch(() => undefined)
  }
  await inFlight.finish()
  how.progress(source.sizeBytes - done)
  return written
}

export function checkStop(stop: AbortSignal): void {
  if (stop.aborted) throw new Failure(EXIT_INTERRUPTED, ['Interrupted'])
}

/** What may be data, cut at multiples of PIECE_BYTES. */
function* piecesOf(
  source: Source,
): Generator<{ readonly offset: number; readonly length: number }> {
  let from = 0
  for (let data = source.nextData(from); data !== undefined; data = source.nextData(from)) {
    for (let offset = data.start; offset < data.end; ) {
      const border = (Math.floor(offset / PIECE_BYTES) + 1) * PIECE_BYTES
      const length = Math.min(border, data.end) - offset
      yield { offset, length }
      offset += length
    }
    from = data.end
  }
}

/** Stretches of `bytes` that are not all zeros, neighbours as one. */
export function* dataRuns(bytes: Buffer, grain: number): Generator<ByteStretch> {
  if (grain === 0) {
    yield { start: 0, end: bytes.length }
    return
  }
  let start: number | undefined
  for (let at = 0; at < bytes.length; at += grain) {
    const isZero = isAllZeros(bytes.subarray(at, at + grain))
    if (!isZero) start ??= at
    else if (start !== undefined) {
      yield { start, end: at }
      start = undefined
    }
  }
  if (start !== undefined) yield { start, end: bytes.length }
}

function isAllZeros(bytes: Buffer): boolean {
  return bytes.equals(zeros(bytes.length))
}

/** Where both differ first, to the piece; undefined when they do not. What one has more counts as zeros in the other. */
export async function firstDifference(
  a: Source,
  b: Source,
  stop: AbortSignal,
): Promise<number | undefined> {
  const end = Math.max(a.sizeBytes, b.sizeBytes)
  for (let from = 0; from < end; ) {
    checkStop(stop)
    const next = Math.min(a.nextData(from)?.start ?? end, b.nextData(from)?.start ?? end)
    if (next >= end) return undefined
    const offset = Math.floor(next / PIECE_BYTES) * PIECE_BYTES
    const length = Math.min(PIECE_BYTES, end - offset)
    const [left, right] = await Promise.all([padded(a, offset, length), padded(b, offset, length)])
    if (!left.equals(right)) return offset
    from = offset + length
  }
  return undefined
}

async function padded(source: Source, offset: number, length: number): Promise<Buffer> {
  const there = Math.max(0, Math.min(length, source.sizeBytes - offset))
  const bytes = there === 0 ? Buffer.alloc(0) : await source.read(offset, there)
  return there === length ? bytes : Buffer.concat([bytes, Buffer.alloc(length - there)])
}
