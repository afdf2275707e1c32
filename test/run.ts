/**
 * `npm test`: everything this project checks, in one go.
 *
 *   npm test                    static checks, unit tests, tests with real clients and daemons
 *   npm test -- --only unit     one part of these: checks, unit or real
 *   npm test -- --only real --match start-up     of these the files whose name holds that text
 *
 * The last line is `N passed, N failed, N skipped`; the exit code is 1 when anything failed.
 */
import { spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { performance } from 'node:perf_hooks'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { ALL_TOOLS, ensureTools } from './real/support/packages.js'
import { ensureQemu52 } from './real/support/qemu52.js'
import { run } from './real/support/run.js'
import { addTallies, NOTHING, type Tally, type TestLine, tapReader } from './tap.js'

const PROJECT = fileURLToPath(new URL('../../', import.meta.url))
/** ava's time-out is one of silence: no test of a file ended for so long. */
const UNIT_SILENCE = '2m'
const REAL_SILENCE = '10m'
/**
 * Real test files at a time. Each brings up clusters, ports and network namespaces of its own and mostly waits:
 * for sessions that run out, nodes that die, guests that boot.
 */
const REAL_AT_ONCE = 3
/** The longest ones begin first, so that none is left alone at the end. */
const LONGEST_FIRST = ['kernel-nbd', 'faults', 'kernel-iscsi', 'zookeeper', 'erasure', 'corosync']
/** Beyond this even ava itself is stuck; the longest real file takes a few minutes. */
const FILE_MS_MAX = 15 * 60_000

type Part = 'checks' | 'unit' | 'real'
/** What was asked for, and what has come of it so far. */
interface Job {
  readonly match: string
  readonly failures: TestLine[]
  /** Resolves when QEMU 5.2 is built, or cannot be. */
  qemu52: Promise<void>
}

const PARTS: readonly Part[] = ['checks', 'unit', 'real']

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { only: { type: 'string' }, match: { type: 'string' } } })
  const parts = PARTS.filter((part) => values.only === undefined || values.only === part)
  if (parts.length === 0) {
    say(`--only takes one of: ${PARTS.join(', ')}`)
    return 2
  }
  const job: Job = { match: values.match ?? '', failures: [], qemu52: Promise.resolve() }
  if (parts.some((part) => part !== 'checks')) await prepare()
  if (parts.includes('real')) job.qemu52 = buildQemu52(job)
  let total = NOTHING
  for (const part of parts) total = addTallies(total, await runPart(part, job))
  const { failures } = job
  if (failures.length > 0) say(`\nFailed:\n${failures.map(describe).join('\n')}`)
  say(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
  return total.failed === 0 ? 0 : 1
}

/** What the tests need besides Node, and the bindings that were left out at the build for want of headers. */
async function prepare(): Promise<void> {
  const lack = await ensureTools(ALL_TOOLS, say)
  if (lack !== undefined) say(`Some clients are not here: ${lack}`)
  await run([process.execPath, `${PROJECT}build/native-bindings/build.js`])
}

/** Takes minutes once a machine, so the other tests go on meanwhile. */
async function buildQemu52({ match }: Job): Promise<void> {
  if (!filesOf('real', match).some(needsQemu52)) return
  const missing = await ensureQemu52(say)
  if (missing !== undefined) say(missing)
}

function needsQemu52(file: string): boolean {
  return readFileSync(`${PROJECT}${file}`, 'utf8').includes('needingQemu52')
}

async function runPart(part: Part, job: Job): Promise<Tally> {
  say(`\n== ${part}`)
  if (part === 'checks') return runChecks(job.failures)
  const options = ['--timeout', UNIT_SILENCE]
  if (part === 'unit') return runAva(filesOf('unit', job.match), options, job.failures)
  return runReal(job)
}

