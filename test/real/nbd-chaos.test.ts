/** The short form of `npm run nbd:chaos`. */
import { dice } from '../faults/dice.js'
import { chaosRun } from '../nbd-chaos/chaos-run.js'
import { needing } from './support/suite.js'

needing()(
  'connections cut at any byte and daemons killed: no wrong byte, copies equal',
  async (t) => {
    t.timeout(180_000)
    const lines: string[] = []
    const say = (line: string): void => void lines.push(line)
    const plan = { owner: t, seconds: 6, writers: 4, dice: dice(20261122), say }
    const { faults, account } = await chaosRun(plan)
    t.log(JSON.stringify(account))
    t.deepEqual(faults, [], lines.join('\n'))
    t.true((account.connections ?? 0) > 20)
    t.true((account.kills ?? 0) + (account.stops ?? 0) > 0)
  },
)
