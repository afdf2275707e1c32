/** Two clusters of different names on one host keep out of each other's way, also in death. */

import { qemuIo } from './support/clients.js'
import { startCluster } from './support/cluster.js'
import { run } from './support/run.js'
import { needing } from './support/suite.js'

const realTest = needing('qemu-io')

realTest('clusters with different names share a host and nothing else', async (t) => {
  t.timeout(180_000)
  const one = await startCluster(t, { nodes: 2, copies: 2, meeting: `test-one-${process.pid}` })
  const two = await startCluster(t, { nodes: 2, copies: 2, meeting: `test-two-${process.pid}` })
  for (const [cluster, other, name] of [
    [one, two, 'Alice'],
    [two, one, 'Bob'],
  ] as const) {
    await cluster.members(2)
    const { stdout } = await cluster.dog('node list', '-r')
    for (const node of cluster.nodes) t.true(stdout.includes(`127.0.0.1:${node.port} `), stdout)
    for (const node of other.nodes) t.false(stdout.includes(`:${node.port} `), stdout)
    await cluster.dog('vdi create', name, '32M')
    await qemuIo(cluster.uri(name), ['write -P 0x6b 0 8M', 'flush'])
  }
  t.regex((await one.dog('vdi list', '-r')).stdout, /Alice/)
  t.notRegex((await one.dog('vdi list', '-r')).stdout, /Bob/)
  const before = (await one.dog('cluster info', '-r')).stdout
  await two.killAll()
  await qemuIo(one.uri('Alice', 1), ['read -P 0x6b 0 8M', 'write -P 0x6c 0 4M', 'flush'])
  t.is((await one.dog('cluster info', '-r')).stdout, before, 'the epoch moved')
  await two.startAll()
  await qemuIo(two.uri('Bob'), ['read -P 0x6b 0 8M'])
  await run(['qemu-io', '-f', 'raw', '-c', 'read -P 0x6c 0 4M', one.uri('Alice')])
})
