/**
 * From a session to a JOIN in the order of events. What must hold before a JOIN is pushed:
 *
 *   - no other session speaks for this address (a crashed predecessor's lives on for its time-out);
 *   - /queue_pos has this node, at -1: nobody takes away events that it has yet to read;
 *   - /master has this node: others see that it is there;
 *   - no other node is between its JOIN and its /member node (`entrance`): so whoever comes in and sees no
 *     member is alone, and does not start a second cluster beside one that is just beginning.
 */
import type { Log } from '../../base/log.js'
import { nodeKey, type SdNode } from '../../model/node.js'
import type { World } from '../../world/world.js'
import { Bell } from './bell.js'
import { claim, enlist, type Layout, remove, sequenceOf } from './layout.js'
import { append, queueTail } from './queue.js'
import { encodeJoin, nodeText } from './record.js'
import type { ZkSession } from './session.js'

const MASTER_BYTES = 256
/** A predecessor's session is gone within its time-out and a tick or two of the servers. */
const PREDECESSOR_SHARE = 1.5

export interface EntranceOptions {
  readonly zk: ZkSession
  readonly layout: Layout
  readonly world: Pick<World, 'clock' | 'random'>
  readonly log: Log
  readonly self: SdNode
  readonly request: Buffer
}

/** A JOIN that is in the order. */
export interface Entrance {
  readonly id: bigint
  readonly position: number
  /** Lets the next joiner in; to be called when this one's /member node is there. */
  readonly release: () => Promise<void>
}

/** The address is taken by a living member. */
export class AddressTaken extends Error {}

/** Rejects with AddressTaken or ZkError. */
export async function enter(options: EntranceOptions): Promise<Entrance> {
  const { zk, layout, world, self, request } = options
  const text = nodeText(self)
  await layout.ensure(zk)
  const turn = await takeTurn(options)
  if (!(await claim(zk, `${layout.positions}/${text}`, position(-1)))) {
    await remove(zk, turn)
    return enter(options)
  }
  const master = Buffer.alloc(MASTER_BYTES)
  master.write(text)
  await enlist(zk, layout.masters, master)
  const members = (await zk.children(layout.members)) ?? []
  const id = world.random.bytes(8).readBigUInt64LE(0)
  const data = encodeJoin(id, self, request, members.length)
  const from = (await queueTail(zk, layout)) ?? 0
  const at = await append(zk, layout, { id, data, from: () => from, readAt: () => undefined })
  return { id, position: at, release: () => remove(zk, turn) }
}

/** Waits for the predecessor's end and then for this node's turn; the path of the turn. */
async function takeTurn(options: EntranceOptions): Promise<string> {
  const { zk, layout, self } = options
  await predecessorGone(options)
  const turn = await enlist(zk, layout.entrance, Buffer.from(nodeText(self)))
  for (;;) {
    const bell = new Bell()
    const before = ((await zk.children(layout.entrance)) ?? [])
      .filter((name) => sequenceOf(name) < sequenceOf(turn))
      .sort((a, b) => sequenceOf(a) - sequenceOf(b))
      .at(-1)
    if (before === undefined) return turn
    const rung = bell.next()
    if ((await zk.exists(`${layout.entrance}/${before}`, bell.ring)) !== undefined) await rung
  }
}

async function predecessorGone(options: EntranceOptions): Promise<void> {
  const { zk, layout, world, log, self } = options
  const text = nodeText(self)
  const waitMs = Math.ceil(zk.timeoutMs * PREDECESSOR_SHARE)
  const bell = new Bell()
  let isLate = false
  let isSaid = false
  const cancel = world.clock.after(waitMs, () => {
    isLate = true
    bell.ring()
  })
  try {
    for (;;) {
      const rung = bell.next()
      const member = await zk.exists(`${layout.members}/${text}`, bell.ring)
      const reader = await zk.exists(`${layout.positions}/${text}`, bell.ring)
      if (member === undefined && reader === undefined) return
      if (isLate) {
        const where = `${layout.root} on ZooKeeper`
        throw new AddressTaken(
          `${nodeKey(self)} is already a member of ${where}: another sheep with this address runs`,
        )
      }
      if (!isSaid) log.info('cluster.predecessor', { node: nodeKey(self), waitMs })
      isSaid = true
      await rung
    }
  } finally {
    cancel()
  }
}

/** Content of a /queue_pos node: the last position its owner has passed. */
export function position(last: number): Buffer {
  const data = Buffer.alloc(4)
  data.writeInt32LE(last)
  return data
}
