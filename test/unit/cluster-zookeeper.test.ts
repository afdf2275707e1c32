/** What the zookeeper driver does where sheepdog 1.0's goes wrong (cluster spec, section 19), and beside its nodes. */
import test, { type ExecutionContext } from 'ava'
import {
  type AcceptRecord,
  decodeEvent,
  EventType,
  encodeEvent,
  encodeLeave,
} from '../../src/cluster/zookeeper/record.js'
import { encodeNode, NODE_BYTES } from '../../src/model/node.js'
import { ZkOp } from '../../src/wire/zookeeper/messages.js'
import { Recorder, testNode } from './support/recorder.js'
import { ZK_PORTS, ZK_TIMEOUT_MS, type ZkProcess, ZookeeperRig } from './support/zookeeper-rig.js'

const ROOT = '/sheepdog'
const QUEUE = `${ROOT}/queue`
const SEQUENTIAL = 2
const nothing = Buffer.alloc(0)

class Members {
  readonly rig: ZookeeperRig
  readonly processes: ZkProcess[] = []

  constructor(t: ExecutionContext, seed = 7) {
    this.rig = new ZookeeperRig(seed)
    t.teardown(() => {
      for (const process of this.processes) process.kill()
      this.rig.close()
    })
  }

  async open(port: number): Promise<Recorder & { readonly process: ZkProcess }> {
    const process = await this.rig.process(ROOT)
    this.processes.push(process)
    return Object.assign(new Recorder(process.driver, port), { process })
  }

  async join(port: number) {
    const member = await this.open(port)
    await member.join()
    return member
  }

  async three() {
    const [one, two, three] = [await this.join(1), await this.join(2), await this.join(3)]
    await this.see([one, two, three], 'accepted 3 ')
    return [one, two, three] as const
  }

  see(members: readonly Recorder[], start: string): Promise<void> {
    const saw = ({ lines }: Recorder): boolean => lines.some((line) => line.startsWith(start))
    return this.rig.until(() => members.every(saw))
  }

  /** Something one of the others would have put there. */
  put(data: Buffer): void {
    this.rig.zookeeper.put(`${QUEUE}/`, data, SEQUENTIAL)
  }

  sessionOf(port: number): bigint {
    return this.rig.zookeeper.ownerOf(`${ROOT}/member/IPv4 ip:127.0.0.1 port:${port}`)
  }
}

test('a joiner that dies between its accept and its member node is removed (C5)', async (t) => {
  const members = new Members(t)
  const one = await members.join(1)
  const ghost = await members.open(2)
  members.rig.zookeeper.loseReply = (type, path) => {
    if (type === ZkOp.SET_DATA && path.startsWith(QUEUE)) ghost.process.kill()
    return false
  }
  void ghost.join()
  await members.see([one], 'accepted 2 [1 2]')
  await members.see([one], 'left 2 [1]')
  t.is(one.lines.filter((line) => line.startsWith('left')).length, 1)
  // And the entrance is free for the next.
  members.rig.zookeeper.loseReply = () => false
  const three = await members.join(3)
  t.deepEqual(three.lines, ['accepted 3 [1 3] seen 3 by 1'])
})

test('a leave told again does not throw out who has come back since (C3)', async (t) => {
  const members = new Members(t)
  const [one, , three] = await members.three()
  members.processes[1]!.kill()
  const back = await members.join(2)
  await members.see([one, three], 'left 2 ')
  // The JOIN of the first life stood at position 1: survivors told of its end, and one of them late.
  for (let i = 0; i < 2; i++) members.put(encodeLeave(BigInt(i), testNode(2), 2))
  one.notify('after')
  await members.see([one, three, back], 'notified 1 after')
  t.is(one.lines.filter((line) => line.startsWith('left 2')).length, 1)
  back.notify('still here')
  await members.see([one, three], 'notified 2 still here')
})

