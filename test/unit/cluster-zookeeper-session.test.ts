/** A session with the ensemble: what it survives, and what it makes of servers that misbehave. */
import test, { type ExecutionContext } from 'ava'
import { silentLog } from '../../src/base/log.js'
import { ZkSession } from '../../src/cluster/zookeeper/session.js'
import { JuteWriter } from '../../src/wire/zookeeper/jute.js'
import { ZkCode, ZkError, ZkOp } from '../../src/wire/zookeeper/messages.js'
import type { Connection } from '../../src/world/world.js'
import { ZK_PORTS, ZK_TIMEOUT_MS, ZookeeperRig } from './support/zookeeper-rig.js'

const EVIL_PORT = 2999

function open(t: ExecutionContext, rig: ZookeeperRig, ports: readonly number[]): ZkSession {
  let isAlive = true
  const zk = new ZkSession({
    world: rig.world(rig.network.card(), () => isAlive),
    log: silentLog,
    servers: ports.map((port) => ({ host: '127.0.0.1', port })),
    timeoutMs: ZK_TIMEOUT_MS,
  })
  t.teardown(async () => {
    isAlive = false
    void zk.close()
    rig.close()
  })
  return zk
}

test('watches hear of what happened while there was no connection', async (t) => {
  const rig = new ZookeeperRig()
  const zk = open(t, rig, ZK_PORTS)
  for (const path of ['/data', '/parent', '/doomed']) await zk.create(path, Buffer.alloc(1))
  const heard: string[] = []
  await zk.get('/data', () => heard.push('data'))
  await zk.get('/doomed', () => heard.push('doomed'))
  await zk.exists('/later', () => heard.push('later'))
  await zk.children('/parent', () => heard.push('parent'))
  await zk.exists('/never', () => heard.push('never'))
  for (const port of ZK_PORTS) rig.zookeeper.kill(port)
  await rig.until(() => !zk.connected)
  rig.zookeeper.set('/data', Buffer.alloc(2))
  rig.zookeeper.remove('/doomed')
  rig.zookeeper.put('/later', Buffer.alloc(1))
  rig.zookeeper.put('/parent/child', Buffer.alloc(1))
  t.deepEqual(heard, [])
  await rig.zookeeper.start(ZK_PORTS[2])
  await rig.until(() => heard.length >= 4)
  t.deepEqual(heard.sort(), ['data', 'doomed', 'later', 'parent'])
  // Those that had nothing to tell still listen, on the new connection.
  rig.zookeeper.put('/never', Buffer.alloc(1))
  await rig.until(() => heard.includes('never'))
})

test('a read is asked again on the next server, a change is left in doubt', async (t) => {
  const rig = new ZookeeperRig()
  const zk = open(t, rig, ZK_PORTS)
  await zk.create('/a', Buffer.from('1'))
  rig.zookeeper.loseReply = (type) => type === ZkOp.CREATE
  const made = zk.create('/b', Buffer.alloc(0))
  const read = zk.get('/a')
  const error = await t.throwsAsync(made, { instanceOf: ZkError })
  t.is((error as ZkError).code, ZkCode.CONNECTION_LOSS)
  t.deepEqual((await read)?.data, Buffer.from('1'))
  t.not(await zk.exists('/b'), undefined, 'it had happened')
})

test('a server that falls silent is left before the session is in danger', async (t) => {
  const rig = new ZookeeperRig()
  const zk = open(t, rig, ZK_PORTS)
  await zk.create('/mine', Buffer.alloc(0), { ephemeral: true })
  const { id } = zk
  for (let i = 0; i < 6; i++) {
    const port = ZK_PORTS[i % 3]!
    rig.zookeeper.hang(port)
    await rig.clock.sleep(ZK_TIMEOUT_MS)
    t.is(rig.zookeeper.ownerOf('/mine'), id)
    rig.zookeeper.kill(port)
    await rig.zookeeper.start(port)
  }
})

test('what is asked after the end is refused, and the end is told once', async (t) => {
  const rig = new ZookeeperRig()
  const zk = open(t, rig, ZK_PORTS)
  await zk.create('/a', Buffer.alloc(0))
  let ends = 0
  zk.onExpired = () => ends++
  let looks = 0
  await zk.exists('/b', () => looks++)
  rig.zookeeper.expire(zk.id)
  await rig.until(() => ends === 1)
  await t.throwsAsync(zk.get('/a'), { message: /session expired/ })
  await rig.clock.sleep(5 * ZK_TIMEOUT_MS)
  t.is(ends, 1)
  t.is(looks, 1, 'who waited for a change must not wait for ever')
  t.is(zk.sureUntil(), Number.NEGATIVE_INFINITY)
})

/** A server that is none: what it says to whoever connects. */
async function evilServer(rig: ZookeeperRig, say: (connection: Connection) => void) {
  await rig.network.card().listen({ host: '127.0.0.1', port: EVIL_PORT }, (connection) => {
    connection.on({ data: () => say(connection), close: () => undefined, drain: () => undefined })
  })
}

const welcome = new JuteWriter().int(0).int(2000).long(5n).buffer(Buffer.alloc(16)).bool(false)
const answer = (xid: number): JuteWriter => new JuteWriter().int(xid).long(1n).int(0)
const GREETINGS: readonly [string, Buffer][] = [
  ['another protocol', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
  ['a frame without end', Buffer.from('7fffffff', 'hex')],
  ['a greeting cut short', Buffer.from('0000000400000000', 'hex')],
  ['an answer nobody asked for', Buffer.concat([welcome.frame(), answer(99).frame()])],
  ['an event cut short', Buffer.concat([welcome.frame(), answer(-1).int(1).frame()])],
]

for (const [what, bytes] of GREETINGS) {
  test(`${what} costs a server the connection and nothing else`, async (t) => {
    const rig = new ZookeeperRig()
    await evilServer(rig, (connection) => connection.write(bytes))
    const zk = open(t, rig, [EVIL_PORT])
    await rig.clock.sleep(ZK_TIMEOUT_MS)
    t.false(zk.connected)
  })
}
