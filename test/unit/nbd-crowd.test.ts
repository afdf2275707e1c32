/**
 * Many clients at once: limits that are told to whom they stop, greedy exports beside modest ones, idle ones, thousands.
 * Time is the test's own, so that latencies are exact.
 */
import test from 'ava'
import { HALL_LIMITS, type HallLimits, NbdHall } from '../../src/doors/nbd/hall.js'
import type { OperationContext } from '../../src/doors/sheepdog/context.js'
import { NBD_OPERATIONS } from '../../src/doors/sheepdog/nbd-ops.js'
import type { Answer } from '../../src/sheep/answer.js'
import { Command, NBD_LIMITS, Option } from '../../src/wire/nbd/constants.js'
import type { Frame } from '../../src/wire/sheepdog/frame.js'
import {
  decodeNbdRecords,
  type NbdRecord,
  nbdStatisticsRequest,
  nextIdOf,
} from '../../src/wire/sheepdog/nbd-statistics.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { MemorySource, MemoryVolume } from './support/memory-volume.js'
import {
  ask,
  HELLO,
  infoData,
  option,
  type Rig,
  rig,
  settle,
  TestClock,
} from './support/nbd-rig.js'
import { optionTranscript } from './support/nbd-transcript.js'

const MIB = 1024 * 1024
const { READ, WRITE, FLUSH, WRITE_ZEROES } = Command
const SIMPLE_REPLY_BYTES = 16

function volumes(...names: string[]): { source: MemorySource; of: Map<string, MemoryVolume> } {
  const of = new Map(names.map((name) => [name, new MemoryVolume(name, { sizeBytes: 64 * MIB })]))
  return { source: new MemorySource(...of.values()), of }
}

function hallOf(limits: Partial<HallLimits> = {}) {
  const clock = new TestClock()
  return { clock, hall: new NbdHall(clock, { ...HALL_LIMITS, ...limits }) }
}

async function opened(made: Rig, name: string): Promise<void> {
  await made.feed(HELLO, option(Option.GO, infoData(name)))
}

// ---- limits

test('limits are per address and in total; local sockets have none of the first kind', (t) => {
  const { hall } = hallOf({ connections: 5, connectionsPerClient: 2 })
  const enter = (remoteHost: string | undefined) =>
    hall.enter({
      ...{ remote: 'x', remoteHost, isRefused: false },
      ...{ isEncrypted: () => false, requestsInFlight: () => 0 },
    })
  const first = enter('10.0.0.1')
  enter('10.0.0.1')
  t.is(hall.refusalFor('10.0.0.1'), '10.0.0.1 has its 2 connections')
  t.is(hall.refusalFor('10.0.0.2'), undefined)
  first.leave()
  first.leave()
  t.is(hall.refusalFor('10.0.0.1'), undefined)
  for (let i = 0; i < 4; i++) enter(undefined)
  t.is(hall.refusalFor(undefined), 'this server has its 5 connections')
})

test('who is one too many is told why, by any option, and let go', async (t) => {
  const { source } = volumes('v')
  for (const asked of [option(Option.GO, infoData('v')), option(Option.LIST), option(4711)]) {
    const { feed, connection } = rig(source, undefined, { refusal: 'no room for you' })
    await feed(HELLO, asked)
    t.regex(optionTranscript(connection.sent).at(-1) ?? '', /ERR_POLICY "no room for you"/)
    t.true(connection.ended)
  }
  const old = rig(source, undefined, { refusal: 'no room for you' })
  await old.feed(HELLO, option(Option.EXPORT_NAME, Buffer.from('v')))
  t.true(old.connection.over)
  t.is(source.opens, 0)
})

test('who is refused takes nobody else’s place', async (t) => {
  const { source } = volumes('v')
  const { clock, hall } = hallOf({ connections: 1 })
  const refused = rig(source, undefined, { clock, hall, refusal: 'full' })
  t.is(hall.refusing, 1)
  t.is(hall.refusalFor('10.0.0.1'), undefined)
  refused.connection.vanish()
  await settle()
  t.is(hall.refusing, 0)
})

test('a connection without requests ends after the idle time, not before, and not while one is at work', async (t) => {
  const { source, of } = volumes('v')
  const { clock, hall } = hallOf({ idleMs: 60_000 })
  const made = rig(source, undefined, { clock, hall })
  await opened(made, 'v')
  clock.advance(59_000)
  await made.feed(ask({ type: FLUSH }))
  clock.advance(59_000)
  t.false(made.connection.over)
  let go: () => void = () => undefined
  of.get('v')!.tap = (_verb, run) => {
    go = run
  }
  await made.feed(ask({ type: FLUSH }))
  clock.advance(600_000)
  t.false(made.connection.over, 'the silence is the volume’s')
  go()
  await settle()
  clock.advance(60_000)
  await settle()
  t.true(made.connection.destroyed)
  t.is(of.get('v')!.closes, 1)
  t.is(clock.timers, 0)
})

