/**
 * A set of 64-bit ids for the tens of millions: open addressing in typed arrays, 13 to 27 bytes an id where a Set of
 * bigints takes more than a hundred. In many small tables, so that none takes long to grow. Ids are only ever added,
 * and taken out all together. Id 0 cannot be in it.
 */
const TABLES = 256
const CAPACITY_START = 16
/** Part of a table's places that may be taken. */
const LOAD_MAX = 0.6

interface Table {
  /** Two words a place, low and high: comparing them makes no bigint. */
  words: Uint32Array<ArrayBuffer>
  size: number
}

function emptyTable(): Table {
  return { words: new Uint32Array(2 * CAPACITY_START), size: 0 }
}

export class IdSet {
  #tables = Array.from({ length: TABLES }, emptyTable)
  #size = 0

  get size(): number {
    return this.#size
  }

  /** True: it was not there. Throws RangeError for 0. */
  add(id: bigint): boolean {
    if (id === 0n) throw new RangeError('id 0 cannot be kept')
    const [low, high] = [Number(id & 0xffffffffn), Number(id >> 32n)]
    const table = this.#tables[mixed(low, high) >>> 24]!
    if (table.size >= (LOAD_MAX * table.words.length) / 2) grow(table)
    const isNew = put(table.words, low, high)
    if (isNew) {
      table.size++
      this.#size++
    }
    return isNew
  }

  /** Everything in it, once each, in no order and in many small parts; the set is empty afterwards. */
  *drain(): Generator<BigUint64Array> {
    for (let at = 0; at < TABLES; at++) {
      const { words, size } = this.#tables[at]!
      this.#tables[at] = emptyTable()
      this.#size -= size
      yield idsIn(words, size)
    }
  }
}

function idsIn(words: Uint32Array, size: number): BigUint64Array {
  const ids = new BigUint64Array(size)
  let count = 0
  for (let at = 0; at < words.length; at += 2) {
    const [low, high] = [words[at]!, words[at + 1]!]
    if (low !== 0 || high !== 0) ids[count++] = (BigInt(high) << 32n) | BigInt(low)
  }
  return ids
}

function put(words: Uint32Array, low: number, high: number): boolean {
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

function grow(table: Table): void {
  const old = table.words
  table.words = new Uint32Array(2 * old.length)
  for (let at = 0; at < old.length; at += 2) {
    const [low, high] = [old[at]!, old[at + 1]!]
    if (low !== 0 || high !== 0) put(table.words, low, high)
  }
}

/** Spreads neighbouring ids: objects of one volume differ in the lowest bits only. */
function mixed(low: number, high: number): number {
  let h = Math.imul(low ^ Math.imul(high, 0x9e3779b1), 0x85ebca6b)
  h ^= h >>> 15
  h = Math.imul(h, 0xc2b2ae35)
  return (h ^ (h >>> 13)) >>> 0
}
