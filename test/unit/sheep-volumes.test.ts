// Which volumes there are: ids, lookups by probing, locks, and what is to be done after a crash. No cluster.
import test from 'ava'
import { Code, SheepError } from '../../src/base/codes.js'
import type { Selector } from '../../src/model/access.js'
import { vidHash } from '../../src/model/hash.js'
import type { InodeHeader, SdTime } from '../../src/model/inode.js'
import { encodeInodeHeader } from '../../src/model/inode.js'
import { asVid, type Vid } from '../../src/model/oid.js'
import {
  decodeVdiState,
  encodeVdiState,
  UNLOCKED,
  type VdiState,
} from '../../src/model/vdi-state.js'
import { versionToKeep } from '../../src/sheep/inode-copies.js'
import { exportVolumes, importVolumes } from '../../src/sheep/known-volumes.js'
import { afterDeparture, locked, released } from '../../src/sheep/locks.js'
import { doubles, settlement } from '../../src/sheep/settle.js'
import { lookUp } from '../../src/sheep/vdi-lookup.js'
import { VidTable } from '../../src/sheep/vid-table.js'
import { LockType } from '../../src/wire/sheepdog/opcodes.js'

const working: Selector = { kind: 'working' }
const tag = (name: string): Selector => ({ kind: 'tag', tag: name })
const id = (snapId: number): Selector => ({ kind: 'id', snapId })

function header(vid: number, name: string, part: Partial<InodeHeader> = {}): InodeHeader {
  return {
    ...{ name, tag: '', createTime: 1n as SdTime, snapCtime: 0n as SdTime, vmClockNsec: 0n },
    ...{ sizeBytes: 1 << 22, vmStateBytes: 0n, policy: 0, storePolicy: 0, copies: 2 },
    ...{ blockSizeShift: 22, snapId: 1, vid: asVid(vid), parent: asVid(0), btreeCounter: 0 },
    ...part,
  }
}

const shot = (snapId: number, name = ''): Partial<InodeHeader> => ({
  ...{ snapCtime: 5n as SdTime, snapId, tag: name },
})

function state(vid: number, part: Partial<VdiState> = {}): VdiState {
  return {
    ...{ vid: asVid(vid), copies: 2, policy: 0, blockSizeShift: 22, snapshot: false },
    ...{ deleted: false, parent: asVid(0), lock: UNLOCKED },
    ...part,
  }
}

class Volumes {
  readonly vids = new VidTable()
  readonly headers = new Map<Vid, InodeHeader>()
  reads: Vid[] = []

  add(...headers: InodeHeader[]): this {
    for (const one of headers) {
      this.vids.markInUse(one.vid)
      this.headers.set(one.vid, one)
    }
    return this
  }

  delete(vid: number): this {
    this.vids.markDeleted(asVid(vid))
    const found = this.headers.get(asVid(vid))
    if (found !== undefined) this.headers.set(asVid(vid), { ...found, name: '' })
    return this
  }

  async find(name: string, selector: Selector = working) {
    const read = (vid: Vid): Promise<InodeHeader | undefined> => {
      this.reads.push(vid)
      return Promise.resolve(this.headers.get(vid))
    }
    const { found, code, free, lastSnapshot } = await lookUp(this.vids, read, name, selector)
    return { found: found?.vid, code, free, last: lastSnapshot?.vid } as {
      readonly found: number | undefined
      readonly code: Code
      readonly free: number | undefined
      readonly last: number | undefined
    }
  }
}

test('an unknown name is free at its hash, and nothing is read for it', async (t) => {
  const volumes = new Volumes()
  const found = await volumes.find('alice')
  t.deepEqual(found, { found: undefined, code: Code.NO_VDI, free: 0xa03907, last: undefined })
  t.deepEqual(volumes.reads, [])
})

test('hash 0 begins at 1, and the end of the ids goes on at 1', async (t) => {
  t.deepEqual([Number(vidHash('n10198594')), Number(vidHash('n12175628'))], [0, 0xffffff])
  const volumes = new Volumes()
  t.is((await volumes.find('n10198594')).free, 1)
  volumes.add(header(0xffffff, 'n12175628'))
  t.is((await volumes.find('n21037010')).free, 1)
  volumes.add(header(1, 'n21037010'))
  t.is((await volumes.find('n34124877')).free, 2)
  t.is((await volumes.find('n9500422')).free, 2)
  t.is((await volumes.find('n12175628')).found, 0xffffff)
  t.is((await volumes.find('n21037010')).found, 1)
  // From the newest position to the oldest, across the wrap and never at 0.
  volumes.reads = []
  await volumes.find('n12175628')
  t.deepEqual(volumes.reads.map(Number), [1, 0xffffff])
})

