/**
 * What the blocks of one volume may hold. Every block says of itself, in each of its 512-byte sectors, which
 * volume, block and write it is of, so a wrong byte is not only found but explained.
 *
 *   allowed(block) = { last value known to be there } + { writes asked for since whose outcome nobody knows }
 *
 * A write that is acknowledged, or a read that finds one of the allowed values, makes that one the known
 * value: whatever else may have been under way then is over and must not come back. After a loss of
 * everything that was not flushed the floor is what the last flush covered instead.
 *
 * Of an erasure-coded volume a sector whose write was cut off may hold anything until it is written again (ARCHITECTURE,
 * "Erasure coding"), except what belongs elsewhere.
 */

export const BLOCK_BYTES = 4096
const SECTOR_BYTES = 512
const SECTORS = BLOCK_BYTES / SECTOR_BYTES
const MAGIC = 0x53444654
/** Events of a block that are kept to explain a fault. */
const HISTORY_MAX = 12

interface Block {
  known: number
  /** Asked for since `known`, outcome unknown or still in flight. */
  maybe: number[]
  /** What the last flush covered, and everything asked for after it. */
  durable: number
  since: number[]
  history: string[]
}

export interface FlushMark {
  readonly known: readonly number[]
  readonly maybe: readonly (readonly number[])[]
}

export class BlockModel {
  readonly volume: number
  readonly count: number
  readonly #blocks: Block[]
  readonly #now: () => string
  readonly #mayTear: boolean
  #nextGeneration = 1

  /** `now` stamps the history of each block; `mayTear`: sectors are not kept whole. */
  constructor(volume: number, count: number, now: () => string, mayTear = false) {
    this.#mayTear = mayTear
    this.volume = volume
    this.count = count
    this.#now = now
    const fresh = (): Block => ({ known: 0, maybe: [], durable: 0, since: [], history: [] })
    this.#blocks = Array.from({ length: count }, fresh)
  }

  /** A write of whole blocks begins: its generation and its bytes. */
  begin(first: number, count: number): { readonly generation: number; readonly data: Buffer } {
    const generation = this.#nextGeneration++
    const data = Buffer.alloc(count * BLOCK_BYTES)
    for (let i = 0; i < count; i++) {
      const block = this.#block(first + i)
      block.maybe.push(generation)
      block.since.push(generation)
      fillBlock(data.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES), {
        volume: this.volume,
        block: first + i,
        generation,
      })
    }
    return { generation, data }
  }

  acknowledged(first: number, count: number, generation: number, by: string): void {
    this.#each(first, count, (block) => {
      block.known = generation
      block.maybe = []
      this.#note(block, `${generation} acknowledged by ${by}`)
    })
  }

  /** An error or the end of the connection: it may have been done, wholly, partly or not at all. */
  unknown(first: number, count: number, generation: number, by: string): void {
    this.#each(first, count, (block) => {
      this.#note(block, `${generation} unanswered by ${by}`)
    })
  }

  /** What a flush that begins now will cover when it succeeds. */
  flushBegins(): FlushMark {
    return {
      known: this.#blocks.map(({ known }) => known),
      maybe: this.#blocks.map(({ maybe }) => [...maybe]),
    }
  }

  flushed(mark: FlushMark): void {
    this.#blocks.forEach((block, i) => {
      const known = mark.known[i]!
      // What was in doubt then may have replaced the known value before or after the flush, or never.
      const doubt = mark.maybe[i]!
      const newer = block.since.filter((one) => one > known && !doubt.includes(one))
      block.durable = known
      block.since = [...doubt.filter((one) => block.since.includes(one)), ...newer]
    })
  }

  /** Everything dies at once: what no flush covered may be gone. Reads decide again. */
  lostUnflushed(): void {
    for (const block of this.#blocks) {
      block.known = block.durable
      block.maybe = [...block.since]
      this.#note(block, `all killed; durable ${block.durable}`)
    }
  }

  /** A value a read returned for blocks nobody wrote meanwhile; complaints, one a block. */
  check(first: number, bytes: Buffer, by: string): string[] {
    const faults: string[] = []
    for (let i = 0; i * BLOCK_BYTES < bytes.length; i++) {
      const content = bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)
      const fault = this.#judge(first + i, content, by)
      if (fault !== undefined) faults.push(fault)
    }
    return faults
  }

  #judge(index: number, content: Buffer, by: string): string | undefined {
    const block = this.#block(index)
    const found = sectorsOf(content, this.volume, index)
    const allowed = [block.known, ...block.maybe]
    const isRight = (one: number | string): boolean => {
      if (typeof one === 'number') return allowed.includes(one)
      return this.#mayTear && block.maybe.length > 0 && TORN.test(one)
    }
    if (found.every(isRight)) {
      const [only, ...others] = new Set(found)
      // A write of unknown outcome may be there in part, until the next one settles the block.
      if (others.length > 0 || typeof only !== 'number') return undefined
      if (block.maybe.length > 0) this.#note(block, `${only} read through ${by}`)
      block.known = only
      block.maybe = []
      return undefined
    }
    const words = [...new Set(found)].join(' and ')
    const history = block.history.join('; ')
    return (
      `volume ${this.volume} block ${index} through ${by}: found ${words}, ` +
      `allowed ${allowed.join(' or ')} (${history})`
    )
  }

  #each(first: number, count: number, act: (block: Block) => void): void {
    for (let i = first; i < first + count; i++) act(this.#block(i))
  }

  #block(index: number): Block {
    const block = this.#blocks[index]
    if (block === undefined) throw new RangeError(`no block ${index}`)
    return block
  }

  #note(block: Block, what: string): void {
    block.history.push(`${this.#now()} ${what}`)
    if (block.history.length > HISTORY_MAX) block.history.shift()
  }
}

