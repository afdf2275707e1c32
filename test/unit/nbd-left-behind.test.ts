/** A client that lost its connection comes back and goes on: nothing of the old connection comes over that. */
import test from 'ava'
import { NbdHall } from '../../src/doors/nbd/hall.js'
import { Command, Option } from '../../src/wire/nbd/constants.js'
import { MemorySource, MemoryVolume } from './support/memory-volume.js'
import { ask, HELLO, infoData, option, rig, settle, TestClock } from './support/nbd-rig.js'

const MIB = 1 << 20
const BLOCK = 4096
const { WRITE, TRIM, READ } = Command

/** Two connections to one export, whose volume keeps every change until the test lets it go. */
async function twoConnections() {
  const volume = new MemoryVolume('v', { sizeBytes: 16 * MIB })
  const clock = new TestClock()
  const source = new MemorySource(volume)
  const hall = new NbdHall(clock)
  const [old, next] = [0, 1].map(() => rig(source, undefined, { clock, hall })) as [
    ReturnType<typeof rig>,
    ReturnType<typeof rig>,
  ]
  for (const one of [old, next]) await one.feed(HELLO, option(Option.GO, infoData('v')))
  const kept: (() => void)[] = []
  volume.tap = (verb, go) => {
    if (verb === 'read') go()
    else kept.push(go)
  }
  const first = async (): Promise<number> => {
    const into = Buffer.alloc(1)
    volume.read(0, into, () => undefined)
    return into[0]!
  }
  return { old, next, kept, first }
}

const write = (cookie: number, value: number, offset = 0): Buffer =>
  ask({ type: WRITE, cookie, offset, data: Buffer.alloc(BLOCK, value) })

test('what changes the same bytes waits for a write whose client has gone', async (t) => {
  const { old, next, kept, first } = await twoConnections()
  await old.feed(write(1, 1))
  old.connection.vanish()
  await next.feed(write(1, 2))
  t.is(kept.length, 1)
  kept[0]!()
  await settle()
  t.is(kept.length, 2)
  kept[1]!()
  await settle()
  t.is(await first(), 2)
  t.is(old.gone, 1)
})

test('other bytes, and reads, do not wait for it', async (t) => {
  const { old, next, kept } = await twoConnections()
  await old.feed(write(1, 1))
  old.connection.vanish()
  const before = next.connection.sent.length
  await next.feed(write(1, 2, BLOCK), ask({ type: READ, cookie: 2, length: BLOCK }))
  t.is(kept.length, 2)
  t.is(next.connection.sent.length - before, 16 + BLOCK)
})

test('connections that live do not wait for each other', async (t) => {
  const { old, next, kept } = await twoConnections()
  await old.feed(write(1, 1))
  await next.feed(write(1, 2))
  t.is(kept.length, 2)
})

test('what waits when its client goes as well is never begun', async (t) => {
  const { old, next, kept, first } = await twoConnections()
  await old.feed(write(1, 1))
  old.connection.vanish()
  await next.feed(write(1, 2), ask({ type: TRIM, cookie: 2, offset: 0, length: BLOCK }))
  next.connection.vanish()
  kept[0]!()
  await settle()
  t.is(kept.length, 1)
  t.is(await first(), 1)
  t.deepEqual([old.gone, next.gone], [1, 1])
})
