/** What this node should have and lacks, by the lists of everybody who holds objects. */
import { Code } from '../../base/codes.js'
import { LIMITS } from '../../base/limits.js'
import type { Log } from '../../base/log.js'
import { nodeKey, type SdNode } from '../../model/node.js'
import type { Oid } from '../../model/oid.js'
import type { ObjectStore } from '../../store/object-store.js'
import { Op } from '../../wire/sheepdog/opcodes.js'
import { objectRequest } from '../../wire/sheepdog/requests.js'
import type { Peers } from '../peers.js'

const LIST_BYTES_START = 1024 * 1024

/** One round of asking; `pause` is what lies between two tries of one node. */
export interface Inquiry {
  readonly store: ObjectStore
  readonly peers: Peers
  readonly log: Log
  readonly epoch: number
  /** Everybody else who holds objects. */
  readonly others: readonly SdNode[]
  readonly owns: (oid: Oid) => boolean
  /** False: another membership takes over, nobody wants the answer any more. */
  readonly isCurrent: () => boolean
  readonly pause: () => Promise<void>
}

/** Objects this node owns and lacks, ascending. A member that does not answer is asked again (O23). */
export async function listMissing(inquiry: Inquiry): Promise<Oid[]> {
  const { store, owns } = inquiry
  const wanted = new Set<Oid>()
  const consider = (oids: Iterable<Oid>): void => {
    for (const oid of oids) {
      if (!store.has(oid) && !wanted.has(oid) && owns(oid)) wanted.add(oid)
    }
  }
  consider(store.list())
  for (const node of inquiry.others) {
    const list = await listOf(inquiry, node)
    if (list === undefined) return []
    consider(list)
  }
  return [...wanted].sort((a, b) => (a < b ? -1 : 1))
}

/** A member's list; asks again until it answers. Undefined when the membership changed meanwhile. */
async function listOf(inquiry: Inquiry, node: SdNode): Promise<Oid[] | undefined> {
  const { peers, log } = inquiry
  let room = LIST_BYTES_START
  while (inquiry.isCurrent()) {
    const head = objectRequest({
      opcode: Op.GET_OBJ_LIST,
      oid: 0n as Oid,
      targetEpoch: inquiry.epoch,
      dataLength: room,
    })
    try {
      const reply = await peers.call(node, head)
      if (reply.result === Code.SUCCESS) return decodeOids(reply.body)
      if (reply.result === Code.BUFFER_SMALL && room < LIMITS.sheepdogPayloadBytesMax) {
        room = Math.min(room * 4, LIMITS.sheepdogPayloadBytesMax)
        continue
      }
      log.warn('recovery.list.refused', { node: nodeKey(node), result: reply.result })
    } catch (error) {
      log.warn('recovery.list.failed', { node: nodeKey(node), reason: String(error) })
    }
    await inquiry.pause()
  }
  return undefined
}

function decodeOids(bytes: Buffer): Oid[] {
  const count = Math.floor(bytes.length / 8)
  return Array.from({ length: count }, (_, i) => bytes.readBigUInt64LE(8 * i) as Oid)
}
