/**
 * Messages of the group "sheepdog" (cluster spec, section 11): a fixed header, then the payload.
 *
 *     0 subject   nodeid u32, pid u32, sd_node 80        whom it is about; the sender but in an ACCEPT
 *    88 type u16 | members u16 | payload length u32
 *    96 1024 x 88 members, as subject                    in an ACCEPT, without the joiner, oldest first
 * 90208 payload
 *
 * Sheepdog 1.0 reads and writes a whole cluster_info in place, cut at 131072 bytes, so JOIN and ACCEPT carry
 * a payload of that size. What 1.0 has no field for stands in the last slot of the member list, which
 * it reads with 1024 members only (and then so do we):
 *
 *     0 "SDx3" | 4 true payload length u32 | 8 waiting BLOCKs u32 | 12 incarnation 8 | 20 settled u8 | 24 history u64
 *
 * (the incarnation, in a JOIN and the ACCEPT that answers it, tells a process from itself before it left and came back)
 * and the owners of these BLOCKs, oldest first, 8 bytes each, in the slots after the members. In 1.0 a joiner does not
 * know of them, and takes its own BLOCK for the active one while another is (C9).
 */
import { LIMITS } from '../../base/limits.js'
import { decodeNode, encodeNode, type SdNode } from '../../model/node.js'
import type { ProcessId } from '../../world/corosync.js'

/** Name of the group, as 1.0 has it. */
export const GROUP = 'sheepdog'
export const PAYLOAD_BYTES_MAX = LIMITS.clusterMessageBytesMax
export const HEADER_BYTES = 90208

const MEMBERS_OFFSET = 96
const SLOT_BYTES = 88
const SLOTS = 1024
const EXTRA_OFFSET = MEMBERS_OFFSET + (SLOTS - 1) * SLOT_BYTES
const SETTLED_OFFSET = EXTRA_OFFSET + 20
const HISTORY_OFFSET = EXTRA_OFFSET + 24
const EXTRA_MAGIC = Buffer.from('SDx3')
const OWNER_BYTES = 8
export const INCARNATION_BYTES = 8

/** The last slot is ours. */
export const MEMBERS_MAX = SLOTS - 1

const TYPES = ['join', 'accept', 'leave', 'notify', 'block', 'unblock', 'update'] as const
export type MessageType = (typeof TYPES)[number]

export interface Participant {
  readonly process: ProcessId
  readonly node: SdNode
}

export interface Message {
  readonly type: MessageType
  readonly subject: Participant
  /** Of an ACCEPT: who was in before. */
  readonly members: readonly Participant[]
  /** Of an ACCEPT: owners of the BLOCKs that wait. */
  readonly blocks: readonly ProcessId[]
  /** Of a JOIN and its ACCEPT: hexadecimal, unique to this attempt; empty when 1.0 sent it. */
  readonly incarnation: string
  /** Of an ACCEPT: its sender knew that all members shared its view of them (votes.ts). */
  readonly isSettled: boolean
  /** Of an ACCEPT: what its sender had seen when the joiner arrived (history.ts); 0 when 1.0 sent it. */
  readonly history: bigint
  readonly payload: Buffer
}

/** What most messages leave empty. */
export const PLAIN = {
  members: [],
  blocks: [],
  incarnation: '',
  isSettled: false,
  history: 0n,
  payload: Buffer.alloc(0),
} as const satisfies Partial<Message>