test('the working volume is the highest of its chain; other names lie between', async (t) => {
  const volumes = new Volumes().add(
    header(0xa03907, 'alice', shot(1, 's1')),
    header(0xa03908, 'n16787510'),
    header(0xa03909, 'alice', shot(2)),
    header(0xa0390a, 'alice', { snapId: 3 }),
  )
  t.like(await volumes.find('alice'), { found: 0xa0390a, code: Code.SUCCESS, free: 0xa0390b })
  t.like(await volumes.find('n16787510'), { found: 0xa03908 })
  t.like(await volumes.find('alice', tag('s1')), { found: 0xa03907 })
  t.like(await volumes.find('alice', id(1)), { found: 0xa03907 })
  t.like(await volumes.find('alice', id(2)), { found: 0xa03909 })
  t.like(await volumes.find('alice', id(3)), { found: undefined, code: Code.NO_TAG })
  t.like(await volumes.find('alice', tag('s2')), { code: Code.NO_TAG })
  t.like(await volumes.find('alice', tag('')), { code: Code.NO_TAG })
  t.like(await volumes.find('n22680974', tag('s1')), { code: Code.NO_VDI })
})

test('a deleted volume keeps its id; its snapshots stay and the next one goes on from them', async (t) => {
  const volumes = new Volumes()
    .add(header(0x7c2b25, 'test', shot(1)), header(0x7c2b26, 'test', { snapId: 2 }))
    .delete(0x7c2b26)
  const after = await volumes.find('test')
  t.deepEqual(after, { found: undefined, code: Code.NO_VDI, free: 0x7c2b27, last: 0x7c2b25 })
  t.like(await volumes.find('test', id(1)), { found: 0x7c2b25 })
  volumes.delete(0x7c2b25)
  t.like(await volumes.find('test'), { code: Code.NO_VDI, free: 0x7c2b27, last: undefined })
  t.like(await volumes.find('test', id(1)), { code: Code.NO_VDI })
})

test('an inode that cannot be read ends the lookup instead of being passed over', async (t) => {
  const { vids } = new Volumes().add(header(0xa03907, 'alice'))
  const read = (): Promise<never> => Promise.reject(new SheepError(Code.EIO))
  await t.throwsAsync(lookUp(vids, read, 'alice', working), { instanceOf: SheepError })
})

test('ids: in use, deleted, free', (t) => {
  const vids = new VidTable()
  vids.markInUse(asVid(1))
  vids.markDeleted(asVid(3))
  vids.markInUse(asVid(0xffffff))
  t.deepEqual(vids.living().map(Number), [1, 0xffffff])
  t.deepEqual([vids.isInUse(3), vids.isDeleted(3), vids.isInUse(2)], [true, true, false])
  t.is(Number(vids.firstFree(asVid(1))), 2)
  t.is(Number(vids.firstFree(asVid(0xffffff))), 2)
  vids.inUse.fill(0xff)
  t.is(vids.firstFree(asVid(5)), undefined)
  vids.clear()
  t.deepEqual(vids.living(), [])
})

test('a family is what may name the objects of a volume, over all generations', (t) => {
  const vids = new VidTable()
  for (const [vid, parent] of [
    [1, 0],
    [2, 1],
    [3, 2],
    [4, 1],
    [5, 9],
  ] as const) {
    vids.put(state(vid, { parent: asVid(parent) }))
  }
  const family = (vid: number): number[] => vids.family(asVid(vid)).map(Number).sort()
  t.deepEqual(family(1), [1, 2, 3, 4])
  t.deepEqual(family(2), [2, 3])
  vids.markDeleted(asVid(2))
  t.deepEqual(family(1), [1, 2, 3, 4])
  // Another parent was announced: it moves.
  vids.put(state(3, { parent: asVid(4) }))
  t.deepEqual(family(2), [2])
  t.deepEqual(family(4), [3, 4])
  vids.forget(asVid(4))
  t.deepEqual(family(1), [1, 2])
})

test('what one node tells of its volumes another takes over', (t) => {
  const [from, into] = [new VidTable(), new VidTable()]
  const [alice, bob] = [
    { host: '10.0.0.1', port: 7000 },
    { host: '10.0.0.2', port: 7000 },
  ]
  const lock = locked(UNLOCKED, LockType.DOOR, alice)!
  for (const one of [state(1, { lock }), state(2, { snapshot: true }), state(3)]) {
    from.put(one)
    from.markInUse(one.vid)
  }
  from.markDeleted(asVid(3))
  from.put(state(4))
  importVolumes(into, exportVolumes(from), true)
  t.deepEqual(into.living().map(Number), [1, 2])
  t.true(into.isDeleted(3))
  t.deepEqual(into.get(asVid(1))?.lock, lock)
  t.true(into.get(asVid(2))?.snapshot)
  t.is(into.get(asVid(4)), undefined)
  // Both know from their disks only: once a snapshot or deleted, always.
  const disk = new VidTable()
  disk.put(state(1, { snapshot: true, lock: locked(UNLOCKED, LockType.NORMAL, bob)! }))
  importVolumes(disk, exportVolumes(from), false)
  t.like(disk.get(asVid(1)), { snapshot: true })
  t.deepEqual(disk.get(asVid(1))?.lock.owner, bob)
  t.throws(() => importVolumes(new VidTable(), Buffer.alloc(1428, 0xff), true), {
    instanceOf: RangeError,
  })
  t.deepEqual(decodeVdiState(encodeVdiState(state(1, { lock }))), state(1, { lock }))
})

