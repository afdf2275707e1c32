// What each cache mode of QEMU's driver promises, held against power cuts that take what was not synced.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { dataOid, inodeOid, type Vid } from '../../src/model/oid.js'
import type { SheepClient } from '../../src/peer/client.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { withSeeds } from './support/seeds.js'
import { createObject, newVdi, object, readObject, setSlot } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const OBJECT = 1 << 20
const OBJECTS = 2
const SECTOR = 512
/** Sectors written to, spread over the objects. */
const SECTORS = 24
const STRIDE = (OBJECTS * OBJECT) / SECTORS
const ROUNDS = 2
const WRITES = 30

/** The flags of a write, and whether a flush follows each one, as QEMU 5.2 sends them. */
const MODES = {
  none: { flags: Flag.DIRECT, flushes: false, isSafe: true },
  directsync: { flags: Flag.DIRECT, flushes: false, isSafe: true },
  writethrough: { flags: Flag.CACHE, flushes: true, isSafe: true },
  writeback: { flags: Flag.CACHE, flushes: false, isSafe: false },
} as const

/** What a sector holds for sure, and what was asked for since. */
interface Sector {
  sure: number
  readonly later: number[]
}

class Run {
  readonly #cluster: SmallCluster
  readonly #mode: (typeof MODES)[keyof typeof MODES]
  readonly #vid: Vid
  readonly #sectors: Sector[] = Array.from({ length: SECTORS }, () => ({ sure: 0, later: [] }))
  #value = 0
  /** Sectors that hold less than was acknowledged, which only a write-back cache may do. */
  lost = 0

  constructor(cluster: SmallCluster, mode: keyof typeof MODES, vid: Vid) {
    this.#cluster = cluster
    this.#mode = MODES[mode]
    this.#vid = vid
  }

  async round(): Promise<void> {
    const { dice } = this.#cluster
    const client = await this.#cluster.client(dice.below(3))
    for (let i = 0; i < WRITES; i++) {
      await this.#write(client)
      if (this.#mode.isSafe || dice.chance(0.15)) await this.#flushed(client)
    }
    // The cut comes while these are under way.
    for (let i = dice.below(6); i > 0; i--) void this.#write(client).catch(() => undefined)
    await this.#cluster.cutPower(dice.chance(0.5) ? 1 : 0.5)
    await this.#check()
  }

  async #write(client: SheepClient): Promise<void> {
    const index = this.#cluster.dice.below(SECTORS)
    const value = (this.#value++ % 255) + 1
    const place = index * STRIDE - ((index * STRIDE) % SECTOR)
    const oid = dataOid(this.#vid, Math.floor(place / OBJECT))
    this.#sectors[index]!.later.push(value)
    const data = Buffer.alloc(SECTOR, value)
    const target = { oid, offset: place % OBJECT }
    const { result } = await object(client, Op.WRITE_OBJ, target, data, this.#mode.flags)
    if (result !== Code.SUCCESS) throw new Error(`write: ${result}`)
  }

  /** After this nothing that was acknowledged may go. */
  async #flushed(client: SheepClient): Promise<void> {
    if (this.#mode.flushes || !this.#mode.isSafe) {
      const { result } = await object(client, Op.FLUSH_VDI, { oid: inodeOid(this.#vid) })
      if (result !== Code.SUCCESS) throw new Error(`flush: ${result}`)
    }
    for (const sector of this.#sectors) {
      sector.sure = sector.later.at(-1) ?? sector.sure
      sector.later.length = 0
    }
  }

  /** Each copy is looked at, through the node that has it. */
  async #check(): Promise<void> {
    for (const node of [0, 1, 2]) {
      const client = await this.#cluster.client(node)
      for (const [index, sector] of this.#sectors.entries()) {
        const place = index * STRIDE - ((index * STRIDE) % SECTOR)
        const oid = dataOid(this.#vid, Math.floor(place / OBJECT))
        const { body } = await readObject(client, oid, place % OBJECT, SECTOR)
        const holds = body[0] ?? -1
        const allowed = [sector.sure, ...sector.later]
        if (!allowed.includes(holds) || !body.equals(Buffer.alloc(SECTOR, holds))) {
          throw new Error(`sector ${index} through ${node}: ${holds}, allowed ${allowed}`)
        }
        if (node > 0) continue
        if (holds !== allowed.at(-1)) this.lost++
        sector.sure = holds
        sector.later.length = 0
      }
    }
  }
}

async function cutOften(mode: keyof typeof MODES): Promise<number> {
  let lost = 0
  await withSeeds(2, async (seed) => {
    const cluster = await SmallCluster.start({ nodes: 3, copies: 3, seed })
    const client = await cluster.client(0)
    const vid = await newVdi(client, 'alice', OBJECTS * OBJECT)
    for (let index = 0; index < OBJECTS; index++) {
      await createObject(client, dataOid(vid, index), 0, Buffer.alloc(0))
      await setSlot(client, vid, index, vid)
    }
    const run = new Run(cluster, mode, vid)
    for (let round = 0; round < ROUNDS; round++) await run.round()
    lost += run.lost
    cluster.close()
  })
  return lost
}

for (const mode of ['none', 'directsync', 'writethrough'] as const) {
  test(`cache=${mode}: what was acknowledged survives power cuts`, async (t) => {
    await t.notThrowsAsync(cutOften(mode))
  })
}

test('cache=writeback: what was flushed survives power cuts, and only that is promised', async (t) => {
  // Writes that were not flushed were lost: the cuts are real ones.
  t.true((await cutOften('writeback')) > 0)
})
