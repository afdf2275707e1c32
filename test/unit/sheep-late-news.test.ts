// A node that hears of a new volume later than its first objects arrive must not take them for objects of another size.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { dataOid, fragmentId } from '../../src/model/oid.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { createObject, readObject, setSlot, vdiId, writeObject } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const LATE_MS = 3_000
const SIZE = 64 << 20

for (const policy of [0, 0x11]) {
  test(`objects of a volume some nodes have not heard of have their size (policy ${policy})`, async (t) => {
    let isLate = false
    const cluster = await SmallCluster.start({
      copies: 3,
      delayMs: ({ port }) => (isLate && port !== 7000 ? LATE_MS : 0),
    })
    isLate = true
    const client = await cluster.client(0)
    const fields = {
      sizeBytes: SIZE,
      blockSizeShift: 22,
      ...(policy !== 0 && { policy, copies: 3 }),
    }
    const vid = await vdiId(client, Op.NEW_VDI, 'alice', fields)
    const oid = dataOid(vid, 0)
    t.is((await createObject(client, oid, 0, Buffer.from('begin'))).result, Code.SUCCESS)
    const end = (4 << 20) - 3
    t.is((await writeObject(client, oid, end, Buffer.from('end'))).result, Code.SUCCESS)
    await setSlot(client, vid, 0, vid)
    await cluster.settle()
    for (const index of cluster.up()) {
      const { store, local } = cluster.node(index)
      const id =
        policy === 0 ? oid : [0, 1, 2].map((i) => fragmentId(oid, i)).find((f) => store.has(f))!
      const path = `/sheep/obj/${oid.toString(16).padStart(16, '0')}${policy === 0 ? '' : `_${Number(id >> 64n) - 1}`}`
      const file = cluster.machines[index]!.files.open(path, {})
      t.is(file.size(), policy === 0 ? 4 << 20 : 2 << 20, `node ${index}`)
      file.close()
      t.is(local.bytesOf(id), policy === 0 ? 4 << 20 : 2 << 20)
      const there = await cluster.client(index)
      t.is((await readObject(there, oid, end, 3)).body.toString(), 'end')
    }
    t.deepEqual(await cluster.copyFaults().then((all) => (policy === 0 ? all : [])), [])
    t.deepEqual(cluster.failures(), [])
    cluster.close()
  })
}
