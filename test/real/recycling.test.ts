/** RECYCLE_VID with real daemons: an id is given out again when nobody can take the next VDI for the last, and not before. */
import { asVid, dataOid, type Vid } from '../../src/model/oid.js'
import { SheepClient } from '../../src/peer/client.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectRequest } from '../../src/wire/sheepdog/requests.js'
import { nodeWorld } from '../../src/world/node/world.js'
import { planCluster, type TestCluster } from './support/cluster.js'
import { until } from './support/run.js'
import { needing } from './support/suite.js'

const WAIT_MS = 30_000
const realTest = needing()

interface Said {
  readonly freed: number
  readonly kept: readonly {
    readonly vid: string
    readonly reason: string
    readonly nodes: string[]
  }[]
}

/** Asked until nothing is on its way between the nodes any more, and until it holds. */
async function recycled(
  cluster: TestCluster,
  what: string,
  holds: (said: Said) => boolean,
): Promise<Said> {
  let last: Said = { freed: 0, kept: [] }
  await until(what, WAIT_MS, async () => {
    const { stdout } = await cluster.dog('cluster recycle', '--json')
    last = JSON.parse(stdout) as Said
    return holds(last)
  })
  return last
}

async function vidOf(cluster: TestCluster, name: string): Promise<Vid> {
  const { stdout } = await cluster.dog('vdi list', '--json')
  const { vdis } = JSON.parse(stdout) as { vdis: readonly { name: string; vid: string }[] }
  return asVid(Number(`0x${vdis.find((one) => one.name === name)?.vid}`))
}

async function make(cluster: TestCluster, name: string, value: number): Promise<Vid> {
  await cluster.dog('vdi create', name, '8M')
  const input = Buffer.alloc(4096, value)
  await cluster.dogAt(1, 'vdi write', [name, '4096', '4096'], { input })
  return await vidOf(cluster, name)
}

realTest('an id is used again, when no client remembers it and no node is away', async (t) => {
  const cluster = await planCluster(t, { nodes: 3 })
  await cluster.startAll()
  await cluster.dog('cluster format', '-c', '3', '-R')
  const alice = await make(cluster, 'Alice', 1)
  const { host, port } = cluster.node(2)
  const old = await SheepClient.connect(nodeWorld(), { host, port })
  const where = { oid: dataOid(alice, 0), offset: 4096, dataLength: 512 }
  const found = await old.call(objectRequest({ opcode: Op.READ_OBJ, ...where }))
  t.is(found.body[0], 1)
  await cluster.dog('vdi delete', 'Alice')
  const write = objectRequest({ opcode: Op.WRITE_OBJ, flags: Flag.WRITE, ...where })
  t.not((await old.call(write, Buffer.alloc(512, 9))).result, 0)
  const who = `${host}:${port}`
  const refused = await recycled(cluster, 'an answer', ({ kept }) => kept[0]?.reason === 'refused')
  t.deepEqual(refused.kept[0]?.nodes, [who])
  old.close()
  await recycled(cluster, 'the id to be free', ({ kept }) => kept.length === 0)

  t.is(await make(cluster, 'Alice', 2), alice)
  const { bytes } = await cluster.dogAt(2, 'vdi read', ['Alice', '0', '12288'])
  const content = Buffer.concat([Buffer.alloc(4096), Buffer.alloc(4096, 2), Buffer.alloc(4096)])
  t.true(bytes.equals(content), 'nothing of the first one')

  await cluster.node(2).kill()
  await cluster.members(2)
  await cluster.dog('vdi delete', 'Alice')
  const away = await recycled(cluster, 'an answer', ({ kept }) => kept[0]?.reason === 'away')
  t.deepEqual(away.kept[0]?.nodes, [who])
  await cluster.node(2).start()
  await cluster.members(3)
  const back = await recycled(cluster, 'an answer', ({ kept }) => kept[0]?.reason === 'not-yet')
  t.deepEqual(back.kept[0]?.nodes, [who], 'clients of before the death may return')
  t.is(back.freed, 0)
  t.not(await make(cluster, 'Alice', 3), alice)
})
