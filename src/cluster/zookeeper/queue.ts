/**
 * The order of events: sequential nodes of /queue. ZooKeeper numbers them without gaps, so the next one to
 * read is known before it exists, and one that is missing below the tail was taken away.
 */
import { noBytes } from '../../base/bytes.js'
import { isUnsure, type Layout, sequenceOf } from './layout.js'
import { decodeEvent } from './record.js'
import type { ZkSession } from './session.js'

/** The position the next event will get. Undefined when somebody removed the queue. */
export async function queueTail(zk: ZkSession, layout: Layout): Promise<number | undefined> {
  const stat = await zk.exists(layout.queue)
  // A client sees twice the creations minus the children there are as the version of the children.
  return stat === undefined ? undefined : (stat.cversion + stat.children) / 2
}

export interface NewEvent {
  readonly id: bigint
  readonly data: Buffer
  /** Where to begin looking when nobody can tell whether it was taken: it cannot stand before. */
  readonly from: () => number
  /** Where it has been read meanwhile; what has been read may be gone when it is looked for. */
  readonly readAt: () => number | undefined
}

/** Puts an event into the order, exactly once; resolves to its position. Rejects with ZkError. */
export async function append(zk: ZkSession, layout: Layout, event: NewEvent): Promise<number> {
  for (;;) {
    const from = event.from()
    try {
      return sequenceOf(await zk.create(`${layout.queue}/`, event.data, { sequential: true }))
    } catch (error) {
      if (!isUnsure(error)) throw error
    }
    const found = (await find(zk, layout, event.id, from)) ?? event.readAt()
    if (found !== undefined) return found
  }
}

/**
 * A session that moved to another server has nothing under way on the old one any more, and after a sync
 * everything the old one did can be seen: what is not there then never will be.
 */
async function find(
  zk: ZkSession,
  layout: Layout,
  id: bigint,
  from: number,
): Promise<number | undefined> {
  await zk.sync(layout.queue)
  const tail = (await queueTail(zk, layout)) ?? 0
  for (let position = from; position < tail; position++) {
    const found = await zk.get(layout.event(position))
    if (decodeEvent(found?.data ?? noBytes())?.id === id) return position
  }
  return undefined
}
