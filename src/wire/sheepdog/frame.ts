/**
 * Frames of the sheepdog protocol (protocol spec, sections 1 to 4): a 48-byte header, then a body.
 *
 *   request   ver u8 | opcode u8 | flags u16 | epoch u32 | id u32 | length u32 | union 32 B
 *   response  ver u8 | opcode u8 | flags u16 | epoch u32 | id u32 | length u32 | result u32 | union 28 B
 *
 * Little endian throughout. The union stays bytes here; `requests.ts` and `replies.ts` name its fields.
 */
import type { BufferPool } from '../../base/buffer-pool.js'
import { noBytes } from '../../base/bytes.js'
import { LIMITS } from '../../base/limits.js'
import { Flag } from './opcodes.js'

export const HEADER_BYTES = 48
export const CLIENT_VERSION = 0x02
export const PEER_VERSION = 0x0a
/** Opcodes from here on are internal and demand PEER_VERSION. */
const FIRST_INTERNAL_OPCODE = 0x80

/** A frame that cannot be one: its sender loses the connection. */
export class MalformedFrame extends Error {
  override readonly name = 'MalformedFrame'
}

/** One frame as it came: a header to look into and the bytes that followed it. */
export class Frame {
  readonly head: Buffer
  #body: Buffer
  /** Where the body goes back to. */
  #memory: BodyMemory | undefined

  constructor(head: Buffer, body: Buffer = noBytes(), memory?: BodyMemory) {
    this.head = head
    this.#body = body
    this.#memory = memory
  }

  get body(): Buffer {
    return this.#body
  }

  /** Nobody uses the body any more. */
  release(): void {
    if (this.#memory === undefined) return
    this.#memory.give(this.#body)
    this.#memory = undefined
    this.#body = noBytes()
  }

  get version(): number {
    return this.head[0]!
  }
  get opcode(): number {
    return this.head[1]!
  }
  get flags(): number {
    return this.head.readUInt16LE(2)
  }
  get epoch(): number {
    return this.head.readUInt32LE(4)
  }
  get id(): number {
    return this.head.readUInt32LE(8)
  }
  /** Of a request without WRITE: the room its sender has for the answer. */
  get dataLength(): number {
    return this.head.readUInt32LE(12)
  }
  /** Of a response. */
  get result(): number {
    return this.head.readUInt32LE(16)
  }
  /** It brings, or asks for, more than anybody holds in memory for it; what it brought is not here. */
  get isOversized(): boolean {
    return this.dataLength > LIMITS.sheepdogPayloadBytesMax
  }
  has(flag: number): boolean {
    return (this.flags & flag) !== 0
  }
}

/** True when the version byte allows the opcode (section 4). */
export function versionAccepted(version: number, opcode: number): boolean {
  return opcode < FIRST_INTERNAL_OPCODE ? version <= CLIENT_VERSION : version === PEER_VERSION
}

export function versionFor(opcode: number): number {
  return opcode < FIRST_INTERNAL_OPCODE ? CLIENT_VERSION : PEER_VERSION
}

type BodyLength = (head: Buffer) => number

/** Body bytes that follow a request header. A reader throws away a body beyond the limit: see `isOversized`. */
export function requestBodyLength(head: Buffer): number {
  return (head[2]! & Flag.WRITE) !== 0 ? head.readUInt32LE(12) : 0
}

export function responseBodyLength(head: Buffer): number {
  const length = head.readUInt32LE(12)
  if (length > LIMITS.sheepdogPayloadBytesMax) {
    throw new MalformedFrame(`response announces ${length} bytes`)
  }
  return length
}

/** Where bodies are kept: given back by who is done with a frame (`release`), or not at all. */
export interface BodyMemory extends Pick<BufferPool, 'give'> {
  /** Just `length` bytes, for the body behind this header. */
  take(length: number, head: Buffer): Buffer
}

const OWN_MEMORY: BodyMemory = {
  take: (length) => Buffer.allocUnsafeSlow(length),
  give: () => undefined,
}

/** What is left of a body is received where it belongs if it is at least this much; else with what follows it. */
const ROOM_BYTES_MIN = 16 * 1024

/**
 * Cuts a byte stream into frames. A frame has memory of its own, taken only after the header's length has passed its
 * limit. A body that does not pass is thrown away as it comes, and its frame, without a body, goes ahead of it.
 */
export class FrameReader {
  readonly #bodyLength: BodyLength
  readonly #memory: BodyMemory
  /** Not looked at yet: the chunk that was given last, from `at` on, and others before it. */
  #chunk: Buffer = noBytes()
  #isBorrowed = false
  #at = 0
  #later: Buffer[] = []
  #head = Buffer.allocUnsafe(HEADER_BYTES)
  #headFill = 0
  #body: Buffer | undefined
  #bodyFill = 0
  /** Bytes of an oversized body still to come. */
  #skip = 0

