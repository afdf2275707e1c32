/** The hash functions of the ring and of volume ids (objects spec, section 2). */
import { encodeText } from '../base/bytes.js'
import type { Oid, Vid } from './oid.js'

const BASIS = 0xcbf29ce484222325n
const MASK = 0xffffffffffffffffn

/*
 * The multiplication is done in 16-bit limbs of plain numbers: a bigint product per byte would cost
 * more than the rest of a placement decision. The prime is 0x100000001b3 = 2^40 + 0x1b3, so a product is a shift by 40
 * bits plus a multiplication by 435, which stays inside 2^53.
 */
const state = new Uint16Array(4)

function load(h: bigint): void {
  state[0] = Number(h & 0xffffn)
  state[1] = Number((h >> 16n) & 0xffffn)
  state[2] = Number((h >> 32n) & 0xffffn)
  state[3] = Number((h >> 48n) & 0xffffn)
}

function step(byte: number): void {
  const a = state[0]! ^ byte
  const b = state[1]!
  const c = state[2]!
  const d = state[3]!
  const low = a * 0x1b3
  const mid = b * 0x1b3 + (low >>> 16)
  const high = c * 0x1b3 + (mid >>> 16) + ((a << 8) & 0xffff)
  const top = d * 0x1b3 + (high >>> 16) + (((a >>> 8) | (b << 8)) & 0xffff)
  state[0] = low
  state[1] = mid
  state[2] = high
  state[3] = top
}

function result(): bigint {
  return (
    (BigInt(state[3]!) << 48n) |
    (BigInt(state[2]!) << 32n) |
    BigInt(state[1]! * 0x10000 + state[0]!)
  )
}

/** FNV-1a, 64 bits. */
export function fnv1a64(bytes: Uint8Array, seed: bigint = BASIS): bigint {
  load(seed)
  for (let i = 0; i < bytes.length; i++) step(bytes[i]!)
  return result()
}

/** FNV-1a over the eight little-endian bytes of a number. */
function fnvOfNumber(value: bigint, seed: bigint): bigint {
  load(seed)
  let low = Number(value & 0xffffffffn)
  let high = Number(value >> 32n)
  for (let i = 0; i < 4; i++, low >>>= 8) step(low & 0xff)
  for (let i = 0; i < 4; i++, high >>>= 8) step(high & 0xff)
  return result()
}

/** The next position of a vnode chain: a hash once more over its own value, seeded with itself. */
export function nextHash(h: bigint): bigint {
  return fnvOfNumber(h, h)
}

/**
 * `count` positions that follow one another from `seed`, each as its upper and its lower 32 bits: the
 * vnodes of a node (objects spec, section 11). The same as nextHash over and over, without a bigint a step.
 */
export function vnodeChain(seed: bigint, count: number): Uint32Array {
  const halves = new Uint32Array(2 * count)
  load(seed)
  for (let at = 0; at < halves.length; at += 2) {
    // The value hashed is the one the state begins with.
    const [a, b, c, d] = [state[0]!, state[1]!, state[2]!, state[3]!]
    stepWord(a)
    stepWord(b)
    stepWord(c)
    stepWord(d)
    halves[at] = state[3]! * 0x10000 + state[2]!
    halves[at + 1] = state[1]! * 0x10000 + state[0]!
  }
  return halves
}

function stepWord(word: number): void {
  step(word & 0xff)
  step(word >>> 8)
}

/** H of the spec: FNV-1a and one more round. */
export function hashBytes(bytes: Uint8Array): bigint {
  return nextHash(fnv1a64(bytes))
}

/** Ring position of an object. */
export function hashOid(oid: Oid): bigint {
  return nextHash(fnvOfNumber(oid & MASK, BASIS))
}

/** Where probing for a name's volume id starts; 0 is never an id (objects spec, section 3.1). */
export function vidHash(name: string): Vid {
  return Number(fnv1a64(encodeText(name)) & 0xffffffn) as Vid
}