const [n1, n2, n3] = [1, 2, 3].map((port) => ({ host: '10.0.0.1', port })) as [
  { host: string; port: number },
  { host: string; port: number },
  { host: string; port: number },
]

/** Somebody who gave no name has had it. */
const FREE_AGAIN = { ...UNLOCKED, holder: 1 }

test('a normal lock is held once, and anybody gives it back', (t) => {
  const held = locked(UNLOCKED, LockType.NORMAL, n1)!
  t.like(held, { state: 'locked', owner: n1, door: false })
  for (const type of [LockType.NORMAL, LockType.SHARED, LockType.DOOR]) {
    t.is(locked(held, type, n1), undefined)
    t.is(locked(held, type, n2), undefined)
  }
  t.is(released(held, LockType.SHARED, n1), held)
  t.is(released(held, LockType.DOOR, n1), held)
  t.deepEqual(released(held, LockType.NORMAL, n2), FREE_AGAIN)
  t.is(released(UNLOCKED, LockType.NORMAL, n2), UNLOCKED)
  t.is(afterDeparture(held, n2), held)
})

test("a door's lock is given back by that door alone, and ends with its node", (t) => {
  const held = locked(UNLOCKED, LockType.DOOR, n1)!
  t.true(held.door)
  // QEMU closes a volume it has opened beside the door, through the same node.
  t.is(released(held, LockType.NORMAL, n1), held)
  t.is(released(held, LockType.DOOR, n2), held)
  t.deepEqual(released(held, LockType.DOOR, n1), FREE_AGAIN)
  t.is(afterDeparture(held, n2), held)
  t.deepEqual(afterDeparture(held, n1), FREE_AGAIN)
})

test('a shared lock is joined by other nodes, which begin invalidated or shared', (t) => {
  const one = locked(UNLOCKED, LockType.SHARED, n1)!
  const two = locked(one, LockType.SHARED, n2)!
  t.deepEqual(
    two.participants.map(({ coherence }) => coherence),
    ['modified', 'invalidated'],
  )
  const calm = { ...one, participants: [{ node: n1, coherence: 'shared' as const }] }
  t.is(locked(calm, LockType.SHARED, n2)!.participants[1]!.coherence, 'shared')
  t.is(locked(two, LockType.SHARED, n2), undefined)
  t.is(locked(two, LockType.NORMAL, n3), undefined)
  t.is(released(two, LockType.SHARED, n1).participants.length, 1)
  t.deepEqual(released(two, LockType.SHARED, n3), two)
  t.deepEqual(afterDeparture(afterDeparture(two, n1), n2), FREE_AGAIN)
  let full = UNLOCKED
  for (let port = 1; port <= 31; port++) {
    full = locked(full, LockType.SHARED, { host: '10.0.0.9', port })!
  }
  t.is(locked(full, LockType.SHARED, n1), undefined)
})

test('of two working inodes of a name the younger is a snapshot that never happened', (t) => {
  const old = header(9, 'alice', { snapId: 3 })
  const heir = header(2, 'alice', { snapId: 4 })
  const others = [header(5, 'bob'), header(6, 'alice', shot(2)), header(7, '', { snapId: 9 })]
  t.deepEqual(doubles([heir, ...others, old]), [heir])
  t.deepEqual(doubles([old, ...others]), [])
})

test('what a settlement does about each kind of leftover', (t) => {
  const vids = new VidTable()
  const old = header(1, 'alice')
  const heir = header(2, 'alice', { snapId: 2 })
  const clone = header(3, 'bob')
  const nameless = header(4, '')
  const fine = header(5, 'carol')
  for (const { vid } of [old, nameless, fine]) {
    vids.markInUse(vid)
    vids.put(state(vid, { snapshot: vid === 1 }))
  }
  const all = [old, heir, clone, nameless, fine]
  const found = settlement(vids, all, false)
  t.deepEqual(found, { undo: [heir], adopt: [clone], reopen: [old], deleted: [nameless.vid] })
  // Nobody lived through it: the heir was found on a disk, so it passes for a volume in use.
  vids.markInUse(heir.vid)
  t.deepEqual(settlement(vids, all, true).undo, [heir])
  t.deepEqual(settlement(vids, all, false).undo, [])
})

test('of copies that differ the one before the change that was cut off stays', (t) => {
  const before = encodeInodeHeader(header(1, 'alice'))
  const taken = encodeInodeHeader(header(1, 'alice', shot(1)))
  const gone = encodeInodeHeader(header(1, ''))
  const grown = encodeInodeHeader(header(1, 'alice', { sizeBytes: 1 << 30 }))
  t.is(versionToKeep([taken, before]), before)
  t.is(versionToKeep([gone, before, gone]), before)
  t.is(versionToKeep([gone, taken]), taken)
  t.is(versionToKeep([before, grown]), grown)
  t.is(versionToKeep([taken, grown, gone]), grown)
})
