// The program around the commands: options, streams, terminals, JSON, and answers no honest sheep
// would give.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { normalise } from '../../src/dog/getopt.js'
import { vdiOption } from '../../src/dog/options.js'
import { progressLine } from '../../src/dog/progress.js'
import { parseSize, sizeText } from '../../src/dog/sizes.js'
import { vidHash } from '../../src/model/hash.js'
import { inodeOid } from '../../src/model/oid.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { setNodeReply } from '../../src/wire/sheepdog/replies.js'
import { runDog } from './support/dog-rig.js'
import { FakeSheep } from './support/fake-sheep.js'

process.env.TZ = 'UTC'

const MIB = 1024 * 1024

function fresh(count = 2): FakeSheep {
  const sheep = new FakeSheep(
    Array.from({ length: count }, (_, i) => ({
      ...{ host: '127.0.0.1', port: 7020 + i, vnodes: 128, zone: i },
      ...{ spaceBytes: 1000 * MIB, freeBytes: 750 * MIB },
    })),
  )
  sheep.nowMs = 1_795_253_998_000
  return sheep
}

async function formatted(): Promise<FakeSheep> {
  const sheep = fresh()
  await runDog(sheep, ['cluster', 'format', '-c', '2'])
  return sheep
}

test('sizes are read as strtod with a suffix reads them', (t) => {
  const sizes: Record<string, number> = {
    '': 0,
    M: MIB,
    '0': 0,
    '4095': 4095,
    '1.5M': 1.5 * MIB,
    '.5k': 512,
    '1.9': 1,
    '1e6': 1_000_000,
    ' 10': 10,
    '+3B': 3,
    '0x100000': MIB,
    '0x10K': 16 * 1024,
    '0x1.8p3': 12,
    '2T': 2 * 1024 ** 4,
    '1P': 1024 ** 5,
  }
  delete sizes.M
  for (const [text, bytes] of Object.entries(sizes)) t.is(parseSize(text), bytes, text)
  t.is(parseSize('M'), 0)
})

