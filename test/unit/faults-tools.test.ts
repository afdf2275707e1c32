// What the fault test itself is made of: a model that finds wrong blocks, a schedule that never asks too much.
import test from 'ava'
import { BLOCK_BYTES, BlockModel } from '../faults/block-model.js'
import { dice } from '../faults/dice.js'
import { type NodeCondition, type NodeStatus, nextAction, type Rules } from '../faults/schedule.js'

const model = (): BlockModel => new BlockModel(7, 8, () => 'now')

test('a block holds what was acknowledged last, or a write nobody answered', (t) => {
  const blocks = model()
  const first = blocks.begin(2, 1)
  blocks.acknowledged(2, 1, first.generation, 'a')
  const second = blocks.begin(2, 1)
  blocks.unknown(2, 1, second.generation, 'a')
  t.deepEqual(blocks.check(2, first.data, 'b'), [])
  t.regex(blocks.check(2, second.data, 'b')[0]!, /found 2, allowed 1 \(/)
})

test('what a read has shown does not go back', (t) => {
  const blocks = model()
  const first = blocks.begin(2, 1)
  blocks.unknown(2, 1, first.generation, 'a')
  t.deepEqual(blocks.check(2, first.data, 'b'), [])
  t.is(blocks.check(2, Buffer.alloc(BLOCK_BYTES), 'b').length, 1)
})

test('a write of unknown outcome may be there by sectors, an acknowledged one may not', (t) => {
  const blocks = model()
  const first = blocks.begin(0, 1)
  blocks.acknowledged(0, 1, first.generation, 'a')
  const second = blocks.begin(0, 1)
  const mixed = Buffer.concat([second.data.subarray(0, 1024), first.data.subarray(1024)])
  t.deepEqual(blocks.check(0, mixed, 'b'), [])
  blocks.acknowledged(0, 1, second.generation, 'a')
  t.regex(blocks.check(0, mixed, 'b')[0]!, /found 2 and 1, allowed 2/)
})

test('a sector that may tear holds anything until it is written again, but nothing of elsewhere', (t) => {
  const blocks = new BlockModel(7, 8, () => 'now', true)
  const first = blocks.begin(0, 2)
  blocks.acknowledged(0, 2, first.generation, 'a')
  const before = first.data.subarray(0, BLOCK_BYTES)
  const second = blocks.begin(0, 1)
  const mixed = Buffer.concat([second.data.subarray(0, 130), before.subarray(130)])
  t.deepEqual(blocks.check(0, mixed, 'b'), [])
  t.deepEqual(blocks.check(0, before, 'b'), [])
  t.regex(blocks.check(0, mixed, 'b')[0]!, /torn within sector 0/)
  blocks.begin(0, 1)
  t.deepEqual(blocks.check(0, mixed, 'b'), [])
  t.regex(blocks.check(0, first.data.subarray(BLOCK_BYTES), 'b')[0]!, /sector 0 of block 1/)
})

test('wrong places, rubbish and torn sectors are told apart', (t) => {
  const blocks = model()
  const { data, generation } = blocks.begin(3, 2)
  blocks.acknowledged(3, 2, generation, 'a')
  t.deepEqual(blocks.check(3, data, 'b'), [])
  const swapped = Buffer.concat([data.subarray(BLOCK_BYTES), data.subarray(BLOCK_BYTES)])
  t.regex(blocks.check(3, swapped, 'b')[0]!, /sector 0 of block 4, volume 7, write 1/)
  const torn = Buffer.from(data)
  torn[600] = torn[600]! ^ 1
  t.regex(blocks.check(3, torn, 'b')[0]!, /write 1 torn within sector 1/)
  t.regex(blocks.check(3, Buffer.alloc(2 * BLOCK_BYTES, 5), 'b')[0]!, /rubbish in sector 0/)
})

test('after the loss of everything unflushed a block goes back to its last flush and no further', (t) => {
  const blocks = model()
  const write = () => {
    const { generation, data } = blocks.begin(1, 1)
    blocks.acknowledged(1, 1, generation, 'a')
    return data
  }
  const old = write()
  const flushed = write()
  blocks.flushed(blocks.flushBegins())
  const late = write()
  blocks.lostUnflushed()
  t.is(blocks.check(1, old, 'b').length, 1)
  t.deepEqual(blocks.check(1, late, 'b'), [])
  blocks.lostUnflushed()
  t.deepEqual(blocks.check(1, flushed, 'b'), [])
})

test('a flush covers what was acknowledged when it began, not what came during it', (t) => {
  const blocks = model()
  const first = blocks.begin(0, 1)
  const mark = blocks.flushBegins()
  blocks.acknowledged(0, 1, first.generation, 'a')
  blocks.flushed(mark)
  blocks.lostUnflushed()
  t.deepEqual(blocks.check(0, Buffer.alloc(BLOCK_BYTES), 'b'), [])
})

const RULES: Rules = {
  bearable: 2,
  membersMin: 3,
  faults: ['kill', 'pause', 'leave', 'cut', 'orphan', 'retire'],
  awaySeconds: [2, 6],
}

const AFTER: Readonly<Record<string, NodeCondition>> = {
  ...{ kill: 'dead', pause: 'paused', leave: 'left', cut: 'cut', retire: 'spare' },
  ...{ orphan: 'orphan', adopt: 'up' },
  ...{ restart: 'up', resume: 'up', heal: 'up', add: 'up' },
}

test('a schedule never endangers more nodes than the copies bear, and comes from its seed', (t) => {
  const seen = new Set<string>()
  for (let seed = 0; seed < 40; seed++) {
    const [chance, same] = [dice(seed), dice(seed)]
    const nodes = Array.from({ length: 6 }, (_, index) => {
      return { index, condition: index < 5 ? 'up' : 'spare', unsettled: false, sinceSeconds: 9 }
    }) as { -readonly [Key in keyof NodeStatus]: NodeStatus[Key] }[]
    for (let step = 0; step < 200; step++) {
      const action = nextAction(nodes, RULES, chance)
      t.deepEqual(nextAction(nodes, RULES, same), action)
      seen.add(action.kind)
      for (const node of nodes) node.sinceSeconds += 1
      if (action.kind === 'rest') {
        for (const node of nodes) Object.assign(node, { condition: 'up', unsettled: false })
        continue
      }
      const node = nodes[action.node]!
      const condition = AFTER[action.kind]!
      const unsettled = node.unsettled || condition !== 'up'
      Object.assign(node, { condition, unsettled, sinceSeconds: 0 })
      t.true(nodes.filter(({ condition }) => condition === 'up').length >= RULES.membersMin)
      const dangers = nodes.filter(({ unsettled: isDanger }) => isDanger)
      t.true(dangers.length <= RULES.bearable, `seed ${seed}, step ${step}`)
    }
  }
  t.deepEqual([...seen].sort(), [...Object.keys(AFTER), 'rest'].sort())
})

test('of the servers all share one at a time is away, and not for long', (t) => {
  const nodes: NodeStatus[] = [{ index: 0, condition: 'up', unsettled: false, sinceSeconds: 9 }]
  const [, awayMax] = RULES.awaySeconds
  for (let seed = 0; seed < 20; seed++) {
    const chance = dice(seed)
    const servers = [0, 1, 2].map((index) => ({ index, isUp: true, sinceSeconds: 0 }))
    const seen = new Set<string>()
    for (let step = 0; step < 100; step++) {
      for (const server of servers) server.sinceSeconds += 1
      const { kind, node } = nextAction(nodes, RULES, chance, servers)
      seen.add(kind)
      if (kind === 'strike' || kind === 'repair') {
        Object.assign(servers[node]!, { isUp: kind === 'repair', sinceSeconds: 0 })
      } else t.is(kind, 'rest')
      const down = servers.filter(({ isUp }) => !isUp)
      t.true(down.length <= 1 && down.every(({ sinceSeconds }) => sinceSeconds < awayMax))
    }
    t.deepEqual([...seen].sort(), ['repair', 'rest', 'strike'])
  }
})
