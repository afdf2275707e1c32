// Locks of volumes as step functions, and on whole nodes: who gets one, who loses it, and who may write.
import test from 'ava'
import { Code, codeOf } from '../../src/base/codes.js'
import { dataOid, inodeOid, type Vid } from '../../src/model/oid.js'
import {
  decodeVdiState,
  encodeVdiState,
  NAMELESS,
  type NodeId,
  UNLOCKED,
  VDI_STATE_BYTES,
  type VdiLock,
} from '../../src/model/vdi-state.js'
import type { SheepClient } from '../../src/peer/client.js'
import { holders } from '../../src/sheep/lock-keeper.js'
import {
  afterDeparture,
  handedOn,
  invalidated,
  locked,
  released,
  validated,
} from '../../src/sheep/locks.js'
import { ClusterFlag, Flag, LockType, Op } from '../../src/wire/sheepdog/opcodes.js'
import { plainRequest, vdiRequest } from '../../src/wire/sheepdog/requests.js'
import { createObject, newVdi, object, setSlot, snapshot, vdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const OBJECT = 1 << 20
const [A, B, C, D] = [1, 2, 3, 4].map((port) => ({ host: '10.0.0.1', port })) as [
  ...[NodeId, NodeId, NodeId, NodeId],
]

const states = ({ participants }: VdiLock): string[] => participants.map((one) => one.coherence)
const shared = (...nodes: NodeId[]): VdiLock =>
  nodes.reduce((lock, node) => locked(lock, LockType.SHARED, node)!, UNLOCKED)

test('coherence goes as verified with 1.0', (t) => {
  const two = shared(A, B)
  t.deepEqual(states(two), ['modified', 'invalidated'])
  const read = validated(two, B)!
  t.deepEqual(states(read), ['shared', 'shared'])
  t.deepEqual(states(invalidated(read, B)), ['invalidated', 'modified'])
})

test('one that is invalidated stays so when another one reads the inode again', (t) => {
  const three = shared(A, B, C)
  t.deepEqual(states(three), ['modified', 'invalidated', 'invalidated'])
  t.deepEqual(states(validated(three, C)!), ['shared', 'invalidated', 'shared'])
})

test('a change by a node that does not take part makes everybody look again', (t) => {
  t.deepEqual(states(invalidated(validated(shared(A, B), B)!, C)), ['invalidated', 'invalidated'])
})

test('a participant whose daemon died takes part again when it reads the inode', (t) => {
  const left = afterDeparture(shared(A, B), A)
  t.deepEqual(states(left), ['invalidated'])
  t.deepEqual(states(validated(left, A)!), ['invalidated', 'shared'])
  t.deepEqual(states(validated(UNLOCKED, A)!), ['shared'])
  t.is(validated(locked(UNLOCKED, LockType.NORMAL, B)!, A), undefined)
})

test('after a snapshot a participant asks for what it was handed, until it knows it', (t) => {
  const successor = handedOn(shared(A, B))
  const again = locked(successor, LockType.SHARED, B)!
  t.deepEqual(states(again), ['modified', 'invalidated'])
  t.truthy(locked(again, LockType.SHARED, B), 'it has not read the inode yet')
  t.is(locked(validated(again, B)!, LockType.SHARED, B), undefined)
  t.truthy(locked(validated(again, B)!, LockType.SHARED, A), 'A has not noticed yet')
  t.is(locked(locked(again, LockType.SHARED, A)!, LockType.SHARED, A), undefined)
  t.is(locked(invalidated(again, A), LockType.SHARED, A), undefined)
})

test("a dead daemon's lock is free, and whoever takes it shuts its clients out until they ask", (t) => {
  const dead = afterDeparture(locked(UNLOCKED, LockType.NORMAL, A)!, A)
  t.deepEqual(dead, { ...UNLOCKED, former: { node: A, ousted: false }, holder: NAMELESS })
  t.is(locked(dead, LockType.NORMAL, A)!.former, undefined)
  for (const type of [LockType.NORMAL, LockType.DOOR, LockType.SHARED]) {
    const taken = locked(dead, type, B)!
    t.deepEqual(taken.former, { node: A, ousted: true })
    const free = released(taken, type, B)
    t.deepEqual(free, { ...UNLOCKED, former: { node: A, ousted: true }, holder: NAMELESS })
    t.is(locked(free, LockType.NORMAL, A)!.former, undefined)
  }
})

test('a volume record carries who had the lock before and who was handed it, where 1.0 does not look', (t) => {
  const dead = afterDeparture(locked(UNLOCKED, LockType.NORMAL, A)!, A)
  const named = locked(UNLOCKED, LockType.DOOR, B, 4_000_000_000)!
  const cases = [
    dead,
    named,
    released(named, LockType.DOOR, B),
    locked(dead, LockType.DOOR, B)!,
    handedOn(shared(A, B, C)),
    shared(D),
  ]
  for (const lock of cases) {
    const state = {
      ...{ vid: 7 as Vid, copies: 3, policy: 0, blockSizeShift: 22, snapshot: false },
      ...{ deleted: false, parent: 0 as Vid, lock },
    }
    t.deepEqual(decodeVdiState(encodeVdiState(state)), state)
  }
})

test('people are told who holds a lock', (t) => {
  t.is(holders(locked(UNLOCKED, LockType.DOOR, A)!), '10.0.0.1:1 (a block door)')
  t.is(holders(locked(UNLOCKED, LockType.NORMAL, A)!), '10.0.0.1:1 (a client)')
  t.is(holders(shared(A, B)), '10.0.0.1:1 (shared), 10.0.0.1:2 (shared)')
})

async function locking(nodes = 3): Promise<SmallCluster> {
  return SmallCluster.start({ nodes, flags: ClusterFlag.USE_LOCK })
}

async function lock(client: SheepClient, name: string, fields = {}): Promise<number> {
  return (await vdi(client, Op.LOCK_VDI, name, { lockType: LockType.NORMAL, ...fields })).result
}

async function release(client: SheepClient, vid: Vid, lockType = 0): Promise<number> {
  return (await client.call(vdiRequest({ opcode: Op.RELEASE_VDI, base: vid, lockType }))).result
}

async function write(client: SheepClient, vid: Vid, index = 0): Promise<number> {
  return (await object(client, Op.WRITE_OBJ, { oid: dataOid(vid, index) }, Buffer.from('new')))
    .result
}

async function allocate(client: SheepClient, vid: Vid): Promise<void> {
  await createObject(client, dataOid(vid, 0), 0, Buffer.from('old'))
  await setSlot(client, vid, 0, vid)
}

test('a lock is exclusive at every node, for clients and block doors alike, until it is released', async (t) => {
  const cluster = await locking()
  const [one, two] = [await cluster.client(0), await cluster.client(1)]
  const vid = await newVdi(one, 'Alice', 4 * OBJECT)
  t.is(await lock(one, 'Alice'), Code.SUCCESS)
  t.is(await lock(one, 'Alice'), Code.VDI_LOCKED)
  t.is(await lock(two, 'Alice'), Code.VDI_LOCKED)
  t.is(await lock(two, 'Alice', { lockType: LockType.SHARED }), Code.VDI_LOCKED)
  const refused = await t.throwsAsync(cluster.source(2).open('Alice'))
  t.is(codeOf(refused), Code.VDI_LOCKED)
  t.regex(refused!.message, /127\.0\.0\.1:7000 \(a client\)/)
  t.is(await release(two, vid), Code.SUCCESS)
  const disk = await cluster.source(2).open('Alice')
  t.is(await lock(one, 'Alice'), Code.VDI_LOCKED)
  t.is(await release(one, vid), Code.SUCCESS)
  t.is(await lock(one, 'Alice'), Code.VDI_LOCKED, 'a client does not release a door')
  await disk.close()
  t.is(await lock(one, 'Alice'), Code.SUCCESS)
  cluster.close()
})

test('without locking clients do not exclude each other, but nobody writes under a block door', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 2 })
  const client = await cluster.client(0)
  const vid = await newVdi(client, 'Alice', 4 * OBJECT)
  t.is(await lock(client, 'Alice'), Code.SUCCESS)
  t.is(await lock(client, 'Alice'), Code.SUCCESS)
  await allocate(client, vid)
  const disk = await cluster.source(1).open('Alice')
  t.is(await write(client, vid), Code.VDI_LOCKED)
  t.is((await setSlot(client, vid, 0, 0 as Vid)).result, Code.VDI_LOCKED)
  const created = await createObject(client, dataOid(vid, 1), 0, Buffer.alloc(512))
  t.is(created.result, Code.VDI_LOCKED)
  t.is((await vdi(client, Op.DEL_VDI, 'Alice')).result, Code.VDI_LOCKED)
  const successor = await snapshot(client, 'Alice', 'monday')
  t.not(successor, vid, 'a snapshot is no write')
  await disk.close()
  await allocate(client, successor)
  t.is(await write(client, successor), Code.SUCCESS)
  cluster.close()
})

