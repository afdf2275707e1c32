/**
 * `npm run bench:recovery`: what a recovery costs those who use the cluster meanwhile.
 *
 *   --size GIB        data that is recovered (4)
 *   --throttle N,MS   at most N objects in MS milliseconds, as `dog node recovery set-throttle` (1,100)
 *   --before SECONDS  how long the load runs before any recovery (20)
 *   --dir DIR         where the stores lie (the system's temporary directory)
 *   --json FILE       also write the figures there
 *
 * Three nodes hold three copies of one volume. fio reads and writes 4 KiB blocks at random places of it, 4 deep,
 * through node 0, all the time. Node 2 is lost with its disk; an empty one takes its place and gets everything,
 * once unthrottled and once throttled. Latencies are the client's.
 */
import { rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { performance } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import { NodeLog } from '../faults/node-log.js'
import { startCluster, type TestCluster } from '../real/support/cluster.js'
import type { Owner } from '../real/support/owner.js'
import { ensureTools } from '../real/support/packages.js'
import { type Running, run, start, until } from '../real/support/run.js'
import { table } from './table.js'

const NODES = 3
const VICTIM = 2
const VOLUME = 'bench'
const DEPTH = 4
const READ_PERCENT = 70
const RECOVERY_MS_MAX = 3_600_000
const FILL_MS_MAX = 1_800_000

const say = (text: string) => process.stderr.write(`${text}\n`)

interface Options {
  readonly mebibytes: number
  readonly throttle: readonly [string, string]
  readonly beforeSeconds: number
  readonly top: string
  readonly json: string | undefined
}

interface Phase {
  readonly name: string
  readonly read: Latency
  readonly write: Latency
  readonly operationsPerSecond: number
  /** Of the recovery, when there is one. */
  readonly seconds: number | undefined
  readonly bytesPerSecond: number | undefined
}

interface Latency {
  readonly p50Us: number
  readonly p99Us: number
  readonly maxUs: number
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      size: { type: 'string', default: '4' },
      throttle: { type: 'string', default: '1,100' },
      before: { type: 'string', default: '20' },
      dir: { type: 'string', default: tmpdir() },
      json: { type: 'string' },
    },
  })
  const [, most, interval] = /^(\d+),(\d+)$/.exec(values.throttle) ?? []
  if (most === undefined || interval === undefined) throw new Error('--throttle takes N,MS')
  const number = (name: string, text: string): number => {
    const value = Number(text)
    if (Number.isFinite(value) && value > 0) return value
    throw new Error(`--${name} takes a number above 0, not '${text}'`)
  }
  return {
    mebibytes: Math.ceil(number('size', values.size) * 1024),
    throttle: [most, interval],
    beforeSeconds: number('before', values.before),
    top: values.dir,
    json: values.json,
  }
}

