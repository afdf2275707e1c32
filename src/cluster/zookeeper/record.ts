/**
 * What stands in a queue node: one event of the cluster (cluster spec, section 10.3; little endian).
 *
 *   id u64 | type u32@8 | links 40 B@16 | sd_node 80 B@56 | flags@136 | msg_len u64@144 | nodes u64@152
 *   | buf_len u64@160 | payload@168
 *
 * The links are memory of sheepdog 1.0's sender that nobody reads. Ours hold a note there, and 1.0 does not
 * look: exact lengths, who waits for a BLOCK, which life of a member a LEAVE means.
 *
 *   note: magic u32@16 | type u32@20 | length u32@24 | blocks u32@28 | position u32@32
 */
import { LIMITS } from '../../base/limits.js'
import { decodeNode, decodeNodes, encodeNode, NODE_BYTES, type SdNode } from '../../model/node.js'
import type { Entry } from '../membership.js'

export const EventType = {
  JOIN: 1,
  ACCEPT: 2,
  LEAVE: 3,
  BLOCK: 4,
  UNBLOCK: 5,
  NOTIFY: 6,
  UPDATE_NODE: 7,
} as const

export const EVENT_HEAD_BYTES = 168
/** The ensemble's own limit for a node (jute.maxbuffer), with room for the request around it. */
export const EVENT_BYTES_MAX = 1024 * 1024 - 1024
const CLUSTER_INFO_HEAD_BYTES = 48
const NOTE_MAGIC = 0x53445453
const NODE_OFFSET = 56
/** A join has room for this many nodes at least: an answer of sheepdog 1.0 must fit. */
const JOIN_SLOTS = 256
const BLOCK_BYTES = 2
const POSITION_BYTES = 4
const REASON_CHARS_MAX = 1024

export interface EventRecord {
  readonly id: bigint
  readonly type: number
  readonly sender: SdNode
  readonly body: Buffer
}

export interface JoinRecord extends EventRecord {
  readonly request: Buffer
  /** Length of the part for the cluster information, as its sender set it up. */
  readonly room: number
  readonly totalBytes: number
  /** A node of sheepdog 1.0 asks: it understands an ACCEPT and nothing else. */
  readonly isOld: boolean
}

/** A member as an answer to a join names it. */
export interface ListedMember {
  readonly node: SdNode
  /** Queue position of its JOIN; 0 when a node of sheepdog 1.0 answered and did not tell. */
  readonly joinedAt: number
}

export interface AcceptRecord extends EventRecord {
  readonly answer: Buffer
  /** Without the joiner. */
  readonly members: readonly ListedMember[]
  /** Indexes of `members` whose BLOCKs wait, oldest first; undefined when sheepdog 1.0 answered. */
  readonly blocks: readonly number[] | undefined
}

export interface LeaveRecord extends EventRecord {
  /** It means a member that joined before this position; undefined: whoever is in. */
  readonly before: number | undefined
}

interface Note {
  readonly length?: number
  readonly blocks?: number
  readonly position?: number
}

interface Head {
  readonly id: bigint
  readonly type: number
  readonly sender: SdNode
  readonly room?: number
  readonly nodes?: number
  readonly note?: Note
}

function encode(head: Head, payload: Buffer): Buffer {
  const bytes = EVENT_HEAD_BYTES + payload.length
  if (bytes > EVENT_BYTES_MAX) {
    throw new RangeError(`a cluster event of ${bytes} bytes, ZooKeeper takes ${EVENT_BYTES_MAX}`)
  }
  const at = Buffer.alloc(EVENT_HEAD_BYTES)
  at.writeBigUInt64LE(head.id, 0)
  at.writeUInt32LE(head.type, 8)
  if (head.note !== undefined) {
    at.writeUInt32LE(NOTE_MAGIC, 16)
    at.writeUInt32LE(head.type, 20)
    at.writeUInt32LE(head.note.length ?? 0, 24)
    at.writeUInt32LE(head.note.blocks ?? 0, 28)
    at.writeUInt32LE(head.note.position ?? 0, 32)
  }
  encodeNode(head.sender, at, NODE_OFFSET)
  at.writeBigUInt64LE(BigInt(head.room ?? 0), 144)
  at.writeBigUInt64LE(BigInt(head.nodes ?? 0), 152)
  at.writeBigUInt64LE(BigInt(payload.length), 160)
  return Buffer.concat([at, payload])
}

