// Erasure-coded volumes on whole nodes: layout, partial writes, nodes that die and return, too few zones.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { dataOid, fragmentId, inodeOid, oidName } from '../../src/model/oid.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectRequest, plainRequest } from '../../src/wire/sheepdog/requests.js'
import { BlockWriter } from './support/block-writer.js'
import { codedFaults, codedObjects, fragmentOn } from './support/coded-faults.js'
import { seeds, withSeeds } from './support/seeds.js'
import { createObject, newVdi, readObject, writeObject } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { read, write } from './support/volume-io.js'

const OBJECT = 1 << 20
const SIZE = 4 * OBJECT
const P42 = 0x22
const P21 = 0x11

async function codedCluster(seed: number, nodes = 6, policy = P42) {
  const cluster = await SmallCluster.start({ seed, nodes, policy })
  const client = await cluster.client(0)
  const vid = await newVdi(client, 'e1', SIZE)
  return { cluster, client, vid }
}

const pattern = (length: number, seed = 0): Buffer =>
  Buffer.from(Array.from({ length }, (_, i) => (7 * (i + seed) + 13 * (i >> 9) + (i >> 16)) & 0xff))

test('objects lie as fragments on their owners, and inodes as replicas everywhere', async (t) => {
  const { cluster, client, vid } = await codedCluster(1)
  const oid = dataOid(vid, 0)
  const content = pattern(OBJECT)
  t.is((await createObject(client, oid, 0, content)).result, Code.SUCCESS)
  const read = await readObject(client, oid, 0, OBJECT)
  t.true(read.body.equals(content))
  t.deepEqual(await codedFaults(cluster), [])
  t.deepEqual(codedObjects(cluster), [oid])
  for (const index of cluster.up()) t.true(cluster.node(index).store.has(inodeOid(vid)))
  // Strip 0 of the first stripe, by the rule of the specification.
  const holders = cluster.up().filter((i) => cluster.node(i).store.has(fragmentId(oid, 0)))
  t.is(holders.length, 1)
  const first = await fragmentOn(cluster, holders[0]!, oid, 0)
  t.is(first!.length, OBJECT / 4)
  t.is(first!.subarray(0, 8).toString('hex'), '00070e151c232a31')
  const [machine] = cluster.machines.filter((_, i) => i === holders[0])
  t.true(machine!.files.exists(`/sheep/obj/${oidName(oid)}_0`))
  cluster.close()
})

test('who asks a node which objects it lacks is told of coded ones by any fragment', async (t) => {
  const { cluster, client, vid } = await codedCluster(1)
  const [here, never] = [dataOid(vid, 0), dataOid(vid, 1)]
  t.is((await createObject(client, here, 0, pattern(10))).result, Code.SUCCESS)
  const oids = Buffer.alloc(24)
  ;[here, never, inodeOid(vid)].forEach((oid, i) => void oids.writeBigUInt64LE(oid, 8 * i))
  const flags = Flag.WRITE | Flag.PIGGYBACK
  const head = plainRequest({ opcode: Op.OIDS_EXIST, flags, dataLength: oids.length })
  const reply = await client.call(head, oids)
  t.is(reply.result, Code.NO_OBJ)
  t.deepEqual(reply.body, oids.subarray(8, 16))
  cluster.close()
})

