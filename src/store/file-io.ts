/** File operations the store's slow paths share, as promises, and the search for zero blocks. */
import { roundDown, zeros } from '../base/bytes.js'
import type { Clock, OpenFile } from '../world/world.js'

/** Up to this many bytes a write is put into the page cache at once: cheaper than a thread's help. */
export const WRITE_NOW_BYTES_MAX = 64 * 1024

const BLOCK_BYTES = 4096
/** A gap smaller than this is written with its neighbours: one system call costs more. */
const GAP_BYTES_MIN = 64 * 1024

/** Part of a buffer, [start, end). */
export interface Run {
  start: number
  end: number
}

export function readAt(file: OpenFile, into: Uint8Array, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    file.read(into, position, (error, count) => (error === null ? resolve(count) : reject(error)))
  })
}

export function writeAt(file: OpenFile, data: Uint8Array, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(data, position, (error) => (error === null ? resolve() : reject(error)))
  })
}

export function syncFile(file: OpenFile): Promise<void> {
  return new Promise((resolve, reject) => {
    file.sync((error) => (error === null ? resolve() : reject(error)))
  })
}

/** Lets the event loop serve others. */
export function turn(clock: Clock): Promise<void> {
  return new Promise((resolve) => clock.soon(resolve))
}

/**
 * The parts of `data` worth writing at `position` of a file: whole zero blocks of the file are left out
 * at both ends, and inside where the gap is wide.
 */
export function nonZeroRuns(data: Uint8Array, position: number): Run[] {
  const runs: Run[] = []
  let start = 0
  while (start < data.length) {
    const end = Math.min(
      roundDown(position + start, BLOCK_BYTES) + BLOCK_BYTES - position,
      data.length,
    )
    if (!isZeroBlock(data, start, end)) addRun(runs, start, end)
    start = end
  }
  return runs
}

/** A part of a block counts as content: the rest of the block is not ours to drop. */
function isZeroBlock(data: Uint8Array, start: number, end: number): boolean {
  if (end - start < BLOCK_BYTES || data[start] !== 0) return false
  return Buffer.compare(data.subarray(start, end), zeros(BLOCK_BYTES)) === 0
}

function addRun(runs: Run[], start: number, end: number): void {
  const last = runs.at(-1)
  if (last !== undefined && start - last.end < GAP_BYTES_MIN) last.end = end
  else runs.push({ start, end })
}

/** Writes a fresh file's content, whose holes read as zeros anyway. */
export async function writeRuns(file: OpenFile, data: Uint8Array, position: number): Promise<void> {
  for (const { start, end } of nonZeroRuns(data, position)) {
    await writeAt(file, data.subarray(start, end), position + start)
  }
}

/** Overwrites a part of a sparse file: zero blocks become holes, everything else is written. */
export async function writeSparse(
  file: OpenFile,
  data: Uint8Array,
  position: number,
): Promise<void> {
  let done = 0
  for (const { start, end } of nonZeroRuns(data, position)) {
    await punchZeros(file, position + done, position + start)
    await writeAt(file, data.subarray(start, end), position + start)
    done = end
  }
  await punchZeros(file, position + done, position + data.length)
}

async function punchZeros(file: OpenFile, start: number, end: number): Promise<void> {
  if (start < end) await file.punch(start, end - start)
}