/** NOTIFY, UNBLOCK (with a message), BLOCK, UPDATE_NODE (without). */
export function encodeEvent(event: EventRecord): Buffer {
  return encode(event, event.body)
}

/** What a member says of itself; joins and leaves have records of their own. */
export function encodeEntry(id: bigint, sender: SdNode, entry: Entry): Buffer {
  const none = Buffer.alloc(0)
  switch (entry.kind) {
    case 'notify':
      return encodeEvent({ id, type: EventType.NOTIFY, sender, body: entry.message })
    case 'unblock':
      return encodeEvent({ id, type: EventType.UNBLOCK, sender, body: entry.message })
    case 'block':
      return encodeEvent({ id, type: EventType.BLOCK, sender, body: none })
    case 'update':
      return encodeEvent({ id, type: EventType.UPDATE_NODE, sender: entry.node, body: none })
    default:
      throw new Error(`a ${entry.kind} is not sent this way`)
  }
}

export function encodeLeave(id: bigint, node: SdNode, before: number): Buffer {
  const head = { id, type: EventType.LEAVE, sender: node, note: { position: before } }
  return encode(head, Buffer.alloc(0))
}

/** `members`: how many there seem to be; the answer has to hold them all. */
export function encodeJoin(id: bigint, self: SdNode, request: Buffer, members: number): Buffer {
  const slots = Math.min(LIMITS.nodesMax, JOIN_SLOTS * Math.ceil((2 * members + 1) / JOIN_SLOTS))
  const room = Math.max(CLUSTER_INFO_HEAD_BYTES + NODE_BYTES * slots, request.length)
  const payload = Buffer.alloc(room + NODE_BYTES * slots)
  request.copy(payload)
  const note = { length: request.length }
  return encode({ id, type: EventType.JOIN, sender: self, room, note }, payload)
}

export interface Answer {
  readonly answer: Buffer
  readonly members: readonly ListedMember[]
  readonly blocks: readonly number[]
}

/**
 * The JOIN rewritten as its ACCEPT: lengths as the joiner chose them, longer only when they do not suffice.
 * What is ours stands behind the members and is left out where a JOIN of sheepdog 1.0 has no room for it.
 */
export function encodeAccept(join: JoinRecord, { answer, members, blocks }: Answer): Buffer {
  const room = Math.max(join.room, answer.length)
  const listEnd = room + NODE_BYTES * members.length
  const noteEnd = listEnd + POSITION_BYTES * members.length + BLOCK_BYTES * blocks.length
  const fits = noteEnd <= EVENT_BYTES_MAX - EVENT_HEAD_BYTES
  const asked = join.totalBytes - EVENT_HEAD_BYTES
  const payload = Buffer.alloc(Math.max(asked, fits ? noteEnd : listEnd))
  answer.copy(payload)
  members.forEach(({ node }, i) => {
    encodeNode(node, payload, room + NODE_BYTES * i)
  })
  if (fits) {
    members.forEach(({ joinedAt }, i) => {
      payload.writeUInt32LE(joinedAt, listEnd + POSITION_BYTES * i)
    })
    const blocksAt = listEnd + POSITION_BYTES * members.length
    blocks.forEach((index, i) => {
      payload.writeUInt16LE(index, blocksAt + BLOCK_BYTES * i)
    })
  }
  const head = { id: join.id, type: EventType.ACCEPT, sender: join.sender, room }
  const note = { length: answer.length, blocks: blocks.length }
  return encode({ ...head, nodes: members.length, ...(fits && { note }) }, payload)
}

