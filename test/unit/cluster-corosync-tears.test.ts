/**
 * Torn rings. What must hold in every story here: when a member believes that another one is gone, that one is
 * gone, or has stopped being sure of itself; and members that are sure have seen the same events.
 */
import test, { type ExecutionContext } from 'ava'
import { GRACE_MS, LEASE_MS, Lease } from '../../src/cluster/corosync/lease.js'
import { WAIT_MS } from '../../src/cluster/corosync/tears.js'
import { Votes } from '../../src/cluster/corosync/votes.js'
import type { ProcessId } from '../../src/world/corosync.js'
import { type Member, Story } from './support/corosync-story.js'
import { Dice } from './support/fake-cluster.js'
import { withSeeds } from './support/seeds.js'

test('of two halves the one with the lowest member goes on, after the other has stopped', async (t) => {
  const story = await new Story(t).with(1, 2, 3, 4)
  const torn = story.host.now()
  story.ring.tear([
    [1, 2],
    [3, 4],
  ])
  await story.until(() => story.lost().length === 2)
  t.deepEqual(story.lost(), [3, 4])
  t.regex(story.member(3).recorder.own.at(-1) ?? '', /1\/\d+, 2\/\d+ cannot be reached.* 2 of 4/)
  await story.until(() => story.member(1).recorder.lines.at(-1) === 'left 4 [1 2]')
  t.true(story.host.now() - torn >= GRACE_MS)
  await story.pass(1000)
  t.deepEqual(story.sure(), [1, 2])
})

test('more than half goes on, whoever is lowest', async (t) => {
  const story = await new Story(t).with(1, 2, 3, 4, 5)
  story.ring.tear([
    [1, 2],
    [3, 4, 5],
  ])
  await story.until(() => story.member(3).recorder.lines.at(-1) === 'left 2 [3 4 5]')
  t.deepEqual(story.lost(), [], 'the others may not go on, and wait')
  await story.until(() => story.lost().length === 2)
  await story.pass(1000)
  t.deepEqual(
    [story.lost(), story.sure()],
    [
      [1, 2],
      [3, 4, 5],
    ],
  )
})

test('in three parts nobody has enough, and nobody goes on', async (t) => {
  const story = await new Story(t).with(1, 2, 3)
  story.ring.tear([[1], [2], [3]])
  await story.pass(LEASE_MS)
  t.deepEqual([story.lost(), story.sure()], [[], []])
  await story.pass(WAIT_MS + 1000)
  t.deepEqual([story.lost(), story.sure()], [[1, 2, 3], []])
})

test('who died or left in order does not count: the last of four goes on alone', async (t) => {
  const story = await new Story(t).with(1, 2, 3, 4)
  story.ring.kill(story.member(1).id)
  story.ring.kill(story.member(2).id)
  await story.until(() => story.member(4).recorder.lines.at(-1) === 'left 2 [3 4]')
  const leaving = story.member(3).recorder.driver.leave()
  await story.until(() => story.member(4).recorder.lines.at(-1) === 'left 3 [4]')
  await leaving
  story.ring.tear([[1, 2, 3], [4]])
  await story.pass(10_000)
  t.deepEqual([story.lost(), story.sure()], [[], [4]])
})

test('a death that is vouched for is believed at once', async (t) => {
  const story = await new Story(t).with(1, 2, 3)
  const killed = story.host.now()
  story.ring.kill(story.member(3).id)
  await story.until(() => story.member(1).recorder.lines.at(-1) === 'left 3 [1 2]')
  t.true(story.host.now() - killed < 100)
})

test('a node whose corosync is silent stops being sure before the others go on', async (t) => {
  const story = await new Story(t).with(1, 2, 3)
  story.ring.freeze(3)
  story.ring.tear([[1, 2], [3]])
  await story.until(() => !story.isSure(story.member(3)))
  t.is(story.member(1).recorder.lines.at(-1)?.startsWith('accepted'), true)
  await story.until(() => story.member(1).recorder.lines.at(-1) === 'left 3 [1 2]')
  t.deepEqual([story.lost(), story.sure()], [[], [1, 2]])
  story.ring.thaw(3)
  await story.until(() => story.lost().length > 0)
  t.deepEqual(story.lost(), [3])
})

test('while the ring stands still nobody is sure for longer than a lease', async (t) => {
  const story = await new Story(t).with(1, 2, 3)
  story.ring.stopped = true
  await story.pass(LEASE_MS + 100)
  t.deepEqual(story.sure(), [])
  story.ring.stopped = false
  await story.until(() => story.sure().length === 3)
  t.deepEqual(story.lost(), [])
})

test('a ring that stood still for long silences nobody', async (t) => {
  const story = await new Story(t).with(1, 2, 3, 4)
  story.ring.stopped = true
  await story.pass(30_000)
  story.ring.stopped = false
  await story.pass(20_000)
  t.deepEqual([story.lost(), story.sure()], [[], [1, 2, 3, 4]])
})

