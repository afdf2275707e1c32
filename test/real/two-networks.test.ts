/** Packets really lost between real daemons: on the data network (-i), and on the only one. */
import { readFile } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { nbdcopy } from './support/clients.js'
import { planCluster, type TestCluster } from './support/cluster.js'
import { type Slot, startFlushingWriter, wrongSlots } from './support/flushing-writer.js'
import { until } from './support/run.js'
import { copiesSettled } from './support/same-copies.js'
import { needing } from './support/suite.js'
import { startTwoNetworks, type TwoNetworkHost } from './support/two-networks.js'

const PATIENCE_MS = 300_000
/** For something that takes seconds, on a loaded machine. */
const NOTICE_MS = 60_000
/** TCP alone tries again 51 and then 102 seconds after the first loss (RFC 6298: the time doubles). */
const CUT_MS = 55_000
const SOON_MS = 30_000
const SLOT_BYTES = 64 * 1024
const SLOTS = 64
const VICTIM = 1
const IO_PORT = 7001
/** Far more than members say to each other without data. */
const DATA_BYTES = 1_000_000

/** Also skips where namespaces cannot be made. */
function realTest(title: string, body: (t: ExecutionContext) => Promise<void>): void {
  const patient = (t: ExecutionContext): Promise<void> => {
    t.timeout(PATIENCE_MS)
    return body(t)
  }
  const register = needing('qemu-io', 'nbdcopy', 'unshare', 'nsenter', 'ip', 'bridge')
  if (process.getuid?.() === 0) register(title, patient)
  else test.serial.skip(`${title} (needs root)`, body)
}

/** Three nodes with three copies, one a host, and a writer through node 0. */
async function inUse(t: ExecutionContext, { io }: { readonly io: boolean }) {
  const hosts = await startTwoNetworks(t, 3)
  const cluster = await planCluster(t, {
    nodes: hosts.length,
    place: (index) => ({ host: hosts[index]!.address, inside: hosts[index]!.inside }),
  })
  for (const [index, node] of cluster.nodes.entries()) {
    const second = ['-i', `host=${hosts[index]!.dataAddress},port=${IO_PORT}`]
    await node.start(io ? second : [])
  }
  await cluster.members(hosts.length)
  await cluster.dog('cluster format', '-c', `${hosts.length}`)
  await cluster.dog('vdi create', 'Alice', '16M')
  const slots: Slot[] = Array.from({ length: SLOTS }, () => ({ flushed: 0, later: [] }))
  let seed = 17
  const below = (limit: number): number => {
    seed = (seed * 48271) % 2147483647
    return seed % limit
  }
  const uri = cluster.uri('Alice')
  const writer = startFlushingWriter({ uri, slots, slotBytes: SLOT_BYTES, below })
  const moreFlushes = async (what: string, count = 3, limitMs = NOTICE_MS): Promise<void> => {
    const before = writer.flushes()
    await until(`flushes ${what}`, limitMs, () => writer.flushes() > before + count)
  }
  await moreFlushes('at first')
  return { hosts, cluster, slots, writer, moreFlushes }
}

async function epochOf(cluster: TestCluster): Promise<number> {
  const { stdout } = await cluster.dog('cluster info', '--json')
  return (JSON.parse(stdout) as { epochs: { epoch: number }[] }).epochs[0]!.epoch
}

async function says(cluster: TestCluster, event: string): Promise<void> {
  await until(event, NOTICE_MS, async () => (await cluster.node(0).logTail()).includes(event))
}

/** Bytes the host got over that network while the writer flushed a few times. */
async function receivedDuring(host: TwoNetworkHost, work: () => Promise<void>) {
  const before = [await host.receivedBytes('main'), await host.receivedBytes('data')] as const
  await work()
  return {
    main: (await host.receivedBytes('main')) - before[0],
    data: (await host.receivedBytes('data')) - before[1],
  }
}

async function allIsThere(t: ExecutionContext, cluster: TestCluster, slots: readonly Slot[]) {
  t.deepEqual(await copiesSettled(cluster), [])
  const image = `${cluster.directory}/Alice.img`
  await nbdcopy(cluster.uri('Alice', 2), image)
  t.deepEqual(wrongSlots(await readFile(image), slots, SLOT_BYTES), [])
}

realTest(
  'data goes over the second network, over the first while that is cut, and back',
  async (t) => {
    const { hosts, cluster, slots, writer, moreFlushes } = await inUse(t, { io: true })
    const host = hosts[VICTIM]!
    const epoch = await epochOf(cluster)
    const atFirst = await receivedDuring(host, () => moreFlushes('on the data network', 8))
    t.true(atFirst.data > DATA_BYTES && atFirst.main < atFirst.data / 4, JSON.stringify(atFirst))

    await host.cut('data')
    await moreFlushes('around the cut')
    await says(cluster, 'peer.io.lost')
    const around = await receivedDuring(host, () => moreFlushes('on the main network', 8))
    t.true(around.main > DATA_BYTES, JSON.stringify(around))

    await host.heal('data')
    await says(cluster, 'peer.io.back')
    await moreFlushes('around the return')
    const again = await receivedDuring(host, () => moreFlushes('on the data network again', 8))
    t.true(again.data > DATA_BYTES && again.main < again.data / 4, JSON.stringify(again))

    t.is(await epochOf(cluster), epoch)
    // Its server is stopped: the last batch may be there or not.
    await cluster.node(0).stop()
    await writer.done
    await cluster.node(0).start(['-i', `host=${hosts[0]!.dataAddress},port=${IO_PORT}`])
    await allIsThere(t, cluster, slots)
  },
)

realTest('packets lost for almost a minute stall writes little longer than that', async (t) => {
  const { hosts, cluster, slots, writer, moreFlushes } = await inUse(t, { io: false })
  const epoch = await epochOf(cluster)
  const host = hosts[VICTIM]!
  await host.cut('main')
  await pause(CUT_MS)
  await host.heal('main')
  await moreFlushes('after the cut', 3, SOON_MS)
  t.is(await epochOf(cluster), epoch)
  await cluster.node(0).stop()
  await writer.done
  await cluster.node(0).start()
  await allIsThere(t, cluster, slots)
})
