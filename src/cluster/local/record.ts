/**
 * Bytes of the event log.
 *
 *   record:  length u32 | crc32 u32 | seq u64 | sender u64 | kind u8 | payload      little endian
 *
 * `length` counts the payload; the checksum covers everything after itself. A segment file starts with
 * a snapshot record (the whole state) and goes on with the records after it. Decoding never trusts a
 * length: what does not fit, does not check or has the wrong number is "not there (yet)".
 */
import { crc32 } from '../../base/crc32.js'
import { LIMITS } from '../../base/limits.js'
import { decodeNode, encodeNode, NODE_BYTES, type SdNode } from '../../model/node.js'
import {
  BLOCKS_MAX,
  type ClusterRecord,
  type ClusterState,
  type Entry,
  JOIN_BYTES_MAX,
  type Member,
  type MemberId,
  REASON_BYTES_MAX,
} from '../membership.js'

const HEADER_BYTES = 25
const CHECKED_FROM = 8
/** Bytes of a member in a snapshot: id, mark, node. */
const MEMBER_BYTES = 16 + NODE_BYTES
const PAYLOAD_BYTES_MAX =
  64 + (LIMITS.nodesMax + 1) * MEMBER_BYTES + JOIN_BYTES_MAX + BLOCKS_MAX * 8
const MAGIC = Buffer.from('sheepdog events 1\n')

const KINDS = {
  snapshot: 0,
  join: 1,
  accept: 2,
  leave: 3,
  notify: 4,
  block: 5,
  unblock: 6,
  update: 7,
  mark: 8,
  decline: 9,
} as const

interface Frame {
  readonly seq: number
  readonly sender: number
  readonly kind: number
  readonly payload: Buffer
  /** Bytes of the whole record. */
  readonly bytes: number
}

/** A decoded record and the bytes it took. */
export interface Decoded<Value> {
  readonly value: Value
  readonly bytes: number
}

export function encodeRecord(record: ClusterRecord): Buffer {
  const [kind, payload] = encodeEntry(record.entry)
  return encodeFrame(record.seq, record.sender, kind, payload)
}

/** The record at `at` of `from`; undefined when it is torn, absent or not number `seq`. */
export function decodeRecord(
  from: Buffer,
  at: number,
  seq: number,
): Decoded<ClusterRecord> | undefined {
  const frame = decodeFrame(from, at)
  if (frame === undefined || frame.seq !== seq || frame.kind === KINDS.snapshot) return undefined
  const value = { seq, sender: frame.sender as MemberId, entry: decodeEntry(frame) }
  return { value, bytes: frame.bytes }
}

/** The same state gives the same bytes on every member: compared to prove that they agree. */
export function encodeSnapshot(state: ClusterState): Buffer {
  const joining = state.joining === undefined ? [] : [state.joining]
  const counts = Buffer.alloc(12)
  counts.writeUInt32LE(state.members.length, 0)
  counts.writeUInt32LE(joining.length, 4)
  counts.writeUInt32LE(state.blocks.length, 8)
  const payload = Buffer.concat([
    MAGIC,
    counts,
    ...[...state.members, ...joining].map(encodeMember),
    ...state.blocks.map(u64),
    ...joining.map((one) => one.request),
  ])
  return encodeFrame(state.nextSeq, 0, KINDS.snapshot, payload)
}

/** The snapshot a segment starts with; undefined when it is not complete. */
export function decodeSnapshot(from: Buffer): Decoded<ClusterState> | undefined {
  const frame = decodeFrame(from, 0)
  if (frame?.kind !== KINDS.snapshot) return undefined
  const { payload } = frame
  const start = MAGIC.length + 12
  if (payload.length < start || !payload.subarray(0, MAGIC.length).equals(MAGIC)) return undefined
  const members = payload.readUInt32LE(MAGIC.length)
  const joiners = payload.readUInt32LE(MAGIC.length + 4)
  const blocks = payload.readUInt32LE(MAGIC.length + 8)
  if (members > LIMITS.nodesMax || joiners > 1 || blocks > BLOCKS_MAX) return undefined
  const blocksAt = start + (members + joiners) * MEMBER_BYTES
  const requestAt = blocksAt + blocks * 8
  if (payload.length < requestAt) return undefined
  const everybody = sequence(members + joiners, (i) =>
    decodeMember(payload, start + i * MEMBER_BYTES),
  )
  const joiner = everybody[members]
  const value: ClusterState = {
    nextSeq: frame.seq,
    members: everybody.slice(0, members),
    joining:
      joiner === undefined ? undefined : { ...joiner, request: copy(payload.subarray(requestAt)) },
    blocks: sequence(blocks, (i) => readU64(payload, blocksAt + 8 * i) as MemberId),
  }
  return { value, bytes: frame.bytes }
}

