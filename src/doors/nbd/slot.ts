/** A request at work: what was asked, what it needs meanwhile, and how it ends. */
import { noBytes } from '../../base/bytes.js'
import { Code, type Done } from '../../base/codes.js'
import type { Room } from '../../base/reply-queue.js'
import type { Extent } from '../../volume/volume.js'
import { Command } from '../../wire/nbd/constants.js'
import type { RequestHeader } from '../../wire/nbd/framing.js'
import type { StatusReply } from '../../wire/nbd/messages.js'
import type { ChosenContext } from './exports.js'

/** What a CACHE request reads at a time. */
export const CACHE_PIECE_BYTES = 256 * 1024

/** `done` is called as often as `pending` says; the last call ends the request. */
export interface Slot extends RequestHeader, Room {
  /** What a WRITE writes, or a BLOCK_STATUS says beside its header. */
  payload: Buffer
  /** Bytes of `reply` that go out when it succeeds. */
  replyLength: number
  /** A read that sends holes as holes: its stretches. */
  layout: readonly Extent[] | undefined
  /** Of a BLOCK_STATUS: the contexts it asks for, and what they say, in this order. */
  contexts: readonly ChosenContext[]
  statuses: StatusReply[]
  pending: number
  /** Of the export's share. */
  pieces: number
  /** The first failure, or SUCCESS. */
  code: Code
  /** Offset of the first piece that failed, where pieces are told apart. */
  failedAt: number | undefined
  readonly done: Done
}

/** A slot for the pool; `finish` is called each time a request in it has ended. */
export function newSlot(finish: (slot: Slot) => void): Slot {
  const slot: Slot = {
    flags: 0,
    type: 0,
    cookieHigh: 0,
    cookieLow: 0,
    offset: 0,
    offsetHigh: 0,
    offsetLow: 0,
    length: 0,
    payload: noBytes(),
    reply: noBytes(),
    replyAt: 0,
    replyLength: 0,
    layout: undefined,
    contexts: [],
    statuses: [],
    pending: 0,
    pieces: 0,
    code: Code.SUCCESS,
    failedAt: undefined,
    done: (code) => {
      // A second completion would answer somebody else's request: stop before that.
      if (slot.pending <= 0) throw new Error('a volume completed an operation twice')
      if (code !== Code.SUCCESS && slot.code === Code.SUCCESS) slot.code = code
      if (--slot.pending === 0) finish(slot)
    },
  }
  return slot
}

/** Bytes a request keeps in memory while it is at work. */
export function chargeOf(slot: Slot): number {
  if (slot.type === Command.READ || slot.type === Command.WRITE) return slot.length
  return slot.type === Command.CACHE ? Math.min(slot.length, CACHE_PIECE_BYTES) : 0
}
