// What a mount knows of the cluster's VDIs: no name missing, nothing older than a second or than a change of its own, and nothing read
// again without need. The cluster is a table of inodes here; its answers are held back where a test wants to be in between.
import test from 'ava'
import { Code, SheepError } from '../../src/base/codes.js'
import {
  decodeInodeHeader,
  INODE_HEADER_BYTES,
  type InodeHeader,
  type SdTime,
} from '../../src/model/inode.js'
import type { Vid } from '../../src/model/oid.js'
import { Catalogue, type CatalogueAccess } from '../../src/sheepfs/catalogue.js'

const BLANK = decodeInodeHeader(Buffer.alloc(INODE_HEADER_BYTES))

const vid = (number: number): Vid => number as Vid

class Cluster implements CatalogueAccess {
  readonly inodes = new Map<Vid, InodeHeader>()
  reads = 0
  livings = 0
  beforeLiving: Promise<void> | undefined
  nowMs = 0
  #held: (() => void)[] | undefined
  readonly catalogue: Catalogue

  constructor() {
    const clock = {
      now: () => this.nowMs,
      monotonic: () => this.nowMs,
      after: () => () => undefined,
      soon: (fn: () => void) => void Promise.resolve().then(fn),
    }
    this.catalogue = new Catalogue(this, clock)
  }

  put(number: number, name: string, more: Partial<InodeHeader> = {}): void {
    this.inodes.set(vid(number), { ...BLANK, name, vid: vid(number), ...more })
  }

  hold(): void {
    this.#held = []
  }

  letGo(): void {
    const held = this.#held ?? []
    this.#held = undefined
    for (const go of held) go()
  }

  /** As sheepdog 1.0, which does not know how. */
  hasHeads = false

  async heads(each: (header: InodeHeader) => void): Promise<boolean> {
    if (this.hasHeads) for (const header of this.inodes.values()) each(header)
    return this.hasHeads
  }

  /** The ids there are when it is asked. */
  async living(): Promise<Vid[]> {
    this.livings++
    const vids = [...this.inodes.keys()].sort((a, b) => a - b)
    await this.beforeLiving
    return vids
  }

  async find(name: string): Promise<Vid> {
    for (const header of this.inodes.values()) {
      if (header.name === name && header.snapCtime === 0n) return header.vid
    }
    throw new SheepError(Code.NO_VDI)
  }

  /** What the inode is when it is asked for; the answer may take its time. */
  async headerIfAny(number: Vid): Promise<InodeHeader | undefined> {
    this.reads++
    const header = this.inodes.get(number)
    const held = this.#held
    if (held !== undefined) await new Promise<void>((go) => void held.push(go))
    return header
  }

  async readHeader(number: Vid): Promise<InodeHeader> {
    const header = await this.headerIfAny(number)
    if (header === undefined) throw new SheepError(Code.NO_VDI)
    return header
  }

  async names(): Promise<string[]> {
    return [...(await this.catalogue.families()).keys()]
  }
}

function withVdis(count: number): Cluster {
  const cluster = new Cluster()
  for (let i = 1; i <= count; i++) cluster.put(i, `vdi-${String(i).padStart(4, '0')}`)
  return cluster
}

const turns = async (): Promise<void> => {
  for (let i = 0; i < 50; i++) await Promise.resolve()
}

test('each inode is read once; afterwards only what is new', async (t) => {
  const cluster = withVdis(1000)
  t.is((await cluster.names()).length, 1000)
  t.is(cluster.reads, 1000)
  cluster.nowMs += 2_000
  t.is((await cluster.names()).length, 1000)
  t.is(cluster.reads, 1000)
  cluster.put(2000, 'new')
  cluster.nowMs += 2_000
  t.true((await cluster.names()).includes('new'))
  t.is(cluster.reads, 1001)
})

