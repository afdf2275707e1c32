/**
 * Nodes with a second address (-i). Whole nodes on a memory network; the cable of one machine's data network is
 * cut while somebody writes. What a node sends says which network it uses.
 */
import test from 'ava'
import { BlockWriter } from './support/block-writer.js'
import { withSeeds } from './support/seeds.js'
import { newVdi } from './support/sheep-wire.js'
import { IO_PORT_FIRST, SmallCluster } from './support/small-cluster.js'

const VICTIM = 1

async function inUse(seed: number) {
  const cluster = await SmallCluster.start({ seed, nodes: 3, copies: 3, io: true })
  const client = await cluster.client(0)
  await newVdi(client, 'Alice', 4 << 20)
  client.close()
  const disk = await cluster.source(0).open('Alice')
  const writer = new BlockWriter(disk, cluster.dice, 32)
  const sent = new Map<number, number>()
  cluster.card(0).onSend = (port) => sent.set(port, (sent.get(port) ?? 0) + 1)
  /** Ports of the victim that node 0 sends to while somebody writes. */
  const portsInUse = async (): Promise<number[]> => {
    sent.clear()
    const before = writer.acknowledged
    await cluster.clock.until('writes', () => writer.acknowledged > before + 20, { limitMs: 8_000 })
    return [...sent.keys()].filter((port) => port % 1000 === VICTIM).sort()
  }
  writer.start()
  return { cluster, disk, writer, portsInUse }
}

test('data goes over the second network, over the first while that is cut, and back', async (t) => {
  await withSeeds(4, async (seed) => {
    const { cluster, disk, writer, portsInUse } = await inUse(seed)
    const { epoch } = cluster.node(0).state
    const [main, io] = [7000 + VICTIM, IO_PORT_FIRST + VICTIM]
    t.deepEqual(await portsInUse(), [io])
    cluster.cutIo(VICTIM, true)
    const stalledAt = cluster.clock.now()
    const before = writer.acknowledged
    await cluster.clock.until('writes', () => writer.acknowledged > before + 8)
    t.true(cluster.clock.now() - stalledAt < 4_000, `${cluster.clock.now() - stalledAt} ms`)
    t.deepEqual(await portsInUse(), [main])
    await writer.stop()
    await cluster.clock.sleep(30_000)
    cluster.cutIo(VICTIM, false)
    await cluster.clock.sleep(8_000)
    writer.start()
    t.deepEqual(await portsInUse(), [io])
    await writer.stop()
    await cluster.settle()
    t.is(cluster.node(0).state.epoch, epoch)
    t.deepEqual(writer.failures, [], `SEED=${seed}`)
    t.deepEqual(writer.faults(await writer.look(disk)), [], `SEED=${seed}`)
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('a network that comes and goes all the time costs no error and overtakes nothing', async (t) => {
  await withSeeds(4, async (seed) => {
    const { cluster, disk, writer } = await inUse(seed)
    for (let round = 0; round < 8; round++) {
      const index = 1 + cluster.dice.below(2)
      cluster.cutIo(index, true)
      const before = writer.acknowledged
      const some = cluster.dice.below(12)
      await cluster.clock.until('writes', () => writer.acknowledged > before + some)
      cluster.cutIo(index, false)
      // Sometimes with, sometimes without anything under way.
      if (cluster.dice.chance(0.5)) await writer.stop()
      else await cluster.clock.sleep(cluster.dice.below(300))
      await writer.stop()
      await cluster.clock.sleep(cluster.dice.below(9_000))
      writer.start()
    }
    await writer.stop()
    await writer.flush()
    await cluster.settle()
    t.deepEqual(writer.failures, [], `SEED=${seed}`)
    t.deepEqual(writer.faults(await writer.look(disk)), [], `SEED=${seed}`)
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('the second address is announced, and survives in the epoch log', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 2, copies: 2, io: true })
  const hosts = [0, 1].map((i) => ({ host: '127.0.0.2', port: IO_PORT_FIRST + i }))
  const { state, epochLog } = cluster.node(0)
  t.deepEqual(
    state.members.map(({ io }) => io!),
    hosts,
  )
  t.deepEqual(
    state.epochNodes.map(({ io }) => io!),
    hosts,
  )
  t.deepEqual(
    epochLog.read(1)!.nodes.map(({ io }) => io!),
    hosts,
  )
  cluster.close()
})
