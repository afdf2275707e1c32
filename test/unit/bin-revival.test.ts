/** A sheep over several lives: when a new one begins, what of the old one goes on (nothing), and how it stops. */
import test from 'ava'
import { silentLog } from '../../src/base/log.js'
import { oneLife } from '../../src/bin/one-life.js'
import { type Ending, type Life, withRevivals } from '../../src/bin/revival.js'
import type { Connection } from '../../src/world/world.js'
import { Dice } from './support/fake-cluster.js'
import { FakeFiles } from './support/fake-files.js'
import { MemoryNetwork } from './support/memory-network.js'
import { VirtualClock } from './support/virtual-clock.js'

class Lives {
  readonly story: string[] = []
  readonly ends: ((ending: Ending) => void)[] = []
  failure: Error | undefined
  readonly clock = new VirtualClock()
  /** Its end never comes. */
  isEndless = false

  readonly begin = (isRevival: boolean): Promise<Life> => {
    const number = this.ends.length + 1
    this.story.push(`begin ${number}${isRevival ? ' again' : ''}`)
    if (this.failure !== undefined && isRevival) return Promise.reject(this.failure)
    const over = new Promise<Ending>((resolve) => {
      this.ends.push(resolve)
    })
    const stop = (): Promise<void> => {
      this.story.push(`stop ${number}`)
      return this.isEndless ? new Promise(() => undefined) : Promise.resolve()
    }
    return Promise.resolve({ over, stop })
  }

  end(again: boolean, reason: string | undefined): Promise<void> {
    this.ends.at(-1)?.({ again, reason })
    return new Promise((resolve) => void setImmediate(resolve))
  }
}

test('a life the cluster ended is followed by another one, any other end is the last', async (t) => {
  const lives = new Lives()
  const sheep = await withRevivals(lives.begin, silentLog, lives.clock)
  await lives.end(true, 'session lost')
  await lives.end(true, 'session lost')
  await lives.end(false, 'the disk is gone')
  t.is(await sheep.over, 'the disk is gone')
  await sheep.stop()
  const turns = ['begin 1', 'stop 1', 'begin 2 again', 'stop 2', 'begin 3 again', 'stop 3']
  t.deepEqual(lives.story, turns)
})

test('who is asked to stop does not come back', async (t) => {
  const lives = new Lives()
  const sheep = await withRevivals(lives.begin, silentLog, lives.clock)
  const stopped = sheep.stop()
  await lives.end(true, 'session lost')
  await stopped
  t.deepEqual(lives.story, ['begin 1', 'stop 1'])
})

test('a life that cannot begin is the end, with the reason', async (t) => {
  const lives = new Lives()
  const sheep = await withRevivals(lives.begin, silentLog, lives.clock)
  lives.failure = new Error('port 7000 is taken')
  await lives.end(true, 'session lost')
  t.is(await sheep.over, 'it could not start again: port 7000 is taken')
})

test('a life that does not end is the last: the process goes, and is asked nothing more', async (t) => {
  const lives = new Lives()
  const sheep = await withRevivals(lives.begin, silentLog, lives.clock)
  lives.isEndless = true
  await lives.end(true, 'session lost')
  const stopped = sheep.stop()
  await lives.clock.sleep(61_000)
  t.regex((await sheep.over) ?? '', /did not end within 60 s/)
  await stopped
  t.deepEqual(lives.story, ['begin 1', 'stop 1'])
})

test('what a life still meant to do is not done after it', async (t) => {
  const clock = new VirtualClock()
  const network = new MemoryNetwork(clock, new Dice(1)).card()
  const files = new FakeFiles({ later: (fn) => clock.soon(fn), totalBytes: 1 })
  const random = { below: () => 0, bytes: (length: number) => Buffer.alloc(length) }
  const { world, cut, end } = oneLife({ clock, network, files, random })
  const seen: string[] = []
  const note = (what: string) => (): void => void seen.push(what)
  world.clock.after(10, note('early'))
  world.clock.after(100, note('late'))
  await world.network.listen({ host: '127.0.0.1', port: 5 }, (connection: Connection) => {
    connection.on({ data: note('data'), close: note('closed'), drain: note('drain') })
  })
  const open = async (): Promise<void> => {
    const client = await network.connect({ host: '127.0.0.1', port: 5 }, 10)
    client.on({ data: note('answer'), close: note('dropped'), drain: note('drain') })
    client.write(Buffer.from('x'))
    await clock.sleep(20)
  }
  await open()
  t.deepEqual(seen, ['data', 'early'])
  cut()
  end()
  await clock.sleep(50)
  await open()
  await clock.sleep(200)
  t.deepEqual(seen.slice(2).sort(), ['closed', 'dropped', 'dropped'])
})
