/** The corosync driver with real corosync daemons and real sheep. */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { planCluster, type TestCluster } from './support/cluster.js'
import { type CorosyncRing, startCorosync } from './support/corosync.js'
import { needing } from './support/suite.js'

const isBuilt = existsSync(fileURLToPath(new URL('../../native/cpg.node', import.meta.url)))
const isRoot = process.getuid?.() === 0

/** Also skips where namespaces cannot be made, or the binding was built without corosync's headers. */
function realTest(title: string, body: (t: ExecutionContext) => Promise<void>): void {
  const register = needing('corosync', 'corosync-cmapctl', 'unshare', 'nsenter', 'ip')
  if (isBuilt && isRoot) register(title, body)
  else test.serial.skip(`${title} (needs root and a build with corosync's headers)`, body)
}

/** Sheep on the hosts of the ring, as many as `hostOf` names. */
async function sheepOn(
  t: ExecutionContext,
  ring: CorosyncRing,
  hostOf: readonly number[],
): Promise<TestCluster> {
  return planCluster(t, {
    nodes: hostOf.length,
    place: (index) => {
      const { address, inside } = ring.host(hostOf[index]!)
      return { driver: 'corosync', host: address, inside }
    },
  })
}

realTest('three sheep of one host: format, write, crash and return', async (t) => {
  const ring = await startCorosync(t)
  const cluster = await sheepOn(t, ring, [0, 0, 0])
  await cluster.startAll()
  await cluster.dog('cluster format', '-c', '3')
  await cluster.dog('vdi create', 'Alice', '64M')
  await cluster.node(2).kill()
  await cluster.members(2)
  await cluster.node(2).start()
  await cluster.members(3)
  await cluster.recovered()
  await cluster.node(1).stop()
  await cluster.members(2)
  const { stdout } = await cluster.dog('vdi list', '-r')
  t.regex(stdout, /Alice/)
})
