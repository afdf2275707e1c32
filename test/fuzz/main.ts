/**
 * `npm run fuzz`: mutated captures of what real clients send, against the sessions of the doors and against whole
 * nodes. The first line has the seed; the same seed does the same again.
 *
 *   npm run fuzz                              10 million frames for sessions, 100 000 for nodes
 *   npm run fuzz -- --frames 200000 --node-frames 3000 --seed 7
 *
 * Ends with 1 when something is wrong: an answer missing, a node that ended, memory that grew.
 */
import { performance } from 'node:perf_hooks'
import { setImmediate as turn } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { dice as diceOf } from '../faults/dice.js'
import { fuzzIscsi } from './iscsi-target.js'
import { fuzzNbd } from './nbd-target.js'
import { fuzzNodes } from './node-target.js'
import { fuzzSessions } from './session-target.js'

const TARGETS: readonly string[] = ['sessions', 'nbd', 'iscsi', 'nodes']
/** Its frames are so many times fewer: an iSCSI session waits for several turns at its end. */
const ISCSI_SHARE = 100
const STAGES = 20
const NODE_STAGES = 10
/** What may be held in the end beyond the first stage, when everything had been used once. */
const GROWTH_BYTES_MAX = 32 * 1024 * 1024

const say = (line: string): void => void process.stdout.write(`${line}\n`)
const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`

/** `external` has the array buffers in it; they are let go of in the turn after the collection that finds them. */
async function heldBytes(): Promise<number> {
  for (let pass = 0; pass < 3; pass++) {
    globalThis.gc?.()
    await turn()
  }
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

/** Throws when memory grew from the first stage to the last one. */
async function watched(
  what: string,
  stages: number,
  frames: number,
  run: (frames: number) => Promise<object> | object,
): Promise<void> {
  const begun = performance.now()
  let first: number | undefined
  let held = 0
  for (let stage = 0; stage < stages; stage++) {
    await run(Math.ceil(frames / stages))
    held = await heldBytes()
    first ??= held
    const soFar = ((performance.now() - begun) / 1000).toFixed(1)
    say(`  ${what}: stage ${stage + 1} of ${stages} after ${soFar} s, ${mib(held)} held`)
  }
  const seconds = (performance.now() - begun) / 1000
  const rate = Math.round(frames / seconds)
  const grown = held - (first ?? held)
  say(`${what}: ${frames} frames in ${seconds.toFixed(1)} s, ${rate}/s, grown by ${mib(grown)}`)
  if (globalThis.gc === undefined) say('  without --expose-gc that says little')
  else if (grown > GROWTH_BYTES_MAX) throw new Error(`${what}: memory grew by ${mib(grown)}`)
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      frames: { type: 'string', default: '10000000' },
      target: { type: 'string', multiple: true, default: [...TARGETS] },
      'node-frames': { type: 'string', default: '100000' },
      seed: { type: 'string', default: `${Math.floor(performance.timeOrigin)}` },
    },
  })
  const [frames, nodeFrames] = [Number(values.frames), Number(values['node-frames'])]
  const seed = Number(values.seed)
  if (![frames, nodeFrames, seed].every(Number.isSafeInteger)) {
    say('--frames, --node-frames and --seed take whole numbers')
    return 2
  }
  const stranger = values.target.find((name) => !TARGETS.includes(name))
  if (stranger !== undefined) {
    say(`--target is one of ${TARGETS.join(', ')}, not ${stranger}`)
    return 2
  }
  const isOn = (name: string): boolean => values.target.includes(name)
  say(`SEED=${seed}`)
  const dice = diceOf(seed)
  try {
    if (frames > 0 && isOn('sessions')) {
      await watched('sessions', STAGES, frames, (n) => fuzzSessions(dice, n))
    }
    if (frames > 0 && isOn('nbd')) await watched('nbd', STAGES, frames, (n) => fuzzNbd(dice, n))
    if (frames > 0 && isOn('iscsi')) {
      const some = Math.ceil(frames / ISCSI_SHARE)
      await watched('iscsi', STAGES, some, (n) => fuzzIscsi(dice, n))
    }
    if (nodeFrames > 0 && isOn('nodes')) {
      await watched('nodes', NODE_STAGES, nodeFrames, (n) => fuzzNodes(dice, n))
    }
    return 0
  } catch (error) {
    say(error instanceof Error ? (error.stack ?? error.message) : String(error))
    const targets = values.target.map((name) => ` --target ${name}`).join('')
    say(
      `again: npm run fuzz -- --seed ${seed} --frames ${frames} --node-frames ${nodeFrames}${targets}`,
    )
    return 1
  }
}

process.exitCode = await main()
