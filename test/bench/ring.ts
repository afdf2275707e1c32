/**
 * `npm run bench:ring`: placement on rings of 10 to 1000 nodes with 128 vnodes each.
 *
 *   first    building the ring of all nodes from nothing, as at a node's start
 *   join     what the arrival of one node costs each member: sorting, weighing, the next ring
 *   leave    the same for a departure
 *   place    finding the owners of one object
 *   memory   what one ring and its members hold, measured after a garbage collection
 *
 * Times are processor time of this process, so a busy machine does not count. Ends with 1 when placement
 * grows faster than the logarithm of the ring allows.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { SdNode } from '../../src/model/node.js'
import { sortNodes } from '../../src/model/node.js'
import { dataOid, type Vid } from '../../src/model/oid.js'
import { buildRing, ownersOf, type Ring, weighNodes } from '../../src/model/ring.js'
import { table } from './table.js'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

const SIZES = [10, 100, 1000]
const COPIES = 3
const VNODES = 128
const PLACEMENTS = 400_000
const ROUNDS = 20
/** Measured cost may exceed the logarithm's share by this: caches are not logarithmic. */
const SLACK = 2

interface Figures {
  readonly nodes: number
  readonly firstMs: number
  readonly joinMs: number
  readonly leaveMs: number
  readonly placeUs: number
  readonly ringKib: number
}

function measure(count: number): Figures {
  const members = nodesOf(count)
  const joined = nodesOf(count + 1)
  let ring = buildRing([])
  const firstMs = perRound(1, () => {
    ring = buildRing(weighNodes(sortNodes(members), true))
  })
  const next = buildRing(weighNodes(sortNodes(joined), true), ring)
  const joinMs = perRound(ROUNDS, () => {
    buildRing(weighNodes(sortNodes(joined), true), ring)
  })
  const leaveMs = perRound(ROUNDS, () => {
    buildRing(weighNodes(sortNodes(members), true), next)
  })
  place(ring, PLACEMENTS)
  const placeMs = perRound(1, () => place(ring, PLACEMENTS))
  const placeUs = (placeMs * 1000) / PLACEMENTS
  return { nodes: count, firstMs, joinMs, leaveMs, placeUs, ringKib: ringBytes(count) / 1024 }
}

function place(ring: Ring, count: number): void {
  for (let i = 0; i < count; i++) {
    const owners = ownersOf(ring, dataOid((i >>> 10) as Vid, i & 1023), COPIES)
    if (owners.length !== COPIES) throw new Error(`${owners.length} owners`)
  }
}

function nodesOf(count: number): SdNode[] {
  return Array.from({ length: count }, (_, i) => ({
    host: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`,
    port: 7000,
    vnodes: VNODES,
    zone: i,
    spaceBytes: 2 ** 40,
  }))
}

/** Milliseconds of processor time of one round. */
function perRound(rounds: number, act: () => void): number {
  const before = process.cpuUsage()
  for (let i = 0; i < rounds; i++) act()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1000 / rounds
}

/** Bytes that making one more ring and its members leaves in use. */
function ringBytes(count: number): number {
  const before = bytesInUse()
  const ring = buildRing(weighNodes(sortNodes(nodesOf(count)), true))
  const bytes = bytesInUse() - before
  if (ring.nodes.length !== count) throw new Error('the ring must outlive the measurement')
  return bytes
}

function bytesInUse(): number {
  collectGarbage()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

function main(): number {
  // The first ring pays for the compiler; it is not among the rows.
  measure(SIZES[0]!)
  const rows = SIZES.map(measure)
  const cells = rows.map((row) => [
    ...[`${row.nodes}`, `${row.nodes * VNODES}`],
    ...[row.firstMs, row.joinMs, row.leaveMs].map((ms) => ms.toFixed(2)),
    row.placeUs.toFixed(2),
    row.ringKib.toFixed(0),
  ])
  const head = ['nodes', 'vnodes', 'first ms', 'join ms', 'leave ms', 'place us', 'ring KiB']
  console.log(table(head, cells))
  const [least, most] = [rows[0]!, rows.at(-1)!]
  const logarithms = Math.log(most.nodes * VNODES) / Math.log(least.nodes * VNODES)
  const growth = most.placeUs / least.placeUs
  console.log(
    `placement costs ${growth.toFixed(2)} times as much on ${most.nodes / least.nodes} times as many ` +
      `nodes; their logarithms are as 1 to ${logarithms.toFixed(2)}`,
  )
  return growth <= logarithms * SLACK ? 0 : 1
}

process.exitCode = main()
