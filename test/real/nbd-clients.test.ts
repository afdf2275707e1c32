/** libnbd's and QEMU's tools against three daemons and three copies: what goes in comes out. */

import { NbdClient } from '../faults/nbd-client.js'
import {
  nbdcopy,
  nbdcopyPaced,
  nbdinfo,
  nbdList,
  nbdMap,
  qemuImg,
  qemuIo,
} from './support/clients.js'
import { startCluster, type TestCluster } from './support/cluster.js'
import { whileOneNodeFails } from './support/failing-node.js'
import { makeImage, sameFiles } from './support/images.js'
import { run, until } from './support/run.js'
import { needing } from './support/suite.js'

const MIB = 1024 * 1024
const realTest = needing('nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io', 'nbdkit')

realTest('nbdinfo lists volumes and snapshots with size and abilities', async (t) => {
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Alice', '96M')
  await cluster.dog('vdi create', 'Bob', '512K')
  await cluster.dog('vdi snapshot', '-s', 'monday', 'Alice')
  const names = await nbdList(cluster.server())
  t.true(names.includes('Alice') && names.includes('Bob'), names.join(' '))
  const alice = await nbdinfo(cluster.uri('Alice'))
  t.is(alice['export-size'], 96 * MIB)
  t.false(alice.is_read_only)
  t.true(alice.can_flush && alice.can_fua && alice.can_trim && alice.can_zero && alice.can_df)
  t.true(alice.can_multi_conn)
  t.true(alice.contexts?.includes('base:allocation'))
  t.is((await nbdinfo(cluster.uri('Bob')))['export-size'], 512 * 1024)
  t.true((await nbdinfo(cluster.uri('Alice@monday'))).is_read_only)
  const unknown = await t.throwsAsync(nbdinfo(cluster.uri('Carol')))
  t.regex(unknown?.message ?? '', /Carol|No such|unknown|not found/i)
})

realTest(
  'names with anything in them, percent-encoded as URIs have it; tags and ids',
  async (t) => {
    const cluster = await startCluster(t, { nodes: 1, copies: 1 })
    const name = 'a b%41/ü?#@x'
    await cluster.dog('vdi create', name, '4M')
    await cluster.dog('vdi snapshot', '-s', 'mon day', name)
    const size = async (wanted: string): Promise<number> =>
      (await nbdinfo(cluster.uri(wanted)))['export-size']
    for (const wanted of [name, `${name}@mon day`, `${name}@1`]) t.is(await size(wanted), 4 * MIB)
    await t.throwsAsync(size(`${name}@2`))
    await t.throwsAsync(size(name.replace('%41', 'A')))
  },
)

realTest('a resize is seen by who connects after it, also beside an open connection', async (t) => {
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Alice', '8M')
  const { host, place } = cluster.node(0)
  const before = await NbdClient.open({ host, port: place.nbdPort }, 'Alice')
  t.teardown(() => before.destroy('the test is over'))
  await before.write(0, Buffer.alloc(4096, 1), true)
  await cluster.dogAt(1, 'vdi resize', ['Alice', '12M'])
  await until('the new size', 10_000, async () => {
    return (await nbdinfo(cluster.uri('Alice')))['export-size'] === 12 * MIB
  })
  await qemuIo(cluster.uri('Alice'), ['write -P 7 11M 4k', 'read -P 7 11M 4k', 'read -P 1 0 4k'])
  t.is((await before.read(0, 4096))[0], 1)
})

realTest(
  'the map shows holes where nothing was written and data where something was',
  async (t) => {
    const cluster = await startCluster(t)
    await cluster.dog('vdi create', 'Alice', '64M')
    const fresh = await nbdMap(cluster.uri('Alice'))
    t.deepEqual(
      fresh.map(({ offset, length, type }) => [offset, length, type]),
      [[0, 64 * MIB, 3]],
    )
    await qemuIo(cluster.uri('Alice'), ['write -P 0x41 8M 4k', 'flush'])
    const map = await nbdMap(cluster.uri('Alice'))
    t.deepEqual(
      map.map(({ offset, length, type }) => [offset, length, type]),
      [
        [0, 8 * MIB, 3],
        [8 * MIB, 4 * MIB, 0],
        [12 * MIB, 52 * MIB, 3],
      ],
    )
    const { stdout } = await qemuImg('map', '-f', 'raw', '--output=json', cluster.uri('Alice'))
    const seen = JSON.parse(stdout) as { start: number; data: boolean }[]
    t.deepEqual(
      seen.filter(({ data }) => data).map(({ start }) => start),
      [8 * MIB],
    )
  },
)

realTest('nbdcopy brings an image in and out unchanged', async (t) => {
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Alice', '128M')
  const [image, copy] = [`${cluster.directory}/image`, `${cluster.directory}/copy`]
  await makeImage(image, 128, 1)
  await nbdcopy(image, cluster.uri('Alice'))
  await nbdcopy(cluster.uri('Alice', 1), copy)
  await t.notThrowsAsync(sameFiles(image, copy))
})

