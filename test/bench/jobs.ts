/** The fio jobs of the benchmark, and what one run of them gives. */
import { run } from '../real/support/run.js'
import { cpuMicroseconds } from './processes.js'

export interface Job {
  readonly name: string
  readonly rw: 'randread' | 'randwrite' | 'read' | 'write'
  readonly blockBytes: number
  readonly depth: number
  /** What people look at: operations for small blocks, bytes for large ones. */
  readonly unit: 'IOPS' | 'MB/s'
}

const KIB = 1024
const small = (rw: Job['rw'], depth: number): Job => {
  return { name: `${rw}-4k-d${depth}`, rw, blockBytes: 4 * KIB, depth, unit: 'IOPS' }
}
const large = (rw: Job['rw']): Job => {
  return { name: `${rw}-1m-d4`, rw, blockBytes: 1024 * KIB, depth: 4, unit: 'MB/s' }
}

export const JOBS: readonly Job[] = [
  ...[small('randread', 1), small('randread', 32), small('randwrite', 1), small('randwrite', 32)],
  ...[large('read'), large('write')],
]

export interface Sample {
  readonly operationsPerSecond: number
  readonly bytesPerSecond: number
  readonly p99Microseconds: number
  /** Processor time of the server's processes for one operation. */
  readonly serverMicroseconds: number
}

export interface JobPlan {
  /** `nbd://...`, or the path of a file, which is then read and written past the page cache. */
  readonly uri: string
  readonly sizeMebibytes: number
  readonly seconds: number
  readonly pids: readonly number[]
}

interface FioSide {
  readonly iops: number
  readonly bw_bytes: number
  readonly total_ios: number
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> }
}

export async function runJob(job: Job, plan: JobPlan): Promise<Sample> {
  const before = cpuMicroseconds(plan.pids)
  const result = await fio(job, plan, ['--time_based', `--runtime=${plan.seconds}`])
  const spent = cpuMicroseconds(plan.pids) - before
  return {
    operationsPerSecond: result.iops,
    bytesPerSecond: result.bw_bytes,
    p99Microseconds: (result.clat_ns.percentile?.['99.000000'] ?? 0) / 1000,
    serverMicroseconds: spent / Math.max(1, result.total_ios),
  }
}

/** Writes or reads `gibibytes` in order, round and round the volume. Returns bytes per second. */
export async function transfer(rw: 'read' | 'write', plan: JobPlan, gibibytes: number) {
  const job: Job = { ...large(rw), depth: 16 }
  return (await fio(job, plan, [`--io_size=${gibibytes}G`])).bw_bytes
}

/** Gives every block of the volume a place and a content, so that reads read something. */
export async function fill(plan: JobPlan): Promise<void> {
  await fio(large('write'), plan, ['--end_fsync=1'])
}

async function fio(job: Job, plan: JobPlan, more: readonly string[]): Promise<FioSide> {
  const command = [
    ...['fio', `--name=${job.name}`, '--thread', ...placeOf(plan)],
    ...[`--rw=${job.rw}`, `--bs=${job.blockBytes}`, `--iodepth=${job.depth}`],
    ...[`--size=${plan.sizeMebibytes}M`, '--randrepeat=0', '--norandommap', '--refill_buffers=0'],
    ...['--output-format=json', ...more],
  ]
  const { stdout } = await run(command, { timeoutMs: 900_000 })
  // fio's nbd engine prints a line of its own before the report.
  const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as {
    jobs: { read: FioSide; write: FioSide; error: number }[]
  }
  const done = report.jobs[0]
  if (done === undefined || done.error !== 0) throw new Error(`fio failed:\n${stdout}`)
  return job.rw.endsWith('read') ? done.read : done.write
}

function placeOf({ uri }: JobPlan): string[] {
  if (!uri.startsWith('/')) return ['--ioengine=nbd', `--uri=${uri}`]
  return ['--ioengine=libaio', '--direct=1', `--filename=${uri}`]
}
