/** What every node keeps in memory of a volume (protocol spec, section 10.1, vdi_state). */
import { addressBytes, addressText, type NodeKey, nodeKey } from './node.js'
import { asVid, type Vid } from './oid.js'

export const VDI_STATE_BYTES = 1428
const NODE_ID_BYTES = 40
const DOOR_OFFSET = 9
/** Bits of that byte. */
const DOOR = 1
const ANNOUNCED = 2
const HEARSAY = 4
const LEAST_OFFSET = 10
const FORMER_OFFSET = 11
/** Second address of the owner's node_id: nobody's identity, so 1.0 does not look at it. */
const FORMER_NODE_OFFSET = 38
/** Pad of a participant's node_id. */
const HANDED_OFFSET = 36
/** Who may cache the volume: in the second addresses and the pad of the first two participants' node_ids. */
const CACHE_MARK_OFFSET = 188 + 38
const CACHE_HOLDER_OFFSET = 188 + 18
/** Ours: in the second address of the third participant's node_id. */
const HOLDER_OFFSET = 188 + 2 * NODE_ID_BYTES + 18
const CACHE_TERM_OFFSET = 188 + NODE_ID_BYTES + 18

/** 1 unlocked, 2 locked by one, 3 shared (multipath). */
export type LockState = 'unlocked' | 'locked' | 'shared'
/** Inode coherence of a participant (protocol spec, section 13). */
export type Coherence = 'modified' | 'shared' | 'invalidated'

export interface NodeId {
  readonly host: string
  readonly port: number
}

export interface Participant {
  readonly node: NodeId
  readonly coherence: Coherence
  /** It holds this since a snapshot was taken of what it had locked, and will ask for it when it notices. */
  readonly handed?: true
}

/** A daemon that died while clients of it held the volume. They may be alive, and come back without asking. */
export interface Former {
  readonly node: NodeId
  /** Somebody else has had the volume since: what those clients remember of it is wrong. */
  readonly ousted: boolean
}

export interface VdiLock {
  readonly state: LockState
  /** Of a normal lock: the daemon that took it. */
  readonly owner: NodeId | undefined
  /** Taken by a block door of its owner: ends with the owner, and guards against deletion. */
  readonly door: boolean
  readonly participants: readonly Participant[]
  readonly former?: Former
  /** The name whoever has it, or had it last, gave himself; `NAMELESS` without; absent: nobody since the cluster runs. */
  readonly holder?: number
}

/** A holder that did not say who it is. Names are larger. */
export const NAMELESS = 1

export interface VdiState {
  readonly vid: Vid
  readonly copies: number
  /** The fewest it has had since everybody had everything; absent when that is `copies`. */
  readonly leastCopies?: number
  readonly policy: number
  readonly blockSizeShift: number
  readonly snapshot: boolean
  readonly deleted: boolean
  readonly parent: Vid
  readonly lock: VdiLock
}

export const UNLOCKED: VdiLock = {
  state: 'unlocked',
  owner: undefined,
  door: false,
  participants: [],
}

const LOCK_NUMBERS: Record<LockState, number> = { unlocked: 1, locked: 2, shared: 3 }
const COHERENCE_NUMBERS: Record<Coherence, number> = { modified: 1, shared: 2, invalidated: 3 }
const PARTICIPANTS_MAX = 31

export function sameNode(a: NodeId, b: NodeId): boolean {
  return a.port === b.port && a.host === b.host
}

export function nodeIdKey(id: NodeId): NodeKey {
  return nodeKey(id)
}

function writeNodeId(into: Buffer, at: number, id: NodeId): void {
  addressBytes(id.host).copy(into, at)
  into.writeUInt16LE(id.port, at + 16)
}

function readNodeId(from: Buffer, at: number): NodeId {
  return { host: addressText(from.subarray(at, at + 16)), port: from.readUInt16LE(at + 16) }
}

