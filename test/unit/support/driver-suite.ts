/**
 * What every membership driver must do (src/cluster/driver.ts), as tests. Timing is the harness's:
 * `until` lets time pass, virtual or real, until the condition holds, and throws when it never does.
 */
import test, { type ExecutionContext } from 'ava'
import type { ClusterDriver } from '../../../src/cluster/driver.js'
import { Recorder } from './recorder.js'

export interface DriverHarness {
  /** The driver of a new process in the one cluster of this harness. */
  driver(): ClusterDriver
  /** The process of that driver is killed. */
  kill(driver: ClusterDriver): void
  until(condition: () => boolean): Promise<void>
  close(): Promise<void>
}

type Body = (t: ExecutionContext, cluster: Cluster) => Promise<void>

class Cluster {
  readonly harness: DriverHarness
  readonly members: Recorder[] = []
  constructor(harness: DriverHarness) {
    this.harness = harness
  }

  recorder(port: number): Recorder {
    const recorder = new Recorder(this.harness.driver(), port)
    this.members.push(recorder)
    return recorder
  }

  async join(port: number): Promise<Recorder> {
    const recorder = this.recorder(port)
    await this.finished(recorder.join())
    return recorder
  }

  async three(): Promise<[Recorder, Recorder, Recorder]> {
    const members: [Recorder, Recorder, Recorder] = [
      await this.join(1),
      await this.join(2),
      await this.join(3),
    ]
    await this.sees(members, 'accepted 3 ')
    return members
  }

  kill(member: Recorder): void {
    this.harness.kill(member.driver)
  }

  /** Lets time pass until `promise` is settled. */
  async finished<Value>(promise: Promise<Value>): Promise<Value> {
    let settled = false
    const mark = (): void => {
      settled = true
    }
    promise.then(mark, mark)
    await this.harness.until(() => settled)
    return promise
  }

  async sees(members: readonly Recorder[], start: string): Promise<void> {
    const saw = ({ lines }: Recorder): boolean => lines.some((line) => line.startsWith(start))
    await this.harness.until(() => members.every(saw))
  }

  async owns(member: Recorder, line: string, times = 1): Promise<void> {
    await this.harness.until(() => member.own.filter((one) => one === line).length === times)
  }

  /** A message from `by` that all of `members` have seen: what was sent before is through. */
  async flush(by: Recorder, members: readonly Recorder[]): Promise<void> {
    by.notify('flush')
    await this.sees(members, `notified ${by.node.port} flush`)
  }
}

/** A conversation that goes on for a while, but not for ever. */
function say(talker: Recorder): void {
  if (talker.lines.length < 200) talker.notify(`${talker.lines.length}`)
}

/** The part of a history that is the same on all: from the accept of `port` on. */
function since({ lines }: Recorder, port: number): string[] {
  const start = lines.findIndex((line) => line.startsWith(`accepted ${port} `))
  return start < 0 ? [`never saw ${port} accepted`] : lines.slice(start)
}

export function driverSuite(
  name: string,
  open: () => DriverHarness | Promise<DriverHarness>,
): void {
  const check = (title: string, body: Body): void => {
    test(`${name}: ${title}`, async (t) => {
      const harness = await open()
      try {
        await body(t, new Cluster(harness))
      } finally {
        await harness.close()
      }
    })
  }
  joinTests(check)
  orderTests(check)
  blockTests(check)
  leaveTests(check)
  refusalTests(check)
}

type Check = (title: string, body: Body) => void

