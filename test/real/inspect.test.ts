/**
 * Disks as the tools of the day make them: what `inspect` says of them is what blkid and sfdisk say, and what goes through a
 * cluster by import and export comes back the same.
 */
import { open, stat, truncate, writeFile } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import type { ExecutionContext } from 'ava'
import type { DiskView } from '../../src/inspect/disk.js'
import { inspectDisk } from '../../src/inspect/inspect.js'
import { qemuImg } from './support/clients.js'
import { startCluster, type TestCluster } from './support/cluster.js'
import { scratch } from './support/owner.js'
import { DOG } from './support/paths.js'
import { run, start } from './support/run.js'
import { needing } from './support/suite.js'

const MIB = 1024 * 1024
const makersTest = needing(
  ...(['mke2fs', 'mkfs.xfs', 'mkfs.btrfs', 'mkfs.vfat', 'mkfs.exfat', 'mkntfs'] as const),
  ...(['genisoimage', 'mkswap', 'cryptsetup', 'blkid', 'qemu-img'] as const),
)
const transferTest = needing('sfdisk', 'mke2fs', 'mkfs.vfat', 'mkswap', 'qemu-img')

const LUKS = ['luksFormat', '-q', '--pbkdf-force-iterations', '1000', '--key-file', '-']

/** Size in MiB, and the command that makes the file system in a file named last. */
const MAKERS: Readonly<Record<string, readonly [number, ...string[]]>> = {
  ext2: [16, 'mke2fs', '-q', '-t', 'ext2', '-L', 'two'],
  ext3: [32, 'mke2fs', '-q', '-t', 'ext3', '-L', 'three'],
  ext4: [64, 'mke2fs', '-q', '-t', 'ext4', '-L', 'root fs'],
  xfs: [320, 'mkfs.xfs', '-q', '-L', 'xlabel'],
  btrfs: [128, 'mkfs.btrfs', '-q', '-L', 'b label'],
  fat12: [2, 'mkfs.vfat', '-F', '12', '-n', 'TWELVE'],
  fat16: [20, 'mkfs.vfat', '-F', '16', '-n', 'SIXTEEN'],
  fat32: [64, 'mkfs.vfat', '-F', '32', '-n', 'THIRTYTWO'],
  exfat: [32, 'mkfs.exfat', '-L', 'exlabel'],
  ntfs: [16, 'mkntfs', '-q', '-F', '-L', 'n label'],
  swap: [8, 'mkswap', '-L', 'swp'],
  luks1: [32, 'cryptsetup', ...LUKS, '--type', 'luks1'],
  luks2: [32, 'cryptsetup', ...LUKS, '--type', 'luks2', '--pbkdf', 'pbkdf2', '--label', 'lks'],
}

makersTest('type, label and id of every file system are what blkid finds', async (t) => {
  t.timeout(120_000)
  const directory = await scratch(t)
  for (const [name, [mebibytes, ...words]] of Object.entries(MAKERS)) {
    const file = `${directory}/${name}`
    await writeFile(file, '', { mode: 0o600 })
    await truncate(file, mebibytes * MIB)
    await run([...words, file], { input: 'secret' })
    await sameAsBlkid(t, file)
  }
  await writeFile(`${directory}/hello`, 'hello\n')
  const iso = `${directory}/iso`
  await run(['genisoimage', '-quiet', '-J', '-R', '-V', 'An Iso', '-o', iso, `${directory}/hello`])
  await sameAsBlkid(t, iso)
})

async function sameAsBlkid(t: ExecutionContext, file: string): Promise<void> {
  const { stdout } = await run(['blkid', '-p', '-o', 'export', file])
  const told = Object.fromEntries(
    stdout.split('\n').map((line) => line.replace(/\\(.)/g, '$1').split(/=(.*)/s).slice(0, 2)),
  ) as Readonly<Record<string, string>>
  const { content } = await inspected(file)
  const { type, label, uuid, problems, sizeBytes, usedBytes = 0, freeBytes = 0 } = content ?? {}
  t.deepEqual([type, label, uuid], [told.TYPE, told.LABEL ?? '', told.UUID], file)
  t.deepEqual(problems, [], file)
  const { size } = await stat(file)
  t.true((sizeBytes ?? size) <= size && usedBytes + freeBytes <= size, file)
}

async function inspected(file: string): ReturnType<typeof inspectDisk> {
  const handle = await open(file)
  const disk: DiskView = {
    sizeBytes: (await handle.stat()).size,
    read: async (offset, length) =>
      (await handle.read(Buffer.alloc(length), 0, length, offset)).buffer,
  }
  return await inspectDisk(disk).finally(() => handle.close())
}

