// What a node that joins is told of volumes when there are more than one answer holds.
import test from 'ava'
import { asVid, VID_LIMIT } from '../../src/model/oid.js'
import { decodeVdiState, UNLOCKED, VDI_STATE_BYTES } from '../../src/model/vdi-state.js'
import { exportPage, exportVolumes } from '../../src/sheep/known-volumes.js'
import { VidTable } from '../../src/sheep/vid-table.js'
import { SmallCluster } from './support/small-cluster.js'

test('a node that joins learns of more volumes than one answer holds', async (t) => {
  const cluster = await SmallCluster.start({ nodes: 2, copies: 2 })
  const count = 2_000
  for (const index of cluster.up()) {
    const { vids } = cluster.node(index).state
    for (let i = 0; i < count; i++) {
      // Neighbours, and ids at both ends.
      const vid = asVid(i % 2 === 0 ? 1 + i : VID_LIMIT - i)
      vids.put({
        ...{ vid, copies: 2, policy: 0, blockSizeShift: 22, snapshot: false, deleted: false },
        ...{ parent: asVid(0), lock: UNLOCKED },
      })
      vids.markInUse(vid)
    }
  }
  const joiner = cluster.addMachine()
  await cluster.boot(joiner)
  const known = exportVolumes(cluster.node(0).state.vids).length / VDI_STATE_BYTES
  t.is(known, count)
  t.is([...cluster.node(joiner).state.vids.all()].length, known)
  cluster.close()
})

test('pages of volumes together are the whole list, by id', (t) => {
  const vids = new VidTable()
  const ids = [1, 7, 8, 15, 16, 4000, VID_LIMIT - 1].map(asVid)
  for (const vid of [...ids].reverse()) {
    vids.put({
      ...{ vid, copies: 2, policy: 0, blockSizeShift: 22, snapshot: false, deleted: false },
      ...{ parent: asVid(0), lock: UNLOCKED },
    })
    vids.markInUse(vid)
  }
  const found: number[] = []
  let pages = 0
  for (let from = 0; ; pages++) {
    const { body, nextVid } = exportPage(vids, from, 2 * VDI_STATE_BYTES + 100)
    for (let at = 0; at < body.length; at += VDI_STATE_BYTES) {
      found.push(decodeVdiState(body, at).vid)
    }
    if (nextVid === 0) break
    from = nextVid
  }
  t.deepEqual(found, ids)
  t.is(pages, 3)
})
