/** What changed since a snapshot, as real NBD clients see it, and the README's incremental backup with it. */
import { randomFillSync } from 'node:crypto'
import { readFile, truncate, writeFile } from 'node:fs/promises'
import { nbdcopy, nbdMap, qemuIo } from './support/clients.js'
import { startCluster } from './support/cluster.js'
import { scratch } from './support/owner.js'
import { PROJECT } from './support/paths.js'
import { run, tryRun } from './support/run.js'
import { needing } from './support/suite.js'

const MIB = 1024 * 1024
const realTest = needing('nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io')

async function mapOf(uri: string, context: string): Promise<[number, number, number][]> {
  const map = await nbdMap(uri, context)
  return map.map(({ offset, length, type }) => [offset / 4096, length / 4096, type])
}

realTest('nbdinfo and qemu-img are told what changed since a snapshot', async (t) => {
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'Alice', '32M')
  const uri = cluster.uri('Alice')
  await qemuIo(uri, ['write -P 1 0 16M', 'flush'])
  await cluster.dog('vdi snapshot', '-s', 'monday', 'Alice')
  await qemuIo(uri, ['write -P 2 5M 8k', 'discard 8M 4M', 'write -P 1 12M 4k', 'flush'])
  await cluster.dog('vdi snapshot', '-s', 'tuesday', 'Alice')
  await qemuIo(uri, ['write -P 3 20M 4k', 'flush'])
  const object = 1024
  for (const name of ['sheepdog:changed-since/', 'qemu:dirty-bitmap:']) {
    t.deepEqual(await mapOf(uri, `${name}monday`), [
      [0, object, 0],
      [object, 3 * object, 1],
      [4 * object, object, 0],
      [5 * object, object, 1],
      [6 * object, 2 * object, 0],
    ])
    t.deepEqual(await mapOf(uri, `${name}tuesday`), [
      [0, 5 * object, 0],
      [5 * object, object, 1],
      [6 * object, 2 * object, 0],
    ])
  }
  // The same bytes written again changed an object, and no block.
  t.deepEqual(await mapOf(cluster.uri('Alice@tuesday'), 'sheepdog:changed-blocks-since/monday'), [
    [0, 1280, 0],
    [1280, 2, 1],
    [1282, 766, 0],
    [2048, object, 1],
    [3 * object, 5 * object, 0],
  ])
  const { host, place } = cluster.node(0)
  const bitmap = 'x-dirty-bitmap=qemu:dirty-bitmap:tuesday'
  const options = `driver=nbd,server.type=inet,server.host=${host},server.port=${place.nbdPort},export=Alice`
  const map = ['map', '--output=json', '--image-opts', `${options},${bitmap}`]
  const { stdout } = await run(['qemu-img', ...map])
  // QEMU shows dirty stretches of a bitmap as such without data.
  const found = (JSON.parse(stdout) as { start: number; length: number; data: boolean }[]).filter(
    ({ data }) => !data,
  )
  t.deepEqual(
    found.map(({ start, length }) => [start / MIB, length / MIB]),
    [[20, 4]],
  )
  const depth = await mapOf(uri, 'qemu:allocation-depth')
  t.deepEqual(
    depth.map(([, blocks, generation]) => [blocks / object, generation]),
    [
      [1, 3],
      [1, 2],
      [1, 0],
      [1, 2],
      [1, 0],
      [1, 1],
      [2, 0],
    ],
  )
})

realTest("the README's incremental backup gives the snapshot's bytes", async (t) => {
  const cluster = await startCluster(t)
  const directory = await scratch(t)
  const script = /# catch-up\.sh[\s\S]*?\ndone\n/.exec(
    await readFile(`${PROJECT}README.md`, 'utf8'),
  )
  await writeFile(`${directory}/catch-up.sh`, `set -e\n${script?.[0]}`)
  await cluster.dog('vdi create', 'Alice', '64M')
  const content = randomFillSync(Buffer.alloc(40 * MIB))
  await writeFile(`${directory}/content`, content)
  await truncate(`${directory}/content`, 64 * MIB)
  await nbdcopy(`${directory}/content`, cluster.uri('Alice'))
  await cluster.dog('vdi snapshot', '-s', 'day-0', 'Alice')
  const image = `${directory}/image`
  await nbdcopy(cluster.uri('Alice@day-0'), image)
  const { host, place } = cluster.node(1)
  for (const day of [1, 2]) {
    if (day === 2) await cluster.dog('vdi resize', 'Alice', '72M')
    const writes = [`write -P ${day} ${3 * day}M 100k`, `write -P 9 ${50 + day}M 4k`]
    await qemuIo(cluster.uri('Alice'), [...writes, `discard ${20 + 4 * day}M 4M`, 'flush'])
    await cluster.dog('vdi snapshot', '-s', `day-${day}`, 'Alice')
    const words = [host, `${place.nbdPort}`, 'Alice', `day-${day - 1}`, `day-${day}`, image]
    await run(['sh', `${directory}/catch-up.sh`, ...words])
    await nbdcopy(cluster.uri(`Alice@day-${day}`), `${directory}/whole`)
    const [caughtUp, whole] = [await readFile(image), await readFile(`${directory}/whole`)]
    t.true(caughtUp.equals(whole), `day ${day}`)
  }
  // What it cannot be told it does not take for nothing.
  const unknown = [host, `${place.nbdPort}`, 'Alice', 'day-9', 'day-2', image]
  t.not((await tryRun(['sh', `${directory}/catch-up.sh`, ...unknown])).code, 0)
})
