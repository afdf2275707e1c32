/**
 * `npm run faults`: real daemons under verifying writers while nodes fail.
 *
 *   --minutes N           length of the run (2); whole or not
 *   --seed N              replays the schedule (drawn and printed by default)
 *   --driver NAME         local, zookeeper or corosync (local)
 *   --networks            a network namespace for each node, and cuts among the faults; needs root
 *   --nodes N             nodes at the beginning (5); one more waits as a spare
 *   --redundancy R        copies, or data:parity (3)
 *   --volumes N           volumes, each with a writer of its own (3)
 *   --kill-all N          instead of the schedule: N times all daemons are killed at once
 *   --dir DIR             where the stores lie (the system's temporary directory)
 *   --keep                a run that fails leaves its stores and logs, and ends at the first wrong block
 *   --json FILE           also write the verdict there
 *
 * Prints a time line, then a table, and ends with 1 when a byte was wrong, a client saw an error it should not
 * have seen, copies differ in the end, or the cluster was not clean in time.
 */
import { randomInt } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { performance } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import { parseRedundancy, stripsOf } from '../../src/model/policy.js'
import type { Owner } from '../real/support/owner.js'
import { dice } from './dice.js'
import { faultRun, rulesOf } from './fault-run.js'
import { killAllRun } from './kill-all-run.js'
import { corosyncMeeting, localMeeting, type Meeting, zookeeperMeeting } from './meeting.js'
import { enterOwnNamespace, inOwnNamespace, startNetworks } from './networks.js'
import { verdictTable } from './report.js'
import { prepare, type Redundancy } from './setting.js'

/** Coded volumes wait while there are fewer nodes than fragments. */
const CODED_PATIENCE_MS = 300_000
const SPARES = 1

interface Options {
  readonly seconds: number
  readonly seed: number
  readonly driver: string
  readonly nodes: number
  readonly redundancy: Redundancy
  readonly volumes: number
  readonly networks: boolean
  readonly killAll: number
  readonly top: string | undefined
  readonly keep: boolean
  readonly json: string | undefined
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '2' },
      seed: { type: 'string' },
      driver: { type: 'string', default: 'local' },
      nodes: { type: 'string', default: '5' },
      redundancy: { type: 'string', default: '3' },
      volumes: { type: 'string', default: '3' },
      networks: { type: 'boolean', default: false },
      'kill-all': { type: 'string', default: '0' },
      dir: { type: 'string' },
      keep: { type: 'boolean', default: false },
      json: { type: 'string' },
    },
  })
  const number = (name: string, text: string, least: number): number => {
    const value = Number(text)
    if (text !== '' && Number.isFinite(value) && value >= least) return value
    throw new Error(`--${name} takes a number from ${least} up, not '${text}'`)
  }
  const redundancy = redundancyOf(values.redundancy)
  return {
    seconds: number('minutes', values.minutes, 0) * 60,
    seed: values.seed === undefined ? randomInt(2 ** 31) : number('seed', values.seed, 0),
    driver: values.driver,
    nodes: number('nodes', values.nodes, redundancy.width),
    redundancy,
    volumes: number('volumes', values.volumes, 1),
    // These drivers live in networks; a failing host without one would prove little.
    networks: values.networks || values.driver !== 'local',
    killAll: number('kill-all', values['kill-all'], 0),
    top: values.dir,
    keep: values.keep,
    json: values.json,
  }
}

function redundancyOf(text: string): Redundancy {
  const parsed = parseRedundancy(text)
  if (parsed === undefined)
    throw new Error(`--redundancy takes copies or data:parity, not '${text}'`)
  const strips = stripsOf(parsed.policy)
  return { text, strips, width: parsed.copies, bearable: strips?.parity ?? parsed.copies - 1 }
}

async function meetingOf({ driver, networks, nodes }: Options, owner: Owner): Promise<Meeting> {
  const hosts =
    networks && driver !== 'corosync' ? await startNetworks(owner, nodes + SPARES) : undefined
  if (driver === 'local') return localMeeting(hosts)
  if (driver === 'zookeeper' && hosts !== undefined) return zookeeperMeeting(owner, hosts)
  if (driver === 'corosync') return corosyncMeeting(owner, nodes + SPARES)
  throw new Error(`--driver takes local, zookeeper or corosync, not '${driver}'`)
}

async function main(): Promise<number> {
  const options = readOptions()
  if (options.networks && !inOwnNamespace()) return enterOwnNamespace()
  const began = performance.now()
  const say = (line: string): void => {
    const seconds = ((performance.now() - began) / 1000).toFixed(1).padStart(7)
    process.stdout.write(`[${seconds} s] ${line}\n`)
  }
  say(
    `seed ${options.seed}, driver ${options.driver}, ${options.nodes} nodes, redundancy ${options.redundancy.text}`,
  )
  const ends: (() => Promise<void>)[] = []
  const outcome = { passed: false }
  const owner: Owner = {
    teardown: (end) => void ends.push(end),
    get passed() {
      return outcome.passed
    },
    log: (text) => say(text),
  }
  // Daemons die with this process; what it made on disk must go too.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void endAll(ends).then(() => process.exit(130)))
  }
  try {
    const meeting = await meetingOf(options, owner)
    const chance = dice(options.seed)
    const { nodes, volumes, redundancy, top, keep } = options
    const plan = { owner, meeting, nodes, spares: SPARES, volumes, redundancy, top, keep, say }
    const patienceMs =
      redundancy.strips === undefined ? meeting.patienceSeconds * 1000 : CODED_PATIENCE_MS
    const setting = await prepare({ ...plan, chance: chance.fork(), patienceMs })
    const verdict =
      options.killAll > 0
        ? await killAllRun(setting, chance, options.killAll)
        : await faultRun(setting, rulesOf(setting, meeting), chance, options.seconds)
    const { text, passed } = verdictTable(verdict)
    outcome.passed = passed
    process.stdout.write(`\n${text}\n`)
    if (options.json !== undefined)
      await writeFile(
        options.json,
        JSON.stringify({ ...verdict, seed: options.seed, done: [...verdict.done] }, null, 2),
      )
    if (!passed)
      process.stdout.write(
        `again: npm run faults -- ${process.argv.slice(2).join(' ')} --seed ${options.seed}\n`,
      )
    return passed ? 0 : 1
  } finally {
    await endAll(ends)
  }
}

async function endAll(ends: (() => Promise<void>)[]): Promise<void> {
  for (const end of ends.splice(0).reverse()) await end()
}

try {
  process.exitCode = await main()
} catch (error) {
  process.stderr.write(`faults: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
