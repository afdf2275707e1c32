/**
 * The short form of `npm run faults`: nodes are killed, paused, stopped, wiped and added under verifying writers.
 * No byte may be wrong, no client see an error its own gateway does not explain, all copies be equal in the end.
 */
import test from 'ava'
import { PROJECT } from './support/paths.js'
import { run } from './support/run.js'

const MAIN = `${PROJECT}build/test/faults/main.js`
const LIMIT_MS = 300_000

function faults(...words: readonly string[]) {
  return run([process.execPath, MAIN, ...words], { timeoutMs: LIMIT_MS })
}

test.serial('local driver: faults of all kinds, one after the other and together', async (t) => {
  t.timeout(LIMIT_MS + 10_000)
  const { stdout } = await faults('--minutes', '0.7', '--seed', '20261121')
  t.regex(stdout, /^PASS$/m)
})
