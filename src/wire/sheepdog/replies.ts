/** Response headers and their unions (protocol spec, section 3). */
import { asVid, type Vid } from '../../model/oid.js'
import { type Frame, HEADER_BYTES } from './frame.js'

export interface ReplyStart {
  readonly opcode: number
  readonly id: number
  readonly epoch: number
  readonly result: number
  readonly dataLength?: number
}

export interface VdiReply {
  readonly vid: Vid
  readonly attributeId: number
  readonly copies: number
  readonly blockSizeShift: number
}

export interface NodeReply {
  readonly nodes: number
  readonly storeBytes: number
  readonly freeBytes: number
  /** Ours, in padding: the node cannot be sure that it belongs to the living cluster, and serves nothing. */
  readonly unsure: boolean
}

export function replyHead(fields: ReplyStart): Buffer {
  const head = Buffer.alloc(HEADER_BYTES)
  head[1] = fields.opcode
  head.writeUInt32LE(fields.epoch, 4)
  head.writeUInt32LE(fields.id, 8)
  head.writeUInt32LE(fields.dataLength ?? 0, 12)
  head.writeUInt32LE(fields.result, 16)
  return head
}

export function setVdiReply(head: Buffer, reply: Partial<VdiReply>): Buffer {
  head.writeUInt32LE(reply.vid ?? 0, 24)
  head.writeUInt32LE(reply.attributeId ?? 0, 28)
  head[32] = reply.copies ?? 0
  head[33] = reply.blockSizeShift ?? 0
  return head
}

export function decodeVdiReply(frame: Frame): VdiReply {
  return {
    vid: asVid(frame.head.readUInt32LE(24)),
    attributeId: frame.head.readUInt32LE(28),
    copies: frame.head[32]!,
    blockSizeShift: frame.head[33]!,
  }
}

export function setNodeReply(head: Buffer, reply: Partial<NodeReply>): Buffer {
  head.writeUInt32LE(reply.nodes ?? 0, 20)
  head[24] = reply.unsure === true ? 1 : 0
  head.writeBigUInt64LE(BigInt(reply.storeBytes ?? 0), 32)
  head.writeBigUInt64LE(BigInt(reply.freeBytes ?? 0), 40)
  return head
}

export function decodeNodeReply(frame: Frame): NodeReply {
  return {
    nodes: frame.head.readUInt32LE(20),
    unsure: frame.head[24] === 1,
    storeBytes: Number(frame.head.readBigUInt64LE(32)),
    freeBytes: Number(frame.head.readBigUInt64LE(40)),
  }
}

export function setHashReply(head: Buffer, sha1: Buffer): Buffer {
  sha1.copy(head, 24, 0, 20)
  return head
}

export function decodeHashReply(frame: Frame): Buffer {
  return frame.head.subarray(24, 44)
}

export interface ClusterDefault {
  readonly copies: number
  readonly policy: number
  readonly blockSizeShift: number
}

export function setClusterDefault(head: Buffer, reply: ClusterDefault): Buffer {
  head[20] = reply.copies
  head[21] = reply.policy
  head[22] = reply.blockSizeShift
  return head
}

export function decodeClusterDefault(frame: Frame): ClusterDefault {
  return { copies: frame.head[20]!, policy: frame.head[21]!, blockSizeShift: frame.head[22]! }
}
