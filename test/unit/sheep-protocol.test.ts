// What a sheep answers, request by request: the behaviour vectors of the protocol spec (section 16), and the
// defects of sheepdog 1.0 that ours must not have (section 17).
import test, { type ExecutionContext } from 'ava'
import { cString } from '../../src/base/bytes.js'
import { Code } from '../../src/base/codes.js'
import { LIMITS } from '../../src/base/limits.js'
import { decodeNodes } from '../../src/model/node.js'
import { asVid, dataOid, inodeOid, type Oid, type Vid } from '../../src/model/oid.js'
import type { SheepClient } from '../../src/peer/client.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { MD_INFO_BYTES } from '../../src/wire/sheepdog/records.js'
import { decodeNodeReply, decodeVdiReply } from '../../src/wire/sheepdog/replies.js'
import { objectRequest, plainRequest, vdiStateRequest } from '../../src/wire/sheepdog/requests.js'
import {
  ask,
  createObject,
  headerOf,
  newVdi,
  object,
  readObject,
  setSlot,
  slotOf,
  snapshot,
  vdi,
  vdiId,
  writeObject,
} from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const OBJECT = 1 << 20
const SIZE = 4 * OBJECT
const missing = dataOid(asVid(0x123456), 7)

interface Setting {
  readonly cluster: SmallCluster
  readonly client: SheepClient
  readonly vid: Vid
}

async function setting(): Promise<Setting> {
  const cluster = await SmallCluster.start()
  const client = await cluster.client(0)
  return { cluster, client, vid: await newVdi(client, 'alice', SIZE) }
}

/** A test over one small cluster, which must be whole and answering afterwards. */
function vector(title: string, run: (t: ExecutionContext, given: Setting) => Promise<void>): void {
  test(title, async (t) => {
    const given = await setting()
    const { cluster } = given
    await run(t, given)
    t.deepEqual(cluster.failures(), [])
    const again = await cluster.client(0)
    t.is((await vdi(again, Op.GET_VDI_INFO, 'nobody')).result, Code.NO_VDI)
    cluster.close()
  })
}

vector('the create of the spec, byte by byte', async (t, { client }) => {
  await vdi(client, Op.DEL_VDI, 'alice')
  const head = Buffer.from(
    '02110100000000000000000000010000' +
      '00000004000000000000000000000000' +
      '00000000000000000000000000000000',
    'hex',
  )
  const { head: reply } = await client.call(head, cString('bob', 256))
  const { vid } = decodeVdiReply(await vdi(client, Op.GET_VDI_INFO, 'bob'))
  t.is(reply.subarray(0, 8).toString('hex'), '0011000001000000')
  t.is(reply.readUInt32LE(24), vid)
  t.is(reply.subarray(32, 34).toString('hex'), '0214')
})

vector('versions 0 to 2 are a client, 0x0a is a peer, all else is refused', async (t, given) => {
  const { client } = given
  const versioned = async (version: number, opcode: number, body?: Buffer): Promise<number> => {
    const flags = body === undefined ? 0 : Flag.WRITE
    const head = plainRequest({ opcode, flags, dataLength: body?.length ?? 0 })
    head[0] = version
    return (await client.call(head, body)).result
  }
  const name = cString('alice', 256)
  const results = []
  for (const version of [0, 1, 2, 3]) {
    results.push(await versioned(version, Op.GET_VDI_INFO, name))
  }
  for (const version of [0x0a, 9, 0]) results.push(await versioned(version, Op.STAT_SHEEP))
  results.push(await versioned(9, 0xfe))
  t.deepEqual(results, [0, 0, 0, 0x14, 0, 0x14, 0x14, 0x14])
})

vector('opcodes nobody knows are refused, whatever their number', async (t, { client }) => {
  for (const opcode of [0x06, 0x7f, 0xbb, 0x93, 0xce, 0xfe, 0xff]) {
    t.is((await ask(client, opcode)).result, Code.INVALID_PARMS, opcode.toString(16))
  }
})

