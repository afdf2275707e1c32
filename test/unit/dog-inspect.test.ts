// `dog vdi inspect`: the table as people see it, and the same for programs, of disks in a sheep of memory.
import test from 'ava'
import { dataOid, oidKind } from '../../src/model/oid.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectFields } from '../../src/wire/sheepdog/requests.js'
import { excerptOf, mbrSector } from './support/disk-bytes.js'
import { type DogResult, runDog } from './support/dog-rig.js'
import { FakeSheep } from './support/fake-sheep.js'

const MIB = 1024 * 1024
const node = { host: '127.0.0.1', port: 7020, vnodes: 128, zone: 1, spaceBytes: 1 }

interface Stage {
  readonly sheep: FakeSheep
  dog(line: string, stdin?: Buffer): Promise<DogResult>
}

async function stage(): Promise<Stage> {
  const sheep = new FakeSheep([node])
  sheep.nowMs = 1_795_253_998_000
  const dog: Stage['dog'] = (line, stdin) =>
    runDog(sheep, line.split(' '), stdin === undefined ? {} : { stdin })
  await dog('cluster format -c 1')
  return { sheep, dog }
}

/** Writes an excerpt of a real file system to where a partition begins. */
async function put({ dog }: Stage, name: string, golden: string, at: number): Promise<void> {
  for (const [offset, bytes] of excerptOf(golden).parts) {
    await dog(`vdi write ${name} ${at + offset}`, bytes)
  }
}

/** 200 MiB with ext4 and swap in an MBR, and a partition nobody knows. */
async function disk(): Promise<Stage> {
  const staged = await stage()
  await staged.dog('vdi create Alice 200M')
  const sector = mbrSector([
    { number: 1, first: 2048, sectors: (64 * MIB) / 512, bootable: true },
    { number: 2, first: (70 * MIB) / 512, sectors: (8 * MIB) / 512, type: 0x82 },
    { number: 3, first: (100 * MIB) / 512, sectors: (2 * MIB) / 512, type: 0x7f },
    { number: 4, first: (199 * MIB) / 512, sectors: (2 * MIB) / 512 },
  ])
  await staged.dog('vdi write Alice', sector)
  await put(staged, 'Alice', 'ext4', MIB)
  await put(staged, 'Alice', 'swap', 70 * MIB)
  return staged
}

test('partitions with what they hold, as a table', async (t) => {
  const { dog } = await disk()
  const { stdout, stderr, status } = await dog('vdi inspect Alice')
  t.is(stderr, '')
  t.is(status, 0)
  t.deepEqual(stdout.split('\n'), [
    'Alice: 200 MB, 8.0 MB allocated, MBR 1234abcd',
    ' No      Start      Size Type                 Label          Holds          Name            Capacity      Used      Free',
    '  1     1.0 MB     64 MB Linux                               ext4           root fs            64 MB    9.3 MB     55 MB',
    '  2      70 MB    8.0 MB Linux swap                          swap           swp               8.0 MB',
    '  3     100 MB    2.0 MB 7f',
    'Problem: partition table: partition 4 does not lie on the disk',
    '',
  ])
})

test('a snapshot is looked at by tag or id; its disk does not change with the working one', async (t) => {
  const { dog } = await disk()
  await dog('vdi snapshot Alice -s before')
  await dog('vdi write Alice', Buffer.alloc(512))
  for (const which of ['Alice@before', 'Alice@1', '-s before Alice', '-s 1 Alice']) {
    const { stdout } = await dog(`vdi inspect --json ${which}`)
    t.like(JSON.parse(stdout), {
      name: 'Alice',
      snapshotId: 1,
      tag: 'before',
      sizeBytes: 200 * MIB,
    })
    t.is((JSON.parse(stdout) as { partitions: unknown[] }).partitions.length, 3, which)
  }
  const { stdout } = await dog('vdi inspect Alice --json')
  t.like(JSON.parse(stdout), {
    table: null,
    partitions: [],
    content: null,
    allocatedBytes: 8 * MIB,
  })
  const text = await dog('vdi inspect Alice')
  t.regex(text.stdout, /no partitions\nNothing on it is recognised\.\n$/)
  const nothing = await dog('vdi inspect Alice@')
  t.is(nothing.status, 64)
  t.is((await dog('vdi inspect Alice@after')).status, 1)
})

test('a VDI whose own name has an @ comes before a snapshot', async (t) => {
  const { dog } = await disk()
  await dog('vdi snapshot Alice -s b')
  await dog('vdi create Alice@b 4M')
  const { stdout } = await dog('vdi inspect Alice@b')
  t.is(
    stdout,
    'Alice@b: 4.0 MB, 0.0 MB allocated, no partitions\nNothing was ever written to it.\n',
  )
})

test('what a disk calls itself does not reach the terminal as a command', async (t) => {
  const staged = await stage()
  await staged.dog('vdi create Evil 16M')
  await put(staged, 'Evil', 'ext2', 0)
  await staged.dog(`vdi write Evil ${1024 + 120}`, Buffer.from('\x1b[2J\x9b\u202ex'))
  const { stdout } = await staged.dog('vdi inspect Evil')
  t.regex(stdout, /ext2 {11}\?\[2J/)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
  t.notRegex(stdout, /[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/)
})

test('of a large and nearly empty disk next to nothing is read', async (t) => {
  const staged = await stage()
  await staged.dog('vdi create Huge 4T')
  await put(staged, 'Huge', 'xfs', 0)
  staged.sheep.requests.length = 0
  const { stdout } = await staged.dog('vdi inspect Huge')
  t.regex(stdout, /xfs 5/)
  const data = staged.sheep.requests.filter(
    (request) => request.opcode === Op.READ_OBJ && oidKind(objectFields.oid(request)) === 'data',
  )
  t.true(data.reduce((sum, { dataLength }) => sum + dataLength, 0) < 100_000)
})

test('an object that cannot be read fails the look, and is named', async (t) => {
  const { dog, sheep } = await disk()
  const { vid } = sheep.header([...sheep.vids][0]!)
  sheep.objects.delete(dataOid(vid, 0))
  const { status, stderr } = await dog('vdi inspect Alice')
  t.is(status, 1)
  t.regex(stderr, /^Failed to read object 00[0-9a-f]{14} No object found\nFailed to read VDI\n$/)
})
