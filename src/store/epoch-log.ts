/**
 * The members of each epoch, one file an epoch (objects spec, section 13.2):
 *
 *   epoch/%08u:   sd_node x n (sorted) | time u64, seconds
 */
import { LIMITS } from '../base/limits.js'
import { decodeNodes, encodeNodes, NODE_BYTES, type SdNode, sortNodes } from '../model/node.js'
import type { Files } from '../world/world.js'
import { errnoOf } from './errno.js'

const TIME_BYTES = 8
const NAME = /^\d{8}$/

export interface EpochRecord {
  /** With their computed vnode numbers, in node order. */
  readonly nodes: readonly SdNode[]
  /** Seconds since the Unix epoch. */
  readonly time: number
}

export function encodeEpoch(record: EpochRecord): Buffer {
  const time = Buffer.alloc(TIME_BYTES)
  time.writeBigUInt64LE(BigInt(record.time))
  return Buffer.concat([encodeNodes(sortNodes(record.nodes)), time])
}

/** Throws RangeError when `bytes` is no epoch file. */
export function decodeEpoch(bytes: Buffer): EpochRecord {
  const count = (bytes.length - TIME_BYTES) / NODE_BYTES
  if (!Number.isInteger(count) || count < 0 || count > LIMITS.nodesMax) {
    throw new RangeError(`${bytes.length} bytes are not an epoch's node list`)
  }
  const time = bytes.readBigUInt64LE(count * NODE_BYTES)
  if (time > BigInt(Number.MAX_SAFE_INTEGER)) throw new RangeError(`${time} is not a time`)
  return { nodes: decodeNodes(bytes, count), time: Number(time) }
}

/** Reads the directory (made when absent) once; from then on this process is its only writer. */
export async function openEpochLog(files: Files, metaDirectory: string): Promise<EpochLog> {
  const directory = `${metaDirectory}/epoch`
  if (!files.exists(directory)) files.mkdir(directory)
  const names = await files.readDir(directory)
  const epochs = names.filter((name) => NAME.test(name)).map(Number)
  return new EpochLog(files, directory, new Set(epochs.filter((epoch) => epoch > 0)))
}

export class EpochLog {
  private readonly files: Files
  private readonly directory: string
  private readonly known: Set<number>

  constructor(files: Files, directory: string, known: Set<number>) {
    this.files = files
    this.directory = directory
    this.known = known
  }

  /** Highest epoch in the log, 0 when it is empty. */
  latest(): number {
    let latest = 0
    for (const epoch of this.known) latest = Math.max(latest, epoch)
    return latest
  }

  /** Epochs in the log, ascending; there may be gaps. */
  list(): number[] {
    return [...this.known].sort((a, b) => a - b)
  }

  /** Undefined when the epoch is not in the log. Throws errno errors, and an Error naming a damaged file. */
  read(epoch: number): EpochRecord | undefined {
    if (!this.known.has(epoch)) return undefined
    const path = this.path(epoch)
    try {
      return decodeEpoch(this.files.readFile(path))
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
      throw new Error(`${path} is damaged: ${error.message}`, { cause: error })
    }
  }

  /** Atomic and durable; replaces what was there. Rejects with an errno error. */
  async write(epoch: number, record: EpochRecord): Promise<void> {
    await this.files.writeFileAtomic(this.path(epoch), encodeEpoch(record))
    this.known.add(epoch)
  }

  /** Durable. Absent epochs are fine. Highest first, so that a crash leaves no gap below the latest. */
  async remove(epochs: Iterable<number>): Promise<void> {
    const doomed = [...epochs].filter((epoch) => this.known.has(epoch)).sort((a, b) => b - a)
    for (const epoch of doomed) {
      try {
        await this.files.unlink(this.path(epoch))
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error
      }
      this.known.delete(epoch)
    }
    await this.files.syncDir(this.directory)
  }

  private path(epoch: number): string {
    return `${this.directory}/${String(epoch).padStart(8, '0')}`
  }
}