function encodeFrame(seq: number, sender: number, kind: number, payload: Buffer): Buffer {
  const frame = Buffer.alloc(HEADER_BYTES + payload.length)
  frame.writeUInt32LE(payload.length, 0)
  frame.writeBigUInt64LE(BigInt(seq), 8)
  frame.writeBigUInt64LE(BigInt(sender), 16)
  frame[24] = kind
  payload.copy(frame, HEADER_BYTES)
  frame.writeUInt32LE(crc32(frame.subarray(CHECKED_FROM)), 4)
  return frame
}

function decodeFrame(from: Buffer, at: number): Frame | undefined {
  if (from.length - at < HEADER_BYTES) return undefined
  const length = from.readUInt32LE(at)
  if (length > PAYLOAD_BYTES_MAX || from.length - at - HEADER_BYTES < length) return undefined
  const bytes = HEADER_BYTES + length
  if (crc32(from.subarray(at + CHECKED_FROM, at + bytes)) !== from.readUInt32LE(at + 4)) {
    return undefined
  }
  return {
    seq: readU64(from, at + 8),
    sender: readU64(from, at + 16),
    kind: from[at + 24] ?? 0,
    payload: from.subarray(at + HEADER_BYTES, at + bytes),
    bytes,
  }
}

function encodeEntry(entry: Entry): [number, Buffer] {
  switch (entry.kind) {
    case 'join':
      return [KINDS.join, Buffer.concat([u64(entry.mark), encodeNode(entry.node), entry.request])]
    case 'accept':
      return [KINDS.accept, Buffer.concat([u64(entry.joiner), entry.answer])]
    case 'decline': {
      const reason = Buffer.from(entry.reason).subarray(0, REASON_BYTES_MAX)
      return [KINDS.decline, Buffer.concat([u64(entry.joiner), reason])]
    }
    case 'leave':
      return [KINDS.leave, u64(entry.member)]
    case 'notify':
      return [KINDS.notify, entry.message]
    case 'block':
      return [KINDS.block, Buffer.alloc(0)]
    case 'unblock':
      return [KINDS.unblock, entry.message]
    case 'update':
      return [KINDS.update, encodeNode(entry.node)]
    case 'mark':
      return [KINDS.mark, u64(entry.mark)]
    case 'unknown':
      throw new RangeError('a record of unknown kind cannot be written')
  }
}

/** Payloads are copied: a message is the receiver's to keep, the read buffer is not. */
function decodeEntry({ kind, payload }: Frame): Entry {
  switch (kind) {
    case KINDS.join:
      if (payload.length < 8 + NODE_BYTES) break
      return {
        kind: 'join',
        mark: readU64(payload, 0),
        node: decodeNode(payload, 8),
        request: copy(payload.subarray(8 + NODE_BYTES)),
      }
    case KINDS.accept:
      if (payload.length < 8) break
      return {
        kind: 'accept',
        joiner: readU64(payload, 0) as MemberId,
        answer: copy(payload.subarray(8)),
      }
    case KINDS.decline:
      if (payload.length < 8) break
      return {
        kind: 'decline',
        joiner: readU64(payload, 0) as MemberId,
        reason: payload.toString('utf8', 8),
      }
    case KINDS.leave:
      if (payload.length < 8) break
      return { kind: 'leave', member: readU64(payload, 0) as MemberId }
    case KINDS.notify:
      return { kind: 'notify', message: copy(payload) }
    case KINDS.block:
      return { kind: 'block' }
    case KINDS.unblock:
      return { kind: 'unblock', message: copy(payload) }
    case KINDS.update:
      if (payload.length < NODE_BYTES) break
      return { kind: 'update', node: decodeNode(payload) }
    case KINDS.mark:
      if (payload.length < 8) break
      return { kind: 'mark', mark: readU64(payload, 0) }
  }
  return { kind: 'unknown' }
}

function encodeMember(member: Member): Buffer {
  return Buffer.concat([u64(member.id), u64(member.mark), encodeNode(member.node)])
}

function decodeMember(from: Buffer, at: number): Member {
  const node: SdNode = decodeNode(from, at + 16)
  return { id: readU64(from, at) as MemberId, mark: readU64(from, at + 8), node }
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

/** Numbers above 2^53 cannot come from us; they lose precision and so match nothing. */
function readU64(from: Buffer, at: number): number {
  return Number(from.readBigUInt64LE(at))
}

function copy(bytes: Buffer): Buffer {
  return Buffer.from(bytes)
}

function sequence<Value>(count: number, make: (i: number) => Value): Value[] {
  return Array.from({ length: count }, (_, i) => make(i))
}
