/**
 * Placement: vnodes on a hash ring, owners by zone (objects spec, section 11).
 *
 * A ring is immutable and lies in typed arrays: positions as pairs of 32-bit halves, because comparing 64-bit
 * values as bigints allocates. The next ring is merged from the last one: points of nodes that stay keep
 * their order and are not hashed again, so a join costs one pass over the ring.
 */
import { LIMITS } from '../base/limits.js'
import { hashBytes, hashOid, vnodeChain } from './hash.js'
import { addressBytes, type NodeKey, nodeKey, type SdNode } from './node.js'
import type { Oid } from './oid.js'

const VNODES_DEFAULT = 128
const GONE = 0xffff
/** Points one sort can take: an index and 32 bits of a position fill a double's 53 bits. */
const INDEX_LIMIT = 2 ** 21

/** Points of a ring, ascending by position. */
interface Points {
  /** Upper and lower 32 bits of the positions. */
  readonly high: Uint32Array
  readonly low: Uint32Array
  /** Index in the ring's `nodes` of each point's owner. */
  readonly owner: Uint16Array
  /** Which of its owner's vnodes a point is, from 0. */
  readonly vnode: Uint16Array
}

export interface Ring extends Points {
  /** Members with their computed vnode numbers, in node order. */
  readonly nodes: readonly SdNode[]
  /** Zones that have at least one vnode; at most 31 count. */
  readonly zones: number
}

/** Where the chain of a node's vnodes begins. */
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

/**
 * The ring of `nodes`, sorted and weighed; `previous` makes it cheaper and changes nothing else. Throws when
 * two vnodes fall on one position.
 */
export function buildRing(nodes: readonly SdNode[], previous?: Ring): Ring {
  const kept = previous === undefined ? NOTHING_KEPT : keptOf(previous, nodes)
  const fresh = freshPoints(nodes, kept.vnodes)
  const points = previous === undefined ? fresh : merged(previous, kept, fresh)
  const zones = new Set(nodes.filter((node) => node.vnodes > 0).map((node) => node.zone)).size
  return { nodes, zones: Math.min(zones, LIMITS.copiesMax), ...points }
}

interface Kept {
  /** New index of each old node, or GONE. */
  readonly indexOf: Uint16Array
  /** How many of its first vnodes each new node brings along from the previous ring. */
  readonly vnodes: readonly number[]
  readonly points: number
}

const NOTHING_KEPT: Kept = { indexOf: new Uint16Array(0), vnodes: [], points: 0 }

/** A node's vnodes are a chain: with another number of them the first ones stay where they are. */
function keptOf(previous: Ring, nodes: readonly SdNode[]): Kept {
  const now = new Map<NodeKey, number>(nodes.map((node, index) => [nodeKey(node), index]))
  const indexOf = new Uint16Array(previous.nodes.length).fill(GONE)
  const vnodes = nodes.map(() => 0)
  let points = 0
  previous.nodes.forEach((node, old) => {
    const index = now.get(nodeKey(node))
    if (index === undefined) return
    indexOf[old] = index
    vnodes[index] = Math.min(node.vnodes, nodes[index]!.vnodes)
    points += vnodes[index]
  })
  return { indexOf, vnodes, points }
}

function emptyPoints(count: number): Points {
  return {
    high: new Uint32Array(count),
    low: new Uint32Array(count),
    owner: new Uint16Array(count),
    vnode: new Uint16Array(count),
  }
}

/** The vnodes no earlier ring brings along, sorted. */
function freshPoints(nodes: readonly SdNode[], kept: readonly number[]): Points {
  const count = nodes.reduce((sum, node, i) => sum + node.vnodes - (kept[i] ?? 0), 0)
  const unsorted = emptyPoints(count)
  let at = 0
  nodes.forEach((node, owner) => {
    const skip = kept[owner] ?? 0
    if (node.vnodes === skip) return
    const chain = vnodeChain(nodeSeed(node), node.vnodes)
    for (let vnode = skip; vnode < node.vnodes; vnode++, at++) {
      unsorted.high[at] = chain[2 * vnode]!
      unsorted.low[at] = chain[2 * vnode + 1]!
      unsorted.owner[at] = owner
      unsorted.vnode[at] = vnode
    }
  })
  return sorted(unsorted)
}

