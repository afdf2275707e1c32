/**
 * `npm run bench -- --sheepfs`: `disk.raw` beside what else there is to reach the same bytes through FUSE (sheepfs-mounts.ts), and names
 * of many VDIs beside as many directories (sheepfs-names.ts). Files are read and written past the page cache.
 *
 *   --runs N, --seconds N, --dir DIR, --only A,B   as for the NBD door
 *   --size MIB                                     size of each disk (1024)
 *   --vdis N                                       how many names there are (10000); 0: files alone
 */
import type { Owner } from '../real/support/owner.js'
import { ensureTools } from '../real/support/packages.js'
import { fill, JOBS, type Job, type JobPlan, runJob, type Sample } from './jobs.js'
import { type FileTarget, startFileTargets } from './sheepfs-mounts.js'
import { type NamesRow, startNamesTargets } from './sheepfs-names.js'
import { figure, median, table } from './table.js'

/** What cp and dd with its default do, and then the jobs of the block doors. */
export const FILE_JOBS: readonly Job[] = [
  { name: 'read-128k-d1', rw: 'read', blockBytes: 128 * 1024, depth: 1, unit: 'MB/s' },
  { name: 'write-128k-d1', rw: 'write', blockBytes: 128 * 1024, depth: 1, unit: 'MB/s' },
  ...JOBS,
]

export interface SheepfsOptions {
  readonly runs: number
  readonly seconds: number
  readonly sizeMebibytes: number
  readonly vdis: number
  readonly only: readonly string[]
  readonly top: string
  readonly say: (line: string) => void
}

/** job -> target -> one value a round */
type Found<T> = Map<string, Map<string, T[]>>

export async function benchSheepfs(owner: Owner, options: SheepfsOptions): Promise<string> {
  const lack = await ensureTools(['fio', 'fusermount3', 'nbdfuse', 'bindfs'], options.say)
  if (lack !== undefined) throw new Error(lack)
  const jobs = FILE_JOBS.filter(({ name }) => isWanted(name, options))
  const files = jobs.length === 0 ? '' : await filesReport(owner, jobs, options)
  const names = options.vdis === 0 ? '' : await namesReport(owner, options)
  return [files, names].filter(Boolean).join('\n\n')
}

function isWanted(name: string, { only }: SheepfsOptions): boolean {
  return only.length === 0 || only.some((word) => name.includes(word))
}

async function filesReport(
  owner: Owner,
  jobs: readonly Job[],
  options: SheepfsOptions,
): Promise<string> {
  const { runs, top, sizeMebibytes, say } = options
  const targets = await startFileTargets({ owner, top, mebibytes: sizeMebibytes })
  for (const target of targets) {
    say(`filling ${target.name}`)
    await fill(planOf(target, options))
  }
  const samples: Found<Sample> = new Map()
  for (let round = 0; round < runs; round++) {
    for (const job of jobs) {
      say(`round ${round + 1} of ${runs}: ${job.name}`)
      for (let n = 0; n < targets.length; n++) {
        // Another one begins each round, so that nobody always runs behind the same neighbour.
        const target = targets[(n + round) % targets.length]!
        add(samples, job.name, target.name, await runJob(job, planOf(target, options)))
      }
    }
  }
  const cells = jobs.flatMap((job) => {
    const speed = (name: string): number =>
      median(listOf(samples, job.name, name).map((one) => speedOf(job, one)))
    return targets.map(({ name }) => [
      ...[job.name, name, figure(speed(name)), job.unit],
      figure(median(listOf(samples, job.name, name).map((one) => one.serverMicroseconds))),
      ...['nbdfuse -s', 'nbdfuse', 'bindfs'].map((peer) => ratio(speed(name), speed(peer))),
    ])
  })
  const head = ['job', 'file', 'median', 'unit', 'srv us/op', '/ nbdfuse -s', '/ nbdfuse']
  return table([...head, '/ bindfs'], cells)
}

function planOf(target: FileTarget, { sizeMebibytes, seconds }: SheepfsOptions): JobPlan {
  return { uri: target.path, pids: target.pids, sizeMebibytes, seconds }
}

function speedOf(job: Job, sample: Sample): number {
  return job.unit === 'IOPS' ? sample.operationsPerSecond : sample.bytesPerSecond / 1e6
}

async function namesReport(owner: Owner, options: SheepfsOptions): Promise<string> {
  const { runs, top, vdis, say } = options
  const targets = await startNamesTargets({ owner, top, vdis, say })
  const found: Found<NamesRow> = new Map()
  for (let round = 0; round < runs; round++) {
    for (const target of targets) {
      say(`round ${round + 1} of ${runs}: names of ${target.name}`)
      for (const row of await target.measure()) add(found, row.job, target.name, row)
    }
  }
  const cells = [...found].flatMap(([job, byTarget]) => {
    const value = (name: string): number => median(listOf(found, job, name).map((one) => one.value))
    return [...byTarget].map(([name, [first]]) => {
      const [own, peer] = [value(name), value('bindfs')]
      const quotient = first!.unit === 'ms' ? ratio(peer, own) : ratio(own, peer)
      return [`${job} (${vdis})`, name, figure(own), first!.unit, quotient]
    })
  })
  return table(['names', 'mount', 'median', 'unit', 'speed / bindfs'], cells)
}

function add<T>(found: Found<T>, job: string, target: string, value: T): void {
  const ofJob = found.get(job) ?? new Map<string, T[]>()
  found.set(job, ofJob)
  ofJob.set(target, [...(ofJob.get(target) ?? []), value])
}

function listOf<T>(found: Found<T>, job: string, target: string): readonly T[] {
  return found.get(job)?.get(target) ?? []
}

function ratio(value: number, base: number): string {
  const quotient = value / base
  return Number.isFinite(quotient) ? quotient.toFixed(2) : '-'
}