test('a node of 1.0 may tell a death as it does, without a note', async (t) => {
  const members = new Members(t)
  const [one, two, three] = await members.three()
  const record = encodeEvent({ id: 9n, type: EventType.LEAVE, sender: testNode(2), body: nothing })
  members.put(record)
  members.put(record)
  await members.see([one, three], 'left 2 [1 3]')
  await members.rig.until(() => two.own.some((line) => line.startsWith('suspended')))
  t.is(one.lines.filter((line) => line.startsWith('left')).length, 1)
})

test("an unblock does not end somebody else's block (C9)", async (t) => {
  const members = new Members(t)
  const [one, two, three] = await members.three()
  one.driver.block()
  await members.rig.until(() => one.own.includes('blocked'))
  three.driver.block()
  const body = Buffer.from('stray')
  members.put(encodeEvent({ id: 5n, type: EventType.UNBLOCK, sender: testNode(2), body }))
  two.notify('after')
  await members.see([one, two, three], 'notified 2 after')
  t.deepEqual(three.own, [])
  t.false(two.lines.includes('notified 2 stray'))
  one.unblock('mine')
  await members.rig.until(() => three.own.includes('blocked'))
})

test('what was sent is ordered once, whatever connections lose', async (t) => {
  for (const seed of [1, 2, 3, 4]) {
    const members = new Members(t, seed)
    const all = await members.three()
    const { dice, zookeeper } = members.rig
    // Some replies are lost after the change was made; some servers die before it reaches them.
    zookeeper.loseReply = (type) => type === ZkOp.CREATE && dice.chance(0.3)
    for (let i = 0; i < 25; i++) for (const one of all) one.notify(`${i}`)
    const port = ZK_PORTS[dice.below(3)]!
    members.rig.clock.after(200, () => zookeeper.kill(port))
    const heard = ({ lines }: Recorder): string[] =>
      lines.filter((line) => line.startsWith('notified'))
    await members.rig.until(() => all.every((one) => heard(one).length >= 75))
    zookeeper.loseReply = () => false
    all[0].notify('end')
    await members.see(all, 'notified 1 end')
    t.is(heard(all[0]).length, 76, `seed ${seed}`)
    for (const one of all) {
      t.deepEqual(heard(one), heard(all[0]), `seed ${seed}`)
      const mine = heard(one).filter((line) => line.startsWith(`notified ${one.node.port} `))
      const numbers = mine.map((line) => line.split(' ')[2]).filter((word) => word !== 'end')
      t.deepEqual(
        numbers,
        Array.from({ length: 25 }, (_, i) => `${i}`),
        `seed ${seed}`,
      )
      t.false(one.own.some((line) => line.startsWith('suspended')))
    }
  }
})

test('servers that die, hang or restart as a whole change nothing for the cluster', async (t) => {
  const members = new Members(t)
  const all = await members.three()
  const { zookeeper, clock } = members.rig
  zookeeper.kill(ZK_PORTS[0])
  await clock.sleep(2 * ZK_TIMEOUT_MS)
  await zookeeper.start(ZK_PORTS[0])
  zookeeper.hang(ZK_PORTS[1])
  await clock.sleep(2 * ZK_TIMEOUT_MS)
  zookeeper.kill(ZK_PORTS[1])
  await zookeeper.start(ZK_PORTS[1])
  for (const port of ZK_PORTS) zookeeper.kill(port)
  await clock.sleep(5 * ZK_TIMEOUT_MS)
  for (const one of all) t.true(one.driver.sureUntil() < clock.monotonic(), 'sure of nothing')
  for (const port of ZK_PORTS) await zookeeper.start(port)
  all[1].notify('back')
  await members.see(all, 'notified 2 back')
  for (const one of all) {
    t.false(one.lines.some((line) => line.startsWith('left')))
    t.false(one.own.some((line) => line.startsWith('suspended')))
    t.true(one.driver.sureUntil() > clock.monotonic())
  }
})