test('a stopped process is left behind, finds out when it goes on, and is not sure meanwhile', async (t) => {
  const story = await new Story(t).with(1, 2, 3)
  story.member(3).process.stop()
  await story.until(() => story.member(1).recorder.lines.at(-1) === 'left 3 [1 2]')
  story.member(3).process.resume()
  await story.until(() => story.lost().length > 0)
  t.deepEqual(story.lost(), [3])
  t.regex(story.member(3).recorder.own.at(-1) ?? '', /silent for too long/)
  await story.pass(5000)
  t.deepEqual(story.sure(), [1, 2])
})

test('a stop that is too short to matter costs nobody anything', async (t) => {
  const story = await new Story(t).with(1, 2, 3)
  story.member(2).process.stop()
  await story.pass(6000)
  story.member(2).process.resume()
  await story.pass(6000)
  t.deepEqual([story.lost(), story.sure()], [[], [1, 2, 3]])
})

test('without the quorum of its corosync a node serves nothing, and gives up at last', async (t) => {
  const story = await new Story(t).with(1, 2, 3)
  story.ring.setQuorate(false)
  t.deepEqual(story.sure(), [])
  await story.pass(WAIT_MS - 100)
  t.deepEqual([story.lost(), story.sure()], [[], []])
  await story.until(() => story.lost().length === 3)
  t.deepEqual(story.sure(), [])
  t.regex(story.member(1).recorder.own.at(-1) ?? '', /quorum/)
})

test('who gives up without the others and without quorum says both', async (t) => {
  const story = await new Story(t).with(1, 2, 3)
  story.ring.tear([[1], [2], [3]])
  await story.pass(2000)
  story.ring.setQuorate(false)
  await story.until(() => story.lost().length === 3)
  const reason = story.member(1).recorder.own.at(-1) ?? ''
  t.regex(reason, /cannot be reached, and 1 of 3 .*\(the corosync of this host has lost quorum\)/)
})

test('a node waits for the quorum of its corosync before it joins', async (t) => {
  const story = new Story(t)
  story.ring.quorate = false
  const { recorder } = await story.enter(1)
  await story.pass(90_000)
  t.deepEqual(recorder.lines, [])
  story.ring.setQuorate(true)
  await story.until(() => recorder.lines.length > 0)
})

test('two that started apart meet: the later one gives way', async (t) => {
  const story = new Story(t)
  story.ring.host(1)
  story.ring.host(2)
  story.ring.tear([[1], [2]])
  for (const nodeId of [1, 2]) await story.enter(nodeId)
  await story.until(() => story.members.every(({ recorder }) => recorder.lines.length > 0))
  story.ring.heal()
  await story.until(() => story.lost().length > 0)
  t.deepEqual(story.lost(), [2])
})

test('the part that went on stays when it meets others that wait, be they more', async (t) => {
  const story = await new Story(t).with(3, 4, 5, 1, 2)
  story.ring.tear([
    [3, 4, 5],
    [1, 2],
  ])
  await story.until(() => story.lost().length === 2)
  await story.until(() => story.member(1).recorder.lines.at(-1) === 'left 5 [1 2 3]')
  for (const port of [2, 3]) story.ring.kill(story.member(port).id)
  await story.until(() => story.sure().length === 1)
  const again = [await story.enter(1), await story.enter(2)]
  await story.until(() => again.every((one) => story.isSure(one)))
  story.ring.heal()
  await story.until(() => story.lost().length === 4)
  t.deepEqual([story.lost(), story.sure()], [[4, 5, 6, 7], [1]])
})

/** A joiner at the third host; who answered dies in that moment, or not. Whoever is lowest. */
for (const hosts of [
  [3, 2, 4],
  [2, 3, 1],
  [3, 2, 1],
  [2, 3, 4],
] as const) {
  for (const dies of [false, true]) {
    const how = dies ? ', and whoever answered dies' : ''
    test(`a join on ${hosts[2]} to ${hosts[0]}, ${hosts[1]} and a tear at once${how}: the answer reached one side only, and one side at most goes on`, async (t) => {
      for (const early of [false, true]) {
        for (let ms = 0; ms < 10; ms++) await joinAndTear(t, hosts, { early, dies, ms })
      }
    })
  }
}

async function joinAndTear(
  t: ExecutionContext,
  [oldest, second, joiner]: readonly [number, number, number],
  { early, dies, ms }: { early: boolean; dies: boolean; ms: number },
): Promise<void> {
  const story = await new Story(t).with(oldest, second)
  await story.enter(joiner)
  await story.host.advance(ms)
  if (dies) story.ring.kill(story.member(1).id)
  story.ring.tear([[oldest, joiner], [second]], early)
  await story.pass(GRACE_MS + 1000)
}

function shuffled(dice: Dice): number[] {
  const rest = [1, 2, 3, 4, 5]
  return Array.from({ length: 5 }, () => rest.splice(dice.below(rest.length), 1)[0]!)
}

