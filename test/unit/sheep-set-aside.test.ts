/**
 * A new membership moves the objects a node stops owning out of the way while requests go on. Whose turn comes just
 * after its object was moved finds none, and must not take that for the absence of the object: a guest got an EIO
 * for a write to an object that was whole, and recovery would have taken it for one that never was.
 */
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { dataOid, type Oid, type Vid } from '../../src/model/oid.js'
import { Caller } from '../../src/sheep/caller.js'
import type { SheepNode } from '../../src/sheep/node.js'
import type { ObjectStore } from '../../src/store/object-store.js'
import { createObject, newVdi, setSlot } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const HELLO = Buffer.from('hello')

/** Three nodes that all have the object. */
async function start(): Promise<{ cluster: SmallCluster; node: SheepNode; oid: Oid }> {
  const cluster = await SmallCluster.start({ copies: 3 })
  const client = await cluster.client(0)
  const vid: Vid = await newVdi(client, 'alice', 4 << 20)
  const oid = dataOid(vid, 0)
  await createObject(client, oid, 0, HELLO)
  await setSlot(client, vid, 0, vid)
  await cluster.settle()
  return { cluster, node: cluster.node(0), oid }
}

/** Runs `first` between the decision that the object is here and the operation on it, once. */
function before(store: ObjectStore, verb: 'read' | 'write', first: () => Promise<void>): void {
  const way = store[verb].bind(store) as (...all: unknown[]) => void
  Object.assign(store, {
    [verb]: (...all: unknown[]) => {
      Object.assign(store, { [verb]: way })
      void first().then(() => way(...all))
    },
  })
}

test('recovery gets an object that is set aside while its read waits', async (t) => {
  const { cluster, node, oid } = await start()
  const { epoch } = node.state
  before(node.store, 'read', () => node.store.setAside(epoch, (id) => id === oid))
  const into = Buffer.alloc(HELLO.length)
  const target = { from: epoch, to: epoch }
  const code = await new Promise<Code>((resolve) =>
    node.local.readForRecovery(
      { epoch, target, id: oid, offset: 0, into, caller: new Caller() },
      resolve,
    ),
  )
  t.is(code, Code.SUCCESS)
  t.deepEqual(into, HELLO)
  cluster.close()
})

for (const verb of ['read', 'write'] as const) {
  test(`a ${verb} whose object is set aside by the next membership is to be repeated there`, async (t) => {
    const { cluster, node, oid } = await start()
    const { epoch } = node.state
    before(node.store, verb, async () => {
      cluster.kill(2)
      while (node.state.epoch === epoch) await cluster.clock.sleep(100)
      await node.store.setAside(epoch, (id) => id === oid)
    })
    const bytes = Buffer.from('world')
    const code = await new Promise<Code>((resolve) => {
      if (verb === 'read') node.local.read(epoch, oid, 0, bytes, resolve)
      else node.local.write({ epoch, id: oid, offset: 0, data: bytes }, false, resolve)
    })
    t.is(code, Code.OLD_NODE_VER)
    cluster.close()
  })
}
