/**
 * GET_VDI_COPIES in pages, which sheepdog 1.0 does not have: it answers with all it knows, or BUFFER_SMALL.
 *
 *   request:   16 first volume id u32 | 20 how u32: 1 pages
 *   reply:     24 first volume id of the next page u32, 0 at the end | 28 u32: 1 this is a page
 *
 * 1.0 looks at none of these fields and leaves those of the reply zero.
 */
import type { Frame } from './frame.js'
import { Op } from './opcodes.js'
import { plainRequest } from './requests.js'

const PAGES = 1

export interface VolumesRequest {
  readonly epoch: number
  readonly firstVid: number
  /** Bytes of records that fit. */
  readonly room: number
}

export function volumesRequest({ epoch, firstVid, room }: VolumesRequest): Buffer {
  const head = plainRequest({ opcode: Op.GET_VDI_COPIES, epoch, dataLength: room })
  head.writeUInt32LE(firstVid, 16)
  head.writeUInt32LE(PAGES, 20)
  return head
}

/** The first volume id that is wanted; undefined: the asker knows nothing of pages. */
export function firstVidOf(request: Frame): number | undefined {
  return request.head.readUInt32LE(20) === PAGES ? request.head.readUInt32LE(16) : undefined
}

export function setVolumesReply(head: Buffer, nextVid: number): Buffer {
  head.writeUInt32LE(nextVid, 24)
  head.writeUInt32LE(PAGES, 28)
  return head
}

/** Where the next page begins; 0 when there is none, or the sheep does not make pages. */
export function nextVidOf(reply: Frame): number {
  return reply.head.readUInt32LE(28) === PAGES ? reply.head.readUInt32LE(24) : 0
}
