/**
 * Joins while the ring is torn: whoever asks to come in comes in at last, and who lost the cluster finds it again,
 * whatever happened to the ring while they asked.
 */
import test, { type ExecutionContext } from 'ava'
import { type Message, PLAIN } from '../../src/cluster/corosync/message.js'
import { Order } from '../../src/cluster/corosync/order.js'
import type { ProcessId } from '../../src/world/corosync.js'
import { type Member, Story } from './support/corosync-story.js'
import { Dice } from './support/fake-cluster.js'
import { testNode } from './support/recorder.js'
import { withSeeds } from './support/seeds.js'

const HOSTS = 5
/** Everything is whole again for this long, and then all are in. */
const PEACE_MS = 90_000

async function anything(t: ExecutionContext, seed: number): Promise<void> {
  const dice = new Dice(seed)
  const story = await new Story(t, { comeAgain: true }).with(1, 2, 3)
  const host = (): number => 1 + dice.below(HOSTS)
  const any = (): Member => story.members[dice.below(story.members.length)]!
  const acts: (() => unknown)[] = [
    () => {
      const parts = [[], [], []] as number[][]
      for (let nodeId = 1; nodeId <= HOSTS; nodeId++) parts[dice.below(3)]!.push(nodeId)
      story.ring.tear(parts, dice.below(2) === 0)
    },
    () => story.ring.tear([[host()]], dice.below(2) === 0),
    () => story.ring.heal(),
    () => story.ring.heal(),
    () => story.ring.kill(any().id),
    () => any().process.stop(),
    () => story.ring.freeze(host()),
    () => story.enter(host()),
    () => story.enter(host()),
  ]
  for (let i = 0; i < 12; i++) {
    await acts[dice.below(acts.length)]!()
    await story.pass([1, 5, 50, 500, 5000, 8000][dice.below(6)]!)
  }
  story.ring.heal()
  for (let nodeId = 1; nodeId <= HOSTS; nodeId++) story.ring.thaw(nodeId)
  for (const { process } of story.members) process.resume()
  await story.together(PEACE_MS)
}

test('whatever happened to the ring while they asked: in peace all come together', async (t) => {
  t.timeout(300_000)
  await withSeeds(8, (seed) => anything(t, seed))
})

test('two parts that grew up apart answer the same joiner: it belongs to one of them, and all come together', async (t) => {
  const story = new Story(t, { comeAgain: true })
  for (const nodeId of [1, 2, 3, 4]) story.ring.host(nodeId)
  story.ring.tear([[1, 2], [3]])
  for (const nodeId of [1, 2, 3]) {
    const one = await story.enter(nodeId)
    await story.until(() => story.isSure(one))
  }
  story.ring.heal()
  const joiner = await story.enter(4)
  await story.until(() => joiner.recorder.lines.length > 0)
  await story.pass(20)
  const fellows = story.members.filter(({ recorder }) =>
    recorder.lines.some((line) => line.startsWith('accepted 4')),
  )
  const [accept] = joiner.recorder.lines
  t.regex(accept ?? '', new RegExp(`\\[${fellows.map(({ port }) => port).join(' ')}\\]`))
  await story.together(PEACE_MS)
})

test('a member that dies just after a tear holds nobody up: the last one of its part goes on, and lets others in', async (t) => {
  for (let ms = 0; ms < 6; ms++) {
    const story = await new Story(t).with(1, 2, 3)
    story.ring.tear([[1]])
    await story.host.advance(ms)
    story.ring.kill(story.member(3).id)
    await story.until(() => story.member(2).recorder.lines.at(-1) === 'left 3 [2]')
    const joiner = await story.enter(2)
    await story.until(() => story.isSure(joiner))
    t.deepEqual(story.sure(), [2, joiner.port])
  }
})

test('a member that dies while a joiner waits for its answer is not counted by the joiner', async (t) => {
  const story = await new Story(t).with(1, 2, 3)
  // The answer is made of what 1 knew when it read the JOIN, and ordered after the death.
  story.ring.freeze(1)
  await story.enter(4)
  await story.pass(50)
  story.ring.kill(story.member(3).id)
  await story.pass(50)
  story.ring.thaw(1)
  await story.together(PEACE_MS)
  await story.pass(1000)
  // Two of three; two of four without the lowest would not be enough.
  story.ring.tear([[1]])
  await story.until(() => story.lost().length > 0)
  t.deepEqual([story.sure(), story.lost()], [[2, 4], [1]])
})

test('who asks to come in while a member is left behind asks again, and comes in without it', async (t) => {
  const story = await new Story(t).with(1, 2, 3)
  story.member(3).process.stop()
  await story.pass(9000)
  story.ring.freeze(1)
  const joiner = await story.enter(4)
  await story.pass(3000)
  story.member(2).recorder.notify('and on')
  story.ring.thaw(1)
  const others = [story.member(1), story.member(2), joiner].map(({ recorder }) => recorder.lines)
  await story.until(() => others.every((lines) => lines.at(-1) === 'notified 2 and on'))
  for (const lines of others) t.regex(lines.at(-2) ?? '', /^accepted 4 \[1 2 4\]/)
  for (const lines of others.slice(0, 2)) t.is(lines.at(-3), 'left 3 [1 2]')
})

test('the answer of another cluster to an earlier attempt of a joiner does not take its place away', (t) => {
  const [self, joiner] = [1, 2].map((nodeId) => ({ nodeId, pid: 7 })) as [ProcessId, ProcessId]
  const order = new Order(self, [], { deliver: () => undefined, refused: () => t.fail() })
  const said = (type: 'join' | 'accept', process: ProcessId, incarnation: string): Message => {
    return { ...PLAIN, type, subject: { process, node: testNode(process.nodeId) }, incarnation }
  }
  order.received(self, said('join', self, 'aa'))
  order.advance()
  order.received(self, said('accept', self, 'aa'))
  order.arrived(joiner)
  order.received(joiner, said('join', joiner, 'cc'))
  order.advance()
  t.deepEqual(order.asking?.process, joiner)
  t.false(order.received(self, said('accept', joiner, 'bb')), 'nor does a late one of this cluster')
  order.elsewhere(joiner, 'bb')
  t.deepEqual(order.asking?.process, joiner)
  order.elsewhere(joiner, 'cc')
  t.is(order.asking, undefined)
})
