// The socket at which a stand-alone front tells its figures: one question, and nothing else.
import test from 'ava'
import { silentLog } from '../../src/base/log.js'
import { startFiguresDoor } from '../../src/doors/sheepdog/figures-door.js'
import { type Frame, FrameReader, responseBodyLength } from '../../src/wire/sheepdog/frame.js'
import {
  decodeNbdRecords,
  type NbdRecord,
  nbdStatisticsRequest,
  nextIdOf,
} from '../../src/wire/sheepdog/nbd-statistics.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { plainRequest } from '../../src/wire/sheepdog/requests.js'
import type { Connection, Network } from '../../src/world/world.js'
import { settle, TestClock, TestConnection } from './support/nbd-rig.js'

const ROOM = 64 * 1024

function recordOf(id: number): NbdRecord {
  const zeros = (): number[] => new Array<number>(8).fill(0)
  const counters = { operations: zeros(), bytes: zeros(), errors: id }
  return {
    kind: 'export',
    id,
    name: `e${id}`,
    connections: 1,
    requestsInFlight: 0,
    sinceMs: 0,
    counters,
  }
}

async function door(count = 3) {
  let accept: (connection: Connection) => void = () => undefined
  let isListening = true
  const network: Network = {
    listen: async (address, onConnection) => {
      accept = onConnection
      return {
        address: 'fd' in address ? { path: 'fd' } : address,
        close: async () => {
          isListening = false
        },
      }
    },
    connect: () => Promise.reject(new Error('nobody connects from here')),
  }
  const records = Array.from({ length: count }, (_, i) => recordOf(i + 1))
  const figures = {
    records: (firstId: number, most: number) =>
      records.filter(({ id }) => id >= firstId).slice(0, most),
  }
  const world = { clock: new TestClock(), network }
  const address = { path: '/run/front/sock' }
  const opened = await startFiguresDoor({ world, log: silentLog, figures, address })
  const connect = (): TestConnection => {
    const connection = new TestConnection()
    accept(connection)
    return connection
  }
  return { opened, connect, isListening: () => isListening }
}

function repliesIn({ sent }: TestConnection): Frame[] {
  const reader = new FrameReader(responseBodyLength)
  reader.give(sent)
  const found: Frame[] = []
  for (let one = reader.next(); one !== undefined; one = reader.next()) found.push(one)
  return found
}

test('figures come page after page, whatever the pieces the questions come in', async (t) => {
  const { connect } = await door(300)
  const connection = connect()
  const questions = Buffer.concat([nbdStatisticsRequest(0, ROOM), nbdStatisticsRequest(257, ROOM)])
  for (const byte of questions) connection.events?.data(Buffer.from([byte]))
  for (let turn = 0; turn < 10; turn++) await settle()
  const [first, second, ...more] = repliesIn(connection)
  t.is(decodeNbdRecords(first!.body)!.length, 256)
  t.is(nextIdOf(first!), 257)
  t.deepEqual(
    decodeNbdRecords(second!.body)!.map(({ id }) => id),
    Array.from({ length: 44 }, (_, i) => 257 + i),
  )
  t.deepEqual([nextIdOf(second!), more.length], [0, 0])
  t.false(connection.paused)
})

test('it is no sheep: everything else is INVALID_PARMS, another version VER_MISMATCH', async (t) => {
  const { connect } = await door()
  const connection = connect()
  const strange = nbdStatisticsRequest(0, ROOM)
  strange[0] = 0x77
  for (const head of [
    plainRequest({ opcode: Op.GET_NODE_LIST, dataLength: 4096 }),
    nbdStatisticsRequest(0, 0xffff_ffff),
    nbdStatisticsRequest(0, 100),
    strange,
  ]) {
    connection.events.data(head)
  }
  for (let turn = 0; turn < 10; turn++) await settle()
  t.deepEqual(
    repliesIn(connection).map(({ result }) => result),
    [0x05, 0x05, 0x88, 0x14],
  )
})

test('a request that brings something costs the connection, before there is memory for it', async (t) => {
  const { connect } = await door()
  const connection = connect()
  const head = nbdStatisticsRequest(0, 1 << 24)
  head.writeUInt16LE(Flag.WRITE, 2)
  connection.events.data(head)
  await settle()
  t.true(connection.destroyed)
  t.is(connection.sent.length, 0)
})

test('who does not take the answers is not asked for more questions', async (t) => {
  const { connect } = await door()
  const connection = connect()
  connection.slow = true
  const questions = Array.from({ length: 100 }, () => nbdStatisticsRequest(0, ROOM))
  connection.events.data(Buffer.concat(questions))
  for (let turn = 0; turn < 10; turn++) await settle()
  t.is(repliesIn(connection).length, 1)
  t.true(connection.paused)
  connection.slow = false
  connection.events.drain()
  for (let turn = 0; turn < 200; turn++) await settle()
  t.is(repliesIn(connection).length, 100)
  t.false(connection.paused)
})

test('only so many may ask at once, and all are gone when the front ends', async (t) => {
  const { opened, connect, isListening } = await door()
  const made = Array.from({ length: 65 }, connect)
  t.deepEqual(
    made.map(({ destroyed }) => destroyed),
    [...new Array<boolean>(64).fill(false), true],
  )
  made[0]!.vanish()
  await settle()
  t.false(connect().destroyed, 'a place is free again')
  await opened.close()
  t.false(isListening())
  t.true(made.slice(1).every(({ destroyed }) => destroyed))
})
