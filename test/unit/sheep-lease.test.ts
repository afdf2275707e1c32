/**
 * A node that stands still (SIGSTOP) past its lease while the others go on: it must not answer with what it
 * remembers, not even to the request that is the first thing it sees when it runs again.
 */
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { silentLog } from '../../src/base/log.js'
import { dataOid, type Oid } from '../../src/model/oid.js'
import type { SheepClient } from '../../src/peer/client.js'
import { Lease } from '../../src/sheep/lease.js'
import type { Frame } from '../../src/wire/sheepdog/frame.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { decodeNodeReply } from '../../src/wire/sheepdog/replies.js'
import { objectRequest } from '../../src/wire/sheepdog/requests.js'
import { withSeeds } from './support/seeds.js'
import { ask, createObject, newVdi, readObject, writeObject } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { VirtualClock } from './support/virtual-clock.js'

const LEASE_MS = 5_000
const BYTES = 4096

const filled = (value: number): Buffer => Buffer.alloc(BYTES, value)

function mustSucceed({ result }: Frame): void {
  if (result !== Code.SUCCESS) throw new Error(`refused with ${result}`)
}

/** Three nodes that all hold an object filled with 1, and a client of the one that will stand still. */
async function ready(seed: number) {
  const cluster = await SmallCluster.start({ seed, nodes: 3, copies: 3, leaseMs: LEASE_MS })
  const client = await cluster.client(0)
  const oid = dataOid(await newVdi(client, 'Alice', 4 << 20), 0)
  mustSucceed(await createObject(client, oid, 0, filled(1)))
  const sleeper = await cluster.client(2)
  await cluster.settle()
  return { cluster, client, oid, sleeper }
}

/** As another gateway of that epoch would ask. */
function readCopy(sleeper: SheepClient, oid: Oid, epoch: number): Promise<Frame> {
  return sleeper.call(objectRequest({ opcode: Op.READ_PEER, epoch, oid, dataLength: BYTES }))
}

test('a node stopped for longer than its lease never gives away old data, nor changes anything', async (t) => {
  await withSeeds(5, async (seed) => {
    const { cluster, client, oid, sleeper } = await ready(seed)
    const { epoch } = cluster.node(2).state
    cluster.freeze(2)
    const outcomes: (Frame | undefined)[] = []
    const collect = (frame: Promise<Frame>): void => {
      void frame.then(
        (reply) => outcomes.push(reply),
        () => outcomes.push(undefined),
      )
    }
    // The first things it will see.
    collect(readCopy(sleeper, oid, epoch))
    collect(readObject(sleeper, oid, 0, BYTES))
    const written = writeObject(sleeper, oid, 0, filled(9)).then(
      ({ result }) => result,
      () => undefined,
    )
    await cluster.clock.until('they go on', () => cluster.node(0).state.epoch > epoch)
    mustSucceed(await writeObject(client, oid, 0, filled(2)))
    cluster.thaw(2)
    await cluster.clock.until('an end', () => outcomes.length === 2)
    for (const reply of outcomes) {
      const isOld = reply?.result === Code.SUCCESS && !reply.body.equals(filled(2))
      t.false(isOld, `SEED=${seed}`)
    }
    t.not(await written, Code.SUCCESS, `SEED=${seed}`)
    t.deepEqual((await readObject(client, oid, 0, BYTES)).body, filled(2))
    cluster.close()
  })
})

test('a node that is not sure says so, refuses its copies to others, and lets its clients wait', async (t) => {
  const { cluster, oid, sleeper } = await ready(1)
  const { epoch } = cluster.node(2).state
  cluster.freeze(2)
  const stat = ask(sleeper, Op.STAT_SHEEP)
  const copy = readCopy(sleeper, oid, epoch)
  const read = readObject(sleeper, oid, 0, BYTES)
  const write = writeObject(sleeper, oid, 0, filled(3))
  await cluster.clock.sleep(LEASE_MS * 0.9)
  cluster.thaw(2)
  t.true(decodeNodeReply(await stat).unsure)
  t.is((await copy).result, Code.WAIT_FOR_JOIN)
  t.deepEqual((await read).body, filled(1))
  t.is((await write).result, Code.SUCCESS)
  t.is(cluster.node(0).state.epoch, epoch)
  t.false(decodeNodeReply(await ask(sleeper, Op.STAT_SHEEP)).unsure)
  t.regex(
    cluster.logged.join('\n'),
    /7002 warn membership.unsure(.*\n)*.*7002 info membership.sure/,
  )
  cluster.close()
})

test('where the driver needs no lease the clock is not asked', (t) => {
  const clock = new VirtualClock()
  clock.monotonic = () => t.fail() as never
  const sureUntil = (): number => Number.POSITIVE_INFINITY
  const lease = new Lease({ clock, log: silentLog, sureUntil, renewed: () => undefined })
  t.true(lease.isSure)
})
