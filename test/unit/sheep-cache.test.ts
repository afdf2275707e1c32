// The object cache of a gateway: what is acknowledged is never missed by anybody who looks, wherever he looks, and
// neither applied nor thrown away behind anybody's back after a crash.
import test, { type ExecutionContext } from 'ava'
import { Code } from '../../src/base/codes.js'
import { dataOid, inodeOid, type Vid } from '../../src/model/oid.js'
import type { SheepClient } from '../../src/peer/client.js'
import { syncFile } from '../../src/store/file-io.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectRequest } from '../../src/wire/sheepdog/requests.js'
import { withSeeds } from './support/seeds.js'
import {
  ask,
  createObject,
  newVdi,
  object,
  readObject,
  setSlot,
  snapshot,
  vdi,
} from './support/sheep-wire.js'
import { SmallCluster, type SmallClusterOptions } from './support/small-cluster.js'

const OBJECT = 1 << 20
const BLOCK = OBJECT / 64
const SLOTS = 4
const CACHE = 16 * OBJECT

interface Rig {
  readonly cluster: SmallCluster
  /** Of the node with the cache, and of another one. */
  readonly here: SheepClient
  readonly there: SheepClient
  readonly vid: Vid
}

/** Three nodes, the first of which caches; a volume whose objects exist. */
async function rig(options: SmallClusterOptions = {}): Promise<Rig> {
  const cluster = await SmallCluster.start({
    cacheBytes: (index) => (index === 0 ? CACHE : undefined),
    ...options,
  })
  const here = await cluster.client(0)
  const there = await cluster.client(Math.min(1, cluster.machines.length - 1))
  const vid = await newVdi(here, 'Alice', SLOTS * OBJECT)
  for (let slot = 0; slot < SLOTS; slot++) {
    await createObject(here, dataOid(vid, slot), 0, Buffer.alloc(OBJECT, 1))
    await setSlot(here, vid, slot, vid)
  }
  return { cluster, here, there, vid }
}

function bytes(value: number, length = 4096): Buffer {
  return Buffer.alloc(length, value)
}

async function put(
  client: SheepClient,
  vid: Vid,
  at: number,
  data: Buffer,
  flags: number = Flag.CACHE,
) {
  const oid = dataOid(vid, Math.floor(at / OBJECT))
  return (await object(client, Op.WRITE_OBJ, { oid, offset: at % OBJECT }, data, flags)).result
}

async function get(client: SheepClient, vid: Vid, at: number, flags = 0): Promise<number | string> {
  const oid = dataOid(vid, Math.floor(at / OBJECT))
  const head = { opcode: Op.READ_OBJ, flags, oid, offset: at % OBJECT, dataLength: 4096 }
  const { result, body } = await client.call(objectRequest(head))
  if (result !== Code.SUCCESS) return `read failed with ${result}`
  return body.equals(bytes(body[0]!)) ? body[0]! : 'torn'
}

async function flush(client: SheepClient, vid: Vid) {
  return (await client.call(objectRequest({ opcode: Op.FLUSH_VDI, oid: inodeOid(vid) }))).result
}

/** The first node has the right, and what is written there from now on is cached. */
async function cached({ cluster, here, vid }: Rig): Promise<void> {
  await put(here, vid, 0, bytes(2))
  await cluster.clock.until('the right to cache', () => isHeld(cluster), { limitMs: 60_000 })
}

function isHeld(cluster: SmallCluster): boolean {
  return cluster.logged.some((line) => line.includes('cache.right.taken'))
}

/** What the owners have, whatever is cached. */
async function onOwners(cluster: SmallCluster, vid: Vid, at: number): Promise<number[]> {
  const oid = dataOid(vid, Math.floor(at / OBJECT))
  const found: number[] = []
  for (const index of cluster.up()) {
    const { store } = cluster.node(index)
    if (!store.has(oid)) continue
    const into = Buffer.alloc(1)
    await new Promise((resolve) => store.read(oid, at % OBJECT, into, resolve))
    found.push(into[0]!)
  }
  return found
}

function dirtyOn(cluster: SmallCluster, index = 0): number {
  const volumes = cluster.node(index).cache.info()?.volumes ?? []
  return volumes.reduce((sum, { dirty }) => sum + dirty, 0)
}

function logged(cluster: SmallCluster, event: string): string[] {
  return cluster.logged.filter((line) => line.includes(` ${event} `))
}

async function each(
  t: ExecutionContext,
  count: number,
  run: (rig: Rig) => Promise<void>,
  options = {},
) {
  await withSeeds(count, async (seed) => {
    const made = await rig({ seed, ...options })
    await run(made)
    t.deepEqual(made.cluster.failures(), [])
    made.cluster.close()
  })
}

