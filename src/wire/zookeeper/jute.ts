/**
 * Jute, the serialisation of ZooKeeper: big endian, no tags, strings and buffers with a length in front
 * (-1: null). Frames are a length and that many bytes (zookeeper.jute in the ZooKeeper sources' public docs).
 */
import { noBytes } from '../../base/bytes.js'

/** A server may answer with a large list of children; nothing of ours comes near this. */
export const ZK_FRAME_BYTES_MAX = 32 * 1024 * 1024
const LENGTH_BYTES = 4

/** Bytes that cannot be what they claim: their sender loses the connection. */
export class MalformedJute extends Error {
  override readonly name = 'MalformedJute'
}

/** Collects one frame; `frame` gives it with its length in front. */
export class JuteWriter {
  readonly #parts: Buffer[] = [Buffer.alloc(LENGTH_BYTES)]
  #bytes = 0

  int(value: number): this {
    const part = Buffer.allocUnsafe(4)
    part.writeInt32BE(value)
    return this.#add(part)
  }

  long(value: bigint): this {
    const part = Buffer.allocUnsafe(8)
    part.writeBigInt64BE(value)
    return this.#add(part)
  }

  bool(value: boolean): this {
    return this.#add(Buffer.from([value ? 1 : 0]))
  }

  /** Keeps `value`: it must not change until the frame has been sent. */
  buffer(value: Buffer): this {
    return this.int(value.length).#add(value)
  }

  text(value: string): this {
    return this.buffer(Buffer.from(value, 'utf8'))
  }

  texts(values: readonly string[]): this {
    this.int(values.length)
    for (const value of values) this.text(value)
    return this
  }

  /** A record that is serialised already. */
  raw(bytes: Buffer): this {
    return this.#add(bytes)
  }

  frame(): Buffer {
    this.#parts[0]!.writeInt32BE(this.#bytes)
    return Buffer.concat(this.#parts, LENGTH_BYTES + this.#bytes)
  }

  #add(part: Buffer): this {
    this.#parts.push(part)
    this.#bytes += part.length
    return this
  }
}

/** Reads one frame's content. Every method throws MalformedJute when the bytes do not reach. */
export class JuteReader {
  readonly #from: Buffer
  #at = 0

  constructor(from: Buffer) {
    this.#from = from
  }

  get left(): number {
    return this.#from.length - this.#at
  }

  int(): number {
    return this.#from.readInt32BE(this.#take(4))
  }

  long(): bigint {
    return this.#from.readBigInt64BE(this.#take(8))
  }

  bool(): boolean {
    return this.#from[this.#take(1)] !== 0
  }

  /** Shares the frame's memory; a null buffer reads as an empty one. */
  buffer(): Buffer {
    const length = this.int()
    if (length === -1) return noBytes()
    if (length < 0) throw new MalformedJute(`buffer of ${length} bytes`)
    const at = this.#take(length)
    return this.#from.subarray(at, at + length)
  }

  text(): string {
    return this.buffer().toString('utf8')
  }

  texts(): string[] {
    const count = this.int()
    if (count === -1) return []
    // Each has at least its own length field: no memory for more than the frame can hold.
    if (count < 0 || count * 4 > this.left) throw new MalformedJute(`list of ${count} strings`)
    return Array.from({ length: count }, () => this.text())
  }

  #take(bytes: number): number {
    if (bytes > this.left) throw new MalformedJute(`${bytes} bytes wanted, ${this.left} left`)
    const at = this.#at
    this.#at += bytes
    return at
  }
}

/** Cuts a byte stream into frames. */
export class JuteFrames {
  #chunks: Buffer[] = []
  #bytes = 0

  /** The contents of the frames `chunk` completes. Throws MalformedJute on an impossible length. */
  push(chunk: Buffer): Buffer[] {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    const frames: Buffer[] = []
    for (;;) {
      const length = this.#nextLength()
      if (length === undefined || this.#bytes < LENGTH_BYTES + length) return frames
      const all = this.#joined()
      const end = LENGTH_BYTES + length
      frames.push(all.subarray(LENGTH_BYTES, end))
      this.#chunks = all.length > end ? [all.subarray(end)] : []
      this.#bytes = all.length - end
    }
  }

  #nextLength(): number | undefined {
    if (this.#bytes < LENGTH_BYTES) return undefined
    const first = this.#chunks[0]!
    const length = (first.length >= LENGTH_BYTES ? first : this.#joined()).readInt32BE(0)
    if (length < 0 || length > ZK_FRAME_BYTES_MAX) {
      throw new MalformedJute(`frame of ${length} bytes`)
    }
    return length
  }

  #joined(): Buffer {
    const [first] = this.#chunks
    if (first !== undefined && this.#chunks.length === 1) return first
    const all = Buffer.concat(this.#chunks, this.#bytes)
    this.#chunks = [all]
    return all
  }
}
