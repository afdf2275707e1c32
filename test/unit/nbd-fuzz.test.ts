// The short form of `npm run fuzz -- --target nbd`: mutated conversations with the NBD door. SEED=n runs one seed.
import test from 'ava'
import { dice } from '../faults/dice.js'
import { fuzzNbd } from '../fuzz/nbd-target.js'
import { withSeeds } from './support/seeds.js'

const FRAMES = 5_000

test('the NBD door answers every request once and hands every volume back, whatever the bytes', async (t) => {
  await withSeeds(3, async (seed) => {
    const { replies, connections } = await fuzzNbd(dice(seed), FRAMES)
    t.true(replies > FRAMES / 4, `${replies} replies on ${connections} connections`)
  })
})
