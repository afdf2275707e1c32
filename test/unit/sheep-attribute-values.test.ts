// Attributes as a node's own doors use them: whole values, found by every node, gone when they are taken away.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { attributeValues } from '../../src/sheep/attribute-values.js'
import { PatientAccess } from '../../src/sheep/patient-access.js'
import { newVdi } from './support/sheep-wire.js'
import { SmallCluster } from './support/small-cluster.js'

const KEY = 'a key'

test('a value is kept, replaced and taken away, and every node sees it', async (t) => {
  const cluster = await SmallCluster.start()
  await newVdi(await cluster.client(0), 't1', 4 << 20)
  const [one, other] = [0, 2].map((index) => {
    const node = cluster.node(index)
    return attributeValues(node, new PatientAccess(node))
  })
  t.is(await one!.load('t1', KEY), undefined)
  await one!.save('t1', KEY, undefined)
  await one!.save('t1', KEY, Buffer.from('first'))
  t.is((await other!.load('t1', KEY))?.toString(), 'first')
  await other!.save('t1', KEY, Buffer.from('2nd'))
  t.is((await one!.load('t1', KEY))?.toString(), '2nd')
  t.is(await one!.load('t1', 'another'), undefined)
  await one!.save('t1', KEY, undefined)
  t.is(await other!.load('t1', KEY), undefined)
  await t.throwsAsync(one!.load('t2', KEY), { code: Code.NO_VDI } as object)
  t.deepEqual(cluster.failures(), [])
  cluster.close()
})
