/**
 * `npm run bench`: our NBD door beside qemu-nbd and nbdkit, driven by fio's nbd engine over loopback.
 *
 *   --runs N        interleaved rounds; the medians are shown (5)
 *   --seconds N     length of one run (4)
 *   --size MIB      size of each volume (1024)
 *   --transfer GIB  how much to move for the memory check, each way; 0: none (10)
 *   --only A,B      of the servers and jobs only those whose name holds one of these texts
 *   --dir DIR       where all files lie (the system's temporary directory)
 *   --json FILE     also write every figure there
 *   --sheepdog      the sheepdog protocol's door instead (sheepdog.ts)
 *   --iscsi         the iSCSI door instead, beside tgt (iscsi.ts)
 *   --sheepfs       disk.raw and the names of a mount instead (sheepfs.ts); --vdis N: how many names (10000)
 *   --coding        only the arithmetic of erasure coding: the native binding beside the portable twin
 *
 * The machine is shared and drifts, so rounds are interleaved and only ratios within one run mean much.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { parseArgs } from 'node:util'
import type { Owner } from '../real/support/owner.js'
import { ensureTools } from '../real/support/packages.js'
import { codingReport } from './coding.js'
import { benchIscsiDoor, ISCSI_NAMES } from './iscsi.js'
import { fill, JOBS, type Job, runJob, type Sample, transfer } from './jobs.js'
import { memoryMebibytes } from './processes.js'
import {
  type MemoryRow,
  memoryReport,
  type Options,
  report,
  type Samples,
  toJson,
} from './report.js'
import { benchSheepdogDoor } from './sheepdog.js'
import { benchSheepfs, FILE_JOBS } from './sheepfs.js'
import { TARGETS, type Target } from './targets.js'

const say = (text: string) => process.stderr.write(`${text}\n`)

async function main(): Promise<void> {
  if (process.argv.includes('--coding')) {
    console.log(codingReport())
    return
  }
  const options = readOptions()
  if (process.argv.includes('--sheepdog')) {
    await withOwner(options, async (owner) => {
      console.log(await benchSheepdogDoor(owner, { ...options, say }))
    })
    return
  }
  if (process.argv.includes('--iscsi')) {
    await withOwner(options, async (owner) => {
      console.log(await benchIscsiDoor(owner, { ...options, say }))
    })
    return
  }
  if (process.argv.includes('--sheepfs')) {
    await withOwner(options, async (owner) => {
      console.log(await benchSheepfs(owner, { ...options, say }))
    })
    return
  }
  const lack = await ensureTools(['fio', 'qemu-nbd', 'nbdkit', 'nbdinfo'], say)
  if (lack !== undefined) throw new Error(lack)
  await withOwner(options, async (owner) => {
    const targets = await startTargets(owner, options)
    const jobs = pick(JOBS, options.only)
    const samples = await measure(targets, jobs, options)
    const memory = await memoryCheck(targets, options)
    console.log(report(jobs, targets, samples, options))
    if (memory.length > 0) console.log(`\n${memoryReport(memory, options)}`)
    if (options.json !== undefined) {
      await writeFile(options.json, toJson(samples, memory, options))
    }
  })
}

/** What `use` starts ends with it. */
async function withOwner({ top }: Options, use: (owner: Owner) => Promise<void>): Promise<void> {
  await mkdir(top, { recursive: true })
  const ends: (() => Promise<void>)[] = []
  try {
    await use({ teardown: (end) => void ends.push(end), passed: true, log: say })
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      runs: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '4' },
      size: { type: 'string', default: '1024' },
      transfer: { type: 'string', default: '10' },
      only: { type: 'string', default: '' },
      dir: { type: 'string', default: tmpdir() },
      json: { type: 'string' },
      sheepdog: { type: 'boolean' },
      iscsi: { type: 'boolean' },
      sheepfs: { type: 'boolean' },
      vdis: { type: 'string', default: '10000' },
    },
  })
  const number = (name: string, text: string, least: number) => {
    const value = Number(text)
    if (Number.isFinite(value) && value >= least) return value
    throw new Error(`--${name} takes a number from ${least} up, not ${text}`)
  }
  const only = values.only.split(',').filter(Boolean)
  const kinds = values.sheepfs === true ? FILE_JOBS : [...TARGETS, ...JOBS]
  const all = values.iscsi === true ? ISCSI_NAMES : kinds.map(({ name }) => name)
  for (const word of only) {
    if (!all.some((name) => name.includes(word)))
      throw new Error(`--only: no server and no job is called ${word}`)
  }
  return {
    runs: number('runs', values.runs, 1),
    seconds: number('seconds', values.seconds, 1),
    sizeMebibytes: number('size', values.size, 16),
    transferGibibytes: number('transfer', values.transfer, 0),
    only,
    vdis: number('vdis', values.vdis, 0),
    top: values.dir,
    json: values.json,
  }
}

