/** What both kinds of fault run share: a formatted cluster, its volumes, and somebody who uses them. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { performance } from 'node:perf_hooks'
import { TestCluster, TestNode } from '../real/support/cluster.js'
import { type Owner, scratch } from '../real/support/owner.js'
import { freePorts } from '../real/support/ports.js'
import { until } from '../real/support/run.js'
import { type CopiesReport, compareCopies, type Layout } from './copies.js'
import type { Dice } from './dice.js'
import { FaultCluster, makeDisks } from './fault-cluster.js'
import type { Meeting } from './meeting.js'
import { VerifyingWriter } from './verifying-writer.js'

const VOLUME_BYTES = 48 * 1024 * 1024
const BLOCKS = 1536
/** 1 MiB objects: many of them, so that recovery has something to list and to fetch. */
const BLOCK_SIZE_SHIFT = '20'
const PACE_MS = 4
const OPEN_AGAIN_MS = 30_000
const EQUAL_MS = 60_000

export interface Redundancy extends Layout {
  /** As `dog cluster format -c` takes it. */
  readonly text: string
  /** Nodes that may be lost without losing data. */
  readonly bearable: number
}

export interface Setting {
  readonly owner: Owner
  readonly cluster: TestCluster
  readonly faults: FaultCluster
  readonly writers: readonly VerifyingWriter[]
  readonly redundancy: Redundancy
  readonly keep: boolean
  readonly say: (line: string) => void
  /** What went wrong beside wrong bytes. */
  readonly failures: string[]
}

export interface SettingPlan {
  readonly owner: Owner
  readonly meeting: Meeting
  readonly nodes: number
  readonly spares: number
  readonly volumes: number
  readonly redundancy: Redundancy
  readonly chance: Dice
  readonly top: string | undefined
  /** Stores and logs of a run that failed stay. */
  readonly keep: boolean
  readonly say: (line: string) => void
  readonly patienceMs: number
}

/** Starts and formats the cluster and makes the volumes; nobody writes yet. */
export async function prepare(plan: SettingPlan): Promise<Setting> {
  const { owner, meeting, redundancy, say } = plan
  const began = performance.now()
  const failures: string[] = []
  const failure = (what: string): void => {
    failures.push(what)
    say(`FAILURE: ${what}`)
  }
  const cluster = await plannedCluster(plan)
  owner.teardown(() => cluster.killAll())
  await Promise.all(
    cluster.nodes.slice(0, plan.nodes).map(async (node) => {
      await makeDisks(node)
      await node.start()
    }),
  )
  await cluster.members(plan.nodes)
  await cluster.dog('cluster format', '-c', redundancy.text)
  const { cables, daemons, servers } = meeting
  const { width } = redundancy
  const context = { cluster, cables, daemons, servers, width, say, failure }
  const faults = new FaultCluster(context, plan.nodes)
  const writers: VerifyingWriter[] = []
  for (let volume = 1; volume <= plan.volumes; volume++) {
    const exportName = `volume${volume}`
    await cluster.dog('vdi create', '-z', BLOCK_SIZE_SHIFT, exportName, `${VOLUME_BYTES}`)
    writers.push(
      new VerifyingWriter({
        exportName,
        volume,
        sizeBytes: VOLUME_BYTES,
        blocks: BLOCKS,
        sectorsMayTear: redundancy.strips !== undefined,
        dice: plan.chance.fork(),
        paceMs: PACE_MS,
        patienceMs: plan.patienceMs,
        referee: {
          gateways: () => faults.gateways(),
          now: () => `${((performance.now() - began) / 1000).toFixed(1)}s`,
          trouble: ({ index }, sinceMs, what) => {
            const excused = faults.excuses(index, sinceMs)
            const line = `${exportName} through node ${index}: ${what}`
            if (excused) say(`client: ${line}`)
            else failure(`client error without a fault of its gateway: ${line}`)
          },
        },
      }),
    )
  }
  return { owner, cluster, faults, writers, redundancy, keep: plan.keep, say, failures }
}

async function plannedCluster(plan: SettingPlan): Promise<TestCluster> {
  const directory = await storesDirectory(plan)
  const count = plan.nodes + plan.spares
  const ports = await freePorts(2 * count)
  const driver = await plan.meeting.driver(directory)
  const nodes = Array.from({ length: count }, (_, index) => {
    const [port, nbdPort] = [ports[2 * index]!, ports[2 * index + 1]!]
    const disks = [`${directory}/n${index}-d1`, `${directory}/n${index}-d2`]
    const own = { index, port, nbdPort, directory: `${directory}/n${index}`, driver, disks }
    return new TestNode({ ...own, ...plan.meeting.place(index) })
  })
  return new TestCluster(directory, nodes)
}

/** Gone with the run, unless it failed and its remains are wanted. */
async function storesDirectory({ owner, top, keep, say }: SettingPlan): Promise<string> {
  if (!keep) return scratch(owner, top)
  const directory = await mkdtemp(`${top ?? tmpdir()}/sheepdog-faults-`)
  owner.teardown(async () => {
    if (owner.passed) await rm(directory, { recursive: true, force: true })
    else say(`stores and logs are kept in ${directory}`)
  })
  return directory
}

/** Reads every block of every volume through every node that is up; complaints land with the writers. */
export async function readEverything({ faults, writers, cluster }: Setting): Promise<void> {
  for (const node of faults.living) {
    const gateway = {
      index: cluster.nodes.indexOf(node),
      place: { host: node.host, port: node.place.nbdPort },
    }
    for (const writer of writers) {
      // The lock of whoever had the volume open before is given back in the cluster's order of events.
      let last = ''
      await until(`node ${gateway.index} opening ${writer.exportName}`, OPEN_AGAIN_MS, () =>
        writer.readAll(gateway).then(
          () => true,
          (error: unknown) => {
            last = String(error)
            throw new Error(last)
          },
        ),
      )
    }
  }
}

/** Compares all copies; they may take a while to meet. */
export async function settledCopies({ faults, redundancy }: Setting): Promise<CopiesReport> {
  const holders = faults.living.map((node) => {
    return { node: node.place.index, directories: node.place.disks ?? [node.objects] }
  })
  let report: CopiesReport = { objects: 0, faults: ['never compared'] }
  const equal = until('equal copies', EQUAL_MS, async () => {
    report = await compareCopies(holders, redundancy)
    return report.faults.length === 0
  })
  // Not in time: the report says what still differs.
  await equal.catch(() => undefined)
  return report
}
