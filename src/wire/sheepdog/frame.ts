/**
 * Frames of the sheepdog protocol (protocol spec, sections 1 to 4): a 48-byte header, then a body.
 *
 *   request   ver u8 | opcode u8 | flags u16 | epoch u32 | id u32 | length u32 | union 32 B
 *   response  ver u8 | opcode u8 | flags u16 | epoch u32 | id u32 | length u32 | result u32 | union 28 B
 *
 * Little endian throughout. The union stays bytes here; `requests.ts` and `replies.ts` name its fields.
 */
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
  readonly body: Buffer

  constructor(head: Buffer, body: Buffer = noBytes()) {
    this.head = head
    this.body = body
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

/**
 * Cuts a byte stream into frames. A body inside one chunk is a view of it; one that spans chunks is
 * gathered into a buffer of its own, allocated only after the header's length passed its limit. One that does not
 * pass is thrown away as it comes, and its frame, without a body, goes ahead of it.
 */
export class FrameReader {
  readonly #bodyLength: BodyLength
  #headParts = Buffer.alloc(HEADER_BYTES)
  #headFill = 0
  #head: Buffer | undefined
  #body: Buffer | undefined
  #bodyFill = 0
  /** Bytes of an oversized body still to come. */
  #skip = 0

  constructor(bodyLength: BodyLength) {
    this.#bodyLength = bodyLength
  }

  /** Frames completed by `chunk`, which the reader keeps. Throws MalformedFrame. */
  *read(chunk: Buffer): Generator<Frame, void, undefined> {
    let at = 0
    while (at < chunk.length) {
      if (this.#skip > 0) {
        const gone = Math.min(this.#skip, chunk.length - at)
        this.#skip -= gone
        at += gone
        continue
      }
      if (this.#head === undefined) {
        at = this.#takeHead(chunk, at)
        if (this.#head === undefined) return
      }
      const wanted = this.#bodyLength(this.#head)
      if (wanted > LIMITS.sheepdogPayloadBytesMax) {
        this.#skip = wanted
        yield this.#finish(noBytes())
        continue
      }
      if (this.#body === undefined && chunk.length - at >= wanted) {
        yield this.#finish(chunk.subarray(at, at + wanted))
        at += wanted
        continue
      }
      this.#body ??= Buffer.allocUnsafeSlow(wanted)
      const copied = chunk.copy(this.#body, this.#bodyFill, at)
      this.#bodyFill += copied
      at += copied
      if (this.#bodyFill === wanted) yield this.#finish(this.#body)
    }
  }

  #takeHead(chunk: Buffer, at: number): number {
    if (this.#headFill === 0 && chunk.length - at >= HEADER_BYTES) {
      this.#head = chunk.subarray(at, at + HEADER_BYTES)
      return at + HEADER_BYTES
    }
    const copied = chunk.copy(this.#headParts, this.#headFill, at)
    this.#headFill += copied
    if (this.#headFill === HEADER_BYTES) {
      this.#head = this.#headParts
      this.#headParts = Buffer.alloc(HEADER_BYTES)
      this.#headFill = 0
    }
    return at + copied
  }

  #finish(body: Buffer): Frame {
    const frame = new Frame(this.#head!, body)
    this.#head = undefined
    this.#body = undefined
    this.#bodyFill = 0
    return frame
  }
}