vector('a reply has the id and the opcode of its request', async (t, { client }) => {
  const replies = await Promise.all([
    ask(client, Op.STAT_SHEEP),
    ask(client, 0x7f),
    ask(client, Op.GET_CLUSTER_DEFAULT),
  ])
  t.deepEqual(
    replies.map(({ opcode }) => opcode),
    [Op.STAT_SHEEP, 0x7f, Op.GET_CLUSTER_DEFAULT],
  )
  t.is(replies[2]!.head.subarray(20, 23).toString('hex'), '020014')
})

vector('names that are not 256 or 512 bytes are refused', async (t, { client }) => {
  for (const opcode of [Op.NEW_VDI, Op.GET_VDI_INFO, Op.LOCK_VDI, Op.DEL_VDI]) {
    for (const length of [0, 100, 257]) {
      const { result } = await object(client, opcode, { oid: 0n as Oid }, Buffer.alloc(length, 'a'))
      t.is(result, Code.INVALID_PARMS, `${opcode} with ${length}`)
    }
  }
  t.is((await vdi(client, Op.NEW_VDI, 'bob', { tag: 'tag' })).result, Code.INVALID_PARMS)
  t.is((await vdi(client, Op.NEW_VDI, '')).result, Code.INVALID_PARMS)
})

vector(
  'lookups: an unknown volume is NO_VDI, an unknown tag or id NO_TAG',
  async (t, { client }) => {
    const base = await vdiId(client, Op.GET_VDI_INFO, 'alice')
    const working = await snapshot(client, 'alice', 's1')
    const results = []
    for (const fields of [{}, { tag: 's1' }, { tag: '', snapId: 1 }]) {
      results.push(decodeVdiReply(await vdi(client, Op.GET_VDI_INFO, 'alice', fields)).vid)
    }
    t.deepEqual(results, [working, base, base])
    // A 256-byte name with an id, while a snapshot of that name has a tag (P24).
    t.is(await vdiId(client, Op.GET_VDI_INFO, 'alice', { snapId: 1 }), base)
    t.is((await vdi(client, Op.LOCK_VDI, 'alice', { snapId: 7 })).result, Code.NO_TAG)
    t.is((await vdi(client, Op.GET_VDI_INFO, 'alice', { tag: 's2' })).result, Code.NO_TAG)
    t.is((await vdi(client, Op.GET_VDI_INFO, 'bob', { tag: 's1' })).result, Code.NO_VDI)
    t.is((await vdi(client, Op.DEL_VDI, 'alice', { snapId: 7 })).result, Code.NO_TAG)
  },
)

vector('an object that is not there is NO_OBJ for all who ask', async (t, { client }) => {
  for (const oid of [missing, inodeOid(asVid(0x123456))]) {
    t.is((await readObject(client, oid, 0, 512)).result, Code.NO_OBJ)
    t.is((await writeObject(client, oid, 0, Buffer.alloc(512))).result, Code.NO_OBJ)
  }
  t.is((await object(client, Op.REMOVE_OBJ, { oid: missing })).result, Code.NO_OBJ)
  t.is((await object(client, Op.EXIST, { oid: missing })).result, Code.NO_OBJ)
  // Epoch 0 of a stale copy killed 1.0 (P3).
  for (const targetEpoch of [0, 1, 77]) {
    const { result } = await object(client, Op.GET_HASH, { oid: missing, targetEpoch })
    t.is(result, Code.NO_OBJ)
  }
})

vector('a second create replaces the object as a whole', async (t, { client, vid }) => {
  const oid = dataOid(vid, 0)
  t.is((await createObject(client, oid, 0, Buffer.from('first'))).result, 0)
  t.is((await createObject(client, oid, 4096, Buffer.from('second'))).result, 0)
  t.deepEqual((await readObject(client, oid, 0, 5)).body, Buffer.alloc(5))
  t.deepEqual((await readObject(client, oid, 4096, 7)).body, Buffer.from('second\0'))
})

vector('a create over another object takes its bytes around the new ones', async (t, given) => {
  const { client, vid } = given
  const [source, target] = [dataOid(vid, 0), dataOid(vid, 1)]
  await createObject(client, source, 0, Buffer.from('abcdef'))
  t.is((await createObject(client, target, 2, Buffer.from('XY'), source)).result, 0)
  t.deepEqual((await readObject(client, target, 0, 7)).body, Buffer.from('abXYef\0'))
  const absent = dataOid(vid, 3)
  t.is((await createObject(client, target, 2, Buffer.from('XY'), absent)).result, Code.NO_OBJ)
})

