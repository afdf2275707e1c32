/**
 * `npm run bench -- --sheepdog`: the sheepdog protocol's door over one and three nodes, with as many copies. A pipelining client of
 * ours, and qemu-img 5.2 where it has been built (`npm test` does that).
 *
 *   --runs N, --seconds N, --dir DIR   as for the NBD door
 *   --size MIB                         size of the volume (1024)
 */

import { asVid, type Vid } from '../../src/model/oid.js'
import { startCluster, type TestCluster } from '../real/support/cluster.js'
import type { Owner } from '../real/support/owner.js'
import { haveQemu52, QEMU52 } from '../real/support/qemu52.js'
import { run } from '../real/support/run.js'
import { cpuMicroseconds } from './processes.js'
import { type DoorJob, type DoorPlan, runDoorJob } from './sheepdog-client.js'
import { figure, median, table } from './table.js'

const OBJECT_BYTES = 4 << 20
const KIB4 = 4096
const FILL_DEPTH = 4
/** Requests of one run of qemu-img bench. */
const QEMU_SMALL = 20_000
const QEMU_LARGE = 256

export interface DoorOptions {
  readonly runs: number
  readonly seconds: number
  readonly sizeMebibytes: number
  readonly top: string
  readonly say: (line: string) => void
}

interface Row {
  readonly job: string
  readonly unit: 'IOPS' | 'MB/s'
  readonly blockBytes: number
  readonly measure: (target: DoorTarget) => Promise<Measured>
}

interface Measured {
  readonly perSecond: number
  readonly p99Microseconds: number
  readonly serverMicroseconds: number
}

interface DoorTarget {
  readonly name: string
  readonly cluster: TestCluster
  readonly plan: DoorPlan
  readonly pids: readonly number[]
}

const own = (job: string, blockBytes: number, what: Omit<DoorJob, 'blockBytes'>): Row => ({
  ...{ job, blockBytes, unit: blockBytes === KIB4 ? 'IOPS' : 'MB/s' },
  measure: async ({ plan, pids }) => {
    const before = cpuMicroseconds(pids)
    const sample = await runDoorJob({ ...what, blockBytes }, plan)
    const spent = cpuMicroseconds(pids) - before
    return {
      perSecond: sample.operations / sample.seconds,
      p99Microseconds: sample.p99Microseconds,
      serverMicroseconds: spent / sample.operations,
    }
  },
})

/** `qemu-img bench`: requests in order, so many under way. */
const qemu = (job: string, blockBytes: number, depth: number, isWrite: boolean): Row => ({
  ...{ job, blockBytes, unit: blockBytes === KIB4 ? 'IOPS' : 'MB/s' },
  measure: async ({ cluster, pids, plan }) => {
    const count = blockBytes === KIB4 ? QEMU_SMALL : Math.min(QEMU_LARGE, plan.objects)
    const { host, port } = cluster.node(0)
    const uri = `sheepdog://${host}:${port}/bench`
    const how = ['-f', 'raw', '-t', 'writeback', '-c', `${count}`, '-d', `${depth}`]
    const before = cpuMicroseconds(pids)
    const command = [QEMU52.img, 'bench', ...how, '-s', `${blockBytes}`]
    const { stdout } = await run([...command, ...(isWrite ? ['-w'] : []), uri], {
      timeoutMs: 600_000,
    })
    const spent = cpuMicroseconds(pids) - before
    const seconds = Number(/completed in ([\d.]+) seconds/.exec(stdout)?.[1])
    return {
      perSecond: count / seconds,
      p99Microseconds: Number.NaN,
      serverMicroseconds: spent / count,
    }
  },
})

const ROWS: readonly Row[] = [
  ...[1, 32].flatMap((depth) => [
    own(`read-4k-d${depth}`, KIB4, { kind: 'read', depth, cached: true }),
    own(`write-4k-d${depth}`, KIB4, { kind: 'write', depth, cached: true }),
    own(`write-4k-d${depth}-through`, KIB4, { kind: 'write', depth, cached: false }),
  ]),
  own('read-4m-d4', OBJECT_BYTES, { kind: 'read', depth: 4, cached: true }),
  own('write-4m-d4', OBJECT_BYTES, { kind: 'write', depth: 4, cached: true }),
  own('create-4m-d4', OBJECT_BYTES, { kind: 'create', depth: 4, cached: true }),
]

const QEMU_ROWS: readonly Row[] = [
  qemu('qemu read-4k-d1', KIB4, 1, false),
  qemu('qemu read-4k-d32', KIB4, 32, false),
  qemu('qemu write-4k-d32', KIB4, 32, true),
  qemu('qemu read-4m-d4', OBJECT_BYTES, 4, false),
  qemu('qemu write-4m-d4', OBJECT_BYTES, 4, true),
]

export async function benchSheepdogDoor(owner: Owner, options: DoorOptions): Promise<string> {
  const { runs, say } = options
  const targets: DoorTarget[] = []
  for (const nodes of [1, 3]) targets.push(await startTarget(owner, nodes, options))
  const hasQemu = haveQemu52()
  if (!hasQemu) say('left out: qemu-img 5.2, which npm test builds')
  const rows = hasQemu ? [...ROWS, ...QEMU_ROWS] : ROWS
  const samples = new Map<string, Measured[]>()
  for (let round = 0; round < runs; round++) {
    for (const row of rows) {
      say(`round ${round + 1} of ${runs}: ${row.job}`)
      for (const target of targets) {
        const key = `${row.job} ${target.name}`
        samples.set(key, [...(samples.get(key) ?? []), await row.measure(target)])
      }
    }
  }
  const cells = rows.flatMap((row) =>
    targets.map(({ name }) => cellsOf(row, name, samples.get(`${row.job} ${name}`) ?? [])),
  )
  return table(['job', 'nodes = copies', 'median', 'unit', 'srv us/op', 'p99 us'], cells)
}

function cellsOf(row: Row, name: string, all: readonly Measured[]): string[] {
  const perSecond = median(all.map((one) => one.perSecond))
  const value = row.unit === 'IOPS' ? perSecond : (perSecond * row.blockBytes) / 1e6
  return [
    ...[row.job, name, figure(value), row.unit],
    figure(median(all.map((one) => one.serverMicroseconds))),
    figure(median(all.map((one) => one.p99Microseconds))),
  ]
}

/** A volume all of whose objects exist, so that reads read and writes do not create. */
async function startTarget(
  owner: Owner,
  nodes: number,
  { top, sizeMebibytes, seconds, say }: DoorOptions,
): Promise<DoorTarget> {
  const cluster = await startCluster(owner, { nodes, copies: nodes, top })
  await cluster.dog('vdi create', 'bench', `${sizeMebibytes}M`, '-P')
  const vid = await vidOf(cluster)
  const objects = Math.floor((sizeMebibytes << 20) / OBJECT_BYTES)
  const { host, port } = cluster.node(0)
  const plan = { host, port, vid, objects, objectBytes: OBJECT_BYTES }
  say(`filling the volume of ${nodes} nodes`)
  const job: DoorJob = { kind: 'create', blockBytes: OBJECT_BYTES, depth: FILL_DEPTH, cached: true }
  await runDoorJob(job, { ...plan, requests: objects })
  const pids = cluster.nodes.map((node) => node.pid)
  return { name: `${nodes}`, cluster, plan: { ...plan, seconds }, pids }
}

async function vidOf(cluster: TestCluster): Promise<Vid> {
  const { stdout } = await cluster.dog('vdi list', '-r', 'bench')
  return asVid(Number.parseInt(stdout.trim().split(' ')[7] ?? '', 16))
}
