// What dog says of nodes that work, wait and are weighed: 1.0's transcripts, and the warnings that are ours.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import type { SdNode } from '../../src/model/node.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import {
  CLUSTER_INFO_BYTES,
  encodeClusterInfo,
  encodeEpochLogRecord,
  encodeStat,
  type Stat,
} from '../../src/wire/sheepdog/records.js'
import { decodeClusterFields } from '../../src/wire/sheepdog/requests.js'
import { asTranscript, readGolden, runDog } from './support/dog-rig.js'
import { FakeSheep } from './support/fake-sheep.js'

const STAT: Stat = {
  gatewayActive: 0,
  peerActive: 0,
  gatewayTotal: 1912,
  peerTotal: 167,
  gatewayReceivedBytes: 894036793,
  gatewaySentBytes: 1776057972,
  peerReceivedBytes: 437544652,
  peerSentBytes: 48239160,
  gatewayRemoves: 0,
  gatewayReads: 1683,
  gatewayWrites: 210,
  gatewayFlushes: 0,
  peerRemoves: 3,
  peerReads: 35,
  peerWrites: 125,
}

function node(port: number, part: Partial<SdNode> = {}): SdNode {
  return { host: '127.0.0.1', port, vnodes: 128, zone: port, spaceBytes: 1e9, ...part }
}

/** Three nodes whose log level can be changed. */
function threeSheep(): FakeSheep {
  const sheep = new FakeSheep([7020, 7021, 7022].map((port) => node(port)))
  let level = 6
  sheep.answers.set(Op.STAT, () => ({ body: encodeStat(STAT) }))
  sheep.answers.set(Op.GET_LOGLEVEL, () => {
    const body = Buffer.alloc(4)
    body.writeInt32LE(level)
    return { body }
  })
  sheep.answers.set(Op.SET_LOGLEVEL, (request) => {
    level = request.body.readInt32LE(0)
    return {}
  })
  sheep.answers.set(Op.SET_VNODES, () => ({ result: Code.INVALID_VNODES_STRATEGY }))
  sheep.answers.set(Op.REWEIGHT, () => ({}))
  sheep.answers.set(Op.FORCE_RECOVER, () => ({ result: Code.FORCE_RECOVER }))
  return sheep
}

/** A cluster of three that waits: of its last epoch only the first node is there, and a gateway. */
function waitingSheep(copies: number): FakeSheep {
  const epoch = [node(7020), node(7021), node(7022), node(7023, { vnodes: 0 })]
  const sheep = new FakeSheep([epoch[0]!, epoch[3]!])
  const about = { ctime: 77n << 32n, copies, policy: 0, flags: 4, store: 'plain', epoch: 5 }
  sheep.answers.set(Op.STAT_CLUSTER, (request) => {
    const record = { ...about, time: 99, recoveryDisabled: false, nodes: epoch }
    const { nodeSlots } = decodeClusterFields(request)
    return { result: Code.WAIT_FOR_JOIN, body: encodeEpochLogRecord(record, nodeSlots) }
  })
  sheep.answers.set(Op.CLUSTER_INFO, () => {
    const rest = {
      version: 10,
      recoveryDisabled: false,
      status: 'wait',
      blockSizeShift: 22,
    } as const
    const info = encodeClusterInfo({ ...about, ...rest, nodes: epoch })
    return { body: Buffer.concat([info, Buffer.alloc(CLUSTER_INFO_BYTES - info.length)]) }
  })
  sheep.answers.set(Op.FORCE_RECOVER, () => ({}))
  return sheep
}

test('every command of the transcript answers as 1.0 did', async (t) => {
  const sheep = threeSheep()
  for (const { argv, stdin, line, answer } of readGolden('life')) {
    const result = await runDog(sheep, argv, stdin === undefined ? {} : { stdin })
    t.is(asTranscript(result), answer.join('\n').trimEnd(), `life.txt:${line}`)
  }
})

test('counters that are watched come every second with what the second brought', async (t) => {
  const sheep = threeSheep()
  let asked = 0
  sheep.answers.set(Op.STAT, () => {
    const more = asked++
    if (asked > 3) return undefined
    const gatewayReceivedBytes = STAT.gatewayReceivedBytes + more * 10 * 2 ** 20
    const gatewayTotal = STAT.gatewayTotal + 7 * more
    return { body: encodeStat({ ...STAT, gatewayTotal, gatewayReceivedBytes }) }
  })
  const waits: number[] = []
  const { stdout, status } = await runDog(sheep, ['node', 'stat', '-w'], { waits })
  const [header, client, peer, again] = stdout.split('\n')
  t.regex(header ?? '', /All RD\tWRBW\tRDBW\tRPS$/)
  t.regex(client ?? '', /^Client\t0\t1919\t.*\t10 MB\t0.0 MB\t7$/)
  t.regex(peer ?? '', /\t0.0 MB\t0.0 MB\t0$/)
  t.is(again, header)
  t.deepEqual(waits, [1000, 1000])
  t.is(status, 1)
})

