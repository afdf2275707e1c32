/**
 * Parts of a torn ring that find each other before anybody went on: then it is as if nothing had happened. In every
 * story holds what support/corosync-story.ts says; here also that nobody had to start over.
 */
import test, { type ExecutionContext } from 'ava'
import { GRACE_MS, LEASE_MS } from '../../src/cluster/corosync/lease.js'
import { decodeStand, encodeStand, type Stand } from '../../src/cluster/corosync/stand.js'
import { Tear } from '../../src/cluster/corosync/tear.js'
import { WAIT_MS } from '../../src/cluster/corosync/tears.js'
import type { ProcessId } from '../../src/world/corosync.js'
import { type Member, Story } from './support/corosync-story.js'
import { Dice } from './support/fake-cluster.js'
import { withSeeds } from './support/seeds.js'

const HOSTS = [1, 2, 3, 4, 5]

function linesOf({ recorder }: Member): readonly string[] {
  return recorder.lines
}

/** Nobody was lost or buried, and all have seen the same. */
async function asIfNothing(t: ExecutionContext, story: Story): Promise<void> {
  await story.until(() => story.sure().length === story.members.length, 5000)
  t.deepEqual(story.lost(), [])
  const newest = linesOf(story.members.at(-1)!)
  for (const member of story.members) {
    const lines = linesOf(member)
    t.false(
      lines.some((line) => line.startsWith('left')),
      lines.join(),
    )
    t.deepEqual(lines.slice(-newest.length), newest, `${member.port}`)
  }
}

test('a minority that finds the others in time is sure again, and nobody has left', async (t) => {
  for (const ms of [1, 100, GRACE_MS - 500]) {
    const story = await new Story(t).with(...HOSTS)
    story.ring.tear([[4, 5]])
    await story.pass(ms)
    story.ring.heal()
    await asIfNothing(t, story)
  }
})

test('a ring that falls into single hosts for as long as they wait finds itself again', async (t) => {
  const story = await new Story(t).with(...HOSTS)
  story.ring.tear(HOSTS.map((host) => [host]))
  await story.pass(LEASE_MS)
  t.deepEqual(story.sure(), [])
  await story.pass(WAIT_MS - LEASE_MS - 100)
  story.ring.heal()
  await asIfNothing(t, story)
})

test('a ring that stands still after a tear makes nobody give up', async (t) => {
  const story = await new Story(t).with(...HOSTS)
  story.ring.tear([[5]])
  await story.pass(1000)
  story.ring.stopped = true
  await story.pass(2 * WAIT_MS)
  t.deepEqual([story.lost().filter((port) => port !== 5), story.sure()], [[], []])
  story.ring.stopped = false
  await story.until(() => linesOf(story.member(1)).at(-1) === 'left 5 [1 2 3 4]')
  await story.until(() => story.sure().join() === '1,2,3,4')
})

test('parts that are enough together go on without the one that stays away', async (t) => {
  const story = await new Story(t).with(...HOSTS)
  story.ring.tear([[1, 2], [3, 4], [5]])
  await story.pass(GRACE_MS + 1000)
  t.deepEqual(story.sure(), [])
  story.ring.tear([[5]])
  await story.until(() => story.sure().join() === '1,2,3,4')
  await story.until(() => linesOf(story.member(4)).at(-1) === 'left 5 [1 2 3 4]')
  await story.until(() => story.lost().length > 0)
  t.deepEqual([story.lost(), story.sure()], [[5], [1, 2, 3, 4]])
})

test('who meets those that went on knows at once that it is out', async (t) => {
  const story = await new Story(t).with(...HOSTS)
  story.ring.tear([[4, 5]])
  await story.until(() => linesOf(story.member(1)).at(-1) === 'left 5 [1 2 3]')
  t.deepEqual(story.lost(), [])
  story.ring.heal()
  await story.pass(1500)
  t.deepEqual(
    [story.lost(), story.sure()],
    [
      [4, 5],
      [1, 2, 3],
    ],
  )
})

