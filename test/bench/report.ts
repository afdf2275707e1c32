/** What the benchmark found, for people and for programs: medians, ratios, memory. */
import { cpus } from 'node:os'
import type { Job, Sample } from './jobs.js'
import { figure, median, table } from './table.js'
import type { Target } from './targets.js'

const PEERS = ['qemu-nbd', 'nbdkit']

export interface Options {
  readonly runs: number
  readonly seconds: number
  readonly sizeMebibytes: number
  readonly transferGibibytes: number
  readonly only: readonly string[]
  /** Of a mount that is looked at. */
  readonly vdis: number
  readonly top: string
  readonly json: string | undefined
}

/** job name -> target name -> one sample a round */
export type Samples = Map<string, Map<string, Sample[]>>

export interface MemoryRow {
  readonly target: string
  readonly writeBytesPerSecond: number
  readonly readBytesPerSecond: number
  readonly beforeMebibytes: number
  readonly afterMebibytes: number
  readonly peakMebibytes: number
}

/** One table: each server in each job, and how it stands to its peers. */
export function report(
  jobs: readonly Job[],
  targets: readonly Target[],
  samples: Samples,
  options: Options,
): string {
  const rows: string[][] = []
  for (const job of jobs) {
    const value = (name: string) => {
      const all = samples.get(job.name)?.get(name) ?? []
      return median(all.map((one) => speed(job, one)))
    }
    for (const { name } of targets) {
      const all = samples.get(job.name)?.get(name) ?? []
      const ratios = PEERS.map((peer) => ratio(value(name), value(peer)))
      rows.push([
        ...[job.name, name, figure(value(name)), job.unit],
        figure(median(all.map((one) => one.serverMicroseconds))),
        figure(median(all.map((one) => one.p99Microseconds))),
        ...ratios,
      ])
    }
  }
  const head = ['job', 'server', 'median', 'unit', 'srv us/op', 'p99 us']
  const title = `${options.runs} rounds of ${options.seconds} s, ${options.sizeMebibytes} MiB, ${cpus().length} processors, Node ${process.version}`
  return `${title}\n${table([...head, ...PEERS.map((peer) => `/ ${peer}`)], rows)}`
}

function speed(job: Job, sample: Sample): number {
  return job.unit === 'IOPS' ? sample.operationsPerSecond : sample.bytesPerSecond / 1e6
}

function ratio(value: number, base: number): string {
  const quotient = value / base
  return Number.isFinite(quotient) ? quotient.toFixed(2) : '-'
}

export function memoryReport(rows: readonly MemoryRow[], options: Options): string {
  const head = [
    'memory (MiB)',
    'transfer',
    'before',
    'after',
    'growth',
    'peak',
    'in MB/s',
    'out MB/s',
  ]
  const cells = rows.map((row) => [
    row.target,
    `${options.transferGibibytes} GiB in, out`,
    ...[row.beforeMebibytes, row.afterMebibytes].map(figure),
    figure(row.afterMebibytes - row.beforeMebibytes),
    figure(row.peakMebibytes),
    ...[row.writeBytesPerSecond / 1e6, row.readBytesPerSecond / 1e6].map(figure),
  ])
  return table(head, cells)
}

export function toJson(samples: Samples, memory: readonly MemoryRow[], options: Options): string {
  const jobs = Object.fromEntries([...samples].map(([job, by]) => [job, Object.fromEntries(by)]))
  const machine = { processors: cpus().length, node: process.version }
  return `${JSON.stringify({ options, machine, jobs, memory }, null, 2)}\n`
}
