// Who answers a join and with what, and what a node does about who comes and goes: pure steps.
import test from 'ava'
import type { SdNode } from '../../src/model/node.js'
import { answerJoin, onAccepted, onFormat, onLeft, onUpdated } from '../../src/sheep/membership.js'
import { ClusterFlag } from '../../src/wire/sheepdog/opcodes.js'
import {
  type ClusterInfo,
  decodeClusterInfo,
  encodeClusterInfo,
} from '../../src/wire/sheepdog/records.js'

const GB = 1024 ** 3

function node(port: number, spaceBytes = GB): SdNode {
  return { host: '127.0.0.1', port, vnodes: 128, zone: port, spaceBytes }
}

const [a, b, c] = [node(7001), node(7002), node(7003)]

function info(part: Partial<ClusterInfo> = {}): ClusterInfo {
  return {
    version: 0,
    recoveryDisabled: false,
    epoch: 3,
    ctime: 77n,
    flags: ClusterFlag.AUTO_VNODES,
    copies: 2,
    policy: 0,
    status: 'wait',
    blockSizeShift: 22,
    store: 'plain',
    nodes: [a, b],
    ...part,
  }
}

const fresh = info({ epoch: 0, ctime: 0n, copies: 0, blockSizeShift: 0, store: '', nodes: [] })
const kinds = (step: ReturnType<typeof onAccepted>): string[] =>
  step.effects.map(({ kind }) => kind)

test('the first node of a new cluster waits for the format', (t) => {
  const answer = answerJoin(fresh, a, [], fresh)
  t.like(answer, { version: 10, status: 'wait', epoch: 0 })
  const step = onAccepted(fresh, { self: a, joiner: a, members: [a], answer })
  t.deepEqual(step.effects, [])
})

test('a restarted cluster waits until every node of its epoch is there', (t) => {
  t.like(answerJoin(info(), a, [], info()), { status: 'wait', epoch: 3 })
  t.like(answerJoin(info(), b, [a], info()), { status: 'ok', epoch: 3, nodes: [a, b] })
})

test('of several histories the newest counts, and its nodes decide when it starts', (t) => {
  const newer = info({ epoch: 5, nodes: [b, c] })
  t.like(answerJoin(info(), b, [a], newer), { status: 'wait', epoch: 5, nodes: [b, c] })
  t.like(answerJoin(newer, a, [b], info()), { status: 'wait', epoch: 5, nodes: [b, c] })
  t.like(answerJoin(newer, c, [a, b], newer), { status: 'ok', epoch: 5, nodes: [b, c] })
})

test('a node without history takes that of a joiner, and a joiner without takes ours', (t) => {
  t.like(answerJoin(fresh, a, [c], info({ nodes: [a] })), { status: 'ok', epoch: 3 })
  t.like(answerJoin(info({ nodes: [a] }), c, [a], fresh), { status: 'ok', epoch: 3, ctime: 77n })
})

test('histories of two clusters do not mix, whichever is newer', (t) => {
  const other = info({ ctime: 78n, epoch: 9, nodes: [c] })
  const answer = answerJoin(info(), c, [a, b], other)
  t.like(answer, { status: 'wait', epoch: 3, ctime: 77n })
  const step = onAccepted(other, { self: c, joiner: c, members: [a, b, c], answer })
  t.deepEqual(kinds(step), ['refused'])
  t.is(step.next, other)
})

test('a running cluster tells its state, whatever the joiner knows', (t) => {
  const running = info({ status: 'ok', epoch: 8 })
  t.like(answerJoin(running, c, [a, b], info({ epoch: 9 })), { status: 'ok', epoch: 8 })
})

test('a joiner of another protocol or vnode strategy is refused', (t) => {
  const arrival = { self: c, joiner: c, members: [a, b, c] }
  const ok = info({ status: 'ok', version: 10 })
  const alien = onAccepted(fresh, { ...arrival, answer: { ...ok, version: 9 } })
  t.deepEqual(kinds(alien), ['refused'])
  const fixed = onAccepted(fresh, { ...arrival, answer: { ...ok, flags: 0 } })
  t.deepEqual(kinds(fixed), ['refused'])
  const gateway = { ...c, vnodes: 0 }
  const answer = { ...ok, flags: 0 }
  const served = onAccepted(fresh, { self: gateway, joiner: gateway, members: [a, b, c], answer })
  t.deepEqual(kinds(served), ['learn', 'serve'])
  t.is(served.next.flags, 0)
})

