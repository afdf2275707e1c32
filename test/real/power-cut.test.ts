/**
 * All daemons die at once under load, again and again: whatever a flush covered is there afterwards, through
 * each node, so on each copy. What no flush covered may be old or new, sector by sector, but the same on every copy.
 */
import { readFile } from 'node:fs/promises'
import { nbdcopy } from './support/clients.js'
import { startCluster } from './support/cluster.js'
import { type Slot, startFlushingWriter, wrongSlots } from './support/flushing-writer.js'
import { pause } from './support/run.js'
import { copiesSettled } from './support/same-copies.js'
import { needing } from './support/suite.js'

const SLOTS = 256
const SLOT_BYTES = 65_536
const ROUNDS = 3
const SEED = 20_260_721
const realTest = needing('qemu-io', 'nbdcopy')

realTest('what was flushed survives SIGKILL of all daemons at once', async (t) => {
  t.timeout(300_000)
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Alice', `${(SLOTS * SLOT_BYTES) / 1048576}M`)
  const slots: Slot[] = Array.from({ length: SLOTS }, () => ({ flushed: 0, later: [] }))
  const below = generator(SEED)
  for (let round = 0; round < ROUNDS; round++) {
    const uri = cluster.uri('Alice', round % 3)
    const writer = startFlushingWriter({ uri, slots, slotBytes: SLOT_BYTES, below })
    await pause(1500 + below(1500))
    t.true(writer.flushes() > 0, 'nothing was flushed before the kill')
    await cluster.killAll()
    await writer.done
    await cluster.startAll()
    t.deepEqual(await copiesSettled(cluster), [], `seed ${SEED}, round ${round}`)
    for (const index of [0, 1, 2]) {
      const image = `${cluster.directory}/image`
      await nbdcopy(cluster.uri('Alice', index), image)
      const wrong = wrongSlots(await readFile(image), slots, SLOT_BYTES)
      t.deepEqual(wrong, [], `seed ${SEED}, round ${round}, read through node ${index}`)
    }
  }
})

/** A small generator (mulberry32), so that a seed is a bug report. */
function generator(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit
  }
}