vector('nothing reaches beyond the end of an object', async (t, { client, vid }) => {
  const oid = dataOid(vid, 0)
  await createObject(client, oid, 0, Buffer.from('data'))
  const bytes = Buffer.alloc(512, 1)
  t.is((await writeObject(client, oid, OBJECT, bytes)).result, Code.INVALID_PARMS)
  t.is((await writeObject(client, oid, OBJECT - 511, bytes)).result, Code.INVALID_PARMS)
  t.is((await createObject(client, oid, OBJECT - 511, bytes)).result, Code.INVALID_PARMS)
  t.is((await readObject(client, oid, OBJECT - 511, 512)).result, Code.INVALID_PARMS)
  t.is((await readObject(client, oid, 0xfffffff0, 512)).result, Code.INVALID_PARMS)
  t.is((await writeObject(client, oid, OBJECT - 512, bytes)).result, 0)
  t.deepEqual((await readObject(client, oid, OBJECT - 512, 512)).body, bytes)
  t.is((await readObject(client, oid, 0, 0)).result, 0)
})

vector('objects of a snapshot are read only, its slots too', async (t, { client, vid }) => {
  const oid = dataOid(vid, 0)
  await createObject(client, oid, 0, Buffer.from('data'))
  await setSlot(client, vid, 0, vid)
  const working = await snapshot(client, 'alice')
  t.is((await writeObject(client, oid, 0, Buffer.from('x'))).result, Code.READONLY)
  t.is((await createObject(client, oid, 0, Buffer.from('x'))).result, Code.READONLY)
  t.is((await setSlot(client, vid, 1, working)).result, Code.READONLY)
  t.is((await setSlot(client, vid, 0, asVid(0))).result, 0)
  t.is(await slotOf(client, working, 0), vid)
  t.deepEqual((await readObject(client, oid, 0, 4)).body, Buffer.from('data'))
})

vector(
  'a write that covers header and slots counts references as any other (P19)',
  async (t, given) => {
    const { client, cluster, vid } = given
    await createObject(client, dataOid(vid, 0), 0, Buffer.from('data'))
    await setSlot(client, vid, 0, vid)
    const straddling = Buffer.alloc(12)
    t.is((await writeObject(client, inodeOid(vid), 4660, straddling)).result, 0)
    await cluster.settle()
    t.deepEqual(cluster.objects('data'), [])
    // As clients restore an inode: everything at once, references included.
    await createObject(client, dataOid(vid, 0), 0, Buffer.from('data'))
    await setSlot(client, vid, 0, vid)
    const whole = (await readObject(client, inodeOid(vid), 0, 12587576)).body
    whole.writeUInt32LE(0, 4664)
    t.is((await writeObject(client, inodeOid(vid), 0, whole)).result, 0)
    await cluster.settle()
    t.is(Number(await slotOf(client, vid, 0)), 0)
    t.deepEqual(cluster.objects('data'), [])
  },
)

vector('old clients discard an object by its id', async (t, { client, cluster, vid }) => {
  await createObject(client, dataOid(vid, 2), 0, Buffer.from('data'))
  await setSlot(client, vid, 2, vid)
  t.is((await object(client, Op.DISCARD_OBJ, { oid: dataOid(vid, 2) })).result, 0)
  await cluster.settle()
  t.is(Number(await slotOf(client, vid, 2)), 0)
  t.deepEqual(cluster.objects('data'), [])
  t.is((await object(client, Op.DISCARD_OBJ, { oid: inodeOid(vid) })).result, Code.INVALID_PARMS)
  const beyond = dataOid(vid, 1 << 20)
  t.is((await object(client, Op.DISCARD_OBJ, { oid: beyond })).result, Code.INVALID_PARMS)
})

