// Volumes that share objects: snapshots, clones, branches, rollbacks and deletions in random order, held to a
// model. Nothing that a volume still shows may be taken, and in the end nothing may be left.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { asVid, dataOid, type Vid } from '../../src/model/oid.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { withSeeds } from './support/seeds.js'
import { headerOf, newVdi, readObject, slotOf, snapshot, vdi, vdiId } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { discard, write } from './support/volume-io.js'

const OBJECT = 1 << 20
const SLOTS = 3
const STEPS = 30
const NAMES = ['alice', 'bob', 'carol']

interface Disk {
  readonly vid: Vid
  readonly name: string
  readonly snapId: number
  isSnapshot: boolean
  /** First byte of each object. */
  content: number[]
}

class Run {
  readonly #cluster: SmallCluster
  disks: Disk[] = []
  #value = 0
  story: string[] = []

  constructor(cluster: SmallCluster) {
    this.#cluster = cluster
  }

  #pick<T>(from: readonly T[]): T | undefined {
    return from[this.#cluster.dice.below(Math.max(1, from.length))]
  }

  #node(): number {
    return this.#pick(this.#cluster.up())!
  }

  async #client() {
    return this.#cluster.client(this.#node())
  }

  #working(name: string): Disk | undefined {
    return this.disks.find((disk) => disk.name === name && !disk.isSnapshot)
  }

  async #add(vid: Vid, name: string, content: number[]): Promise<void> {
    const { snapId } = await headerOf(await this.#client(), vid)
    this.disks.push({ vid, name, snapId, isSnapshot: false, content: [...content] })
  }

  async step(): Promise<void> {
    const { dice } = this.#cluster
    const name = this.#pick(NAMES)!
    const working = this.#working(name)
    const shot = this.#pick(this.disks.filter(({ isSnapshot }) => isSnapshot))
    const roll = dice.below(100)
    if (working === undefined) {
      if (shot === undefined || roll < 40) await this.#create(name)
      else await this.#clone(name, shot)
    } else if (roll < 45) await this.#change(working)
    else if (roll < 65) await this.#snapshot(working)
    else if (roll < 75) await this.#branch(working)
    else if (roll < 85 && shot !== undefined) await this.delete(shot)
    else await this.delete(working)
    if (dice.chance(0.3)) await this.#cluster.settle()
  }

  async #create(name: string): Promise<void> {
    this.story.push(`create ${name}`)
    const vid = await newVdi(await this.#client(), name, SLOTS * OBJECT)
    await this.#add(vid, name, [0, 0, 0])
  }

  async #clone(name: string, base: Disk): Promise<void> {
    this.story.push(`clone ${name} of ${base.name}@${base.snapId}`)
    const vid = await vdiId(await this.#client(), Op.NEW_VDI, name, { base: base.vid })
    await this.#add(vid, name, base.content)
  }

  async #change(disk: Disk): Promise<void> {
    const volume = await this.#cluster.source(this.#node()).open(disk.name)
    for (let i = 0; i < 3; i++) {
      const slot = this.#cluster.dice.below(SLOTS)
      const value = this.#cluster.dice.chance(0.3) ? 0 : (this.#value++ % 255) + 1
      this.story.push(`${disk.name}[${slot}] = ${value}`)
      const code =
        value === 0
          ? await discard(volume, slot * OBJECT, OBJECT)
          : await write(volume, slot * OBJECT, Buffer.of(value))
      if (code !== Code.SUCCESS) throw new Error(`write: ${code}`)
      disk.content[slot] = value
    }
    await volume.close()
  }

  async #snapshot(working: Disk): Promise<void> {
    this.story.push(`snapshot ${working.name}`)
    const vid = await snapshot(await this.#client(), working.name)
    working.isSnapshot = true
    await this.#add(vid, working.name, working.content)
  }

  /** The working volume becomes a snapshot, and the new one goes on from an older one. */
  async #branch(working: Disk): Promise<void> {
    const { name } = working
    const base = this.#pick(this.disks.filter((disk) => disk.name === name && disk.isSnapshot))
    if (base === undefined) return
    this.story.push(`branch ${name}@${base.snapId}`)
    const fields = { base: base.vid, snapId: 1 }
    const vid = await vdiId(await this.#client(), Op.NEW_VDI, name, fields)
    working.isSnapshot = true
    await this.#add(vid, name, base.content)
  }

  async delete(disk: Disk): Promise<void> {
    this.story.push(`delete ${disk.name}@${disk.isSnapshot ? disk.snapId : ''}`)
    const fields = disk.isSnapshot ? { tag: '', snapId: disk.snapId } : {}
    const { result } = await vdi(await this.#client(), Op.DEL_VDI, disk.name, fields)
    if (result !== Code.SUCCESS) throw new Error(`delete: ${result}`)
    this.disks = this.disks.filter((other) => other !== disk)
  }

  /** What every volume shows, through any node, against what it should. */
  async faults(): Promise<string[]> {
    const found: string[] = []
    for (const { vid, name, snapId, content } of this.disks) {
      const client = await this.#client()
      for (let slot = 0; slot < SLOTS; slot++) {
        const owner = await slotOf(client, vid, slot)
        const reply = owner === 0 ? undefined : await readObject(client, dataOid(owner, slot), 0, 1)
        const value = reply === undefined ? 0 : reply.result === 0 ? reply.body[0] : 'lost'
        if (value !== content[slot]) {
          found.push(`${name}@${snapId}[${slot}] is ${value}, not ${content[slot]}`)
        }
      }
      client.close()
    }
    return found
  }
}

