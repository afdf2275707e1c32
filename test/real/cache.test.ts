/** The object cache with real daemons: its files, `dog vdi cache`, and what a SIGKILL leaves of it. */
import { constants, existsSync } from 'node:fs'
import { readdir, readFile, readlink } from 'node:fs/promises'
import { asVid, dataOid, inodeOid, type Vid } from '../../src/model/oid.js'
import { SheepClient } from '../../src/peer/client.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectRequest } from '../../src/wire/sheepdog/requests.js'
import { nodeWorld } from '../../src/world/node/world.js'
import { planCluster, type TestCluster } from './support/cluster.js'
import { type Owner, scratch } from './support/owner.js'
import { tryRun, until } from './support/run.js'
import { needing } from './support/suite.js'

const MIB = 1024 * 1024
const OBJECT = 4 * MIB
const WAIT_MS = 40_000
const NO_CACHE = /has no object cache: start it with -w size=S/
const realTest = needing()

interface Wanted {
  readonly options?: string
  readonly objects?: number
}

/** A gateway that caches in front of three nodes that store, and a volume. */
async function withCache(t: Owner, { options = 'size=64M', objects = 2 }: Wanted = {}) {
  const fast = await scratch(t)
  const cluster = await planCluster(t, {
    nodes: 4,
    place: (index) => (index === 0 ? { options: ['-g', '-w', `${options},dir=${fast}`] } : {}),
  })
  await cluster.startAll()
  await cluster.dog('cluster format', '-c', '2')
  await cluster.dogAt(1, 'vdi create', ['Alice', `${4 * objects}M`])
  const input = Buffer.alloc(objects * OBJECT, 1)
  await cluster.dogAt(1, 'vdi write', ['Alice', '0'], { input })
  const { stdout } = await cluster.dog('vdi list', '--json')
  const { vdis } = JSON.parse(stdout) as { vdis: readonly { vid: string }[] }
  const vid = asVid(Number(`0x${vdis[0]!.vid}`))
  return { cluster, vid, fast, cache: `${fast}/cache` }
}

function connect(cluster: TestCluster, index = 0): Promise<SheepClient> {
  const { host, port } = cluster.node(index)
  return SheepClient.connect(nodeWorld(), { host, port })
}

async function put(client: SheepClient, vid: Vid, at: number, data: Buffer): Promise<number> {
  const oid = dataOid(vid, Math.floor(at / OBJECT))
  const flags = Flag.WRITE | Flag.CACHE
  const where = { oid, offset: at % OBJECT, dataLength: data.length }
  return (await client.call(objectRequest({ opcode: Op.WRITE_OBJ, flags, ...where }), data)).result
}

async function info(cluster: TestCluster): Promise<string> {
  return (await cluster.dog('vdi cache', 'info')).stdout
}

/** Writes until the gateway caches the volume. */
async function cached(cluster: TestCluster, client: SheepClient, vid: Vid): Promise<void> {
  await until('the volume in the cache', WAIT_MS, async () => {
    await put(client, vid, 0, Buffer.alloc(4096, 2))
    return (await info(cluster)).includes('Alice')
  })
}

async function readsAt(cluster: TestCluster, index: number, at: number): Promise<number> {
  const { bytes } = await cluster.dogAt(index, 'vdi read', ['Alice', `${at}`, '512'])
  return bytes[0]!
}

realTest('dog shows, flushes, purges and deletes what a gateway has cached', async (t) => {
  const { cluster, vid, cache } = await withCache(t)
  const client = await connect(cluster)
  await cached(cluster, client, vid)
  await cluster.dog('vdi cache', 'flush', 'Alice')
  const table = 'Name\tTag\tTotal\tDirty\tClean\nAlice\t\t4.0 MB\t0.0 MB\t4.0 MB\n'
  t.is(await info(cluster), `${table}\nCache size 64 MB, used 4.0 MB, non-directio\n`)
  const json = JSON.parse((await cluster.dog('vdi cache', 'info', '--json')).stdout)
  t.like(json, { sizeBytes: 64 * MIB, usedBytes: OBJECT, directio: false })
  t.like(json.vdis[0], { name: 'Alice', totalBytes: OBJECT, dirtyBytes: 0 })
  const name = vid.toString(16).padStart(6, '0')
  t.deepEqual(await readdir(`${cache}/${name}`), ['0000000000000000', 'dirty'])
  await cluster.dog('vdi cache', 'purge', '-f')
  const empty = 'Name\tTag\tTotal\tDirty\tClean\n\nCache size 64 MB, used 0.0 MB, non-directio\n'
  t.is(await info(cluster), empty)
  await cluster.dogAt(2, 'vdi cache', ['delete', 'Alice'])
  for (const word of [['info'], ['purge', 'Alice']]) {
    const refusal = { message: NO_CACHE }
    await t.throwsAsync(cluster.dogAt(1, 'vdi cache', word), refusal, word.join(' '))
  }
  client.close()
})

realTest('what a killed gateway had acknowledged is there again when it is back', async (t) => {
  const { cluster, vid, cache } = await withCache(t)
  const client = await connect(cluster)
  await cached(cluster, client, vid)
  t.is(await put(client, vid, OBJECT + 4096, Buffer.alloc(4096, 7)), 0)
  t.is(await put(client, vid, 8192, Buffer.alloc(4096, 8)), 0)
  await cluster.node(0).kill()
  client.close()
  await cluster.members(3, 1)
  await cluster.node(0).start()
  await cluster.members(4)
  t.is(await readsAt(cluster, 0, OBJECT + 4096), 7)
  t.is(await readsAt(cluster, 3, 8192), 8)
  t.false(existsSync(`${cache}/aside`))
})

