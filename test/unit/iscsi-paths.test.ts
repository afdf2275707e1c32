// Two nodes as paths to one disk: an initiator that comes to the node without the volume talks with the logical unit of the
// other one, which tells the paths apart.
import test from 'ava'
import { Code, SheepError } from '../../src/base/codes.js'
import { portalsOf } from '../../src/doors/iscsi/paths.js'
import { Frame, HEADER_BYTES, MalformedFrame } from '../../src/wire/sheepdog/frame.js'
import { decodeIscsiPath, iscsiPathRequest } from '../../src/wire/sheepdog/iscsi-path.js'
import type { Connection, ConnectionEvents } from '../../src/world/world.js'
import {
  type Initiator,
  iscsiRig,
  memoryStore,
  outcomeOf,
  type Rig,
  read10,
  settle,
  write10,
} from './support/iscsi-rig.js'

const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0]
const [NEAR, FAR] = [5, 9]

/** One end of a pair; what one writes the other hears in the next turn. */
class End implements Connection {
  readonly remote = 'the other node'
  other: End | undefined
  isClosed = false
  events: ConnectionEvents | undefined

  on(events: ConnectionEvents): void {
    this.events = events
  }
  write(bytes: Uint8Array, sent?: () => void): boolean {
    const copy = Buffer.from(bytes)
    setImmediate(() => this.other?.events?.data(copy))
    sent?.()
    return true
  }
  writeAll(pieces: readonly Uint8Array[], sent?: () => void): boolean {
    return this.write(Buffer.concat(pieces), sent)
  }
  pause(): void {}
  resume(): void {}
  end(): void {
    this.destroy()
  }
  destroy(): void {
    for (const one of [this, this.other]) {
      if (one === undefined || one.isClosed) continue
      one.isClosed = true
      setImmediate(() => one.events?.close())
    }
  }
}

interface Pair {
  /** Has the volume. */
  readonly far: Rig
  readonly near: Rig
  /** What the near node passes on. */
  readonly tunnels: End[]
  /** The node with the volume dies. */
  die(): void
}

async function twoNodes(): Promise<Pair> {
  const store = memoryStore()
  const alone = async (): Promise<undefined> => undefined
  const far = await iscsiRig({
    store,
    elsewhere: { group: FAR, isPresent: () => false, connect: alone },
  })
  const tunnels: End[] = []
  let isAlive = true
  const connect = async (
    name: string,
    host: string | undefined,
  ): Promise<Connection | undefined> => {
    if (!isAlive || name !== 'v') return undefined
    const [here, there] = [new End(), new End()]
    here.other = there
    there.other = here
    tunnels.push(here)
    far.server.take(there, { group: NEAR, host })
    return here
  }
  const near = await iscsiRig({
    store,
    elsewhere: { group: NEAR, isPresent: (one) => isAlive && one === FAR, connect },
  })
  const die = (): void => {
    isAlive = false
    for (const tunnel of tunnels) tunnel.destroy()
  }
  return { far, near, tunnels, die }
}

async function loggedIn(rig: Rig, isid: string): Promise<Initiator> {
  const one = rig.connect()
  await one.login({}, isid)
  await settle()
  await one.outcome({ cdb: TEST_UNIT_READY })
  return one
}

async function both({ far, near }: Pair): Promise<readonly [Initiator, Initiator]> {
  return [await loggedIn(far, '400000000001'), await loggedIn(near, '400000000002')]
}

/** Answers that come over the other node take more turns. */
async function outcome(one: Initiator, part: Parameters<Initiator['ask']>[0]): Promise<string> {
  await one.raw(one.commandPdu(part))
  await settle()
  await settle()
  const last = one.answers().at(-1)
  return last === undefined ? 'nothing' : outcomeOf(last)
}

function prout(action: number, key: number, newKey: number) {
  const immediate = Buffer.alloc(24)
  immediate[7] = key
  immediate[15] = newKey
  return { cdb: [0x5f, action, 1, 0, 0, 0, 0, 0, 24, 0], write: 24, immediate }
}

test('what is written over one node is read over the other, from the volume of one', async (t) => {
  const pair = await twoNodes()
  const [one, two] = await both(pair)
  const immediate = Buffer.alloc(512, 7)
  t.is(await outcome(two, { cdb: write10(3, 1), write: 512, immediate }), 'good')
  const [answer] = await one.ask({ cdb: read10(3, 1), read: 512 })
  t.true(answer!.data.equals(immediate))
  t.deepEqual([pair.far.source.opens, pair.near.source.opens], [1, 0])
})