test('a cached write reaches its owners with the flush, and not before', async (t) => {
  await each(t, 2, async (made) => {
    const { cluster, here, vid } = made
    await cached(made)
    t.is(await put(here, vid, 5 * BLOCK, bytes(7)), Code.SUCCESS)
    t.deepEqual(await onOwners(cluster, vid, 5 * BLOCK), [1, 1])
    t.is(await get(here, vid, 5 * BLOCK), 7)
    t.is(dirtyOn(cluster), 1)
    t.is(await flush(here, vid), Code.SUCCESS)
    t.deepEqual(await onOwners(cluster, vid, 5 * BLOCK), [7, 7])
    t.is(dirtyOn(cluster), 0)
    cluster.kill(0, { power: true })
    t.is(await get(made.there, vid, 5 * BLOCK), 7)
  })
})

test('what stays dirty for seconds is pushed without a flush', async (t) => {
  await each(t, 1, async (made) => {
    const { cluster, here, vid } = made
    await cached(made)
    await put(here, vid, 0, bytes(9))
    await cluster.clock.sleep(10_000)
    t.deepEqual(await onOwners(cluster, vid, 0), [9, 9])
  })
})

test('a write without the cache flag is on stable storage of its owners before the answer', async (t) => {
  await each(t, 1, async (made) => {
    const { cluster, here, vid } = made
    await cached(made)
    t.is(await put(here, vid, BLOCK + 512, bytes(3), 0), Code.SUCCESS)
    t.deepEqual(await onOwners(cluster, vid, BLOCK + 512), [3, 3])
    t.is(await get(here, vid, BLOCK + 512), 3)
    t.is(await put(here, vid, BLOCK + 512, bytes(4), Flag.DIRECT), Code.SUCCESS)
    t.deepEqual(await onOwners(cluster, vid, BLOCK + 512), [4, 4])
    t.is(await get(here, vid, BLOCK + 512, Flag.DIRECT), 4)
  })
})

test('whoever reads through another node sees what the cache has acknowledged', async (t) => {
  await each(t, 2, async (made) => {
    const { cluster, here, there, vid } = made
    await cached(made)
    await put(here, vid, 3 * BLOCK, bytes(5))
    t.is(await get(there, vid, 3 * BLOCK), 5)
    t.is(await put(there, vid, 3 * BLOCK, bytes(6)), Code.SUCCESS)
    t.is(await get(here, vid, 3 * BLOCK, Flag.CACHE), 6)
    t.is(cluster.node(0).state.vids.cachedBy.size, 0)
  })
})

test('a snapshot taken elsewhere has everything that was acknowledged before it', async (t) => {
  await each(t, 2, async (made) => {
    const { cluster, here, there, vid } = made
    await cached(made)
    await put(here, vid, OBJECT + BLOCK, bytes(8))
    const heir = await snapshot(there, 'Alice', 'now')
    t.is(await put(here, vid, OBJECT + BLOCK, bytes(9)), Code.READONLY)
    t.deepEqual(await onOwners(cluster, vid, OBJECT + BLOCK), [8, 8])
    t.is(await get(there, vid, OBJECT + BLOCK), 8)
    t.not(heir, vid)
  })
})

test('a node that joins learns who caches what', async (t) => {
  await each(t, 2, async (made) => {
    const { cluster, here, vid } = made
    await cached(made)
    await put(here, vid, 0, bytes(5))
    const joiner = cluster.addMachine()
    await cluster.boot(joiner)
    const client = await cluster.client(joiner)
    await put(here, vid, BLOCK, bytes(6))
    t.is(await get(client, vid, BLOCK), 6)
    t.is(await get(client, vid, 0), 5)
  })
})

test('what was acknowledged survives the death of the process, if nobody used the volume meanwhile', async (t) => {
  await each(t, 2, async (made) => {
    const { cluster, here, there, vid } = made
    await cached(made)
    for (let slot = 0; slot < SLOTS; slot++) await put(here, vid, slot * OBJECT, bytes(20 + slot))
    t.is(dirtyOn(cluster), SLOTS)
    cluster.kill(0)
    await cluster.clock.sleep(5_000)
    await cluster.boot(0)
    const again = await cluster.client(0)
    t.is(await get(again, vid, OBJECT), 21)
    t.is(await get(there, vid, 2 * OBJECT), 22)
    await cluster.settle()
    t.deepEqual(await onOwners(cluster, vid, 3 * OBJECT), [23, 23])
    t.deepEqual(logged(cluster, 'cache.set-aside'), [])
  })
})

test('after others have used the volume, what the dead one had not flushed is kept aside and told', async (t) => {
  await each(t, 2, async (made) => {
    const { cluster, here, there, vid } = made
    await cached(made)
    await put(here, vid, 0, bytes(30))
    cluster.kill(0)
    t.is(await get(there, vid, 0), 2)
    t.is(await put(there, vid, BLOCK, bytes(31), 0), Code.SUCCESS)
    // Who has used it need not be there any more, nor remember.
    if (cluster.dice.chance(0.5)) {
      await cluster.stop(1)
      await cluster.boot(1)
    }
    await cluster.boot(0)
    const again = await cluster.client(0)
    t.is(await get(again, vid, 0), 2)
    t.is(await get(again, vid, BLOCK), 31)
    t.is(logged(cluster, 'cache.set-aside').length, 1)
    const files = await cluster.machines[0]!.files.readDir('/sheep/cache/aside')
    t.deepEqual(files, [vid.toString(16).padStart(6, '0')])
  })
})

