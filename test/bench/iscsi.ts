/**
 * `npm run bench -- --iscsi`: our iSCSI door over one node beside tgt over a file on the same file system, driven by
 * `qemu-img bench` (libiscsi) over loopback.
 *
 *   --runs N, --seconds N, --size MIB, --dir DIR, --json FILE   as for the NBD door
 *   --only A,B      of the servers and jobs only those whose name holds one of these texts
 *
 * Both promise the same: a write is acknowledged from the page cache (tgt's `rdwr`, our write-back), the caching page says so, and
 * SYNCHRONIZE CACHE makes durable. Jobs called `-sync` send one each `FLUSHED_BYTES`, when everything before is answered. tgt is given the
 * segment and burst lengths we declare: its own of 8 KiB would be a handicap. Small requests go through the volume in steps
 * of about its golden section, large ones in order.
 */
import { writeFile } from 'node:fs/promises'
import { cpus } from 'node:os'
import { startCluster } from '../real/support/cluster.js'
import { type Owner, scratch } from '../real/support/owner.js'
import { ensureTools } from '../real/support/packages.js'
import { freePort } from '../real/support/ports.js'
import { run, start, tryRun, until } from '../real/support/run.js'
import { cpuMicroseconds } from './processes.js'
import { figure, median, table } from './table.js'

const KIB = 1024
const MIB = 1024 * KIB
const READY_MS = 20_000
const RUN_MS = 600_000
const FLUSHED_BYTES = 32 * MIB
/** Requests of the run that finds out how many fill the time. */
const PROBE = { small: 1000, large: 64 }
const GOLDEN = 0.618
const TARGET = 'iqn.2026-11.io.sheepdog:bench'
const SEGMENT_BYTES = 256 * KIB

export interface IscsiBenchOptions {
  readonly runs: number
  readonly seconds: number
  readonly sizeMebibytes: number
  readonly only: readonly string[]
  readonly top: string
  readonly json: string | undefined
  readonly say: (line: string) => void
}

interface Job {
  readonly name: string
  readonly isWrite: boolean
  readonly blockBytes: number
  readonly depth: number
  readonly isFlushed: boolean
}

interface Served {
  readonly name: string
  readonly url: string
  readonly pids: readonly number[]
}

interface Sample {
  readonly perSecond: number
  readonly serverMicroseconds: number
}

interface Kind {
  readonly name: string
  readonly start: (owner: Owner, options: IscsiBenchOptions) => Promise<Served>
}

const job = (verb: 'read' | 'write', size: '4k' | '1m', depth: number, sync = false): Job => ({
  name: `${verb}-${size}-d${depth}${sync ? '-sync' : ''}`,
  ...{ isWrite: verb === 'write', blockBytes: size === '4k' ? 4 * KIB : MIB, depth },
  isFlushed: sync,
})

const JOBS: readonly Job[] = [
  ...[job('read', '4k', 1), job('read', '4k', 32), job('write', '4k', 1), job('write', '4k', 32)],
  ...[job('read', '1m', 4), job('write', '1m', 4)],
  ...[job('write', '4k', 32, true), job('write', '1m', 4, true)],
]

const KINDS: readonly Kind[] = [
  { name: 'sheep-1', start: startSheep },
  { name: 'tgt', start: startTgt },
]

/** What `--only` may name. */
export const ISCSI_NAMES: readonly string[] = [...KINDS, ...JOBS].map(({ name }) => name)

export async function benchIscsiDoor(owner: Owner, options: IscsiBenchOptions): Promise<string> {
  const { say, runs, only } = options
  const driver = '/usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so'
  const lack = await ensureTools(['qemu-img', driver, 'tgtd', 'tgtadm'], say)
  if (lack !== undefined) throw new Error(lack)
  const targets: Served[] = []
  for (const kind of picked(KINDS, only)) targets.push(await kind.start(owner, options))
  for (const target of targets) await fill(target, options)
  const jobs = picked(JOBS, only)
  const samples = new Map<string, Sample[]>()
  for (let round = 0; round < runs; round++) {
    for (const job of jobs) {
      say(`round ${round + 1} of ${runs}: ${job.name}`)
      for (let n = 0; n < targets.length; n++) {
        // Another one begins each round, so that nobody always runs behind the same neighbour.
        const target = targets[(n + round) % targets.length]!
        const key = keyOf(job, target)
        samples.set(key, [...(samples.get(key) ?? []), await measure(job, target, options)])
      }
    }
  }
  if (options.json !== undefined) {
    await writeFile(options.json, `${JSON.stringify(Object.fromEntries(samples), null, 2)}\n`)
  }
  return report(jobs, targets, samples, options)
}

const keyOf = (job: Job, target: Served): string => `${job.name} ${target.name}`

function picked<T extends { readonly name: string }>(all: readonly T[], words: readonly string[]) {
  const found = all.filter(({ name }) => words.some((word) => name.includes(word)))
  return found.length === 0 ? all : found
}

/** Gives every block a place and a content. */
async function fill(target: Served, { sizeMebibytes, say }: IscsiBenchOptions): Promise<void> {
  say(`filling ${target.name}`)
  await qemuBench(target, { ...job('write', '1m', 4), count: sizeMebibytes, step: MIB })
}

