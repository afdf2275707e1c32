// `dog vdi lock` against whole sheep in one process.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { dogMain } from '../../src/dog/main.js'
import type { Vid } from '../../src/model/oid.js'
import { vidName } from '../../src/model/oid.js'
import { ClusterFlag, LockType, Op } from '../../src/wire/sheepdog/opcodes.js'
import { NO_IMAGES, RANDOM } from './support/dog-rig.js'
import { clone, newVdi, snapshot, vdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const HEADER = '  Name         Id  VDI id  Tag            Owner node(s)\n'

interface Result {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

async function dog(cluster: SmallCluster, ...words: string[]): Promise<Result> {
  const [stdout, stderr]: [string[], string[]] = [[], []]
  const io = {
    stdout: {
      isTTY: false,
      write: (bytes: Uint8Array) => Promise.resolve(void stdout.push(bytes.toString())),
    },
    stderr: { write: (bytes: Uint8Array) => void stderr.push(bytes.toString()) },
    stdin: (async function* () {})(),
    columns: 80,
    version: 'test',
    resolve: (name: string) => Promise.resolve(name),
    images: NO_IMAGES,
    onInterrupt: () => () => undefined,
    record: () => Promise.resolve(),
  }
  const world = { clock: cluster.clock, network: cluster.card(2), random: RANDOM }
  const status = await dogMain(['vdi', 'lock', ...words], { SHEEPDOG_DOG_PORT: '7002' }, io, world)
  return { status, stdout: stdout.join(''), stderr: stderr.join('') }
}

async function start(flags: number = ClusterFlag.USE_LOCK) {
  const cluster = await SmallCluster.start({ flags })
  const client = await cluster.client(0)
  const lock = async (index: number, name: string, fields = {}): Promise<void> => {
    const { result } = await vdi(await cluster.client(index), Op.LOCK_VDI, name, fields)
    if (result !== Code.SUCCESS) throw new Error(`lock of ${name}: ${result}`)
  }
  return { cluster, client, lock }
}

const row = (start: string, vid: Vid, rest: string): string =>
  `${start}  ${vidName(vid).padStart(6)}${rest}\n`

test('lists each lock as 1.0 does, and as JSON with its kind', async (t) => {
  const { cluster, client, lock } = await start()
  t.deepEqual(await dog(cluster, 'list'), { status: 0, stdout: HEADER, stderr: '' })
  const ac = await newVdi(client, 'ac', 1 << 20)
  await lock(1, 'ac')
  const listed = await dog(cluster, 'list')
  t.is(
    listed.stdout,
    HEADER + row('  ac            0', ac, '                 IPv4 ip:127.0.0.1 port:7001'),
  )
  const two = await newVdi(client, 'two', 1 << 20)
  await lock(2, 'two', { lockType: LockType.SHARED })
  await lock(1, 'two', { lockType: LockType.SHARED })
  const both = await dog(cluster, 'list')
  const shares = ' IPv4 ip:127.0.0.1 port:7002(modified) IPv4 ip:127.0.0.1 port:7001(invalidated)'
  t.true(both.stdout.includes(row('  two           0', two, `                ${shares}`)))
  const { locks } = JSON.parse((await dog(cluster, 'list', '--json')).stdout)
  const named = (name: string) => locks.find((one: { name: string }) => one.name === name)
  t.deepEqual(named('ac'), {
    ...{ name: 'ac', snapshotId: 0, tag: '', vid: vidName(ac), type: 'client' },
    holders: [{ host: '127.0.0.1', port: 7001 }],
  })
  t.is(named('two').type, 'shared')
  t.deepEqual(named('two').holders[1], { host: '127.0.0.1', port: 7001, coherence: 'invalidated' })
  cluster.close()
})

test('snapshots, clones and doors are told from each other', async (t) => {
  const { cluster, client, lock } = await start()
  const base = await newVdi(client, 'base', 1 << 20)
  await snapshot(client, 'base', 'monday')
  await clone(client, base, 'copy')
  await lock(0, 'base', { tag: 'monday' })
  const disk = await cluster.source(0).open('copy')
  const { stdout } = await dog(cluster, 'list')
  t.regex(stdout, /^s base {10}1 {2} *[0-9a-f]+ {2}monday {9}IPv4 ip:127.0.0.1 port:7000$/m)
  t.regex(stdout, /^c copy {10}0 {2} *[0-9a-f]+ {17}IPv4 ip:127.0.0.1 port:7000$/m)
  t.regex((await dog(cluster, 'list', '--json')).stdout, /"type": "door"/)
  const refused = await dog(cluster, 'unlock', 'copy')
  t.is(refused.status, 1)
  t.regex(refused.stderr, /is open at a block door of IPv4 ip:127\.0\.0\.1 port:7000/)
  await disk.close()
  t.is((await dog(cluster, 'unlock', 'base', '-s', 'monday')).status, 0)
  t.is((await dog(cluster, 'list')).stdout, HEADER)
  cluster.close()
})

test('unlock takes client locks and every share away, whoever holds them', async (t) => {
  const { cluster, client, lock } = await start()
  await newVdi(client, 'ac', 1 << 20)
  await newVdi(client, 'two', 1 << 20)
  await lock(1, 'ac')
  await lock(0, 'two', { lockType: LockType.SHARED })
  await lock(1, 'two', { lockType: LockType.SHARED })
  for (const name of ['ac', 'two']) {
    t.deepEqual(await dog(cluster, 'unlock', name), { status: 0, stdout: '', stderr: '' })
  }
  t.is((await dog(cluster, 'list')).stdout, HEADER)
  await lock(2, 'ac')
  await lock(2, 'two')
  cluster.close()
})

test('what is not there or not locked is told as in 1.0', async (t) => {
  const { cluster, client } = await start()
  const vid = vidName(await newVdi(client, 'ac', 1 << 20))
  await snapshot(client, 'ac', 'monday')
  const missing = await dog(cluster, 'unlock', 'nosuch')
  t.deepEqual(missing, {
    status: 1,
    stdout: '',
    stderr: 'Failed to find VDI nosuch: No VDI found\n',
  })
  const by = async (...words: string[]) => (await dog(cluster, 'unlock', 'ac', ...words)).stderr
  t.is(await by('-s', 'monday'), `VDI ac (tag=monday, vid=${vid}) is not locked\n`)
  t.is(await by('-s', '1'), `VDI ac (snapid=1, vid=${vid}) is not locked\n`)
  t.regex(await by(), /^VDI ac \(vid=[0-9a-f]+\) is not locked\n$/)
  const usage = await dog(cluster, 'unlock')
  t.is(usage.status, 64)
  t.regex(
    usage.stdout,
    /^Usage: dog vdi lock unlock \[-s snapshot\] \[-a address\] \[-p port\] \[-h\] \[-T\]/,
  )
  cluster.close()
})

test('the lock of a daemon that died is not listed: it is free', async (t) => {
  const { cluster, client, lock } = await start()
  await newVdi(client, 'ac', 1 << 20)
  await lock(1, 'ac')
  cluster.kill(1)
  await cluster.settle()
  t.is((await dog(cluster, 'list')).stdout, HEADER)
  cluster.close()
})
