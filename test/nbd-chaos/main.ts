/**
 * `npm run nbd:chaos`: NBD connections cut at random and daemons killed under verifying writers.
 *
 *   --minutes N     length of the run (10); whole or not
 *   --writers N     volumes, each with a connection of its own (16)
 *   --seed N        where cuts and kills come from (drawn and printed by default)
 *
 * Ends with 1 when a byte was wrong, an answer was an error, or copies differ in the end.
 */
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { dice } from '../faults/dice.js'
import type { Owner } from '../real/support/owner.js'
import { chaosRun } from './chaos-run.js'

const say = (line: string): void => void process.stdout.write(`${line}\n`)

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '10' },
      writers: { type: 'string', default: '16' },
      seed: { type: 'string', default: `${randomInt(2 ** 31)}` },
    },
  })
  const [minutes, writers, seed] = [values.minutes, values.writers, values.seed].map(Number)
  if (!(minutes! > 0) || !Number.isSafeInteger(writers) || !Number.isSafeInteger(seed)) {
    say('--minutes, --writers and --seed take numbers')
    return 2
  }
  say(`SEED=${seed}`)
  const ends: (() => Promise<void>)[] = []
  const owner: Owner = { teardown: (end) => void ends.push(end), passed: true, log: say }
  try {
    const plan = { owner, seconds: minutes! * 60, writers: writers!, dice: dice(seed!), say }
    const { faults, account } = await chaosRun(plan)
    for (const [name, count] of Object.entries(account)) say(`${name.padEnd(12)} ${count}`)
    say(faults.length === 0 ? 'PASS' : ['FAIL', ...faults.slice(0, 20)].join('\n'))
    return faults.length === 0 ? 0 : 1
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

process.exitCode = await main()
