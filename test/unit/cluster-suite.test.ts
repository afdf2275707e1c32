/** The compliance suite on the drivers that run with a virtual clock. */
import { silentLog } from '../../src/base/log.js'
import type { ClusterDriver } from '../../src/cluster/driver.js'
import { localDriver } from '../../src/cluster/local/driver.js'
import { memoryCluster } from '../../src/cluster/memory.js'
import { type DriverHarness, driverSuite } from './support/driver-suite.js'
import { testNode } from './support/recorder.js'
import { type SimHost, type SimProcess, simHost } from './support/sim-host.js'

/** Virtual time a condition may take. */
const PATIENCE_MS = 20_000

function untilOn(host: SimHost): (condition: () => boolean) => Promise<void> {
  return async (condition) => {
    const deadline = host.now() + PATIENCE_MS
    while (!condition()) {
      if (host.now() > deadline) throw new Error('waited in vain')
      await host.advance(5)
    }
  }
}

function memoryHarness(delayMs: (port: number) => number): DriverHarness {
  const host = simHost()
  const { clock } = host.process()
  const cluster = memoryCluster({ clock, delayMs: (node) => delayMs(node.port) })
  const homes = new Map<ClusterDriver, number>()
  return {
    driver: () => {
      const driver = cluster.driver()
      const join = driver.join.bind(driver)
      driver.join = (self, request, events) => {
        homes.set(driver, self.port)
        return join(self, request, events)
      }
      return driver
    },
    kill: (driver) => cluster.kill(testNode(homes.get(driver) ?? 0)),
    until: untilOn(host),
    close: () => Promise.resolve(),
  }
}

function localHarness(): DriverHarness {
  const host = simHost()
  const processes = new Map<ClusterDriver, SimProcess>()
  return {
    driver: () => {
      const process = host.process()
      const driver = localDriver({ world: process, directory: '/cluster', log: silentLog })
      processes.set(driver, process)
      return driver
    },
    kill: (driver) => processes.get(driver)?.kill(),
    until: untilOn(host),
    close: () => Promise.resolve(),
  }
}

driverSuite('memory', () => memoryHarness(() => 0))
driverSuite('memory, uneven', () => memoryHarness((port) => (port * 7) % 11))
driverSuite('local, simulated host', localHarness)