test('a node is not sure any more before its session can end', async (t) => {
  const members = new Members(t)
  const [one] = await members.three()
  const { zookeeper, clock } = members.rig
  await clock.sleep(3 * ZK_TIMEOUT_MS)
  t.true(one.driver.sureUntil() > clock.monotonic())
  for (const port of ZK_PORTS) zookeeper.hang(port)
  await members.rig.until(() => members.sessionOf(1) === 0n)
  t.true(one.driver.sureUntil() < clock.monotonic() - ZK_TIMEOUT_MS / 10)
})

test('an expired session suspends its node, which joins again behind its leave', async (t) => {
  const members = new Members(t)
  const [one, two, three] = await members.three()
  members.rig.zookeeper.expire(members.sessionOf(2))
  await members.rig.until(() => two.own.some((line) => line.startsWith('suspended')))
  t.throws(() => two.notify('x'))
  t.is(two.driver.sureUntil(), Number.NEGATIVE_INFINITY)
  two.lines.length = 0
  await two.join()
  await members.see([one, three], 'accepted 2 [1 3 2]')
  const tail = one.lines.slice(one.lines.indexOf('left 2 [1 3]'))
  t.deepEqual(tail.slice(1), two.lines)
})

test('a joiner that loses its session while it waits for its turn begins anew', async (t) => {
  const members = new Members(t)
  await members.join(1)
  const { zookeeper } = members.rig
  const held = zookeeper.put(`${ROOT}/entrance/`, nothing, SEQUENTIAL)
  const two = await members.open(2)
  const joined = two.join()
  await members.rig.until(() => zookeeper.names(`${ROOT}/entrance`).length === 2)
  const waiting = zookeeper.names(`${ROOT}/entrance`).sort().at(-1)
  zookeeper.expire(zookeeper.ownerOf(`${ROOT}/entrance/${waiting}`))
  zookeeper.remove(held)
  await joined
  t.deepEqual(two.lines, ['accepted 2 [1 2] seen 1 by 1'])
})

