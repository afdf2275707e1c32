/**
 * HELLO: what a node sent on a connection it gave up is not done after it has been answered on a newer one.
 * Real nodes on a memory network; the rude client speaks frames.
 */
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { type Greeter, Greetings } from '../../src/doors/sheepdog/greetings.js'
import { asVid, dataOid } from '../../src/model/oid.js'
import type { SheepClient } from '../../src/peer/client.js'
import { Caller } from '../../src/sheep/caller.js'
import { encodeHello, type Hello } from '../../src/wire/sheepdog/hello.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectRequest, plainRequest } from '../../src/wire/sheepdog/requests.js'
import { SmallCluster } from './support/small-cluster.js'

const BYTES = 4096

function hello(client: SheepClient, serial: number, incarnation = 'process1'): Promise<Code> {
  const body = encodeHello({
    host: '127.0.0.1',
    port: 9999,
    incarnation: Buffer.from(incarnation),
    serial,
  })
  const head = plainRequest({ opcode: Op.HELLO, flags: Flag.WRITE, dataLength: body.length })
  return client.call(head, body).then(({ result }) => result as Code)
}

function write(client: SheepClient, epoch: number, fill: number): Promise<Code> {
  const head = objectRequest({
    opcode: Op.CREATE_AND_WRITE_PEER,
    flags: Flag.WRITE | Flag.DIRECT,
    epoch,
    oid: dataOid(asVid(7), 0),
    dataLength: BYTES,
  })
  return client.call(head, Buffer.alloc(BYTES, fill)).then(({ result }) => result as Code)
}

test('what waits on an older connection of a node is never done once a newer one was greeted', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 1, copies: 1 })
  const { local, state } = cluster.node(0)
  const [old, young] = [await cluster.client(0), await cluster.client(0)]
  t.is(await hello(old, 1), Code.SUCCESS)
  const lost = t.throwsAsync(write(old, state.epoch + 1, 1))
  await cluster.clock.until('parked', () => local.parked === 1)
  t.is(await hello(young, 2), Code.SUCCESS)
  await lost
  t.is(local.parked, 0)
  t.is(await write(young, state.epoch, 2), Code.SUCCESS)
  // The epoch the dropped write waited for.
  cluster.addMachine()
  await cluster.boot(1)
  await cluster.settle()
  const holder = [0, 1].map((i) => cluster.node(i).store).find((s) => s.listWorking().length > 0)!
  const into = Buffer.alloc(BYTES)
  const oid = dataOid(asVid(7), 0)
  t.is(await new Promise((resolve) => holder.read(oid, 0, into, resolve)), Code.SUCCESS)
  t.deepEqual(into, Buffer.alloc(BYTES, 2))
  cluster.close()
})

test('the answer to HELLO waits for what an older connection has under way', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 1, copies: 1 })
  const { state, store } = cluster.node(0)
  const [old, young] = [await cluster.client(0), await cluster.client(0)]
  await hello(old, 1)
  const order: string[] = []
  const { create } = store
  store.create = (request, done) =>
    create.call(store, request, (code) => {
      cluster.clock.after(5_000, () => {
        order.push('created')
        done(code)
      })
    })
  void write(old, state.epoch, 1).catch(() => order.push('connection lost'))
  await cluster.clock.sleep(100)
  await hello(young, 2)
  order.push('greeted')
  t.deepEqual(order, ['connection lost', 'created', 'greeted'])
  cluster.close()
})

test('a flush under way, which changes nothing, holds no newer connection up', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 1, copies: 1 })
  const { state, store } = cluster.node(0)
  const [old, young] = [await cluster.client(0), await cluster.client(0)]
  await hello(old, 1)
  store.flush = () => undefined
  const oid = dataOid(asVid(7), 0)
  const flush = old.call(objectRequest({ opcode: Op.FLUSH_PEER, epoch: state.epoch, oid }))
  const lost = t.throwsAsync(flush)
  await cluster.clock.sleep(100)
  t.is(await hello(young, 2), Code.SUCCESS)
  await lost
  cluster.close()
})

test('a late HELLO of an older connection, or of an earlier process, costs its connection', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 1, copies: 1 })
  const clients = await Promise.all([1, 2, 3, 4, 5].map(() => cluster.client(0)))
  const [a, b, c, d, e] = clients as [
    SheepClient,
    SheepClient,
    SheepClient,
    SheepClient,
    SheepClient,
  ]
  t.is(await hello(a, 5), Code.SUCCESS)
  await t.throwsAsync(hello(b, 4))
  await t.throwsAsync(hello(c, 5))
  t.is(await hello(a, 5), Code.SUCCESS, 'said again it is answered: a sign of life')
  t.is(await hello(d, 1, 'process2'), Code.SUCCESS)
  await t.throwsAsync(hello(e, 9, 'process1'))
  t.true(d.alive)
  t.false(a.alive)
  cluster.close()
})

test('a HELLO that is none costs its sender the connection, and nobody else', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 1, copies: 1 })
  const [rude, other] = [await cluster.client(0), await cluster.client(0)]
  const head = plainRequest({ opcode: Op.HELLO, flags: Flag.WRITE, dataLength: 3 })
  await t.throwsAsync(async () => {
    await rude.call(head, Buffer.from('you'))
    await hello(rude, 1)
  })
  t.is(await hello(other, 1), Code.SUCCESS)
  cluster.close()
})

test('of nodes that are no members nothing is remembered once they are gone', (t) => {
  const greetings = new Greetings(() => new Set(['member']))
  const greeter = (): Greeter => {
    const caller = new Caller()
    return { caller, cut: () => caller.leave(), whenIdle: (fn) => fn() }
  }
  const say = (hello: Hello): Greeter => {
    const one = greeter()
    greetings.greet(one, hello, () => undefined)
    return one
  }
  const guests = Array.from({ length: 10 }, (_, i) =>
    say({ node: `guest ${i}`, incarnation: 'a', serial: 1 }),
  )
  const member = say({ node: 'member', incarnation: 'a', serial: 1 })
  t.is(greetings.size, 11)
  for (const { caller } of [member, ...guests]) caller.leave()
  t.is(greetings.size, 1)
  t.true(say({ node: 'member', incarnation: 'a', serial: 1 }).caller.isGone)
  t.false(say({ node: 'member', incarnation: 'a', serial: 2 }).caller.isGone)
})
