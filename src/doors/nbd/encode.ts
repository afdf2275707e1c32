/** What is sent when a request succeeds. */

import type { ReplyQueue } from '../../base/reply-queue.js'
import type { Extent } from '../../volume/volume.js'
import { Command, ReplyType } from '../../wire/nbd/constants.js'
import type { Framing } from '../../wire/nbd/framing.js'
import * as wire from '../../wire/nbd/messages.js'
import type { Agreed } from './handshake.js'
import type { Slot } from './slot.js'

/** Queues the reply of a request that succeeded. */
export function encodeReply(slot: Slot, { chunks }: Agreed, replies: ReplyQueue): void {
  const { type } = slot
  if (chunks === undefined) {
    if (type !== Command.READ) {
      slot.replyLength = wire.SIMPLE_REPLY_BYTES
      replies.reserve(slot.replyLength, slot)
    }
    wire.writeSimpleReply(slot.reply, slot.replyAt, slot, 0)
    replies.add(slot.reply, slot.replyAt, slot.replyLength)
  } else if (type === Command.READ) encodeChunkedRead(slot, chunks, replies)
  else if (type === Command.BLOCK_STATUS) encodeStatuses(slot, chunks, replies)
  else encodeSuccess(slot, chunks, replies)
}

/** Bytes of the chunk that carries a stretch. */
export function chunkBytes(chunks: Framing, extent: Extent): number {
  return extent.hole ? wire.holeChunkBytes(chunks) : wire.dataChunkBytes(chunks) + extent.length
}

/** Nothing to say but that it is done: a simple reply is shorter, where it may be used. */
function encodeSuccess(slot: Slot, chunks: Framing, replies: ReplyQueue): void {
  slot.replyLength = chunks.isExtended ? chunks.chunkHeaderBytes : wire.SIMPLE_REPLY_BYTES
  replies.reserve(slot.replyLength, slot)
  if (chunks.isExtended) writeNone(slot, chunks)
  else wire.writeSimpleReply(slot.reply, slot.replyAt, slot, 0)
  replies.add(slot.reply, slot.replyAt, slot.replyLength)
}

function writeNone(slot: Slot, chunks: Framing): void {
  const none = { type: ReplyType.NONE, length: 0, last: true }
  chunks.writeChunkHeader(slot.reply, slot.replyAt, slot, none)
}

function encodeStatuses(slot: Slot, chunks: Framing, replies: ReplyQueue): void {
  for (const status of slot.statuses) {
    const chunk = wire.encodeBlockStatus(chunks, slot, status)
    replies.add(chunk, 0, chunk.length)
  }
}

function encodeChunkedRead(slot: Slot, chunks: Framing, replies: ReplyQueue): void {
  const { reply: into, replyAt: at, offset, length } = slot
  if (slot.layout !== undefined) writeChunks(slot, chunks, slot.layout)
  else if (length > 0) {
    const piece = { offset, length, last: true }
    wire.writeDataChunkHeader({ into, at, framing: chunks }, slot, piece)
  } else {
    writeNone(slot, chunks)
    slot.replyLength = chunks.chunkHeaderBytes
  }
  replies.add(into, at, slot.replyLength)
}

function writeChunks(slot: Slot, framing: Framing, layout: readonly Extent[]): void {
  let { offset, replyAt: at } = slot
  layout.forEach((extent, i) => {
    const piece = { offset, length: extent.length, last: i === layout.length - 1 }
    const place = { into: slot.reply, at, framing }
    if (extent.hole) wire.writeHoleChunk(place, slot, piece)
    else wire.writeDataChunkHeader(place, slot, piece)
    offset += extent.length
    at += chunkBytes(framing, extent)
  })
}