/** One story a seed: whatever happens to rings, hosts and processes, in any order. */
async function anything(t: ExecutionContext, seed: number): Promise<void> {
  const dice = new Dice(seed)
  const story = await new Story(t).with(...shuffled(dice).slice(dice.below(3)))
  const any = (): Member => story.members[dice.below(story.members.length)]!
  const acts: (() => unknown)[] = [
    () => {
      const parts = [[], [], []] as number[][]
      for (let nodeId = 1; nodeId <= 5; nodeId++) parts[dice.below(3)]!.push(nodeId)
      story.ring.tear(parts, dice.below(2) === 0)
    },
    () => story.ring.heal(),
    () => story.ring.kill(any().id),
    () => any().process.stop(),
    () => any().process.resume(),
    () => story.ring.freeze(1 + dice.below(5)),
    () => story.ring.thaw(1 + dice.below(5)),
    () => (story.members.length < 9 ? story.enter(1 + dice.below(5)) : undefined),
    () => story.ring.heal(),
  ]
  for (let i = 0; i < 12; i++) {
    await acts[dice.below(acts.length)]!()
    await story.pass([5, 50, 500, 5000, 8000][dice.below(5)]!)
  }
  if (!t.passed) throw new Error(story.members.map((one) => one.recorder.lines.join()).join('\n'))
}

test('whatever happens: who is taken for gone is not sure, and the sure agree', async (t) => {
  t.timeout(300_000)
  await withSeeds(8, (seed) => anything(t, seed))
})

const process = (nodeId: number): ProcessId => ({ nodeId, pid: 1 })

test('a view is not settled before all its members share it', (t) => {
  const votes = new Votes(process(3), [process(3), process(2)])
  votes.heard('2/1', [process(3), process(2)])
  t.is(votes.unsettled, 1)
  votes.joined(process(4))
  t.is(votes.unsettled, 2)
  t.false(votes.areEnough(new Set(['3/1', '4/1'])), 'two of three, but one of two before')
  t.true(votes.areEnough(new Set(['2/1', '4/1'])))
  votes.heard('4/1', [process(2), process(3), process(4)])
  t.is(votes.unsettled, 2)
  votes.heard('2/1', [process(2), process(3), process(4)])
  t.is(votes.unsettled, 1)
  t.true(votes.areEnough(new Set(['3/1', '4/1'])))
})

test('the vote of who dies in a part stays there; the death of who was missing before changes nothing', (t) => {
  const all = [1, 2, 3, 4, 5].map(process)
  const votes = new Votes(process(2), all)
  t.true(votes.unreachable([process(4), process(5)]))
  t.false(votes.areEnough(new Set(['1/1', '2/1'])))
  votes.gone(process(4))
  t.false(votes.areEnough(new Set(['1/1', '2/1'])), 'two of five, not of four')
  votes.gone(process(3))
  t.true(votes.areEnough(new Set(['1/1', '2/1'])))
})

test('a joiner whom somebody let in who had older views to satisfy goes nowhere before its own is settled', (t) => {
  const others = [process(1), process(2)]
  const view = [...others, process(3)]
  const [partial, whole] = [false, true].map((isWhole) =>
    Votes.joining(process(3), others, isWhole),
  )
  const both = new Set(['1/1', '3/1'])
  t.true(whole!.areEnough(both))
  t.false(partial!.areEnough(both))
  t.true(partial!.isPartial)
  for (const one of ['1/1', '2/1']) partial!.heard(one, view)
  t.true(partial!.areEnough(both))
  t.false(partial!.isPartial)
})

test('who is evicted gets no acknowledgement for what it says afterwards', (t) => {
  const lease = new Lease(process(1), 'aa'.repeat(8))
  const other = new Lease(process(2), 'bb'.repeat(8))
  const both = [process(1), process(2)]
  t.true(lease.receive(process(2), other.beat(0, both)))
  lease.evict('bb'.repeat(8))
  t.false(lease.receive(process(2), other.beat(500, both)))
  t.is(lease.beat(600, both).entries[1]?.number, 1)
})

test('a lease counts from the sending of the newest beat that enough have acknowledged', (t) => {
  const all = [1, 2, 3].map(process)
  const [one, two, three] = all.map((id) => new Lease(id, `${id.nodeId}0`.repeat(8)))
  const majority = (alive: ReadonlySet<string>): boolean => alive.size >= 2
  const first = one!.beat(1000, all)
  const second = one!.beat(1500, all)
  one!.receive(process(1), first)
  one!.receive(process(1), second)
  t.is(one!.sureUntil(majority), Number.NEGATIVE_INFINITY, 'its own word is not enough')
  two!.receive(process(1), first)
  one!.receive(process(2), two!.beat(9000, all))
  t.is(one!.sureUntil(majority), 1000 + LEASE_MS)
  three!.receive(process(1), first)
  three!.receive(process(1), second)
  one!.receive(process(3), three!.beat(9100, all))
  t.is(one!.sureUntil(majority), 1500 + LEASE_MS)
})
