// Which missing nodes forbid that older copies are forgotten.
import test from 'ava'
import { nodeKey, type SdNode } from '../../src/model/node.js'
import { asVid } from '../../src/model/oid.js'
import { UNLOCKED, type VdiState } from '../../src/model/vdi-state.js'
import { spareOwners, unaccounted } from '../../src/sheep/recovery/forgetting.js'
import { NodeState } from '../../src/sheep/state.js'

function node(index: number, part: Partial<SdNode> = {}): SdNode {
  const host = '127.0.0.1'
  return { host, port: 7000 + index, vnodes: 128, zone: index, spaceBytes: 1 << 30, ...part }
}

const FIVE = [0, 1, 2, 3, 4].map((index) => node(index))
const without = (...gone: number[]): ReadonlySet<ReturnType<typeof nodeKey>> =>
  new Set(FIVE.filter((_, index) => !gone.includes(index)).map(nodeKey))

function stateOf(copies: number, ...volumes: Partial<VdiState>[]): NodeState {
  const state = new NodeState(FIVE[0]!)
  state.settings = { ...state.settings, copies }
  volumes.forEach((volume, index) => {
    state.vids.put({
      ...{ vid: asVid(index + 1), copies, policy: 0, blockSizeShift: 22, snapshot: false },
      ...{ deleted: false, parent: asVid(0), lock: UNLOCKED, ...volume },
    })
  })
  return state
}

test('as many nodes as an object has copies, and no fewer, may be all that had it', (t) => {
  const twoCopies = (): number => 1
  t.deepEqual(unaccounted(FIVE, without(3), twoCopies), [])
  t.deepEqual(unaccounted(FIVE, without(3, 4), twoCopies), [FIVE[3]!, FIVE[4]!])
})

test('nodes of one zone never had two copies, and gateways had none', (t) => {
  const then = [node(0), node(1), node(2, { zone: 1 }), node(3, { vnodes: 0 })]
  const now = new Set([nodeKey(then[0]!)])
  t.deepEqual(
    unaccounted(then, now, () => 1),
    [],
  )
})

test('the weakest volume decides, with the fewest copies it has had', (t) => {
  t.is(spareOwners(stateOf(3), 5), 2)
  t.is(spareOwners(stateOf(3, { copies: 2 }), 5), 1)
  t.is(spareOwners(stateOf(3, { copies: 1, deleted: true }), 5), 2)
  t.is(spareOwners(stateOf(3, { copies: 4, leastCopies: 1 }), 5), 0)
  // 4:2
  t.is(spareOwners(stateOf(4, { copies: 6, policy: 0x22 }), 6), 2)
})

test('where there are fewer zones than copies, there were fewer copies', (t) => {
  t.is(spareOwners(stateOf(3), 2), 1)
  t.is(spareOwners(stateOf(3), 1), 0)
})
