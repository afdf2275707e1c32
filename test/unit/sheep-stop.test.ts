// Waits for somebody who does not answer end with the node that waits, or with the client it waits for.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { dataOid } from '../../src/model/oid.js'
import { createObject, newVdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { read, write } from './support/volume-io.js'

/** What is under way may end first, and the farewell be answered. */
const STOP_LIMIT_MS = 8_000

test('requests that wait for a silent node end when the node they came through stops', async (t) => {
  // Every node has a copy of everything, before and after.
  const cluster = await SmallCluster.start({ nodes: 3, copies: 4 })
  const client = await cluster.client(0)
  await newVdi(client, 'Alice', 4 << 20)
  client.close()
  const disk = await cluster.source(0).open('Alice')
  t.is(await write(disk, 0, Buffer.alloc(4096, 7)), Code.SUCCESS)
  // A new epoch, in which nobody may serve before the stopped one has told its suspects.
  cluster.freeze(2)
  await cluster.boot(cluster.addMachine())
  await cluster.clock.until('the next epoch', () => cluster.node(0).state.epoch === 2)
  const answers: (Buffer | Code)[] = []
  void read(disk, 0, 4096).then((answer) => answers.push(answer))
  void write(disk, 0, Buffer.alloc(4096, 8)).then((answer) => answers.push(answer))
  await cluster.clock.sleep(10_000)
  t.deepEqual(answers, [])
  cluster.node(0).cutShort()
  await cluster.clock.until('the answers', () => answers.length === 2)
  t.deepEqual(answers, [Code.SHUTDOWN, Code.SHUTDOWN])
  cluster.close()
})

test('a node that cannot ask the members for their volumes stops all the same', async (t) => {
  const cluster = await SmallCluster.start({ seed: 1, nodes: 5, copies: 3 })
  await cluster.stop(4)
  const { joined } = await cluster.launch(4)
  // The membership knows it; nobody answers its questions.
  cluster.card(4).isCut = true
  await cluster.clock.until('its join', () => cluster.node(0).state.members.length === 5)
  await cluster.clock.sleep(1000)
  const asked = cluster.clock.monotonic()
  let isOver = false
  void cluster.stop(4).then(() => {
    isOver = true
  })
  await cluster.clock.until('its end', () => isOver)
  t.true(cluster.clock.monotonic() - asked <= STOP_LIMIT_MS)
  await joined
  cluster.close()
})

test('a write is not tried again once its client is gone; what it did to some copies is made equal', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 3, copies: 3 })
  const client = await cluster.client(0)
  const vid = await newVdi(client, 'Alice', 4 << 20)
  const oid = dataOid(vid, 0)
  t.is((await createObject(client, oid, 0, Buffer.alloc(512, 1))).result, Code.SUCCESS)
  cluster.freeze(2)
  const { gateway } = cluster.node(0)
  const outcomes = new Map<string, Code>()
  let isThere = true
  const start = (name: string, isWanted: () => boolean, offset: number): void =>
    gateway.write(gateway.ref(oid, isWanted), offset, Buffer.alloc(512, 2), true, (code) =>
      outcomes.set(name, code),
    )
  start('of who left', () => isThere, 512)
  start('of who stayed', () => true, 1024)
  await cluster.clock.sleep(2_000)
  t.deepEqual([...outcomes], [])
  isThere = false
  cluster.kill(2)
  await cluster.clock.until('both outcomes', () => outcomes.size === 2)
  t.not(outcomes.get('of who left'), Code.SUCCESS)
  t.is(outcomes.get('of who stayed'), Code.SUCCESS)
  await cluster.boot(2)
  await cluster.settle()
  t.deepEqual(await cluster.copyFaults(), [])
  client.close()
  cluster.close()
})
