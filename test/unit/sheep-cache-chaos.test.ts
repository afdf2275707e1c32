// Clients at every node use one volume at once, all nodes cache, and processes die. A block never shows what it cannot
// hold, and once somebody has seen what a crash has left of it, it stays that.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { dataOid, inodeOid, type Vid } from '../../src/model/oid.js'
import type { SheepClient } from '../../src/peer/client.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectRequest } from '../../src/wire/sheepdog/requests.js'
import { withSeeds } from './support/seeds.js'
import { createObject, newVdi, object, setSlot } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const OBJECT = 1 << 20
const SLOTS = 5
const NODES = 3
const COPIES = 2
const STEPS = 60
const BLOCK = 4096

interface Block {
  readonly slot: number
  readonly offset: number
  /** What a read may find. */
  possible: Set<number>
  /** What it held since the last flush, first of all what that flush found. */
  since: number[]
}

class Run {
  readonly faults: string[] = []
  readonly #cluster: SmallCluster
  readonly #vid: Vid
  readonly #blocks: Block[] = []
  readonly #clients = new Map<number, SheepClient>()
  /** Machines that lost their power since the last flush. */
  readonly #cut = new Set<number>()
  #value = 1

  constructor(cluster: SmallCluster, vid: Vid) {
    this.#cluster = cluster
    this.#vid = vid
    // Two in one of the cache's blocks, two in one object, and objects of their own.
    const places = [0, BLOCK, 40 * BLOCK, OBJECT, 2 * OBJECT + BLOCK, 3 * OBJECT, 4 * OBJECT]
    for (const at of places) {
      const [slot, offset] = [Math.floor(at / OBJECT), at % OBJECT]
      this.#blocks.push({ slot, offset, possible: new Set([0]), since: [0] })
    }
  }

  get #dice() {
    return this.#cluster.dice
  }

  #node(): number {
    const up = this.#cluster.up()
    return up[this.#dice.below(up.length)]!
  }

  async #client(node: number): Promise<SheepClient> {
    const client = this.#clients.get(node) ?? (await this.#cluster.client(node))
    this.#clients.set(node, client)
    return client
  }

  async step(): Promise<void> {
    const dice = this.#dice.below(20)
    if (dice < 13) await this.#batch()
    else if (dice < 15) await this.#flush()
    else if (dice < 17) await this.#cluster.clock.sleep(this.#dice.below(40_000))
    else if (this.#cluster.up().length < NODES) await this.bootAll()
    else this.#kill(this.#dice.chance(0.3))
  }

  async bootAll(): Promise<void> {
    const up = this.#cluster.up()
    for (let i = 0; i < NODES; i++) if (!up.includes(i)) await this.#cluster.boot(i)
  }

  /** A few at once, no two on one block; half of the time all through one node, as a guest would. */
  async #batch(): Promise<void> {
    const one = this.#dice.chance(0.5) ? this.#node() : undefined
    const blocks = this.#blocks.filter(() => this.#dice.chance(0.5))
    await Promise.all(
      blocks.map((block) => {
        const node = one ?? this.#node()
        return this.#dice.chance(0.5) ? this.#write(block, node) : this.read(block, node)
      }),
    )
  }

  async #write(block: Block, node: number): Promise<void> {
    const value = this.#value++ % 250
    const where = { oid: dataOid(this.#vid, block.slot), offset: block.offset }
    const flags = [Flag.CACHE, Flag.CACHE, 0, Flag.DIRECT][this.#dice.below(4)]!
    const before = [...block.possible]
    block.since.push(value)
    const code = await this.#asked(node, async (client) => {
      const { result } = await object(
        client,
        Op.WRITE_OBJ,
        where,
        Buffer.alloc(BLOCK, value),
        flags,
      )
      return result
    })
    block.possible = new Set(code === Code.SUCCESS ? [value] : [...before, value])
  }

  async read(block: Block, node: number): Promise<void> {
    const flags = this.#dice.chance(0.7) ? Flag.CACHE : Flag.DIRECT
    const oid = dataOid(this.#vid, block.slot)
    const head = { opcode: Op.READ_OBJ, flags, oid, offset: block.offset, dataLength: BLOCK }
    let body: Buffer = Buffer.alloc(0)
    const code = await this.#asked(node, async (client) => {
      const reply = await client.call(objectRequest(head))
      body = reply.body
      return reply.result
    })
    if (code === undefined) return
    const found = code === Code.SUCCESS && body.equals(Buffer.alloc(BLOCK, body[0])) ? body[0]! : -1
    if (!block.possible.has(found)) {
      const where = `${block.slot}:${block.offset} through ${node}`
      this.faults.push(`${where}: ${found} (${code}), possible ${[...block.possible].join(' ')}`)
    }
    block.possible = new Set([found])
  }

  async #flush(): Promise<void> {
    const code = await this.#asked(this.#node(), async (client) => {
      const head = objectRequest({ opcode: Op.FLUSH_VDI, oid: inodeOid(this.#vid) })
      return (await client.call(head)).result
    })
    if (code === undefined) return
    if (code !== Code.SUCCESS) this.faults.push(`flush: ${code}`)
    else {
      for (const block of this.#blocks) block.since = [...block.possible]
      this.#cut.clear()
    }
  }

  /** The result; undefined when the node died over it. */
  async #asked(
    node: number,
    run: (client: SheepClient) => Promise<number>,
  ): Promise<number | undefined> {
    try {
      return await run(await this.#client(node))
    } catch {
      this.#clients.delete(node)
      return undefined
    }
  }

  /**
   * What the holder of the right had not flushed may be gone, or come back with him. What was written past the cache, and not
   * flushed, is in the memory of two machines, or of one until recovery has made the second copy.
   */
  #kill(power: boolean): void {
    const node = this.#node()
    const { self } = this.#cluster.machines[node]!
    const holder = this.#cluster.node(node).state.vids.cachedBy.get(this.#vid)
    this.#cluster.kill(node, { power })
    this.#clients.get(node)?.close()
    this.#clients.delete(node)
    if (power) this.#cut.add(node)
    if (holder?.port !== self.port && this.#cut.size < COPIES) return
    for (const block of this.#blocks) block.possible = new Set([...block.since, ...block.possible])
  }

  async end(): Promise<void> {
    await this.bootAll()
    for (const block of this.#blocks) for (let i = 0; i < NODES; i++) await this.read(block, i)
    for (const client of this.#clients.values()) client.close()
  }
}

test('no block shows what it cannot hold, whoever caches, writes, reads and dies', async (t) => {
  let held = 0
  await withSeeds(6, async (seed) => {
    const cluster = await SmallCluster.start({
      ...{ seed, nodes: NODES, copies: COPIES },
      cacheBytes: () => 3 * OBJECT,
      // One hears late of who may cache.
      delayMs: (member) => (seed % 2 === 1 && member.port % NODES === 0 ? 800 : 0),
    })
    const client = await cluster.client(0)
    const vid = await newVdi(client, 'Alice', SLOTS * OBJECT)
    for (let slot = 0; slot < SLOTS; slot++) {
      await createObject(client, dataOid(vid, slot), 0, Buffer.alloc(0))
      await setSlot(client, vid, slot, vid)
    }
    const run = new Run(cluster, vid)
    for (let i = 0; i < STEPS; i++) await run.step()
    await run.end()
    await cluster.settle()
    held += cluster.logged.filter((line) => line.includes('cache.right.taken')).length
    t.deepEqual(run.faults, [], `SEED=${seed}`)
    t.deepEqual(cluster.failures(), [], `SEED=${seed}`)
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    cluster.close()
  })
  t.true(held > 0)
})