/**
 * Sorted by position. Numbers without a comparator sort ten times faster, so upper half and index share one
 * double; the few points that agree in the upper half are put in order afterwards.
 */
function sorted(points: Points): Points {
  const { high, low, owner } = points
  const count = high.length
  if (count > INDEX_LIMIT) throw new RangeError(`a ring of ${count} vnodes`)
  const keys = new Float64Array(count)
  for (let i = 0; i < count; i++) keys[i] = high[i]! * INDEX_LIMIT + i
  keys.sort()
  const order = Uint32Array.from(keys, (key) => key % INDEX_LIMIT)
  for (let i = 1; i < count; i++) {
    const index = order[i]!
    let at = i
    for (; at > 0 && high[order[at - 1]!] === high[index]; at--) {
      if (low[order[at - 1]!]! <= low[index]!) break
      order[at] = order[at - 1]!
    }
    order[at] = index
  }
  const into = emptyPoints(count)
  for (let i = 0; i < count; i++) put(into, i, points, order[i]!, owner[order[i]!]!)
  return into
}

function put(into: Points, at: number, from: Points, index: number, owner: number): void {
  const high = from.high[index]!
  const low = from.low[index]!
  if (at > 0 && into.high[at - 1] === high && into.low[at - 1] === low) {
    throw new Error('two vnodes share a ring position')
  }
  into.high[at] = high
  into.low[at] = low
  into.owner[at] = owner
  into.vnode[at] = from.vnode[index]!
}

function merged(previous: Ring, kept: Kept, fresh: Points): Points {
  const total = kept.points + fresh.high.length
  const into = emptyPoints(total)
  let next = 0
  let at = 0
  for (let i = 0; i < previous.high.length; i++) {
    const owner = kept.indexOf[previous.owner[i]!]!
    if (owner === GONE || previous.vnode[i]! >= kept.vnodes[owner]!) continue
    while (next < fresh.high.length && isBefore(fresh, next, previous.high[i]!, previous.low[i]!)) {
      put(into, at++, fresh, next, fresh.owner[next]!)
      next++
    }
    put(into, at++, previous, i, owner)
  }
  for (; next < fresh.high.length; next++) put(into, at++, fresh, next, fresh.owner[next]!)
  return into
}

function isBefore(points: Points, index: number, high: number, low: number): boolean {
  const own = points.high[index]!
  return own < high || (own === high && points.low[index]! < low)
}

/** Position of a point as one number, for people and tests. */
export function positionAt(ring: Ring, index: number): bigint {
  return (BigInt(ring.high[index]!) << 32n) | BigInt(ring.low[index]!)
}

/** Index of the first position at or after `hash`, wrapping. */
function firstAt(ring: Ring, hash: bigint): number {
  const hashHigh = Number(hash >> 32n)
  const hashLow = Number(hash & 0xffffffffn)
  let from = 0
  let until = ring.high.length
  while (from < until) {
    const middle = (from + until) >>> 1
    if (isBefore(ring, middle, hashHigh, hashLow)) from = middle + 1
    else until = middle
  }
  return from === ring.high.length ? 0 : from
}

/** The nodes that hold an object, in ring order: one a zone, min(copies, zones) of them. */
export function ownersOf(ring: Ring, oid: Oid, copies: number): SdNode[] {
  const wanted = Math.min(copies, ring.zones)
  const owners: SdNode[] = []
  const total = ring.high.length
  let at = firstAt(ring, hashOid(oid))
  for (let walked = 0; walked < total && owners.length < wanted; walked++) {
    const node = ring.nodes[ring.owner[at]!]!
    if (!owners.some((owner) => owner.zone === node.zone)) owners.push(node)
    at = at + 1 === total ? 0 : at + 1
  }
  return owners
}