function joinTests(check: Check): void {
  check('the first joiner asks itself and is alone', async (t, cluster) => {
    const one = await cluster.join(1)
    t.deepEqual(one.own, ['asked 1 [] hello from 1'])
    t.deepEqual(one.lines, ['accepted 1 [1] seen 0 by 1'])
  })

  check('the oldest member answers, all get the same answer and list', async (t, cluster) => {
    const [one, two, three] = await cluster.three()
    t.deepEqual(one.own.slice(1), ['asked 2 [1] hello from 2', 'asked 3 [1 2] hello from 3'])
    t.deepEqual([two.own, three.own], [[], []])
    t.deepEqual(three.lines, ['accepted 3 [1 2 3] seen 2 by 1'])
    t.deepEqual(since(one, 3), three.lines)
    t.deepEqual(since(two, 3), three.lines)
  })

  check('several joining at once all get in, one after the other', async (t, cluster) => {
    const members = [1, 2, 3, 4, 5].map((port) => cluster.recorder(port))
    await cluster.finished(Promise.all(members.map((member) => member.join())))
    const [last] = members.filter(({ lines }) => lines[0]?.split(']')[0]?.split(' ').length === 7)
    t.truthy(last)
    await cluster.flush(members[0]!, members)
    const ends = members.map((member) => since(member, last!.node.port))
    for (const end of ends) t.deepEqual(end, ends[0])
  })

  check('a joiner sees nothing from before its accept, all of after it', async (t, cluster) => {
    const one = await cluster.join(1)
    for (let i = 0; i < 20; i++) one.notify(`before ${i}`)
    const two = cluster.recorder(2)
    const joined = two.join()
    for (let i = 0; i < 20; i++) one.notify(`during ${i}`)
    await cluster.finished(joined)
    await cluster.flush(one, [one, two])
    const acceptAt = one.lines.findIndex((line) => line.startsWith('accepted 2'))
    t.deepEqual(two.lines, one.lines.slice(acceptAt))
    // The answer was made of exactly what came before the accept.
    t.is(one.lines[acceptAt], `accepted 2 [1 2] seen ${acceptAt} by 1`)
  })

  check('an answer is made of exactly what its accept follows', async (t, cluster) => {
    const members = [...(await cluster.three())]
    // Talkers other than the acceptor, and a death, press into the gap between join and accept.
    for (const port of [4, 5, 6, 7]) {
      const joiner = cluster.recorder(port)
      const joined = joiner.join()
      for (const talker of members.slice(1)) talker.onNotified = () => say(talker)
      members[1]!.notify('go')
      if (port === 6) cluster.kill(members.splice(2, 1)[0]!)
      await cluster.finished(joined)
      members.push(joiner)
    }
    for (const talker of members) talker.onNotified = () => undefined
    await cluster.flush(members[0]!, members)
    const { lines } = members[0]!
    const accepts = lines.flatMap((line, at) => (line.startsWith('accepted') ? [{ line, at }] : []))
    t.is(accepts.length, 7)
    for (const { line, at } of accepts.slice(1)) t.regex(line, new RegExp(`seen ${at} by 1$`))
  })

  check('a join whose acceptor dies is answered by the next member', async (t, cluster) => {
    const [one, two, three] = await cluster.three()
    cluster.kill(one)
    const four = await cluster.join(4)
    // A driver that learns of deaths late orders the leave behind the accept; on all alike.
    await cluster.sees([two, three], 'left 1 ')
    await cluster.flush(two, [two, three, four])
    t.deepEqual(since(two, 4), four.lines)
    t.deepEqual(since(three, 4), four.lines)
    t.regex(four.lines[0]!, /^accepted 4 \[(1 )?2 3 4\] seen \d+ by 2$/)
    t.is(two.lines.filter((line) => line.startsWith('left 1 ')).length, 1)
  })

  check('the address of a living member cannot join again', async (t, cluster) => {
    const one = await cluster.join(1)
    const again = cluster.recorder(1)
    const error = await cluster.finished(t.throwsAsync(again.join()))
    t.regex(error?.message ?? '', /127\.0\.0\.1:1 is already a member/)
    await cluster.flush(one, [one])
    t.deepEqual(one.lines.length, 2)
  })

  check('a killed node comes back at once; its leave is ordered first', async (t, cluster) => {
    const [one, two, three] = await cluster.three()
    cluster.kill(two)
    const back = await cluster.join(2)
    await cluster.flush(one, [one, three, back])
    const tail = one.lines.slice(one.lines.indexOf('left 2 [1 3]'))
    t.is(tail[0], 'left 2 [1 3]')
    t.regex(tail[1] ?? '', /^accepted 2 \[1 3 2\]/)
    t.deepEqual(tail.slice(1), back.lines)
  })

  check('when all were killed the next one starts a cluster alone', async (t, cluster) => {
    const members = await cluster.three()
    members.forEach((member) => {
      cluster.kill(member)
    })
    const next = await cluster.join(2)
    t.deepEqual(next.lines, ['accepted 2 [2] seen 0 by 2'])
  })
}