test('who learns late of a tear goes on with the others, and sees whom they let in', async (t) => {
  for (const late of [500, GRACE_MS + 500]) {
    const story = new Story(t)
    story.ring.host(6)
    await story.with(...HOSTS)
    story.ring.freeze(4)
    story.ring.tear([[5]])
    const joiner = await story.enter(6)
    await story.pass(late)
    story.ring.thaw(4)
    await story.until(() => story.isSure(joiner))
    await story.until(() => story.isSure(story.member(4)))
    for (const port of [1, 4])
      t.regex(linesOf(story.member(port)).at(-1)!, /^accepted 6 \[1 2 3 4 6\]/, `${late}`)
  }
})

test('what members say while the ring is torn reaches all once, in the order of each', async (t) => {
  const story = await new Story(t).with(...HOSTS)
  // On its way when the ring tears: it is delivered in one part only, and does not count there.
  story.member(4).recorder.notify('a')
  story.ring.tear([[4, 5]])
  await story.pass(500)
  for (const port of [4, 1, 4]) story.member(port).recorder.notify(`b${port}`)
  story.member(5).recorder.driver.block()
  await story.pass(500)
  for (const member of story.members) t.true(linesOf(member).at(-1)?.startsWith('accepted'))
  story.ring.heal()
  const told = (member: Member): string[] =>
    linesOf(member).filter((line) => line.startsWith('notified'))
  await story.until(() => story.members.every((member) => told(member).length === 4))
  await asIfNothing(t, story)
  const mine = told(story.member(2)).filter((line) => line.startsWith('notified 4'))
  t.deepEqual(mine, ['notified 4 a', 'notified 4 b4', 'notified 4 b4'])
})

test('a corosync that loses quorum and has it again costs nobody the cluster', async (t) => {
  const story = await new Story(t).with(1, 2, 3)
  story.ring.setQuorate(false)
  t.deepEqual(story.sure(), [])
  await story.pass(WAIT_MS / 2)
  story.ring.setQuorate(true)
  await story.pass(WAIT_MS)
  await asIfNothing(t, story)
})

test('who is stopped when the parts meet does not keep them apart', async (t) => {
  const story = await new Story(t).with(...HOSTS)
  story.member(5).process.stop()
  story.ring.tear([
    [1, 2],
    [3, 4, 5],
  ])
  await story.pass(500)
  story.ring.tear([[5]])
  story.ring.heal()
  await story.until(() => story.sure().join() === '1,2,3,4')
  await story.until(() => linesOf(story.member(1)).at(-1) === 'left 5 [1 2 3 4]')
  story.member(5).process.resume()
  await story.until(() => story.lost().length > 0)
  t.deepEqual(story.lost(), [5])
})

test('who joins after a reunion comes from the same ground as the others', async (t) => {
  const story = new Story(t)
  story.ring.host(4)
  await story.with(1, 2, 3)
  story.ring.tear([[1], [2], [3]])
  await story.pass(2000)
  story.ring.heal()
  await asIfNothing(t, story)
  const joiner = await story.enter(4)
  await story.until(() => story.isSure(joiner))
  story.ring.tear([
    [1, 2],
    [3, 4],
  ])
  await story.pass(GRACE_MS - 1000)
  story.ring.heal()
  await asIfNothing(t, story)
})

test('who asks to come in while others are missing, or on the heels of another one, comes from the same ground too', async (t) => {
  const story = new Story(t)
  for (const nodeId of [4, 5, 6]) story.ring.host(nodeId)
  await story.with(1, 2, 3)
  story.ring.tear([[3]])
  await story.pass(500)
  const joiners = [await story.enter(4), await story.enter(5)]
  await story.until(() => story.lost().length > 0)
  await story.until(() => joiners.every((one) => story.isSure(one)))
  story.ring.tear([[1], [2, 4], [5], [3]])
  await story.pass(2000)
  story.ring.tear([[3]])
  await story.pass(2000)
  t.deepEqual([story.lost(), story.sure()], [[3], [1, 2, 4, 5]])
  const lines = story.members.map(linesOf)
  for (const seen of lines) t.false(seen.some((line) => /left [^3]/.test(line)))
})

