/** The compliance suite on the zookeeper driver, over an ensemble of three in memory. */
import type { ClusterDriver } from '../../src/cluster/driver.js'
import { type DriverHarness, driverSuite } from './support/driver-suite.js'
import { type ZkProcess, ZookeeperRig } from './support/zookeeper-rig.js'

/** Connects when it joins: the suite wants its drivers at once. */
function lateDriver(open: () => Promise<ZkProcess>): ClusterDriver {
  let driver: ClusterDriver | undefined
  const there = (): ClusterDriver => {
    if (driver === undefined) throw new Error('it has not joined')
    return driver
  }
  return {
    name: 'zookeeper',
    localAddress: () => there().localAddress(),
    sureUntil: () => there().sureUntil(),
    join: async (self, request, events) => {
      driver ??= (await open()).driver
      return driver.join(self, request, events)
    },
    leave: () => there().leave(),
    notify: (message) => there().notify(message),
    block: () => there().block(),
    unblock: (message) => there().unblock(message),
    updateNode: (node) => there().updateNode(node),
  }
}

function harness(seed: number): DriverHarness {
  const rig = new ZookeeperRig(seed)
  const processes = new Map<ClusterDriver, ZkProcess>()
  return {
    driver: () => {
      const driver = lateDriver(async () => {
        const process = await rig.process()
        processes.set(driver, process)
        return process
      })
      return driver
    },
    kill: (driver) => processes.get(driver)?.kill(),
    until: (condition) => rig.until(condition),
    close: () => {
      for (const process of processes.values()) process.kill()
      rig.close()
      return Promise.resolve()
    },
  }
}

for (const seed of [1, 2, 3]) driverSuite(`zookeeper, seed ${seed}`, () => harness(seed))
