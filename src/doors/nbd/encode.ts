/** What is sent when a request succeeds. */
import type { Extent } from '../../volume/volume.js'
import { Command, ReplyType } from '../../wire/nbd/constants.js'
import * as wire from '../../wire/nbd/messages.js'
import { type Agreed, ALLOCATION_ID } from './handshake.js'
import type { ReplyQueue } from './replies.js'
import type { Slot } from './slot.js'

/** Queues the reply of a request that succeeded. */
export function encodeReply(slot: Slot, agreed: Agreed, replies: ReplyQueue): void {
  const { type } = slot
  if (type === Command.READ && agreed.structured) encodeChunkedRead(slot, replies)
  else if (type === Command.BLOCK_STATUS) {
    const chunk = wire.encodeBlockStatus(slot, ALLOCATION_ID, slot.layout!)
    replies.add(chunk, 0, chunk.length)
  } else {
    if (type !== Command.READ) {
      slot.replyLength = wire.SIMPLE_REPLY_BYTES
      replies.reserve(slot.replyLength, slot)
    }
    wire.writeSimpleReply(slot.reply, slot.replyAt, slot, 0)
    replies.add(slot.reply, slot.replyAt, slot.replyLength)
  }
}

/** Bytes of the chunk that carries a stretch. */
export function chunkBytes(extent: Extent): number {
  return extent.hole ? wire.HOLE_CHUNK_BYTES : wire.DATA_CHUNK_HEADER_BYTES + extent.length
}

function encodeChunkedRead(slot: Slot, replies: ReplyQueue): void {
  const { reply, replyAt, length } = slot
  if (slot.layout !== undefined) writeChunks(slot, slot.layout)
  else if (length > 0) {
    wire.writeDataChunkHeader(reply, replyAt, slot, { offset: slot.offset, length, last: true })
  } else {
    wire.writeChunkHeader(reply, replyAt, slot, { type: ReplyType.NONE, length, last: true })
    slot.replyLength = wire.CHUNK_HEADER_BYTES
  }
  replies.add(reply, replyAt, slot.replyLength)
}

function writeChunks(slot: Slot, layout: readonly Extent[]): void {
  let { offset, replyAt: at } = slot
  layout.forEach((extent, i) => {
    const piece = { offset, length: extent.length, last: i === layout.length - 1 }
    if (extent.hole) wire.writeHoleChunk(slot.reply, at, slot, piece)
    else wire.writeDataChunkHeader(slot.reply, at, slot, piece)
    offset += extent.length
    at += chunkBytes(extent)
  })
}
