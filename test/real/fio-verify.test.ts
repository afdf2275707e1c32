/** fio writes with checksums and verifies: mixed sizes, 16 deep, also while a node dies and comes back. */

import { fioVerify } from './support/clients.js'
import { startCluster } from './support/cluster.js'
import { whileOneNodeFails } from './support/failing-node.js'
import { copiesSettled, objectsOf } from './support/same-copies.js'
import { needing } from './support/suite.js'

const FULL_MIB = 1024
const FAILING_MIB = 256
const WHOLE = { mebibytes: FULL_MIB, seed: 11, by: 'crc32c' } as const
const ROUND = { mebibytes: FAILING_MIB, by: 'pattern' } as const
const realTest = needing('fio')

realTest(
  'fio verifies a whole GiB, through each of three nodes, and the copies are equal',
  async (t) => {
    t.timeout(600_000)
    const cluster = await startCluster(t)
    await cluster.dog('vdi create', 'Alice', `${FULL_MIB}M`)
    await fioVerify(cluster.uri('Alice'), WHOLE)
    for (const index of [1, 2]) {
      const how = { ...WHOLE, verifyOnly: true }
      await fioVerify(cluster.uri('Alice', index), how)
    }
    t.deepEqual(await copiesSettled(cluster), [])
    t.true((await objectsOf(cluster.node(0).objects)).length >= FULL_MIB / 4)
  },
)

realTest(
  'fio sees no error while a node is killed and brought back, and copies meet again',
  async (t) => {
    t.timeout(600_000)
    const cluster = await startCluster(t)
    await cluster.dog('vdi create', 'Alice', `${FAILING_MIB}M`)
    let seed = 100
    await whileOneNodeFails(cluster, 2, async (count) => {
      seed = 100 + count
      await fioVerify(cluster.uri('Alice'), { ...ROUND, seed })
    })
    t.deepEqual(await copiesSettled(cluster), [])
    const how = { ...ROUND, seed, verifyOnly: true }
    await fioVerify(cluster.uri('Alice', 2), how)
  },
)