realTest('qemu-img converts qcow2 to a volume, compares it and takes it out again', async (t) => {
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Alice', '128M')
  const at = (name: string) => `${cluster.directory}/${name}`
  await makeImage(at('image'), 128, 2)
  await qemuImg('convert', '-f', 'raw', '-O', 'qcow2', at('image'), at('q'))
  const alice = cluster.uri('Alice')
  await qemuImg('convert', '-n', '-f', 'qcow2', '-O', 'raw', at('q'), alice)
  await qemuImg('compare', '-f', 'qcow2', '-F', 'raw', at('q'), alice)
  await qemuImg('convert', '-f', 'raw', '-O', 'raw', alice, at('copy'))
  await t.notThrowsAsync(sameFiles(at('image'), at('copy')))
})

realTest('a qcow2 image stored inside a volume passes qemu-img check', async (t) => {
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Inside', '160M')
  const image = `${cluster.directory}/image`
  await makeImage(image, 96, 3)
  const inside = cluster.uri('Inside')
  await qemuImg('create', '-f', 'qcow2', inside, '96M')
  await qemuImg('convert', '-n', '-f', 'raw', '-O', 'qcow2', image, inside)
  await qemuImg('check', '-f', 'qcow2', inside)
  await qemuImg('compare', '-f', 'raw', '-F', 'qcow2', image, inside)
  t.regex((await qemuImg('info', '-f', 'qcow2', inside)).stdout, /virtual size: 96 MiB/)
})

realTest('qemu-io reads back every pattern, at any offset and over object edges', async (t) => {
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Alice', '64M')
  const alice = cluster.uri('Alice')
  await qemuIo(alice, [
    ...['write -P 0x5a 4194301 7', 'read -P 0x5a 4194301 7', 'read -P 0 4194296 5'],
    ...['write -P 0x11 0 20M', 'write -P 0x22 4095 8193', 'write -f -P 0x33 12582911 2'],
    ...['read -P 0x11 0 4095', 'read -P 0x22 4095 8193', 'read -P 0x11 12288 4k'],
    ...['read -P 0x33 12582911 2', 'read -P 0x11 12582913 512', 'flush'],
  ])
  await qemuIo(cluster.uri('Alice', 2), ['read -P 0x22 4095 8193', 'read -P 0x33 12582911 2'])
  await qemuIo(alice, ['aio_write -P 0x44 24M 6M', 'aio_write -P 0x55 30M 6M', 'aio_flush'])
  await qemuIo(alice, ['read -P 0x44 24M 6M', 'read -P 0x55 30M 6M'], 'none')
  t.pass()
})

realTest('zeroed and discarded ranges read as zeros, their neighbours stay', async (t) => {
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Alice', '64M')
  const alice = cluster.uri('Alice')
  await qemuIo(alice, ['write -P 0x77 0 32M', 'write -z 1000001 3000003', 'write -z -u 7M 10M'])
  await qemuIo(alice, [
    ...['read -P 0x77 0 1000001', 'read -P 0 1000001 3000003', 'read -P 0x77 4000004 3339996'],
    ...['read -P 0 7M 10M', 'read -P 0x77 17M 15M', 'discard 20M 8M', 'flush'],
    ...['read -P 0 20M 8M', 'read -P 0x77 17M 3M', 'read -P 0x77 28M 4M'],
  ])
  const holes = (await nbdMap(alice)).filter(({ type }) => (type & 1) === 1)
  t.true(
    holes.some(({ offset, length }) => offset === 20 * MIB && length === 8 * MIB),
    JSON.stringify(holes),
  )
})

realTest('a snapshot export refuses writes and keeps its bytes', async (t) => {
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Alice', '16M')
  await qemuIo(cluster.uri('Alice'), ['write -P 0x01 0 8M', 'flush'])
  await cluster.dog('vdi snapshot', '-s', 'monday', 'Alice')
  await qemuIo(cluster.uri('Alice'), ['write -P 0x02 0 6M', 'flush', 'read -P 0x01 6M 2M'])
  const monday = cluster.uri('Alice@monday')
  await run(['qemu-io', '-r', '-f', 'raw', '-c', 'read -P 0x01 0 8M', monday])
  await t.throwsAsync(qemuIo(monday, ['write -P 0x03 0 4k']))
  await run(['qemu-io', '-r', '-f', 'raw', '-c', 'read -P 0x01 0 8M', monday])
  await qemuIo(cluster.uri('Alice'), ['read -P 0x02 0 6M'])
})

realTest('copies in and out stay right while a node dies and comes back', async (t) => {
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Alice', '160M')
  await cluster.dog('vdi create', 'Bob', '160M')
  await makeImage(`${cluster.directory}/image`, 160, 4)
  await whileOneNodeFails(cluster, 2, () => copyRound(cluster))
  await whileOneNodeFails(cluster, 1, () => qemuRound(cluster))
  t.pass()
})

/** In at a pace that outlasts the failure, and out. */
async function copyRound(cluster: TestCluster): Promise<void> {
  const [image, copy] = [`${cluster.directory}/image`, `${cluster.directory}/copy`]
  await nbdcopyPaced(image, cluster.uri('Alice'), 40)
  await nbdcopy(cluster.uri('Alice'), copy)
  await sameFiles(image, copy)
}

async function qemuRound(cluster: TestCluster): Promise<void> {
  const image = `${cluster.directory}/image`
  const bob = cluster.uri('Bob')
  await qemuImg('convert', '-n', '-r', '40M', '-f', 'raw', '-O', 'raw', image, bob)
  await qemuImg('compare', '-f', 'raw', '-F', 'raw', image, bob)
}