test('a volume that is locked through another node is not deleted', async (t) => {
  const cluster = await locking(2)
  const [one, two] = [await cluster.client(0), await cluster.client(1)]
  await newVdi(one, 'Alice', OBJECT)
  await lock(one, 'Alice')
  t.is((await vdi(two, Op.DEL_VDI, 'Alice')).result, Code.VDI_LOCKED)
  t.is((await vdi(one, Op.DEL_VDI, 'Alice')).result, Code.SUCCESS)
  const vid = await newVdi(one, 'Alice', OBJECT)
  t.false(await isLocked(two, vid), 'its successor in name begins unlocked')
  cluster.close()
})

async function isLocked(client: SheepClient, vid: Vid): Promise<boolean> {
  const all = 64 * VDI_STATE_BYTES
  const { body } = await client.call(plainRequest({ opcode: Op.GET_VDI_COPIES, dataLength: all }))
  for (let at = 0; at < body.length; at += VDI_STATE_BYTES) {
    const state = decodeVdiState(body, at)
    if (state.vid === vid) return state.lock.state !== 'unlocked'
  }
  throw new Error(`no volume ${vid}`)
}

test('a snapshot is locked on its own; the lock of its volume goes on to the successor', async (t) => {
  const cluster = await locking(2)
  const [one, two] = [await cluster.client(0), await cluster.client(1)]
  const vid = await newVdi(one, 'Alice', OBJECT)
  await lock(one, 'Alice')
  const successor = await snapshot(two, 'Alice', 'monday')
  t.false(await isLocked(two, vid))
  t.true(await isLocked(two, successor))
  t.is(await lock(two, 'Alice', { tag: 'monday' }), Code.SUCCESS)
  t.is(await lock(two, 'Alice', { tag: 'monday' }), Code.VDI_LOCKED)
  await release(two, vid)
  t.false(await isLocked(one, vid))
  // It never wrote since, and closes what it knows.
  await release(one, vid)
  t.false(await isLocked(two, successor))
  cluster.close()
})