test('where the sheep tells all headers in pages, none is asked for by itself', async (t) => {
  const cluster = withVdis(1000)
  cluster.hasHeads = true
  t.is((await cluster.names()).length, 1000)
  t.is(cluster.reads, 0)
  cluster.put(2000, 'new')
  cluster.nowMs += 2_000
  t.is((await cluster.names()).length, 1001)
  t.is(cluster.reads, 1)
})

test('making one VDI through the mount does not cost a look at all the others', async (t) => {
  const cluster = withVdis(1000)
  await cluster.names()
  cluster.put(2000, 'mine')
  await cluster.catalogue.made(vid(2000))
  t.is((await cluster.catalogue.family('mine'))?.working?.vid, vid(2000))
  t.is(cluster.livings, 1)
  cluster.inodes.delete(vid(7))
  cluster.catalogue.changed('vdi-0007')
  t.is(await cluster.catalogue.family('vdi-0007'), undefined)
  t.is(cluster.reads, 1001)
})

test('a snapshot makes its VDI the past of a new one, whoever took it', async (t) => {
  const cluster = withVdis(3)
  await cluster.names()
  cluster.put(2, 'vdi-0002', { snapCtime: 5n as SdTime, snapId: 1, tag: 'before' })
  cluster.put(9, 'vdi-0002', { parent: vid(2), snapId: 2 })
  cluster.nowMs += 2_000
  const family = await cluster.catalogue.family('vdi-0002')
  t.is(family?.working?.vid, vid(9))
  t.deepEqual(
    family?.snapshots.map(({ tag }) => tag),
    ['before'],
  )
})

test('a listing that a change overtakes lacks no name', async (t) => {
  const cluster = withVdis(300)
  cluster.hold()
  const listing = cluster.names()
  await turns()
  cluster.put(2000, 'mine')
  cluster.catalogue.changed('mine')
  cluster.catalogue.changed('vdi-0007')
  cluster.letGo()
  t.is((await listing).length, 301)
})

test('what was made while the cluster was being asked stays known', async (t) => {
  const cluster = withVdis(3)
  await cluster.names()
  cluster.nowMs += 2_000
  let answer = (): void => undefined
  cluster.beforeLiving = new Promise((go) => {
    answer = go
  })
  const listing = cluster.names()
  await turns()
  cluster.put(2000, 'mine')
  await cluster.catalogue.made(vid(2000))
  answer()
  t.true((await listing).includes('mine'))
  t.true((await cluster.names()).includes('mine'))
  cluster.inodes.delete(vid(2000))
  cluster.nowMs += 2_000
  t.false((await cluster.names()).includes('mine'))
})

test('what was read before a change of the same name is not believed after it', async (t) => {
  const cluster = withVdis(3)
  cluster.hold()
  const before = cluster.names()
  await turns()
  cluster.put(2, 'vdi-0002', { snapCtime: 5n as SdTime, snapId: 1, tag: 'mine' })
  cluster.put(9, 'vdi-0002', { parent: vid(2), snapId: 2 })
  cluster.catalogue.changed('vdi-0002')
  cluster.letGo()
  await before
  const family = await cluster.catalogue.family('vdi-0002')
  t.is(family?.working?.vid, vid(9))
  t.is(family?.snapshots.length, 1)
})

test('an id that was given out again has its new name as soon as somebody looks for that', async (t) => {
  const cluster = withVdis(3)
  await cluster.names()
  cluster.put(2, 'another')
  t.is((await cluster.catalogue.family('another'))?.working?.vid, vid(2))
  t.is(await cluster.catalogue.family('vdi-0002'), undefined)
})

test('once a minute all are read again, and nobody waits for it', async (t) => {
  const cluster = withVdis(100)
  await cluster.names()
  cluster.put(5, 'vdi-0005', { tag: 'renamed' })
  cluster.nowMs += 61_000
  cluster.hold()
  t.is((await cluster.names()).length, 100)
  await turns()
  cluster.letGo()
  await turns()
  t.is(cluster.reads, 200)
  cluster.nowMs += 2_000
  t.is((await cluster.catalogue.family('vdi-0005'))?.working?.tag, 'renamed')
})
