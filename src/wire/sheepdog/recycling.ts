/**
 * Ids of deleted volumes become free again (sheep/recycling.ts), in clusters formatted with RECYCLE_VID.
 *
 *   NOTIFY_VDI_DEL   16 step u32: 1 erase, 2 free | 20 epoch u32 | 24 serial u32 | payload: volume ids u32 each
 *   RECYCLE_VIDS     16 serial u32, 0: none | payload: volume ids u32 each
 *
 * A NOTIFY_VDI_DEL without a step is 1.0's, of one id. 1.0 does not know the question.
 */
import { asVid, VID_LIMIT, type Vid } from '../../model/oid.js'
import type { Frame } from './frame.js'
import { Flag, Op } from './opcodes.js'
import { plainRequest } from './requests.js'

/** Ids in one message: far below what a cluster message holds. */
export const RECYCLED_MAX = 4096
const VID_BYTES = 4
const STEPS = { erase: 1, free: 2 } as const

export interface RecyclingStep {
  readonly step: keyof typeof STEPS
  /** Void in any other. */
  readonly epoch: number
  readonly serial: number
  readonly vids: readonly Vid[]
}

export interface RecyclingQuestion {
  /** Of the sender's step everybody has to have performed; 0: of none. */
  readonly serial: number
  readonly vids: readonly Vid[]
}

export function recyclingMessage({ step, epoch, serial, vids }: RecyclingStep): [Buffer, Buffer] {
  const payload = encodeVids(vids)
  const start = { opcode: Op.NOTIFY_VDI_DEL, flags: Flag.WRITE, dataLength: payload.length }
  const head = plainRequest(start)
  head.writeUInt32LE(STEPS[step], 16)
  head.writeUInt32LE(epoch, 20)
  head.writeUInt32LE(serial, 24)
  return [head, payload]
}

/** True for what only nodes say to each other, in the order of events. */
export function isRecycling({ head }: Frame): boolean {
  return head.readUInt32LE(16) !== 0
}

/** Undefined for what is none, or makes no sense. */
export function decodeRecycling({ head, body }: Frame): RecyclingStep | undefined {
  const number = head.readUInt32LE(16)
  const step = number === STEPS.erase ? 'erase' : number === STEPS.free ? 'free' : undefined
  const vids = decodeVids(body)
  if (step === undefined || vids === undefined) return undefined
  return { step, epoch: head.readUInt32LE(20), serial: head.readUInt32LE(24), vids }
}

export function recyclingQuestion({ serial, vids }: RecyclingQuestion): [Buffer, Buffer] {
  const payload = encodeVids(vids)
  const start = { opcode: Op.RECYCLE_VIDS, flags: Flag.WRITE, dataLength: payload.length }
  const head = plainRequest(start)
  head.writeUInt32LE(serial, 16)
  return [head, payload]
}

export function decodeRecyclingQuestion({ head, body }: Frame): RecyclingQuestion | undefined {
  const vids = decodeVids(body)
  return vids === undefined ? undefined : { serial: head.readUInt32LE(16), vids }
}

function encodeVids(vids: readonly Vid[]): Buffer {
  const bytes = Buffer.alloc(vids.length * VID_BYTES)
  vids.forEach((vid, i) => {
    bytes.writeUInt32LE(vid, i * VID_BYTES)
  })
  return bytes
}

function decodeVids(bytes: Buffer): Vid[] | undefined {
  const count = bytes.length / VID_BYTES
  if (!Number.isInteger(count) || count === 0 || count > RECYCLED_MAX) return undefined
  const vids = Array.from({ length: count }, (_, i) => bytes.readUInt32LE(i * VID_BYTES))
  return vids.every((vid) => vid > 0 && vid < VID_LIMIT) ? vids.map(asVid) : undefined
}
