/**
 * Erasure-coded disks on real daemons: six of them, 4:2, under nbdcopy and fio while nodes are killed and brought back;
 * fragments on the real disks byte for byte as sheepdog 1.0 has them.
 */
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { fioVerify, nbdcopy } from './support/clients.js'
import { startCluster, type TestCluster } from './support/cluster.js'
import { whileOneNodeFails } from './support/failing-node.js'
import { pause } from './support/run.js'
import { needing } from './support/suite.js'

const MEBIBYTES = 48
const OBJECT_BYTES = 4 * 1024 * 1024
const WIDTH = 6

/** The 4 MiB of the specification's vector, so many times. */
function vector(times: number): Buffer {
  const one = Buffer.alloc(OBJECT_BYTES)
  for (let i = 0; i < one.length; i++) one[i] = (7 * i + 13 * (i >> 9) + (i >> 16)) & 0xff
  return Buffer.concat(Array.from({ length: times }, () => one))
}

/** Path of each fragment file in the working directories, by its name `<16 hex>_<index>`. */
async function fragments(cluster: TestCluster): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>()
  for (const node of cluster.nodes) {
    for (const name of await readdir(node.objects)) {
      if (!/^00[0-9a-f]{14}_\d+$/.test(name)) continue
      found.set(name, [...(found.get(name) ?? []), `${node.objects}/${name}`])
    }
  }
  return found
}

const realTest = needing('nbdcopy', 'fio')

realTest('nbdcopy onto a 4:2 disk leaves the fragments sheepdog 1.0 would leave', async (t) => {
  t.timeout(300_000)
  const cluster = await startCluster(t, { nodes: WIDTH, copies: '4:2' })
  t.regex((await cluster.dog('cluster info', '-v')).stdout, /4:2 redundancy policy/)
  await cluster.dog('vdi create', 'e1', '16M')
  t.regex((await cluster.dog('vdi list')).stdout, /e1 .* 4:2/)
  const image = `${cluster.directory}/image`
  await writeFile(image, vector(4))
  await nbdcopy(image, cluster.uri('e1'))
  const found = await fragments(cluster)
  t.is(found.size, 4 * WIDTH)
  for (const [name, paths] of found) t.is(paths.length, 1, name)
  const start = async (name: string): Promise<string> =>
    (await readFile(found.get(name)![0]!)).subarray(0, 16).toString('hex')
  for (const index of [0, 3]) {
    const oid = `0039b883${index.toString(16).padStart(8, '0')}`
    t.is(await start(`${oid}_0`), '00070e151c232a31383f464d545b6269')
    t.is(await start(`${oid}_1`), '80878e959ca3aab1b8bfc6cdd4dbe2e9')
    t.is(await start(`${oid}_4`), 'd4d3dac1c8f7fee5eceb9299808fb6bd')
    t.is(await start(`${oid}_5`), '7d7a7368615e574c45423b3029261f14')
    t.is((await readFile(found.get(`${oid}_2`)![0]!)).length, OBJECT_BYTES / 4)
  }
  // Two nodes away: every byte is still there, decoded.
  await cluster.node(2).kill()
  await cluster.node(4).kill()
  const back = `${cluster.directory}/back`
  await nbdcopy(cluster.uri('e1'), back)
  t.true((await readFile(back)).equals(vector(4)))
  await cluster.node(2).start()
  await cluster.node(4).start()
  await cluster.recovered()
  t.deepEqual([...(await fragments(cluster))].sort(), [...found].sort())
})

realTest('fio sees no error on a 4:2 disk while a node is killed and brought back', async (t) => {
  t.timeout(600_000)
  const cluster = await startCluster(t, { nodes: WIDTH, copies: '4:2' })
  await cluster.dog('vdi create', 'e1', `${MEBIBYTES}M`)
  let seed = 100
  await whileOneNodeFails(cluster, 3, async (count) => {
    seed = 100 + count
    await fioVerify(cluster.uri('e1'), { mebibytes: MEBIBYTES, by: 'pattern', seed })
  })
  const how = { mebibytes: MEBIBYTES, by: 'pattern', seed, verifyOnly: true } as const
  await fioVerify(cluster.uri('e1', 2), how)
  // Any two of six may go: what they had is in the others.
  for (const index of [1, 5]) await cluster.node(index).kill()
  await fioVerify(cluster.uri('e1', 2), how)
  t.pass()
})

realTest('a seventh node takes over for one that died, and writes go on', async (t) => {
  t.timeout(600_000)
  const cluster = await startCluster(t, { nodes: WIDTH + 1, copies: '4:2' })
  await cluster.dog('vdi create', 'e1', `${MEBIBYTES}M`)
  await fioVerify(cluster.uri('e1'), { mebibytes: MEBIBYTES, by: 'pattern', seed: 7 })
  await cluster.node(3).kill()
  await fioVerify(cluster.uri('e1'), { mebibytes: MEBIBYTES, by: 'pattern', seed: 8 })
  await pause(1000)
  await cluster.node(3).start()
  await cluster.recovered()
  const how = { mebibytes: MEBIBYTES, by: 'pattern', seed: 8, verifyOnly: true } as const
  await fioVerify(cluster.uri('e1', 3), how)
  const found = await fragments(cluster)
  t.is(found.size, (MEBIBYTES / 4) * WIDTH)
  for (const [name, paths] of found) t.is(paths.length, 1, name)
})