  constructor(bodyLength: BodyLength, memory: BodyMemory = OWN_MEMORY) {
    this.#bodyLength = bodyLength
    this.#memory = memory
  }

  /** Bytes as they come. The chunk is borrowed until `next` has wanted more, or `keep`. */
  give(chunk: Buffer): void {
    if (this.#at < this.#chunk.length) this.#later.push(Buffer.from(chunk))
    else {
      this.#chunk = chunk
      this.#at = 0
      this.#isBorrowed = true
    }
  }

  /** Whether everything that has come was a frame that `next` gave. */
  get isEmpty(): boolean {
    const isDone = this.#at === this.#chunk.length && this.#later.length === 0
    return isDone && this.#headFill === 0 && this.#body === undefined
  }

  /** The next frame that is complete, else undefined. Throws MalformedFrame. */
  next(): Frame | undefined {
    for (;;) {
      if (this.#at === this.#chunk.length && !this.#nextChunk()) return undefined
      const frame = this.#advance()
      if (frame !== undefined) return frame
    }
  }

  /** Copies what has not been looked at: the chunk's memory is somebody else's from now on. */
  keep(): void {
    if (!this.#isBorrowed) return
    const isOver = this.#at === this.#chunk.length
    this.#chunk = isOver ? noBytes() : Buffer.from(this.#chunk.subarray(this.#at))
    this.#at = 0
    this.#isBorrowed = false
  }

  /** Where the next bytes belong, when that is known; they are given as a view of it. */
  room(): Buffer | undefined {
    const body = this.#body
    const isNext = this.#at === this.#chunk.length && this.#later.length === 0
    if (body === undefined || !isNext || body.length - this.#bodyFill < ROOM_BYTES_MIN)
      return undefined
    return body.subarray(this.#bodyFill)
  }

  #nextChunk(): boolean {
    const chunk = this.#later.shift()
    this.#chunk = chunk ?? noBytes()
    this.#at = 0
    this.#isBorrowed = false
    return chunk !== undefined
  }

  /** Consumes at least a byte. */
  #advance(): Frame | undefined {
    if (this.#skip > 0) {
      const gone = Math.min(this.#skip, this.#chunk.length - this.#at)
      this.#skip -= gone
      this.#at += gone
      return undefined
    }
    if (this.#body !== undefined) return this.#fill(this.#body)
    this.#headFill += this.#move(this.#head, this.#headFill)
    if (this.#headFill < HEADER_BYTES) return undefined
    const wanted = this.#bodyLength(this.#head)
    if (wanted > LIMITS.sheepdogPayloadBytesMax) {
      this.#skip = wanted
      return this.#finish(undefined)
    }
    if (wanted === 0) return this.#finish(undefined)
    this.#body = this.#memory.take(wanted, this.#head)
    this.#bodyFill = 0
    return this.#at < this.#chunk.length ? this.#fill(this.#body) : undefined
  }

  #fill(body: Buffer): Frame | undefined {
    this.#bodyFill += this.#move(body, this.#bodyFill)
    return this.#bodyFill === body.length ? this.#finish(body) : undefined
  }

  /** As much of the chunk as `target` takes from `at` on; it may be there already (`room`). */
  #move(target: Buffer, at: number): number {
    const count = Math.min(target.length - at, this.#chunk.length - this.#at)
    const isThere =
      this.#chunk.buffer === target.buffer &&
      this.#chunk.byteOffset + this.#at === target.byteOffset + at
    if (!isThere) this.#chunk.copy(target, at, this.#at, this.#at + count)
    this.#at += count
    return count
  }

  #finish(body: Buffer | undefined): Frame {
    const frame = new Frame(this.#head, body, body === undefined ? undefined : this.#memory)
    this.#head = Buffer.allocUnsafe(HEADER_BYTES)
    this.#headFill = 0
    this.#body = undefined
    return frame
  }
}