/** Tears of every kind, none as long as anybody waits, and everybody talks meanwhile. */
async function tears(t: ExecutionContext, seed: number): Promise<void> {
  const dice = new Dice(seed)
  const story = await new Story(t).with(...HOSTS)
  const isQuick = dice.below(2) === 0
  let said = 0
  for (let i = 0; i < 20; i++) {
    const parts = [[], [], []] as number[][]
    for (const host of HOSTS) parts[dice.below(3)]!.push(host)
    if (dice.below(3) === 0) story.ring.heal()
    else story.ring.tear(parts)
    await story.pass([1, 3, 20, isQuick ? 100 : 700][dice.below(4)]!)
    story.member(1 + dice.below(5)).recorder.notify(`${said++}`)
    if (isQuick) await story.pass(dice.below(3))
  }
  story.ring.heal()
  await story.pass(20)
  const living = story.members.filter((one) => !story.lost().includes(one.port))
  await story.until(() => living.every((one) => story.isSure(one)), 20_000)
  await story.pass(GRACE_MS + 2000)
  const [first] = living
  const told = (member: Member): string[] =>
    linesOf(member).filter((line) => line.startsWith('notified'))
  for (const member of living) {
    t.deepEqual(told(member), told(first!), `seed ${seed}`)
    t.is(new Set(told(member)).size, told(member).length, `seed ${seed}: nothing comes twice`)
  }
  if (story.lost().length === 0) t.is(told(first!).length, said, `seed ${seed}: all of it comes`)
}

test('whatever tears there are: what is said comes once, in one order', async (t) => {
  t.timeout(300_000)
  await withSeeds(6, (seed) => tears(t, seed))
})

// ---- the step machine alone

const process = (nodeId: number): ProcessId => ({ nodeId, pid: 1 })
const all = HOSTS.map(process)

/** As member 1 of five that lost these. */
function torn(...lost: readonly number[]): Tear {
  const wereEnough = (alive: ReadonlySet<string>): boolean => alive.size >= 3
  const tear = new Tear({ self: process(1), members: all, history: 7n, wereEnough })
  tear.changed(
    all.filter(({ nodeId }) => !lost.includes(nodeId)),
    0,
  )
  tear.lose(lost.map(process), GRACE_MS)
  return tear
}

function stand(
  history: bigint,
  missing: readonly number[],
  against: readonly number[] = [],
): Stand {
  return {
    kind: 'stand',
    history,
    reunions: 0,
    against: against.map(process),
    missing: missing.map(process),
  }
}

test('nobody is taken back by those who have called him gone, nor with those who have', (t) => {
  const tear = torn(4, 5)
  t.is(tear.final(GRACE_MS - 1, true), undefined)
  t.is(tear.final(GRACE_MS, false), undefined)
  const final = tear.final(GRACE_MS, true)
  t.deepEqual(final?.against, [4, 5].map(process))
  t.is(tear.final(GRACE_MS, true), undefined, 'once is enough')
  for (const by of [1, 2]) t.is(tear.said(process(by), final!), undefined)
  const majority = (alive: ReadonlySet<string>): boolean => alive.size >= 3
  t.false(tear.isOver(majority))
  tear.changed(all, GRACE_MS)
  t.is(tear.said(process(1), tear.stand()), undefined)
  t.is(tear.said(process(2), stand(7n, [4, 5], [4, 5])), undefined)
  t.is(tear.said(process(3), stand(7n, [4, 5])), undefined)
  t.true(tear.said(process(3), final!) === undefined && tear.isOver(majority))
})