test('what is no size is refused: also the numbers that 1.0 took for one', (t) => {
  for (const text of [
    '10MB',
    'x',
    '1 M',
    '10X',
    '-1',
    '-0x1',
    'inf',
    'nan',
    '1e999',
    '0x',
    '+',
    'e5',
  ]) {
    t.throws(() => parseSize(text), { message: /^Invalid size '/ }, text)
  }
})

test('sizes are printed in MB and up, halves rounded to even as printf does', (t) => {
  const texts: [number, string][] = [
    [0, '0.0 MB'],
    [4095, '0.0 MB'],
    [1572864, '1.5 MB'],
    [20 * MIB, '20 MB'],
    [9.97 * MIB, '10.0 MB'],
    [1023.7 * MIB, '1024 MB'],
    [2 ** 54, '16 PB'],
    [0.25 * MIB, '0.2 MB'],
    [0.75 * MIB, '0.8 MB'],
    [12.5 * MIB, '12 MB'],
    [13.5 * MIB, '14 MB'],
  ]
  for (const [bytes, text] of texts) t.is(sizeText(bytes), text)
})

test('the progress bar is the one of 1.0', (t) => {
  const line = progressLine(12 * MIB, 40 * MIB, 100, sizeText)
  const bar = `[=====================>${' '.repeat(48)}] 12 MB / 40 MB`
  t.is(line, `\r${` 30.0 % ${bar}`.padEnd(100)}`)
})

test('GNU spellings of options become plain ones', (t) => {
  const specs = [vdiOption.raw, vdiOption.verbose, vdiOption.port, vdiOption.snapshot]
  const plain = (...args: string[]): string[] => normalise(args, specs).words
  t.deepEqual(plain('a', '-rv', 'b', '-p7', '--sn', 'x'), [
    ...['--raw', '--verbose', '--port=7', '--snapshot=x'],
    ...['--', 'a', 'b'],
  ])
  t.deepEqual(plain('-rp', '7', '--', '-v', '--raw'), ['--raw', '--port=7', '--', '-v', '--raw'])
  t.deepEqual(plain('-s', '-v', '-'), ['--snapshot=-v', '--', '-'])
})

test('complaints about options are those of getopt', (t) => {
  const specs = [vdiOption.raw, vdiOption.reduceIdentical, vdiOption.port]
  const complaint = (...args: string[]): string | undefined => normalise(args, specs).complaint
  t.is(complaint('-Q'), "dog: invalid option -- 'Q'")
  t.is(complaint('-rQ'), "dog: invalid option -- 'Q'")
  t.is(complaint('-1'), "dog: invalid option -- '1'")
  t.is(complaint('-p'), "dog: option requires an argument -- 'p'")
  t.is(complaint('--po'), "dog: option '--port' requires an argument")
  t.is(complaint('--nope=1'), "dog: unrecognized option '--nope=1'")
  t.is(complaint('--raw=1'), "dog: option '--raw' doesn't allow an argument")
  const both = "possibilities: '--raw' '--reduce-identical-snapshots'"
  t.is(complaint('--r'), `dog: option '--r' is ambiguous; ${both}`)
})

test('the overview lists every command; a noun alone lists its own', async (t) => {
  for (const argv of [[], ['help'], ['--help'], ['-h']]) {
    const { status, stdout } = await runDog(fresh(), argv)
    t.is(status, 0)
    t.regex(stdout, /^ {2}vdi create {14}create an image$/m)
  }
  const bare = await runDog(fresh(), ['node', '--help'])
  t.is(bare.status, 64)
  const firstOnes = 'Available node commands:\n  node kill\n  node list\n  node info\n'
  t.true(bare.stderr.startsWith(firstOnes), bare.stderr)
  const wrong = await runDog(fresh(), ['node', 'foo'])
  t.is(wrong.stderr, `Invalid command 'node foo'\n${bare.stderr}`)
})

test('dog tells its version, as every program does', async (t) => {
  for (const argv of [['--version'], ['-V'], ['version']]) {
    const { status, stdout } = await runDog(fresh(), argv)
    t.is(status, 0)
    t.regex(stdout, /^Sheepdog administrator utility \(version \S+\)\n$/)
  }
})

test('stdout comes after stderr when both go to one file, as golden files expect', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'create', 'a', '1M'])
  sheep.objects.delete(inodeOid(vidHash('a')))
  const { merged, status } = await runDog(sheep, ['vdi', 'list'])
  t.is(status, 0)
  const oid = `80${vidHash('a').toString(16).padStart(6, '0')}00000000`
  t.true(
    merged.startsWith(
      `Failed to read object ${oid} No object found\nFailed to read inode header\n  Name`,
    ),
  )
})

test('nobody listens: two attempts, then what the command says to it', async (t) => {
  const twice = 'failed to connect to 127.0.0.1:9: Connection refused\n'.repeat(2)
  const cases: [string[], string, number][] = [
    [['node', 'list'], 'Failed to get node list\n', 2],
    [['vdi', 'list'], '', 2],
    [['cluster', 'shutdown'], 'failed to execute request\n', 1],
    [
      ['vdi', 'delete', 'x'],
      'Failed to open VDI x (snapshot id: 0 snapshot tag: ): I/O error\n',
      1,
    ],
    [['vdi', 'read', 'x'], 'Failed to open VDI x (snapshot id: 0 snapshot tag: ): I/O error\n', 1],
    [['vdi', 'snapshot', 'x'], 'Failed to create snapshot for x: I/O error\n', 1],
  ]
  for (const [argv, words, expected] of cases) {
    const { status, stderr } = await runDog(fresh(), [...argv, '-p', '9'])
    t.is(stderr, `${twice}${words}`)
    t.is(status, expected)
  }
})

test('a cluster waiting for its members has no active sheep', async (t) => {
  const sheep = fresh()
  sheep.answers.set(Op.GET_NODE_LIST, () => ({}))
  const { status, stderr } = await runDog(sheep, ['node', 'list'])
  t.is(stderr, 'There are no active sheep daemons\n')
  t.is(status, 1)
})

test('empty names are refused before anything is asked', async (t) => {
  const sheep = await formatted()
  sheep.requests.length = 0
  const create = await runDog(sheep, ['vdi', 'create', '', '10M'])
  t.is(create.status, 64)
  t.is(create.stderr, 'VDI name must not be empty\n')
  t.is((await runDog(sheep, ['vdi', 'clone', '-s', 'x', 'w', ''])).status, 64)
  t.is(sheep.requests.length, 0)
})

