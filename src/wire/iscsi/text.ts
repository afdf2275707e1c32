/** Text of login and text PDUs: `key=value` pairs, each ended by a zero byte (RFC 7143, section 6.1). */
import { ISCSI_LIMITS } from './constants.js'

/** What is no text of iSCSI. */
export class MalformedText extends Error {}

const KEY = /^[A-Z][A-Za-z0-9.\-+@_]{0,62}$/

/** In order. Throws MalformedText: no key, a key twice, more than the limits. */
export function decodeText(bytes: Buffer): Map<string, string> {
  const pairs = new Map<string, string>()
  let at = 0
  while (at < bytes.length) {
    const zero = bytes.indexOf(0, at)
    const end = zero < 0 ? bytes.length : zero
    const [from, until] = [at, end]
    at = end + 1
    // Some initiators pad with zeros inside of the data's length.
    if (from === until) continue
    const equals = bytes.indexOf(0x3d, from)
    if (equals < 0 || equals >= until) throw new MalformedText('a pair without =')
    const key = bytes.toString('latin1', from, equals)
    if (!KEY.test(key)) throw new MalformedText('a key that is none')
    if (until - equals - 1 > ISCSI_LIMITS.valueBytesMax) throw new MalformedText('a long value')
    if (pairs.has(key)) throw new MalformedText(`${key} is there twice`)
    if (pairs.size >= ISCSI_LIMITS.pairsMax) throw new MalformedText('too many pairs')
    pairs.set(key, bytes.toString('utf8', equals + 1, until))
  }
  return pairs
}

export function encodeText(pairs: Iterable<readonly [string, string]>): Buffer {
  const text = Array.from(pairs, ([key, value]) => `${key}=${value}\0`).join('')
  return Buffer.from(text, 'utf8')
}

/** A decimal or hexadecimal number of at most 2^31; undefined when it is none. */
export function numberOf(value: string): number | undefined {
  if (!/^(0[xX][0-9a-fA-F]{1,8}|\d{1,10})$/.test(value)) return undefined
  const number = Number(value)
  return number <= 0x7fffffff ? number : undefined
}

/** A binary value: hex or base64 (section 6.1); undefined when it is none or longer than `bytesMax`. */
export function binaryOf(value: string, bytesMax: number): Buffer | undefined {
  let bytes: Buffer | undefined
  if (/^0[xX]([0-9a-fA-F]{2})+$/.test(value)) bytes = Buffer.from(value.slice(2), 'hex')
  else if (/^0[bB][A-Za-z0-9+/]+=*$/.test(value)) bytes = Buffer.from(value.slice(2), 'base64')
  return bytes !== undefined && bytes.length <= bytesMax ? bytes : undefined
}