/** Messages it cannot be: RangeError. They are refused before anything is sent, never cut. */
export function encodeMessage(message: Message): Buffer[] {
  const { type, subject, members, blocks, payload } = message
  if (payload.length > PAYLOAD_BYTES_MAX) {
    const nodes = Math.floor((PAYLOAD_BYTES_MAX - 48) / 80)
    throw new RangeError(
      `${type} of ${payload.length} bytes: corosync messages hold ${PAYLOAD_BYTES_MAX}` +
        (type === 'join' || type === 'accept' ? ` (an epoch of ${nodes} nodes)` : ''),
    )
  }
  const ownersMax = Math.floor(((MEMBERS_MAX - members.length) * SLOT_BYTES) / OWNER_BYTES)
  if (members.length > MEMBERS_MAX || blocks.length > ownersMax) {
    throw new RangeError(`${type}: ${members.length} members, ${blocks.length} waiting operations`)
  }
  const isPadded = type === 'join' || type === 'accept'
  const header = Buffer.alloc(HEADER_BYTES)
  putParticipant(header, 0, subject)
  header.writeUInt16LE(TYPES.indexOf(type), 88)
  header.writeUInt16LE(members.length, 90)
  header.writeUInt32LE(isPadded ? PAYLOAD_BYTES_MAX : payload.length, 92)
  members.forEach((member, i) => {
    putParticipant(header, MEMBERS_OFFSET + i * SLOT_BYTES, member)
  })
  EXTRA_MAGIC.copy(header, EXTRA_OFFSET)
  header.writeUInt32LE(payload.length, EXTRA_OFFSET + 4)
  header.writeUInt32LE(blocks.length, EXTRA_OFFSET + 8)
  header.write(message.incarnation, EXTRA_OFFSET + 12, INCARNATION_BYTES, 'hex')
  header[SETTLED_OFFSET] = message.isSettled ? 1 : 0
  header.writeBigUInt64LE(message.history, HISTORY_OFFSET)
  const ownersAt = MEMBERS_OFFSET + members.length * SLOT_BYTES
  blocks.forEach((owner, i) => {
    putProcess(header, ownersAt + i * OWNER_BYTES, owner)
  })
  if (!isPadded) return payload.length === 0 ? [header] : [header, payload]
  const padded = Buffer.alloc(PAYLOAD_BYTES_MAX)
  payload.copy(padded)
  return [header, padded]
}

/** Throws RangeError on what is no message. `payload` shares memory with `bytes`. */
export function decodeMessage(bytes: Buffer): Message {
  if (bytes.length < HEADER_BYTES) throw new RangeError(`message of ${bytes.length} bytes`)
  const type = TYPES[bytes.readUInt16LE(88)]
  const count = bytes.readUInt16LE(90)
  const length = bytes.readUInt32LE(92)
  if (type === undefined) throw new RangeError(`message of type ${bytes.readUInt16LE(88)}`)
  if (count > SLOTS || length > PAYLOAD_BYTES_MAX || HEADER_BYTES + length > bytes.length) {
    throw new RangeError(`${type} with ${count} members and a payload of ${length} bytes`)
  }
  const hasExtra =
    count < SLOTS && bytes.subarray(EXTRA_OFFSET, EXTRA_OFFSET + 4).equals(EXTRA_MAGIC)
  const exact = hasExtra ? bytes.readUInt32LE(EXTRA_OFFSET + 4) : length
  if (exact > length) throw new RangeError(`${type} with ${exact} bytes in ${length}`)
  return {
    type,
    subject: takeParticipant(bytes, 0),
    members: Array.from({ length: count }, (_, i) =>
      takeParticipant(bytes, MEMBERS_OFFSET + i * SLOT_BYTES),
    ),
    blocks: hasExtra ? takeOwners(bytes, count) : [],
    incarnation: hasExtra
      ? bytes.toString('hex', EXTRA_OFFSET + 12, EXTRA_OFFSET + 12 + INCARNATION_BYTES)
      : '',
    isSettled: hasExtra && bytes[SETTLED_OFFSET] === 1,
    history: hasExtra ? bytes.readBigUInt64LE(HISTORY_OFFSET) : 0n,
    payload: bytes.subarray(HEADER_BYTES, HEADER_BYTES + exact),
  }
}

function takeOwners(bytes: Buffer, members: number): ProcessId[] {
  const count = bytes.readUInt32LE(EXTRA_OFFSET + 8)
  const from = MEMBERS_OFFSET + members * SLOT_BYTES
  if (from + count * OWNER_BYTES > EXTRA_OFFSET) throw new RangeError(`${count} BLOCKs wait`)
  return Array.from({ length: count }, (_, i) => takeProcess(bytes, from + i * OWNER_BYTES))
}

function putParticipant(into: Buffer, at: number, { process, node }: Participant): void {
  putProcess(into, at, process)
  encodeNode(node, into, at + 8)
}

function takeParticipant(from: Buffer, at: number): Participant {
  return { process: takeProcess(from, at), node: decodeNode(from, at + 8) }
}

export function putProcess(into: Buffer, at: number, { nodeId, pid }: ProcessId): void {
  into.writeUInt32LE(nodeId, at)
  into.writeUInt32LE(pid, at + 4)
}

export function takeProcess(from: Buffer, at: number): ProcessId {
  return { nodeId: from.readUInt32LE(at), pid: from.readUInt32LE(at + 4) }
}

/** For maps and for people. */
export type ProcessKey = string

export function processKey({ nodeId, pid }: ProcessId): ProcessKey {
  return `${nodeId}/${pid}`
}