test('writes of any offset and length leave the rest of their stripes alone', async (t) => {
  for (const policy of [P21, P42, 0x42, 0x82]) {
    const width = policy === P21 ? 3 : policy === P42 ? 6 : policy === 0x42 ? 10 : 18
    const { cluster, client, vid } = await codedCluster(3, width, policy)
    const oid = dataOid(vid, 1)
    const model = Buffer.alloc(OBJECT)
    pattern(3000).copy(model, 777)
    t.is((await createObject(client, oid, 777, model.subarray(777, 3777))).result, Code.SUCCESS)
    for (let round = 0; round < 25; round++) {
      const length = 1 + cluster.dice.below(round % 2 === 0 ? 600 : 5000)
      const offset = cluster.dice.below(OBJECT - length)
      const data = pattern(length, round)
      data.copy(model, offset)
      t.is((await writeObject(client, oid, offset, data)).result, Code.SUCCESS)
    }
    const back = await readObject(client, oid, 0, OBJECT)
    t.true(back.body.equals(model), `policy ${policy}`)
    const part = await readObject(client, oid, 12345, 6789)
    t.true(part.body.equals(model.subarray(12345, 12345 + 6789)))
    t.deepEqual(await codedFaults(cluster), [])
    cluster.close()
  }
})

test('concurrent partial writes of one stripe through one gateway lose nothing', async (t) => {
  for (const seed of seeds(2)) {
    const { cluster, client, vid } = await codedCluster(seed)
    const oid = dataOid(vid, 0)
    await createObject(client, oid, 0, Buffer.alloc(0))
    const writes = Array.from({ length: 64 }, (_, i) =>
      writeObject(client, oid, 8 * i + 100, Buffer.alloc(8, i + 1)),
    )
    const reads = Array.from({ length: 8 }, () => readObject(client, oid, 0, 1024))
    for (const { result } of await Promise.all(writes)) t.is(result, Code.SUCCESS)
    await Promise.all(reads)
    const { body } = await readObject(client, oid, 0, 1024)
    for (let i = 0; i < 64; i++) {
      t.true(body.subarray(8 * i + 100, 8 * i + 108).equals(Buffer.alloc(8, i + 1)), `${seed} ${i}`)
    }
    t.deepEqual(await codedFaults(cluster), [], `SEED=${seed}`)
    cluster.close()
  }
})

test('an object that does not exist is NO_OBJ at once, also to a partial write (P9, P14)', async (t) => {
  const { cluster, client, vid } = await codedCluster(1)
  const oid = dataOid(vid, 3)
  t.is((await readObject(client, oid, 0, 512)).result, Code.NO_OBJ)
  t.is((await writeObject(client, oid, 100, Buffer.from('x'))).result, Code.NO_OBJ)
  t.is((await writeObject(client, oid, 0, Buffer.alloc(512))).result, Code.NO_OBJ)
  cluster.close()
})

test('a removed object leaves no fragment anywhere', async (t) => {
  const { cluster, client, vid } = await codedCluster(1)
  const oid = dataOid(vid, 0)
  await createObject(client, oid, 0, pattern(5000))
  const head = objectRequest({ opcode: Op.REMOVE_OBJ, oid })
  t.is((await client.call(head)).result, Code.SUCCESS)
  t.deepEqual(codedObjects(cluster), [])
  t.is((await readObject(client, oid, 0, 512)).result, Code.NO_OBJ)
  cluster.close()
})

test('with fragments lost a read decodes from parity (P9)', async (t) => {
  for (const lost of [[3], [0, 1], [2, 5]]) {
    const { cluster, client, vid } = await codedCluster(2)
    const oid = dataOid(vid, 0)
    const content = pattern(OBJECT)
    await createObject(client, oid, 0, content)
    for (const fragment of lost) {
      const id = fragmentId(oid, fragment)
      const holder = cluster.up().find((i) => cluster.node(i).store.has(id))!
      cluster.kill(holder)
    }
    const gateway = await cluster.client(cluster.up()[0]!)
    await cluster.settle()
    const whole = await readObject(gateway, oid, 0, OBJECT)
    t.is(whole.result, Code.SUCCESS, `${lost}`)
    t.true(whole.body.equals(content), `${lost}`)
    const part = await readObject(gateway, oid, 1000, 3000)
    t.true(part.body.equals(content.subarray(1000, 4000)), `${lost}`)
    cluster.close()
  }
})

