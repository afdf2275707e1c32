/** An ensemble and processes that use it, in memory and on a virtual clock. */
import { silentLog } from '../../../src/base/log.js'
import type { ClusterDriver } from '../../../src/cluster/driver.js'
import { openZookeeperDriver } from '../../../src/cluster/zookeeper/driver.js'
import { Dice } from './fake-cluster.js'
import { FakeZookeeper } from './fake-zookeeper.js'
import { type Card, MemoryNetwork } from './memory-network.js'
import { VirtualClock } from './virtual-clock.js'

export const ZK_PORTS = [2181, 2182, 2183] as const
export const ZK_TIMEOUT_MS = 2000

export interface ZkProcess {
  readonly card: Card
  readonly driver: ClusterDriver
  kill(): void
}

export class ZookeeperRig {
  readonly clock = new VirtualClock()
  readonly dice: Dice
  readonly network: MemoryNetwork
  readonly zookeeper: FakeZookeeper

  constructor(seed = 1) {
    this.dice = new Dice(seed)
    this.network = new MemoryNetwork(this.clock, this.dice)
    this.zookeeper = new FakeZookeeper(this.clock, this.network, ZK_PORTS)
  }

  /** What a process has of the world; `isAlive` false: nothing happens in it any more. */
  world(card: Card, isAlive: () => boolean) {
    const { clock, dice } = this
    const guard = (fn: () => void) => (): void => {
      if (isAlive()) fn()
    }
    return {
      network: card,
      random: {
        below: (limit: number) => dice.below(limit),
        bytes: (length: number) => Buffer.from(Array.from({ length }, () => dice.below(256))),
      },
      clock: {
        now: () => clock.now(),
        monotonic: () => clock.monotonic(),
        after: (delayMs: number, fn: () => void) => clock.after(delayMs, guard(fn)),
        soon: (fn: () => void) => clock.soon(guard(fn)),
      },
    }
  }

  async process(root = '/sheepdog'): Promise<ZkProcess> {
    let isAlive = true
    const card = this.network.card()
    const driver = await openZookeeperDriver({
      world: this.world(card, () => isAlive),
      log: silentLog,
      servers: ZK_PORTS.map((port) => ({ host: '127.0.0.1', port })),
      root,
      timeoutMs: ZK_TIMEOUT_MS,
    })
    return {
      card,
      driver,
      kill: () => {
        isAlive = false
        card.unplug()
      },
    }
  }

  until(condition: () => boolean): Promise<void> {
    return this.clock.until('what a test waits for', condition, { limitMs: 60_000 })
  }

  close(): void {
    this.zookeeper.stop()
  }
}
