/** A volume's operations as promises. */
import { Code, type Done } from '../../../src/base/codes.js'
import type { Volume } from '../../../src/volume/volume.js'

function outcome(start: (done: Done) => void): Promise<Code> {
  return new Promise((resolve) => start(resolve))
}

export function write(disk: Volume, offset: number, data: Buffer, fua = false): Promise<Code> {
  return outcome((done) => disk.write(offset, data, fua, done))
}

export function flush(disk: Volume): Promise<Code> {
  return outcome((done) => disk.flush(done))
}

export function discard(disk: Volume, offset: number, length: number): Promise<Code> {
  return outcome((done) => disk.discard({ offset, length }, false, done))
}

/** The bytes, or the code of a read that failed. */
export async function read(disk: Volume, offset: number, length: number): Promise<Buffer | Code> {
  const into = Buffer.alloc(length, 0xee)
  const code = await outcome((done) => disk.read(offset, into, done))
  return code === Code.SUCCESS ? into : code
}
