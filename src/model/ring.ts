/** Placement: vnodes on a hash ring, owners by zone (objects spec, section 11). */
import { LIMITS } from '../base/limits.js'
import { hashBytes, hashOid, nextHash } from './hash.js'
import { addressBytes, type SdNode } from './node.js'
import type { Oid } from './oid.js'

const VNODES_DEFAULT = 128

export interface Ring {
  /** Members with their computed vnode numbers, in node order. */
  readonly nodes: readonly SdNode[]
  /** Zones that have at least one vnode; at most 31 count. */
  readonly zones: number
  /** Positions, ascending, and the index in `nodes` of each one's owner. */
  readonly positions: BigUint64Array
  readonly ownerOf: Uint16Array
}

function nodeSeed(node: SdNode): bigint {
  const bytes = Buffer.alloc(18)
  addressBytes(node.host).copy(bytes)
  bytes.writeUInt16LE(node.port, 16)
  return hashBytes(bytes)
}

function roundHalfToEven(value: number): number {
  const floor = Math.floor(value)
  const rest = value - floor
  if (rest !== 0.5) return Math.round(value)
  return floor % 2 === 0 ? floor : floor + 1
}

/**
 * Members with the vnode numbers they get: from their space when the cluster's strategy is automatic,
 * as announced when it is fixed. Single precision, as every other member computes it.
 */
export function weighNodes(nodes: readonly SdNode[], automatic: boolean): SdNode[] {
  if (!automatic) return [...nodes]
  const withSpace = nodes.filter((node) => node.spaceBytes > 0)
  const sum = withSpace.reduce((total, node) => total + BigInt(node.spaceBytes), 0n)
  const average = withSpace.length === 0 ? 1n : sum / BigInt(withSpace.length)
  return nodes.map((node) => {
    if (node.spaceBytes === 0) return { ...node, vnodes: 0 }
    const share = Math.fround(Math.fround(node.spaceBytes) / Math.fround(Number(average)))
    return { ...node, vnodes: roundHalfToEven(Math.fround(VNODES_DEFAULT * share)) }
  })
}

/** `nodes` sorted and weighed. Throws when two vnodes fall on one position. */
export function buildRing(nodes: readonly SdNode[]): Ring {
  const total = nodes.reduce((sum, node) => sum + node.vnodes, 0)
  const points = new Array<{ position: bigint; owner: number }>(total)
  let count = 0
  nodes.forEach((node, owner) => {
    let position = nodeSeed(node)
    for (let i = 0; i < node.vnodes; i++) {
      position = nextHash(position)
      points[count++] = { position, owner }
    }
  })
  points.sort((a, b) => (a.position < b.position ? -1 : a.position > b.position ? 1 : 0))
  const positions = BigUint64Array.from(points, (point) => point.position)
  for (let i = 1; i < total; i++) {
    if (positions[i] === positions[i - 1]) throw new Error('two vnodes share a ring position')
  }
  const zones = new Set(nodes.filter((node) => node.vnodes > 0).map((node) => node.zone)).size
  return {
    nodes,
    zones: Math.min(zones, LIMITS.copiesMax),
    positions,
    ownerOf: Uint16Array.from(points, (point) => point.owner),
  }
}

/** Index of the first position at or after `hash`, wrapping. */
function firstAt(positions: BigUint64Array, hash: bigint): number {
  let low = 0
  let high = positions.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (positions[middle]! < hash) low = middle + 1
    else high = middle
  }
  return low === positions.length ? 0 : low
}

/** The nodes that hold an object, in ring order: one a zone, min(copies, zones) of them. */
export function ownersOf(ring: Ring, oid: Oid, copies: number): SdNode[] {
  const wanted = Math.min(copies, ring.zones)
  const owners: SdNode[] = []
  const total = ring.positions.length
  let at = firstAt(ring.positions, hashOid(oid))
  for (let walked = 0; walked < total && owners.length < wanted; walked++) {
    const node = ring.nodes[ring.ownerOf[at]!]!
    if (!owners.some((owner) => owner.zone === node.zone)) owners.push(node)
    at = at + 1 === total ? 0 : at + 1
  }
  return owners
}
