// Jute and sheepdog's records in ZooKeeper: the captured bytes of the spec (cluster.md 18), every chunk size, and
// bytes that cannot be what they claim.
import test from 'ava'
import { parseZookeeperOptions } from '../../src/cluster/zookeeper/options.js'
import {
  decodeEvent,
  EventType,
  encodeEvent,
  encodeJoin,
  encodeLeave,
  nodeText,
} from '../../src/cluster/zookeeper/record.js'
import { JuteFrames, JuteReader, JuteWriter, MalformedJute } from '../../src/wire/zookeeper/jute.js'
import { encodeConnect, encodeRequest, readMultiReply } from '../../src/wire/zookeeper/messages.js'

/** NOTIFY of MAKE_FS by 127.0.0.1:7361, zone 1 (cluster.md 18). */
function makeFs(): Buffer {
  const head = Buffer.alloc(168)
  Buffer.from('6cba6ffb88c27eee0600000000000000', 'hex').copy(head, 0)
  Buffer.from('7f000001c11c', 'hex').copy(head, 0x5c)
  Buffer.from('800000000100000000c0ac8f12000000', 'hex').copy(head, 0x78)
  Buffer.from('6600000000000000', 'hex').copy(head, 0xa0)
  const body = Buffer.alloc(102)
  Buffer.from('0a840100000000000000000006000000', 'hex').copy(body, 0)
  Buffer.from('28c84a387a68016b02000400', 'hex').copy(body, 24)
  body.write('plain\0', 96)
  return Buffer.concat([head, body])
}

test('a captured NOTIFY is read and written byte for byte', (t) => {
  const bytes = makeFs()
  t.is(bytes.length, 270)
  const event = decodeEvent(bytes)!
  t.is(event.type, EventType.NOTIFY)
  t.is(event.id, 0xee7ec288fb6fba6cn)
  const sender = { host: '127.0.0.1', port: 7361, vnodes: 128, zone: 1, spaceBytes: 0x128facc000 }
  t.deepEqual(event.sender, sender)
  t.is(event.body.length, 102)
  t.deepEqual(encodeEvent(event), bytes)
})

test('a member is named as 1.0 names it', (t) => {
  t.is(nodeText({ host: '127.0.0.1', port: 7360 }), 'IPv4 ip:127.0.0.1 port:7360')
  t.is(nodeText({ host: 'fe80::1', port: 7000 }), 'IPv6 ip:fe80::1 port:7000')
})

test('a join has room for the answer of a node of 1.0, and is small', (t) => {
  const node = { host: '10.0.0.1', port: 7000, vnodes: 128, zone: 1, spaceBytes: 1 }
  for (const members of [0, 10, 127, 128, 1000]) {
    const bytes = encodeJoin(1n, node, Buffer.from('who'), members)
    const room = Number(bytes.readBigUInt64LE(144))
    const total = Number(bytes.readBigUInt64LE(160))
    t.is(bytes.length, 168 + total)
    t.true(room >= 48 + 80 * (members + 1) && total >= room + 80 * members)
    t.true(bytes.length <= 168 + 48 + 160 * Math.max(256, 4 * members))
    const join = decodeEvent(bytes)
    t.true(join !== undefined && 'request' in join && join.request.equals(Buffer.from('who')))
  }
})

test('a record that lies about its lengths is none', (t) => {
  const node = { host: '10.0.0.1', port: 7000, vnodes: 128, zone: 1, spaceBytes: 1 }
  const good = encodeJoin(1n, node, Buffer.from('who'), 3)
  const changed = (change: (bytes: Buffer) => void): Buffer => {
    const bytes = Buffer.from(good)
    change(bytes)
    return bytes
  }
  const huge = 2n ** 63n
  const bad = [
    good.subarray(0, 167),
    good.subarray(0, good.length - 1),
    changed((bytes) => bytes.writeBigUInt64LE(huge, 144)),
    changed((bytes) => bytes.writeBigUInt64LE(huge, 160)),
    changed((bytes) => bytes.writeUInt32LE(0xffffffff, 24)),
    changed((bytes) => bytes.writeUInt32LE(99, 8)),
  ]
  // The same bytes as an ACCEPT: numbers of members and of blocks.
  for (const at of [24, 28, 152, 156]) {
    bad.push(
      changed((bytes) => {
        bytes.writeUInt32LE(EventType.ACCEPT, 8)
        bytes.writeUInt32LE(EventType.ACCEPT, 20)
        bytes.writeUInt32LE(0xffffffff, at)
      }),
    )
  }
  bad.forEach((bytes, i) => {
    t.is(decodeEvent(bytes), undefined, `${i}`)
  })
  t.not(decodeEvent(encodeLeave(1n, node, 5)), undefined)
})

