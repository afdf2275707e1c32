/** `dog node recovery`: how far each node is, and how fast it may go. */
import { SheepError } from '../base/codes.js'
import { nodeKey, type SdNode } from '../model/node.js'
import { Flag, Op } from '../wire/sheepdog/opcodes.js'
import {
  decodeRecoveryState,
  decodeRecoveryThrottling,
  encodeRecoveryThrottling,
  RECOVERY_STATE_BYTES,
  RECOVERY_THROTTLING_BYTES,
  type RecoveryState,
} from '../wire/sheepdog/records.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import { reasonOf, type Sheep } from './client.js'
import type { Context, ThirdWord } from './command.js'
import { Exit, Failure } from './failure.js'
import { nodeOption as option } from './options.js'
import { padLeft, padRight } from './output.js'
import { progressLine } from './progress.js'
import { withWords } from './third-words.js'

const POLL_MS = 500
const MAX_LIMIT = 0xffffffffn
/** What a 1.0 sheep takes; ours refuses what a clock cannot count (2^53 ms). */
const INTERVAL_LIMIT = 2n ** 63n - 1n
/** What commands of 1.0 that return -1 end with. */
const EXIT_REFUSED = 255
const PHASES = ['listing', 'recovering', 'notifying'] as const

const info: ThirdWord = {
  name: 'info',
  summary: 'show recovery information of nodes (default)',
  synopsis: '<max> <interval>',
  run: (context) => (context.options.progress ? runProgress(context) : runInfo(context)),
}

const setThrottle: ThirdWord = {
  name: 'set-throttle',
  summary: 'set new throttling',
  synopsis: '<max> <interval>',
  needsOperand: true,
  run: runSetThrottle,
}

const getThrottle: ThirdWord = {
  name: 'get-throttle',
  summary: 'get current throttling',
  synopsis: '<max> <interval>',
  run: runGetThrottle,
}

export const recovery = withWords({
  name: 'recovery',
  summary: 'show recovery information or set/get recovery throttling of nodes',
  options: [
    option.address,
    option.port,
    option.help,
    option.progress,
    option.raw,
    option.time,
    option.json,
  ],
  synopsis: '<max> <interval>',
  words: [info, setThrottle, getThrottle],
  defaultWord: 'info',
})

interface Row {
  readonly id: number
  readonly node: SdNode
  readonly state: RecoveryState
}

/** Nodes that recover now; one that cannot tell is an error, after the others' rows. */
async function runInfo({ options, out, sheep }: Context): Promise<number> {
  const nodes = await sheep.nodes()
  const rows: Row[] = []
  let status: number = Exit.ok
  for (const [id, node] of nodes.entries()) {
    const peer = sheep.peer(node)
    try {
      const state = await stateOf(peer)
      if (state.inRecovery) rows.push({ id, node, state })
    } catch (error) {
      out.error(`Failed to get recovery status of ${nodeKey(node)}: ${reasonOf(error)}`)
      status = Exit.system
    } finally {
      await peer.close()
    }
  }
  if (options.json) {
    out.json({ nodes: rows.map(rowJson) })
    return status
  }
  if (!options.raw) {
    out.line('Nodes In Recovery:')
    out.line('  Id   Host:Port         V-Nodes       Zone       Progress')
  }
  for (const row of rows) out.line(options.raw ? rawRow(row) : tableRow(row))
  return status
}

function rawRow({ id, node, state }: Row): string {
  const { vnodes, zone } = node
  return `${id} ${nodeKey(node)} ${vnodes} ${zone} ${state.finished} ${state.total}`
}

function tableRow({ id, node, state }: Row): string {
  const place = `${padLeft(`${id}`, 4)}   ${padRight(nodeKey(node), 20)}`
  const weight = `${padLeft(`${node.vnodes}`, 5)}${padLeft(`${node.zone}`, 11)}`
  const { finished, total } = state
  // Scripts know 1.0's quotient of a total that is not known yet.
  const percent = total === 0 ? '-nan' : ((finished / total) * 100).toFixed(1)
  return `${place}${weight}${padLeft(percent, 11)}%`
}