test('without an idle time a silent connection stays', async (t) => {
  const { source } = volumes('v')
  const made = rig(source)
  await opened(made, 'v')
  made.clock.advance(7 * 24 * 3_600_000)
  t.false(made.connection.over)
  t.is(made.clock.timers, 0)
})

// ---- fair shares

const SERVICE_MS = 0.1

/** A station that serves all volumes one request at a time, first come first served. */
class Station {
  readonly #queue: (() => void)[] = []
  longest = 0

  serve(volume: MemoryVolume): void {
    volume.tap = (_verb, go) => {
      this.#queue.push(go)
      this.longest = Math.max(this.longest, this.#queue.length)
    }
  }

  step(): void {
    this.#queue.shift()?.()
  }
}

/** A client that always has `depth` requests under way and notes how long each one took. */
class Closed {
  readonly latencies: number[] = []
  readonly #made: Rig
  readonly #depth: number
  readonly #sentAt: number[] = []
  #seen = 0
  #base = 0

  constructor(made: Rig, depth: number) {
    this.#made = made
    this.#depth = depth
  }

  begin(): void {
    this.#base = this.#made.connection.sent.length
    this.step()
  }

  /** The station serves in order, and so replies come in order. */
  step(): void {
    const { connection, clock } = this.#made
    for (; this.#seen < connection.writes.length; this.#seen++) {
      let bytes = connection.writes[this.#seen]!.length
      if (this.#base > 0) {
        const skipped = Math.min(this.#base, bytes)
        this.#base -= skipped
        bytes -= skipped
      }
      for (; bytes > 0; bytes -= SIMPLE_REPLY_BYTES) {
        this.latencies.push(clock.now() - this.#sentAt.shift()!)
      }
    }
    const more = this.#depth - this.#sentAt.length
    if (more === 0) return
    for (let i = 0; i < more; i++) this.#sentAt.push(clock.now())
    const request = ask({ type: WRITE_ZEROES, length: 4096 })
    connection.events.data(Buffer.concat(Array<Buffer>(more).fill(request)))
  }

  p99(): number {
    const sorted = [...this.latencies].sort((a, b) => a - b)
    return sorted[Math.floor(sorted.length * 0.99)] ?? Infinity
  }
}

/** Clients of two exports run `ms` against one station. */
async function contend(plan: readonly (readonly [string, number])[], ms: number) {
  const { source, of } = volumes('greedy', 'modest')
  const { clock, hall } = hallOf()
  const station = new Station()
  const clients: Closed[] = []
  for (const [name, depth] of plan) {
    const made = rig(source, undefined, { clock, hall })
    await opened(made, name)
    clients.push(new Closed(made, depth))
  }
  for (const volume of of.values()) station.serve(volume)
  for (const client of clients) client.begin()
  for (let now = 0; now < ms; now += SERVICE_MS) {
    clock.advance(SERVICE_MS)
    station.step()
    await new Promise((resolve) => setImmediate(resolve))
    await new Promise((resolve) => setImmediate(resolve))
    for (const client of clients) client.step()
  }
  return { clients, station }
}

test('one request at a time of one export does not wait behind a thousand of another', async (t) => {
  const greedy = Array<[string, number]>(4).fill(['greedy', 1024])
  const { clients, station } = await contend([...greedy, ['modest', 1]], 400)
  const modest = clients.at(-1)!
  t.true(modest.latencies.length > 50, `${modest.latencies.length} requests`)
  // After the pile of the first moment, when nobody else was busy, is gone.
  const settled = modest.latencies.slice(5).sort((a, b) => a - b)
  const p99 = settled[Math.floor(settled.length * 0.99)]!
  t.true(p99 < 50 * SERVICE_MS, `p99 ${p99} ms`)
  t.log(`p99 of depth 1 beside depth 4096: ${p99.toFixed(1)} ms of ${SERVICE_MS} ms of service`)
  t.true(station.longest > 900, 'alone, the greedy one was not held back')
  // The station was busy all the time: fairness costs no work.
  const served = clients.reduce((sum, { latencies }) => sum + latencies.length, 0)
  t.true(served > (400 / SERVICE_MS) * 0.95, `${served} served`)
})

test('all connections of one busy export go on while it has to share', async (t) => {
  const many = Array<[string, number]>(20).fill(['greedy', 64])
  const { clients } = await contend([...many, ['modest', 1]], 600)
  for (const { latencies } of clients) t.true(latencies.length >= 64, `${latencies.length}`)
})

test('a client that goes away while its export has to share leaves nothing behind', async (t) => {
  const { source, of } = volumes('greedy', 'modest')
  const { clock, hall } = hallOf()
  const station = new Station()
  for (const volume of of.values()) station.serve(volume)
  const made = await Promise.all(
    ['greedy', 'greedy', 'modest'].map(async (name) => {
      const one = rig(source, undefined, { clock, hall })
      await opened(one, name)
      return one
    }),
  )
  const request = ask({ type: WRITE_ZEROES, length: 4096 })
  await made[2]!.feed(request)
  clock.advance(100)
  for (const one of made) await one.feed(...Array<Buffer>(200).fill(request))
  for (const one of made) one.connection.vanish()
  for (let i = 0; i < 700; i++) {
    station.step()
    await settle()
  }
  t.deepEqual(
    made.map(({ gone }) => gone),
    [1, 1, 1],
  )
  t.deepEqual(
    [...of.values()].map(({ closes }) => closes),
    [2, 1],
  )
})

// ---- thousands, and their figures

async function allRecords(hall: NbdHall): Promise<NbdRecord[]> {
  const found: NbdRecord[] = []
  let firstId = 0
  do {
    const head = nbdStatisticsRequest(firstId, 64 * 1024)
    const request = { head, dataLength: 64 * 1024 } as Frame
    const answer = await new Promise<Answer>((resolve) => {
      const { run } = NBD_OPERATIONS.get(Op.NBD_STATISTICS)!
      run({ nbd: hall } as unknown as OperationContext, request, resolve, undefined as never)
    })
    const reply = Buffer.alloc(48)
    answer.fill?.(reply)
    found.push(...(decodeNbdRecords(answer.body!) ?? []))
    firstId = nextIdOf({ head: reply } as Frame)
  } while (firstId > 0)
  return found
}

test('two thousand clients write and read at once, and each one and each export has its figures', async (t) => {
  const CLIENTS = 2000
  const { source, of } = volumes('a', 'b')
  const { clock, hall } = hallOf({ connectionsPerClient: CLIENTS })
  const made: Rig[] = []
  for (let i = 0; i < CLIENTS; i++) {
    made.push(rig(source, undefined, { clock, hall, remoteHost: '10.0.0.1' }))
  }
  await Promise.all(made.map((one, i) => opened(one, i % 2 === 0 ? 'a' : 'b')))
  const before = made.map(({ connection }) => connection.sent.length)
  for (const [i, one] of made.entries()) {
    const data = Buffer.alloc(512, `${i}`)
    one.connection.events.data(ask({ type: WRITE, cookie: 1, offset: i * 512, data }))
    one.connection.events.data(ask({ type: READ, cookie: 2, offset: i * 512, length: 512 }))
    one.connection.events.data(ask({ type: READ, cookie: 3, offset: 64 * MIB, length: 1 }))
  }
  for (let i = 0; i < 20; i++) await settle()
  for (const [i, { connection }] of made.entries()) {
    const sent = connection.sent.subarray(before[i])
    t.is(sent.length, 4 * SIMPLE_REPLY_BYTES + 512 - SIMPLE_REPLY_BYTES)
    t.true(
      sent.subarray(2 * SIMPLE_REPLY_BYTES, -SIMPLE_REPLY_BYTES).equals(Buffer.alloc(512, `${i}`)),
    )
  }
  const records = await allRecords(hall)
  t.is(records.length, CLIENTS + 2)
  t.is(new Set(records.map(({ id }) => id)).size, records.length)
  const [a] = records.filter((record) => record.kind === 'export')
  t.deepEqual(
    { ...a, id: 0, counters: { ...a!.counters, bytes: a!.counters.bytes.slice(0, 2) } },
    {
      ...{ kind: 'export', id: 0, name: 'a', sinceMs: 0, connections: 1000, requestsInFlight: 0 },
      counters: {
        operations: [1000, 1000, 0, 0, 0, 0, 0, 0],
        bytes: [512_000, 512_000],
        errors: 1000,
      },
    },
  )
  for (const { connection } of made) connection.vanish()
  for (let i = 0; i < 20; i++) await settle()
  t.is(
    [...of.values()].reduce((sum, { closes }) => sum + closes, 0),
    source.opens,
  )
  const after = await allRecords(hall)
  t.deepEqual(
    after.map((record) => [record.kind, record.counters.operations[READ]]),
    [
      ['export', 1000],
      ['export', 1000],
    ],
  )
  t.is(hall.refusalFor('10.0.0.1'), undefined)
})

test('figures that cannot be read are refused, and too little room is', async (t) => {
  const { hall } = hallOf()
  const asked = (dataLength: number, firstId: bigint): Promise<Answer> =>
    new Promise((resolve) => {
      const head = nbdStatisticsRequest(0, dataLength)
      head.writeBigUInt64LE(firstId, 16)
      const { run } = NBD_OPERATIONS.get(Op.NBD_STATISTICS)!
      const frame = { head, dataLength } as Frame
      run({ nbd: hall } as unknown as OperationContext, frame, resolve, undefined as never)
    })
  t.is((await asked(100, 0n)).result, 0x88)
  t.is((await asked(65536, 2n ** 63n)).result, 0x05)
  t.is((await asked(65536, 0n)).result, 0)
  t.is(decodeNbdRecords(Buffer.alloc(171)), undefined)
  t.is(decodeNbdRecords(Buffer.alloc(400, 0xff)), undefined)
  t.true(NBD_LIMITS.refusedAtOnceMax > 0)
})
