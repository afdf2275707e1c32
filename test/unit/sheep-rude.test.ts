// A rude client on whole nodes in one process: what sheepdog 1.0 died of, leaked or hung on, request by request. Every
// one is a test by its own name; afterwards the cluster stands, answers, and its copies are equal.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { asVid, dataOid, inodeOid } from '../../src/model/oid.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { forwardRequest, objectRequest } from '../../src/wire/sheepdog/requests.js'
import { complaint } from '../rude/client.js'
import { type RudeRequest, rudeRequests, type Target } from '../rude/requests.js'
import { createObject, newVdi, readObject, setSlot, snapshot, vdiId } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const OBJECT = 1 << 20

interface Setting {
  readonly cluster: SmallCluster
  readonly target: Target
}

async function prepare(): Promise<Setting> {
  const cluster = await SmallCluster.start()
  const client = await cluster.client(0)
  await newVdi(client, 'victim', 4 * OBJECT)
  const vid = await snapshot(client, 'victim', 'tagged')
  await createObject(client, dataOid(vid, 0), 0, Buffer.from('what must stay'))
  await setSlot(client, vid, 0, vid)
  const coded = await vdiId(client, Op.NEW_VDI, 'coded', { sizeBytes: 4 * OBJECT, ...CODED })
  const { epoch } = cluster.node(0).state
  return { cluster, target: { epoch, vid, name: 'victim', objectBytes: OBJECT, coded } }
}

const CODED = { copies: 3, policy: 0x11 }

/** One cluster for all: what one request breaks the next ones show. */
let setting: Promise<Setting> | undefined

async function isWhole({ cluster, target }: Setting): Promise<string[]> {
  await cluster.settle()
  const client = await cluster.client(1)
  const { body } = await readObject(client, dataOid(target.vid, 0), 0, 14)
  const content = body.toString('latin1') === 'what must stay' ? [] : ['the content has changed']
  client.close()
  return [...content, ...(await cluster.copyFaults()), ...cluster.failures()]
}

const NOWHERE: Target = {
  ...{ epoch: 1, vid: asVid(1), name: 'victim', objectBytes: OBJECT, coded: asVid(2) },
}

function ask(request: RudeRequest, { cluster }: Setting): Promise<string | undefined> {
  return complaint(request, {
    connect: () => cluster.client(0),
    patience: () => cluster.clock.sleep(60_000),
  })
}

rudeRequests(NOWHERE).forEach(({ name }, index) => {
  test.serial(name, async (t) => {
    setting ??= prepare()
    const given = await setting
    t.is(await ask(rudeRequests(given.target)[index]!, given), undefined)
    t.is(given.cluster.up().length, 3)
  })
})

test.serial('after all of them the cluster is whole, and stops in order', async (t) => {
  setting ??= prepare()
  const given = await setting
  t.deepEqual(await isWhole(given), [])
  for (const index of [2, 1, 0]) await given.cluster.stop(index)
  t.deepEqual(given.cluster.up(), [])
  given.cluster.close()
})

test('a rotten copy is repaired from the node that is named, and written to meanwhile', async (t) => {
  const { cluster, target } = await prepare()
  const oid = dataOid(target.vid, 0)
  const holders = cluster.up().filter((index) => cluster.node(index).store.has(oid))
  const [rotten, good] = [holders[0]!, holders[1]!]
  const { store } = cluster.node(rotten)
  await new Promise((resolve) =>
    store.write(oid, 3, Buffer.from('ROT'), { durable: true }, resolve),
  )
  const client = await cluster.client(rotten)
  const { host, port } = cluster.machines[good]!.self
  const repaired = client.call(forwardRequest({ opcode: Op.REPAIR_REPLICA, oid, host, port }))
  const body = Buffer.from('new')
  const head = objectRequest({
    opcode: Op.WRITE_OBJ,
    flags: Flag.WRITE,
    oid,
    offset: 100,
    dataLength: 3,
  })
  const written = (await cluster.client(good)).call(head, body)
  t.is((await repaired).result, Code.SUCCESS)
  t.is((await written).result, Code.SUCCESS)
  await cluster.settle()
  t.deepEqual(await cluster.copyFaults(), [])
  const now = await readObject(client, oid, 0, 103)
  t.is(now.body.toString('latin1', 0, 14), 'what must stay')
  t.is(now.body.toString('latin1', 100), 'new')
  const self = cluster.machines[rotten]!.self
  const byItself = forwardRequest({
    opcode: Op.REPAIR_REPLICA,
    oid,
    host: self.host,
    port: self.port,
  })
  t.is((await client.call(byItself)).result, Code.INVALID_PARMS)
  const coded = forwardRequest({
    ...{ opcode: Op.REPAIR_REPLICA, host, port },
    oid: dataOid(target.coded, 0),
  })
  t.is((await client.call(coded)).result, Code.INVALID_PARMS)
  t.true((await readObject(client, inodeOid(target.vid), 0, 6)).body.toString() === 'victim')
  cluster.close()
})
