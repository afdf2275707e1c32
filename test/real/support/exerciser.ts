/**
 * Random operations on a file, each compared with what it must do, as fsx does it: reads, writes behind and inside the end, truncations
 * both ways, syncs, closing and opening again. Throws at the first wrong byte, with the seed and the operation it came with.
 */
import { type FileHandle, open, stat } from 'node:fs/promises'

export interface ExerciseOptions {
  readonly seed: number
  readonly operations: number
  readonly fileBytesMax: number
  /** Of one read or write; 128 KiB when not given. */
  readonly pieceBytesMax?: number
  /** Called now and then with how many are done. */
  readonly progress?: (done: number) => void
}

const PIECE_BYTES_MAX = 128 * 1024
const PROGRESS_EVERY = 10_000

/** xorshift32: the same numbers for the same seed. */
function dice(seed: number): (limit: number) => number {
  let state = seed >>> 0 || 1
  return (limit) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    state >>>= 0
    return state % limit
  }
}

class Exercise {
  readonly #path: string
  readonly #below: (limit: number) => number
  readonly #max: number
  readonly #pieceMax: number
  #model = Buffer.alloc(0)
  #file: FileHandle | undefined
  readonly counts = { read: 0, write: 0, truncate: 0, sync: 0, reopen: 0, stat: 0 }

  constructor(path: string, options: ExerciseOptions) {
    this.#path = path
    this.#below = dice(options.seed)
    this.#max = options.fileBytesMax
    this.#pieceMax = options.pieceBytesMax ?? PIECE_BYTES_MAX
  }

  async start(): Promise<void> {
    this.#file = await open(this.#path, 'r+')
    await this.#file.truncate(0)
  }

  async end(): Promise<void> {
    await this.#file?.close()
  }

  async step(): Promise<void> {
    const which = this.#below(100)
    if (which < 40) await this.#read()
    else if (which < 85) await this.#write()
    else if (which < 92) await this.#truncate()
    else if (which < 95) await this.#sync()
    else if (which < 97) await this.#reopen()
    else await this.#stat()
  }

  #range(): { at: number; length: number } {
    return {
      at: this.#below(this.#max - this.#pieceMax),
      length: 1 + this.#below(this.#pieceMax),
    }
  }

  async #read(): Promise<void> {
    this.counts.read++
    const { at, length } = this.#range()
    const into = Buffer.alloc(length)
    const { bytesRead } = await this.#file!.read(into, 0, length, at)
    const expected = this.#model.subarray(at, at + length)
    if (bytesRead !== expected.length) {
      throw new Error(`read ${length} at ${at}: ${bytesRead} bytes for ${expected.length}`)
    }
    if (!into.subarray(0, bytesRead).equals(expected)) {
      const wrong = expected.findIndex((byte, i) => byte !== into[i])
      throw new Error(`read ${length} at ${at}: wrong at ${at + wrong}: ${into[wrong]}`)
    }
  }

  async #write(): Promise<void> {
    this.counts.write++
    const { at, length } = this.#range()
    const data = Buffer.alloc(length)
    const start = this.#below(256)
    for (let i = 0; i < length; i++) data[i] = (start + i * 7) & 255
    const { bytesWritten } = await this.#file!.write(data, 0, length, at)
    if (bytesWritten !== length) throw new Error(`write ${length} at ${at}: ${bytesWritten}`)
    if (at + length > this.#model.length) this.#resize(at + length)
    data.copy(this.#model, at)
  }

  #resize(length: number): void {
    const next = Buffer.alloc(length)
    this.#model.copy(next)
    this.#model = next
  }

  async #truncate(): Promise<void> {
    this.counts.truncate++
    const length = this.#below(this.#max)
    await this.#file!.truncate(length)
    this.#resize(length)
  }

  async #sync(): Promise<void> {
    this.counts.sync++
    await this.#file!.sync()
  }

  async #reopen(): Promise<void> {
    this.counts.reopen++
    await this.#file!.close()
    this.#file = await open(this.#path, 'r+')
  }

  async #stat(): Promise<void> {
    this.counts.stat++
    const { size } = await this.#file!.stat()
    if (size !== this.#model.length) throw new Error(`size ${size} for ${this.#model.length}`)
  }

  async whole(): Promise<void> {
    const { size } = await stat(this.#path)
    if (size !== this.#model.length) throw new Error(`size ${size} for ${this.#model.length}`)
  }
}

/** Resolves with a sentence of what was done. */
export async function exercise(path: string, options: ExerciseOptions): Promise<string> {
  const one = new Exercise(path, options)
  await one.start()
  for (let i = 0; i < options.operations; i++) {
    try {
      await one.step()
    } catch (error) {
      throw new Error(`seed ${options.seed}, operation ${i}: ${String(error)}`, { cause: error })
    }
    if (i % PROGRESS_EVERY === PROGRESS_EVERY - 1) options.progress?.(i + 1)
  }
  await one.end()
  await one.whole()
  return `seed ${options.seed}: ${JSON.stringify(one.counts)}`
}
