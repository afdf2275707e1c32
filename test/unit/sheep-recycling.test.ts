// RECYCLE_VID: ids of deleted volumes become free again, when nothing of them is left anywhere, and not before.
import test, { type ExecutionContext } from 'ava'
import { Code } from '../../src/base/codes.js'
import { vidHash } from '../../src/model/hash.js'
import type { SdNode } from '../../src/model/node.js'
import { asVid, dataOid, VID_LIMIT, type Vid, vmstateOid } from '../../src/model/oid.js'
import { awaySince } from '../../src/sheep/recyclable.js'
import { ClusterFlag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { recyclingMessage, recyclingQuestion } from '../../src/wire/sheepdog/recycling.js'
import { decodeVdiReply } from '../../src/wire/sheepdog/replies.js'
import { withSeeds } from './support/seeds.js'
import {
  clone,
  createObject,
  newVdi,
  readObject,
  setSlot,
  snapshot,
  vdi,
  vdiId,
} from './support/sheep-wire.js'
import { SmallCluster, type SmallClusterOptions } from './support/small-cluster.js'
import { read, write } from './support/volume-io.js'

const OBJECT = 1 << 20
/** Longer than a node that has come back waits for its clients, and until somebody looks again after refusals. */
const LONG_MS = 400_000
const STEPS_MAX = 80

function start(options: SmallClusterOptions = {}): Promise<SmallCluster> {
  return SmallCluster.start({ flags: ClusterFlag.RECYCLE_VID, ...options })
}

async function onClient<T>(
  cluster: SmallCluster,
  run: (client: Awaited<ReturnType<SmallCluster['client']>>) => Promise<T>,
  index = cluster.up()[0]!,
): Promise<T> {
  const client = await cluster.client(index)
  try {
    return await run(client)
  } finally {
    client.close()
  }
}

/** A volume with some data. */
async function filled(cluster: SmallCluster, name: string, text = name): Promise<Vid> {
  const vid = await onClient(cluster, (client) => newVdi(client, name, 4 * OBJECT))
  const disk = await cluster.source(cluster.up()[0]!).open(name)
  await write(disk, 0, Buffer.from(text))
  await write(disk, 3 * OBJECT, Buffer.from(text))
  await disk.close()
  return vid
}

function remove(cluster: SmallCluster, name: string, tag?: string): Promise<Vid> {
  const fields = tag === undefined ? {} : { tag }
  return onClient(cluster, (client) => vdiId(client, Op.DEL_VDI, name, fields))
}

/** Ids in use, on which all nodes agree. */
function inUse(t: ExecutionContext, cluster: SmallCluster): number[] {
  const lists = cluster.up().map((index) => {
    const { vids } = cluster.node(index).state
    const found: number[] = []
    for (let vid = 0; vid < VID_LIMIT; vid++) {
      if (vids.inUse[vid >>> 3] === 0) vid |= 7
      else if (vids.isInUse(vid)) found.push(vid)
    }
    return found
  })
  for (const list of lists) t.deepEqual(list, lists[0])
  return lists[0]!
}

async function later(cluster: SmallCluster): Promise<void> {
  await cluster.clock.sleep(LONG_MS)
  await cluster.settle()
}

test('the id of a deleted volume is given out again, and nothing of it is left', async (t) => {
  const cluster = await start()
  const alice = await filled(cluster, 'Alice')
  // What nobody names, as clients that died leave it.
  await onClient(cluster, async (client) => {
    await createObject(client, dataOid(alice, 2), 0, Buffer.from('orphan'))
    await createObject(client, vmstateOid(alice, 9), 0, Buffer.from('orphan'))
  })
  await remove(cluster, 'Alice')
  await later(cluster)
  t.deepEqual(inUse(t, cluster), [])
  t.deepEqual(cluster.objects('inode', 'data', 'vmstate', 'ledger'), [])
  t.is(await filled(cluster, 'Alice', 'new'), alice)
  const disk = await cluster.source(1).open('Alice')
  t.deepEqual(await read(disk, 0, 5), Buffer.from('new\0\0'))
  t.deepEqual(await read(disk, 2 * OBJECT, 6), Buffer.alloc(6))
  await disk.close()
  t.deepEqual(await cluster.copyFaults(), [])
  t.deepEqual(cluster.failures(), [])
  cluster.close()
})

test('in a cluster without the flag ids are never given out again', async (t) => {
  const cluster = await start({ flags: 0 })
  const alice = await filled(cluster, 'Alice')
  await remove(cluster, 'Alice')
  await later(cluster)
  t.deepEqual(inUse(t, cluster), [alice])
  cluster.close()
})

test('an id stays taken as long as one of its family lives', async (t) => {
  const cluster = await start()
  const alice = await filled(cluster, 'Alice')
  const next = await onClient(cluster, (client) => snapshot(client, 'Alice', 'first'))
  const bob = await onClient(cluster, (client) => clone(client, alice, 'Bob'))
  await remove(cluster, 'Alice')
  await remove(cluster, 'Alice', 'first')
  await later(cluster)
  t.deepEqual(
    inUse(t, cluster),
    [alice, next, bob].sort((a, b) => a - b),
  )
  const disk = await cluster.source(2).open('Bob')
  t.deepEqual(await read(disk, 0, 5), Buffer.from('Alice'))
  await disk.close()
  await remove(cluster, 'Bob')
  await later(cluster)
  t.deepEqual(inUse(t, cluster), [])
  cluster.close()
})

/** Names of the spec that hash to a03907, a03907 and a03908. */
const [FIRST, SECOND, BEHIND] = ['alice', 'n22680974', 'n16787510'] as const

test('an id that a volume in use is looked for behind stays taken', async (t) => {
  t.is(vidHash(FIRST), vidHash(SECOND))
  const cluster = await start()
  const first = await filled(cluster, FIRST)
  const second = await filled(cluster, SECOND)
  const behind = await filled(cluster, BEHIND)
  t.deepEqual([second, behind], [first + 1, first + 2].map(asVid))
  await remove(cluster, FIRST)
  await remove(cluster, SECOND)
  await later(cluster)
  t.deepEqual(inUse(t, cluster), [first, second, behind])
  for (const index of cluster.up()) {
    const found = await onClient(cluster, (client) => vdi(client, Op.GET_VDI_INFO, BEHIND), index)
    t.is(decodeVdiReply(found).vid, behind)
  }
  await remove(cluster, BEHIND)
  await later(cluster)
  t.deepEqual(inUse(t, cluster), [])
  cluster.close()
})

test('a client that may remember the volume keeps its id from others', async (t) => {
  const cluster = await start()
  const alice = await filled(cluster, 'Alice')
  const qemu = await cluster.client(2)
  await readObject(qemu, dataOid(alice, 0), 0, 5)
  await remove(cluster, 'Alice')
  await later(cluster)
  t.deepEqual(inUse(t, cluster), [alice])
  qemu.close()
  // One that has connected again, and said nothing so far.
  const silent = await cluster.client(1)
  await later(cluster)
  t.deepEqual(inUse(t, cluster), [alice])
  // It asks for a volume by name: what it knows it has from now.
  await vdi(silent, Op.GET_VDI_INFO, 'Alice')
  await later(cluster)
  t.deepEqual(inUse(t, cluster), [])
  cluster.close()
})

test('a snapshot that is open at a block door keeps the ids of its family', async (t) => {
  const cluster = await start()
  const alice = await filled(cluster, 'Alice')
  const next = await onClient(cluster, (client) => snapshot(client, 'Alice', 'first'))
  const open = await cluster.source(2).open('Alice@first')
  await remove(cluster, 'Alice')
  await remove(cluster, 'Alice', 'first')
  await later(cluster)
  t.deepEqual(inUse(t, cluster), [alice, next])
  await open.close()
  await later(cluster)
  t.deepEqual(inUse(t, cluster), [])
  cluster.close()
})

for (const power of [false, true]) {
  test(`nothing becomes free while a node is away that may have something (power: ${power})`, async (t) => {
    const cluster = await start({ nodes: 4, copies: 3 })
    const alice = await filled(cluster, 'Alice', 'old content')
    await cluster.settle()
    cluster.kill(3, { power })
    await cluster.settle()
    await remove(cluster, 'Alice')
    await later(cluster)
    t.deepEqual(inUse(t, cluster), [alice])
    await cluster.boot(3)
    await later(cluster)
    t.deepEqual(inUse(t, cluster), [])
    t.is(await filled(cluster, 'Alice', 'new'), alice)
    cluster.kill(0)
    await cluster.settle()
    const disk = await cluster.source(3).open('Alice')
    t.deepEqual(await read(disk, 0, 11), Buffer.from('new\0\0\0\0\0\0\0\0'))
    await disk.close()
    t.deepEqual(await cluster.copyFaults(), [])
    cluster.close()
  })
}

test('who was a member since a volume was made, and is none now, is named', (t) => {
  const day = 24 * 60 * 60
  const at = (port: number): SdNode => ({
    ...{ host: '127.0.0.1', port, vnodes: 128, zone: port, spaceBytes: 1 },
  })
  const log = new Map([
    [1, { time: 1 * day, nodes: [at(1), at(2), at(3)] }],
    [2, { time: 10 * day, nodes: [at(1), at(2)] }],
    [3, { time: 20 * day, nodes: [at(1)] }],
  ])
  const away = (since: number, ...ports: number[]) =>
    awaySince(since * day, 3, (epoch) => log.get(epoch), ports.map(at))
  t.deepEqual(away(21.5, 1), [])
  // Clocks differ: what was a day before counts as well, and the epoch that was on then.
  t.deepEqual(away(20.5, 1), ['127.0.0.1:2'])
  t.deepEqual(away(12, 1), ['127.0.0.1:2'])
  t.deepEqual(away(10.5, 1), ['127.0.0.1:2', '127.0.0.1:3'])
  t.deepEqual(away(0, 1, 2, 3), [])
  log.delete(2)
  t.deepEqual(away(21.5, 1), [])
  t.is(away(12, 1), undefined)
})

test('nodes may die at any step of it: an id is free on all or on none, and in the end on all', async (t) => {
  for (let step = 1; ; step++) {
    if (step > STEPS_MAX) return t.fail(`more than ${STEPS_MAX} steps`)
    const cluster = await start({ nodes: 3, copies: 3, seed: step })
    const kept = await filled(cluster, 'Bob')
    const alice = await filled(cluster, 'Alice')
    // Somebody remembers it, until all is quiet.
    const qemu = await cluster.client(1)
    await readObject(qemu, dataOid(alice, 0), 0, 5)
    await remove(cluster, 'Alice')
    await cluster.settle()
    await cluster.clock.sleep(30_000)
    t.deepEqual(
      inUse(t, cluster),
      [alice, kept].sort((a, b) => a - b),
    )
    // The first node in order is the one that looks; sometimes another one dies.
    const victim = step % 4 === 3 ? 1 : 0
    let sends = 0
    let isArmed = true
    cluster.card(0).onSend = (to) => {
      if (isArmed && to !== 0 && ++sends === step) cluster.kill(victim, { power: step % 2 === 0 })
    }
    qemu.close()
    await cluster.clock.sleep(LONG_MS)
    isArmed = false
    const isDead = cluster.up().length < 3
    if (isDead) {
      await cluster.settle()
      inUse(t, cluster)
      if (step % 3 === 0) await cluster.cutPower(0.5)
      for (let index = 0; index < 3; index++)
        if (!cluster.up().includes(index)) await cluster.boot(index)
      await later(cluster)
    }
    t.deepEqual(inUse(t, cluster), [kept], `step ${step}`)
    t.is(await filled(cluster, 'Alice', 'new'), alice)
    const disk = await cluster.source(1).open('Bob')
    t.deepEqual(await read(disk, 0, 3), Buffer.from('Bob'))
    await disk.close()
    t.deepEqual(await cluster.copyFaults(), [], `step ${step}`)
    t.deepEqual(cluster.failures(), [])
    cluster.close()
    if (!isDead) return
  }
})

test('no client frees ids, or has them erased', async (t) => {
  const cluster = await start()
  const alice = await filled(cluster, 'Alice')
  await onClient(cluster, async (client) => {
    for (const step of ['erase', 'free'] as const) {
      const { epoch } = cluster.node(0).state
      const forged = recyclingMessage({ step, epoch, serial: 1, vids: [alice] })
      t.is((await client.call(...forged)).result, Code.INVALID_PARMS)
    }
    const question = recyclingQuestion({ serial: 0, vids: [alice] })
    t.is((await client.call(...question)).result, Code.INVALID_PARMS)
  })
  t.deepEqual(inUse(t, cluster), [alice])
  t.deepEqual(await cluster.copyFaults(), [])
  cluster.close()
})

test('of a volume that lives nothing is erased, whoever says so', async (t) => {
  const cluster = await start()
  const alice = await filled(cluster, 'Alice')
  const { ops, state } = cluster.node(1)
  for (const step of ['erase', 'free'] as const) {
    const head = recyclingMessage({ step, epoch: state.epoch, serial: 1, vids: [alice] })
    t.is((await ops.broadcast(...head)).result, Code.AGAIN)
  }
  t.deepEqual(inUse(t, cluster), [alice])
  t.deepEqual(await cluster.copyFaults(), [])
  t.true(cluster.objects('data').length === 2)
  cluster.close()
})

/** What the test knows of one name. */
interface Known {
  working: boolean
  readonly tags: string[]
}

/** Each name's volumes are found by all, and nothing else. */
async function faults(cluster: SmallCluster, names: ReadonlyMap<string, Known>): Promise<string[]> {
  const found: string[] = []
  for (const index of cluster.up()) {
    await onClient(
      cluster,
      async (client) => {
        for (const [name, { working, tags }] of names) {
          const { result } = await vdi(client, Op.GET_VDI_INFO, name)
          if ((result === Code.SUCCESS) !== working) found.push(`${name}: ${result}`)
          for (const tag of tags) {
            const shot = await vdi(client, Op.GET_VDI_INFO, name, { tag })
            if (shot.result !== Code.SUCCESS) found.push(`${name}@${tag}: ${shot.result}`)
          }
        }
      },
      index,
    )
  }
  return found
}

async function change(cluster: SmallCluster, name: string, known: Known): Promise<void> {
  const { dice } = cluster
  const [tag] = known.tags
  if (!known.working && tag !== undefined && dice.chance(0.5)) {
    await remove(cluster, name, tag)
    known.tags.shift()
  } else if (!known.working) {
    await filled(cluster, name)
    known.working = true
  } else if (dice.chance(0.4)) {
    const next = `t${cluster.clock.now()}`
    await onClient(cluster, (client) => snapshot(client, name, next))
    known.tags.push(next)
  } else if (tag !== undefined && dice.chance(0.5)) {
    await remove(cluster, name, tag)
    known.tags.shift()
  } else {
    await remove(cluster, name)
    known.working = false
  }
}

test('O7: whatever ids names are given, the working volume is found as such, and can be written', async (t) => {
  await withSeeds(2, async (seed) => {
    const cluster = await start({ seed })
    const names = new Map(
      [FIRST, SECOND, BEHIND].map((name): [string, Known] => [name, { working: false, tags: [] }]),
    )
    for (let step = 0; step < 20; step++) {
      const name = [FIRST, SECOND, BEHIND][cluster.dice.below(3)]!
      await change(cluster, name, names.get(name)!)
      if (cluster.dice.chance(0.4)) await later(cluster)
      t.deepEqual(await faults(cluster, names), [], `SEED=${seed} step ${step}`)
      if (!names.get(name)!.working) continue
      const disk = await cluster.source(1).open(name)
      t.is(await write(disk, 5, Buffer.from('x')), Code.SUCCESS, `SEED=${seed} step ${step}`)
      await disk.close()
    }
    for (const [name, known] of names) {
      for (const tag of known.tags) await remove(cluster, name, tag)
      if (known.working) await remove(cluster, name)
    }
    await later(cluster)
    t.deepEqual(inUse(t, cluster), [], `SEED=${seed}`)
    t.deepEqual(cluster.objects('inode', 'data', 'ledger'), [], `SEED=${seed}`)
    t.deepEqual(cluster.failures(), [])
    cluster.close()
  })
})

test('O8: slots that are emptied hold nothing afterwards', async (t) => {
  const cluster = await start()
  const alice = await filled(cluster, 'Alice')
  const client = await cluster.client(0)
  const empty = async (times: number): Promise<void> => {
    for (let i = 0; i < times; i++) {
      await setSlot(client, alice, i, alice)
      t.is((await setSlot(client, alice, i, asVid(0))).result, Code.SUCCESS)
    }
    await cluster.settle()
  }
  await empty(50)
  const before = process.memoryUsage().arrayBuffers
  await empty(300)
  const grown = process.memoryUsage().arrayBuffers - before
  // 1.0 keeps two arrays of 4 MiB each time.
  t.true(grown < 64 * OBJECT, `${grown} bytes`)
  t.is(cluster.node(0).reclaim.backlog, 0)
  cluster.close()
})