interface Stamp {
  readonly volume: number
  readonly block: number
  readonly generation: number
}

//  magic u32 | volume u32 | sector u32 | generation u32 | noise of these four
function fillBlock(into: Buffer, stamp: Stamp): void {
  for (let sector = 0; sector < SECTORS; sector++) {
    const at = sector * SECTOR_BYTES
    const address = stamp.block * SECTORS + sector
    into.writeUInt32LE(MAGIC, at)
    into.writeUInt32LE(stamp.volume, at + 4)
    into.writeUInt32LE(address, at + 8)
    into.writeUInt32LE(stamp.generation, at + 12)
    let noise = (Math.imul(stamp.generation, 0x9e3779b1) ^ Math.imul(address, 0x85ebca6b)) | 1
    for (let word = at + 16; word < at + SECTOR_BYTES; word += 4) {
      noise ^= noise << 13
      noise ^= noise >>> 17
      noise ^= noise << 5
      into.writeInt32LE(noise, word)
    }
  }
}

/** What `sectorsOf` says of a sector that is of no write as a whole. */
const TORN = /^write \d+ torn within|^rubbish in/

/** Of each sector its generation (0: never written), or what is wrong with it. */
function sectorsOf(content: Buffer, volume: number, block: number): (number | string)[] {
  const expected = Buffer.alloc(BLOCK_BYTES)
  let filled = -1
  return Array.from({ length: SECTORS }, (_, sector) => {
    const at = sector * SECTOR_BYTES
    const bytes = content.subarray(at, at + SECTOR_BYTES)
    if (bytes.every((byte) => byte === 0)) return 0
    if (bytes.readUInt32LE(0) !== MAGIC) return `rubbish in sector ${sector}`
    const generation = bytes.readUInt32LE(12)
    if (generation !== filled) {
      fillBlock(expected, { volume, block, generation })
      filled = generation
    }
    if (expected.subarray(at, at + SECTOR_BYTES).equals(bytes)) return generation
    const [ofVolume, ofSector] = [bytes.readUInt32LE(4), bytes.readUInt32LE(8)]
    if (ofVolume === volume && ofSector === block * SECTORS + sector) {
      return `write ${generation} torn within sector ${sector}`
    }
    return `sector ${ofSector % SECTORS} of block ${Math.floor(ofSector / SECTORS)}, volume ${ofVolume}, write ${generation}`
  })
}
