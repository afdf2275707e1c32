// Who is turned away at the door of a cluster, and what the administrator of the joiner reads.
import test from 'ava'
import type { SdNode } from '../../src/model/node.js'
import { refusalOfJoiner } from '../../src/sheep/join-rules.js'
import { answerJoin, onAccepted, onForced } from '../../src/sheep/membership.js'
import { ClusterFlag } from '../../src/wire/sheepdog/opcodes.js'
import {
  type ClusterInfo,
  decodeClusterInfo,
  encodeClusterInfo,
} from '../../src/wire/sheepdog/records.js'

const GB = 1024 ** 3

function node(last: number, part: Partial<SdNode> = {}): SdNode {
  const base = { host: `10.0.0.${last}`, port: 7000, vnodes: 128, zone: last, spaceBytes: GB }
  return { ...base, ...part }
}

const [a, b, c] = [node(1), node(2), node(3)]
const gateway = node(9, { vnodes: 0, spaceBytes: 0 })

function info(part: Partial<ClusterInfo> = {}): ClusterInfo {
  return {
    version: 0,
    recoveryDisabled: false,
    epoch: 3,
    ctime: 77n,
    flags: ClusterFlag.AUTO_VNODES,
    copies: 2,
    policy: 0,
    status: 'ok',
    blockSizeShift: 22,
    store: 'plain',
    nodes: [a, b],
    ...part,
  }
}

const fresh = info({ epoch: 0, ctime: 0n, nodes: [], status: 'wait' })

interface Case {
  own?: ClusterInfo
  joiner?: SdNode
  members?: readonly SdNode[]
  request?: ClusterInfo
  log?: Readonly<Record<number, readonly SdNode[]>>
}

function judge({ own = info(), joiner = c, members = [a, b], request = fresh, log = {} }: Case) {
  return refusalOfJoiner({ own, joiner, members, request, nodesOf: (epoch) => log[epoch] })
}

test('new nodes, nodes that come back and gateways are let in', (t) => {
  t.is(judge({}), undefined)
  t.is(judge({ joiner: b, members: [a], request: info({ status: 'wait' }) }), undefined)
  t.is(judge({ joiner: gateway, request: info({ ...fresh, flags: 0 }) }), undefined)
  t.is(judge({ members: [], request: info({ ctime: 5n }) }), undefined)
})

test('a store of another cluster is turned away and told how to join as a new node', (t) => {
  t.regex(judge({ request: info({ ctime: 78n }) }) ?? '', /another cluster.*empty directory/)
})

test('the vnode strategies must agree as soon as somebody stores objects', (t) => {
  const fixed = info({ ...fresh, flags: 0 })
  t.regex(judge({ request: fixed }) ?? '', /start without -V/)
  t.regex(judge({ own: info({ flags: 0 }) }) ?? '', /start with -V NUMBER/)
  t.regex(judge({ own: fresh, request: fixed }) ?? '', /start without -V/)
  t.is(judge({ own: fresh, members: [gateway], request: fixed }), undefined)
})

test('gateways that wait alone follow the first node that stores objects', (t) => {
  const fixed = info({ ...fresh, flags: 0 })
  const answer = answerJoin(fresh, c, [gateway], fixed)
  t.is(answer.flags & ClusterFlag.AUTO_VNODES, 0)
  const arrival = { self: gateway, joiner: c, members: [gateway, c], answer }
  t.is(onAccepted(fresh, arrival).next.flags & ClusterFlag.AUTO_VNODES, 0)
  const second = answerJoin(fixed, a, [gateway, c], fresh)
  t.is(second.flags & ClusterFlag.AUTO_VNODES, 0)
})

