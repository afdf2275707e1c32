/**
 * Somebody who uses a disk: random writes of blocks, several under way, no two on one block. Remembers what
 * each block may hold: what was last acknowledged, and what was asked for since.
 */
import { Code } from '../../../src/base/codes.js'
import type { Volume } from '../../../src/volume/volume.js'
import type { Dice } from './fake-cluster.js'
import { flush, read, write } from './volume-io.js'

const BLOCK_BYTES = 4096

interface Block {
  /** Last acknowledged. */
  value: number
  /** Last known to be durable. */
  durable: number
  /** Asked for since it was durable, oldest first. */
  since: number[]
  busy: boolean
}

export class BlockWriter {
  readonly blocks: readonly Block[]
  /** Writes and flushes that did not succeed. */
  readonly failures: string[] = []
  acknowledged = 0
  readonly #disk: Volume
  readonly #dice: Dice
  readonly #stride: number
  #next: number
  #stopping = false
  #workers: Promise<void>[] = []

  /** `count` blocks evenly over the disk, which hold `found` for good; zeros when not given. */
  constructor(disk: Volume, dice: Dice, count: number, found?: readonly number[]) {
    this.#disk = disk
    this.#dice = dice
    this.#stride = Math.floor(disk.sizeBytes / count / BLOCK_BYTES) * BLOCK_BYTES
    const holding = (value: number): Block => ({ value, durable: value, since: [], busy: false })
    this.blocks = Array.from({ length: count }, (_, i) => holding(found?.[i] ?? 0))
    this.#next = 1 + Math.max(0, ...(found ?? []))
  }

  start(workers = 4): void {
    this.#stopping = false
    this.#workers = Array.from({ length: workers }, () => this.#work())
  }

  /** Stops when what is under way has ended. */
  async stop(): Promise<void> {
    this.#stopping = true
    await Promise.all(this.#workers)
  }

  /** Everything acknowledged before is durable after. */
  async flush(): Promise<void> {
    const values = this.blocks.map(({ value }) => value)
    const code = await flush(this.#disk)
    if (code !== Code.SUCCESS) {
      this.failures.push(`flush: ${code}`)
      return
    }
    this.blocks.forEach((block, i) => {
      block.durable = values[i]!
      block.since = block.since.filter((value) => value > values[i]!)
    })
  }

  /** What blocks hold according to `disk`, or the code of the read that failed. */
  async look(disk: Volume): Promise<(number | string)[]> {
    const found: (number | string)[] = []
    for (let i = 0; i < this.blocks.length; i++) {
      const bytes = await read(disk, i * this.#stride, BLOCK_BYTES)
      if (!Buffer.isBuffer(bytes)) found.push(`read failed with ${bytes}`)
      else if (!bytes.equals(content(bytes.readUInt32LE(0)))) found.push('torn')
      else found.push(bytes.readUInt32LE(0))
    }
    return found
  }

  /** Complaints about blocks that hold nothing they may hold. `lost`: what was not flushed may be gone. */
  faults(found: readonly (number | string)[], { lost = false } = {}): string[] {
    return found.flatMap((value, i) => {
      const { value: last, durable, since } = this.blocks[i]!
      const oldest = lost ? durable : last
      const allowed = [oldest, ...since.filter((one) => one >= oldest)]
      if (typeof value === 'number' && allowed.includes(value)) return []
      return [`block ${i}: ${value}, allowed ${allowed.join(' or ')}`]
    })
  }

  async #work(): Promise<void> {
    while (!this.#stopping) {
      const i = this.#dice.below(this.blocks.length)
      const block = this.blocks[i]!
      if (block.busy) {
        await Promise.resolve()
        continue
      }
      block.busy = true
      const value = this.#next++
      block.since.push(value)
      const code = await write(this.#disk, i * this.#stride, content(value))
      if (code === Code.SUCCESS) {
        block.value = value
        this.acknowledged++
      } else {
        this.failures.push(`block ${i}: ${code}`)
      }
      block.busy = false
    }
  }
}

function content(value: number): Buffer {
  const word = Buffer.alloc(4)
  word.writeUInt32LE(value)
  return Buffer.alloc(BLOCK_BYTES, word)
}
