// Two clients share a volume through two daemons while daemons die and come back; they remember the inode all along.
import test from 'ava'
import { Code, SheepError } from '../../src/base/codes.js'
import type { Vid } from '../../src/model/oid.js'
import type { SheepClient } from '../../src/peer/client.js'
import { ClusterFlag } from '../../src/wire/sheepdog/opcodes.js'
import { withSeeds } from './support/seeds.js'
import { Sharer } from './support/sharer.js'
import { newVdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const OBJECT = 1 << 20
const OBJECTS = 10
const SECTOR = 512
const ROUNDS = 40
/** What clients hear of a daemon that ends. */
const ENDS: readonly Code[] = [Code.KILLED, Code.SHUTDOWN, Code.WAIT_FOR_JOIN, Code.NETWORK_ERROR]

/** A path of a multipath initiator: what was not acknowledged is written again, there or on another path. */
class Path {
  readonly #sharer: Sharer
  readonly #cluster: SmallCluster
  readonly #index: number

  constructor(cluster: SmallCluster, index: number, sharer: Sharer) {
    this.#cluster = cluster
    this.#index = index
    this.#sharer = sharer
  }

  async #again<T>(run: () => Promise<T>): Promise<T> {
    for (;;) {
      const { client } = this.#sharer
      try {
        return await run()
      } catch (error) {
        if (error instanceof SheepError && !ENDS.includes(error.code)) throw error
        // Without a new lock, and with the slots it has in mind.
        while (this.#sharer.client === client) await this.#reconnect(client)
      }
    }
  }

  async #reconnect(old: SheepClient): Promise<void> {
    await this.#cluster.clock.sleep(200)
    try {
      const next = await this.#cluster.client(this.#index)
      if (this.#sharer.client === old) this.#sharer.client = next
    } catch {
      // Its daemon is still down.
    }
  }

  write(index: number, offset: number, data: Buffer): Promise<void> {
    return this.#again(() => this.#sharer.write(index, offset, data))
  }

  read(index: number, offset: number): Promise<Buffer> {
    return this.#again(() => this.#sharer.readBack(index, offset, SECTOR))
  }
}

async function begin(seed: number) {
  const cluster = await SmallCluster.start({
    seed,
    nodes: 4,
    copies: 3,
    flags: ClusterFlag.USE_LOCK,
  })
  const vid: Vid = await newVdi(await cluster.client(3), 'Alice', OBJECTS * OBJECT)
  const paths: Path[] = []
  for (const index of [0, 1]) {
    paths.push(new Path(cluster, index, await Sharer.attach(cluster, index, vid)))
  }
  return { cluster, paths }
}

test('acknowledged writes of either path are there, whichever daemons die meanwhile', async (t) => {
  await withSeeds(4, async (seed) => {
    const { cluster, paths } = await begin(seed)
    const { dice, clock } = cluster
    let left = 2
    const mischief = async (): Promise<void> => {
      while (left > 0) {
        await clock.sleep(500 + dice.below(3_000))
        const victim = dice.below(4)
        cluster.kill(victim)
        await clock.sleep(dice.below(4_000))
        await cluster.boot(victim)
        await cluster.settle()
      }
    }
    const acknowledged = new Map<string, Buffer>()
    const work = async (own: number): Promise<void> => {
      for (let round = 0; round < ROUNDS; round++) {
        const [index, sector] = [dice.below(OBJECTS), 2 * dice.below(4) + own]
        const data = Buffer.alloc(SECTOR, `${seed} ${own} ${round};`)
        await paths[own]!.write(index, sector * SECTOR, data)
        acknowledged.set(`${index} ${sector}`, data)
        const reader = paths[dice.below(2)]!
        const found = await reader.read(index, sector * SECTOR)
        t.deepEqual(found, data, `SEED=${seed} path ${own} round ${round}`)
        await clock.sleep(dice.below(300))
      }
    }
    const trouble = mischief()
    const works = [work(0), work(1)]
    for (const one of works) void one.finally(() => left--).catch(() => undefined)
    await Promise.all([...works, trouble])
    for (const [where, data] of acknowledged) {
      const [index, sector] = where.split(' ').map(Number)
      for (const path of paths) {
        t.deepEqual(await path.read(index!, sector! * SECTOR), data, `SEED=${seed} ${where}`)
      }
    }
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    cluster.close()
  })
})