test('after a power cut of the gateway only what was not flushed may be gone', async (t) => {
  await each(t, 2, async (made) => {
    const { cluster, here, vid } = made
    await cached(made)
    await put(here, vid, 0, bytes(40))
    await flush(here, vid)
    await put(here, vid, 0, bytes(41))
    await put(here, vid, OBJECT, bytes(42))
    // The kernel may have written back that blocks are dirty, and not the blocks.
    const { files } = cluster.machines[0]!
    const directory = `/sheep/cache/${vid.toString(16).padStart(6, '0')}`
    await syncFile(files.open(`${directory}/dirty`, { write: true }))
    await files.syncDir(directory)
    cluster.kill(0, { power: true })
    await cluster.boot(0)
    const again = await cluster.client(0)
    t.is(await get(again, vid, 0), 40)
    t.is(await get(again, vid, OBJECT), 1)
    t.is(logged(cluster, 'cache.set-aside').length, 1)
  })
})

test('when every process dies at once, the cache finds what it had acknowledged', async (t) => {
  await each(t, 2, async (made) => {
    const { cluster, here, vid } = made
    await cached(made)
    await put(here, vid, 0, bytes(50))
    await put(here, vid, OBJECT + 5 * BLOCK, bytes(51))
    await cluster.cutPower(0)
    const again = await cluster.client(0)
    t.is(await get(again, vid, 0), 50)
    t.is(await get(again, vid, OBJECT + 5 * BLOCK), 51)
    await flush(again, vid)
    t.deepEqual(await onOwners(cluster, vid, 0), [50, 50])
  })
})

test('an orderly stop leaves nothing behind', async (t) => {
  await each(t, 2, async (made) => {
    const { cluster, here, there, vid } = made
    await cached(made)
    await put(here, vid, 0, bytes(60))
    await cluster.stop(0)
    t.is(await get(there, vid, 0), 60)
    t.deepEqual(logged(cluster, 'cache.left-dirty'), [])
  })
})

test('a shutdown of the cluster takes everything to its owners first', async (t) => {
  await each(t, 2, async (made) => {
    const { cluster, here, there, vid } = made
    await cached(made)
    await put(here, vid, 0, bytes(61))
    await ask(there, Op.SHUTDOWN)
    const isOver = (): boolean => cluster.machines.every(({ process }) => process?.alive === false)
    await cluster.clock.until('the end of all', isOver)
    t.deepEqual(logged(cluster, 'cache.left-dirty'), [])
    cluster.machines[0]!.boots++
    const starts = await Promise.all([0, 1, 2].map((index) => cluster.launch(index)))
    await Promise.all(starts.map(({ joined }) => joined))
    await cluster.settle()
    const again = await cluster.client(1)
    t.is(await get(again, vid, 0), 61)
  })
})

test('delete and purge throw away what was not pushed, and only here', async (t) => {
  await each(t, 2, async (made) => {
    const { cluster, here, there, vid } = made
    await cached(made)
    await flush(here, vid)
    await put(here, vid, 0, bytes(70))
    const purge = { opcode: Op.CACHE_PURGE, oid: inodeOid(vid), flags: Flag.WRITE }
    t.is((await here.call(objectRequest(purge))).result, Code.SUCCESS)
    t.is(await get(here, vid, 0), 2)
    await put(here, vid, 0, bytes(71))
    const drop = { opcode: Op.DELETE_CACHE, oid: inodeOid(vid) }
    t.is((await there.call(objectRequest(drop))).result, Code.SUCCESS)
    await cluster.clock.sleep(1_000)
    t.is(await get(here, vid, 0), 2)
    t.is((await there.call(objectRequest(purge))).result, Code.NO_CACHE)
    t.is(logged(cluster, 'cache.dirty.thrown-away').length, 2)
  })
})

test('a deleted volume takes its cache with it, and a format everything', async (t) => {
  await each(t, 2, async (made) => {
    const { cluster, here, there, vid } = made
    await cached(made)
    await put(here, vid, 0, bytes(80))
    t.is((await vdi(there, Op.DEL_VDI, 'Alice')).result, Code.SUCCESS)
    await cluster.settle()
    t.is(cluster.node(0).cache.info()?.usedBytes, 0)
    t.is(cluster.node(1).state.vids.cachedBy.size, 0)
    const bob = await newVdi(here, 'Bob', OBJECT)
    await createObject(here, dataOid(bob, 0), 0, bytes(1, OBJECT))
    await setSlot(here, bob, 0, bob)
    await put(here, bob, 0, bytes(81))
    await cluster.clock.until(
      'Bob in the cache',
      () => cluster.node(0).state.vids.cachedBy.size > 0,
    )
    await put(here, bob, 0, bytes(82))
    await cluster.format()
    t.is(cluster.node(0).cache.info()?.usedBytes, 0)
    t.is((await readObject(here, dataOid(bob, 0), 0, 512)).result, Code.NO_OBJ)
  })
})
