/** Ranges of addresses as administrators write them: `10.0.0.0/8`, `fd00::/8`, `::1`, and `unix` for local sockets. */
import { addressBytes } from './node.js'

export interface Subnet {
  readonly text: string
  /** Whether a client at `host` is inside; undefined: it came over a local socket. */
  has(host: string | undefined): boolean
}

/** Throws a RangeError that says what is wrong with `text`. */
export function parseSubnet(text: string): Subnet {
  if (text === 'unix') return { text, has: (host) => host === undefined }
  const [, base = '', digits] = /^([0-9a-fA-F.:]+)(?:\/(\d{1,3}))?$/.exec(text) ?? []
  const isIpv6 = base.includes(':')
  const widest = isIpv6 ? 128 : 32
  const bits = digits === undefined ? widest : Number(digits)
  if (base === '' || bits > widest) {
    throw new RangeError(`'${text}' is no address, ADDRESS/BITS or unix`)
  }
  // An IPv4 address stands in the last four of the sixteen bytes.
  const length = bits + 128 - widest
  const network = addressBytes(base)
  if (!isSame(network, masked(network, length), 128)) {
    throw new RangeError(`'${text}' has bits set beyond its first ${bits}`)
  }
  return {
    text,
    has: (host) => {
      if (host === undefined) return false
      const [numeric = ''] = host.split('%')
      if (numeric.includes(':') !== isIpv6) return false
      return isSame(network, addressBytes(numeric), length)
    },
  }
}

function masked(address: Buffer, bits: number): Buffer {
  return Buffer.from(address.map((byte, i) => byte & maskOf(bits - 8 * i)))
}

function isSame(one: Buffer, other: Buffer, bits: number): boolean {
  return one.every((byte, i) => ((byte ^ other[i]!) & maskOf(bits - 8 * i)) === 0)
}

/** Of one byte, `bits` of which count from here on. */
function maskOf(bits: number): number {
  return bits >= 8 ? 0xff : bits <= 0 ? 0 : (0xff00 >> bits) & 0xff
}