test('both paths show one disk, its groups, and which of them has it', async (t) => {
  const pair = await twoNodes()
  const paths = await both(pair)
  const naa: string[] = []
  for (const [i, one] of paths.entries()) {
    await one.raw(one.commandPdu({ cdb: [0x12, 1, 0x83, 0, 255, 0], read: 255 }))
    await settle()
    const [page] = one.answers()
    naa.push(page!.data.toString('hex', 8, 16))
    const text = page!.data.toString('latin1')
    t.true(text.includes(`,t,0x000${[FAR, NEAR][i]}`))
    await one.raw(one.commandPdu({ cdb: [0xa3, 10, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0], read: 255 }))
    await settle()
    const [groups] = one.answers()
    t.is(
      groups!.data.toString('hex'),
      ['00000018', '80030009', '00000001', '00000009', '01030005', '00000001', '00000005'].join(''),
    )
  }
  t.is(naa[0], naa[1])
})

test('a reservation made over one node binds over the other, also after the first one has died', async (t) => {
  const pair = await twoNodes()
  const [one, two] = await both(pair)
  t.is(await outcome(two, prout(0, 0, 2)), 'good')
  t.is(await outcome(two, prout(1, 2, 0)), 'good')
  const write = { cdb: write10(0, 1), write: 512, immediate: Buffer.alloc(512) }
  t.is(await outcome(one, write), 'conflict')
  t.is(await outcome(two, write), 'good')
  pair.die()
  await settle()
  t.true(two.isClosed)
  const again = await loggedIn(pair.near, '400000000002')
  t.is(await outcome(again, write), 'good')
  const stranger = await loggedIn(pair.near, '400000000003')
  t.is(await outcome(stranger, write), 'conflict')
})

test('one initiator port at two nodes is two sessions', async (t) => {
  const pair = await twoNodes()
  const one = await loggedIn(pair.far, '400000000001')
  const two = await loggedIn(pair.near, '400000000001')
  t.is(await outcome(two, { cdb: TEST_UNIT_READY }), 'good')
  t.false(one.isClosed)
  t.is(await outcome(one, { cdb: TEST_UNIT_READY }), 'good')
})

test('an initiator that leaves is gone at both nodes, and so is one whose target stops', async (t) => {
  const pair = await twoNodes()
  const [one, two] = await both(pair)
  two.wire.destroy()
  await settle()
  t.is(pair.far.server.sessions().length, 1)
  const three = await loggedIn(pair.near, '400000000003')
  const closed = pair.far.server.close()
  await settle()
  one.wire.destroy()
  pair.far.clock.advance(10_000)
  await settle()
  await settle()
  pair.far.clock.advance(10_000)
  await settle()
  await closed
  t.true(three.isClosed)
})

test('a node that cannot be reached is in nobody’s way: the disk is tried here', async (t) => {
  const rig = await iscsiRig({
    elsewhere: {
      ...{ group: NEAR, isPresent: () => false },
      connect: async () => Promise.reject(new SheepError(Code.NO_SUPPORT)),
    },
  })
  const one = rig.connect()
  t.is((await one.login()).get('TargetPortalGroupTag'), `${NEAR}`)
  t.is(rig.source.opens, 1)
})

test('ISCSI_PATH says where an initiator came to and from; anything else is refused', (t) => {
  const frame = (bytes: Buffer): Frame =>
    new Frame(bytes.subarray(0, HEADER_BYTES), bytes.subarray(HEADER_BYTES))
  for (const path of [
    { group: 1, host: undefined },
    { group: 0xffff, host: '192.168.100.200' },
    { group: 7, host: 'fe80:1111:2222:3333:4444:5555:255.255.255.255' },
  ]) {
    t.deepEqual(decodeIscsiPath(frame(iscsiPathRequest(path))), path)
  }
  const head = Buffer.alloc(HEADER_BYTES)
  for (const body of ['', '01', '0000', '0100ff', `0100${'31'.repeat(46)}`, '01006120']) {
    const bytes = Buffer.concat([head, Buffer.from(body, 'hex')])
    t.throws(() => decodeIscsiPath(frame(bytes)), { instanceOf: MalformedFrame }, body)
  }
})

test('SendTargets tells all doors of a node, the one that was come to first, and none that nobody can reach', (t) => {
  const came = { host: '10.0.0.1', port: 3260 }
  const doors = [
    ...[{ host: '0.0.0.0', port: 3260 }, { host: 'fd00::1', port: 3261 }, { path: '/run/sock' }],
    { host: '', port: 3262 },
  ]
  t.deepEqual(portalsOf(came, doors, 7), ['10.0.0.1:3260,7', '[fd00::1]:3261,7', '10.0.0.1:3262,7'])
  t.deepEqual(portalsOf({ host: undefined, port: undefined }, [{ host: '::', port: 1 }], 7), [])
  t.deepEqual(portalsOf({ host: '::ffff:10.0.0.1', port: 3260 }, [], 7), ['10.0.0.1:3260,7'])
})