test('two processes with one address: one gets in', async (t) => {
  const members = new Members(t)
  const one = await members.join(1)
  const [a, b] = [await members.open(2), await members.open(2)]
  const ends = await Promise.allSettled([a.join(), b.join()])
  t.deepEqual(ends.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  t.is(one.lines.filter((line) => line.startsWith('accepted 2')).length, 1)
})

test('the queue is kept short, and nobody misses an event of it (C2)', async (t) => {
  const members = new Members(t)
  const all = await members.three()
  for (let i = 0; i < 400; i++) for (const one of all) one.notify(`${i}`)
  const heard = ({ lines }: Recorder): number =>
    lines.filter((line) => line.startsWith('notified')).length
  await members.rig.until(() => all.every((one) => heard(one) === 1200))
  await members.rig.clock.sleep(ZK_TIMEOUT_MS)
  t.true(members.rig.zookeeper.names(QUEUE).length < 20)
  // Joins are small, too.
  await members.join(4)
  const sizes = members.rig.zookeeper
    .names(QUEUE)
    .map((name) => members.rig.zookeeper.data(`${QUEUE}/${name}`)?.length ?? 0)
  t.true(Math.max(...sizes) < 64 * 1024)
})

test('events are kept for a member that has not read them', async (t) => {
  const members = new Members(t)
  const [one, two] = await members.three()
  // It sits in the position list and never moves.
  members.rig.zookeeper.put(
    `${ROOT}/queue_pos/IPv4 ip:10.0.0.9 port:7000`,
    Buffer.from([5, 0, 0, 0]),
  )
  for (let i = 0; i < 150; i++) one.notify(`${i}`)
  await members.see([one, two], 'notified 1 149')
  await members.rig.clock.sleep(ZK_TIMEOUT_MS)
  const [first] = members.rig.zookeeper.names(QUEUE).sort()
  t.is(first, '0000000005')
})

test('a queue cut under a reader is noticed: it must not wait for what is gone', async (t) => {
  const members = new Members(t)
  const [one] = await members.three()
  const { zookeeper } = members.rig
  const gone = zookeeper.put(`${QUEUE}/`, Buffer.from('x'), SEQUENTIAL)
  zookeeper.remove(gone)
  await members.rig.until(() => one.own.some((line) => /^lost .*before this node had/.test(line)))
  t.pass()
})

test('no secret of a session is published (C4)', async (t) => {
  const members = new Members(t)
  await members.join(1)
  const data = members.rig.zookeeper.data(`${ROOT}/member/IPv4 ip:127.0.0.1 port:1`)
  t.deepEqual(data, Buffer.alloc(24))
})

/** What a node of 1.0 writes when it answers: its own cluster information, the members, and no note. */
function oldAnswer(join: Buffer, answer: Buffer, nodes: readonly number[]): Buffer {
  const data = Buffer.from(join)
  const room = Number(data.readBigUInt64LE(144))
  data.writeUInt32LE(EventType.ACCEPT, 8)
  data.writeBigUInt64LE(BigInt(nodes.length), 152)
  answer.copy(data, 168)
  nodes.forEach((port, i) => {
    encodeNode(testNode(port), data, 168 + room + NODE_BYTES * i)
  })
  return data
}

test('a node of 1.0 answers the join; an unblock it never saw the block of counts', async (t) => {
  const members = new Members(t)
  const { zookeeper, clock } = members.rig
  // A member of 1.0, as far as the others can see it: it has a node of each kind.
  for (const path of ['', '/queue', '/member', '/master', '/queue_pos', '/lock', '/entrance']) {
    zookeeper.put(`${ROOT}${path}`, nothing)
  }
  const name = 'IPv4 ip:127.0.0.1 port:9'
  zookeeper.put(`${ROOT}/member/${name}`, Buffer.alloc(24, 1))
  zookeeper.put(`${ROOT}/queue_pos/${name}`, Buffer.from([255, 255, 255, 255]))
  zookeeper.put(
    `${ROOT}/master/`,
    Buffer.concat([Buffer.from(name), Buffer.alloc(232)]),
    SEQUENTIAL,
  )
  const one = await members.open(1)
  const joined = one.join()
  await members.rig.until(() => zookeeper.names(QUEUE).length === 1)
  await clock.sleep(100)
  t.deepEqual(one.lines, [], 'it has answered itself beside a living member')
  const path = `${QUEUE}/${zookeeper.names(QUEUE)[0]}`
  zookeeper.set(path, oldAnswer(zookeeper.data(path)!, Buffer.from('old'), [9]))
  await joined
  t.regex(one.lines[0] ?? '', /^accepted 1 \[9 1\] old/)
  const body = Buffer.from('outcome')
  members.put(encodeEvent({ id: 1n, type: EventType.UNBLOCK, sender: testNode(9), body }))
  await members.see([one], 'notified 9 outcome')
})

test("a join of 1.0's size is answered in place and at its length", async (t) => {
  const members = new Members(t)
  const one = await members.join(1)
  one.driver.block()
  await members.rig.until(() => one.own.includes('blocked'))
  const room = 48 + NODE_BYTES * 6144
  const join = Buffer.alloc(168 + room + NODE_BYTES * 6144)
  join.writeBigUInt64LE(77n, 0)
  join.writeUInt32LE(EventType.JOIN, 8)
  encodeNode(testNode(2), join, 56)
  join.writeBigUInt64LE(BigInt(room), 144)
  join.writeBigUInt64LE(BigInt(join.length - 168), 160)
  t.is(join.length, 983256)
  const path = members.rig.zookeeper.put(`${QUEUE}/`, join, SEQUENTIAL)
  await members.see([one], 'accepted 2 [1 2]')
  const data = members.rig.zookeeper.data(path)!
  t.is(data.length, 983256)
  t.is(data.readBigUInt64LE(144), BigInt(room))
  t.is(data.readBigUInt64LE(152), 1n)
  t.is(data.readBigUInt64LE(0), 77n)
  const accept = decodeEvent(data) as AcceptRecord
  t.deepEqual(accept.members, [{ node: testNode(1), joinedAt: 0 }])
  t.deepEqual(accept.blocks, [0])
})
