/**
 * The 64 blocks of a cached object (cluster spec, section 16), as sets of bits. What is valid, what is dirty and what
 * is on its way are such sets.
 */
import { roundUp } from '../../base/bytes.js'

export const BLOCKS = 64
export const BLOCK_SET_BYTES = BLOCKS / 8
const BLOCK_UNIT_BYTES = 4096

/** Blocks [first, end). */
export interface BlockRange {
  readonly first: number
  readonly end: number
}

/** Bytes of a block: a 64th of the object, rounded up to whole pages. */
export function blockBytesOf(objectBytes: number): number {
  return roundUp(Math.ceil(objectBytes / BLOCKS), BLOCK_UNIT_BYTES)
}

/** Blocks that a range of bytes touches; none for no bytes. */
export function blocksTouched(offset: number, length: number, blockBytes: number): BlockRange {
  const first = Math.floor(offset / blockBytes)
  return { first, end: length === 0 ? first : Math.ceil((offset + length) / blockBytes) }
}

/** The bytes of a range of blocks; the object may end inside the last one. */
export function bytesOfBlocks(
  { first, end }: BlockRange,
  blockBytes: number,
  objectBytes: number,
): { readonly offset: number; readonly length: number } {
  const offset = first * blockBytes
  return { offset, length: Math.min(end * blockBytes, objectBytes) - offset }
}

export class BlockSet {
  readonly #bits: Uint8Array

  /** `bits`: BLOCK_SET_BYTES of them, copied; block 0 is the lowest bit of the first byte. */
  constructor(bits?: Uint8Array) {
    this.#bits = new Uint8Array(BLOCK_SET_BYTES)
    if (bits !== undefined) this.#bits.set(bits.subarray(0, BLOCK_SET_BYTES))
  }

  /** As in the file of dirty blocks; borrowed. */
  get bits(): Uint8Array {
    return this.#bits
  }

  get isEmpty(): boolean {
    return this.#bits.every((byte) => byte === 0)
  }

  has(block: number): boolean {
    return ((this.#bits[block >>> 3]! >>> (block & 7)) & 1) !== 0
  }

  hasAll({ first, end }: BlockRange): boolean {
    for (let block = first; block < end; block++) if (!this.has(block)) return false
    return true
  }

  add({ first, end }: BlockRange): void {
    for (let block = first; block < end; block++) this.#bits[block >>> 3]! |= 1 << (block & 7)
  }

  delete({ first, end }: BlockRange): void {
    for (let block = first; block < end; block++) this.#bits[block >>> 3]! &= ~(1 << (block & 7))
  }

  addAll(other: BlockSet): void {
    for (let i = 0; i < BLOCK_SET_BYTES; i++) this.#bits[i]! |= other.#bits[i]!
  }

  clear(): void {
    this.#bits.fill(0)
  }

  copy(): BlockSet {
    return new BlockSet(this.#bits)
  }

  /** Maximal ranges of blocks in the set, ascending. */
  runs(): BlockRange[] {
    return runsOf((block) => this.has(block), { first: 0, end: BLOCKS })
  }

  /** Maximal ranges inside `range` that are not in the set. */
  missing(range: BlockRange): BlockRange[] {
    return runsOf((block) => !this.has(block), range)
  }
}

function runsOf(isIn: (block: number) => boolean, { first, end }: BlockRange): BlockRange[] {
  const runs: BlockRange[] = []
  for (let block = first; block < end; block++) {
    if (!isIn(block)) continue
    const start = block
    while (block + 1 < end && isIn(block + 1)) block++
    runs.push({ first: start, end: block + 1 })
  }
  return runs
}
