/** All daemons die at the same instant under load, again and again; each restart must do without help. */
import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import type { Dice } from './dice.js'
import { CLEAN_MS, stopWriters, type Verdict, verdictOf } from './fault-run.js'
import { readEverything, type Setting, settledCopies } from './setting.js'

const LOAD_MS_MIN = 1_000
const LOAD_MS_SPREAD = 2_000
const FAULTS_MAX = 20

/** `rounds` times: load, SIGKILL of everybody, restart, read everything everywhere, compare copies. */
export async function killAllRun(setting: Setting, chance: Dice, rounds: number): Promise<Verdict> {
  const { faults, writers, failures, say } = setting
  const differing: string[] = []
  let objects = 0
  try {
    for (let round = 1; round <= rounds && differing.length < FAULTS_MAX; round++) {
      for (const writer of writers) writer.start()
      await pause(LOAD_MS_MIN + chance.below(LOAD_MS_SPREAD))
      const flushes = writers.map(({ counts }) => counts.flushes)
      await faults.killAll()
      await Promise.all(writers.map((writer) => writer.killed()))
      const began = performance.now()
      await faults.startAll()
      await faults.waitClean(CLEAN_MS)
      faults.cleanSeconds.push((performance.now() - began) / 1000)
      await readEverything(setting)
      const report = await settledCopies(setting)
      objects = report.objects
      differing.push(...report.faults.map((fault) => `round ${round}: ${fault}`))
      const wrong = writers.reduce((sum, { mismatches }) => sum + mismatches.length, 0)
      say(
        `round ${round}: ${flushes.join('+')} flushes before, clean after ` +
          `${faults.cleanSeconds.at(-1)!.toFixed(1)} s, ${wrong} wrong blocks so far, ` +
          `${report.faults.length} objects with unequal copies`,
      )
      if (wrong >= FAULTS_MAX || failures.length > 0) break
    }
  } catch (error) {
    failures.push(error instanceof Error ? error.message : String(error))
    await stopWriters(setting)
  }
  return verdictOf(setting, { faults: differing, objects })
}