test('counters, levels and missing nodes are there for programs', async (t) => {
  const stat = await runDog(threeSheep(), ['node', 'stat', '--json'])
  t.like(JSON.parse(stat.stdout), {
    client: { total: 1912, writes: 210, readBytes: 1776057972 },
    peer: { removes: 3 },
  })
  const level = await runDog(threeSheep(), ['node', 'log', 'level', 'get', '--json'])
  t.deepEqual(JSON.parse(level.stdout), { level: 'info', number: 6 })
  const info = await runDog(waitingSheep(2), ['cluster', 'info', '--json'])
  t.like(JSON.parse(info.stdout), { running: false, missing: ['127.0.0.1:7021', '127.0.0.1:7022'] })
})

test('a cluster that waits names the nodes it waits for, beside what 1.0 says', async (t) => {
  const { stdout, stderr, status } = await runDog(waitingSheep(2), ['cluster', 'info'])
  t.is(status, 0)
  t.regex(stdout, /^Cluster status: Waiting for other nodes to join cluster\n/)
  t.is(stderr, 'Missing nodes: 127.0.0.1:7021, 127.0.0.1:7022\n')
})

test('a cluster that waits does not pass for one without VDIs', async (t) => {
  for (const words of [
    ['vdi', 'list'],
    ['vdi', 'list', '--json'],
    ['cluster', 'check'],
  ]) {
    const { stderr, status } = await runDog(waitingSheep(2), words)
    t.is(status, 2, words.join(' '))
    t.regex(stderr, /^Waiting for other nodes to join cluster: VDIs are not known before/)
  }
})

test('before a cluster is forced the missing nodes and what they may cost are named', async (t) => {
  const sheep = waitingSheep(2)
  const refused = await runDog(sheep, ['cluster', 'recover', 'force'], { stdin: 'no\n' })
  t.regex(refused.stderr, /^Missing nodes of epoch 5: 127\.0\.0\.1:7021, 127\.0\.0\.1:7022\n/)
  t.regex(refused.stderr, /Volumes with more than 2 copies, or .* lose nothing/)
  t.false(sheep.opcodes.includes(Op.FORCE_RECOVER))
  const done = await runDog(sheep, ['cluster', 'recover', '-f', 'force'])
  t.is(done.status, 0)
  t.is(done.stdout, '')
  t.regex(done.stderr, /Epoch 6 begins.*object\.older-copy/)
})

test('the number of vnodes goes to the sheep as it was typed', async (t) => {
  const sheep = threeSheep()
  sheep.answers.set(Op.SET_VNODES, () => ({}))
  const { status } = await runDog(sheep, ['node', 'vnodes', 'set', '300'])
  t.is(status, 0)
  const request = sheep.requests.find(({ opcode }) => opcode === Op.SET_VNODES)
  t.is(request?.body.readInt32LE(0), 300)
  t.true(request?.has(Flag.WRITE))
})

test('copies are altered as 1.0 did, in the cluster before the inode', async (t) => {
  const nodes = Array.from({ length: 6 }, (_, i) => node(7020 + i))
  const sheep = new FakeSheep(nodes)
  sheep.answers.set(Op.ALTER_VDI_COPY, () => ({}))
  sheep.answers.set(Op.ALTER_CLUSTER_COPY, (request) => {
    sheep.formatted = { ...sheep.formatted, copies: decodeClusterFields(request).copies }
    return {}
  })
  sheep.nowMs = 1e12
  await runDog(sheep, ['cluster', 'format', '-c', '3'])
  for (const name of ['ac', 'img', 'ec']) await runDog(sheep, ['vdi', 'create', name, '8M'])
  await runDog(sheep, ['vdi', 'snapshot', 'img'])
  sheep.setPolicy('ec', 0x22)
  for (const { argv, stdin, line, answer } of readGolden('alter-copy')) {
    const result = await runDog(sheep, argv, stdin === undefined ? {} : { stdin })
    t.is(asTranscript(result), answer.join('\n').trimEnd(), `alter-copy.txt:${line}`)
  }
  const order = sheep.opcodes.filter((op) =>
    [Op.ALTER_VDI_COPY, Op.WRITE_OBJ].includes(op as never),
  )
  t.deepEqual(order.slice(-2), [Op.ALTER_VDI_COPY, Op.WRITE_OBJ])
})

test('a format that a node did not carry out is told, with the node (defect C18)', async (t) => {
  const sheep = threeSheep()
  sheep.nowMs = 1e12
  sheep.answers.set(Op.CLUSTER_INFO, (request, port) => {
    const usual = sheep.usual(request, port)
    if (port !== 7021 || usual?.body === undefined) return usual
    const body = Buffer.from(usual.body)
    body.writeBigUInt64LE(5n, 8)
    return { body }
  })
  const { status, stderr } = await runDog(sheep, ['cluster', 'format', '-c', '2'])
  t.is(status, 2)
  t.is(
    stderr,
    'Format failed on some nodes:\n127.0.0.1:7021 has not done it; its sheep.log may tell why\n',
  )
})
