// The tree of a mount over whole sheep in one process, on virtual time: what a node that was looked up before tells of what has happened
// through the mount since. The kernel keeps nodes for a second, and open ones for as long as they are open.
import test, { type ExecutionContext } from 'ava'
import { Code } from '../../src/base/codes.js'
import { silentLog } from '../../src/base/log.js'
import { remoteVolumes } from '../../src/remote/remote-volumes.js'
import { Catalogue } from '../../src/sheepfs/catalogue.js'
import type { FsContext } from '../../src/sheepfs/context.js'
import { DiskTimes } from '../../src/sheepfs/disk-times.js'
import { Disks } from '../../src/sheepfs/disks.js'
import type { Directory, FileNode, OpenFile } from '../../src/sheepfs/node.js'
import { Remembered } from '../../src/sheepfs/text-file.js'
import { vdisDirectory } from '../../src/sheepfs/vdi-tree.js'
import { newVdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { write } from './support/volume-io.js'

/** Of an object in these clusters. */
const MiB = 1 << 20

interface Mount {
  readonly cluster: SmallCluster
  readonly vdi: Directory
  directory(...path: readonly string[]): Promise<Directory>
  disk(name: string): Promise<FileNode>
}

async function mount(t: ExecutionContext, seed: number): Promise<Mount> {
  const cluster = await SmallCluster.start({ seed })
  const { clock, dice } = cluster
  const random = { below: (limit: number) => dice.below(limit), bytes: Buffer.alloc }
  const volumes = remoteVolumes({
    world: { clock, network: cluster.outside(), random },
    addresses: cluster.machines.map(({ self }) => ({ host: self.host, port: self.port })),
    log: silentLog,
  })
  t.teardown(() => {
    volumes.end()
    cluster.close()
  })
  const times = new DiskTimes(clock)
  const fs: FsContext = {
    ...{ volumes, times, clock, readOnly: false, pageCache: false, sheep: '', mountedMs: 0 },
    catalogue: new Catalogue(volumes.access, clock),
    disks: new Disks({ volumes, clock, log: silentLog, times }),
    remembered: new Remembered(clock),
    attributeKeys: new Map(),
    dog: () => Promise.reject(new Error('nobody asks dog here')),
  }
  const vdi = vdisDirectory(fs, new Map())
  const directory = async (...path: readonly string[]): Promise<Directory> => {
    let at = vdi
    for (const name of path) at = (await at.child(name)) as Directory
    return at
  }
  return {
    ...{ cluster, vdi, directory },
    disk: async (name) => (await (await directory(name)).child('disk.raw')) as FileNode,
  }
}

function writeTo(file: OpenFile, offset: number, data: Buffer): Promise<number> {
  return new Promise((resolve) => file.write!(offset, data, (errno) => void resolve(errno)))
}

const usedOf = async (node: FileNode): Promise<number> => (await node.facts()).allocatedBytes

test('a disk looked up while it was empty has the blocks that were written to it since', async (t) => {
  const at = await mount(t, 1)
  await at.vdi.makeDirectory!('Bob')
  const disk = await at.disk('Bob')
  t.is(await usedOf(disk), 0)
  const file = await disk.open({ writes: true })
  t.is(await writeTo(file, 0, Buffer.alloc(MiB, 'a')), 0)
  t.is(await usedOf(disk), MiB)
  await file.truncate!(64 * MiB)
  t.is(await usedOf(disk), MiB)
  t.is(await writeTo(file, 60 * MiB, Buffer.alloc(4 * MiB, 'a')), 0)
  t.is(await usedOf(disk), 5 * MiB)
  await file.settle!()
  await file.close()
  t.is(await usedOf(disk), 5 * MiB)
  t.is(await usedOf(await at.disk('Bob')), 5 * MiB)
})

test('that a disk has no blocks is never told from memory: others may have written to it', async (t) => {
  const at = await mount(t, 2)
  await newVdi(await at.cluster.client(0), 'Alice', 8 * MiB)
  const disk = await at.disk('Alice')
  t.is(await usedOf(disk), 0)
  const elsewhere = await at.cluster.source(1).open('Alice')
  t.is(await write(elsewhere, 0, Buffer.alloc(4096, 'a')), Code.SUCCESS)
  t.is(await usedOf(disk), MiB)
  await elsewhere.close()
})

test('changes-since/ that was looked up before a snapshot was taken has it', async (t) => {
  const at = await mount(t, 3)
  await newVdi(await at.cluster.client(0), 'Alice', 8 * MiB)
  const changes = await at.directory('Alice', 'changes-since')
  const snapshots = await at.directory('Alice', 'snapshots')
  const disk = await at.disk('Alice')
  const names = async (one: Directory) => (await one.list()).map(({ name }) => name)
  t.deepEqual(await names(changes), [])
  await snapshots.makeDirectory!('before')
  t.deepEqual(await names(changes), ['before.map'])
  t.deepEqual(await names(await at.directory('Alice', 'snapshots', 'before', 'changes-since')), [])
  const file = await disk.open({ writes: true })
  t.is(await writeTo(file, 5 * MiB, Buffer.alloc(4096, 'a')), 0)
  await file.close()
  const map = (await changes.child('before.map')) as FileNode
  const open = await map.open({ writes: false })
  const text = await new Promise<string>((resolve) =>
    open.read(0, 4096, (_errno, data) => resolve(Buffer.from(data).toString())),
  )
  t.deepEqual(JSON.parse(text), [{ start: 5 * MiB, length: MiB }])
})
