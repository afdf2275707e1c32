// Vectors of the objects spec, sections 2 and 11, checked there against files of the C daemon.
import test from 'ava'
import { fnv1a64, hashBytes, hashOid, nextHash, vidHash, vnodeChain } from '../../src/model/hash.js'
import { nodeKey, type SdNode, sortNodes } from '../../src/model/node.js'
import type { Oid } from '../../src/model/oid.js'
import { buildRing, ownersOf, positionAt, weighNodes } from '../../src/model/ring.js'

const node = (host: string, port: number, zone: number, spaceBytes = 1): SdNode => ({
  host,
  port,
  zone,
  spaceBytes,
  vnodes: 128,
})

test('FNV-1a and its second round give the vectors', (t) => {
  t.is(fnv1a64(Buffer.alloc(0)), 0xcbf29ce484222325n)
  t.is(fnv1a64(Buffer.from('alice')), 0x508b2abb65a03907n)
  t.is(hashOid(0n as Oid), 0xcb720bf58a2c29ecn)
  t.is(hashOid(1n as Oid), 0x695a27070a16e038n)
  t.is(hashOid(0x8000000000000000n as Oid), 0x5b4f01df2a801f14n)
  t.is(hashOid(0x80ffffff00000000n as Oid), 0x16085f9675597887n)
})

test('volume ids start at the low 24 bits of the name hash', (t) => {
  const vectors: Record<string, number> = {
    alice: 0xa03907,
    test: 0x7c2b25,
    a: 0x01ec8c,
    vol1: 0x83d7d1,
    'disk-0': 0x42f4e1,
    Alice: 0x15d167,
    e1: 0x39b883,
    n10198594: 0,
    n9500422: 1,
    n12175628: 0xffffff,
    n34124877: 0xffffff,
    n16787510: 0xa03908,
  }
  for (const [name, vid] of Object.entries(vectors)) t.is(vidHash(name), vid as never, name)
  t.is(vidHash('b'.repeat(255)), 0xb06ba5 as never)
})

test('a node seed and its first vnodes give the vectors', (t) => {
  const bytes = Buffer.from('0000000000000000000000007f0000018e1c', 'hex')
  const seed = hashBytes(bytes)
  t.is(seed, 0x6a41c771c5ec36dcn)
  t.is(nextHash(seed), 0xafdb4182b1054ec6n)
  t.is(nextHash(nextHash(seed)), 0xf1174904250ac59bn)
})

test('the ring of three nodes starts as the vector says', (t) => {
  const ring = buildRing([0, 1, 2].map((i) => node('127.0.0.1', 7310 + i, i)))
  const first = Array.from({ length: 6 }, (_, i) => {
    const position = positionAt(ring, i).toString(16).padStart(16, '0')
    return `${position}:${ring.nodes[ring.owner[i]!]!.port}`
  })
  t.deepEqual(first, [
    '00a3ab3506ded855:7310',
    '010aa5aaef7dd958:7310',
    '01764763caa94521:7311',
    '01fa892faf34774a:7312',
    '0354862b5d4470bb:7311',
    '038fc409dd7e4b69:7310',
  ])
})

test('objects land on the owners the C daemon chose', (t) => {
  const local = buildRing([0, 1, 2].map((i) => node('127.0.0.1', 7310 + i, i)))
  const vectors: [bigint, string][] = [
    [0x80a0390700000000n, '7311 7310 7312'],
    [0x00a0390700000000n, '7312 7311 7310'],
    [0x00a039070000000fn, '7311 7310 7312'],
    [0x807c2b2500000000n, '7311 7310 7312'],
    [0x08a0390700000000n, '7311 7312 7310'],
    [0x40a0390700000000n, '7312 7311 7310'],
    [0x20a0390700001234n, '7310 7312 7311'],
    [0x10a0390700000000n, '7312 7310 7311'],
  ]
  for (const [oid, ports] of vectors) {
    const owners = ownersOf(local, oid as Oid, 3)
    t.is(owners.map((owner) => owner.port).join(' '), ports)
  }
  const remote = buildRing([1, 2, 3].map((i) => node(`10.0.0.${i}`, 7000, i)))
  const two = ownersOf(remote, 0x00a0390700000001n as Oid, 2)
  t.deepEqual(two.map(nodeKey), ['10.0.0.3:7000', '10.0.0.1:7000'])
})

test('no more owners than zones, and never two in one zone', (t) => {
  const ring = buildRing([0, 1, 2, 3].map((i) => node('127.0.0.1', 7310 + i, i % 2)))
  t.is(ring.zones, 2)
  const owners = ownersOf(ring, 5n as Oid, 3)
  t.deepEqual(owners.map((owner) => owner.zone).sort(), [0, 1])
})

test('automatic vnode numbers follow space in single precision', (t) => {
  const gib = 2 ** 30
  const spaces = [100 * gib, 200 * gib, 333 * gib, 79454248960]
  const weighed = weighNodes(
    spaces.map((space, i) => node('127.0.0.1', 7000 + i, i, space)),
    true,
  )
  t.deepEqual(
    weighed.map((one) => one.vnodes),
    [72, 145, 241, 54],
  )
  t.is(weighNodes([node('127.0.0.1', 1, 1, 0)], true)[0]!.vnodes, 0)
})

test('nodes sort by address bytes, then by port', (t) => {
  const sorted = sortNodes([
    node('10.0.0.10', 7000, 0),
    node('10.0.0.9', 7001, 0),
    node('10.0.0.9', 90, 0),
  ])
  t.deepEqual(sorted.map(nodeKey), ['10.0.0.9:90', '10.0.0.9:7001', '10.0.0.10:7000'])
})

test('a ring made from the one before is the ring made afresh', (t) => {
  const everybody = sortNodes(
    Array.from({ length: 24 }, (_, i) => node(`10.0.${i % 3}.${i + 1}`, 7000, i)),
  )
  let ring = buildRing([])
  for (let step = 0; step < 60; step++) {
    // Members come and go, and vnode numbers change both ways, as they do with the average space.
    const members = everybody
      .filter((_, i) => ((step * 7 + i * 5) % 11) % 4 !== 0)
      .map((one, i) => ({ ...one, vnodes: 100 + ((step * 13 + i * 17) % 57) }))
    ring = buildRing(members, ring)
    t.deepEqual(ring, buildRing(members), `step ${step}`)
  }
})

test('a vnode chain is the hash of the hash', (t) => {
  const chain = vnodeChain(0x6a41c771c5ec36dcn, 200)
  let position = 0x6a41c771c5ec36dcn
  for (let i = 0; i < 200; i++) {
    position = nextHash(position)
    t.is((BigInt(chain[2 * i]!) << 32n) | BigInt(chain[2 * i + 1]!), position)
  }
})

test('two nodes whose vnodes share a position make no ring', (t) => {
  const one = node('10.0.0.1', 7000, 1)
  t.throws(() => buildRing([one, one]), { message: /share a ring position/ })
  t.throws(() =>
    buildRing(
      [
        { ...one, port: 7001 },
        { ...one, port: 7001 },
      ],
      buildRing([one]),
    ),
  )
})