test('on a terminal the working VDI is bold and progress is shown', async (t) => {
  const sheep = await formatted()
  const how = { tty: true, columns: 60 }
  const made = await runDog(sheep, ['vdi', 'create', '-P', 'a', '12M'], how)
  const lines = made.stdout.split('\r').slice(1)
  t.is(lines.length, 4)
  t.is(lines[0], '  0.0 % [>                             ] 0.0 MB / 12 MB'.padEnd(60))
  t.is(lines[3], `${'100.0 % [==============================] 12 MB / 12 MB'.padEnd(60)}\n`)
  t.is((await runDog(sheep, ['vdi', 'tree'], how)).stdout, 'a---\x1b[1m(you are here)\x1b[0m\n')
})

test('the invocation is recorded where the environment says', async (t) => {
  const sheep = await formatted()
  const records: [string, string | undefined][] = []
  const argv = ['vdi', 'list', '-r', 'two']
  await runDog(sheep, argv, { records })
  await runDog(sheep, argv, { records, env: { SHEEPDOG_DOG_LOG: '' } })
  const env = { SHEEPDOG_DOG_LOG: '1', SHEEPDOG_DOG_LOG_PATH: '/var/log/dog' }
  await runDog(sheep, argv, { records, env })
  t.deepEqual(records, [
    ['dog vdi list -r two', undefined],
    ['2026 Nov 21 09:39:58 :  dog vdi list -r two', '/var/log/dog'],
  ])
})

test('node ids are positions in address order, and kill means the same ones', async (t) => {
  const sheep = fresh(3)
  sheep.nodes.reverse()
  const { stdout } = await runDog(sheep, ['node', 'list', '-r'])
  t.is(stdout, '0 127.0.0.1:7020 128 0\n1 127.0.0.1:7021 128 1\n2 127.0.0.1:7022 128 2\n')
  await runDog(sheep, ['node', 'kill', '2'])
  t.deepEqual(
    sheep.nodes.map((one) => one.port),
    [7021, 7020],
  )
})

test('node info: gateways are left out, a silent node is told, volumes are summed up', async (t) => {
  const sheep = await formatted()
  sheep.nodes.push({ ...sheep.nodes[0]!, port: 7029, vnodes: 0 })
  await runDog(sheep, ['vdi', 'create', 'a', '64M'])
  await runDog(sheep, ['vdi', 'snapshot', 'a'])
  sheep.answers.set(Op.STAT_SHEEP, (_request, port) =>
    port === 7020
      ? { result: Code.KILLED }
      : { union: (head) => void setNodeReply(head, { storeBytes: 1000, freeBytes: 1 }) },
  )
  const { status, stdout, stderr } = await runDog(sheep, ['node', 'info', '-r'])
  t.is(stderr, "Response's result: Node is killed\n")
  t.is(stdout, `1 1000 999 1 99%\nTotal 1000 999 1 99% ${64 * MIB}\n`)
  t.is(status, 0)
})

test('--json carries the rows of the tables', async (t) => {
  const sheep = await formatted()
  const json = async (...argv: string[]): Promise<unknown> =>
    JSON.parse((await runDog(sheep, [...argv, '--json'])).stdout)
  const vid = vidHash('a').toString(16)
  const next = (vidHash('a') + 1).toString(16)
  t.deepEqual(await json('vdi', 'create', 'a', '8M'), { name: 'a', vid })
  await runDog(sheep, ['vdi', 'write', 'a'], { stdin: 'x' })
  t.deepEqual(await json('vdi', 'snapshot', 'a', '-s', 't'), {
    ...{ name: 'a', tag: 't', vid: next, snapshotVid: vid },
  })
  const common = { name: 'a', clone: false, sizeBytes: 8 * MIB, createdAt: 1795253998 }
  const format = { redundancy: '2', blockSizeShift: 22 }
  const snapshot = { kind: 'snapshot', snapshotId: 1, tag: 't', vid, parentVid: null }
  const working = { kind: 'working', snapshotId: 0, tag: '', vid: next, parentVid: vid }
  t.deepEqual(await json('vdi', 'list'), {
    vdis: [
      { ...common, ...format, ...snapshot, usedBytes: 4 * MIB, sharedBytes: 0 },
      { ...common, ...format, ...working, usedBytes: 0, sharedBytes: 4 * MIB },
    ],
  })
  t.deepEqual(await json('vdi', 'tree'), {
    families: [
      {
        ...{ ...common, ...format, ...snapshot },
        children: [{ ...common, ...format, ...working, children: [] }],
      },
    ],
  })
  const nodes = [7020, 7021].map((port, id) => ({
    ...{ id, host: '127.0.0.1', port, vnodes: 128, zone: id },
  }))
  t.deepEqual(await json('node', 'list'), { nodes })
  const space = (n: number) => ({
    ...{ sizeBytes: n * 1000 * MIB, usedBytes: n * 250 * MIB, freeBytes: n * 750 * MIB },
  })
  t.deepEqual(await json('node', 'info'), {
    nodes: nodes.map((one) => ({ ...one, ...space(1), sure: true })),
    total: space(2),
    virtualImageBytes: 8 * MIB,
  })
  t.deepEqual(await json('cluster', 'info'), {
    ...{ running: true, status: 'Success', autoRecovery: true, store: 'plain', redundancy: '2' },
    ...{ vnodesStrategy: 'auto', vnodeMode: 'node', missing: [], createdAt: 1795253998 },
    epochs: [{ epoch: 1, time: 1795253998, nodes: nodes.map(({ id: _, ...rest }) => rest) }],
  })
})

