/**
 * The byte work of erasure coding (objects spec, section 10): cutting stripes of 512 bytes into strips and back,
 * and sums of products over GF(2^8) with the polynomial x^8+x^4+x^3+x^2+1. What the sums mean is `model/erasure`'s
 * business. This is the portable implementation; `world/node/strips.ts` loads a faster one with the same interface.
 */

export const STRIPE_BYTES = 512
const POLYNOMIAL = 0x11d
/** Above this many bytes a copy by call is cheaper than one by loop. */
const LOOP_COPY_BYTES_MAX = 32

/** The most fragments an object has: 16 of data and 15 of parity. */
export const FRAGMENTS_MAX = 31

/**
 * All functions check lengths and throw RangeError before they touch anything. Buffers are borrowed for the call
 * and must not overlap.
 */
export interface StripMath {
  /** For people: which implementation this is. */
  readonly name: string
  /**
   * Cuts whole stripes: strip `i` of every stripe goes, in order, to `fragments[i]`. There are 1 to 16
   * fragments, a power of two, each `data.length / fragments.length` bytes.
   */
  split(data: Uint8Array, fragments: readonly Uint8Array[]): void
  /** The reverse of `split`. */
  join(fragments: readonly Uint8Array[], data: Uint8Array): void
  /**
   * `outputs[r][b] = sum over c of coefficients[r * inputs.length + c] * inputs[c][b]`; all buffers
   * have one length.
   */
  mix(coefficients: Uint8Array, inputs: readonly Uint8Array[], outputs: readonly Uint8Array[]): void
}

const EXP = new Uint8Array(510)
const LOG = new Uint8Array(256)
/** `PRODUCTS[a << 8 | b]` is a * b. */
const PRODUCTS = makeProducts()

function makeProducts(): Uint8Array {
  for (let power = 0, value = 1; power < 255; power++) {
    EXP[power] = value
    EXP[power + 255] = value
    LOG[value] = power
    value = (value << 1) ^ (value & 0x80 ? POLYNOMIAL : 0)
  }
  const products = new Uint8Array(65536)
  for (let a = 1; a < 256; a++) {
    for (let b = 1; b < 256; b++) products[(a << 8) | b] = EXP[LOG[a]! + LOG[b]!]!
  }
  return products
}

/** Product in the field. */
export function times(a: number, b: number): number {
  return PRODUCTS[(a << 8) | b]!
}

/** The inverse of a number that is not 0. */
export function inverseOf(a: number): number {
  return EXP[255 - LOG[a]!]!
}

/** 2 to the `exponent`, which may be any natural number. */
export function powerOfTwo(exponent: number): number {
  return EXP[exponent % 255]!
}

function checkCut(data: Uint8Array, fragments: readonly Uint8Array[]): number {
  const count = fragments.length
  const isCount = count > 0 && count <= 16 && (count & (count - 1)) === 0
  const fits = isCount && fragments.every((one) => one.length * count === data.length)
  if (!fits || data.length % STRIPE_BYTES !== 0) throw new RangeError('strips do not fit the data')
  return STRIPE_BYTES / count
}

function checkMix(
  coefficients: Uint8Array,
  inputs: readonly Uint8Array[],
  outputs: readonly Uint8Array[],
): void {
  const length = inputs[0]?.length ?? 0
  const isSane =
    inputs.length > 0 &&
    inputs.length <= FRAGMENTS_MAX &&
    outputs.length <= FRAGMENTS_MAX &&
    coefficients.length === inputs.length * outputs.length &&
    inputs.every((one) => one.length === length) &&
    outputs.every((one) => one.length === length)
  if (!isSane) throw new RangeError('fragments and coefficients do not fit')
}

function bufferOver(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function split(data: Uint8Array, fragments: readonly Uint8Array[]): void {
  const strip = checkCut(data, fragments)
  const from = bufferOver(data)
  fragments.forEach((fragment, i) => {
    const stripes = data.length / STRIPE_BYTES
    for (let stripe = 0; stripe < stripes; stripe++) {
      copyStrip(from, stripe * STRIPE_BYTES + i * strip, fragment, stripe * strip, strip)
    }
  })
}

function join(fragments: readonly Uint8Array[], data: Uint8Array): void {
  const strip = checkCut(data, fragments)
  fragments.forEach((fragment, i) => {
    const from = bufferOver(fragment)
    const stripes = data.length / STRIPE_BYTES
    for (let stripe = 0; stripe < stripes; stripe++) {
      copyStrip(from, stripe * strip, data, stripe * STRIPE_BYTES + i * strip, strip)
    }
  })
}

function copyStrip(
  from: Buffer,
  source: number,
  into: Uint8Array,
  target: number,
  length: number,
): void {
  if (length > LOOP_COPY_BYTES_MAX) from.copy(into, target, source, source + length)
  else for (let i = 0; i < length; i++) into[target + i] = from[source + i]!
}

function mix(
  coefficients: Uint8Array,
  inputs: readonly Uint8Array[],
  outputs: readonly Uint8Array[],
): void {
  checkMix(coefficients, inputs, outputs)
  outputs.forEach((output, r) => {
    output.fill(0)
    inputs.forEach((input, c) => {
      addProduct(output, input, coefficients[r * inputs.length + c]!)
    })
  })
}

function addProduct(output: Uint8Array, input: Uint8Array, coefficient: number): void {
  if (coefficient === 0) return
  const row = coefficient << 8
  for (let b = 0; b < output.length; b++) output[b]! ^= PRODUCTS[row | input[b]!]!
}

export const portableStrips: StripMath = { name: 'portable', split, join, mix }
