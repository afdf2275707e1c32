/**
 * What this node should have and lacks, by the lists of everybody who holds objects. Lists come in pages and are
 * gone through in batches: memory holds a page and what is wanted, never the lists.
 */
import { Code } from '../../base/codes.js'
import { IdSet } from '../../base/id-set.js'
import { LIMITS } from '../../base/limits.js'
import type { Log } from '../../base/log.js'
import { nodeKey, type SdNode } from '../../model/node.js'
import type { Oid } from '../../model/oid.js'
import type { ObjectStore } from '../../store/object-store.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { ID_BYTES, listRequest, nextCursor } from '../../wire/sheepdog/object-list.js'
import type { Clock } from '../../world/world.js'
import type { Holdings } from '../layouts.js'
import type { Peers } from '../peers.js'

const PAGE_BYTES = 256 * 1024
/** Ids looked at before the event loop gets its turn: each is hashed onto the ring, a few microseconds. */
const IDS_AT_ONCE = 512
/** Longer lists are worked off as they are: sorting them would hold the event loop up. */
const SORTED_MAX = 1 << 16

/** One round of asking; `pause` is what lies between two tries of one node. */
export interface Inquiry {
  readonly store: ObjectStore
  readonly peers: Peers
  readonly log: Log
  readonly clock: Clock
  readonly epoch: number
  /** Everybody else who holds objects. */
  readonly others: readonly SdNode[]
  readonly holds: Holdings
  /** What was created in this very epoch may be missing here, too. */
  readonly fresh: boolean
  /** Objects that are wanted although they are here. */
  readonly suspects: () => Iterable<Oid>
  /** False: another membership takes over, nobody wants the answer any more. */
  readonly isCurrent: () => boolean
  readonly pause: () => Promise<void>
}

/** Objects this node owns and lacks or has doubts about, each once. A member that does not answer is asked again (defect O23). */
export async function listMissing(inquiry: Inquiry): Promise<BigUint64Array> {
  const wanted = new IdSet()
  await consider(inquiry, await inquiry.store.inventory(), wanted)
  for (const node of inquiry.others) {
    await considerList(inquiry, node, wanted)
    if (!inquiry.isCurrent()) return new BigUint64Array()
  }
  for (const oid of inquiry.suspects()) {
    const id = inquiry.holds(oid)
    if (id !== undefined && inquiry.store.has(id)) wanted.add(oid)
  }
  return await sortedUnlessMany(wanted, inquiry.clock)
}

async function sortedUnlessMany(wanted: IdSet, clock: Clock): Promise<BigUint64Array> {
  const ids = new BigUint64Array(wanted.size)
  let count = 0
  for (const some of wanted.drain()) {
    ids.set(some, count)
    count += some.length
    await turnOf(clock)
  }
  return count <= SORTED_MAX ? ids.sort() : ids
}

function turnOf(clock: Clock): Promise<void> {
  return new Promise((resolve) => clock.soon(resolve))
}

async function consider(
  { store, clock, holds, isCurrent }: Inquiry,
  ids: BigUint64Array,
  wanted: IdSet,
): Promise<void> {
  for (let at = 0; at < ids.length && isCurrent(); at += IDS_AT_ONCE) {
    for (const id of ids.subarray(at, at + IDS_AT_ONCE)) {
      const oid = id as Oid
      if (id === 0n || store.has(oid)) continue
      const wantedId = holds(oid)
      if (wantedId !== undefined && !store.has(wantedId)) wanted.add(id)
    }
    await turnOf(clock)
  }
}

/** Goes through a member's list; asks again until it has it all, or another membership takes over. */
async function considerList(inquiry: Inquiry, node: SdNode, wanted: IdSet): Promise<void> {
  const { epoch, fresh, isCurrent } = inquiry
  let cursor = 0n
  let room = PAGE_BYTES
  while (isCurrent()) {
    const reply = await askFor(inquiry, node, listRequest({ epoch, cursor, room, fresh }))
    if (reply?.result === Code.SUCCESS) {
      await consider(inquiry, idsOf(reply.body), wanted)
      const next = nextCursor(reply)
      if (next === 0n) return
      // A page of nothing that is not the last one would be asked for for ever.
      if (reply.body.length < ID_BYTES) await inquiry.pause()
      cursor = next
    } else if (reply?.result === Code.BUFFER_SMALL && room < LIMITS.sheepdogPayloadBytesMax) {
      // One of sheepdog 1.0: all at once or not at all.
      room = Math.min(room * 4, LIMITS.sheepdogPayloadBytesMax)
    } else {
      // It does not hold the list any more: what was seen of it is not lost, but the rest has another order.
      if (reply?.result === Code.AGAIN) cursor = 0n
      await inquiry.pause()
    }
  }
}

async function askFor(
  { peers, log }: Inquiry,
  node: SdNode,
  head: Buffer,
): Promise<Frame | undefined> {
  try {
    const reply = await peers.call(node, head)
    const { result } = reply
    if (result !== Code.SUCCESS && result !== Code.BUFFER_SMALL) {
      log.warn('recovery.list.refused', { node: nodeKey(node), result })
    }
    return reply
  } catch (error) {
    log.warn('recovery.list.failed', { node: nodeKey(node), reason: String(error) })
    return undefined
  }
}

function idsOf(bytes: Buffer): BigUint64Array {
  const count = Math.floor(bytes.length / ID_BYTES)
  const ids = new BigUint64Array(count)
  for (let i = 0; i < count; i++) ids[i] = bytes.readBigUInt64LE(ID_BYTES * i)
  return ids
}
