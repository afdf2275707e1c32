/** Randomness from the kernel, through OpenSSL. */
import { randomBytes, randomInt } from 'node:crypto'
import type { Random } from '../world.js'

export class NodeRandom implements Random {
  /** Throws RangeError unless 1 <= limit < 2^48. */
  below(limit: number): number {
    return randomInt(limit)
  }

  bytes(length: number): Buffer {
    return randomBytes(length)
  }
}
