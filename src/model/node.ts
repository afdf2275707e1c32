/** A member of the cluster: node_id and sd_node (cluster spec, section 3). */

export const NODE_BYTES = 80
const LINK_BYTES = 24
const IO_AT = LINK_BYTES + 18

export interface SdNode {
  /** Dotted IPv4 or IPv6 text. */
  readonly host: string
  readonly port: number
  /** A second address for the data of other nodes (-i). Says nothing about who the node is. */
  readonly io?: { readonly host: string; readonly port: number }
  /** As announced: 128 automatic, 0 gateway, n fixed; in an epoch log the computed number. */
  readonly vnodes: number
  readonly zone: number
  readonly spaceBytes: number
}

export type NodeKey = string

/** Identity: address and port, nothing else. Also how people read it. */
export function nodeKey(node: Pick<SdNode, 'host' | 'port'>): NodeKey {
  return node.host.includes(':') ? `[${node.host}]:${node.port}` : `${node.host}:${node.port}`
}

/** 16 address bytes: IPv6, or 12 zeros and IPv4. Throws RangeError on text that is neither. */
export function addressBytes(host: string): Buffer {
  const bytes = Buffer.alloc(16)
  const dotted = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(host)
  if (dotted !== null) {
    for (let i = 0; i < 4; i++) {
      const part = Number(dotted[i + 1])
      if (part > 255) throw new RangeError(`not an address: ${host}`)
      bytes[12 + i] = part
    }
    return bytes
  }
  writeIpv6(bytes, host)
  return bytes
}

function writeIpv6(into: Buffer, host: string): void {
  const halves = host.split('::')
  const groups = halves.map((half) => (half === '' ? [] : half.split(':')))
  const given = groups.reduce((sum, half) => sum + half.length, 0)
  if (halves.length > 2 || given > 8 || (halves.length === 1 && given !== 8)) {
    throw new RangeError(`not an address: ${host}`)
  }
  const gap = Array<string>(8 - given).fill('0')
  const all = [...(groups[0] ?? []), ...(halves.length === 2 ? gap : []), ...(groups[1] ?? [])]
  all.forEach((group, i) => {
    if (!/^[0-9a-f]{1,4}$/i.test(group)) throw new RangeError(`not an address: ${host}`)
    into.writeUInt16BE(Number.parseInt(group, 16), 2 * i)
  })
}

/** IPv4 when byte 12 is set and the bytes before it are zero, else IPv6. */
export function addressText(bytes: Buffer): string {
  const isIpv4 = bytes[12] !== 0 && bytes.subarray(0, 12).every((byte) => byte === 0)
  if (isIpv4) return Array.from(bytes.subarray(12, 16)).join('.')
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i).toString(16))
  return shortenIpv6(groups)
}

function shortenIpv6(groups: readonly string[]): string {
  const text = groups.join(':')
  const runs = text.match(/(^|:)0(:0)+/g) ?? []
  const longest = runs.reduce((best, run) => (run.length > best.length ? run : best), '')
  if (longest === '') return text
  const at = text.indexOf(longest)
  return `${text.slice(0, at)}::${text.slice(at + longest.length).replace(/^:/, '')}`
}

export function encodeNode(node: SdNode, into: Buffer = Buffer.alloc(NODE_BYTES), at = 0): Buffer {
  into.fill(0, at, at + NODE_BYTES)
  addressBytes(node.host).copy(into, at + LINK_BYTES)
  into.writeUInt16LE(node.port, at + LINK_BYTES + 16)
  if (node.io !== undefined) {
    addressBytes(node.io.host).copy(into, at + IO_AT)
    into.writeUInt16LE(node.io.port, at + IO_AT + 16)
  }
  into.writeUInt16LE(node.vnodes, at + 64)
  into.writeUInt32LE(node.zone, at + 68)
  into.writeBigUInt64LE(BigInt(node.spaceBytes), at + 72)
  return into
}

export function decodeNode(from: Buffer, at = 0): SdNode {
  const ioPort = from.readUInt16LE(at + IO_AT + 16)
  const io = { host: addressText(from.subarray(at + IO_AT, at + IO_AT + 16)), port: ioPort }
  return {
    host: addressText(from.subarray(at + LINK_BYTES, at + LINK_BYTES + 16)),
    port: from.readUInt16LE(at + LINK_BYTES + 16),
    ...(ioPort !== 0 && { io }),
    vnodes: from.readUInt16LE(at + 64),
    zone: from.readUInt32LE(at + 68),
    spaceBytes: Number(from.readBigUInt64LE(at + 72)),
  }
}

/** In the order of nodes everywhere: the 16 address bytes, then the port. */
export function sortNodes(nodes: Iterable<SdNode>): SdNode[] {
  // Addresses are parsed once a node, not once a comparison.
  const keyed = Array.from(nodes, (node) => ({ node, address: addressBytes(node.host) }))
  keyed.sort((a, b) => Buffer.compare(a.address, b.address) || a.node.port - b.node.port)
  return keyed.map(({ node }) => node)
}

/** Zone of a node that was given none: the last four address bytes as a little-endian number. */
export function defaultZone(host: string): number {
  return addressBytes(host).readUInt32LE(12)
}

export function encodeNodes(nodes: readonly SdNode[]): Buffer {
  const bytes = Buffer.alloc(nodes.length * NODE_BYTES)
  nodes.forEach((node, i) => {
    encodeNode(node, bytes, i * NODE_BYTES)
  })
  return bytes
}

export function decodeNodes(from: Buffer, count: number, at = 0): SdNode[] {
  return Array.from({ length: count }, (_, i) => decodeNode(from, at + i * NODE_BYTES))
}
