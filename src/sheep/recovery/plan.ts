/** What a node is told about its recovery when it is started, and what recovery asks before it fills a disk. */
import { type Oid, objectBytes, oidKind, oidVid } from '../../model/oid.js'
import { stripsOf } from '../../model/policy.js'
import type { ObjectStore } from '../../store/object-store.js'
import type { RecoveryThrottling } from '../../wire/sheepdog/records.js'
import type { Clock } from '../../world/world.js'
import type { NodeState } from '../state.js'

export interface RecoveryPlan {
  /** How fast it goes to begin with; without it the node's use decides. */
  readonly throttling?: RecoveryThrottling | undefined
  /** The first recovery asks every member for every object, not just the owners it had. */
  readonly wildcard?: boolean | undefined
}

/** Objects summed up before the event loop gets its turn. */
const IDS_AT_ONCE = 4096

/**
 * Bytes that fetching these objects would take from this node's disks. Data objects only, as the flag is defined; the
 * others are sparse. What is here as an older copy is counted as no more: it is linked when it is the same.
 */
export async function bytesToCome(
  wanted: ArrayLike<bigint>,
  parts: { readonly state: NodeState; readonly store: ObjectStore; readonly clock: Clock },
): Promise<number> {
  const { state, store, clock } = parts
  let bytes = 0
  for (let at = 0; at < wanted.length; at++) {
    const oid = wanted[at] as Oid
    const isNew = !store.has(oid) && store.staleEpochs(oid).length === 0
    if (oidKind(oid) === 'data' && isNew) {
      const parts = stripsOf(state.codingOf(oid))?.data ?? 1
      bytes += objectBytes(oid, state.blockSizeShiftOf(oidVid(oid))) / parts
    }
    if (at % IDS_AT_ONCE === IDS_AT_ONCE - 1) {
      await new Promise<void>((resolve) => clock.soon(resolve))
    }
  }
  return bytes
}
