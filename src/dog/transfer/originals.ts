/** What is imported: a raw file, an image of another format, or whatever comes from stdin. */
import { createHash, type Hash } from 'node:crypto'
import type { Volume } from '../../volume/volume.js'
import type { ImageFile } from '../../world/images.js'
import { InFlight } from '../bounded.js'
import type { Context } from '../command.js'
import { errnoText } from '../errno.js'
import { Exit, Failure, failed, misused } from '../failure.js'
import { Progress } from '../progress.js'
import { checkStop, copyData, dataRuns, firstDifference, PIECE_BYTES } from './copy.js'
import { fileName, imageInfo, overNbd, qemuImgFindsSame, runQemuImg } from './qemu-img.js'
import { localFailure } from './vdi-export.js'
import { operate, sourceVolume, type VdiSource } from './volumes.js'

/** What is written to the cluster at least: each write is a request. */
const GRAIN_BYTES = 64 * 1024
const QCOW_MAGIC = Buffer.from('QFI\xfb', 'latin1')

export interface Original {
  /** Undefined until its end was seen. */
  readonly sizeBytes: number | undefined
  /** `volume` is all zeros. Resolves with the bytes written, where that is known; nothing is flushed. */
  copyTo(volume: Volume): Promise<number | undefined>
  /** Throws a Failure when the VDI is not the same. */
  compare(vdi: VdiSource): Promise<void>
  close(): Promise<void>
}

/** Throws a Failure for what is not there, or not what it is said to be. */
export async function openOriginal(
  context: Context,
  file: string,
  stop: AbortSignal,
): Promise<Original> {
  const { format } = context.options
  if (file === '') throw misused('Please specify the file, or - for stdin')
  if (file === '-') {
    if (format === 'qcow2') throw misused('qcow2 cannot be read from stdin: name a file')
    return new StreamOriginal(context, stop)
  }
  if (format === 'qcow2') return await ForeignOriginal.open(context, file, stop)
  const image = await context.io.images.open(file).catch((error: unknown) => {
    throw localFailure(file, error)
  })
  try {
    if (format === undefined) await refuseDisguise(image, file)
    return new FileOriginal({ context, file, image, stop })
  } catch (error) {
    await image.close()
    throw error
  }
}

/** Formats are not guessed: a guest decides what its raw disk begins with. */
async function refuseDisguise(image: ImageFile, file: string): Promise<void> {
  if (image.sizeBytes < QCOW_MAGIC.length) return
  if (!(await image.read(0, QCOW_MAGIC.length)).equals(QCOW_MAGIC)) return
  throw failed(
    `${file} begins as a qcow2 image does`,
    'Say -f qcow2, or -f raw for a disk that only looks like one',
  )
}

function write(volume: Volume): (offset: number, data: Uint8Array) => Promise<void> {
  return (offset, data) => operate((done) => volume.write(offset, data, false, done))
}

interface FileOptions {
  readonly context: Context
  readonly file: string
  readonly image: ImageFile
  readonly stop: AbortSignal
}

class FileOriginal implements Original {
  readonly #options: FileOptions

  constructor(options: FileOptions) {
    this.#options = options
  }

  get sizeBytes(): number {
    return this.#options.image.sizeBytes
  }

  copyTo(volume: Volume): Promise<number> {
    const { context, file, image, stop } = this.#options
    const progress = new Progress(context.out, context.io.columns, this.sizeBytes)
    return copyData(
      {
        sizeBytes: this.sizeBytes,
        nextData: (from) => image.nextData(from),
        read: (offset, length) =>
          image.read(offset, length).catch((error: unknown) => {
            throw localFailure(file, error)
          }),
      },
      {
        ...{ grain: GRAIN_BYTES, stop, write: write(volume) },
        progress: (bytes) => progress.add(bytes),
      },
    )
  }

  async compare(vdi: VdiSource): Promise<void> {
    const { image, stop } = this.#options
    const at = await firstDifference(image, vdi, stop)
    if (at !== undefined) throw failed(`The VDI differs, within 4 MiB from byte ${at} on`)
  }

  close(): Promise<void> {
    return this.#options.image.close()
  }
}

/** Can be read once: its checksum has to do for a comparison. */
class StreamOriginal implements Original {
  readonly #context: Context
  readonly #stop: AbortSignal
  readonly #hash: Hash = createHash('sha256')
  sizeBytes: number | undefined

  constructor(context: Context, stop: AbortSignal) {
    this.#context = context
    this.#stop = stop
  }

