/** Parts of a torn ring find each other again: who starts over, and who never has to. And leaving meanwhile. */
import test from 'ava'
import { GRACE_MS } from '../../src/cluster/corosync/lease.js'
import { Story } from './support/corosync-story.js'

const LEAVE_LIMIT_MS = 2_500

/** Of five, 5 is cut off and has begun anew, alone; of the others 1 and 2 have been stopped for a moment. */
async function cutOffAlone(story: Story): Promise<void> {
  await story.with(1, 2, 3, 4, 5)
  story.ring.tear([[5]])
  await story.until(() => story.lost().length === 1)
  await story.until(() => story.member(1).recorder.lines.at(-1) === 'left 5 [1 2 3 4]')
  await story.until(() => story.members.length === 6 && story.isSure(story.member(6)))
  for (const port of [1, 2]) story.member(port).process.stop()
  await story.until(() => !story.isSure(story.member(3)) && !story.isSure(story.member(4)))
}

test('who was cut off alone never makes those who went on start over, though they are not sure', async (t) => {
  const story = new Story(t, { comeAgain: true })
  await cutOffAlone(story)
  story.ring.heal()
  await story.pass(3000)
  t.deepEqual(story.lost(), [5], 'the one that was cut off')
  for (const port of [1, 2]) story.member(port).process.resume()
  await story.until(() => story.member(1).recorder.lines.at(-1)?.includes('[1 2 3 4 5]') === true)
  t.deepEqual([...new Set(story.lost())], [5])
  t.is(story.member(1).recorder.lines.filter((line) => line.startsWith('left')).length, 1)
})

for (const [what, hosts] of [
  ['younger', { serving: [2], waiting: [1], first: 'waiting' }],
  ['smaller', { serving: [3], waiting: [1, 2], first: 'waiting' }],
] as const) {
  test(`of two that grew up apart the one that serves goes on, though it is ${what}`, async (t) => {
    const story = new Story(t)
    for (const nodeId of [1, 2, 3]) story.ring.host(nodeId)
    story.ring.tear([hosts.serving, hosts.waiting])
    for (const nodeId of hosts.waiting) {
      const waiting = await story.enter(nodeId)
      await story.until(() => story.isSure(waiting))
    }
    await story.pass(5000)
    const serving = await story.enter(hosts.serving[0])
    serving.recorder.serves = true
    await story.until(() => story.isSure(serving))
    await story.pass(1000)
    story.ring.heal()
    await story.until(() => story.lost().length === hosts.waiting.length)
    await story.pass(5000)
    t.deepEqual(story.sure(), [serving.port])
  })
}

test('of two that grew up apart the one that serves goes on, though it is not sure', async (t) => {
  const story = await new Story(t).with(1, 2, 3, 4)
  for (const { recorder } of story.members) recorder.serves = true
  story.ring.tear([[5]])
  const waiting = await story.enter(5)
  await story.until(() => story.isSure(waiting))
  for (const port of [1, 2]) story.member(port).process.stop()
  await story.until(() => !story.isSure(story.member(3)))
  story.ring.heal()
  await story.until(() => story.lost().length > 0)
  for (const port of [1, 2]) story.member(port).process.resume()
  await story.until(() => story.sure().length === 4)
  t.deepEqual(story.lost(), [5])
})

test('who leaves is out at once, though the others still wait for one that is not heard of', async (t) => {
  const story = await new Story(t).with(1, 2, 3, 4)
  story.ring.tear([[4]])
  await story.pass(100)
  const asked = story.host.now()
  let isOut = false
  void story
    .member(3)
    .recorder.driver.leave()
    .then(() => {
      isOut = true
    })
  await story.until(() => isOut)
  t.true(story.host.now() - asked < 100)
  await story.until(() => story.member(1).recorder.lines.at(-1) === 'left 3 [1 2]')
  t.true(story.host.now() - asked < GRACE_MS + 1000)
})

test('a leave ends though the ring stands still, and the others learn of it when it turns', async (t) => {
  const story = await new Story(t).with(1, 2, 3)
  story.ring.stopped = true
  const asked = story.host.now()
  let isOut = false
  void story
    .member(3)
    .recorder.driver.leave()
    .then(() => {
      isOut = true
    })
  await story.until(() => isOut)
  t.true(story.host.now() - asked < LEAVE_LIMIT_MS)
  story.ring.stopped = false
  await story.until(() => story.member(1).recorder.lines.at(-1) === 'left 3 [1 2]')
  t.deepEqual(story.lost(), [])
})

test('a leave ends though nobody has answered the join', async (t) => {
  const story = await new Story(t).with(1)
  story.member(1).process.stop()
  const { recorder } = await story.enter(2)
  await story.pass(1000)
  const asked = story.host.now()
  let isOut = false
  void recorder.driver.leave().then(() => {
    isOut = true
  })
  await story.until(() => isOut)
  t.true(story.host.now() - asked < 100)
})
