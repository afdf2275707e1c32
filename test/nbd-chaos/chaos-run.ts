/**
 * Verifying writers over NBD whose connections are cut all the time and whose daemons are killed, or asked to stop, and
 * started again, one after the other. Whatever was acknowledged is read back, no byte is wrong, no request is answered with an error but
 * that the server shuts down, and the copies are equal in the end.
 */
import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import type { Dice } from '../faults/dice.js'
import { type Gateway, VerifyingWriter } from '../faults/verifying-writer.js'
import { startCluster, type TestCluster } from '../real/support/cluster.js'
import type { Owner } from '../real/support/owner.js'
import { until } from '../real/support/run.js'
import { copiesSettled } from '../real/support/same-copies.js'
import { CuttingProxy } from './cutting-proxy.js'

const NODES = 3
const VOLUME_BYTES = 16 * 1024 * 1024
const BLOCKS = 512
const PACE_MS = 2
const PATIENCE_MS = 60_000
const READ_AGAIN_MS = 30_000
const CALM_MS_MIN = 500
const CALM_MS_SPREAD = 2_500
const AWAY_MS_SPREAD = 1_500
/** What a request may be answered with beside success. */
const SHUTTING_DOWN = /answered error 108$/
const ANSWERED = /answered error/

export interface ChaosPlan {
  readonly owner: Owner
  readonly seconds: number
  readonly writers: number
  readonly dice: Dice
  readonly say: (line: string) => void
}

export interface ChaosVerdict {
  /** Everything that must not be; empty: passed. */
  readonly faults: readonly string[]
  /** What there was, for people. */
  readonly account: Readonly<Record<string, number>>
}

export async function chaosRun(plan: ChaosPlan): Promise<ChaosVerdict> {
  const { owner, dice, say } = plan
  const cluster = await startCluster(owner, { nodes: NODES })
  const began = performance.now()
  const faults: string[] = []
  const up = new Set<number>(cluster.nodes.keys())
  const proxies: CuttingProxy[] = []
  for (const { host, place } of cluster.nodes) {
    proxies.push(await CuttingProxy.before({ host, port: place.nbdPort }, dice.fork()))
  }
  owner.teardown(async () => {
    for (const proxy of proxies) proxy.close()
  })
  const gateways = (): Gateway[] =>
    [...up].map((index) => ({ index, place: proxies[index]!.place }))
  const writers: VerifyingWriter[] = []
  for (let volume = 1; volume <= plan.writers; volume++) {
    const exportName = `volume${volume}`
    await cluster.dog('vdi create', '-z', '20', exportName, `${VOLUME_BYTES}`)
    const trouble = ({ index }: Gateway, _sinceMs: number, what: string): void => {
      // Cut connections are what this is about; errors are answers.
      if (!ANSWERED.test(what) || SHUTTING_DOWN.test(what)) return
      faults.push(`${exportName} through node ${index}: ${what}`)
    }
    const now = (): string => `${((performance.now() - began) / 1000).toFixed(1)}s`
    writers.push(
      new VerifyingWriter({
        ...{ exportName, volume, sizeBytes: VOLUME_BYTES, blocks: BLOCKS, sectorsMayTear: false },
        ...{ dice: dice.fork(), paceMs: PACE_MS, patienceMs: PATIENCE_MS },
        referee: { gateways, now, trouble },
      }),
    )
  }
  for (const writer of writers) writer.start()
  const { kills, stops } = await disturb(plan, cluster, up)
  say('calm again; reading everything through every node')
  await Promise.all(writers.map((writer) => writer.stop()))
  await cluster.recovered()
  for (const writer of writers) await readEverywhere(cluster, writer)
  faults.push(...writers.flatMap(({ mismatches }) => mismatches))
  faults.push(...(await copiesSettled(cluster)))
  return { faults, account: { kills, stops, ...accountOf(writers, proxies) } }
}

/** Until the time is up: a node away, and back; one at a time, the next one when its data are whole again. */
async function disturb(
  { seconds, dice, say }: ChaosPlan,
  cluster: TestCluster,
  up: Set<number>,
): Promise<{ readonly kills: number; readonly stops: number }> {
  const end = performance.now() + seconds * 1000
  let [kills, stops] = [0, 0]
  while (performance.now() < end) {
    await pause(CALM_MS_MIN + dice.below(CALM_MS_SPREAD))
    const index = dice.below(cluster.nodes.length)
    const node = cluster.node(index)
    if (dice.below(3) > 0) {
      say(`kill node ${index}`)
      kills++
      up.delete(index)
      await node.kill()
    } else {
      say(`stop node ${index}`)
      stops++
      // Still among the gateways: its clients shall see how it ends.
      await node.stop()
      up.delete(index)
    }
    await pause(dice.below(AWAY_MS_SPREAD))
    await node.start()
    up.add(index)
    await cluster.recovered()
  }
  return { kills, stops }
}

/** Without the proxies. The door of the node before may not have given the volume back yet. */
async function readEverywhere(cluster: TestCluster, writer: VerifyingWriter): Promise<void> {
  for (const [index, node] of cluster.nodes.entries()) {
    const place = { host: node.host, port: node.place.nbdPort }
    await until(`${writer.exportName} at node ${index}`, READ_AGAIN_MS, async () => {
      return await writer.readAll({ index, place }).then(
        () => true,
        (error: Error) => {
          if (/refused/.test(error.message)) return false
          throw error
        },
      )
    })
  }
}

function accountOf(
  writers: readonly VerifyingWriter[],
  proxies: readonly CuttingProxy[],
): Record<string, number> {
  const account: Record<string, number> = {}
  const add = (name: string, count: number): void => {
    account[name] = (account[name] ?? 0) + count
  }
  for (const { counts } of writers) {
    add('writes', counts.writes)
    add('reads', counts.reads)
    add('flushes', counts.flushes)
    add('unanswered', counts.failed)
    account['slowest ms'] = Math.max(account['slowest ms'] ?? 0, Math.round(counts.slowestMs))
  }
  for (const { counts } of proxies) {
    for (const [name, count] of Object.entries(counts)) add(name, count)
  }
  return account
}
