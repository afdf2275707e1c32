/**
 * Ids of deleted volumes become free again (sheep/recycling.ts), in clusters formatted with RECYCLE_VID.
 *
 *   NOTIFY_VDI_DEL   16 step u32: 1 erase, 2 free | 20 epoch u32 | 24 serial u32 | payload: volume ids u32 each
 *   RECYCLE_VIDS     16 serial u32, 0: none | payload: volume ids u32 each
 *
 *   RECYCLE_NOW      reply: 24 ids freed u32; in the body, of ids that stay taken as far as there is room:
 *                    vid u32 | ids u32 | why u16 | length of who u16 | who
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
const KEPT_BYTES = 12
const KEPT_ROOM_BYTES = 64 * 1024
const WHO_BYTES_MAX = 1024

/**
 * left: their objects are still being removed; away: nodes are that may have something of them (none named: nobody knows who);
 * refused: a client of a node may remember them; not-yet: a node is busy, or its clients may still come back;
 * behind: ids in use are looked for behind them.
 */
const REASONS = ['left', 'away', 'refused', 'not-yet', 'behind'] as const

/** Ids of deleted volumes that stay taken: so many of what `vid` shares its origin with. */
export interface KeptIds {
  readonly vid: Vid
  readonly ids: number
  readonly why: (typeof REASONS)[number]
  /** Nodes, with spaces between. */
  readonly who: string
}

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

export function recycleNowRequest(): Buffer {
  return plainRequest({ opcode: Op.RECYCLE_NOW, dataLength: KEPT_ROOM_BYTES })
}

export function setFreed(head: Buffer, freed: number): void {
  head.writeUInt32LE(freed, 24)
}

export function freedOf({ head }: Frame): number {
  return head.readUInt32LE(24)
}

/** As many as there is room for. */
export function encodeKept(kept: readonly KeptIds[], roomBytes: number): Buffer {
  const records: Buffer[] = []
  let room = roomBytes
  for (const { vid, ids, why, who } of kept) {
    const text = Buffer.from(who, 'latin1').subarray(0, WHO_BYTES_MAX)
    const record = Buffer.alloc(KEPT_BYTES + text.length)
    record.writeUInt32LE(vid, 0)
    record.writeUInt32LE(ids, 4)
    record.writeUInt16LE(REASONS.indexOf(why), 8)
    record.writeUInt16LE(text.length, 10)
    text.copy(record, KEPT_BYTES)
    room -= record.length
    if (room < 0) break
    records.push(record)
  }
  return Buffer.concat(records)
}

/** Undefined: that is no such list. */
export function decodeKept(body: Buffer): KeptIds[] | undefined {
  const kept: KeptIds[] = []
  for (let at = 0; at < body.length; ) {
    if (body.length - at < KEPT_BYTES) return undefined
    const [vid, ids] = [body.readUInt32LE(at), body.readUInt32LE(at + 4)]
    const why = REASONS[body.readUInt16LE(at + 8)]
    const end = at + KEPT_BYTES + body.readUInt16LE(at + 10)
    if (why === undefined || vid === 0 || vid >= VID_LIMIT || end > body.length) return undefined
    const who = body.subarray(at + KEPT_BYTES, end).toString('latin1')
    if (!/^[\w.:[\] -]*$/.test(who)) return undefined
    kept.push({ vid: asVid(vid), ids, why, who })
    at = end
  }
  return kept
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
