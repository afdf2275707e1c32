/**
 * Erasure coding of objects (objects spec, section 10): any `data` of the `data + parity` fragments give the
 * object back. Stripes of 512 bytes are cut into `data` strips; fragment i < data is strip i of all stripes,
 * fragment data + k the parity strips
 *
 *   parity_k = sum over j of row_k[j] * strip_j        in GF(2^8), polynomial 0x11d
 *
 * The rows are the lower part of a systematic Vandermonde matrix, the same as in sheepdog 1.0 and zfec. Row k
 * does not depend on the number of parity strips.
 */
import {
  inverseOf,
  portableStrips,
  powerOfTwo,
  STRIPE_BYTES,
  type StripMath,
  times,
} from '../base/strips.js'
import type { Strips } from './policy.js'

/** Decoding matrices remembered; there are few patterns of loss at a time. */
const MATRICES_MAX = 64

/** Square matrices and rows, row by row. */
type Matrix = Uint8Array

/** (data + parity) x data; the top is the identity, so that data fragments are the data itself. */
export function generatorMatrix({ data, parity }: Strips): Uint8Array {
  const rows = data + parity
  const powers = new Uint8Array(rows * data)
  powers[0] = 1
  for (let r = 0; r < rows - 1; r++) {
    for (let c = 0; c < data; c++) powers[(r + 1) * data + c] = powerOfTwo(r * c)
  }
  return product(powers, inverted(powers.subarray(0, data * data), data), data)
}

/** `left` has any number of rows of `size`; `right` is square. */
function product(left: Matrix, right: Matrix, size: number): Matrix {
  const result = new Uint8Array(left.length)
  for (let at = 0; at < left.length; at++) {
    const row = at - (at % size)
    let sum = 0
    for (let k = 0; k < size; k++) sum ^= times(left[row + k]!, right[k * size + (at % size)]!)
    result[at] = sum
  }
  return result
}

/** Gauss and Jordan. Any rows of a generator matrix are independent, so there is always a pivot. */
function inverted(matrix: Matrix, size: number): Matrix {
  const left = Uint8Array.from(matrix)
  const right = new Uint8Array(size * size)
  for (let i = 0; i < size; i++) right[i * size + i] = 1
  for (let column = 0; column < size; column++) {
    let pivot = column
    while (pivot < size && left[pivot * size + column] === 0) pivot++
    if (pivot === size) throw new RangeError('the matrix has no inverse')
    for (const side of [left, right]) {
      swapRows(side, pivot, column, size)
    }
    const factor = inverseOf(left[column * size + column]!)
    for (const side of [left, right]) {
      for (let i = 0; i < size; i++)
        side[column * size + i] = times(side[column * size + i]!, factor)
    }
    for (let row = 0; row < size; row++) {
      const times = left[row * size + column]!
      if (row === column || times === 0) continue
      for (const side of [left, right]) addRow(side, { row, from: column, times, size })
    }
  }
  return right
}

function swapRows(matrix: Matrix, a: number, b: number, size: number): void {
  if (a === b) return
  const row = matrix.slice(a * size, (a + 1) * size)
  matrix.copyWithin(a * size, b * size, (b + 1) * size)
  matrix.set(row, b * size)
}

interface RowStep {
  readonly row: number
  readonly from: number
  readonly times: number
  readonly size: number
}

function addRow(matrix: Matrix, { row, from, times: factor, size }: RowStep): void {
  for (let i = 0; i < size; i++) {
    matrix[row * size + i]! ^= times(factor, matrix[from * size + i]!)
  }
}

/** Fragments by index; holes are those one does not have. */
export type Fragments = readonly (Uint8Array | undefined)[]

/** One way of coding with the arithmetic to do it. */
export class ErasureCode {
  readonly strips: Strips
  /** Data and parity fragments together. */
  readonly width: number
  readonly #math: StripMath
  readonly #generator: Uint8Array
  readonly #parityRows: Uint8Array
  /** Inverses by the set of fragments they start from, as a bit mask. */
  readonly #inverses = new Map<number, Uint8Array>()

  constructor(strips: Strips, math: StripMath = portableStrips) {
    this.strips = strips
    this.width = strips.data + strips.parity
    this.#math = math
    this.#generator = generatorMatrix(strips)
    this.#parityRows = this.#generator.subarray(strips.data * strips.data)
  }

  /** Bytes each fragment has of `bytes` of data. */
  share(bytes: number): number {
    return bytes / this.strips.data
  }

  /** All fragments of whole stripes; fresh memory, one allocation. */
  encode(data: Uint8Array): Uint8Array[] {
    if (data.length % STRIPE_BYTES !== 0) throw new RangeError('only whole stripes are encoded')
    const length = this.share(data.length)
    const memory = Buffer.allocUnsafe(length * this.width)
    const fragments = Array.from({ length: this.width }, (_, i) =>
      memory.subarray(i * length, (i + 1) * length),
    )
    const own = fragments.slice(0, this.strips.data)
    this.#math.split(data, own)
    this.#math.mix(this.#parityRows, own, fragments.slice(this.strips.data))
    return fragments
  }

  /** True when the data can be had from what is there. */
  suffices(fragments: Fragments): boolean {
    return this.#present(fragments).length === this.strips.data
  }

  /** The data from any `strips.data` fragments. Throws RangeError when there are fewer. */
  decode(fragments: Fragments, into: Uint8Array): void {
    const { data } = this.strips
    const own = Array.from({ length: data }, (_, i) => fragments[i] ?? this.rebuild(i, fragments))
    this.#math.join(own, into)
  }

  /** One fragment from any `strips.data` others. Throws RangeError when there are fewer. */
  rebuild(index: number, fragments: Fragments): Uint8Array {
    const { data } = this.strips
    const present = this.#present(fragments)
    if (present.length < data) throw new RangeError(`${present.length} fragments of ${data} needed`)
    const row = this.#generator.subarray(index * data, (index + 1) * data)
    const inputs = present.map((i) => fragments[i]!)
    const output = Buffer.allocUnsafe(inputs[0]!.length)
    this.#math.mix(product(row, this.#inverse(present), data), inputs, [output])
    return output
  }

  /** The first ones that are there, no more than are needed: data before parity. */
  #present(fragments: Fragments): number[] {
    const present: number[] = []
    for (let i = 0; i < this.width && present.length < this.strips.data; i++) {
      if (fragments[i] !== undefined) present.push(i)
    }
    return present
  }

  /** Gives the data strips from the fragments `present` names. */
  #inverse(present: readonly number[]): Uint8Array {
    const { data } = this.strips
    const mask = present.reduce((bits, i) => bits | (1 << i), 0)
    const known = this.#inverses.get(mask)
    if (known !== undefined) return known
    const rows = new Uint8Array(data * data)
    present.forEach((i, at) => {
      rows.set(this.#generator.subarray(i * data, (i + 1) * data), at * data)
    })
    const inverse = inverted(rows, data)
    if (this.#inverses.size === MATRICES_MAX) this.#inverses.clear()
    this.#inverses.set(mask, inverse)
    return inverse
  }
}
