/** What may be wrong with the fragments of coded objects over all nodes of a small cluster that run. */
import { Code } from '../../../src/base/codes.js'
import { ErasureCode } from '../../../src/model/erasure.js'
import { fragmentId, fragmentOf, type Oid, oidName, oidVid } from '../../../src/model/oid.js'
import { stripsOf } from '../../../src/model/policy.js'
import { ownersOf } from '../../../src/model/ring.js'
import type { SmallCluster } from './small-cluster.js'

/** Coded objects any node has a fragment of. */
export function codedObjects(cluster: SmallCluster): Oid[] {
  const all = cluster.up().flatMap((index) => {
    const { store, state } = cluster.node(index)
    return store.list().filter((oid) => state.codingOf(oid) !== 0)
  })
  return [...new Set(all)]
}

/** One working fragment, or undefined. */
export async function fragmentOn(
  cluster: SmallCluster,
  index: number,
  oid: Oid,
  fragment: number,
): Promise<Buffer | undefined> {
  const { store, local } = cluster.node(index)
  const id = fragmentId(oid, fragment)
  if (!store.has(id)) return undefined
  const into = Buffer.alloc(local.bytesOf(id))
  const code = await new Promise<Code>((resolve) => store.read(id, 0, into, resolve))
  if (code !== Code.SUCCESS) throw new Error(`${oidName(id)} on ${index}: ${code}`)
  return into
}

/**
 * Every fragment on its owner and nowhere else, and all of them of one encoding. For clusters with a zone for
 * every fragment.
 */
export async function codedFaults(cluster: SmallCluster): Promise<string[]> {
  const faults: string[] = []
  const { state } = cluster.node(cluster.up()[0]!)
  for (const oid of codedObjects(cluster)) {
    const code = new ErasureCode(stripsOf(state.codingOf(oid))!)
    const owners = ownersOf(state.view.ring, oid, code.width)
    if (owners.length < code.width) faults.push(`${oidName(oid)} has ${owners.length} owners`)
    const found: (Buffer | undefined)[] = []
    for (const index of cluster.up()) {
      const { port } = cluster.machines[index]!.self
      const wanted = owners.findIndex((owner) => owner.port === port)
      const { store } = cluster.node(index)
      for (const id of store.piecesOf(oid)) {
        if (fragmentOf(id) === wanted) continue
        const what = store.has(id) ? 'works' : 'is stale'
        faults.push(`${oidName(id)} ${what} on ${index}`)
      }
      if (wanted >= 0) found[wanted] = await fragmentOn(cluster, index, oid, wanted)
    }
    const missing = owners.flatMap((_, i) => (found[i] === undefined ? [i] : []))
    for (const i of missing) faults.push(`fragment ${i} of ${oidName(oid)} is missing`)
    if (missing.length > 0) continue
    const size = 2 ** state.blockSizeShiftOf(oidVid(oid))
    const whole = Buffer.alloc(size)
    code.decode(found, whole)
    code.encode(whole).forEach((fragment, i) => {
      if (found[i]?.equals(fragment) === false) faults.push(`${oidName(oid)}_${i} differs`)
    })
  }
  return faults
}
