/**
 * Peers that are silent: the cable of a machine is cut for a while, what was sent meanwhile arrives late. Nobody
 * is declared dead (the membership driver does not notice), so everything must go on in the same epoch.
 */
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { silentLog } from '../../src/base/log.js'
import { asVid, dataOid } from '../../src/model/oid.js'
import { Peers } from '../../src/sheep/peers.js'
import { FrameReader, requestBodyLength } from '../../src/wire/sheepdog/frame.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { replyHead } from '../../src/wire/sheepdog/replies.js'
import { objectRequest, plainRequest } from '../../src/wire/sheepdog/requests.js'
import { BlockWriter } from './support/block-writer.js'
import { Dice } from './support/fake-cluster.js'
import { MemoryNetwork } from './support/memory-network.js'
import { withSeeds } from './support/seeds.js'
import { createObject, newVdi, readObject } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { VirtualClock } from './support/virtual-clock.js'
import { read, write } from './support/volume-io.js'

const SIZE = 4 << 20
const BLOCKS = 32
const BLOCK = 4096
/** How soon after a cable is whole again everything moves. */
const SOON_MS = 6_000

async function inUse(seed: number, copies: number) {
  const cluster = await SmallCluster.start({ seed, nodes: 3, copies })
  const client = await cluster.client(0)
  await newVdi(client, 'Alice', SIZE)
  client.close()
  const disk = await cluster.source(0).open('Alice')
  return { cluster, disk }
}

test('a cable cut for twenty seconds stalls writes no longer, and no late one overtakes', async (t) => {
  await withSeeds(6, async (seed) => {
    const { cluster, disk } = await inUse(seed, 3)
    const writer = new BlockWriter(disk, cluster.dice, BLOCKS)
    writer.start()
    const { epoch } = cluster.node(0).state
    for (let round = 0; round < 4; round++) {
      const before = writer.acknowledged
      await cluster.clock.until('writes', () => writer.acknowledged > before + 10)
      const card = cluster.card(1 + cluster.dice.below(2))
      card.isCut = true
      await cluster.clock.sleep(cluster.dice.below(20_000))
      const stalled = writer.acknowledged
      card.isCut = false
      await cluster.clock.until('writes again', () => writer.acknowledged > stalled + 4, {
        limitMs: SOON_MS,
      })
    }
    await writer.flush()
    await writer.stop()
    await cluster.settle()
    t.is(cluster.node(0).state.epoch, epoch)
    t.deepEqual(writer.failures, [], `SEED=${seed}`)
    t.deepEqual(writer.faults(await writer.look(disk)), [], `SEED=${seed}`)
    t.deepEqual(await cluster.copyFaults(), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('a read goes to another copy within a second while one owner is silent', async (t) => {
  const { cluster, disk } = await inUse(1, 2)
  const bytes = Buffer.alloc(BLOCK, 7)
  const offsets = Array.from({ length: BLOCKS }, (_, i) => (i * SIZE) / BLOCKS)
  for (const offset of offsets) t.is(await write(disk, offset, bytes, true), Code.SUCCESS)
  cluster.card(2).isCut = true
  let longest = 0
  for (let round = 0; round < 3; round++) {
    for (const offset of offsets) {
      const start = cluster.clock.now()
      t.deepEqual(await read(disk, offset, BLOCK), bytes)
      longest = Math.max(longest, cluster.clock.now() - start)
    }
  }
  t.true(longest < 1_000, `${longest} ms`)
  cluster.close()
})

test('a coded object is read by its parity within a second while one node is silent', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 3, policy: 0x11 })
  const client = await cluster.client(0)
  const vid = await newVdi(client, 'Alice', SIZE)
  const content = Buffer.alloc(1 << 20, 'fragments')
  const oids = [0, 1, 2, 3].map((index) => dataOid(vid, index))
  for (const oid of oids) {
    t.is((await createObject(client, oid, 0, content)).result, Code.SUCCESS)
  }
  for (const silent of [1, 2]) {
    cluster.card(silent).isCut = true
    for (const oid of oids) {
      const start = cluster.clock.now()
      t.true((await readObject(client, oid, 0, content.length)).body.equals(content))
      const ms = cluster.clock.now() - start
      t.true(ms < 1_000, `${ms} ms`)
    }
    cluster.card(silent).isCut = false
    await cluster.clock.sleep(20_000)
  }
  cluster.close()
})

/** A listener that answers HELLO with `code` and nothing else; its requests are counted. */
function stub(code: Code) {
  const clock = new VirtualClock()
  const dice = new Dice(1)
  const network = new MemoryNetwork(clock, dice)
  const seen = { connections: 0, requests: 0 }
  const node = { host: '127.0.0.1', port: 7000 }
  void network.card().listen(node, (connection) => {
    seen.connections++
    const reader = new FrameReader(requestBodyLength)
    connection.on({
      data: (chunk) => {
        reader.give(chunk)
        for (let frame = reader.next(); frame !== undefined; frame = reader.next()) {
          const { opcode, id } = frame
          const isFirst = opcode === Op.HELLO && seen.requests === 0
          if (isFirst) connection.write(replyHead({ opcode, id, epoch: 1, result: code }))
          else if (opcode !== Op.HELLO) seen.requests++
        }
      },
      close: () => undefined,
      drain: () => undefined,
    })
  })
  const bytes = (length: number): Buffer => Buffer.alloc(length, 1)
  const random = { below: (limit: number) => dice.below(limit), bytes }
  const self = { host: '127.0.0.1', port: 7001 }
  const peers = new Peers({ clock, network: network.card(), random }, silentLog, self)
  return { clock, node, peers, seen }
}

test('a silent node that knows no HELLO is waited for: it may do what it received at any time', async (t) => {
  const { clock, node, peers, seen } = stub(Code.INVALID_PARMS)
  const answers: unknown[] = []
  const head = plainRequest({ opcode: Op.STAT_SHEEP })
  peers.request(node, head, undefined, (reply) => answers.push(reply))
  await clock.sleep(600_000)
  t.deepEqual(answers, [])
  t.deepEqual(seen, { connections: 1, requests: 1 })
  peers.drop(node)
  await clock.sleep(10)
  t.deepEqual(answers, [undefined])
})

test('a silent node that knows HELLO is given up after five seconds', async (t) => {
  const { clock, node, peers } = stub(Code.SUCCESS)
  const answered = peers.call(node, plainRequest({ opcode: Op.STAT_SHEEP }))
  const start = clock.monotonic()
  await t.throwsAsync(answered, { message: /silent for 5000 ms/ })
  t.true(clock.monotonic() - start < 6_000)
  peers.close()
})

test('no more than a bounded number of requests and bytes is under way to one node', async (t) => {
  for (const { bytes, most } of [
    { bytes: 512, most: 224 },
    { bytes: 4 << 20, most: 12 },
  ]) {
    const { clock, node, peers, seen } = stub(Code.INVALID_PARMS)
    const payload = Buffer.alloc(bytes)
    let failed = 0
    for (let i = 0; i < 300; i++) {
      const oid = dataOid(asVid(1), i)
      const head = objectRequest({ opcode: Op.WRITE_PEER, flags: 1, oid, dataLength: bytes })
      peers.request(node, head, payload, (reply) => {
        if (reply === undefined) failed++
      })
    }
    await clock.sleep(1_000)
    t.is(seen.requests, most)
    peers.close()
    t.is(failed, 300)
  }
})