vector(
  'a peer of an older epoch is refused at once, one of a newer epoch waits',
  async (t, given) => {
    const { client, cluster, vid } = given
    const peerRead = (epoch: number): ReturnType<SheepClient['call']> =>
      client.call(
        objectRequest({ opcode: Op.READ_PEER, epoch, oid: inodeOid(vid), dataLength: 512 }),
      )
    const old = await peerRead(0)
    t.deepEqual([old.result, old.epoch], [Code.OLD_NODE_VER, 1])
    let answered: number | undefined
    const waiting = peerRead(2).then((reply) => {
      answered = reply.epoch
    })
    await cluster.clock.sleep(5_000)
    t.is(answered, undefined)
    cluster.kill(1)
    await waiting
    t.is(answered, 2)
  },
)

vector(
  'answers that do not fit are refused by name, and kill nobody (P2, P22)',
  async (t, given) => {
    const { client } = given
    const tooSmall = [
      [Op.GET_OBJ_LIST, 0, Code.BUFFER_SMALL],
      [Op.GET_NODE_LIST, 80, Code.BUFFER_SMALL],
      [Op.GET_VDI_COPIES, 100, Code.BUFFER_SMALL],
      [Op.GET_STORE_LIST, 2, Code.BUFFER_SMALL],
      [Op.MD_INFO, 8, Code.INVALID_PARMS],
      [Op.CLUSTER_INFO, 48, Code.INVALID_PARMS],
      [Op.STAT, 8, Code.INVALID_PARMS],
      [Op.STAT_RECOVERY, 8, Code.INVALID_PARMS],
      [Op.READ_VDIS, 4096, Code.INVALID_PARMS],
      [Op.READ_DEL_VDIS, 0, Code.INVALID_PARMS],
      [Op.GET_LOGLEVEL, 0, Code.INVALID_PARMS],
      [Op.SET_LOGLEVEL, 0, Code.INVALID_PARMS],
      [Op.GET_VNODES, 2, Code.INVALID_PARMS],
      [Op.NOTIFY_VDI_DEL, 0, Code.INVALID_PARMS],
    ] as const
    for (const [opcode, length, expected] of tooSmall) {
      const reply = await ask(client, opcode, length)
      t.deepEqual([opcode, reply.result, reply.body.length], [opcode, expected, 0])
    }
    t.is((await ask(client, Op.MD_INFO, MD_INFO_BYTES)).result, 0)
    const epoch = (targetEpoch: number, dataLength: number) =>
      client.call(objectRequest({ opcode: Op.GET_EPOCH, oid: 0n as Oid, targetEpoch, dataLength }))
    t.is((await epoch(1, 16)).result, Code.BUFFER_SMALL)
    t.is((await epoch(9, 4096)).result, Code.NO_TAG)
    t.is((await epoch(1, 4096)).body.length, 3 * 80 + 8)
  },
)

vector('node lists carry zeros where 1.0 shows its memory (P4)', async (t, { client }) => {
  const reply = await ask(client, Op.GET_NODE_LIST, 80 * 6144)
  t.is(decodeNodeReply(reply).nodes, 3)
  t.deepEqual(
    decodeNodes(reply.body, 3).map(({ port }) => port),
    [7000, 7001, 7002],
  )
  for (let at = 0; at < reply.body.length; at += 80) {
    t.deepEqual(reply.body.subarray(at, at + 24), Buffer.alloc(24))
  }
})

vector('a flush is carried out and succeeds', async (t, { client, cluster, vid }) => {
  const oid = dataOid(vid, 0)
  await createObject(client, oid, 0, Buffer.alloc(0))
  await object(client, Op.WRITE_OBJ, { oid, offset: 0 }, Buffer.from('kept'), Flag.CACHE)
  t.is((await object(client, Op.FLUSH_VDI, { oid: inodeOid(vid) })).result, 0)
  await cluster.cutPower()
  const again = await cluster.client(1)
  t.deepEqual((await readObject(again, oid, 0, 4)).body, Buffer.from('kept'))
})

vector('a write without the cache flag survives a power cut at once', async (t, given) => {
  const { client, cluster, vid } = given
  const oid = dataOid(vid, 0)
  await createObject(client, oid, 0, Buffer.alloc(0))
  t.is((await writeObject(client, oid, 0, Buffer.from('kept'))).result, 0)
  await cluster.cutPower()
  const again = await cluster.client(1)
  t.deepEqual((await readObject(again, oid, 0, 4)).body, Buffer.from('kept'))
})

