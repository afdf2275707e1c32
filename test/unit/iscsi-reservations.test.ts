// Persistent reservations as values: who may do what under each type, and how reservations change hands.
import test from 'ava'
import {
  decodeReservations,
  encodeReservations,
  NOTHING_RESERVED,
  ProutAction,
  type ProutRequest,
  permits,
  prout,
  type Reservations,
} from '../../src/doors/iscsi/reservations.js'
import { Status } from '../../src/wire/scsi/constants.js'

const request = (part: Partial<ProutRequest>): ProutRequest => ({
  ...{ action: ProutAction.REGISTER, nexus: 'a', type: 0, key: 0n, newKey: 0n, aptpl: false },
  ...part,
})

/** Applies requests that must succeed. */
function after(...requests: Partial<ProutRequest>[]): Reservations {
  return requests.reduce<Reservations>((state, part) => {
    const result = prout(state, request(part))
    if (result.outcome.status !== Status.GOOD)
      throw new Error(`refused: ${JSON.stringify(part.action)}`)
    return result.next
  }, NOTHING_RESERVED)
}

const A = { nexus: 'a', newKey: 1n }
const B = { nexus: 'b', newKey: 2n }

const KEEPER = { group: 7, life: 'ab' }

test('who may read and write under each type: holder, registrant, stranger', (t) => {
  const table: Record<number, string> = {}
  for (const type of [1, 3, 5, 6, 7, 8]) {
    const state = after(A, B, { action: ProutAction.RESERVE, nexus: 'a', key: 1n, type })
    const rights = ['a', 'b', 'c'].map((nexus) => {
      const [read, write] = [permits(state, nexus, 'read'), permits(state, nexus, 'write')]
      t.true(permits(state, nexus, 'free'))
      return `${read ? 'r' : '-'}${write ? 'w' : '-'}`
    })
    table[type] = rights.join(' ')
  }
  t.deepEqual(table, {
    1: 'rw r- r-',
    3: 'rw -- --',
    5: 'rw rw r-',
    6: 'rw rw --',
    7: 'rw rw r-',
    8: 'rw rw --',
  })
})

test('a key that is not the registered one is a conflict, whatever is asked', (t) => {
  const state = after(A, B)
  for (const action of Object.values(ProutAction)) {
    if (action === ProutAction.REGISTER_AND_IGNORE) continue
    const { outcome, next } = prout(state, request({ action, key: 9n, newKey: 2n, type: 1 }))
    t.is(outcome.status, Status.RESERVATION_CONFLICT, `${action}`)
    t.is(next, state)
  }
})

test('the holder that unregisters gives the reservation up; other registrants are told', (t) => {
  const state = after(A, B, { action: ProutAction.RESERVE, nexus: 'a', key: 1n, type: 5 })
  const result = prout(state, request({ nexus: 'a', key: 1n, newKey: 0n }))
  t.is(result.next.held, undefined)
  t.deepEqual(
    result.told.map(({ nexus }) => nexus),
    ['b'],
  )
})

test('of all registrants: the reservation ends with the last of them', (t) => {
  const state = after(A, B, { action: ProutAction.RESERVE, nexus: 'a', key: 1n, type: 7 })
  const one = prout(state, request({ nexus: 'a', key: 1n, newKey: 0n })).next
  t.truthy(one.held)
  t.true(permits(one, 'b', 'write'))
  const none = prout(one, request({ nexus: 'b', key: 2n, newKey: 0n })).next
  t.is(none.held, undefined)
})

test('PREEMPT of the holder takes the reservation over and its registration away', (t) => {
  const state = after(A, B, { action: ProutAction.RESERVE, nexus: 'a', key: 1n, type: 3 })
  const preempt = { nexus: 'b', key: 2n, newKey: 1n, type: 1 }
  const result = prout(state, request({ ...preempt, action: ProutAction.PREEMPT_AND_ABORT }))
  t.deepEqual(result.next.held, { nexus: 'b', type: 1 })
  t.deepEqual(
    result.next.registrations.map(({ nexus }) => nexus),
    ['b'],
  )
  t.deepEqual(result.aborted, ['a'])
  t.false(permits(result.next, 'a', 'write'))
  t.deepEqual(prout(state, request({ ...preempt, action: ProutAction.PREEMPT })).aborted, [])
})

test('PREEMPT of a key nobody has is a conflict; CLEAR takes everything away', (t) => {
  const state = after(A, B, { action: ProutAction.RESERVE, nexus: 'a', key: 1n, type: 3 })
  const nobody = { action: ProutAction.PREEMPT, nexus: 'b', key: 2n, newKey: 7n, type: 1 }
  t.is(prout(state, request(nobody)).outcome.status, Status.RESERVATION_CONFLICT)
  const { next } = prout(state, request({ action: ProutAction.CLEAR, nexus: 'b', key: 2n }))
  t.deepEqual([next.registrations, next.held], [[], undefined])
})

test('what is kept comes back as it was; what is nothing of ours does not', (t) => {
  const state = after(
    { ...A, aptpl: true },
    { ...B, aptpl: true },
    {
      ...{ action: ProutAction.RESERVE, nexus: 'a', key: 1n, type: 8 },
    },
  )
  t.deepEqual(decodeReservations(encodeReservations(state, KEEPER)), { state, keeper: KEEPER })
  const none = after({ ...A, aptpl: true })
  t.deepEqual(decodeReservations(encodeReservations(none, KEEPER)), { state: none, keeper: KEEPER })
  for (const text of ['', 'null', '{}', '{"registrations":[{}],"generation":1}', '[1']) {
    t.is(decodeReservations(Buffer.from(text)), undefined, text)
  }
})
