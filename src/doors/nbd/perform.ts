/** NBD commands as calls of a volume. */
import { Code } from '../../base/codes.js'
import type { ReplyQueue } from '../../base/reply-queue.js'
import type { Extent, Volume } from '../../volume/volume.js'
import { Command, CommandFlag, NBD_LIMITS } from '../../wire/nbd/constants.js'
import type { StatusReply } from '../../wire/nbd/messages.js'
import * as wire from '../../wire/nbd/messages.js'
import { chunkBytes } from './encode.js'
import type { Agreed } from './handshake.js'
import { CACHE_PIECE_BYTES, type Slot } from './slot.js'

/** Reads from this size on are looked at for holes; below it a hole costs less than the look. */
const SPARSE_READ_BYTES_MIN = 64 * 1024

export interface Stage {
  readonly volume: Volume
  readonly agreed: Agreed
  readonly replies: ReplyQueue
}

/** Starts a request that passed the gate. */
export function perform(stage: Stage, slot: Slot): void {
  const { volume } = stage
  const { type, offset, length, done } = slot
  slot.pending = 1
  if (type === Command.READ) read(stage, slot)
  else if (type === Command.FLUSH) volume.flush(done)
  else if (type === Command.BLOCK_STATUS) blockStatus(slot)
  else if (length === 0) done(Code.SUCCESS)
  else if (type === Command.WRITE)
    volume.write(offset, slot.payload, has(slot, CommandFlag.FUA), done)
  else if (type === Command.WRITE_ZEROES) zero(volume, slot)
  else if (type === Command.TRIM)
    volume.discard({ offset, length }, has(slot, CommandFlag.FUA), done)
  else cache(volume, slot)
}

function has(slot: Slot, flag: number): boolean {
  return (slot.flags & flag) !== 0
}

function zero(volume: Volume, slot: Slot): void {
  const { offset, length, done } = slot
  const fua = has(slot, CommandFlag.FUA)
  const mayUnmap = !has(slot, CommandFlag.NO_HOLE)
  const fastOnly = has(slot, CommandFlag.FAST_ZERO)
  volume.zero({ offset, length }, { fua, mayUnmap, fastOnly }, done)
}

function read(stage: Stage, slot: Slot): void {
  const { volume, agreed, replies } = stage
  const { offset, length, done } = slot
  const layout = sparseLayout(stage, slot)
  if (layout !== undefined) {
    readSparse(stage, slot, layout)
    return
  }
  const { chunks } = agreed
  const head = chunks === undefined ? wire.SIMPLE_REPLY_BYTES : wire.dataChunkBytes(chunks)
  slot.replyLength = head + length
  replies.reserve(slot.replyLength, slot)
  if (length === 0) {
    done(Code.SUCCESS)
    return
  }
  const from = slot.replyAt + head
  volume.read(offset, slot.reply.subarray(from, from + length), done)
}

/** The stretches of a read that is worth answering with holes, else undefined. */
function sparseLayout({ volume, agreed }: Stage, slot: Slot): readonly Extent[] | undefined {
  const { offset, length } = slot
  if (agreed.chunks === undefined || length < SPARSE_READ_BYTES_MIN || has(slot, CommandFlag.DF))
    return
  const layout = volume.extents({ offset, length })
  return layout.some((extent) => extent.hole) ? layout : undefined
}

/** One buffer for all chunks; the volume fills in the data. */
function readSparse(
  { volume, agreed, replies }: Stage,
  slot: Slot,
  layout: readonly Extent[],
): void {
  const chunks = agreed.chunks!
  slot.layout = layout
  slot.replyLength = layout.reduce((sum, extent) => sum + chunkBytes(chunks, extent), 0)
  replies.reserve(slot.replyLength, slot)
  let { offset, replyAt: at } = slot
  for (const extent of layout) {
    if (!extent.hole) {
      const from = at + wire.dataChunkBytes(chunks)
      slot.pending++
      const start = offset
      volume.read(start, slot.reply.subarray(from, from + extent.length), (code) => {
        if (code !== Code.SUCCESS) slot.failedAt = Math.min(start, slot.failedAt ?? start)
        slot.done(code)
      })
    }
    offset += extent.length
    at += chunkBytes(chunks, extent)
  }
  slot.done(Code.SUCCESS)
}

/** One chunk a context, in the order they were chosen; they need not reach equally far. */
function blockStatus(slot: Slot): void {
  const { offset, length, contexts } = slot
  const most = has(slot, CommandFlag.REQ_ONE) ? 1 : NBD_LIMITS.extentsPerReplyMax
  slot.pending = contexts.length
  slot.statuses = new Array<StatusReply>(contexts.length)
  contexts.forEach(({ id, context }, i) => {
    const last = i === contexts.length - 1
    context.states({ offset, length }, most, (code, stretches) => {
      slot.statuses[i] = { contextId: id, stretches, last }
      slot.done(code)
    })
  })
}

/** Reads the range piece by piece into memory nobody looks at, so that the next read finds it warm. */
function cache(volume: Volume, slot: Slot): void {
  const end = slot.offset + Math.min(slot.length, NBD_LIMITS.cacheBytesMax)
  const scratch = Buffer.allocUnsafe(Math.min(slot.length, CACHE_PIECE_BYTES))
  let at = slot.offset
  const step = (code: Code): void => {
    if (code !== Code.SUCCESS || at === end) {
      slot.done(code)
      return
    }
    const piece = scratch.subarray(0, Math.min(scratch.length, end - at))
    const from = at
    at += piece.length
    volume.read(from, piece, step)
  }
  step(Code.SUCCESS)
}
