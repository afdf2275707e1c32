/** The driver on real ZooKeeper servers: the compliance suite, and what only a real ensemble shows. */
import test, { type ExecutionContext } from 'ava'
import { silentLog } from '../../src/base/log.js'
import type { ClusterDriver } from '../../src/cluster/driver.js'
import { openZookeeperDriver } from '../../src/cluster/zookeeper/driver.js'
import { Layout } from '../../src/cluster/zookeeper/layout.js'
import { parseZookeeperOptions } from '../../src/cluster/zookeeper/options.js'
import { queueTail } from '../../src/cluster/zookeeper/queue.js'
import { ZkSession } from '../../src/cluster/zookeeper/session.js'
import { createChange, ZkCode, ZkError } from '../../src/wire/zookeeper/messages.js'
import { nodeWorld } from '../../src/world/node/world.js'
import type { Connection } from '../../src/world/world.js'
import { type DriverHarness, driverSuite } from '../unit/support/driver-suite.js'
import { Recorder } from '../unit/support/recorder.js'
import { missingOf } from './support/packages.js'
import { until } from './support/run.js'
import { needing } from './support/suite.js'
import { type Ensemble, startEnsemble } from './support/zookeeper.js'

const PATIENCE_MS = 240_000
const TIMEOUT = '6s'
const realTest = needing('java', 'zooinspector')

/** What a process has of the world, until it is killed: then its connections are gone and nothing runs. */
function mortalWorld() {
  const world = nodeWorld(silentLog)
  const connections = new Set<Connection>()
  let isAlive = true
  return {
    ...world,
    kill: () => {
      isAlive = false
      for (const connection of connections) connection.destroy()
    },
    clock: {
      now: () => world.clock.now(),
      monotonic: () => world.clock.monotonic(),
      soon: (fn: () => void) => world.clock.soon(() => isAlive && fn()),
      after: (ms: number, fn: () => void) => world.clock.after(ms, () => isAlive && fn()),
    },
    network: {
      listen: world.network.listen.bind(world.network),
      connect: async (...args: Parameters<typeof world.network.connect>) => {
        if (!isAlive) return new Promise<Connection>(() => undefined)
        const connection = await world.network.connect(...args)
        connections.add(connection)
        return connection
      },
    },
  }
}

interface Member {
  readonly driver: ClusterDriver
  kill(): void
}

async function openMember(ensemble: Ensemble, root: string): Promise<Member> {
  const world = mortalWorld()
  const option = ensemble.choice(root, TIMEOUT).replace(/^zookeeper:/, '')
  const driver = await openZookeeperDriver({
    ...{ world, log: silentLog },
    ...parseZookeeperOptions(option),
  })
  return { driver, kill: () => world.kill() }
}

/** Connects when it joins: the suite wants its drivers at once. */
function lateDriver(open: () => Promise<Member>, opened: (member: Member) => void): ClusterDriver {
  let driver: ClusterDriver | undefined
  const there = (): ClusterDriver => {
    if (driver === undefined) throw new Error('it has not joined')
    return driver
  }
  return {
    name: 'zookeeper',
    localAddress: () => there().localAddress(),
    sureUntil: () => there().sureUntil(),
    join: async (self, request, events) => {
      if (driver === undefined) {
        const member = await open()
        opened(member)
        driver = member.driver
      }
      return driver.join(self, request, events)
    },
    leave: () => there().leave(),
    notify: (message) => there().notify(message),
    block: () => there().block(),
    unblock: (message) => there().unblock(message),
    updateNode: (node) => there().updateNode(node),
  }
}

/** One server for the whole suite; each of its clusters has a name of its own. */
let shared: Promise<Ensemble> | undefined
const ends: (() => Promise<void>)[] = []
test.after.always(async () => {
  for (const end of ends.reverse()) await end()
})

function sharedServer(): Promise<Ensemble> {
  shared ??= startEnsemble(
    {
      teardown: (end) => {
        ends.push(end)
      },
      passed: true,
      log: () => undefined,
    },
    1,
  )
  return shared
}

let clusters = 0

async function harness(): Promise<DriverHarness> {
  const ensemble = await sharedServer()
  const root = `/suite/cluster${clusters++}`
  const members = new Map<ClusterDriver, Member>()
  return {
    driver: () => {
      const driver = lateDriver(
        () => openMember(ensemble, root),
        (member) => members.set(driver, member),
      )
      return driver
    },
    kill: (driver) => members.get(driver)?.kill(),
    until: async (condition) => {
      await until('what the suite waits for', PATIENCE_MS, condition)
    },
    close: () => {
      for (const { kill } of members.values()) kill()
      return Promise.resolve()
    },
  }
}

if (missingOf(['java', 'zooinspector']).length === 0) driverSuite('real zookeeper', harness)

async function session(t: ExecutionContext, ensemble: Ensemble): Promise<ZkSession> {
  const zk = new ZkSession({
    ...{ world: nodeWorld(silentLog), log: silentLog, timeoutMs: 6000 },
    servers: ensemble.servers.map(({ port }) => ({ host: '127.0.0.1', port })),
  })
  t.teardown(() => zk.close())
  await until('a connection', PATIENCE_MS, () => zk.connected)
  return zk
}

realTest('the queue of three members stays short over 3000 messages', async (t) => {
  t.timeout(PATIENCE_MS)
  const ensemble = await startEnsemble(t, 1)
  const members: Recorder[] = []
  for (const port of [1, 2, 3]) {
    const member = await openMember(ensemble, '/short')
    t.teardown(() => member.driver.leave())
    const recorder = new Recorder(member.driver, port)
    await recorder.join()
    members.push(recorder)
  }
  for (let i = 0; i < 1000; i++) for (const member of members) member.notify(`${i}`)
  const heard = ({ lines }: Recorder): number =>
    lines.filter((line) => line.startsWith('notified')).length
  await until('everything heard by all', PATIENCE_MS, () => members.every((m) => heard(m) === 3000))
  const zk = await session(t, ensemble)
  await until('a short queue', PATIENCE_MS, async () => {
    return ((await zk.children('/short/queue')) ?? []).length < 150
  })
  t.true(((await queueTail(zk, new Layout('/short'))) ?? 0) >= 3003)
  // What is left is enough for one more to come in, and for all to go on.
  const four = new Recorder((await openMember(ensemble, '/short')).driver, 4)
  t.teardown(() => four.driver.leave())
  await four.join()
  four.notify('here')
  await until('the last word', PATIENCE_MS, () => members.every((m) => heard(m) === 3001))
})

realTest('changes that go together happen together or not at all', async (t) => {
  t.timeout(PATIENCE_MS)
  const zk = await session(t, await startEnsemble(t, 1))
  const data = Buffer.from('x')
  await zk.create('/a', data)
  const made = await zk.multi([createChange('/b', data), createChange('/c', data)])
  t.deepEqual(made, ['/b', '/c'])
  const error = await t.throwsAsync(
    zk.multi([createChange('/d', data), createChange('/a', data), createChange('/e', data)]),
    { instanceOf: ZkError },
  )
  t.is((error as ZkError).code, ZkCode.NODE_EXISTS)
  t.is(await zk.exists('/d'), undefined)
})
