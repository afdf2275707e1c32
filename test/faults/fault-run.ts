/** The fault test itself: a seeded schedule of faults under verifying writers, and the verdict. */
import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import type { CopiesReport } from './copies.js'
import type { Dice } from './dice.js'
import type { Meeting } from './meeting.js'
import { type ActionKind, nextAction, type Rules } from './schedule.js'
import { readEverything, type Setting, settledCopies } from './setting.js'
import type { WriterCounts } from './verifying-writer.js'

/** The cluster must be clean within this after everything has been mended. */
export const CLEAN_MS = 90_000
const STEP_MS_MIN = 500
const STEP_MS_SPREAD = 4_000
/** A run shorter than this has its faults in quicker succession. */
const HURRY_SECONDS = 60
const HURRIED_MS_SPREAD = 2_000

export interface Verdict {
  readonly mismatches: readonly string[]
  readonly failures: readonly string[]
  readonly copies: readonly string[]
  readonly objects: number
  readonly done: ReadonlyMap<string, number>
  readonly cleanSeconds: readonly number[]
  readonly counts: readonly WriterCounts[]
}

export function rulesOf(setting: Setting, meeting: Meeting): Rules {
  const faults: ActionKind[] = ['kill', 'kill', 'pause', 'leave', 'retire', 'disk']
  if (meeting.cables !== undefined) faults.push('cut', 'cut')
  if (meeting.daemons !== undefined) faults.push('orphan')
  const { width, bearable, strips } = setting.redundancy
  // With fewer members than fragments nothing coded is written: no error, but nothing to see either.
  const membersMin = strips === undefined ? width : width - 1
  const { awaySeconds } = meeting
  return { bearable, membersMin, faults, awaySeconds }
}

/** Runs for `seconds`, then mends everything, reads everything and compares all copies. */
export async function faultRun(
  setting: Setting,
  rules: Rules,
  chance: Dice,
  seconds: number,
): Promise<Verdict> {
  const { faults, writers, failures, say } = setting
  const end = performance.now() + seconds * 1000
  const spreadMs = seconds < HURRY_SECONDS ? HURRIED_MS_SPREAD : STEP_MS_SPREAD
  for (const writer of writers) writer.start()
  let report: CopiesReport = { objects: 0, faults: [] }
  try {
    while (performance.now() < end && !isOver(setting)) {
      await pause(STEP_MS_MIN + chance.below(spreadMs))
      await faults.lookAfter()
      faults.settle()
      const action = nextAction(faults.status(), rules, chance, faults.servers())
      if (action.kind !== 'rest') await faults.perform(action)
      else say(`clean ${(await faults.rest(CLEAN_MS)).toFixed(1)} s after everything was mended`)
    }
    if (isOver(setting)) throw new Error('ended at the first wrong block')
    say(`clean ${(await faults.rest(CLEAN_MS)).toFixed(1)} s after everything was mended (end)`)
    await stopWriters(setting)
    say('reading everything through every node')
    await readEverything(setting)
    report = await settledCopies(setting)
  } catch (error) {
    failures.push(error instanceof Error ? error.message : String(error))
    await stopWriters(setting)
  }
  return verdictOf(setting, report)
}

/** More faults would only cover up what went wrong. */
function isOver({ keep, writers }: Setting): boolean {
  return keep && writers.some(({ mismatches }) => mismatches.length > 0)
}

export function verdictOf(setting: Setting, { objects, faults: copies }: CopiesReport): Verdict {
  const { faults, writers, failures } = setting
  const mismatches = writers.flatMap((writer) => writer.mismatches)
  const { done, cleanSeconds } = faults
  const counts = writers.map((writer) => writer.counts)
  return { mismatches, failures, copies, objects, done, cleanSeconds, counts }
}

/** A writer that finds no gateway or no answer stops only when its patience is over. */
export async function stopWriters({ writers }: Setting): Promise<void> {
  await Promise.all(writers.map((writer) => writer.stop()))
}
