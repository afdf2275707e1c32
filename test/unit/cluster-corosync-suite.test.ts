// The corosync driver keeps the contract of all drivers: on one host, and with a host a member.
import test from 'ava'
import { silentLog } from '../../src/base/log.js'
import { corosyncDriver } from '../../src/cluster/corosync/driver.js'
import type { ClusterDriver } from '../../src/cluster/driver.js'
import type { ProcessId } from '../../src/world/corosync.js'
import { NodeRandom } from '../../src/world/node/random.js'
import { type DriverHarness, driverSuite } from './support/driver-suite.js'
import { FakeRing } from './support/fake-corosync.js'
import { Recorder } from './support/recorder.js'
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

test('an epoch of more than 1637 nodes is refused by name, in a request and in an answer', async (t) => {
  const host = simHost()
  const ring = new FakeRing(host)
  const open = async (port: number): Promise<Recorder> => {
    const { corosync, process } = ring.host(port).process()
    const world = { clock: process.clock, random: new NodeRandom() }
    return new Recorder(await corosyncDriver({ world, corosync, log: silentLog }), port)
  }
  const settled = async (joined: Promise<void>): Promise<string> => {
    let word = ''
    joined.then(
      () => {
        word = 'in'
      },
      (error: Error) => {
        word = error.message
      },
    )
    while (word === '') await host.advance(5)
    return word
  }
  const tooLong = 'x'.repeat(48 + 1638 * 80)
  t.regex(await settled((await open(1)).join(tooLong)), /join of 131088 bytes.* 1637 nodes/)
  const one = await open(2)
  t.is(await settled(one.join()), 'in')
  one.joinRequest = () => Buffer.from(tooLong)
  t.regex(await settled((await open(3)).join()), /accept of 131088 bytes.* 1637 nodes/)
  one.joinRequest = () => Buffer.from('ok')
  t.is(await settled((await open(4)).join()), 'in')
})
