/** The state machine and the delivery by themselves: what the drivers build on. */
import test from 'ava'
import { Delivery } from '../../src/cluster/delivery.js'
import type { DriverEvents } from '../../src/cluster/driver.js'
import {
  applyRecord,
  BLOCKS_MAX,
  type ClusterEvent,
  type ClusterState,
  EMPTY_CLUSTER,
  type Entry,
  type MemberId,
  mayAppend,
  nextToBury,
} from '../../src/cluster/membership.js'
import { Outbox } from '../../src/cluster/outbox.js'
import { testNode } from './support/recorder.js'

const NOBODY = 999 as MemberId

class Machine {
  state: ClusterState = EMPTY_CLUSTER

  /** Kinds of the events the record makes. */
  add(sender: MemberId, entry: Entry): readonly ClusterEvent[] {
    const applied = applyRecord(this.state, { seq: this.state.nextSeq, sender, entry })
    this.state = applied.state
    return applied.events
  }

  join(port: number): MemberId {
    const id = this.state.nextSeq as MemberId
    this.add(id, { kind: 'join', node: testNode(port), request: Buffer.from('r'), mark: 0 })
    return id
  }

  enter(port: number): MemberId {
    const id = this.join(port)
    const acceptor = this.state.members[0]?.id ?? id
    this.add(acceptor, { kind: 'accept', joiner: id, answer: Buffer.from('a') })
    return id
  }
}

const leave = (member: MemberId): Entry => ({ kind: 'leave', member })
const note = { kind: 'notify', message: Buffer.from('m') } as const

test('while a join waits, only its answer and the leave of the two concerned may follow', (t) => {
  const machine = new Machine()
  const [one, two] = [machine.enter(1), machine.enter(2)]
  const joiner = machine.join(3)
  const { state } = machine
  const allowed = (sender: MemberId, entry: Entry): boolean => mayAppend(state, sender, entry)
  t.true(allowed(one, { kind: 'accept', joiner, answer: Buffer.alloc(0) }))
  t.false(allowed(two, { kind: 'accept', joiner, answer: Buffer.alloc(0) }))
  t.false(allowed(one, { kind: 'accept', joiner: two, answer: Buffer.alloc(0) }))
  t.true(allowed(NOBODY, leave(one)))
  t.true(allowed(NOBODY, leave(joiner)))
  t.false(allowed(NOBODY, leave(two)))
  t.false(allowed(one, note))
  t.false(allowed(one, { kind: 'block' }))
  const join: Entry = { kind: 'join', node: testNode(4), request: Buffer.alloc(0), mark: 0 }
  t.false(allowed(NOBODY, join))
  t.is(
    nextToBury(state, (id) => id === two),
    undefined,
  )
  t.is(
    nextToBury(state, () => true),
    one,
  )
})

test('what may not be ordered is numbered and changes nothing', (t) => {
  const machine = new Machine()
  const one = machine.enter(1)
  const before = machine.state
  const wrong: Entry[] = [
    leave(NOBODY),
    { kind: 'accept', joiner: one, answer: Buffer.alloc(0) },
    { kind: 'unblock', message: Buffer.alloc(0) },
    { kind: 'update', node: testNode(2) },
    { kind: 'join', node: testNode(1), request: Buffer.alloc(0), mark: 0 },
    { kind: 'unknown' },
  ]
  for (const entry of wrong) t.deepEqual(machine.add(one, entry), [])
  t.deepEqual(machine.add(NOBODY, note), [])
  t.deepEqual(machine.state, { ...before, nextSeq: before.nextSeq + wrong.length + 1 })
})

test('the death of the acceptor passes the join on, then to the joiner itself', (t) => {
  const machine = new Machine()
  const [one, two] = [machine.enter(1), machine.enter(2)]
  const joiner = machine.join(3)
  const acceptors = [one, two].map((dead) =>
    machine
      .add(NOBODY, leave(dead))
      .map((event) => (event.kind === 'asked' ? event.acceptor : event.kind)),
  )
  t.deepEqual(acceptors, [
    ['left', two],
    ['left', joiner],
  ])
})

test('blocks are bounded, and a full queue lets the unblock pass that makes room', (t) => {
  const machine = new Machine()
  const one = machine.enter(1)
  machine.state = { ...machine.state, blocks: Array(BLOCKS_MAX).fill(one) }
  t.false(mayAppend(machine.state, one, { kind: 'block' }))
  const outbox = new Outbox()
  outbox.add({ kind: 'block' })
  t.is(outbox.next(machine.state, one), undefined)
  outbox.add({ kind: 'unblock', message: Buffer.from('room') })
  const entry = outbox.next(machine.state, one)
  t.is(entry?.kind, 'unblock')
  outbox.taken(entry!)
  machine.add(one, entry!)
  t.is(outbox.next(machine.state, one)?.kind, 'block')
})

test('an outbox refuses what is too long or too much, and keeps its room right', (t) => {
  const outbox = new Outbox()
  const message = Buffer.alloc(128 * 1024)
  t.throws(() => outbox.add({ kind: 'notify', message: Buffer.alloc(message.length + 1) }))
  const machine = new Machine()
  const one = machine.enter(1)
  for (let round = 0; round < 3; round++) {
    let count = 0
    t.throws(() => {
      for (; ; count++) outbox.add({ kind: 'notify', message })
    })
    t.is(count, 127)
    for (let next = outbox.next(machine.state, one); next !== undefined; ) {
      outbox.taken(next)
      next = outbox.next(machine.state, one)
    }
  }
})

function quiet(changes: Partial<DriverEvents>): DriverEvents {
  const nothing = (): void => undefined
  const events = { accepted: nothing, left: nothing, notified: nothing, blocked: nothing }
  const rest = {
    updated: nothing,
    suspended: nothing,
    lost: nothing,
    joinRequest: () => Buffer.alloc(0),
  }
  return { ...events, ...rest, ...changes }
}

test('a callback that asks for delivery does not get it inside', (t) => {
  const machine = new Machine()
  const one = 1 as MemberId
  const seen: string[] = []
  const duties = {
    answered: () => undefined,
    declined: () => undefined,
    entered: () => undefined,
    departed: () => undefined,
  }
  const notified = (_sender: unknown, message: Buffer): void => {
    seen.push(`begin ${message}`)
    if (message.toString() === 'm') {
      delivery.push(machine.add(one, { kind: 'notify', message: Buffer.from('later') }))
      delivery.run()
    }
    seen.push(`end ${message}`)
  }
  const delivery = new Delivery(one, quiet({ notified }), duties)
  delivery.push(
    machine.add(one, { kind: 'join', node: testNode(1), request: note.message, mark: 0 }),
  )
  delivery.push(machine.add(one, { kind: 'accept', joiner: one, answer: note.message }))
  delivery.push(machine.add(one, note))
  delivery.push(machine.add(one, note))
  delivery.run()
  const once = ['begin m', 'end m']
  const late = ['begin later', 'end later']
  t.deepEqual(seen, [...once, ...once, ...late, ...late])
})