/** Three file systems in a GPT, as sfdisk and the makers leave them. Returns what sfdisk says of it. */
async function makeDisk(directory: string): Promise<{ file: string; table: SfdiskTable }> {
  const file = `${directory}/disk`
  await writeFile(file, '')
  await truncate(file, 200 * MIB)
  const script = 'label: gpt\nsize=20M,type=U,name=efi\nsize=8M,type=S\ntype=L,name="my root"\n'
  await run(['sfdisk', '-q', file], { input: script })
  const { stdout } = await run(['sfdisk', '--json', file])
  const table = (JSON.parse(stdout) as { partitiontable: SfdiskTable }).partitiontable
  const makers = [
    ['mkfs.vfat', '-n', 'ESP'],
    ['mkswap', '-L', 'swp'],
    ['mke2fs', '-q', '-t', 'ext4', '-L', 'root'],
  ]
  for (const [i, { start, size }] of table.partitions.entries()) {
    const part = `${directory}/part${i}`
    await writeFile(part, '', { mode: 0o600 })
    await truncate(part, size * 512)
    await run([...makers[i]!, part])
    const into = ['conv=notrunc,sparse', 'bs=512k', `seek=${(start * 512) / (512 * 1024)}`]
    await run(['dd', 'status=none', `if=${part}`, `of=${file}`, ...into])
  }
  return { file, table }
}

interface SfdiskTable {
  readonly id: string
  readonly partitions: readonly {
    readonly start: number
    readonly size: number
    readonly type: string
    readonly uuid: string
    readonly name?: string
  }[]
}

interface Told {
  readonly allocatedBytes: number
  readonly table: { readonly id: string; readonly problems: readonly string[] }
  readonly partitions: readonly {
    readonly startBytes: number
    readonly sizeBytes: number
    readonly type: string
    readonly uuid: string
    readonly label: string
    readonly content: { readonly type: string; readonly label: string }
  }[]
}

transferTest(
  'a disk with partitions goes in, is looked at, and comes out in both formats',
  async (t) => {
    t.timeout(120_000)
    const cluster = await startCluster(t, { nodes: 1, copies: 1 })
    const at = (name: string): string => `${cluster.directory}/${name}`
    const { file, table } = await makeDisk(cluster.directory)
    await cluster.dog('vdi import', file, 'Alice', '--verify')
    await qemuImg('compare', '-f', 'raw', '-F', 'raw', file, cluster.uri('Alice'))
    await looksLike(t, cluster, table)

    await cluster.dog('vdi export', 'Alice', at('raw'), '--verify')
    await run(['cmp', file, at('raw')])
    t.true((await stat(at('raw'))).blocks * 512 < 20 * MIB)
    await cluster.dog('vdi export', 'Alice', at('qcow2'), '-O', 'qcow2', '--verify')
    await qemuImg('check', '-f', 'qcow2', at('qcow2'))
    await qemuImg('compare', '-f', 'raw', '-F', 'qcow2', file, at('qcow2'))
    await cluster.dog('vdi import', '-f', 'qcow2', at('qcow2'), 'Bob', '--verify')
    await qemuImg('compare', '-f', 'raw', '-F', 'raw', file, cluster.uri('Bob'))
    await qemuImg('create', '-q', '-f', 'qcow2', '-b', at('raw'), '-F', 'raw', at('backed'))
    const backed = await cluster
      .dogAt(0, 'vdi import', ['-f', 'qcow2', at('backed'), 'Carol'])
      .catch(String)
    t.regex(String(backed), /needs another file/)
  },
)

async function looksLike(
  t: ExecutionContext,
  cluster: TestCluster,
  table: SfdiskTable,
): Promise<void> {
  const { stdout } = await cluster.dog('vdi inspect', 'Alice', '--json')
  const told = JSON.parse(stdout) as Told
  t.is(told.table.id, table.id)
  t.deepEqual(told.table.problems, [])
  t.deepEqual(
    told.partitions.map((one) => [one.startBytes, one.sizeBytes, one.type, one.uuid, one.label]),
    table.partitions.map(({ start, size, type, uuid, name = '' }) => [
      start * 512,
      size * 512,
      type,
      uuid.toLowerCase(),
      name,
    ]),
  )
  t.deepEqual(
    told.partitions.map(({ content }) => [content.type, content.label]),
    [
      ['vfat', 'ESP'],
      ['swap', 'swp'],
      ['ext4', 'root'],
    ],
  )
}

transferTest('SIGINT in the middle of an import leaves no VDI', async (t) => {
  t.timeout(120_000)
  const cluster = await startCluster(t, { nodes: 1, copies: 1 })
  const words = [
    process.execPath,
    DOG,
    'vdi',
    'import',
    '-p',
    `${cluster.node(0).port}`,
    '-',
    'Alice',
  ]
  const importing = start(words, { interactive: true })
  importing.child.stdin?.write(Buffer.alloc(8 * MIB, 'a'))
  const list = async (): Promise<string> => (await cluster.dog('vdi list', '-r')).stdout
  while (!(await list()).includes('Alice')) await pause(50)
  importing.kill('SIGINT')
  const { code, stderr } = await importing.done
  t.is(code, 130)
  t.is(stderr, 'Interrupted\nThe unfinished VDI Alice was removed\n')
  t.is(await list(), '')
})