/** All when none of the words is about these; a word that equals a name means that one alone. */
function pick<T extends { readonly name: string }>(all: readonly T[], words: readonly string[]) {
  const matches = (word: string) => {
    const exact = all.filter(({ name }) => name === word)
    return exact.length > 0 ? exact : all.filter(({ name }) => name.includes(word))
  }
  const picked = new Set(words.flatMap(matches))
  return picked.size === 0 ? all : all.filter((each) => picked.has(each))
}

async function startTargets(owner: Owner, options: Options): Promise<Target[]> {
  const targets: Target[] = []
  for (const kind of pick(TARGETS, options.only)) {
    try {
      const target = await kind.start(owner, options.top, options.sizeMebibytes)
      say(`filling ${kind.name}`)
      await fill(planOf(target, options))
      targets.push(target)
    } catch (error) {
      say(`left out: ${kind.name}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  if (targets.length === 0) throw new Error('no server to measure')
  return targets
}

function planOf({ uri, pids }: Target, { sizeMebibytes, seconds }: Options) {
  return { uri, pids, sizeMebibytes, seconds }
}

async function measure(
  targets: readonly Target[],
  jobs: readonly Job[],
  options: Options,
): Promise<Samples> {
  const samples: Samples = new Map()
  for (let round = 0; round < options.runs; round++) {
    for (const job of jobs) {
      say(`round ${round + 1} of ${options.runs}: ${job.name}`)
      for (let n = 0; n < targets.length; n++) {
        // Another one begins each round, so that nobody always runs behind the same neighbour.
        const target = targets[(n + round) % targets.length]!
        const sample = await runJob(job, planOf(target, options))
        const ofJob = samples.get(job.name) ?? new Map<string, Sample[]>()
        samples.set(job.name, ofJob)
        ofJob.set(target.name, [...(ofJob.get(target.name) ?? []), sample])
      }
    }
  }
  return samples
}

/** A server that keeps what passes through shows it after ten volumes' worth of bytes. */
async function memoryCheck(targets: readonly Target[], options: Options): Promise<MemoryRow[]> {
  const rows: MemoryRow[] = []
  if (options.transferGibibytes === 0) return rows
  for (const target of targets) {
    say(`memory: ${options.transferGibibytes} GiB in and out of ${target.name}`)
    const before = memoryMebibytes(target.pids)
    const plan = planOf(target, options)
    const writeBytesPerSecond = await transfer('write', plan, options.transferGibibytes)
    const readBytesPerSecond = await transfer('read', plan, options.transferGibibytes)
    const after = memoryMebibytes(target.pids)
    rows.push({
      target: target.name,
      writeBytesPerSecond,
      readBytesPerSecond,
      beforeMebibytes: before.now,
      afterMebibytes: after.now,
      peakMebibytes: after.peak,
    })
  }
  return rows
}

try {
  await main()
} catch (error) {
  say(`bench: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}