async function main(): Promise<void> {
  const options = readOptions()
  const lack = await ensureTools(['fio'], say)
  if (lack !== undefined) throw new Error(lack)
  const ends: (() => Promise<void>)[] = []
  const owner: Owner = { teardown: (end) => void ends.push(end), passed: true, log: say }
  try {
    const cluster = await startCluster(owner, { nodes: NODES, copies: NODES, top: options.top })
    await cluster.dog('vdi create', VOLUME, `${options.mebibytes}M`)
    say(`filling ${options.mebibytes} MiB`)
    await fill(cluster, options)
    const phases = [await before(cluster, options)]
    phases.push(await during(cluster, 'recovery', options))
    const [most, interval] = options.throttle
    for (let node = 0; node < NODES; node++) {
      await cluster.dogAt(node, 'node recovery', ['set-throttle', most, interval])
    }
    const name = `recovery, ${most} in ${interval} ms`
    phases.push(await during(cluster, name, options, ['-R', `max=${most},interval=${interval}`]))
    console.log(report(phases))
    if (options.json !== undefined) {
      await writeFile(options.json, `${JSON.stringify({ options, phases }, null, 2)}\n`)
    }
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

async function fill(cluster: TestCluster, { mebibytes }: Options): Promise<void> {
  const how = ['--rw=write', '--bs=1M', '--iodepth=4', '--end_fsync=1', `--size=${mebibytes}M`]
  await run(fioCommand(cluster, how), { timeoutMs: FILL_MS_MAX })
}

async function before(cluster: TestCluster, options: Options): Promise<Phase> {
  say(`load without a recovery for ${options.beforeSeconds} s`)
  const load = startLoad(cluster, options)
  await new Promise((resolve) => setTimeout(resolve, options.beforeSeconds * 1000))
  return phase('no recovery', await endLoad(load), undefined, options)
}

async function during(
  cluster: TestCluster,
  name: string,
  options: Options,
  more: readonly string[] = [],
): Promise<Phase> {
  say(name)
  const victim = cluster.node(VICTIM)
  await victim.kill()
  await cluster.members(NODES - 1)
  const logs = cluster.nodes.map((node) => new NodeLog(node.log))
  await until('recovery without the lost node', RECOVERY_MS_MAX, () => clean(logs.slice(0, VICTIM)))
  await rm(victim.place.directory, { recursive: true, force: true })
  const load = startLoad(cluster, options)
  const began = performance.now()
  await victim.start(more)
  const log = new NodeLog(victim.log)
  await until('the recovery', RECOVERY_MS_MAX, () => clean([...logs.slice(0, VICTIM), log]))
  const seconds = (performance.now() - began) / 1000
  return phase(name, await endLoad(load), seconds, options)
}

function clean(logs: readonly NodeLog[]): boolean {
  const views = logs.map((log) => log.look())
  const epoch = views[0]!.epoch
  const isClean = views.every((view) => view.epoch === epoch && view.gathered === epoch)
  return isClean && views.every(({ nodes }) => nodes === logs.length)
}

function startLoad(cluster: TestCluster, { mebibytes }: Options): Running {
  const how = ['--rw=randrw', `--rwmixread=${READ_PERCENT}`, '--bs=4k', `--iodepth=${DEPTH}`]
  const where = [`--size=${mebibytes}M`, '--time_based', '--runtime=7200', '--norandommap']
  return start(fioCommand(cluster, [...how, ...where, '--randrepeat=0', '--output-format=json']))
}

/** fio prints its report when it is interrupted. */
async function endLoad(load: Running): Promise<FioJob> {
  if (load.ended()) throw new Error(`fio ended by itself:\n${(await load.done).stderr}`)
  load.kill('SIGINT')
  const { stdout } = await load.done
  const { jobs } = JSON.parse(stdout.slice(stdout.indexOf('{'))) as { jobs: FioJob[] }
  const job = jobs[0]
  if (job === undefined || job.error !== 0) throw new Error(`fio failed:\n${stdout}`)
  return job
}

function fioCommand(cluster: TestCluster, how: readonly string[]): string[] {
  const uri = `--uri=${cluster.uri(VOLUME, 0)}`
  return ['fio', '--name=load', '--thread', '--ioengine=nbd', uri, ...how]
}

interface FioSide {
  readonly iops: number
  readonly clat_ns: { readonly max: number; readonly percentile?: Readonly<Record<string, number>> }
}

interface FioJob {
  readonly error: number
  readonly read: FioSide
  readonly write: FioSide
}

function phase(
  name: string,
  { read, write }: FioJob,
  seconds: number | undefined,
  { mebibytes }: Options,
): Phase {
  const latency = ({ clat_ns: { max, percentile } }: FioSide): Latency => ({
    p50Us: (percentile?.['50.000000'] ?? Number.NaN) / 1000,
    p99Us: (percentile?.['99.000000'] ?? Number.NaN) / 1000,
    maxUs: max / 1000,
  })
  return {
    name,
    read: latency(read),
    write: latency(write),
    operationsPerSecond: read.iops + write.iops,
    seconds,
    bytesPerSecond: seconds === undefined ? undefined : (mebibytes * 2 ** 20) / seconds,
  }
}

function report(phases: readonly Phase[]): string {
  const head = [
    ...['phase', '', 'read p50 ms', 'read p99', 'read max', 'write p50', 'write p99', 'write max'],
    ...['IOPS', 'seconds', 'MB/s'],
  ]
  const cells = phases.map(({ name, read, write, ...rest }) => [
    ...[name, ''],
    ...[read, write].flatMap(({ p50Us, p99Us, maxUs }) =>
      [p50Us, p99Us, maxUs].map((us) => (us / 1000).toFixed(2)),
    ),
    rest.operationsPerSecond.toFixed(0),
    rest.seconds?.toFixed(1) ?? '-',
    rest.bytesPerSecond === undefined ? '-' : (rest.bytesPerSecond / 1e6).toFixed(0),
  ])
  return table(head, cells)
}

try {
  await main()
} catch (error) {
  say(`bench:recovery: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}