test('volumes that share objects keep theirs and leave nothing', async (t) => {
  await withSeeds(5, async (seed) => {
    const cluster = await SmallCluster.start({ seed })
    const run = new Run(cluster)
    const check = async (): Promise<void> => {
      const faults = await run.faults()
      if (faults.length > 0) throw new Error([...faults, ...run.story].join('\n'))
    }
    for (let step = 0; step < STEPS; step++) {
      await run.step()
      await check()
    }
    while (run.disks.length > 0) {
      await run.delete(run.disks[cluster.dice.below(run.disks.length)]!)
      if (cluster.dice.chance(0.5)) await cluster.settle()
      await check()
    }
    await cluster.settle()
    t.deepEqual(cluster.objects('data', 'ledger'), [], `SEED=${seed}`)
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    t.deepEqual(cluster.failures(), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('with nodes that die and come back in between', async (t) => {
  await withSeeds(4, async (seed) => {
    const cluster = await SmallCluster.start({ seed, nodes: 4, copies: 3 })
    const run = new Run(cluster)
    const { dice } = cluster
    const disturb = async (): Promise<void> => {
      const down = cluster.machines.findIndex(({ running }) => running === undefined)
      if (down >= 0) await cluster.boot(down)
      // Whoever owes removals to others loses them with its life: those are waited for.
      else if (dice.chance(0.5)) {
        await cluster.settle()
        cluster.kill(dice.below(4), { power: dice.chance(0.5) })
      } else if (dice.chance(0.3)) {
        await cluster.settle()
        // All processes die, the machines live: a discard that nothing flushed may be undone by a power cut.
        await cluster.cutPower(0)
      }
    }
    for (let step = 0; step < STEPS; step++) {
      await run.step()
      if (dice.chance(0.3)) await disturb()
      const faults = await run.faults()
      if (faults.length > 0) throw new Error([...faults, ...run.story].join('\n'))
    }
    for (const disk of run.disks) await run.delete(disk)
    for (const [index, { running }] of cluster.machines.entries()) {
      if (running === undefined) await cluster.boot(index)
    }
    await cluster.settle()
    t.deepEqual(cluster.objects('data', 'ledger'), [], `SEED=${seed}`)
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    t.deepEqual(cluster.failures(), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('a branch keeps the objects of a base that is deleted', async (t) => {
  // The branch's announcement names the working volume as its parent, but its objects are the base's.
  const cluster = await SmallCluster.start()
  const client = await cluster.client(0)
  const first = await newVdi(client, 'alice', SLOTS * OBJECT)
  const second = await snapshot(client, 'alice')
  const disk = await cluster.source(0).open('alice')
  t.is(await write(disk, 0, Buffer.from('second')), Code.SUCCESS)
  await disk.close()
  const third = await snapshot(client, 'alice')
  // Back to the first, then to the second, which the working volume does not descend from.
  await vdiId(client, Op.DEL_VDI, 'alice')
  await vdiId(client, Op.NEW_VDI, 'alice', { base: first })
  const branch = await vdiId(client, Op.NEW_VDI, 'alice', { base: second, snapId: 1 })
  t.deepEqual([first, second, third].includes(branch), false)
  await vdiId(client, Op.DEL_VDI, 'alice', { tag: '', snapId: 2 })
  await cluster.settle()
  t.is(await slotOf(client, branch, 0), asVid(second))
  t.deepEqual((await readObject(client, dataOid(second, 0), 0, 6)).body, Buffer.from('second'))
  cluster.close()
})
