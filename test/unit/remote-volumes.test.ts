// Volumes over the sheepdog protocol from outside of the cluster: locks that end with their connection, and I/O that goes on
// at another sheep when one dies. Whole nodes in one process, on virtual time.
import test from 'ava'
import { Code, codeOf } from '../../src/base/codes.js'
import { silentLog } from '../../src/base/log.js'
import { followVdi } from '../../src/remote/following-volume.js'
import { type RemoteVolumes, remoteVolumes } from '../../src/remote/remote-volumes.js'
import type { Volume } from '../../src/volume/volume.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import type { Address, Connection, Network } from '../../src/world/world.js'
import { newVdi, snapshot, vdi, vdiId } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { discard, flush, read, write } from './support/volume-io.js'

const MiB = 1 << 20

/** The network of a process outside: its connections can be ended, and new ones refused. */
class Outside implements Network {
  isCut = false
  readonly #card: Network
  readonly #open = new Set<Connection>()

  constructor(card: Network) {
    this.#card = card
  }

  listen(): never {
    throw new Error('nobody listens outside')
  }

  async connect(to: Address, timeoutMs: number): Promise<Connection> {
    if (this.isCut) throw new Error('connect ENETUNREACH')
    const connection = await this.#card.connect(to, timeoutMs)
    this.#open.add(connection)
    return connection
  }