test('with fewer zones than fragments writes are refused, reads go on, and nothing moves (P10)', async (t) => {
  const { cluster, client, vid } = await codedCluster(4)
  const oid = dataOid(vid, 0)
  const content = pattern(OBJECT)
  await createObject(client, oid, 0, content)
  const before = new Map(cluster.up().map((i) => [i, cluster.node(i).store.piecesOf(oid)]))
  cluster.kill(5)
  await cluster.clock.sleep(50)
  await cluster.settle()
  t.is((await writeObject(client, oid, 0, Buffer.alloc(512, 1))).result, Code.HALT)
  t.is((await createObject(client, dataOid(vid, 1), 0, Buffer.alloc(512, 1))).result, Code.HALT)
  t.true((await readObject(client, oid, 0, OBJECT)).body.equals(content))
  for (const index of cluster.up()) {
    t.deepEqual(cluster.node(index).store.piecesOf(oid), before.get(index))
  }
  await cluster.boot(5)
  await cluster.settle()
  t.is((await writeObject(client, oid, 0, Buffer.alloc(512, 1))).result, Code.SUCCESS)
  t.deepEqual(await codedFaults(cluster), [])
  cluster.close()
})

test('a block door waits for zones instead of failing', async (t) => {
  const { cluster } = await codedCluster(5)
  const disk = await cluster.source(0).open('e1')
  t.is(await write(disk, 0, Buffer.alloc(4096, 1)), Code.SUCCESS)
  cluster.kill(3)
  await cluster.clock.sleep(50)
  let written: Code | undefined
  const writing = write(disk, 4096, Buffer.alloc(4096, 2)).then((code) => {
    written = code
  })
  await cluster.clock.sleep(5_000)
  t.is(written, undefined)
  await cluster.boot(3)
  await cluster.clock.until('the write', () => written !== undefined)
  await writing
  t.is(written, Code.SUCCESS)
  const found = await read(disk, 0, 8192)
  t.deepEqual(found, Buffer.concat([Buffer.alloc(4096, 1), Buffer.alloc(4096, 2)]))
  cluster.close()
})