function orderTests(check: Check): void {
  check('notifications of all have one order, own ones included', async (t, cluster) => {
    const members = await cluster.three()
    for (let i = 0; i < 30; i++) for (const one of members) one.notify(`${i}`)
    await cluster.harness.until(() =>
      members.every(({ lines }) => lines.filter((line) => line.startsWith('not')).length === 90),
    )
    const [one, two, three] = members.map((member) => since(member, 3))
    t.deepEqual(two, one)
    t.deepEqual(three, one)
    for (const { node } of members) {
      const mine = one!.filter((line) => line.startsWith(`notified ${node.port} `))
      t.deepEqual(
        mine.map((line) => Number(line.split(' ')[2])),
        Array.from({ length: 30 }, (_, i) => i),
      )
    }
  })

  check('a callback may send: it is ordered and never delivered inside', async (t, cluster) => {
    const [one, two] = await cluster.three()
    let inside = false
    one.onNotified = (text) => {
      t.false(inside)
      inside = true
      if (text === 'ping') one.notify('pong')
      inside = false
    }
    two.notify('ping')
    await cluster.sees([one, two], 'notified 1 pong')
    t.deepEqual(two.lines.slice(-2), ['notified 2 ping', 'notified 1 pong'])
  })

  check('a node announces new properties of itself to all', async (t, cluster) => {
    const [one, two, three] = await cluster.three()
    two.driver.updateNode({ ...two.node, vnodes: 7 })
    await cluster.sees([one, two, three], 'updated 127.0.0.1:2 vnodes=7 [1 2 3]')
    t.throws(() => two.driver.updateNode(one.node))
  })
}

function blockTests(check: Check): void {
  check('one block at a time, oldest first; notifications go on', async (t, cluster) => {
    const [one, two, three] = await cluster.three()
    one.driver.block()
    await cluster.owns(one, 'blocked')
    two.driver.block()
    await cluster.flush(two, [one, two, three])
    t.deepEqual(two.own, [])
    one.unblock('done 1')
    await cluster.owns(two, 'blocked')
    t.is(one.own.filter((line) => line === 'blocked').length, 1)
    two.unblock('done 2')
    await cluster.sees([one, two, three], 'notified 2 done 2')
    const tail = ['notified 2 flush', 'notified 1 done 1', 'notified 2 done 2']
    for (const member of [one, two, three]) t.deepEqual(member.lines.slice(-3), tail)
  })

  check('a node with two blocks gets both, one after the other', async (t, cluster) => {
    const [one, two] = await cluster.three()
    let turn = 0
    one.onBlocked = () => {
      turn++
      one.unblock(`turn ${turn}`)
    }
    one.driver.block()
    one.driver.block()
    await cluster.sees([one, two], 'notified 1 turn 2')
    await cluster.flush(one, [one, two])
    t.deepEqual(two.lines.slice(-3), ['notified 1 turn 1', 'notified 1 turn 2', 'notified 1 flush'])
    t.is(turn, 2)
  })

  check('the block of a dead sender is dropped in order', async (t, cluster) => {
    const [one, two, three] = await cluster.three()
    two.driver.block()
    await cluster.owns(two, 'blocked')
    three.driver.block()
    await cluster.flush(three, [one, three])
    one.driver.block()
    t.deepEqual(three.own, [])
    cluster.kill(two)
    await cluster.owns(three, 'blocked')
    t.is(three.lines.at(-1), 'left 2 [1 3]')
    cluster.kill(three)
    await cluster.owns(one, 'blocked')
    one.unblock('mine')
    await cluster.sees([one], 'notified 1 mine')
    t.deepEqual(one.lines.slice(-3), ['left 2 [1 3]', 'left 3 [1]', 'notified 1 mine'])
  })

  check('a join and a leave go on while a block is active', async (t, cluster) => {
    const [one, two, three] = await cluster.three()
    one.driver.block()
    await cluster.owns(one, 'blocked')
    const four = await cluster.join(4)
    cluster.kill(three)
    await cluster.sees([one, two, four], 'left 3 [1 2 4]')
    four.driver.block()
    await cluster.flush(four, [one, two, four])
    one.unblock('x')
    await cluster.owns(four, 'blocked')
    t.is(one.own.filter((line) => line === 'blocked').length, 1)
  })

  check('unblock without an active block is refused', async (t, cluster) => {
    const [one, two] = await cluster.three()
    t.throws(() => one.unblock('never'))
    one.driver.block()
    await cluster.owns(one, 'blocked')
    t.throws(() => two.unblock('never'))
    one.unblock('once')
    t.throws(() => one.unblock('twice'))
    await cluster.flush(one, [one, two])
    t.deepEqual(two.lines.slice(-2), ['notified 1 once', 'notified 1 flush'])
  })
}