function rowJson({ id, node, state }: Row): Record<string, unknown> {
  const { host, port, vnodes, zone } = node
  const { finished, total } = state
  return { id, host, port, vnodes, zone, phase: PHASES[state.phase] ?? 'unknown', finished, total }
}

/** Follows the one node until its recovery is over. */
async function runProgress({ out, io, world, sheep }: Context): Promise<number> {
  let total = 0
  for (;;) {
    const state = await stateOf(sheep).catch((error: unknown) => {
      throw refused(error)
    })
    if (!state.inRecovery) break
    if (out.isTTY) out.text(transient(state, io.columns))
    total = state.total
    await new Promise<void>((resolve) => {
      world.clock.after(POLL_MS, resolve)
    })
  }
  if (out.isTTY && total > 0) out.text(`${progressLine(total, total, io.columns, plain)}\n`)
  return Exit.ok
}

function plain(count: number): string {
  return `${count}`
}

function transient({ phase, finished, total }: RecoveryState, columns: number): string {
  if (phase === 0) return `\r${'preparing a checked object list...'.padEnd(columns)}`
  if (phase === 2) return `\r${'notifying a completion of recovery...'.padEnd(columns)}`
  // A bar of nothing would be a division by zero, and a finished one ends its line below.
  return total === 0 ? '' : progressLine(finished, total, columns, plain)
}

async function stateOf(sheep: Sheep): Promise<RecoveryState> {
  const { body } = await sheep.ask(
    plainRequest({ opcode: Op.STAT_RECOVERY, dataLength: RECOVERY_STATE_BYTES }),
  )
  if (body.length < RECOVERY_STATE_BYTES) throw malformed('a recovery state')
  return decodeRecoveryState(body)
}

async function runSetThrottle({ operands, sheep }: Context): Promise<number> {
  const [maxText = '', intervalText] = operands
  const max = numberUpTo(maxText, MAX_LIMIT)
  if (max === undefined) throw usage(`Invalid max (${maxText})`)
  if (intervalText === undefined) throw mismatch(maxText, '(null)')
  const interval = numberUpTo(intervalText, INTERVAL_LIMIT)
  if (interval === undefined) throw usage(`Invalid interval (${intervalText})`)
  if ((max === 0n) !== (interval === 0n)) throw mismatch(maxText, intervalText)
  if (interval > BigInt(Number.MAX_SAFE_INTEGER)) throw usage(`Invalid interval (${intervalText})`)
  const payload = encodeRecoveryThrottling({ max: Number(max), intervalMs: Number(interval) })
  const head = plainRequest({
    opcode: Op.SET_RECOVERY,
    flags: Flag.WRITE,
    dataLength: payload.length,
  })
  await sheep.ask(head, payload).catch((error: unknown) => {
    throw refused(error)
  })
  return Exit.ok
}

function usage(line: string): Failure {
  return new Failure(Exit.usage, [line])
}

function mismatch(max: string, interval: string): Failure {
  return usage(`Invalid interval max (${max}), interval (${interval})`)
}

function numberUpTo(text: string, most: bigint): bigint | undefined {
  if (!/^\d{1,20}$/.test(text)) return undefined
  const value = BigInt(text)
  return value <= most ? value : undefined
}

async function runGetThrottle({ options, out, sheep }: Context): Promise<number> {
  const head = plainRequest({ opcode: Op.GET_RECOVERY, dataLength: RECOVERY_THROTTLING_BYTES })
  const { body } = await sheep.ask(head).catch((error: unknown) => {
    throw refused(error)
  })
  if (body.length < RECOVERY_THROTTLING_BYTES) throw malformed('a recovery throttling')
  const { max, intervalMs } = decodeRecoveryThrottling(body)
  if (options.json) out.json({ max, intervalMs })
  else out.error(`max (${max}), interval (${intervalMs})`)
  return Exit.ok
}

function malformed(what: string): Failure {
  return new Failure(Exit.system, [`The sheep sent ${what} cut short`])
}

function refused(error: unknown): unknown {
  if (!(error instanceof SheepError)) return error
  return new Failure(EXIT_REFUSED, [`Response's result: ${error.message}`])
}
