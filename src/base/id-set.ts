/**
 * A set of 64-bit ids for the tens of millions: open addressing in one typed array, 8 to 27 bytes an id where a Set of
 * bigints takes more than a hundred. Grows by doubling; nothing is ever taken out. Id 0 cannot be in it.
 */
const CAPACITY_START = 1024
/** Part of the places that may be taken. */
const LOAD_MAX = 0.6

export class IdSet {
  #places = new BigUint64Array(CAPACITY_START)
  #words = new Uint32Array(this.#places.buffer)
  #size = 0

  get size(): number {
    return this.#size
  }

  /** True: it was not there. Throws RangeError for 0. */
  add(id: bigint): boolean {
    if (id === 0n) throw new RangeError('id 0 cannot be kept')
    if (this.#size >= LOAD_MAX * this.#places.length) this.#grow()
    const added = this.#put(Number(id & 0xffffffffn), Number(id >> 32n))
    if (added) this.#size++
    return added
  }

  /** Everything in it, once each, in no order; the set is empty afterwards and its memory is the result's. */
  take(): BigUint64Array {
    const places = this.#places
    let count = 0
    for (let at = 0; at < places.length; at++) {
      const id = places[at]!
      if (id !== 0n) places[count++] = id
    }
    this.#places = new BigUint64Array(CAPACITY_START)
    this.#words = new Uint32Array(this.#places.buffer)
    this.#size = 0
    return places.subarray(0, count)
  }

  /** As two halves: comparing them makes no bigint. */
  #put(low: number, high: number): boolean {
    const words = this.#words
    const mask = words.length / 2 - 1
    let at = mixed(low, high) & mask
    for (;;) {
      const [knownLow, knownHigh] = [words[2 * at]!, words[2 * at + 1]!]
      if (knownLow === low && knownHigh === high) return false
      if (knownLow === 0 && knownHigh === 0) break
      at = (at + 1) & mask
    }
    words[2 * at] = low
    words[2 * at + 1] = high
    return true
  }

  #grow(): void {
    const old = this.#words
    this.#places = new BigUint64Array(this.#places.length * 2)
    this.#words = new Uint32Array(this.#places.buffer)
    for (let at = 0; at < old.length; at += 2) {
      const [low, high] = [old[at]!, old[at + 1]!]
      if (low !== 0 || high !== 0) this.#put(low, high)
    }
  }
}

/** Spreads neighbouring ids: objects of one volume differ in the lowest bits only. */
function mixed(low: number, high: number): number {
  let h = Math.imul(low ^ Math.imul(high, 0x9e3779b1), 0x85ebca6b)
  h ^= h >>> 15
  h = Math.imul(h, 0xc2b2ae35)
  return (h ^ (h >>> 13)) >>> 0
}