test('a client that closes a snapshot does not release the volume that somebody else has', async (t) => {
  const cluster = await locking(2)
  const [one, two] = [await cluster.client(0), await cluster.client(1)]
  const vid = await newVdi(one, 'Alice', OBJECT)
  const successor = await snapshot(one, 'Alice', 'monday')
  await lock(one, 'Alice')
  await release(two, vid)
  t.true(await isLocked(one, successor))
  cluster.close()
})

test('the lock of a daemon that dies is free for whoever asks', async (t) => {
  const cluster = await locking()
  const one = await cluster.client(0)
  await newVdi(one, 'Alice', OBJECT)
  t.is(await lock(one, 'Alice'), Code.SUCCESS)
  cluster.kill(0)
  await cluster.settle()
  t.is(await lock(await cluster.client(1), 'Alice'), Code.SUCCESS)
  t.is(await lock(await cluster.client(2), 'Alice'), Code.VDI_LOCKED)
  cluster.close()
})

test('clients that outlive their daemon go on where they were, and hold the volume again', async (t) => {
  const cluster = await locking()
  const one = await cluster.client(0)
  const vid = await newVdi(one, 'Alice', 4 * OBJECT)
  await allocate(one, vid)
  await lock(one, 'Alice')
  cluster.kill(0)
  await cluster.settle()
  await cluster.boot(0)
  await cluster.settle()
  const again = await cluster.client(0)
  const writes = await Promise.all([write(again, vid), write(again, vid), write(again, vid)])
  t.deepEqual(writes, [Code.SUCCESS, Code.SUCCESS, Code.SUCCESS])
  t.is(await lock(await cluster.client(1), 'Alice'), Code.VDI_LOCKED)
  cluster.close()
})