vector('deleting a volume with data really deletes it (P11)', async (t, given) => {
  const { client, cluster, vid } = given
  await createObject(client, dataOid(vid, 0), 0, Buffer.from('data'))
  await setSlot(client, vid, 0, vid)
  t.is((await vdi(client, Op.DEL_VDI, 'alice')).result, 0)
  t.is((await vdi(client, Op.GET_VDI_INFO, 'alice')).result, Code.NO_VDI)
  await cluster.settle()
  t.deepEqual(cluster.objects('data'), [])
  const next = await newVdi(client, 'alice', SIZE)
  t.is(Number(next), vid + 1)
  t.is(Number(await slotOf(client, next, 0)), 0)
})

vector(
  'impossible volumes are refused before anything is made of them (P16, P17)',
  async (t, given) => {
    const { client, cluster } = given
    const impossible = [
      { policy: 0x20, copies: 2 },
      { policy: 0x0f },
      { blockSizeShift: 255 },
      { blockSizeShift: 19 },
      { copies: 32 },
      { storePolicy: 2 },
      { sizeBytes: 2 ** 50 },
    ]
    for (const fields of impossible) {
      const { result } = await vdi(client, Op.NEW_VDI, 'bob', { sizeBytes: SIZE, ...fields })
      t.true(result === Code.INVALID_PARMS || result === Code.NO_SUPPORT, `${result}`)
    }
    t.is((await vdi(client, Op.GET_VDI_INFO, 'bob')).result, Code.NO_VDI)
    t.is(cluster.objects('inode').length, 1)
  },
)

vector(
  'an announcement of an impossible volume changes nothing',
  async (t, { client, cluster }) => {
    const sane = { oldVid: asVid(0), newVid: asVid(77), copies: 2, policy: 0, blockSizeShift: 20 }
    for (const part of [
      { newVid: asVid(0) },
      { blockSizeShift: 255 },
      { copies: 200 },
      { policy: 1 },
    ]) {
      const what = { ...sane, ...part, setBitmap: true }
      const { result } = await client.call(vdiStateRequest({ opcode: Op.NOTIFY_VDI_ADD, ...what }))
      t.is(result, Code.INVALID_PARMS)
    }
    for (const index of cluster.up()) t.is(cluster.node(index).state.vids.living().length, 1)
  },
)

vector('a clone begins at a snapshot, and so does a branch', async (t, { client, vid }) => {
  const bob = await newVdi(client, 'bob', SIZE)
  const refused = [
    await vdi(client, Op.NEW_VDI, 'carol', { base: vid }),
    await vdi(client, Op.NEW_VDI, 'alice', { base: bob, snapId: 1 }),
  ]
  for (const { result } of refused) t.is(result, Code.INVALID_PARMS)
  t.is((await vdi(client, Op.NEW_VDI, 'alice', { base: vid })).result, Code.VDI_EXIST)
  t.is((await vdi(client, Op.NEW_VDI, 'dave', { base: vid, snapId: 1 })).result, Code.NO_VDI)
  t.is(BigInt((await headerOf(client, vid)).snapCtime), 0n)
})

vector(
  'an absurd size is not written, and one on disk hurts nobody but its volume',
  async (t, given) => {
    const { client, cluster, vid } = given
    await newVdi(client, 'bob', SIZE)
    const absurd = Buffer.alloc(8, 0xff)
    t.is((await writeObject(client, inodeOid(vid), 536, absurd)).result, Code.INVALID_PARMS)
    const whole = Buffer.concat([cString('alice', 536), absurd])
    const opcode = Op.CREATE_AND_WRITE_OBJ
    const fields = { opcode, flags: Flag.WRITE, oid: inodeOid(vid), dataLength: whole.length }
    t.is((await client.call(objectRequest(fields), whole)).result, 0)
    t.is((await vdi(client, Op.GET_VDI_INFO, 'bob')).result, 0)
    t.not((await vdi(client, Op.GET_VDI_INFO, 'alice')).result, 0)
    t.deepEqual(
      (await cluster.source(0).list()).map(({ name }) => name),
      ['bob'],
    )
    await cluster.cutPower()
  },
)