realTest('an orderly end sends everything, and other nodes see it at once before', async (t) => {
  const { cluster, vid } = await withCache(t)
  const client = await connect(cluster)
  await cached(cluster, client, vid)
  t.is(await put(client, vid, 4096, Buffer.alloc(4096, 9)), 0)
  t.is(await readsAt(cluster, 2, 4096), 9)
  t.is(await put(client, vid, 4096, Buffer.alloc(4096, 10)), 0)
  const flush = await client.call(objectRequest({ opcode: Op.FLUSH_VDI, oid: inodeOid(vid) }))
  t.is(flush.result, 0)
  t.is(await put(client, vid, 4096, Buffer.alloc(4096, 11)), 0)
  client.close()
  t.is((await cluster.node(0).stop())?.code, 0)
  t.is(await readsAt(cluster, 1, 4096), 11)
})

/** Open files of the volume's objects, by whether the kernel has them past its page cache (proc_pid_fdinfo(5)). */
async function openObjects(pid: number, directory: string) {
  const found: { readonly name: string; readonly direct: boolean }[] = []
  for (const fd of await readdir(`/proc/${pid}/fd`)) {
    const path = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')
    if (!path.startsWith(`${directory}/0`)) continue
    const [, flags = ''] = /^flags:\s+(\d+)/m.exec(
      await readFile(`/proc/${pid}/fdinfo/${fd}`, 'latin1'),
    )!
    const direct = (Number.parseInt(flags, 8) & constants.O_DIRECT) !== 0
    found.push({ name: path.slice(directory.length + 1), direct })
  }
  return found
}

realTest(
  'with directio objects are past the page cache, over a flush, a kill and an eviction',
  async (t) => {
    const plan = { options: 'size=10M,directio', objects: 4 }
    const { cluster, vid, fast, cache } = await withCache(t, plan)
    const client = await connect(cluster)
    await cached(cluster, client, vid)
    // Not where the device's blocks begin and end.
    t.is(await put(client, vid, 3 * 512, Buffer.alloc(512, 3)), 0)
    t.is(await put(client, vid, 65_536 - 512, Buffer.alloc(1024, 4)), 0)
    const flush = await client.call(objectRequest({ opcode: Op.FLUSH_VDI, oid: inodeOid(vid) }))
    t.is(flush.result, 0)
    const place = `${cache}/${vid.toString(16).padStart(6, '0')}`
    const objects = await openObjects(cluster.node(0).pid, place)
    t.deepEqual(objects, [{ name: '0000000000000000', direct: true }])
    await cluster.node(0).kill()
    client.close()
    await cluster.members(3, 1)
    for (const at of [3 * 512, 65_536 - 512, 65_536]) {
      t.is(await readsAt(cluster, 1, at), at < 4096 ? 3 : 4, 'flushed')
    }
    await cluster.node(0).start()
    const second = await connect(cluster)
    await cached(cluster, second, vid)
    t.is(await put(second, vid, 5 * 512, Buffer.alloc(512, 5)), 0)
    await cluster.node(0).kill()
    second.close()
    await cluster.members(3, 1)
    await cluster.node(0).start()
    await cluster.members(4)
    const expected = [2, 2, 2, 2, 2, 5]
    for (const [at, value] of expected.entries()) t.is(await readsAt(cluster, 0, at * 512), value)
    t.is(await readsAt(cluster, 0, 65_536), 4)
    // Two objects have room.
    for (const slot of [0, 1, 2, 3, 1]) t.is(await readsAt(cluster, 0, slot * OBJECT + 4096), 1)
    t.regex(await info(cluster), /Cache size 10 MB, used [48]\.0 MB, directio/)
    await cluster.node(1).stop()
    const again = cluster.node(1).command(['-w', `size=64M,dir=${fast}/other,directio`])
    const { code, stderr } = await tryRun(['env', 'SHEEPDOG_WITHOUT=posix', ...again])
    t.is(code, 1)
    t.regex(
      stderr,
      /other\/cache takes no direct I\/O \(ENOTSUP.*native binding.*leave out directio/,
    )
  },
)

realTest('a cache nobody can use is refused before the daemon starts', async (t) => {
  const { cluster, fast } = await withCache(t)
  const start = (word: string) =>
    tryRun(cluster.node(1).command(['-w', word]), { timeoutMs: WAIT_MS })
  for (const [word, reason] of [
    ['size=1M', /size=1M is not from 10M to 4194304G, as in -w size=20G,dir=\/ssd/],
    ['size=20x', /size=20x is not/],
    ['net=4', /'net=4' is none of size=, dir= and directio.*--wq-threads/],
    ['dir=/ssd', /has no size=, as in/],
  ] as const) {
    const { code, stderr } = await start(word)
    t.is(code, 1, word)
    t.regex(stderr, reason)
  }
  await cluster.node(1).stop()
  const { code, stderr } = await start(`size=64M,dir=${fast}`)
  t.is(code, 1)
  t.regex(stderr, /is the object cache of another sheep: give another one/)
})
