// Lists of objects between nodes: in pages, from nodes of 1.0 that know no pages, and from ones that fail.
import test from 'ava'
import { Code, SheepError } from '../../src/base/codes.js'
import { IdSet } from '../../src/base/id-set.js'
import { silentLog } from '../../src/base/log.js'
import type { SdNode } from '../../src/model/node.js'
import type { Oid } from '../../src/model/oid.js'
import type { Peers } from '../../src/sheep/peers.js'
import { Inventories } from '../../src/sheep/recovery/inventories.js'
import { type Inquiry, listMissing } from '../../src/sheep/recovery/lists.js'
import type { NodeState } from '../../src/sheep/state.js'
import type { ObjectStore } from '../../src/store/object-store.js'
import { Frame } from '../../src/wire/sheepdog/frame.js'
import { decodeListRequest, setListReply } from '../../src/wire/sheepdog/object-list.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { replyHead } from '../../src/wire/sheepdog/replies.js'
import { VirtualClock } from './support/virtual-clock.js'

const PAGE_BYTES = 64
const EPOCH = 7

function storeOf(ids: readonly bigint[]): ObjectStore {
  const known = new Set<bigint>(ids)
  const part: Pick<ObjectStore, 'inventory' | 'has'> = {
    inventory: () => Promise.resolve(BigUint64Array.from(ids)),
    has: (id) => known.has(id),
  }
  return part as ObjectStore
}

type Answer = (request: Frame) => Promise<{ result: number; body?: Buffer; next?: bigint }>

function peersOf(answers: ReadonlyMap<number, Answer>): Peers {
  const part: Pick<Peers, 'call'> = {
    call: async (node, head) => {
      const { result, body, next } = await answers.get(node.port)!(new Frame(head))
      const reply = replyHead({ opcode: Op.GET_OBJ_LIST, id: 0, epoch: EPOCH, result })
      if (next !== undefined) setListReply(reply, next)
      return new Frame(reply, body ?? Buffer.alloc(0))
    },
  }
  return part as Peers
}

function inventories(clock: VirtualClock, store: ObjectStore, state = { epoch: EPOCH }) {
  return new Inventories({ state: state as NodeState, store, clock }, PAGE_BYTES)
}

/** A node of ours. */
function paging(list: Inventories, seen: number[] = []): Answer {
  return async (request) => {
    try {
      const { ids, next } = await list.page(decodeListRequest(request)!)
      seen.push(ids.length / 8)
      return { result: Code.SUCCESS, body: ids, next }
    } catch (error) {
      return { result: (error as SheepError).code }
    }
  }
}

/** A node of sheepdog 1.0. */
function whole(ids: readonly bigint[], rooms: number[] = []): Answer {
  return (request) => {
    rooms.push(request.dataLength)
    const body = Buffer.from(BigUint64Array.from(ids).buffer)
    const small = body.length > request.dataLength
    return Promise.resolve(small ? { result: Code.BUFFER_SMALL } : { result: Code.SUCCESS, body })
  }
}

function inquiry(clock: VirtualClock, answers: ReadonlyMap<number, Answer>): Inquiry {
  const others = [...answers.keys()].map((port) => ({ host: '127.0.0.1', port }) as SdNode)
  return {
    ...{ clock, others, log: silentLog, epoch: EPOCH, fresh: false },
    store: storeOf([1n, 2n]),
    peers: peersOf(answers),
    holds: (oid: Oid) => (oid % 10n === 0n ? undefined : oid),
    suspects: () => [],
    isCurrent: () => true,
    pause: () => clock.sleep(10),
  }
}

const range = (from: number, until: number): bigint[] =>
  Array.from({ length: until - from }, (_, i) => BigInt(from + i))

test('lists come in pages; what is wanted is what is owned and lacking, once each, in order', async (t) => {
  const clock = new VirtualClock()
  const pages: number[] = []
  const answers = new Map([
    [7001, paging(inventories(clock, storeOf(range(1, 30).reverse())), pages)],
    [7002, paging(inventories(clock, storeOf(range(20, 45))))],
  ])
  const found = await listMissing(inquiry(clock, answers))
  const wanted = range(3, 45).filter((id) => id % 10n !== 0n)
  t.deepEqual([...found], wanted)
  t.deepEqual(pages, [8, 8, 8, 5])
})

