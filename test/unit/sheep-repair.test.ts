// REPAIR_REPLICA by several at once: each takes the copy of another one, and nobody may wait for a copy that waits for his.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { dataOid, type Oid } from '../../src/model/oid.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { forwardRequest, objectRequest } from '../../src/wire/sheepdog/requests.js'
import { createObject, newVdi, readObject, setSlot, writeObject } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const OBJECT = 1 << 20
const PATIENCE_MS = 60_000

interface Rig {
  readonly cluster: SmallCluster
  readonly oid: Oid
  /** Asks the node to take the copy of another one over; 'never' when no answer comes. */
  readonly repair: (index: number, from: number) => Promise<number | 'never'>
}

/** An object whose copies on the three nodes are `copy 0`, `copy 1` and `copy 2`. */
async function different(): Promise<Rig> {
  const cluster = await SmallCluster.start({ copies: 3 })
  const client = await cluster.client(0)
  const alice = await newVdi(client, 'Alice', 4 * OBJECT)
  const oid = dataOid(alice, 0)
  await createObject(client, oid, 0, Buffer.from('all the same'))
  await setSlot(client, alice, 0, alice)
  await cluster.settle()
  for (const index of cluster.up()) {
    const { store } = cluster.node(index)
    const data = Buffer.from(`copy ${index}`)
    await new Promise((resolve) => store.write(oid, 0, data, { durable: true }, resolve))
  }
  const repair = async (index: number, from: number): Promise<number | 'never'> => {
    const asker = await cluster.client(index)
    const { host, port } = cluster.machines[from]!.self
    const head = forwardRequest({ opcode: Op.REPAIR_REPLICA, oid, host, port })
    return Promise.race([
      asker.call(head).then(({ result }) => result),
      cluster.clock.sleep(PATIENCE_MS).then(() => 'never' as const),
    ])
  }
  return { cluster, oid, repair }
}

/** The object is read and written through every node. */
async function serves({ cluster, oid }: Rig): Promise<string[]> {
  const faults: string[] = []
  for (const index of cluster.up()) {
    const client = await cluster.client(index)
    const late = cluster.clock.sleep(PATIENCE_MS).then(() => undefined)
    const reply = await Promise.race([readObject(client, oid, 0, 6), late])
    if (reply?.result !== Code.SUCCESS || !reply.body.toString().startsWith('copy')) {
      faults.push(`node ${index} reads ${reply?.result}`)
      continue
    }
    const { result } = await writeObject(client, oid, 100, Buffer.from(`by ${index}`))
    if (result !== Code.SUCCESS) faults.push(`node ${index} writes ${result}`)
  }
  return faults
}

const RINGS: readonly (readonly (readonly [number, number])[])[] = [
  [
    [0, 1],
    [1, 0],
  ],
  [
    [0, 1],
    [1, 2],
    [2, 0],
  ],
  [
    [2, 1],
    [1, 0],
  ],
]

for (const ring of RINGS) {
  const name = ring.map(([index, from]) => `${index} from ${from}`).join(', ')
  test(`repairs at once end: ${name}`, async (t) => {
    const rig = await different()
    const { cluster, repair } = rig
    const answers = await Promise.all(ring.map(([index, from]) => repair(index, from)))
    for (const answer of answers)
      t.true(answer === Code.SUCCESS || answer === Code.AGAIN, `${answer}`)
    t.deepEqual(await serves(rig), [])
    // One after the other they do what they are asked.
    for (const index of [1, 2]) t.is(await repair(index, 0), Code.SUCCESS)
    await cluster.settle()
    t.deepEqual(await cluster.copyFaults(), [])
    t.deepEqual(cluster.failures(), [])
    cluster.close()
  })
}

test('a write that fails on some copies while repairs cross is decided for all alike', async (t) => {
  const rig = await different()
  const { cluster, oid, repair } = rig
  const crossing = [repair(0, 1), repair(1, 0), repair(2, 0)]
  for (const index of cluster.up()) {
    const { epoch } = cluster.node(index).state
    const head = objectRequest({ opcode: Op.SUSPECT, flags: Flag.DIRECT, epoch, oid })
    t.is((await (await cluster.client(index)).call(head)).result, Code.SUCCESS)
  }
  for (const answer of await Promise.all(crossing)) t.not(answer, 'never')
  await cluster.settle()
  t.deepEqual(await serves(rig), [])
  t.deepEqual(await cluster.copyFaults(), [])
  cluster.close()
})