test('a node more than fragments: one dies under a disk in use, and its fragments are made anew', async (t) => {
  await withSeeds(2, async (seed) => {
    const { cluster } = await codedCluster(seed, 7)
    const disk = await cluster.source(0).open('e1')
    const writer = new BlockWriter(disk, cluster.dice, 32)
    writer.start()
    await cluster.clock.until('some writes', () => writer.acknowledged > 20)
    const victim = 1 + cluster.dice.below(6)
    cluster.kill(victim, { power: seed % 2 === 0 })
    const before = writer.acknowledged
    await cluster.clock.until('more writes', () => writer.acknowledged > before + 40)
    if (seed % 2 === 0) await cluster.settle()
    await cluster.boot(victim)
    const then = writer.acknowledged
    await cluster.clock.until('more writes', () => writer.acknowledged > then + 20)
    await writer.flush()
    await writer.stop()
    await cluster.settle()
    t.deepEqual(writer.failures, [], `SEED=${seed}`)
    t.deepEqual(writer.faults(await writer.look(disk)), [], `SEED=${seed}`)
    t.deepEqual(await codedFaults(cluster), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('nodes that come and go all the time never disturb a coded disk in use', async (t) => {
  await withSeeds(2, async (seed) => {
    const { cluster } = await codedCluster(seed, 6)
    const disk = await cluster.source(0).open('e1')
    const writer = new BlockWriter(disk, cluster.dice, 32)
    writer.start()
    for (let round = 0; round < 5; round++) {
      const victims = [1 + cluster.dice.below(3), 4 + cluster.dice.below(2)]
      if (cluster.dice.chance(0.5)) victims.pop()
      for (const victim of victims) cluster.kill(victim, { power: cluster.dice.chance(0.5) })
      await cluster.clock.sleep(cluster.dice.below(400))
      for (const victim of victims) await cluster.boot(victim)
      const before = writer.acknowledged
      await cluster.clock.until('writes', () => writer.acknowledged > before + 10)
      if (cluster.dice.chance(0.5)) await cluster.settle()
    }
    await writer.flush()
    await writer.stop()
    await cluster.settle()
    t.deepEqual(writer.failures, [], `SEED=${seed}`)
    t.deepEqual(writer.faults(await writer.look(disk)), [], `SEED=${seed}`)
    t.deepEqual(await codedFaults(cluster), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('flushed data outlives the loss of power of all nodes', async (t) => {
  await withSeeds(2, async (seed) => {
    const { cluster } = await codedCluster(seed, 6)
    const disk = await cluster.source(0).open('e1')
    const writer = new BlockWriter(disk, cluster.dice, 16)
    writer.start()
    await cluster.clock.until('some writes', () => writer.acknowledged > 40)
    await writer.stop()
    await writer.flush()
    await cluster.cutPower()
    const again = await cluster.source(0).open('e1')
    t.deepEqual(writer.faults(await writer.look(again), { lost: true }), [], `SEED=${seed}`)
    cluster.close()
  })
})

test('a peer that names an impossible fragment, or more than it holds, is refused', async (t) => {
  const { cluster, client, vid } = await codedCluster(1)
  const oid = dataOid(vid, 0)
  await createObject(client, oid, 0, pattern(512))
  const { epoch } = cluster.node(0).state
  const ask = (fields: { fragment: number; dataLength: number; policy?: number }) =>
    client.call(objectRequest({ opcode: Op.READ_PEER, epoch, oid, ...fields }))
  t.is((await ask({ fragment: 6, dataLength: 128 })).result, Code.INVALID_PARMS)
  t.is((await ask({ fragment: 255, dataLength: 128 })).result, Code.INVALID_PARMS)
  t.is((await ask({ fragment: 0, dataLength: OBJECT / 4 + 1 })).result, Code.INVALID_PARMS)
  // Somebody who knows another policy for this volume knows more or less than this node.
  t.is((await ask({ fragment: 0, dataLength: 128, policy: P21 })).result, Code.AGAIN)
  const beyond = objectRequest({
    ...{ opcode: Op.WRITE_PEER, flags: Flag.WRITE, epoch, oid, fragment: 0 },
    ...{ offset: OBJECT / 4, dataLength: 1 },
  })
  t.is((await client.call(beyond, Buffer.alloc(1))).result, Code.INVALID_PARMS)
  cluster.close()
})

test('a member that never got its fragment proves nothing: with too few others the object waits for them', async (t) => {
  await withSeeds(2, async (seed) => {
    const { cluster, client } = await codedCluster(seed)
    const disk = await cluster.source(1).open('e1')
    const content = pattern(SIZE, seed)
    t.is(await write(disk, 0, content), Code.SUCCESS)
    client.close()
    // One is lost for good. Who comes in its place goes again before it has got anything, and the rest settle.
    cluster.kill(0)
    await cluster.settle()
    const fresh = cluster.addMachine()
    await cluster.boot(fresh)
    cluster.kill(fresh)
    await cluster.settle()
    await cluster.boot(fresh)
    for (const away of [4, 5]) cluster.kill(away)
    const answers: (Buffer | Code)[] = []
    for (let at = 0; at < SIZE; at += OBJECT) {
      void read(disk, at, OBJECT).then((answer) => answers.push(answer))
    }
    await cluster.clock.sleep(60_000)
    t.deepEqual(
      answers.filter((answer) => typeof answer === 'number'),
      [],
      `SEED=${seed}`,
    )
    for (const back of [4, 5]) await cluster.boot(back)
    await cluster.settle()
    await cluster.clock.until('the answers', () => answers.length === SIZE / OBJECT)
    const found = await read(disk, 0, SIZE)
    t.true(content.equals(found as Buffer), `SEED=${seed}`)
    t.deepEqual(await codedFaults(cluster), [], `SEED=${seed}`)
    cluster.close()
  })
})
