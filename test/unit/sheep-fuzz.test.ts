// The short form of `npm run fuzz`: mutated captures of what real clients send, for sessions of the sheepdog door alone and
// for whole nodes. SEED=n runs one seed.
import test from 'ava'
import { dice } from '../faults/dice.js'
import { fuzzNodes } from '../fuzz/node-target.js'
import { fuzzSessions } from '../fuzz/session-target.js'
import { withSeeds } from './support/seeds.js'

const SESSION_FRAMES = 20_000
const NODE_FRAMES = 600
/** Far above what sessions leave behind, far below what their requests pretend to need. */
const GROWTH_BYTES_MAX = 64 * 1024 * 1024

test('sessions answer every request once, whatever its bytes', async (t) => {
  await withSeeds(2, async (seed) => {
    const { answers } = fuzzSessions(dice(seed), SESSION_FRAMES)
    t.true(answers > SESSION_FRAMES / 4, `${answers} answers`)
    await Promise.resolve()
  })
})

test('sessions hold no more memory than what they were sent', (t) => {
  fuzzSessions(dice(11), SESSION_FRAMES)
  const before = process.memoryUsage().arrayBuffers
  fuzzSessions(dice(12), SESSION_FRAMES)
  const grown = process.memoryUsage().arrayBuffers - before
  t.true(grown < GROWTH_BYTES_MAX, `grown by ${grown} bytes`)
})

test('whole nodes go on serving, whatever they are sent', async (t) => {
  await withSeeds(2, async (seed) => {
    const { clusters } = await fuzzNodes(dice(seed), NODE_FRAMES)
    t.is(clusters, 1)
  })
})