/** A JOIN that is turned away, rewritten as what everybody passes by: the leave of nobody. */
export function encodeDecline(join: JoinRecord, reason: string): Buffer {
  const head = { id: join.id, type: EventType.LEAVE, sender: join.sender, note: { position: 0 } }
  return encode(head, Buffer.from(reason.slice(0, REASON_CHARS_MAX), 'utf8'))
}

/** Undefined for bytes that are no event of a kind and shape we know. */
export function decodeEvent(
  data: Buffer,
): JoinRecord | AcceptRecord | LeaveRecord | EventRecord | undefined {
  if (data.length < EVENT_HEAD_BYTES) return undefined
  const type = data.readUInt32LE(8)
  const length = data.readBigUInt64LE(160)
  if (length > BigInt(data.length - EVENT_HEAD_BYTES)) return undefined
  const body = data.subarray(EVENT_HEAD_BYTES, EVENT_HEAD_BYTES + Number(length))
  const event = {
    id: data.readBigUInt64LE(0),
    type,
    sender: decodeNode(data, NODE_OFFSET),
    body,
  }
  const hasNote = data.readUInt32LE(16) === NOTE_MAGIC && data.readUInt32LE(20) === type
  switch (type) {
    case EventType.JOIN:
      return decodeJoin(data, event, hasNote)
    case EventType.ACCEPT:
      return decodeAccept(data, event, hasNote)
    case EventType.LEAVE:
      return { ...event, before: hasNote ? data.readUInt32LE(32) : undefined }
    case EventType.BLOCK:
    case EventType.UNBLOCK:
    case EventType.NOTIFY:
    case EventType.UPDATE_NODE:
      return event
    default:
      return undefined
  }
}

/** Bytes of the part for the cluster information; undefined when it is longer than the payload. */
function roomOf(data: Buffer, body: Buffer): number | undefined {
  const room = data.readBigUInt64LE(144)
  return room > BigInt(body.length) ? undefined : Number(room)
}

function decodeJoin(data: Buffer, event: EventRecord, hasNote: boolean): JoinRecord | undefined {
  const room = roomOf(data, event.body)
  if (room === undefined) return undefined
  const length = hasNote ? data.readUInt32LE(24) : room
  if (length > room) return undefined
  const request = event.body.subarray(0, length)
  return { ...event, request, room, totalBytes: data.length, isOld: !hasNote }
}

function decodeAccept(
  data: Buffer,
  event: EventRecord,
  hasNote: boolean,
): AcceptRecord | undefined {
  const { body } = event
  const room = roomOf(data, body)
  const count = Number(data.readBigUInt64LE(152))
  if (room === undefined || count > LIMITS.nodesMax) return undefined
  const listEnd = room + NODE_BYTES * count
  if (listEnd > body.length) return undefined
  const nodes = decodeNodes(body, count, room)
  if (!hasNote) {
    const members = nodes.map((node) => ({ node, joinedAt: 0 }))
    return { ...event, answer: body.subarray(0, room), members, blocks: undefined }
  }
  const length = data.readUInt32LE(24)
  const waiting = data.readUInt32LE(28)
  const blocksAt = listEnd + POSITION_BYTES * count
  if (length > room || blocksAt + BLOCK_BYTES * waiting > body.length) return undefined
  const members = nodes.map((node, i) => ({
    node,
    joinedAt: body.readUInt32LE(listEnd + POSITION_BYTES * i),
  }))
  const blocks = Array.from({ length: waiting }, (_, i) =>
    body.readUInt16LE(blocksAt + BLOCK_BYTES * i),
  )
  if (blocks.some((index) => index >= count)) return undefined
  return { ...event, answer: body.subarray(0, length), members, blocks }
}

/** A node in names and in the data of /master (cluster spec, section 3.2). */
export function nodeText(node: Pick<SdNode, 'host' | 'port'>): string {
  return `${node.host.includes(':') ? 'IPv6' : 'IPv4'} ip:${node.host} port:${node.port}`
}