test('a long history and many nodes are asked for until they fit', async (t) => {
  const sheep = fresh(40)
  await runDog(sheep, ['cluster', 'format', '-c', '2'])
  for (let i = 0; i < 199; i++) sheep.newEpoch()
  const { stdout } = await runDog(sheep, ['cluster', 'info', '-r', '-d'])
  const rows = stdout.split('\n').slice(2, -1)
  t.is(rows.length, 200)
  t.is(rows[0], '1795253998 200 []')
  t.is(rows[199], '1795253998 1 [formated]')
})

test('prompts share one input; nothing but yes goes on', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'create', 'a', '1M'])
  for (const [stdin, epochs] of [
    ['yes\nno\n', 0],
    ['yes', 0],
    ['y\nyes\n', 0],
    ['yes\nYES please\n', 1],
  ] as const) {
    sheep.requests.length = 0
    const { status } = await runDog(sheep, ['cluster', 'format', '-c', '9'], { stdin })
    t.is(status, 0)
    t.is(sheep.opcodes.filter((opcode) => opcode === Op.MAKE_FS).length, epochs, stdin)
  }
})

test('a redundancy the cluster does not offer is told in its own words', async (t) => {
  const sheep = fresh(3)
  sheep.answers.set(Op.MAKE_FS, () => ({ result: Code.NO_SUPPORT }))
  const { status, stderr } = await runDog(sheep, ['cluster', 'format', '-c', '2:1'])
  t.is(stderr, 'Format failed: Operation is not supported\n')
  t.is(status, 2)
})

test('answers that cannot be right end the command, not in nonsense', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'create', 'a', '1M'])
  sheep.answers.set(Op.GET_NODE_LIST, () => ({
    ...{ body: Buffer.alloc(80), union: (head: Buffer) => void head.writeUInt32LE(6144, 20) },
  }))
  const nodes = await runDog(sheep, ['node', 'list'])
  t.is(nodes.status, 2)
  t.is(nodes.stderr, 'The sheep sent a node list cut short\n')
  sheep.answers.set(Op.READ_VDIS, () => ({ body: Buffer.alloc(7) }))
  const list = await runDog(sheep, ['vdi', 'list'])
  t.is(list.status, 2)
  t.is(list.stderr, 'The sheep sent a volume bitmap of odd length\n')
  // A size that would make us ask for slots without end.
  sheep.objects.get(inodeOid(vidHash('a')))?.write(536, Buffer.from('ffffffffffff0f00', 'hex'))
  const read = await runDog(sheep, ['vdi', 'read', 'a'])
  t.is(read.status, 1)
  t.regex(read.stderr, /: Invalid parameters\n$/)
})

test('a sheep that answers with less than was asked for does not pass for a full read', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'create', 'a', '1M'])
  sheep.answers.set(Op.READ_OBJ, () => ({ body: Buffer.alloc(100) }))
  const { status, stderr } = await runDog(sheep, ['vdi', 'read', 'a'])
  t.is(status, 1)
  t.is(stderr, 'Failed to open VDI a (snapshot id: 0 snapshot tag: ): I/O error\n')
})