function leaveTests(check: Check): void {
  check('a node that leaves is seen to leave once and hears no more', async (t, cluster) => {
    const [one, two, three] = await cluster.three()
    two.notify('last words')
    await cluster.finished(two.driver.leave())
    await cluster.sees([one, three], 'left 2 [1 3]')
    await cluster.flush(one, [one, three])
    const tail = ['notified 2 last words', 'left 2 [1 3]', 'notified 1 flush']
    t.deepEqual(one.lines.slice(-3), tail)
    t.deepEqual(three.lines.slice(-3), tail)
    t.is(two.lines.at(-1), 'notified 2 last words')
    t.deepEqual(two.own, [])
    t.throws(() => two.notify('from beyond'))
  })

  check('a node that left may come back', async (t, cluster) => {
    const [one, two] = await cluster.three()
    await cluster.finished(two.driver.leave())
    two.lines.length = 0
    await cluster.finished(two.join())
    await cluster.flush(one, [one, two])
    t.deepEqual(since(one, 2).at(-1), two.lines.at(-1))
    t.regex(two.lines[0] ?? '', /^accepted 2 \[1 3 2\]/)
  })

  check('each of several deaths is one leave, the same order on all', async (t, cluster) => {
    const [one, two, three] = await cluster.three()
    const four = await cluster.join(4)
    const five = await cluster.join(5)
    await cluster.sees([one, two, three, four], 'accepted 5')
    for (const dead of [one, three, four]) cluster.kill(dead)
    const isLeave = (line: string): boolean => line.startsWith('left')
    await cluster.harness.until(() =>
      [two, five].every(({ lines }) => lines.filter(isLeave).length === 3),
    )
    await cluster.flush(two, [two, five])
    t.deepEqual(since(two, 5), five.lines)
    t.is(five.lines.filter(isLeave).length, 3)
  })
}

function refusalTests(check: Check): void {
  check('who is turned away hears why, and nobody else hears of it', async (t, cluster) => {
    const [one, two, three] = await cluster.three()
    one.refusal = 'another cluster'
    const four = cluster.recorder(4)
    const error = await t.throwsAsync(cluster.finished(four.join()))
    t.regex(error.message, /another cluster/)
    t.is(one.own.at(-1), 'turned 4 away')
    await cluster.flush(two, [one, two, three])
    for (const { lines } of [one, two, three]) {
      t.false(lines.some((line) => line.startsWith('accepted 4') || line.startsWith('left 4')))
    }
    t.deepEqual([four.lines, four.own], [[], []])
    one.refusal = undefined
    await cluster.finished(four.join())
    await cluster.sees([one, two, three, four], 'accepted 4 [1 2 3 4]')
  })

  check('a message above the limit is refused and nothing is sent', async (t, cluster) => {
    const [one, two] = await cluster.three()
    t.throws(() => one.driver.notify(Buffer.alloc(128 * 1024 + 1)))
    one.driver.notify(Buffer.alloc(128 * 1024, 'x'))
    await cluster.flush(one, [one, two])
    t.is(two.lines.length, 4)
  })

  check('who is not a member cannot send', (t, cluster) => {
    const one = cluster.recorder(1)
    t.throws(() => one.notify('x'))
    t.throws(() => one.driver.block())
    t.throws(() => one.unblock('x'))
    t.throws(() => one.driver.updateNode(one.node))
    return Promise.resolve()
  })
}