test('joining a running cluster makes the next epoch, and the members know better', (t) => {
  const answer = info({ status: 'ok', version: 10 })
  const step = onAccepted(fresh, { self: c, joiner: c, members: [a, b, c], answer })
  t.like(step.effects[0], { kind: 'learn', from: [a, b], keepOwn: false })
  t.like(step.effects[1], { kind: 'serve', recover: { epoch: 3, sameMembers: false } })
  t.like(step.next, { epoch: 4, status: 'ok', nodes: [a, b, c] })
  const member = onAccepted(info({ status: 'ok' }), {
    ...{ self: a, joiner: c, members: [a, b, c], answer },
  })
  t.deepEqual(kinds(member), ['serve'])
  t.deepEqual(member.next.nodes, step.next.nodes)
  t.is(member.next.epoch, 4)
})

test('a node the cluster went on without sets its objects aside and forgets its volumes', (t) => {
  const answer = info({ status: 'ok', version: 10, epoch: 4, nodes: [a] })
  const step = onAccepted(info(), { self: b, joiner: b, members: [a, b], answer })
  t.deepEqual(kinds(step), ['outdated', 'learn', 'serve'])
  t.like(step.effects[1], { from: [a], keepOwn: false })
})

test('when a cluster starts its nodes put together what is on their disks', (t) => {
  const answer = info({ status: 'ok', version: 10 })
  for (const [self, other] of [[a, b] as const, [b, a] as const]) {
    const step = onAccepted(info(), { self, joiner: b, members: [a, b], answer })
    t.deepEqual(kinds(step), ['learn', 'serve'])
    t.like(step.effects[0], { from: [other], keepOwn: true })
    t.like(step.effects[1], { recover: { epoch: 3, sameMembers: true } })
    t.is(step.next.epoch, 3)
  }
  // C waited with them, but is not of that epoch: nobody learns from it, and the epoch moves on.
  const members = [a, b, c]
  const step = onAccepted(info(), { self: a, joiner: b, members, answer })
  t.like(step.effects[0], { kind: 'learn', from: [b] })
  t.like(step.effects[1], { kind: 'serve', recover: { epoch: 3, sameMembers: false } })
  t.is(step.next.epoch, 4)
})

test('while a cluster waits nobody learns and nothing is served', (t) => {
  const answer = info({ version: 10 })
  t.deepEqual(kinds(onAccepted(info(), { self: a, joiner: a, members: [a], answer })), [])
})

test('a cluster that is shutting down refuses joiners, and its members do nothing about them', (t) => {
  const answer = info({ version: 10, status: 'shutdown' })
  const arrival = { joiner: c, members: [a, c], answer }
  t.deepEqual(kinds(onAccepted(fresh, { self: c, ...arrival })), ['refused'])
  const member = onAccepted(info({ status: 'shutdown' }), { self: a, ...arrival })
  t.deepEqual([member.next.status, member.effects.length], ['shutdown', 0])
})

test('a departure makes the next epoch of a running cluster, and nothing of a waiting one', (t) => {
  const running = onLeft(info({ status: 'ok', nodes: [a, b, c] }), c, [b, a])
  t.deepEqual(kinds(running), ['left', 'serve'])
  t.like(running.next, { epoch: 4, nodes: [a, b] })
  const waiting = onLeft(info(), b, [a])
  t.deepEqual(kinds(waiting), ['left'])
  t.is(waiting.next.epoch, 3)
})

test('a format begins epoch 1 with whoever is there, sorted and weighed, and forgets', (t) => {
  const flags = ClusterFlag.AUTO_VNODES
  const request = { ctime: 99n, flags, copies: 3, policy: 0, blockSizeShift: 22 }
  const big = node(7002, 3 * GB)
  const members = [c, big, a]
  const next = onFormat(info({ epoch: 9, gathered: 8 }), { ...request, store: 'plain' }, members)
  t.like(next, { epoch: 1, status: 'ok', ctime: 99n, copies: 3, gathered: 0 })
  t.deepEqual(
    next.nodes.map(({ port, vnodes }) => [port, vnodes]),
    [
      [7001, 77],
      [7002, 230],
      [7003, 77],
    ],
  )
  const fixed = onFormat(fresh, { ...request, flags: 0, store: 'plain' }, members)
  t.deepEqual(
    fixed.nodes.map(({ vnodes }) => vnodes),
    [128, 128, 128],
  )
})

test('what everybody had travels in padding of 1.0 and is left out when unknown', (t) => {
  t.is(decodeClusterInfo(encodeClusterInfo(info({ gathered: 2 }))).gathered, 2)
  t.false('gathered' in decodeClusterInfo(encodeClusterInfo(info())))
})

test('new properties of a member are a new epoch of a running cluster, with its new weight', (t) => {
  const own = info({ status: 'ok' })
  const { next, effects } = onUpdated(own, [a, { ...b, spaceBytes: 3 * GB }])
  t.is(next.epoch, own.epoch + 1)
  t.deepEqual(
    next.nodes.map(({ vnodes }) => vnodes),
    [64, 192],
  )
  t.deepEqual(
    effects.map(({ kind }) => kind),
    ['serve'],
  )
  t.deepEqual(onUpdated(info(), [a, b]), { next: info(), effects: [] })
})