test('a node of sheepdog 1.0 gives its list at once, as soon as there is room', async (t) => {
  const clock = new VirtualClock()
  const rooms: number[] = []
  const ids = range(1, 200_000)
  const found = await listMissing(inquiry(clock, new Map([[7001, whole(ids, rooms)]])))
  t.is(found.length, ids.filter((id) => id > 2n && id % 10n !== 0n).length)
  t.deepEqual(rooms, [1 << 18, 1 << 20, 1 << 22])
})

test('a node that does not answer is asked until it does', async (t) => {
  const clock = new VirtualClock()
  const list = paging(inventories(clock, storeOf(range(1, 20))))
  let calls = 0
  const answer: Answer = (request) => {
    calls++
    if (calls % 2 === 1) return Promise.reject(new Error('no connection'))
    if (calls % 4 === 2) return Promise.resolve({ result: Code.SYSTEM_ERROR })
    return list(request)
  }
  const found = await listMissing(inquiry(clock, new Map([[7001, answer]])))
  t.is(found.length, 16)
})

test('a list that was let go of meanwhile is gone through anew', async (t) => {
  const clock = new VirtualClock()
  const list = inventories(clock, storeOf(range(1, 30)))
  const answer = paging(list)
  let calls = 0
  const slow: Answer = async (request) => {
    if (++calls === 3) await clock.sleep(200_000)
    return answer(request)
  }
  const found = await listMissing(inquiry(clock, new Map([[7001, slow]])))
  t.is(found.length, 25)
  t.is(calls, 7)
  await clock.sleep(200_000)
  t.is(list.held, 0, 'lists nobody uses are held')
})

test('everybody who recovers one epoch shares a list; who wants a fresh one gets it', async (t) => {
  const clock = new VirtualClock()
  const ids = range(1, 6)
  let taken = 0
  const store = {
    ...storeOf([]),
    inventory: () => {
      taken++
      return Promise.resolve(BigUint64Array.from(ids))
    },
  }
  const state = { epoch: EPOCH }
  const list = inventories(clock, store, state)
  const ask = async (fresh: boolean): Promise<number> => {
    const page = await list.page({ epoch: state.epoch, cursor: 0n, room: 1000, fresh })
    return page.ids.length / 8
  }
  t.deepEqual(await Promise.all([ask(false), ask(false)]), [5, 5])
  ids.push(99n)
  t.is(await ask(false), 5)
  t.is(await ask(true), 6)
  t.is(taken, 2)
  state.epoch++
  t.is(await ask(false), 6)
  t.is(taken, 3)
  t.is(list.held, 1, 'lists of earlier epochs are held')
})

test('a cursor of nowhere is refused, and so is no room at all', async (t) => {
  const list = inventories(new VirtualClock(), storeOf(range(1, 9)))
  const codeOf = async (cursor: bigint, room: number): Promise<Code> => {
    const request = { epoch: EPOCH, cursor, room, fresh: false }
    const error = await t.throwsAsync<SheepError>(list.page(request), { instanceOf: SheepError })
    return error.code
  }
  t.is(await codeOf((1n << 64n) - 1n, 100), Code.AGAIN)
  t.is(await codeOf(5n << 40n, 100), Code.AGAIN)
  t.is(await codeOf(0n, 7), Code.BUFFER_SMALL)
})

test('the set of ids holds what was put into it, once', (t) => {
  const set = new IdSet()
  const ids = new Set<bigint>()
  for (let i = 0n; i < 50_000n; i++) {
    // Neighbours, ids that differ in the upper half only, and extremes.
    ids.add(0x8000_0000_0000_0001n + i).add((i << 32n) | 1n)
    ids.add((1n << 64n) - 1n - i)
  }
  t.true([...ids].every((id) => set.add(id)))
  t.false([...ids].some((id) => set.add(id)))
  t.is(set.size, ids.size)
  const taken = new Set([...set.drain()].flatMap((some) => [...some]))
  t.is(taken.size, ids.size)
  t.true([...taken].every((id) => ids.has(id)))
  t.is(set.size, 0)
  t.throws(() => set.add(0n), { instanceOf: RangeError })
})
