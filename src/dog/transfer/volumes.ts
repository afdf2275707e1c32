/** Volumes as export and import use them: read through dog's own connection, written and locked through one of their own. */
import { Code, type Done, SheepError } from '../../base/codes.js'
import { silentLog } from '../../base/log.js'
import { type RemoteVolumes, remoteVolumes } from '../../remote/remote-volumes.js'
import { type Readable, readOnly } from '../../volume/read-only.js'
import type { ByteRange, Extent, OwnedExtent, Volume } from '../../volume/volume.js'
import type { ByteStretch } from '../../world/images.js'
import type { Context } from '../command.js'
import { failed } from '../failure.js'
import type { OpenedVdi } from '../image.js'
import { VdiReader } from '../vdi-reader.js'
import type { Source } from './copy.js'

/** How long I/O waits for a cluster that does not answer; recovery of a node that died takes less. */
const PATIENCE_MS = 120_000

/** The sheep dog was told of first, the others when it goes. */
export async function volumesOf({ sheep, world }: Context): Promise<RemoteVolumes> {
  const own = sheep.address
  const isOther = (node: { host: string; port: number }): boolean =>
    node.port !== own.port || node.host !== own.host
  const others = (await sheep.nodes()).filter(isOther)
  const addresses = [own, ...others.map(({ host, port }) => ({ host, port }))]
  return remoteVolumes({ world, log: silentLog, addresses, patienceMs: PATIENCE_MS })
}

/** Opened and locked: nobody else changes it. Throws the failure. */
export async function openLocked(volumes: RemoteVolumes, name: string): Promise<Volume> {
  try {
    return await volumes.open(name)
  } catch (error) {
    if (error instanceof SheepError) throw failed(`Failed to open VDI ${name}: ${error.message}`)
    throw error
  }
}

/** One operation of a volume, as a promise; rejects with the SheepError of its code. */
export async function operate(start: (done: Done) => void): Promise<void> {
  const code = await new Promise<Code>(start)
  if (code !== Code.SUCCESS) throw new SheepError(code)
}

/** A VDI or snapshot nobody changes meanwhile, with its holes. */
export class VdiSource implements Source {
  readonly #reader: VdiReader
  readonly objectBytes: number

  private constructor(reader: VdiReader, objectBytes: number) {
    this.#reader = reader
    this.objectBytes = objectBytes
  }

  static async open(context: Context, vdi: OpenedVdi): Promise<VdiSource> {
    return new VdiSource(await VdiReader.open(context, vdi), 2 ** vdi.header.blockSizeShift)
  }

  get sizeBytes(): number {
    return this.#reader.sizeBytes
  }

  nextData(from: number): ByteStretch | undefined {
    if (from >= this.sizeBytes) return undefined
    const { map } = this.#reader
    const count = Math.ceil(this.sizeBytes / this.objectBytes)
    const first = map.next(Math.floor(from / this.objectBytes), count)
    if (first === undefined) return undefined
    let end = first + 1
    while (end < count && map.vid(end) !== 0) end++
    const start = Math.max(from, first * this.objectBytes)
    return { start, end: Math.min(end * this.objectBytes, this.sizeBytes) }
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#reader.read(offset, length)
  }
}

/** The same for those who know volumes only. */
export function sourceVolume(name: string, source: VdiSource): Volume {
  return readOnly(new ReadableSource(name, source))
}

class ReadableSource implements Readable {
  readonly name: string
  readonly #source: VdiSource

  constructor(name: string, source: VdiSource) {
    this.name = name
    this.#source = source
  }

  get sizeBytes(): number {
    return this.#source.sizeBytes
  }

  get objectBytes(): number {
    return this.#source.objectBytes
  }

  read(offset: number, into: Uint8Array, done: Done): void {
    this.#source.read(offset, into.length).then(
      (bytes) => {
        into.set(bytes)
        done(Code.SUCCESS)
      },
      (error: unknown) => done(error instanceof SheepError ? error.code : Code.EIO),
    )
  }

  extents(range: ByteRange): Extent[] {
    const until = range.offset + range.length
    const found: Extent[] = []
    for (let from = range.offset; from < until; ) {
      const data = this.#source.nextData(from)
      const start = Math.min(data?.start ?? until, until)
      const end = Math.min(data?.end ?? until, until)
      if (start > from) found.push({ length: start - from, hole: true })
      if (end > start) found.push({ length: end - start, hole: false })
      from = end
    }
    return found
  }

  owners(): OwnedExtent[] | undefined {
    return undefined
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