  cut(): void {
    this.isCut = true
    for (const connection of this.#open) connection.destroy()
    this.#open.clear()
  }
}

interface Remote extends RemoteVolumes {
  readonly network: Outside
}

function remote(cluster: SmallCluster, patienceMs?: number, from = 0): Remote {
  const all = cluster.machines.map(({ self }) => ({ host: self.host, port: self.port }))
  const { clock, dice } = cluster
  const network = new Outside(cluster.outside())
  const random = { below: (limit: number) => dice.below(limit), bytes: Buffer.alloc }
  const addresses = [...all.slice(from), ...all.slice(0, from)]
  const world = { clock, network, random }
  return { ...remoteVolumes({ world, log: silentLog, addresses, patienceMs }), network }
}

async function withDisk(seed = 1): Promise<SmallCluster> {
  const cluster = await SmallCluster.start({ seed })
  const client = await cluster.client(0)
  await newVdi(client, 'Alice', 8 * MiB)
  return cluster
}

/** Comparing large buffers by `deepEqual` takes seconds. */
const holds = (found: Buffer | Code, expected: Buffer): boolean =>
  Buffer.isBuffer(found) && found.equals(expected)

test('what is written from outside is what the cluster has', async (t) => {
  const cluster = await withDisk()
  const volumes = remote(cluster)
  const disk = await volumes.open('Alice')
  t.is(disk.sizeBytes, 8 * MiB)
  const data = Buffer.alloc(3 * MiB, 'a')
  t.is(await write(disk, MiB / 2, data), Code.SUCCESS)
  t.is(await flush(disk), Code.SUCCESS)
  t.true(holds(await read(disk, MiB / 2, 3 * MiB), data))
  t.true(holds(await read(disk, 6 * MiB, MiB), Buffer.alloc(MiB)))
  t.is(await discard(disk, MiB, MiB), Code.SUCCESS)
  t.true(holds(await read(disk, MiB, MiB), Buffer.alloc(MiB)))
  await disk.close()
  const inside = await cluster.source(1).open('Alice')
  t.true(holds(await read(inside, 2 * MiB, MiB), Buffer.alloc(MiB, 'a')))
  volumes.end()
  cluster.close()
})

test('a volume open outside is locked for everybody else, until its process is gone', async (t) => {
  const cluster = await withDisk()
  const volumes = remote(cluster)
  await volumes.open('Alice')
  const other = remote(cluster, undefined, 1)
  const refused = (open: Promise<Volume>) => open.then(() => Code.SUCCESS, codeOf)
  t.is(await refused(other.open('Alice')), Code.VDI_LOCKED)
  t.is(await refused(cluster.source(2).open('Alice')), Code.VDI_LOCKED)
  // The end of the process ends its connections, and nothing else tells the cluster.
  volumes.end()
  t.is(await refused(other.open('Alice')), Code.SUCCESS)
  other.end()
  cluster.close()
})

test('when its sheep dies, I/O goes on at another one, and nothing is lost', async (t) => {
  const cluster = await withDisk(7)
  const volumes = remote(cluster)
  const disk = await volumes.open('Alice')
  t.is(await write(disk, 0, Buffer.alloc(MiB, 'a')), Code.SUCCESS)
  const under = Array.from({ length: 8 }, (_, i) =>
    write(disk, i * MiB + 4096, Buffer.alloc(8192, `${i}`)),
  )
  cluster.kill(0)
  for (const code of await Promise.all(under)) t.is(code, Code.SUCCESS)
  t.is(await flush(disk), Code.SUCCESS)
  for (let i = 0; i < 8; i++) {
    t.true(holds(await read(disk, i * MiB + 4096, 8192), Buffer.alloc(8192, `${i}`)))
  }
  t.true(holds(await read(disk, 0, 4096), Buffer.alloc(4096, 'a')))
  volumes.end()
  cluster.close()
})

test('when it is closed, a read that is under way fails, and nothing comes into its memory any more', async (t) => {
  for (let seed = 20; seed < 25; seed++) {
    const cluster = await withDisk(seed)
    const volumes = remote(cluster)
    const disk = await volumes.open('Alice')
    t.is(await write(disk, 0, Buffer.alloc(4 * MiB, 'a')), Code.SUCCESS)
    const into = Buffer.alloc(4 * MiB)
    const code = new Promise<Code>((done) => disk.read(0, into, done))
    // Each time a little further on: before the first byte, or in the middle of the answer.
    await cluster.clock.sleep(2 * (seed - 20))
    volumes.end()
    if ((await code) === Code.SUCCESS) t.true(into.equals(Buffer.alloc(4 * MiB, 'a')))
    into.fill('z')
    await cluster.clock.sleep(1_000)
    t.true(into.equals(Buffer.alloc(4 * MiB, 'z')), `seed ${seed}`)
    cluster.close()
  }
})

test('who has missed another holder of the volume gets nothing but errors, and no write of his is done', async (t) => {
  const cluster = await withDisk(3)
  const volumes = remote(cluster)
  const disk = await volumes.open('Alice')
  t.is(await write(disk, 0, Buffer.alloc(4096, 'a')), Code.SUCCESS)
  volumes.network.cut()
  const late = write(disk, 0, Buffer.alloc(4096, 'b'))
  const inside = await cluster.source(1).open('Alice')
  t.is(await write(inside, 0, Buffer.alloc(4096, 'c')), Code.SUCCESS)
  await inside.close()
  volumes.network.isCut = false
  t.is(await late, Code.VDI_LOCKED)
  t.is(await read(disk, 0, 4096), Code.VDI_LOCKED)
  await t.throwsAsync(disk.close())
  const again = await volumes.open('Alice')
  t.true(holds(await read(again, 0, 4096), Buffer.alloc(4096, 'c')))
  volumes.end()
  cluster.close()
})

test('a snapshot taken while the volume is open is followed', async (t) => {
  const cluster = await withDisk(5)
  const volumes = remote(cluster)
  const disk = await volumes.open('Alice')
  t.is(await write(disk, 0, Buffer.alloc(8192, 'a')), Code.SUCCESS)
  await snapshot(await cluster.client(1), 'Alice', 'before')
  t.is(await write(disk, 4096, Buffer.alloc(4096, 'b')), Code.SUCCESS)
  t.deepEqual(
    await read(disk, 0, 8192),
    Buffer.concat([Buffer.alloc(4096, 'a'), Buffer.alloc(4096, 'b')]),
  )
  const before = await volumes.open('Alice@before')
  t.true(holds(await read(before, 0, 8192), Buffer.alloc(8192, 'a')))
  t.is((await volumes.list()).length, 2)
  volumes.end()
  cluster.close()
})

test('headers of all volumes come in pages, without the ones that are gone', async (t) => {
  const cluster = await withDisk(11)
  const client = await cluster.client(1)
  for (let i = 0; i < 150; i++) await newVdi(client, `vdi-${i}`, MiB)
  await snapshot(client, 'Alice', 'before')
  await vdi(client, Op.DEL_VDI, 'vdi-7')
  const { access, end } = remote(cluster)
  const found = new Map<number, string>()
  t.true(
    await access.heads(({ vid, name, snapCtime }) => {
      found.set(vid, `${name}${snapCtime === 0n ? '' : '@'}`)
    }),
  )
  t.deepEqual(
    [...found.keys()].sort((a, b) => a - b),
    await access.living(),
  )
  const names = [...found.values()].sort()
  t.is(names.length, 151)
  t.deepEqual(names.slice(0, 2), ['Alice', 'Alice@'])
  t.false(names.includes('vdi-7'))
  end()
  cluster.close()
})

test('I/O waits for a sheep as long as its user has patience, and not longer', async (t) => {
  const cluster = await withDisk(9)
  const volumes = remote(cluster, 10_000)
  const disk = await volumes.open('Alice')
  for (const index of [0, 1, 2]) cluster.kill(index)
  const from = cluster.clock.monotonic()
  t.is(await write(disk, 0, Buffer.alloc(4096, 'a')), Code.NETWORK_ERROR)
  const waitedMs = cluster.clock.monotonic() - from
  t.true(waitedMs >= 9_000 && waitedMs < 13_000, `${waitedMs} ms`)
  volumes.end()
  cluster.close()
})

test('who reads a disk without its lock never gets the bytes of another one of its name', async (t) => {
  const cluster = await withDisk(11)
  const client = await cluster.client(0)
  const volumes = remote(cluster)
  const fill = async (letter: string): Promise<void> => {
    const disk = await cluster.source(1).open('Alice')
    t.is(await write(disk, 0, Buffer.alloc(4096, letter)), Code.SUCCESS)
    await disk.close()
  }
  await fill('a')
  const { volume, isLost } = await followVdi('Alice', volumes.access, cluster.clock)
  t.true(holds(await read(volume, 0, 4096), Buffer.alloc(4096, 'a')))
  await snapshot(client, 'Alice', 'before')
  await fill('b')
  await cluster.clock.sleep(1_500)
  t.true(holds(await read(volume, 0, 4096), Buffer.alloc(4096, 'b')), 'a successor is the same')
  t.is((await vdi(client, Op.DEL_VDI, 'Alice')).result, Code.SUCCESS)
  await newVdi(client, 'Alice', 8 * MiB)
  await fill('c')
  await cluster.clock.sleep(1_500)
  for (const at of [0, 4 * MiB]) t.is(await read(volume, at, 4096), Code.NO_VDI)
  t.true(isLost())
  const again = await followVdi('Alice', volumes.access, cluster.clock)
  t.true(holds(await read(again.volume, 0, 4096), Buffer.alloc(4096, 'c')))
  volumes.end()
  cluster.close()
})

test('a hypervolume is read without its lock, as it grows', async (t) => {
  const cluster = await SmallCluster.start({ seed: 13, totalBytes: 64 * 1024 ** 3 })
  const client = await cluster.client(0)
  const sizeBytes = 2 ** 52
  await vdiId(client, Op.NEW_VDI, 'huge', { sizeBytes, storePolicy: 1 })
  const volumes = remote(cluster)
  const { volume } = await followVdi('huge', volumes.access, cluster.clock)
  t.is(volume.sizeBytes, sizeBytes)
  const disk = await cluster.source(1).open('huge')
  const places = [0, 2 ** 51 + 77, sizeBytes - 4096]
  for (const [i, at] of places.entries()) {
    t.is(await write(disk, at, Buffer.alloc(4096, i + 1)), Code.SUCCESS)
    await cluster.clock.sleep(1_500)
    t.true(holds(await read(volume, at, 4096), Buffer.alloc(4096, i + 1)))
  }
  t.true(holds(await read(volume, 2 ** 50, 4096), Buffer.alloc(4096)))
  const there = volume.extents({ offset: 0, length: sizeBytes }).filter(({ hole }) => !hole)
  t.is(there.length, 3)
  await disk.close()
  volumes.end()
  cluster.close()
})
