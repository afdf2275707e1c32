/**
 * The short form of `npm run faults`: nodes are killed, paused, stopped, wiped, cut off and added under verifying
 * writers. No byte may be wrong, no client see an error its own gateway does not explain, and all copies must be
 * equal in the end.
 */
import test, { type ExecutionContext } from 'ava'
import type { Tool } from './support/packages.js'
import { PROJECT } from './support/paths.js'
import { run } from './support/run.js'
import { needing, type RealTest } from './support/suite.js'

const MAIN = `${PROJECT}build/test/faults/main.js`
const LIMIT_MS = 400_000
/** Short runs hurry: as many faults as a minute of `npm run faults` has. */
const MINUTES = '0.4'

async function faults(t: ExecutionContext, ...words: readonly string[]): Promise<void> {
  t.timeout(LIMIT_MS + 10_000)
  const { stdout } = await run([process.execPath, MAIN, ...words], { timeoutMs: LIMIT_MS })
  t.regex(stdout, /^PASS$/m)
}

const realTest = needing()

/** A host of one's own for each node takes root. */
function inNetworks(...tools: readonly Tool[]): RealTest {
  if (process.getuid?.() === 0) return needing(...tools, 'unshare', 'nsenter', 'ip')
  return (title) => test.serial.skip(`${title} (needs root)`, () => undefined)
}

realTest('local driver: faults of all kinds, one after the other and together', (t) =>
  faults(t, '--minutes', MINUTES, '--seed', '20261121'),
)

inNetworks('java', 'zooinspector')('zookeeper: the same, and hosts cut off from everybody', (t) =>
  faults(t, '--driver', 'zookeeper', '--minutes', MINUTES, '--seed', '41'),
)

inNetworks('corosync', 'corosync-cmapctl')(
  'corosync: the same, and hosts cut off from their peers',
  (t) => faults(t, '--driver', 'corosync', '--minutes', MINUTES, '--seed', '32'),
)

inNetworks()('4:2 on six nodes: what cannot be coded waits, parity fits its data in the end', (t) =>
  faults(
    t,
    '--networks',
    ...['--nodes', '6', '--redundancy', '4:2', '--minutes', MINUTES, '--seed', '63'],
  ),
)

realTest('all daemons killed at once: flushed writes survive, copies are equal after it', (t) =>
  faults(t, '--kill-all', '2', '--seed', '5'),
)