export function encodeVdiState(state: VdiState): Buffer {
  const bytes = Buffer.alloc(VDI_STATE_BYTES)
  bytes.writeUInt32LE(state.vid, 0)
  bytes[4] = state.copies
  bytes[5] = state.snapshot ? 1 : 0
  bytes[6] = state.deleted ? 1 : 0
  bytes[7] = state.policy
  bytes[8] = state.blockSizeShift
  // Pad bytes of sheepdog 1.0's record, which never reads them.
  bytes[DOOR_OFFSET] = state.lock.door ? DOOR : 0
  bytes[LEAST_OFFSET] = state.leastCopies ?? 0
  bytes.writeUInt32LE(state.parent, 12)
  bytes.writeUInt32LE(LOCK_NUMBERS[state.lock.state], 16)
  if (state.lock.owner !== undefined) writeNodeId(bytes, 20, state.lock.owner)
  const { former } = state.lock
  if (former !== undefined) {
    bytes[FORMER_OFFSET] = former.ousted ? 2 : 1
    writeNodeId(bytes, FORMER_NODE_OFFSET, former.node)
  }
  bytes.writeUInt32LE(state.lock.holder ?? 0, HOLDER_OFFSET)
  bytes.writeUInt32LE(state.lock.participants.length, 60)
  state.lock.participants.forEach((participant, i) => {
    bytes.writeUInt32LE(COHERENCE_NUMBERS[participant.coherence], 64 + 4 * i)
    writeNodeId(bytes, 188 + NODE_ID_BYTES * i, participant.node)
    if (participant.handed === true) bytes[188 + NODE_ID_BYTES * i + HANDED_OFFSET] = 1
  })
  return bytes
}

/** Marks a volume that is being created: it has been announced, and does not exist yet. */
export function markAnnounced(record: Buffer): void {
  record[DOOR_OFFSET]! |= ANNOUNCED
}

export function isAnnounced(from: Buffer, at = 0): boolean {
  return (from[at + DOOR_OFFSET]! & ANNOUNCED) !== 0
}

/** Marks a volume the sender knows from a note or a stale inode only. */
export function markHearsay(record: Buffer): void {
  record[DOOR_OFFSET]! |= HEARSAY
}

export function isHearsay(from: Buffer, at = 0): boolean {
  return (from[at + DOOR_OFFSET]! & HEARSAY) !== 0
}

/** Who alone may cache a volume's objects; `term` grows with each right a node takes. */
export interface CacheRight extends NodeId {
  readonly term: number
}

/** Puts the right to cache the volume into its record. */
export function writeCacheRight(record: Buffer, right: CacheRight): void {
  record[CACHE_MARK_OFFSET] = 1
  writeNodeId(record, CACHE_HOLDER_OFFSET, right)
  record.writeBigUInt64LE(BigInt(right.term), CACHE_TERM_OFFSET)
}

/** Throws RangeError on a term no node gives. */
export function readCacheRight(from: Buffer, at = 0): CacheRight | undefined {
  if (from[at + CACHE_MARK_OFFSET] !== 1) return undefined
  const term = from.readBigUInt64LE(at + CACHE_TERM_OFFSET)
  if (term > BigInt(Number.MAX_SAFE_INTEGER)) throw new RangeError(`term ${term} of a cache`)
  return { ...readNodeId(from, at + CACHE_HOLDER_OFFSET), term: Number(term) }
}

function nameOf<Name extends string>(
  numbers: Record<Name, number>,
  value: number,
): Name | undefined {
  return (Object.keys(numbers) as Name[]).find((name) => numbers[name] === value)
}

/** Throws RangeError on numbers that mean nothing. */
export function decodeVdiState(from: Buffer, at = 0): VdiState {
  const count = from.readUInt32LE(at + 60)
  if (count > PARTICIPANTS_MAX) throw new RangeError(`vdi_state with ${count} participants`)
  const state = nameOf(LOCK_NUMBERS, from.readUInt32LE(at + 16)) ?? 'unlocked'
  const participants = Array.from({ length: count }, (_, i): Participant => {
    const coherence = nameOf(COHERENCE_NUMBERS, from.readUInt32LE(at + 64 + 4 * i))
    if (coherence === undefined) throw new RangeError('vdi_state with an unknown coherence')
    const slot = at + 188 + NODE_ID_BYTES * i
    const handed = from[slot + HANDED_OFFSET] === 1
    return { coherence, node: readNodeId(from, slot), ...(handed && { handed }) }
  })
  const former = from[at + FORMER_OFFSET]!
  const holder = from.readUInt32LE(at + HOLDER_OFFSET)
  const leastCopies = from[at + LEAST_OFFSET]!
  return {
    vid: asVid(from.readUInt32LE(at)),
    copies: from[at + 4]!,
    ...(leastCopies > 0 && { leastCopies }),
    snapshot: from[at + 5] !== 0,
    deleted: from[at + 6] !== 0,
    policy: from[at + 7]!,
    blockSizeShift: from[at + 8]!,
    parent: asVid(from.readUInt32LE(at + 12)),
    lock: {
      state,
      owner: state === 'locked' ? readNodeId(from, at + 20) : undefined,
      door: (from[at + DOOR_OFFSET]! & DOOR) !== 0,
      participants,
      ...(holder > 0 && { holder }),
      ...((former === 1 || former === 2) && {
        former: { node: readNodeId(from, at + FORMER_NODE_OFFSET), ousted: former === 2 },
      }),
    },
  }
}