test('an address nobody else can reach is turned away', (t) => {
  t.regex(judge({ joiner: node(3, { host: '0.0.0.0' }) }) ?? '', /0\.0\.0\.0:7000.*-y/)
  t.regex(judge({ joiner: node(3, { host: '::' }) }) ?? '', /-y/)
  t.regex(judge({ joiner: node(3, { port: 0 }) }) ?? '', /-y/)
  t.regex(judge({ joiner: node(3, { host: '127.0.0.1' }) }) ?? '', /its own host only.*10\.0\.0\.1/)
  const locals = [node(1, { host: '127.0.0.1' })]
  t.regex(judge({ members: locals }) ?? '', /127\.0\.0\.1:7000/)
  t.is(judge({ members: locals, joiner: node(2, { host: '127.0.0.2' }) }), undefined)
})

test('two parts of a split cluster that both went on do not mix', (t) => {
  const other = info({ epoch: 4, nodes: [c], status: 'wait' })
  const own = info({ epoch: 6 })
  t.regex(judge({ own, request: other, log: { 4: [a, b] } }) ?? '', /split/)
  t.is(judge({ own, request: other, log: { 4: [c] } }), undefined)
  t.is(judge({ own, request: other }), undefined)
  t.regex(judge({ own: info({ epoch: 4 }), request: other }) ?? '', /10\.0\.0\.1:7000.*10\.0\.0\.3/)
})

test('a running cluster turns away who knows an epoch it has not come to; a waiting one follows', (t) => {
  const newer = info({ epoch: 7, status: 'wait' })
  t.regex(judge({ request: newer }) ?? '', /epoch 7.*come to 3/)
  t.is(judge({ own: info({ status: 'wait' }), request: newer }), undefined)
})

test('a cluster that is shutting down lets nobody in', (t) => {
  t.regex(judge({ own: info({ status: 'shutdown' }) }) ?? '', /shut down/)
})

test('nodes with another weight or zone make the next epoch when a cluster starts', (t) => {
  const answer = info({ version: 10, nodes: [a, b] })
  const own = info({ status: 'wait' })
  const step = (members: readonly SdNode[]) =>
    onAccepted(own, { self: a, joiner: b, members, answer }).next.epoch
  t.is(step([b, a]), 3)
  t.is(step([a, { ...b, zone: 77 }]), 4)
  t.is(step([a, { ...b, vnodes: 0, spaceBytes: 0 }]), 4)
})

test('forcing takes the next epoch of those who wait, and says so in what travels', (t) => {
  const own = info({ status: 'wait', nodes: [a, b, c] })
  const step = onForced(own, { self: a, members: [b, a], epoch: 3 })
  t.like(step?.next, { epoch: 4, status: 'ok', forced: 4, nodes: [a, b] })
  t.deepEqual(
    step?.effects.map(({ kind }) => kind),
    ['learn', 'serve'],
  )
  t.like(step?.effects[0], { from: [b], keepOwn: true })
  const told = decodeClusterInfo(encodeClusterInfo({ ...step!.next, epoch: 9 }))
  t.is(told.forced, 4)
  t.false('forced' in decodeClusterInfo(encodeClusterInfo(own)))
})

test('forcing happens only while waiting, in the epoch that was looked at', (t) => {
  const place = { self: a, members: [a], epoch: 3 }
  t.is(onForced(info(), place), undefined)
  t.is(onForced(fresh, place), undefined)
  t.is(onForced(info({ status: 'wait', epoch: 4 }), place), undefined)
})

test('where only outsiders are left to force with, each tells the volumes it has seen', (t) => {
  const own = info({ status: 'wait', nodes: [c, gateway] })
  const step = onForced(own, { self: a, members: [a, b, gateway], epoch: 3 })
  t.like(step?.effects[0], { from: [b, gateway], keepOwn: true })
  const current = onForced(own, { self: a, members: [a, b, c], epoch: 3 })
  t.like(current?.effects[0], { from: [c], keepOwn: false })
})

test('a force is remembered by who comes later', (t) => {
  const answer = info({ version: 10, epoch: 5, forced: 4 })
  const step = onAccepted(fresh, { self: c, joiner: c, members: [a, b, c], answer })
  t.is(step.next.forced, 4)
  const member = onAccepted(info({ forced: 4 }), {
    ...{ self: a, joiner: c, members: [a, b, c], answer: info({ version: 10, epoch: 5 }) },
  })
  t.is(member.next.forced, 4)
})
