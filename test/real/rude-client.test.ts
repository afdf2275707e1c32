/**
 * Everything a client must not say, in a row, to a real cluster with disks in use: nobody dies, memory does not grow, and
 * afterwards a full verification of the disk passes and all copies are equal. Then the daemons stop in order.
 */
import { readFile } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { asVid, type Vid } from '../../src/model/oid.js'
import { SheepClient } from '../../src/peer/client.js'
import { nodeWorld } from '../../src/world/node/world.js'
import { complaint } from '../rude/client.js'
import { rudeRequests } from '../rude/requests.js'
import { fioVerify } from './support/clients.js'
import { startCluster, type TestCluster } from './support/cluster.js'
import { copiesSettled } from './support/same-copies.js'
import { needing } from './support/suite.js'

const MEBIBYTES = 64
const ROUNDS = 5
const PATIENCE_MS = 1_000
/** What a daemon may grow by over all rounds: buffers of requests, not what requests pretend to need. */
const GROWTH_BYTES_MAX = 256 * 1024 * 1024
const WORK = { mebibytes: MEBIBYTES, seed: 21, by: 'crc32c' } as const

async function residentBytes(pid: number): Promise<number> {
  const status = (await readFile(`/proc/${pid}/status`)).toString()
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024
}

async function vidOf(cluster: TestCluster, name: string): Promise<Vid> {
  const { stdout } = await cluster.dog('vdi list', '-r', name)
  const working = stdout.split('\n').find((line) => line.startsWith('= '))
  return asVid(Number.parseInt(working?.split(' ')[7] ?? '', 16))
}

const realTest = needing('fio')

realTest('a rude client harms nobody: a full verification passes behind it', async (t) => {
  t.timeout(600_000)
  const cluster = await startCluster(t)
  await cluster.dog('vdi create', 'victim', `${MEBIBYTES}M`)
  await fioVerify(cluster.uri('victim'), WORK)
  await cluster.dog('vdi snapshot', 'victim', '-s', 'tagged')
  // The working volume gets objects of its own again.
  await fioVerify(cluster.uri('victim'), WORK)
  await cluster.dog('vdi create', 'coded', '16M', '-c', '2:1')
  const target = {
    ...{ epoch: 1, name: 'victim', objectBytes: 1 << 22 },
    ...{ vid: await vidOf(cluster, 'victim'), coded: await vidOf(cluster, 'coded') },
  }
  const world = nodeWorld()
  const before = await Promise.all(cluster.nodes.map(({ pid }) => residentBytes(pid)))
  const faults: string[] = []
  for (let round = 0; round < ROUNDS; round++) {
    const { host, port } = cluster.node(round % cluster.nodes.length)
    for (const request of rudeRequests(target)) {
      const said = await complaint(request, {
        connect: () => SheepClient.connect(world, { host, port }),
        patience: () => pause(PATIENCE_MS),
      })
      if (said !== undefined) faults.push(`round ${round}: ${said}`)
    }
  }
  t.deepEqual(faults, [])
  t.true(cluster.nodes.every((node) => !node.ended()))
  const after = await Promise.all(cluster.nodes.map(({ pid }) => residentBytes(pid)))
  const growth = after.map((bytes, i) => bytes - before[i]!)
  t.true(Math.max(...growth) < GROWTH_BYTES_MAX, `grown by ${growth.join(', ')} bytes`)
  for (const index of [0, 1, 2]) {
    await fioVerify(cluster.uri('victim', index), { ...WORK, verifyOnly: true })
  }
  t.deepEqual(await copiesSettled(cluster), [])
  await cluster.stopAll()
})
