// `dog vdi export` and `import` between files in memory and whole nodes in one process: bytes, holes, refusals, and what is
// left when something fails on the way.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { dataRuns, firstDifference, type Source } from '../../src/dog/transfer/copy.js'
import { dogOn } from './support/dog-cluster.js'
import { Dice } from './support/fake-cluster.js'
import { MemoryImages } from './support/memory-images.js'
import { withSeeds } from './support/seeds.js'
import { newVdi, snapshot } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { flush, read, write } from './support/volume-io.js'

const MIB = 1024 * 1024

async function start(): Promise<{ cluster: SmallCluster; images: MemoryImages }> {
  return { cluster: await SmallCluster.start({ nodes: 2, copies: 2 }), images: new MemoryImages() }
}

/** What a volume holds, as the cluster's second node sees it. */
async function content(cluster: SmallCluster, name: string): Promise<Buffer> {
  const disk = await cluster.source(1).open(name)
  const bytes = await read(disk, 0, disk.sizeBytes)
  await disk.close()
  if (!Buffer.isBuffer(bytes)) throw new Error(`read: ${bytes}`)
  return bytes
}

const isThere = async (cluster: SmallCluster, name: string): Promise<boolean> =>
  (await dogOn(cluster, ['vdi', 'list', '-r', name])).stdout !== ''

