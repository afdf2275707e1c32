/** Gets this node's fragment of a coded object, or makes the one that is here fit the others. */
import { Code } from '../../base/codes.js'
import { objectOf } from '../../model/oid.js'
import type { ObjectStore } from '../../store/object-store.js'
import type { Suspects } from '../equal/suspects.js'
import type { NodeState } from '../state.js'
import type { CodedFetcher, WantedFragment } from './coded.js'

/** Owners that are about to have their fragments are asked so often before the object has to wait for its next turn. */
const LOOKS_MAX = 5

export interface Bringing {
  readonly state: NodeState
  readonly store: Pick<ObjectStore, 'has'>
  readonly suspects: Suspects
  readonly fetcher: CodedFetcher
  /** The newest epoch whose recovery is over on all nodes. */
  readonly gatheredEpoch: number
  readonly pause: () => Promise<void>
}

/** Every node's suspects are known. NETWORK_ERROR: not now. */
export async function bringFragment(how: Bringing, wanted: WantedFragment): Promise<Code> {
  const { state, store, suspects, fetcher, gatheredEpoch } = how
  const oid = objectOf(wanted.id)
  const isDoubtful = suspects.isListed(oid)
  if (!store.has(wanted.id)) {
    if (isDoubtful) suspects.join(oid)
    const code = await fetcher.fetch({ ...wanted, isDoubtful }, gatheredEpoch)
    if (state.epoch !== wanted.epoch) return Code.NETWORK_ERROR
    if (isDoubtful && code === Code.NO_OBJ) suspects.equal(oid)
    if (!isDoubtful || code !== Code.SUCCESS) return code
  }
  let found = await fetcher.reconcile(wanted)
  for (let looks = 1; found.code === Code.AGAIN && looks < LOOKS_MAX; looks++) {
    await how.pause()
    if (state.epoch !== wanted.epoch) return Code.NETWORK_ERROR
    found = await fetcher.reconcile(wanted)
  }
  // What was found out about one membership says nothing about the next one.
  if (state.epoch !== wanted.epoch || found.code === Code.AGAIN) return Code.NETWORK_ERROR
  if (found.code === Code.SUCCESS && found.isFinal) suspects.equal(oid)
  else if (found.code === Code.SUCCESS) suspects.lend(oid)
  return found.code
}