  async copyTo(volume: Volume): Promise<number> {
    const inFlight = new InFlight()
    let [position, written] = [0, 0]
    try {
      for await (const piece of gathered(this.#context.io.stdin, this.#stop)) {
        if (position + piece.length > volume.sizeBytes) {
          throw failed(`There is more than the ${volume.sizeBytes} bytes VDI ${volume.name} has`)
        }
        this.#hash.update(piece)
        const at = position
        position += piece.length
        await inFlight.start(async () => {
          for (const { start, end } of dataRuns(piece, GRAIN_BYTES)) {
            await write(volume)(at + start, piece.subarray(start, end))
            written += end - start
          }
        })
      }
    } finally {
      await inFlight.finish().catch(() => undefined)
    }
    await inFlight.finish()
    this.sizeBytes = position
    return written
  }

  async compare(vdi: VdiSource): Promise<void> {
    const hash = createHash('sha256')
    const end = this.sizeBytes ?? 0
    for (let offset = 0; offset < end; offset += PIECE_BYTES) {
      checkStop(this.#stop)
      hash.update(await vdi.read(offset, Math.min(PIECE_BYTES, end - offset)))
    }
    if (!hash.digest().equals(this.#hash.digest())) throw failed('The VDI differs from the input')
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}

/** Pieces of PIECE_BYTES each but the last one. */
async function* gathered(
  input: AsyncIterable<Buffer>,
  stop: AbortSignal,
): AsyncGenerator<Buffer, void, undefined> {
  let chunks: Buffer[] = []
  let length = 0
  for await (const chunk of readable(input, stop)) {
    chunks.push(chunk)
    length += chunk.length
    while (length >= PIECE_BYTES) {
      const all = Buffer.concat(chunks)
      yield all.subarray(0, PIECE_BYTES)
      chunks = [all.subarray(PIECE_BYTES)]
      length = all.length - PIECE_BYTES
    }
  }
  if (length > 0) yield Buffer.concat(chunks)
}

/** An interruption does not wait for input that may never come. */
async function* readable(
  input: AsyncIterable<Buffer>,
  stop: AbortSignal,
): AsyncGenerator<Buffer, void, undefined> {
  const chunks = input[Symbol.asyncIterator]()
  const stopped = new Promise<undefined>((resolve) => {
    stop.addEventListener('abort', () => resolve(undefined), { once: true })
  })
  for (;;) {
    checkStop(stop)
    const next = await Promise.race([chunks.next().catch(asInputFailure), stopped])
    checkStop(stop)
    if (next === undefined || next.done === true) return
    yield next.value
  }
}

function asInputFailure(error: unknown): never {
  throw new Failure(Exit.system, [`Failed to read from stdin: ${errnoText(error)}`])
}

/** Read by qemu-img. */
class ForeignOriginal implements Original {
  readonly #context: Context
  readonly #path: string
  readonly #stop: AbortSignal
  readonly sizeBytes: number

  private constructor(context: Context, path: string, sizeBytes: number, stop: AbortSignal) {
    this.#context = context
    this.#path = path
    this.#stop = stop
    this.sizeBytes = sizeBytes
  }

  /** An image that refers to other files is refused: whoever made it would choose which of ours get into the VDI. */
  static async open(context: Context, file: string, stop: AbortSignal): Promise<ForeignOriginal> {
    const { sizeBytes, needs } = await imageInfo(context, file, stop)
    if (needs !== undefined) {
      throw failed(
        `${file} needs another file: ${needs}`,
        `Make one that stands by itself with 'qemu-img convert', if you trust it`,
      )
    }
    return new ForeignOriginal(context, fileName(file), sizeBytes, stop)
  }

  async copyTo(volume: Volume): Promise<undefined> {
    const how = ['convert', '-n', '--target-is-zero', '-f', 'qcow2', '-O', 'raw', this.#path]
    await overNbd(this.#context, volume, (uri) =>
      runQemuImg(this.#context, [...how, uri], this.#stop),
    )
  }

  async compare(vdi: VdiSource): Promise<void> {
    const volume = sourceVolume('copy', vdi)
    const both = ['-f', 'qcow2', '-F', 'raw', this.#path]
    const isSame = await overNbd(this.#context, volume, (uri) =>
      qemuImgFindsSame(this.#context, [...both, uri], this.#stop),
    )
    if (!isSame) throw failed('The VDI differs from the image')
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