async function* chunks(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

test('a file becomes a VDI and a file again, and its holes stay holes', async (t) => {
  const { cluster, images } = await start()
  const file = images.put('in', 20 * MIB + 1000, [
    [0, Buffer.alloc(3000, 'a')],
    [7 * MIB, Buffer.alloc(2 * MIB, 'b')],
    [15 * MIB, Buffer.alloc(MIB)],
    [20 * MIB + 500, Buffer.alloc(500, 'c')],
  ])
  const came = await dogOn(cluster, ['vdi', 'import', 'in', 'Alice', '--verify'], { images })
  t.is(came.stderr, '')
  t.is(came.status, 0)
  t.true((await content(cluster, 'Alice')).equals(file.bytes.read(0, file.sizeBytes)))
  // 22 objects of 1 MiB: those of zeros, and of holes, are not there.
  const { stdout } = await dogOn(cluster, ['vdi', 'list', '-r', 'Alice'])
  t.deepEqual(stdout.split(' ').slice(3, 5), [`${20 * MIB + 1000}`, `${4 * MIB}`])

  const went = await dogOn(cluster, ['vdi', 'export', 'Alice', 'out', '--verify', '--json'], {
    images,
  })
  t.is(went.stderr, '')
  t.like(JSON.parse(went.stdout), {
    sizeBytes: 20 * MIB + 1000,
    dataBytes: 4096 + 2 * MIB + 1000,
    verified: true,
  })
  const out = images.files.get('out')!
  t.is(out.sizeBytes, file.sizeBytes)
  t.true(out.bytes.read(0, out.sizeBytes).equals(file.bytes.read(0, file.sizeBytes)))
  cluster.close()
})

test('random disks come back as they went, whatever their holes are', async (t) => {
  await withSeeds(6, async (seed) => {
    const { cluster, images } = await start()
    const dice = new Dice(seed)
    const sizeBytes = 1 + dice.below(12 * MIB)
    const parts = Array.from({ length: dice.below(6) }, (_, i): readonly [number, Buffer] => {
      const at = dice.below(sizeBytes)
      const length = Math.min(sizeBytes - at, 1 + dice.below(dice.chance(0.5) ? 5000 : 2 * MIB))
      return [at, Buffer.alloc(length, dice.chance(0.2) ? 0 : i + 1)]
    })
    const file = images.put('in', sizeBytes, parts)
    const whole = file.bytes.read(0, sizeBytes)
    await dogOn(cluster, ['vdi', 'import', 'in', 'a'], { images })
    await dogOn(cluster, ['vdi', 'export', 'a', 'out'], { images })
    const out = images.files.get('out')!
    if (out.sizeBytes !== sizeBytes) throw new Error(`${out.sizeBytes} of ${sizeBytes} bytes`)
    if (!out.bytes.read(0, sizeBytes).equals(whole)) throw new Error('other bytes')
    const { bytes } = await dogOn(cluster, ['vdi', 'export', 'a', '-'])
    if (!bytes.equals(whole)) throw new Error('other bytes on stdout')
    const stdin = chunks(whole, 1 + dice.below(3 * MIB))
    await dogOn(cluster, ['vdi', 'import', '-', 'b', '--verify'], { images, stdin })
    if (!(await content(cluster, 'b')).equals(whole)) throw new Error('other bytes from stdin')
    cluster.close()
  })
  t.pass()
})

test('a stream of unknown length gives a VDI of exactly that length', async (t) => {
  const { cluster } = await start()
  const bytes = Buffer.alloc(5 * MIB + 77, 'x')
  const { stdout } = await dogOn(cluster, ['vdi', 'import', '-', 'Alice', '--json', '--verify'], {
    stdin: chunks(bytes, 100_000),
  })
  t.like(JSON.parse(stdout), { sizeBytes: bytes.length, verified: true })
  t.true((await content(cluster, 'Alice')).equals(bytes))
  await dogOn(cluster, ['vdi', 'import', '-', 'Empty'])
  const list = await dogOn(cluster, ['vdi', 'list', '-r', 'Empty'])
  t.is(list.stdout.split(' ')[3], '0')
  cluster.close()
})

test('a snapshot goes out as it was taken, named in either way', async (t) => {
  const { cluster, images } = await start()
  images.put('old', 2 * MIB, [[0, Buffer.alloc(MIB, 'o')]])
  images.put('new', 2 * MIB, [[0, Buffer.alloc(MIB, 'n')]])
  await dogOn(cluster, ['vdi', 'import', 'old', 'Alice'], { images })
  await snapshot(await cluster.client(0), 'Alice', 'before')
  await dogOn(cluster, ['vdi', 'import', 'new', 'Alice', '--force'], { images })
  for (const words of [
    ['Alice@before'],
    ['Alice@1'],
    ['-s', 'before', 'Alice'],
    ['-s', '1', 'Alice'],
  ]) {
    const { bytes, stderr } = await dogOn(cluster, ['vdi', 'export', ...words, '-'])
    t.is(stderr, '')
    t.is(bytes[0], 'o'.charCodeAt(0), words.join(' '))
  }
  t.is((await content(cluster, 'Alice'))[0], 'n'.charCodeAt(0))
  cluster.close()
})

test('what is there is replaced only when that is said, and then nothing of it remains', async (t) => {
  const { cluster, images } = await start()
  images.put('full', 4 * MIB, [[0, Buffer.alloc(4 * MIB, 'f')]])
  images.put('thin', 2 * MIB, [[MIB, Buffer.alloc(100, 't')]])
  images.put('large', 5 * MIB, [])
  await dogOn(cluster, ['vdi', 'import', 'full', 'Alice'], { images })
  const refused = await dogOn(cluster, ['vdi', 'import', 'thin', 'Alice'], { images })
  t.is(refused.status, 1)
  t.is(refused.stderr, 'VDI Alice exists already; --force replaces its content\n')
  t.true((await content(cluster, 'Alice')).equals(Buffer.alloc(4 * MIB, 'f')))
  const tooLarge = await dogOn(cluster, ['vdi', 'import', 'large', 'Alice', '--force'], { images })
  t.regex(
    tooLarge.stderr,
    /^VDI Alice has 4194304 bytes, and 5242880 are needed\n'dog vdi resize Alice 5242880'/,
  )
  t.true((await content(cluster, 'Alice')).equals(Buffer.alloc(4 * MIB, 'f')))
  t.is((await dogOn(cluster, ['vdi', 'import', 'thin', 'Alice', '--force'], { images })).status, 0)
  const expected = Buffer.alloc(4 * MIB)
  expected.fill('t', MIB, MIB + 100)
  t.true((await content(cluster, 'Alice')).equals(expected))

  const before = images.files.get('full')!
  const kept = await dogOn(cluster, ['vdi', 'export', 'Alice', 'full'], { images })
  t.is(kept.stderr, 'full exists already; --force replaces it\n')
  t.is(images.files.get('full'), before)
  await dogOn(cluster, ['vdi', 'export', 'Alice', 'full', '--force'], { images })
  t.true(
    images.files
      .get('full')!
      .bytes.read(0, 4 * MIB)
      .equals(expected),
  )
  cluster.close()
})

test('an import that is interrupted takes away what it has made', async (t) => {
  const { cluster, images } = await start()
  images.put('in', 40 * MIB, [[0, Buffer.alloc(40 * MIB, 'i')]])
  let stop = (): void => undefined
  images.beforeRead = (offset) => {
    if (offset >= 16 * MIB) stop()
  }
  const { status, stderr } = await dogOn(cluster, ['vdi', 'import', 'in', 'Alice'], {
    images,
    onInterrupt: (given) => {
      stop = given
    },
  })
  t.is(status, 130)
  t.is(stderr, 'Interrupted\nThe unfinished VDI Alice was removed\n')
  t.false(await isThere(cluster, 'Alice'))
  cluster.close()
})

test('an import that waits for input is interrupted at once', async (t) => {
  const { cluster, images } = await start()
  let stop = (): void => undefined
  async function* never(): AsyncGenerator<Buffer> {
    yield Buffer.alloc(5 * MIB, 'a')
    stop()
    await new Promise(() => undefined)
  }
  const { status } = await dogOn(cluster, ['vdi', 'import', '-', 'Alice'], {
    ...{ images, stdin: never() },
    onInterrupt: (given) => {
      stop = given
    },
  })
  t.is(status, 130)
  t.false(await isThere(cluster, 'Alice'))
  cluster.close()
})

test('a file that cannot be read to its end leaves no VDI; over an old one that is said', async (t) => {
  const { cluster, images } = await start()
  images.put('in', 9 * MIB, [[0, Buffer.alloc(9 * MIB, 'i')]])
  images.beforeRead = (offset) => {
    if (offset >= 8 * MIB) throw Object.assign(new Error('EIO'), { code: 'EIO' })
  }
  const fresh = await dogOn(cluster, ['vdi', 'import', 'in', 'Alice'], { images })
  t.is(fresh.status, 2)
  t.is(fresh.stderr, 'in: Input/output error\nThe unfinished VDI Alice was removed\n')
  t.false(await isThere(cluster, 'Alice'))
  await newVdi(await cluster.client(0), 'Bob', 9 * MIB)
  const over = await dogOn(cluster, ['vdi', 'import', 'in', 'Bob', '--force'], { images })
  t.is(over.stderr, 'in: Input/output error\nVDI Bob is incomplete: its old content is gone\n')
  t.true(await isThere(cluster, 'Bob'))
  cluster.close()
})

test('a VDI that does not hold what the file holds does not stay', async (t) => {
  const { cluster, images } = await start()
  const file = images.put('in', 6 * MIB, [[0, Buffer.alloc(6 * MIB, 'i')]])
  let reads = 0
  images.beforeRead = () => {
    // The first bytes, and the two pieces that are copied; then the file changes.
    if (++reads === 4) file.bytes.write(5 * MIB, Buffer.from('changed'))
  }
  const { status, stderr } = await dogOn(cluster, ['vdi', 'import', 'in', 'Alice', '--verify'], {
    images,
  })
  t.is(status, 1)
  t.is(
    stderr,
    'The VDI differs, within 4 MiB from byte 4194304 on\nThe unfinished VDI Alice was removed\n',
  )
  t.false(await isThere(cluster, 'Alice'))
  cluster.close()
})

test('a file that cannot be written to its end is not left behind', async (t) => {
  const { cluster, images } = await start()
  images.put('in', 9 * MIB, [[0, Buffer.alloc(9 * MIB, 'i')]])
  await dogOn(cluster, ['vdi', 'import', 'in', 'Alice'], { images })
  images.beforeWrite = (offset) => {
    if (offset >= 4 * MIB) throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' })
  }
  const { status, stderr } = await dogOn(cluster, ['vdi', 'export', 'Alice', 'out'], { images })
  t.is(status, 2)
  t.is(stderr, 'out: No space left on device\n')
  t.deepEqual([...images.files.keys()], ['in'])
  t.is(images.pending, 0)
  cluster.close()
})

test('an export that is interrupted leaves no file', async (t) => {
  const { cluster, images } = await start()
  images.put('in', 40 * MIB, [[0, Buffer.alloc(40 * MIB, 'i')]])
  await dogOn(cluster, ['vdi', 'import', 'in', 'Alice'], { images })
  let stop = (): void => undefined
  images.beforeWrite = (offset) => {
    if (offset >= 4 * MIB) stop()
  }
  const { status, stderr } = await dogOn(cluster, ['vdi', 'export', 'Alice', 'out'], {
    images,
    onInterrupt: (given) => {
      stop = given
    },
  })
  t.is(status, 130)
  t.is(stderr, 'Interrupted\n')
  t.deepEqual([...images.files.keys()], ['in'])
  cluster.close()
})

test('a disk in use is exported as a snapshot only; nobody changes one that is exported', async (t) => {
  const { cluster, images } = await start()
  images.put('in', 2 * MIB, [[0, Buffer.alloc(MIB, 'i')]])
  await dogOn(cluster, ['vdi', 'import', 'in', 'Alice'], { images })
  const user = await cluster.source(1).open('Alice')
  const refused = await dogOn(cluster, ['vdi', 'export', 'Alice', 'out'], { images })
  t.is(refused.status, 1)
  t.regex(refused.stderr, /locked.*\nA disk in use can be exported as a snapshot of it\n$/)
  await snapshot(await cluster.client(0), 'Alice', 'now')
  t.is(await write(user, 0, Buffer.alloc(MIB, 'z')), Code.SUCCESS)
  t.is(await flush(user), Code.SUCCESS)
  t.is((await dogOn(cluster, ['vdi', 'export', 'Alice@now', 'out'], { images })).status, 0)
  t.is(images.files.get('out')!.bytes.read(0, 1)[0], 'i'.charCodeAt(0))
  await user.close()
  cluster.close()
})

test('what begins as a qcow2 image is taken for a raw disk only when that is said', async (t) => {
  const { cluster, images } = await start()
  images.put('in', MIB, [[0, Buffer.from('QFI\xfb', 'latin1')]])
  const guessed = await dogOn(cluster, ['vdi', 'import', 'in', 'Alice'], { images })
  t.is(guessed.status, 1)
  t.regex(guessed.stderr, /^in begins as a qcow2 image does\n/)
  t.false(await isThere(cluster, 'Alice'))
  t.is((await dogOn(cluster, ['vdi', 'import', '-f', 'raw', 'in', 'Alice'], { images })).status, 0)
  cluster.close()
})

test('without qemu-img other formats are refused with the remedy', async (t) => {
  const { cluster, images } = await start()
  images.put('in', MIB, [])
  const { status, stderr } = await dogOn(cluster, ['vdi', 'import', '-f', 'qcow2', 'in', 'Alice'], {
    images,
  })
  t.is(status, 1)
  t.regex(stderr, /^qemu-img is not installed, .*\n.*qemu-utils\n$/)
  t.false(await isThere(cluster, 'Alice'))
  cluster.close()
})

test('what cannot be asked for is refused before anything is done', async (t) => {
  const { cluster, images } = await start()
  const cases: readonly (readonly [readonly string[], RegExp, number])[] = [
    [['export', 'Alice'], /^Please specify the file, or - for stdout/, 64],
    [['export', '-O', 'qcow2', 'Alice', '-'], /^Only raw can go to stdout/, 64],
    [['export', '--verify', 'Alice', '-'], /^What went to stdout cannot be compared/, 64],
    [['export', '-O', 'vmdk', 'Alice', 'x'], /^Unknown format 'vmdk'/, 64],
    [['export', 'Nobody', 'x'], /^Failed to open VDI Nobody .*No VDI found/, 1],
    [['import', 'x'], /^Please specify the name of the VDI/, 64],
    [['import', 'x', 'Alice'], /^x: No such file or directory/, 2],
    [['import', '-f', 'qcow2', '-', 'Alice'], /^qcow2 cannot be read from stdin/, 64],
  ]
  for (const [words, expected, exit] of cases) {
    const { status, stderr } = await dogOn(cluster, ['vdi', ...words], { images })
    t.regex(stderr, expected)
    t.is(status, exit, words.join(' '))
  }
  t.is(images.files.size, 0)
  cluster.close()
})

test('a file as a hypervolume comes back the same', async (t) => {
  const { cluster, images } = await start()
  const file = images.put('in', 9 * MIB, [[5 * MIB, Buffer.alloc(2 * MIB, 'h')]])
  t.is(
    (await dogOn(cluster, ['vdi', 'import', '-y', 'in', 'Huge', '--verify'], { images })).stderr,
    '',
  )
  const { bytes } = await dogOn(cluster, ['vdi', 'read', 'Huge'])
  t.true(bytes.equals(file.bytes.read(0, file.sizeBytes)))
  cluster.close()
})

test('runs of data are told from zeros in units of the grain', (t) => {
  const bytes = Buffer.alloc(40)
  bytes[9] = 1
  bytes[16] = 1
  bytes[39] = 1
  t.deepEqual(
    [...dataRuns(bytes, 8)],
    [
      { start: 8, end: 24 },
      { start: 32, end: 40 },
    ],
  )
  t.deepEqual([...dataRuns(bytes, 0)], [{ start: 0, end: 40 }])
  t.deepEqual([...dataRuns(Buffer.alloc(40), 8)], [])
  t.deepEqual([...dataRuns(bytes, 32)], [{ start: 0, end: 40 }])
})

test('a difference is found wherever only one side has data, and zeros equal holes', async (t) => {
  const source = (sizeBytes: number, at: number, bytes: Buffer): Source => ({
    sizeBytes,
    nextData: (from) =>
      from < at + bytes.length ? { start: Math.max(from, at), end: at + bytes.length } : undefined,
    read: (offset, length) => {
      const all = Buffer.alloc(sizeBytes)
      bytes.copy(all, at)
      return Promise.resolve(all.subarray(offset, offset + length))
    },
  })
  const { signal } = new AbortController()
  const empty = source(20 * MIB, 0, Buffer.alloc(0))
  const late = source(20 * MIB, 13 * MIB, Buffer.from('x'))
  t.is(await firstDifference(empty, late, signal), 12 * MIB)
  t.is(await firstDifference(late, empty, signal), 12 * MIB)
  t.is(await firstDifference(late, late, signal), undefined)
  t.is(await firstDifference(empty, source(20 * MIB, MIB, Buffer.alloc(10)), signal), undefined)
  t.is(await firstDifference(source(MIB, 0, Buffer.alloc(1)), empty, signal), undefined)
  t.is(await firstDifference(source(MIB, 0, Buffer.alloc(1)), late, signal), 12 * MIB)
})

test('a hypervolume is written in place, by one at a time, and gives back what it was given', async (t) => {
  const { cluster } = await start()
  await dogOn(cluster, ['vdi', 'create', '-y', 'Huge', '6T'])
  const data = Buffer.alloc(9 * MIB + 7, 'w')
  const at = `${5 * 2 ** 40 - 3}`
  const stdin = (): AsyncGenerator<Buffer> => chunks(data, 1_000_000)
  const wrote = await dogOn(cluster, ['vdi', 'write', 'Huge', at], { stdin: stdin() })
  t.is(wrote.stderr, '')
  t.is(wrote.status, 0)
  const { bytes } = await dogOn(cluster, ['vdi', 'read', 'Huge', at, `${data.length + 5}`])
  t.true(bytes.equals(Buffer.concat([data, Buffer.alloc(5)])))
  const user = await cluster.source(1).open('Huge')
  const refused = await dogOn(cluster, ['vdi', 'write', '-w', 'Huge'], { stdin: stdin() })
  t.is(refused.status, 1)
  t.regex(refused.stderr, /^Failed to open VDI Huge: .*locked/)
  await user.close()
  const again = await dogOn(cluster, ['vdi', 'write', '-w', 'Huge'], { stdin: stdin() })
  t.is(again.status, 0)
  t.true(
    (await dogOn(cluster, ['vdi', 'read', 'Huge', '0', '10'])).bytes.equals(data.subarray(0, 10)),
  )
  cluster.close()
})
