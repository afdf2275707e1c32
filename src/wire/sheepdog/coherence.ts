/**
 * INODE_COHERENCE, and what hangs on it (protocol spec, sections 2.1 and 13).
 *
 *   INODE_COHERENCE   16 volume id u32 | 20 u32: 1 validate, 0 invalidate | 24 serial u32, ours
 *   LOCK_VDI          40 serial u32, ours | 44 name of the holder u32, ours; the answer has the one before at 28
 *   FLUSH_NODES       16 inode oid u64 | 24 zero | 36 serial u32: the sender's message of that serial is waited for
 *
 * Sheepdog 1.0 looks at no serial; 0 means that there is none.
 */
import { asVid, inodeOid, type Vid } from '../../model/oid.js'
import type { Frame } from './frame.js'
import { Op } from './opcodes.js'
import { objectRequest, plainRequest } from './requests.js'

const LOCK_SERIAL_OFFSET = 40
const LOCK_HOLDER_OFFSET = 44

export interface Coherence {
  readonly vid: Vid
  readonly validate: boolean
  readonly serial: number
}

export function coherenceRequest({ vid, validate, serial }: Coherence): Buffer {
  const head = plainRequest({ opcode: Op.INODE_COHERENCE })
  head.writeUInt32LE(vid, 16)
  head.writeUInt32LE(validate ? 1 : 0, 20)
  head.writeUInt32LE(serial, 24)
  return head
}

export function decodeCoherence({ head }: Frame): Coherence {
  return {
    vid: asVid(head.readUInt32LE(16)),
    validate: head.readUInt32LE(20) !== 0,
    serial: head.readUInt32LE(24),
  }
}

export function setLockSerial(head: Buffer, serial: number): void {
  head.writeUInt32LE(serial, LOCK_SERIAL_OFFSET)
}

export function lockSerial({ head }: Frame): number {
  return head.readUInt32LE(LOCK_SERIAL_OFFSET)
}

/** Whoever asks for a door's lock over a connection names itself, and is told who had the volume before. */
export function setLockHolder(head: Buffer, holder: number): Buffer {
  head.writeUInt32LE(holder, LOCK_HOLDER_OFFSET)
  return head
}

export function lockHolder({ head }: Frame): number {
  return head.readUInt32LE(LOCK_HOLDER_OFFSET)
}

export interface Hearing {
  readonly vid: Vid
  readonly serial: number
}

export function hearingRequest({ vid, serial }: Hearing): Buffer {
  return objectRequest({ opcode: Op.FLUSH_NODES, oid: inodeOid(vid), targetEpoch: serial })
}