/** One file after the other in each of a few lanes. */
async function runReal({ match, failures, qemu52 }: Job): Promise<Tally> {
  const files = filesOf('real', match).sort((one, other) => lateness(one) - lateness(other))
  const options = ['--serial', '--concurrency', '1', '--timeout', REAL_SILENCE]
  const lane = async (_: unknown, index: number): Promise<Tally> => {
    // Free ports are looked for in a part of the range that is the lane's own.
    const env = { SHEEPDOG_TEST_PORTS: `${index}/${REAL_AT_ONCE}` }
    let total = NOTHING
    for (let file = files.shift(); file !== undefined; file = files.shift()) {
      if (needsQemu52(file)) await qemu52
      total = addTallies(total, await runAva([file], options, failures, env))
    }
    return total
  }
  const tallies = await Promise.all(Array.from({ length: REAL_AT_ONCE }, lane))
  return tallies.reduce(addTallies, NOTHING)
}

function lateness(file: string): number {
  if (needsQemu52(file)) return LONGEST_FIRST.length + 1
  const place = LONGEST_FIRST.findIndex((name) => file.includes(`/${name}.`))
  return place === -1 ? LONGEST_FIRST.length : place
}

function filesOf(folder: string, match: string): string[] {
  const top = `${PROJECT}build/test/${folder}`
  return readdirSync(top, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.test.js') && name.includes(match))
    .map((name) => `build/test/${folder}/${name}`)
    .sort()
}

/** The static checks count as one test each. */
async function runChecks(failures: TestLine[]): Promise<Tally> {
  const checks = [
    { title: 'biome: format and lint', command: ['biome', 'check', '--error-on-warnings', '.'] },
    { title: 'tsc: types', command: ['tsc', '-p', '.', '--noEmit'] },
  ]
  let total = NOTHING
  for (const { title, command } of checks) {
    const { code, output } = await runTool(command)
    const outcome = code === 0 ? 'passed' : 'failed'
    const line: TestLine = { outcome, title, atMs: 0, details: output.split('\n') }
    report(line, failures, '')
    total = addTallies(total, { ...NOTHING, [outcome]: 1 })
  }
  return total
}

async function runAva(
  files: readonly string[],
  options: readonly string[],
  failures: TestLine[],
  env: Readonly<Record<string, string>> = {},
): Promise<Tally> {
  if (files.length === 0) return NOTHING
  let last = performance.now()
  const name = files.length === 1 ? `${files[0]!.replace(/^.*\/(.*)\.test\.js$/, '$1')} › ` : ''
  const finished = (line: TestLine) => {
    const seconds = ((line.atMs - last) / 1000).toFixed(1)
    last = line.atMs
    report({ ...line, title: `${name}${line.title}` }, failures, `(${seconds} s)`)
  }
  const reader = tapReader(finished, () => performance.now())
  const { code } = await runTool(['ava', '--tap', ...options, ...files], reader.line, env)
  return reader.end(code)
}

const MARKS = { passed: 'ok  ', failed: 'FAIL', skipped: 'skip' }

function report(line: TestLine, failures: TestLine[], took: string): void {
  say(`${MARKS[line.outcome]} ${line.title} ${took}`.trimEnd())
  if (line.outcome === 'failed') failures.push(line)
}

function describe({ title, details }: TestLine): string {
  return [`* ${title}`, ...details.map((text) => `    ${text}`)].join('\n')
}

interface ToolResult {
  readonly code: number
  readonly output: string
}

/** Runs a tool of node_modules/.bin. With `onLine` its report goes there and the rest to the terminal. */
async function runTool(
  [tool, ...args]: readonly string[],
  onLine?: (text: string) => void,
  env: Readonly<Record<string, string>> = {},
): Promise<ToolResult> {
  const child = spawn(`${PROJECT}node_modules/.bin/${tool}`, args, {
    cwd: PROJECT,
    stdio: ['ignore', 'pipe', onLine === undefined ? 'pipe' : 'inherit'],
    env: { ...process.env, ...env, FORCE_COLOR: '0' },
  })
  const limit = setTimeout(() => child.kill('SIGTERM'), FILE_MS_MAX)
  const lines: string[] = []
  const collect = onLine ?? ((text: string) => void lines.push(text))
  for (const stream of [child.stdout, child.stderr]) {
    if (stream !== null) createInterface({ input: stream }).on('line', collect)
  }
  return new Promise((resolve) => {
    child.on('error', (error) => lines.push(error.message))
    child.on('close', (code) => {
      clearTimeout(limit)
      resolve({ code: code ?? -1, output: lines.join('\n') })
    })
  })
}

process.exitCode = await main()
