// The corosync driver keeps the contract of all drivers: on one host, and with a host a member.
import test from 'ava'
import { silentLog } from '../../src/base/log.js'
import { corosyncDriver } from '../../src/cluster/corosync/driver.js'
import type { ClusterDriver } from '../../src/cluster/driver.js'
import type { ProcessId } from '../../src/world/corosync.js'
import { NodeRandom } from '../../src/world/node/random.js'
import { type DriverHarness, driverSuite } from './support/driver-suite.js'
import { FakeRing } from './support/fake-corosync.js'
import { simHost } from './support/sim-host.js'

const PATIENCE_MS = 60_000
const DRIVERS_MAX = 12

/** `hostOf` spreads the members over hosts. The suite makes drivers at once: they are opened ahead. */
async function harness(hostOf: (index: number) => number): Promise<DriverHarness> {
  const host = simHost()
  const ring = new FakeRing(host)
  const homes = new Map<ClusterDriver, ProcessId>()
  const ready: ClusterDriver[] = []
  for (let i = 0; i < DRIVERS_MAX; i++) {
    const { corosync, process, id } = ring.host(hostOf(i)).process()
    const world = { clock: process.clock, random: new NodeRandom() }
    const driver = await corosyncDriver({ world, corosync, log: silentLog })
    homes.set(driver, id)
    ready.push(driver)
  }
  return {
    driver: () => ready.shift()!,
    kill: (driver) => ring.kill(homes.get(driver)!),
    until: async (condition) => {
      const deadline = host.now() + PATIENCE_MS
      while (!condition()) {
        if (host.now() > deadline) throw new Error('waited in vain')
        await host.advance(5)
      }
    },
    close: () => Promise.resolve(),
  }
}

driverSuite('corosync, one host', () => harness(() => 1))
driverSuite('corosync, a host each', () => harness((index) => index + 1))

test('the address is the one corosync has for this host', async (t) => {
  const { corosync, process } = new FakeRing(simHost()).host(7).process()
  const world = { clock: process.clock, random: new NodeRandom() }
  const driver = await corosyncDriver({ world, corosync, log: silentLog })
  t.is(driver.localAddress(), '10.0.0.7')
})