async function measure(job: Job, target: Served, options: IscsiBenchOptions): Promise<Sample> {
  const isSmall = job.blockBytes < MIB
  const blocks = (options.sizeMebibytes * MIB) / job.blockBytes
  // Odd, so that every block of a power of two has its turn.
  const step = (isSmall ? 2 * Math.floor((blocks * GOLDEN) / 2) + 1 : 1) * job.blockBytes
  const probe = isSmall ? PROBE.small : PROBE.large
  const rate = probe / (await qemuBench(target, { ...job, step, count: probe }))
  const count = Math.ceil(rate * options.seconds)
  const before = cpuMicroseconds(target.pids)
  const seconds = await qemuBench(target, { ...job, step, count })
  const spent = cpuMicroseconds(target.pids) - before
  return { perSecond: count / seconds, serverMicroseconds: spent / count }
}

/** Seconds from the first request to the last answer. */
async function qemuBench(
  { url }: Served,
  { count, step, ...job }: Job & { readonly count: number; readonly step: number },
): Promise<number> {
  const flushed = Math.max(job.depth + 1, FLUSHED_BYTES / job.blockBytes)
  const command = [
    ...['qemu-img', 'bench', '-f', 'raw', '-t', 'writeback', '-c', `${count}`],
    ...['-d', `${job.depth}`, '-s', `${job.blockBytes}`, '-S', `${step}`],
    ...(job.isWrite ? ['-w', '--pattern=90'] : []),
    ...(job.isFlushed ? [`--flush-interval=${flushed}`] : []),
  ]
  const { stdout } = await run([...command, url], { timeoutMs: RUN_MS })
  const seconds = Number(/completed in ([\d.]+) seconds/.exec(stdout)?.[1])
  if (!(seconds > 0)) throw new Error(`qemu-img bench says no time:\n${stdout}`)
  return seconds
}

async function startSheep(
  owner: Owner,
  { top, sizeMebibytes }: IscsiBenchOptions,
): Promise<Served> {
  const port = await freePort()
  const place = () => ({ options: ['--iscsi', `127.0.0.1:${port}`] })
  const cluster = await startCluster(owner, { nodes: 1, copies: 1, top, place })
  await cluster.dog('vdi create', 'bench', `${sizeMebibytes}M`)
  const url = `iscsi://127.0.0.1:${port}/${TARGET}/0`
  return { name: 'sheep-1', url, pids: [cluster.node(0).pid] }
}

async function startTgt(owner: Owner, { top, sizeMebibytes }: IscsiBenchOptions): Promise<Served> {
  const file = `${await scratch(owner, top)}/disk`
  await run(['truncate', '-s', `${sizeMebibytes}M`, file])
  const port = await freePort()
  const daemon = start(['tgtd', '-f', '-C', `${port}`, '--iscsi', `portal=127.0.0.1:${port}`])
  // With targets it does not end of a SIGTERM.
  owner.teardown(async () => {
    daemon.kill('SIGKILL')
    await daemon.done
  })
  const words = ['tgtadm', '-C', `${port}`, '--lld', 'iscsi', '--mode']
  await until('tgtd answering', READY_MS, async () => {
    if (daemon.ended()) throw new Error(`tgtd ended: ${(await daemon.done).stderr}`)
    return (await tryRun([...words, 'sys', '--op', 'show'])).code === 0
  })
  await run([...words, 'target', '--op', 'new', '--tid', '1', '-T', TARGET])
  const lengths = ['MaxRecvDataSegmentLength', 'MaxXmitDataSegmentLength', 'FirstBurstLength']
  for (const name of lengths) {
    const value = ['--name', name, '--value', `${SEGMENT_BYTES}`]
    await run([...words, 'target', '--op', 'update', '--tid', '1', ...value])
  }
  const lun = ['--op', 'new', '--tid', '1', '--lun', '1', '--bstype', 'rdwr', '-b', file]
  await run([...words, 'logicalunit', ...lun])
  await run([...words, 'target', '--op', 'bind', '--tid', '1', '-I', 'ALL'])
  return { name: 'tgt', url: `iscsi://127.0.0.1:${port}/${TARGET}/1`, pids: [daemon.pid] }
}

function report(
  jobs: readonly Job[],
  targets: readonly Served[],
  samples: ReadonlyMap<string, readonly Sample[]>,
  { runs, seconds, sizeMebibytes }: IscsiBenchOptions,
): string {
  const of = (job: Job, target: Served): readonly Sample[] => samples.get(keyOf(job, target)) ?? []
  const speed = (job: Job, target: Served): number => {
    const perSecond = median(of(job, target).map((one) => one.perSecond))
    return job.blockBytes < MIB ? perSecond : (perSecond * job.blockBytes) / 1e6
  }
  const peer = targets.find(({ name }) => name === 'tgt')
  const rows = jobs.flatMap((job) =>
    targets.map((target) => [
      ...[job.name, target.name, figure(speed(job, target))],
      job.blockBytes < MIB ? 'IOPS' : 'MB/s',
      figure(median(of(job, target).map((one) => one.serverMicroseconds))),
      peer === undefined ? '-' : (speed(job, target) / speed(job, peer)).toFixed(2),
    ]),
  )
  const machine = `${cpus().length} processors, Node ${process.version}`
  const title = `${runs} rounds of ${seconds} s, ${sizeMebibytes} MiB, ${machine}`
  const head = ['job', 'server', 'median', 'unit', 'srv us/op', '/ tgt']
  return `${title}\n${table(head, rows)}`
}
