// What is told of the stretches of a VDI: how deep they come from, and what changed since a snapshot.
import test from 'ava'
import { Code, codeOf } from '../../src/base/codes.js'
import type { StatusStretch, VolumeContext } from '../../src/volume/volume.js'
import { newVdi, snapshot } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { discard, write } from './support/volume-io.js'

const OBJECT = 1 << 20
const SIZE = 6 * OBJECT
const KIB = 1024

function states(context: VolumeContext, offset = 0, length = SIZE, most = 100) {
  return new Promise<string | Code>((resolve) => {
    context.states({ offset, length }, most, (code, stretches: readonly StatusStretch[]) => {
      const words = stretches.map((one) => `${one.length / KIB}k:${one.state}`)
      resolve(code === Code.SUCCESS ? words.join(' ') : code)
    })
  })
}

/** Alice: objects 0 to 3 written; snapshot one; 1 written again; snapshot two; 2 written, 3 discarded, 4 written. */
async function alice() {
  const cluster = await SmallCluster.start({ nodes: 3, copies: 2 })
  const client = await cluster.client(0)
  await newVdi(client, 'Alice', SIZE)
  const disk = await cluster.source(0).open('Alice')
  for (const object of [0, 1, 2, 3]) await write(disk, object * OBJECT, Buffer.alloc(OBJECT, 1))
  await snapshot(client, 'Alice', 'one')
  await write(disk, OBJECT, Buffer.alloc(10, 2))
  await snapshot(client, 'Alice', 'two')
  await write(disk, 2 * OBJECT + 8192, Buffer.alloc(4096, 3))
  await write(disk, 2 * OBJECT + 100, Buffer.alloc(1, 1))
  await discard(disk, 3 * OBJECT, OBJECT)
  await write(disk, 4 * OBJECT + 5000, Buffer.alloc(1, 4))
  client.close()
  return { cluster, source: cluster.source(0), disk }
}

test('contexts are named by depth and by snapshot', async (t) => {
  const { cluster, source } = await alice()
  const of = (tag: string) => [
    `sheepdog:changed-since/${tag}`,
    `qemu:dirty-bitmap:${tag}`,
    `sheepdog:changed-blocks-since/${tag}`,
  ]
  const names = await source.contexts('Alice')
  t.deepEqual([...names].sort(), ['qemu:allocation-depth', ...of('one'), ...of('two')].sort())
  t.deepEqual(await source.contexts('Alice@one'), names)
  cluster.close()
})

test('the depth of a stretch is the generation that wrote it', async (t) => {
  const { cluster, source, disk } = await alice()
  const depth = await source.context(disk, 'qemu:allocation-depth')
  t.is(await states(depth), '1024k:3 1024k:2 1024k:1 1024k:0 1024k:1 1024k:0')
  t.is(await states(depth, OBJECT - 1024, OBJECT, 2), '1k:3 1023k:2')
  const client = await cluster.client(1)
  await snapshot(client, 'Alice', 'three')
  client.close()
  await write(disk, 0, Buffer.alloc(1))
  t.is(await states(depth), '1024k:1 1024k:3 1024k:2 1024k:0 1024k:2 1024k:0')
  const earlier = await source.open('Alice@one')
  const then = await source.context(earlier, 'qemu:allocation-depth')
  t.is(await states(then), '4096k:1 2048k:0')
  cluster.close()
})

test('what changed since a snapshot is told by object, discards included', async (t) => {
  const { cluster, source, disk } = await alice()
  for (const name of ['sheepdog:changed-since/', 'qemu:dirty-bitmap:']) {
    t.is(await states(await source.context(disk, `${name}two`)), '2048k:0 3072k:1 1024k:0')
    t.is(await states(await source.context(disk, `${name}one`)), '1024k:0 4096k:1 1024k:0')
  }
  const earlier = await source.open('Alice@two')
  t.is(
    await states(await source.context(earlier, 'qemu:dirty-bitmap:one')),
    '1024k:0 1024k:1 4096k:0',
  )
  // A change after the context was opened is told as well, also behind another snapshot.
  const since = await source.context(disk, 'sheepdog:changed-since/two')
  await write(disk, 0, Buffer.alloc(1))
  t.is(await states(since), '1024k:1 1024k:0 3072k:1 1024k:0')
  cluster.close()
})

test('compared by bytes a change is as large as its blocks', async (t) => {
  const { cluster, source, disk } = await alice()
  const since = await source.context(disk, 'sheepdog:changed-blocks-since/two')
  // The write of the same byte changed nothing; a hole differs from ones, ones in a hole from zeros.
  const expected = '2056k:0 4k:1 1012k:0 1024k:1 4k:0 4k:1 2040k:0'
  t.is(await states(since), expected)
  // From the middle of a block to the middle of another one.
  t.is(await states(since, 2 * OBJECT + 9 * KIB, 5 * KIB), '3k:1 2k:0')
  t.is(await states(since, 0, SIZE, 3), '2056k:0 4k:1 1012k:0')
  cluster.close()
})

test('a context that does not exist, or is of no snapshot, cannot be had', async (t) => {
  const { cluster, source, disk } = await alice()
  for (const name of [
    'qemu:dirty-bitmap:none',
    'qemu:dirty-bitmap:',
    'sheepdog:changed-since',
    'x',
  ]) {
    const error = await t.throwsAsync(source.context(disk, name))
    t.is(codeOf(error), Code.NO_TAG, name)
  }
  cluster.close()
})

test('while the slots are in doubt everything counts as changed, and as its own', async (t) => {
  const { cluster, source, disk } = await alice()
  const doubtful = { ...disk, name: disk.name, objectBytes: OBJECT, owners: () => undefined }
  const volume = doubtful as unknown as typeof disk
  t.is(await states(await source.context(volume, 'qemu:dirty-bitmap:two')), '6144k:1')
  t.is(await states(await source.context(volume, 'qemu:allocation-depth')), '6144k:1')
  cluster.close()
})
