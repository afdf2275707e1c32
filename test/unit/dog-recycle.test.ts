// `dog cluster recycle`: ids of deleted VDIs become free at once when they may, and of the others it says why not.
import test, { type ExecutionContext } from 'ava'
import { asVid, dataOid, type Vid, vidName } from '../../src/model/oid.js'
import { ClusterFlag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { decodeKept, encodeKept, type KeptIds } from '../../src/wire/sheepdog/recycling.js'
import { dogOn } from './support/dog-cluster.js'
import { createObject, newVdi, readObject, vdiId } from './support/sheep-wire.js'
import { SmallCluster, type SmallClusterOptions } from './support/small-cluster.js'

const OBJECT = 1 << 20
/** Names of the spec that hash to a03907, a03907 and a03908. */
const [FIRST, SECOND, BEHIND] = ['alice', 'n22680974', 'n16787510'] as const

async function start(t: ExecutionContext, options: SmallClusterOptions = {}) {
  const cluster = await SmallCluster.start({ flags: ClusterFlag.RECYCLE_VID, ...options })
  t.teardown(() => cluster.close())
  return cluster
}

async function make(cluster: SmallCluster, name: string): Promise<Vid> {
  const client = await cluster.client(0)
  const vid = await newVdi(client, name, 4 * OBJECT)
  await createObject(client, dataOid(vid, 0), 0, Buffer.from(name))
  client.close()
  return vid
}

async function remove(cluster: SmallCluster, ...names: string[]): Promise<void> {
  const client = await cluster.client(0)
  for (const name of names) await vdiId(client, Op.DEL_VDI, name)
  client.close()
  await cluster.settle()
}

/** Asked again while objects are being removed. */
async function said(cluster: SmallCluster): Promise<string> {
  for (;;) {
    const { stdout, stderr } = await dogOn(cluster, ['cluster', 'recycle'])
    if (!stderr.includes('The cluster is still recovering')) return stdout + stderr
    await cluster.clock.sleep(100)
  }
}

const stays = (vid: Vid, why: string): string => `${vidName(vid)}: 1 id is taken: ${why}\n`
const FREE = '1 id is free again\n'
const NONE = '0 ids are free again\n'
const RETURNING = ' is busy, or has started less than a minute ago and clients may come back'

test('what nobody may remember is free at once, the rest names who may', async (t) => {
  const cluster = await start(t)
  const [alice, bob] = [await make(cluster, 'Alice'), await make(cluster, 'Bob')]
  const qemu = await cluster.client(2)
  await readObject(qemu, dataOid(alice, 0), 0, 5)
  await remove(cluster, 'Alice', 'Bob')
  const who = cluster.machines[2]!.self
  const refused = `a client of ${who.host}:${who.port} may remember the VDI`
  t.is(await said(cluster), FREE + stays(alice, refused))
  t.false(cluster.node(1).state.vids.isInUse(bob))
  t.true(cluster.node(1).state.vids.isInUse(alice))
  const json = JSON.parse((await dogOn(cluster, ['cluster', 'recycle', '--json'])).stdout)
  const row = { vid: vidName(alice), ids: 1, reason: 'refused', nodes: [`${who.host}:${who.port}`] }
  t.deepEqual(json, { freed: 0, kept: [row] })
  qemu.close()
  t.is(await said(cluster), FREE)
  t.is(await said(cluster), NONE)
  t.is(await make(cluster, 'Alice'), alice)
})

test('a node that is away is named; one that came back waits for clients of what was before', async (t) => {
  const cluster = await start(t, { nodes: 4, copies: 3 })
  const alice = await make(cluster, 'Alice')
  await cluster.settle()
  const { host, port } = cluster.machines[3]!.self
  cluster.kill(3)
  await cluster.settle()
  await remove(cluster, 'Alice')
  const away = `${host}:${port}, away now, may have objects`
  t.is(await said(cluster), NONE + stays(alice, away))
  await cluster.boot(3)
  await cluster.settle()
  const bob = await make(cluster, 'Bob')
  await remove(cluster, 'Bob')
  // Nobody can have connected to an earlier life of the node and know Bob.
  t.is(await said(cluster), FREE + stays(alice, `${host}:${port}${RETURNING}`))
  t.false(cluster.node(3).state.vids.isInUse(bob))
  await cluster.clock.sleep(60_000)
  t.false(cluster.node(3).state.vids.isInUse(alice))
  t.deepEqual(await cluster.copyFaults(), [])
})

test('ids that ids in use are looked for behind stay', async (t) => {
  const cluster = await start(t)
  const first = await make(cluster, FIRST)
  const second = await make(cluster, SECOND)
  await make(cluster, BEHIND)
  t.is(second, asVid(first + 1))
  await remove(cluster, FIRST, SECOND)
  t.is(
    await said(cluster),
    `${NONE}${vidName(first)}: 2 ids are taken: VDIs in use are looked for behind\n`,
  )
  await remove(cluster, BEHIND)
  t.is(await said(cluster), '3 ids are free again\n')
})

test('where ids are not given out again that is what is said', async (t) => {
  const cluster = await start(t, { flags: 0 })
  const { status, stderr } = await dogOn(cluster, ['cluster', 'recycle'])
  t.not(status, 0)
  t.regex(stderr, /formatted without -R/)
})

test('a list comes back as it was, cut to the room there is, and nothing else passes for one', (t) => {
  const kept: KeptIds[] = [
    { vid: asVid(5), ids: 3, why: 'away', who: '127.0.0.1:7000 [::1]:7001' },
    { vid: asVid(0xfffffe), ids: 1, why: 'behind', who: '' },
  ]
  const bytes = encodeKept(kept, 4096)
  t.deepEqual(decodeKept(bytes), kept)
  t.deepEqual(decodeKept(encodeKept(kept, bytes.length - 1)), kept.slice(0, 1))
  t.deepEqual(decodeKept(encodeKept(kept, 0)), [])
  for (let length = 1; length < bytes.length; length++) {
    if (length !== bytes.length - 12)
      t.is(decodeKept(bytes.subarray(0, length)), undefined, `${length}`)
  }
  const wrong = (at: number, value: number): Buffer => {
    const copy = Buffer.from(bytes)
    copy[at] = value
    return copy
  }
  for (const [at, value] of [
    [0, 0],
    [3, 1],
    [8, 9],
    [10, 255],
    [12, 0x1b],
  ] as const) {
    const copy = wrong(at, value)
    t.is(decodeKept(copy), undefined, `${at}`)
  }
})
