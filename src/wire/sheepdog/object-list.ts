/**
 * GET_OBJ_LIST in pages, which sheepdog 1.0 does not have: it answers with its whole list, or BUFFER_SMALL.
 *
 *   request:   16 cursor u64, 0 to begin | 36 target epoch u32 | 40 how u32: 1 pages, 3 pages of a fresh list
 *   reply:     24 next cursor u64, 0 at the end | 32 u32: 1 this is a page       body: ids, u64 each
 *
 * 1.0 looks at none of these fields and leaves those of the reply zero.
 */
import type { Oid } from '../../model/oid.js'
import type { Frame } from './frame.js'
import { Op } from './opcodes.js'
import { objectFields, objectRequest } from './requests.js'

export const ID_BYTES = 8
const PAGES = 1
const FRESH = 2

export interface ListRequest {
  readonly epoch: number
  /** Of the answer before; 0: the first page. */
  readonly cursor: bigint
  /** Bytes of ids that fit. */
  readonly room: number
  /** What was created in this epoch counts as well; without it a list made earlier in the epoch will do. */
  readonly fresh: boolean
}

export function listRequest({ epoch, cursor, room, fresh }: ListRequest): Buffer {
  return objectRequest({
    opcode: Op.GET_OBJ_LIST,
    oid: cursor as Oid,
    targetEpoch: epoch,
    dataLength: room,
    offset: fresh ? PAGES | FRESH : PAGES,
  })
}

/** Undefined: the asker knows nothing of pages. */
export function decodeListRequest(frame: Frame): ListRequest | undefined {
  const how = objectFields.offset(frame)
  if ((how & PAGES) === 0) return undefined
  return {
    epoch: objectFields.targetEpoch(frame),
    cursor: objectFields.oid(frame),
    room: frame.dataLength,
    fresh: (how & FRESH) !== 0,
  }
}

export function setListReply(head: Buffer, next: bigint): Buffer {
  head.writeBigUInt64LE(next, 24)
  head.writeUInt32LE(PAGES, 32)
  return head
}

/** The cursor of the next page; 0 when there is none, or the sheep does not make pages. */
export function nextCursor(reply: Frame): bigint {
  return reply.head.readUInt32LE(32) === PAGES ? reply.head.readBigUInt64LE(24) : 0n
}
