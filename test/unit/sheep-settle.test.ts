// Volume operations whose node dies at every possible step: afterwards the others agree on one state,
// either the one before or the one after, and everything can be used, deleted and made again.
import test, { type ExecutionContext } from 'ava'
import { Code } from '../../src/base/codes.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { decodeVdiReply } from '../../src/wire/sheepdog/replies.js'
import { clone, newVdi, snapshot, vdi, vdiId } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'
import { read, write } from './support/volume-io.js'

const OBJECT = 1 << 20
const STEPS_MAX = 80

interface Operation {
  readonly name: string
  /** Asks the node on `port`; never answered when that node dies. */
  readonly start: (
    client: Awaited<ReturnType<SmallCluster['client']>>,
    base: number,
  ) => Promise<unknown>
}

const OPERATIONS: readonly Operation[] = [
  { name: 'create', start: (client) => newVdi(client, 'Bob', 2 * OBJECT) },
  { name: 'snapshot', start: (client) => snapshot(client, 'Alice', 'second') },
  {
    name: 'clone',
    start: (client, base) => clone(client, base as Parameters<typeof clone>[1], 'Bob'),
  },
  { name: 'delete', start: (client) => vdi(client, Op.DEL_VDI, 'Alice') },
  {
    name: 'delete of a snapshot',
    start: (client) => vdi(client, Op.DEL_VDI, 'Alice', { tag: 'first' }),
  },
]

/** Alice with a snapshot 'first': object 0 inherited, object 1 of her own. */
async function prepared(seed: number): Promise<{ cluster: SmallCluster; base: number }> {
  const cluster = await SmallCluster.start({ nodes: 4, copies: 3, seed })
  const client = await cluster.client(0)
  const base = await newVdi(client, 'Alice', 3 * OBJECT)
  const disk = await cluster.source(0).open('Alice')
  await write(disk, 0, Buffer.from('old'))
  await write(disk, OBJECT, Buffer.from('old'))
  await snapshot(client, 'Alice', 'first')
  await write(disk, OBJECT, Buffer.from('new'))
  await disk.close()
  await cluster.settle()
  return { cluster, base }
}

/** What every node that runs says of a name: one answer, or the test fails. */
async function agreed(t: ExecutionContext, cluster: SmallCluster, name: string, tag?: string) {
  const answers = new Set<string>()
  for (const index of cluster.up()) {
    const client = await cluster.client(index)
    const reply = await vdi(client, Op.GET_VDI_INFO, name, tag === undefined ? {} : { tag })
    answers.add(`${reply.result} ${reply.result === 0 ? decodeVdiReply(reply).vid : ''}`)
    client.close()
  }
  t.is(answers.size, 1, `the nodes disagree on ${name}@${tag}: ${[...answers].join(', ')}`)
  return Number([...answers][0]!.split(' ')[0])
}

/** Alice is gone, or as she was; the snapshot is gone, or as it was. */
async function check(t: ExecutionContext, cluster: SmallCluster): Promise<void> {
  t.deepEqual(cluster.failures(), [])
  t.deepEqual(await cluster.copyFaults(), [])
  const source = cluster.source(cluster.up()[cluster.dice.below(cluster.up().length)]!)
  const expect: [string, string | undefined, string][] = [
    ['Alice', undefined, 'new'],
    ['Alice', 'first', 'old'],
    ['Alice', 'second', 'new'],
    ['Bob', undefined, 'old'],
  ]
  for (const [name, tag, second] of expect) {
    const code = await agreed(t, cluster, name, tag)
    if (code !== Code.SUCCESS) continue
    const disk = await source.open(tag === undefined ? name : `${name}@${tag}`)
    const isEmpty = name === 'Bob' && disk.sizeBytes === 2 * OBJECT
    const old = await read(disk, 0, 3)
    t.deepEqual(old, isEmpty ? Buffer.alloc(3) : Buffer.from('old'), `${name}@${tag}`)
    const own = await read(disk, OBJECT, 3)
    t.deepEqual(own, isEmpty ? Buffer.alloc(3) : Buffer.from(second), `${name}@${tag}`)
    await disk.close()
  }
}

/** The names take writes, snapshots and deletions as any; then nothing is left of anything. */
async function useAndDelete(t: ExecutionContext, cluster: SmallCluster): Promise<void> {
  const index = cluster.up()[0]!
  const client = await cluster.client(index)
  for (const name of ['Alice', 'Bob']) {
    if ((await agreed(t, cluster, name)) !== Code.SUCCESS) await newVdi(client, name, 2 * OBJECT)
    const disk = await cluster.source(index).open(name)
    t.is(await write(disk, 7, Buffer.from('third')), Code.SUCCESS)
    await snapshot(client, name, 'third')
    t.is(await write(disk, 7, Buffer.from('later')), Code.SUCCESS)
    t.deepEqual(await read(disk, 7, 5), Buffer.from('later'))
    await disk.close()
  }
  const third = await cluster.source(index).open('Alice@third')
  t.deepEqual(await read(third, 7, 5), Buffer.from('third'))
  await third.close()
  for (const header of (await cluster.source(index).list()).toReversed()) {
    const [name = '', which] = header.name.split('@')
    const id = Number(which)
    const fields = which === undefined ? {} : id > 0 ? { tag: '', snapId: id } : { tag: which }
    await vdiId(client, Op.DEL_VDI, name, fields)
  }
  await cluster.settle()
  t.deepEqual(cluster.objects('data', 'ledger'), [], 'objects are left behind')
}

for (const { name, start } of OPERATIONS) {
  test(`${name}: its node may die at any step`, async (t) => {
    for (let step = 1; step <= STEPS_MAX; step++) {
      const { cluster, base } = await prepared(step)
      const coordinator = cluster.dice.below(4)
      const client = await cluster.client(coordinator)
      let [sends, isOver] = [0, false]
      cluster.card(coordinator).onSend = (to) => {
        if (to !== 0 && ++sends === step) cluster.kill(coordinator)
      }
      start(client, base).then(
        () => {
          isOver = true
        },
        () => undefined,
      )
      const isDead = (): boolean => cluster.up().length === 3
      await cluster.clock.until('an end of the operation', () => isOver || isDead())
      if (!isDead()) return cluster.close()
      try {
        await cluster.settle()
        await check(t, cluster)
        if (step % 3 === 0) {
          await cluster.boot(coordinator)
          await cluster.settle()
          await check(t, cluster)
        }
        if (step % 3 === 1) {
          await cluster.cutPower(0.5)
          await check(t, cluster)
        }
        if (step % 2 === 0) await useAndDelete(t, cluster)
      } catch (error) {
        t.fail(`step ${step}, node ${coordinator}: ${error instanceof Error ? error.stack : error}`)
        t.log(cluster.logged.slice(-40).join('\n'))
        return cluster.close()
      }
      cluster.close()
    }
    t.fail(`more than ${STEPS_MAX} steps`)
  })
}
