/** Work that goes on while one daemon is killed and brought back in the middle of it. */
import type { TestCluster } from './cluster.js'
import { pause } from './run.js'

const BEFORE_KILL_MS = 1000
const DEAD_MS = 2000

/**
 * Repeats `round` until the node `victim` has been killed, has come back and has recovered, and one more
 * round has run after that. Any error of the work is the caller's. The kill falls inside a round, or this
 * throws: a failure between two rounds would prove nothing.
 */
export async function whileOneNodeFails(
  cluster: TestCluster,
  victim: number,
  round: (count: number) => Promise<void>,
): Promise<void> {
  let working = false
  let over = false
  const failure = async () => {
    await pause(BEFORE_KILL_MS)
    if (!working) throw new Error('the work was over before the node was killed')
    await cluster.node(victim).kill()
    await pause(DEAD_MS)
    await cluster.node(victim).start()
    await cluster.recovered()
  }
  const failing = failure().finally(() => {
    over = true
  })
  // Its error is reported below; until then an early rejection must not end the process.
  failing.catch(() => undefined)
  try {
    for (let [count, last] = [0, false]; !last; count++) {
      last = over
      working = true
      await round(count)
      working = false
    }
  } finally {
    // Nothing may start a daemon any more once the test is over.
    await failing.catch(() => undefined)
  }
  await failing
}
