// Whatever dies, in whatever order, and comes back: nothing acknowledged is lost, and every node reads the same,
// from the first read on. `SEEDS=100 npx ava build/test/unit/sheep-chaos.test.js` looks longer, SEED=n again.
import test, { type ExecutionContext } from 'ava'
import { BlockWriter } from './support/block-writer.js'
import { withSeeds } from './support/seeds.js'
import { newVdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const SIZE = 4 << 20
const BLOCKS = 32
const ROUNDS = 5
/** A process that does not run for so long is thrown out. */
const LEASE_MS = 5_000

type Seen = readonly (number | string)[]

/** One run: a disk in use on one node after the other, and who dies each time. */
class Chaos {
  readonly trace: string[] = []
  readonly #t: ExecutionContext
  readonly #cluster: SmallCluster
  #writer: BlockWriter
  #home: number

  private constructor(
    t: ExecutionContext,
    cluster: SmallCluster,
    home: number,
    writer: BlockWriter,
  ) {
    this.#t = t
    this.#cluster = cluster
    this.#home = home
    this.#writer = writer
  }

  static async start(t: ExecutionContext, seed: number): Promise<Chaos> {
    const [nodes, copies] = [4 + (seed % 2), 2 + (seed % 2)]
    const cluster = await SmallCluster.start({ seed, nodes, copies, leaseMs: LEASE_MS })
    const client = await cluster.client(0)
    await newVdi(client, 'Alice', SIZE)
    client.close()
    const home = cluster.dice.below(nodes)
    return new Chaos(t, cluster, home, await writerOn(cluster, home))
  }

  async round(): Promise<void> {
    const { dice, clock } = this.#cluster
    this.#writer.start(8)
    await clock.until('writes', () => this.#writer.acknowledged > 15)
    const lost = await this.#strike()
    if (dice.chance(0.5)) await clock.sleep(dice.below(400))
    await this.#bringBack()
    if (dice.chance(0.5)) await this.#cluster.settle()
    const first = await this.#sameEverywhere(lost)
    await this.#cluster.settle()
    this.#t.deepEqual(await this.#cluster.copyFaults(), [], this.#story)
    this.#t.deepEqual(await this.#sameEverywhere(lost), first, this.#story)
    this.#home = dice.below(this.#cluster.machines.length)
    this.#writer = await writerOn(this.#cluster, this.#home, first)
  }

  end(): void {
    this.#cluster.close()
  }

  get #story(): string {
    return this.trace.join(', ')
  }

  /** True when what was not flushed may be gone. */
  async #strike(): Promise<boolean> {
    const cluster = this.#cluster
    const { dice, clock } = cluster
    const home = this.#home
    const [other] = cluster.up().filter((index) => index !== home) as [number]
    const power = dice.chance(0.5)
    const kind = dice.below(6)
    if (kind === 0) {
      this.trace.push(`gateway ${home}`)
      cluster.kill(home)
    } else if (kind === 1) {
      this.trace.push(`${other} and back, gateway ${home}`)
      cluster.kill(other, { power })
      await clock.sleep(dice.below(300))
      await cluster.boot(other)
      cluster.kill(home)
    } else if (kind === 2) {
      this.trace.push(`all${power ? ', by power' : ''}`)
      for (const index of cluster.up()) cluster.kill(index, { power })
    } else if (kind === 3) {
      await this.#freeze(other)
      cluster.kill(home)
    } else if (kind === 4) {
      const [, third] = cluster.up().filter((index) => index !== home) as [number, number]
      const thawed = this.#freeze(other)
      cluster.kill(third)
      await clock.sleep(dice.below(1_000))
      await cluster.boot(third)
      await thawed
      cluster.kill(home)
    } else {
      this.trace.push(`gateway ${home} while ${other} joins`)
      cluster.kill(other)
      await clock.sleep(500)
      const joined = cluster.boot(other)
      await clock.sleep(dice.below(40))
      cluster.kill(home)
      await joined
    }
    return kind === 2 && power
  }

  /** Stopped and continued, perhaps after the others have gone on. */
  async #freeze(index: number): Promise<void> {
    const { dice, clock } = this.#cluster
    const forMs = dice.below(2 * LEASE_MS)
    this.trace.push(`${index} stopped for ${forMs} ms`)
    this.#cluster.freeze(index)
    await clock.sleep(forMs)
    this.#cluster.thaw(index)
    await clock.sleep(dice.below(300))
  }

  async #bringBack(): Promise<void> {
    const cluster = this.#cluster
    const up = cluster.up()
    const down = cluster.machines.map((_, index) => index).filter((index) => !up.includes(index))
    const starts = await Promise.all(down.map((index) => cluster.launch(index)))
    await Promise.all(starts.map(({ joined }) => joined))
    const serving = (): boolean =>
      cluster.up().every((index) => cluster.node(index).state.status === 'ok')
    await cluster.clock.until('all nodes to serve', serving)
  }

  async #sameEverywhere(lost: boolean): Promise<Seen> {
    const cluster = this.#cluster
    const seen: Seen[] = []
    for (const index of cluster.up()) {
      const disk = await cluster.source(index).open('Alice')
      seen.push(await this.#writer.look(disk))
      await disk.close()
    }
    for (const one of seen) {
      this.#t.deepEqual(one, seen[0], this.#story)
      this.#t.deepEqual(this.#writer.faults(one, { lost }), [], this.#story)
    }
    return seen[0]!
  }
}

async function writerOn(cluster: SmallCluster, home: number, found?: Seen): Promise<BlockWriter> {
  const disk = await cluster.source(home).open('Alice')
  return new BlockWriter(disk, cluster.dice, BLOCKS, found as readonly number[] | undefined)
}

test('nothing acknowledged is lost and all nodes read the same, whoever dies', async (t) => {
  t.timeout(300_000)
  await withSeeds(2, async (seed) => {
    const chaos = await Chaos.start(t, seed)
    for (let round = 0; round < ROUNDS; round++) await chaos.round()
    chaos.end()
  })
})