test('who has seen something else before the tear is no part of a reunion, but has to be heard', (t) => {
  const tear = torn(3, 4, 5)
  tear.changed(all, 10)
  for (const by of [1, 2]) t.is(tear.said(process(by), stand(7n, [3, 4, 5])), undefined)
  t.is(tear.said(process(3), stand(7n, [1, 2])), undefined)
  t.is(tear.said(process(4), stand(8n, [1, 2])), undefined)
  t.deepEqual(tear.said(process(5), stand(7n, [1, 2])), {
    returned: [3, 5].map(process),
    missing: [process(4)],
  })
})

test('what was said against somebody before he returned counts nothing when he is missing again', (t) => {
  const tear = torn(4, 5)
  const early = tear.final(GRACE_MS, true)!
  tear.changed(all.slice(0, 4), GRACE_MS)
  for (const by of [1, 2, 3]) tear.said(process(by), stand(7n, [4, 5]))
  t.deepEqual(tear.said(process(4), stand(7n, [1, 2, 3, 5])), {
    returned: [process(4)],
    missing: [process(5)],
  })
  tear.changed(all.slice(0, 3), GRACE_MS)
  tear.lose([process(4)], 2 * GRACE_MS)
  const majority = (alive: ReadonlySet<string>): boolean => alive.size >= 3
  for (const by of [1, 2, 3]) tear.said(process(by), early)
  t.false(tear.isOver(majority))
  const late = tear.final(2 * GRACE_MS, true)!
  for (const by of [1, 2, 3]) tear.said(process(by), late)
  t.true(tear.isOver(majority))
})

test('who goes missing later is gone only when enough have said so of him, too', (t) => {
  const tear = torn(4)
  const majority = (alive: ReadonlySet<string>): boolean => alive.size >= 3
  t.false(tear.isOver(majority))
  const first = tear.final(GRACE_MS, true)!
  tear.lose([process(5)], 2 * GRACE_MS)
  for (const by of [1, 2, 3]) tear.said(process(by), first)
  t.false(tear.isOver(majority))
  const second = tear.final(2 * GRACE_MS, true)!
  t.deepEqual(second.against, [process(5)])
  for (const by of [1, 2]) tear.said(process(by), second)
  t.false(tear.isOver(majority))
  tear.said(process(3), second)
  t.true(tear.isOver(majority))
})

test('too few do not make a cluster, however many parts they come from', (t) => {
  const tear = torn(2, 3, 4, 5)
  tear.changed([process(1), process(2)], 10)
  t.is(tear.said(process(1), stand(7n, [2, 3, 4, 5])), undefined)
  t.is(tear.said(process(2), stand(7n, [1, 3, 4, 5])), undefined)
})

test('a member against whom another one is knows that it is out', (t) => {
  const tear = torn(2, 3, 4, 5)
  tear.changed(all, 10)
  t.is(tear.said(process(2), stand(8n, [], [1])), undefined, 'of another past')
  t.is(tear.said(process(3), stand(7n, [1], [1])), 'outside')
})

test('a stand comes back as it was; a cut one is a RangeError, and another message is none', (t) => {
  const said: Stand = { ...stand(0xfedcba9876543210n, [3, 4], [5]), kind: 'final', reunions: 258 }
  const bytes = encodeStand(process(9), said)
  t.deepEqual(decodeStand(bytes), said)
  for (const cut of [bytes.subarray(0, -1), Buffer.concat([bytes, Buffer.alloc(8)])])
    t.throws(() => decodeStand(cut), { instanceOf: RangeError })
  const liar = Buffer.from(bytes)
  liar.writeUInt32LE(0xffffffff, 112)
  t.throws(() => decodeStand(liar), { instanceOf: RangeError })
  liar[100] = 9
  t.throws(() => decodeStand(liar), { instanceOf: RangeError })
  t.is(decodeStand(Buffer.alloc(90208)), undefined)
  t.is(decodeStand(bytes.subarray(0, 100)), undefined)
})