vector(
  'a request longer than any legal one is refused, with and without its bytes',
  async (t, given) => {
    const { client } = given
    const dataLength = LIMITS.sheepdogPayloadBytesMax + 1
    const asked = objectRequest({ opcode: Op.READ_OBJ, oid: missing, dataLength })
    t.is((await client.call(asked)).result, Code.INVALID_PARMS)
    const brought = Buffer.alloc(dataLength, 7)
    const refused = await object(client, Op.WRITE_OBJ, { oid: missing }, brought)
    t.is(refused.result, Code.INVALID_PARMS)
    t.is((await ask(client, Op.STAT_SHEEP)).result, 0)
  },
)

vector('bytes that are no requests cost nothing but their connection', async (t, { cluster }) => {
  const { dice } = cluster
  for (let i = 0; i < 60; i++) {
    const client = await cluster.client(0)
    const head = Buffer.from(Array.from({ length: 48 }, () => dice.below(256)))
    // Neither the end of the cluster nor a wait for an epoch that never comes.
    if ([Op.KILL_NODE, Op.SHUTDOWN, Op.MAKE_FS].includes(head[1] as never)) continue
    if (dice.chance(0.7)) head[0] = head[1]! < 0x80 ? 2 : 10
    if (dice.chance(0.7)) head.writeUInt32LE(dice.below(600), 12)
    if (dice.chance(0.7)) head.writeUInt32LE(dice.below(3), 4)
    const body = Buffer.alloc((head[2]! & 1) === 0 ? 0 : Math.min(head.readUInt32LE(12), 4096))
    client.call(head, body).catch(() => undefined)
    await cluster.clock.sleep(20)
    client.close()
  }
  t.is(cluster.up().length, 3)
})

test('before the format only what needs no cluster is answered', async (t) => {
  const cluster = await SmallCluster.start({ format: false })
  const client = await cluster.client(0)
  t.is((await vdi(client, Op.NEW_VDI, 'alice', { sizeBytes: SIZE })).result, Code.WAIT_FOR_FORMAT)
  t.is((await readObject(client, missing, 0, 1)).result, Code.WAIT_FOR_FORMAT)
  t.is((await ask(client, Op.GET_NODE_LIST, 4096)).result, 0)
  cluster.close()
})

test('an order to a node that is not let in yet is refused, not fatal', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 1, format: false })
  const index = cluster.addMachine()
  const { joined } = await cluster.launch(index)
  const client = await cluster.client(index)
  const early = ask(client, Op.CLEANUP)
  await joined
  t.true([Code.SUCCESS, Code.CLUSTER_ERROR].includes((await early).result as never))
  t.is((await ask(client, Op.CLEANUP)).result, 0)
  cluster.close()
})

vector(
  'a file the node cannot read costs the asker its answer, not the node its life',
  async (t, given) => {
    const { client, cluster } = given
    const { files } = cluster.machines[0]!
    files.fault = (operation, path) =>
      operation === 'readFile' && path.includes('/epoch/') ? 'EIO' : undefined
    t.is((await ask(client, Op.STAT_CLUSTER, 4096)).result, Code.SYSTEM_ERROR)
    files.fault = () => undefined
    t.true(cluster.logged.some((line) => line.includes('request.failed')))
  },
)

test('a cluster that waits for members says so, and starts when the last one is there', async (t) => {
  const cluster = await SmallCluster.start()
  for (const index of cluster.up()) cluster.kill(index)
  for (const index of [2, 0]) {
    const { joined } = await cluster.launch(index)
    await joined
    const client = await cluster.client(index)
    t.is((await vdi(client, Op.GET_VDI_INFO, 'alice')).result, Code.WAIT_FOR_JOIN)
  }
  await cluster.boot(1)
  await cluster.settle()
  t.is(cluster.node(0).state.epoch, 1)
  const client = await cluster.client(0)
  t.is((await vdi(client, Op.GET_VDI_INFO, 'alice')).result, Code.NO_VDI)
  cluster.close()
})