test('clients that outlive their daemon are shut out once somebody else has had the volume', async (t) => {
  const cluster = await locking()
  const one = await cluster.client(0)
  const vid = await newVdi(one, 'Alice', 4 * OBJECT)
  await allocate(one, vid)
  await lock(one, 'Alice')
  cluster.kill(0)
  await cluster.settle()
  const two = await cluster.client(1)
  t.is(await lock(two, 'Alice'), Code.SUCCESS)
  await cluster.boot(0)
  await cluster.settle()
  const again = await cluster.client(0)
  t.is(await write(again, vid), Code.VDI_LOCKED)
  t.is(await write(two, vid), Code.SUCCESS)
  t.is(await release(two, vid), Code.SUCCESS)
  t.is(await write(again, vid), Code.VDI_LOCKED, 'it has missed what was written meanwhile')
  t.is(await lock(again, 'Alice'), Code.SUCCESS)
  t.is(await write(again, vid), Code.SUCCESS)
  cluster.close()
})

test('a joiner that hears everything late ends up with the locks everybody has', async (t) => {
  const late = new Set<number>()
  const cluster = await SmallCluster.start({
    nodes: 2,
    flags: ClusterFlag.USE_LOCK,
    delayMs: ({ port }) => (late.has(port) ? 3000 : 0),
  })
  const client = await cluster.client(0)
  const vid = await newVdi(client, 'Alice', OBJECT)
  await lock(client, 'Alice')
  const index = cluster.addMachine()
  late.add(7002)
  const { joined } = await cluster.launch(index)
  await cluster.clock.until('the join', () => cluster.node(0).state.members.length === 3)
  const successor = await snapshot(client, 'Alice', 'monday')
  t.is(await lock(await cluster.client(1), 'Alice', { tag: 'monday' }), Code.SUCCESS)
  await joined
  await cluster.clock.sleep(60_000)
  const [first, last] = [cluster.node(0).locks, cluster.node(index).locks]
  for (const one of [vid, successor]) t.deepEqual(last.of(one), first.of(one))
  t.deepEqual(first.of(successor).owner?.port, 7000)
  t.deepEqual(first.of(vid).owner?.port, 7001)
  cluster.close()
})

test('a node of 1.0 that joins is told the locks of each volume as of the epoch before', async (t) => {
  const cluster = await locking(2)
  const client = await cluster.client(0)
  const vid = await newVdi(client, 'Alice', OBJECT)
  await lock(client, 'Alice')
  await cluster.boot(cluster.addMachine())
  await release(client, vid)
  const { epoch } = cluster.node(0).state
  const ask = (of: { epoch: number; vid: Vid; room?: number; get?: number }) => {
    const opcode = Op.VDI_STATE_CHECKPOINT_CTL
    const head = plainRequest({ opcode, dataLength: of.room ?? VDI_STATE_BYTES })
    head.writeUInt32LE(of.get ?? 1, 16)
    head.writeUInt32LE(of.epoch, 20)
    head.writeUInt32LE(of.vid, 24)
    return client.call(head)
  }
  const told = await ask({ epoch: epoch - 1, vid })
  t.is(told.result, Code.SUCCESS)
  t.is(decodeVdiState(told.body).lock.owner?.port, 7000)
  t.is((await ask({ epoch: epoch - 1, vid, room: 100 })).result, Code.BUFFER_SMALL)
  const now = await ask({ epoch, vid })
  t.is(decodeVdiState(now.body).lock.state, 'unlocked')
  t.is((await ask({ epoch: epoch - 1, vid: 1 as Vid })).result, Code.NO_CHECKPOINT_ENTRY)
  t.is((await ask({ epoch: epoch - 1, vid, get: 0 })).result, Code.SUCCESS)
  cluster.close()
})

test('reads, and what is written of the inode beside the slots, need no lock', async (t) => {
  const cluster = await locking(2)
  const [one, two] = [await cluster.client(0), await cluster.client(1)]
  const vid = await newVdi(one, 'Alice', OBJECT)
  await cluster.source(0).open('Alice')
  const tag = await object(two, Op.WRITE_OBJ, { oid: inodeOid(vid), offset: 256 }, Buffer.from('x'))
  t.is(tag.result, Code.SUCCESS)
  t.is(
    (await object(two, Op.WRITE_OBJ, { oid: inodeOid(vid) }, Buffer.alloc(4), Flag.DIRECT)).result,
    Code.SUCCESS,
  )
  cluster.close()
})