test('an event above the ensemble’s limit is refused, not clipped', (t) => {
  const sender = { host: '10.0.0.1', port: 7000, vnodes: 128, zone: 1, spaceBytes: 1 }
  const body = Buffer.alloc(1024 * 1024)
  t.throws(() => encodeEvent({ id: 1n, type: EventType.NOTIFY, sender, body }), {
    message: /1048744 bytes, ZooKeeper takes 1047552/,
  })
})

test('frames come out the same at every chunk size', (t) => {
  const stream = Buffer.concat([
    encodeConnect({ lastZxid: 1n, timeoutMs: 2, sessionId: 3n, password: Buffer.alloc(16) }),
    encodeRequest(1, { kind: 'exists', path: '/sheepdog/queue', watch: true }),
    encodeRequest(2, { kind: 'close' }),
  ])
  const whole = new JuteFrames().push(stream)
  t.is(whole.length, 3)
  for (let size = 1; size <= stream.length; size++) {
    const frames = new JuteFrames()
    const found: Buffer[] = []
    for (let at = 0; at < stream.length; at += size) {
      found.push(...frames.push(stream.subarray(at, at + size)))
    }
    t.deepEqual(found, whole, `chunks of ${size}`)
  }
})

test('lengths no frame can have cost no memory', (t) => {
  const int = (value: number): Buffer => new JuteWriter().int(value).frame().subarray(4)
  for (const length of [-1, 0x7fffffff, 33 * 1024 * 1024]) {
    t.throws(() => new JuteFrames().push(int(length)), { instanceOf: MalformedJute })
  }
  for (const length of [-2, 5, 0x7fffffff]) {
    t.throws(() => new JuteReader(int(length)).buffer(), { instanceOf: MalformedJute })
    t.throws(() => new JuteReader(int(length)).texts(), { instanceOf: MalformedJute })
  }
  t.throws(() => new JuteReader(Buffer.alloc(7)).long(), { instanceOf: MalformedJute })
  const strange = new JuteWriter().int(77).bool(false).int(0).frame().subarray(4)
  t.throws(() => readMultiReply(new JuteReader(strange), 'x'), { instanceOf: MalformedJute })
})

test('-c zookeeper: says where the ensemble is, and whose cluster this is', (t) => {
  const at = (host: string, port = 2181) => ({ host, port })
  const good: [string, ReturnType<typeof parseZookeeperOptions>][] = [
    ['zk1', { servers: [at('zk1')], root: '/sheepdog', timeoutMs: 30_000 }],
    ['a:1,b:2/x', { servers: [at('a', 1), at('b', 2)], root: '/x', timeoutMs: 30_000 }],
    ['[::1]:5/a/b/c,timeout=10s', { servers: [at('::1', 5)], root: '/a/b/c', timeoutMs: 10_000 }],
    ['a,timeout=3000', { servers: [at('a')], root: '/sheepdog', timeoutMs: 3000 }],
    ['a,b,timeout=500ms', { servers: [at('a'), at('b')], root: '/sheepdog', timeoutMs: 500 }],
  ]
  for (const [text, options] of good) t.deepEqual(parseZookeeperOptions(text), options, text)
  const bad: [string, RegExp][] = [
    ['', /'' is no HOST/],
    ['a:x', /'a:x' is no HOST/],
    ['a:70000', /no port from 1 to 65535/],
    ['a,,b', /'' is no HOST/],
    ['a/', /'\/' cannot be the name of a cluster/],
    ['a/x/', /cannot be the name/],
    ['a/../x', /cannot be the name/],
    ['a/zookeeper/x', /belongs to ZooKeeper itself/],
    ['a,timeout=soon', /'timeout=soon' is not understood/],
    ['a,timeout=10', /timeout is 500ms to 3600s/],
    ['a,retries=3', /'retries=3' is not understood/],
    ['timeout=5s', /no server before its options/],
  ]
  for (const [text, message] of bad) t.throws(() => parseZookeeperOptions(text), { message }, text)
})
