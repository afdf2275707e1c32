/**
 * The ids of everything on the disks, for whoever lists a node with millions of objects: taken in batches,
 * between which the event loop serves others.
 */
import type { StoredId } from '../model/oid.js'
import type { StoreContext } from './context.js'
import { turn } from './file-io.js'

/** Ids copied before the event loop gets its turn: about a millisecond. */
const IDS_AT_ONCE = 8192

/**
 * Objects of which a replica or fragment, working or stale, was here at the call and still is at the end; those
 * that come meanwhile may be in it. In no order, with repeats.
 */
export async function takeInventory(context: StoreContext): Promise<BigUint64Array> {
  const { catalog, clock } = context
  let ids = new BigUint64Array(catalog.working.size + catalog.stale.size + IDS_AT_ONCE)
  let count = 0
  const add = async (some: Iterable<StoredId>): Promise<void> => {
    for (const id of some) {
      if (count === ids.length) ids = enlarged(ids)
      // The index of a fragment is above the 64 bits that stay.
      ids[count++] = id
      if (count % IDS_AT_ONCE === 0) await turn(clock)
    }
  }
  // A working object that is set aside meanwhile is found among the stale ones, which come second. A stale
  // copy may become a working object and then be purged before its turn comes: then look once more.
  const { purged } = catalog
  await add(catalog.working.keys())
  await add(catalog.stale.keys())
  if (catalog.purged !== purged) await add(catalog.working.keys())
  return ids.subarray(0, count)
}

function enlarged(ids: BigUint64Array<ArrayBuffer>): BigUint64Array<ArrayBuffer> {
  const larger = new BigUint64Array(2 * ids.length)
  larger.set(ids)
  return larger
}
