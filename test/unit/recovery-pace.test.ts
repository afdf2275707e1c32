// How fast recovery goes in the background, on a clock of the test's own.
import test from 'ava'
import { Pace } from '../../src/sheep/recovery/pace.js'
import { VirtualClock } from './support/virtual-clock.js'

/** Objects that take `objectMs` each, worked on as fast as the pace lets them, and when each was begun. */
function work(clock: VirtualClock, pace: Pace, count: number, objectMs: number) {
  const begun: number[] = []
  let most = 0
  let now = 0
  const start = clock.monotonic()
  const all = Array.from({ length: count }, async () => {
    const done = await pace.turn()
    if (done === undefined) return
    begun.push(clock.monotonic() - start)
    most = Math.max(most, ++now)
    await clock.sleep(objectMs)
    now--
    done()
  })
  return { begun, most: () => most, over: Promise.all(all) }
}

test('a node nobody uses works on two objects a disk at once', async (t) => {
  const clock = new VirtualClock()
  const run = work(clock, new Pace({ clock, disks: () => 3 }), 30, 100)
  await run.over
  t.is(run.most(), 6)
  t.is(run.begun.at(-1), 400)
})

test('a node in use works on one object at a time and rests twice as long as it took', async (t) => {
  const clock = new VirtualClock()
  const pace = new Pace({ clock, disks: () => 3 })
  let inUse = true
  const use = async (): Promise<void> => {
    while (inUse) {
      pace.clientOperation()
      await clock.sleep(10)
    }
  }
  const user = use()
  await clock.sleep(20)
  const run = work(clock, pace, 5, 100)
  await run.over
  inUse = false
  await user
  t.is(run.most(), 1)
  t.deepEqual(run.begun, [0, 300, 600, 900, 1200])
})

test('throttling begins at most so many objects in each interval, whoever uses the node', async (t) => {
  const clock = new VirtualClock()
  const throttling = { max: 2, intervalMs: 1_000 }
  const pace = new Pace({ clock, disks: () => 4, throttling })
  const run = work(clock, pace, 6, 10)
  await clock.sleep(500)
  t.is(run.begun.length, 2)
  await run.over
  t.deepEqual(run.begun, [0, 0, 1000, 1000, 2000, 2000])
})

test('objects that take longer than the interval do not pile up', async (t) => {
  const clock = new VirtualClock()
  const pace = new Pace({ clock, disks: () => 4, throttling: { max: 2, intervalMs: 10 } })
  const run = work(clock, pace, 8, 500)
  await run.over
  t.is(run.most(), 2)
})

test('new throttling counts at once for what waits', async (t) => {
  const clock = new VirtualClock()
  const hour = 3_600_000
  const pace = new Pace({ clock, disks: () => 1, throttling: { max: 1, intervalMs: hour } })
  const run = work(clock, pace, 5, 10)
  await clock.sleep(1_000)
  t.is(run.begun.length, 1)
  pace.throttle({ max: 0, intervalMs: 0 })
  await run.over
  t.true(clock.monotonic() < hour)
})

test('nothing begins while it is held, and what is called off never begins', async (t) => {
  const clock = new VirtualClock()
  const pace = new Pace({ clock, disks: () => 1 })
  pace.hold(true)
  const first = work(clock, pace, 3, 10)
  await clock.sleep(5_000)
  t.deepEqual(first.begun, [])
  pace.callOff()
  await first.over
  const second = work(clock, pace, 3, 10)
  pace.hold(false)
  await second.over
  t.is(first.begun.length, 0)
  t.is(second.begun.length, 3)
})
