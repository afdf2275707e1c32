/**
 * Messages about the object cache. Those of 0.9 are GET_CACHE_INFO, CACHE_PURGE and DELETE_CACHE (cluster spec,
 * section 16).
 *
 * Ours are about the right to cache a volume. What all nodes must learn in order travels as a DELETE_CACHE, which
 * sheepdog 1.0 performs by doing nothing, with a mark where it looks for nothing (a number it does not know would kill it):
 *
 *   DELETE_CACHE   obj.oid = inode oid | cow_oid = 0x7269676874000000 + what happens to the right | term u64@32
 *
 * What nodes ask each other is CACHE_RIGHT, a number 1.0 has no handler for:
 *
 *   CACHE_RIGHT    obj.oid = inode oid | what is asked u8@24 | claim u8@25 | port of the holder u16@26 | his address 16@32
 */
import { addressBytes, addressText } from '../../model/node.js'
import { asVid, inodeOid, oidVid, type Vid } from '../../model/oid.js'
import type { NodeId } from '../../model/vdi-state.js'
import { Frame } from './frame.js'
import { Op } from './opcodes.js'
import { objectFields, objectRequest } from './requests.js'

const MARK = 0x7269676874000000n
const STEPS = ['take', 'release', 'void'] as const
const QUESTIONS = ['heard', 'yield'] as const

/** `void`: of a holder that is no member any more. */
export type RightStep = (typeof STEPS)[number]

export interface RightQuestion {
  readonly vid: Vid
  /** `heard`: have you heard of this holder, and have your own writes ended? `yield`: push, and give the right back. */
  readonly asks: (typeof QUESTIONS)[number]
  /** With `heard`: refuse if you have used the volume since you began. */
  readonly isClaim: boolean
  readonly holder: NodeId
}

/** A step of the right that has this term. Of a joiner who has been told of a later one it means nothing. */
export interface RightChange {
  readonly step: RightStep
  readonly term: number
}

export function rightMessage(vid: Vid, { step, term }: RightChange): Frame {
  const mark = MARK + BigInt(STEPS.indexOf(step))
  const oid = inodeOid(vid)
  const head = objectRequest({ opcode: Op.DELETE_CACHE, oid })
  head.writeBigUInt64LE(mark, 24)
  head.writeBigUInt64LE(BigInt(term), 32)
  return new Frame(head)
}

/** As a client asks: what is cached of the volume goes, on every node, and is not pushed. */
export function deleteCacheMessage(vid: Vid): Frame {
  return new Frame(objectRequest({ opcode: Op.DELETE_CACHE, oid: inodeOid(vid) }))
}

/** Of a DELETE_CACHE; undefined: it is a client's. */
export function rightChangeOf(message: Frame): RightChange | undefined {
  const step = STEPS[Number(objectFields.cowOid(message) - MARK)]
  if (step === undefined) return undefined
  return { step, term: Number(message.head.readBigUInt64LE(32)) }
}

export function rightQuestion({ vid, asks, isClaim, holder }: RightQuestion): Buffer {
  const head = objectRequest({ opcode: Op.CACHE_RIGHT, oid: inodeOid(vid) })
  head[24] = QUESTIONS.indexOf(asks)
  head[25] = isClaim ? 1 : 0
  head.writeUInt16LE(holder.port, 26)
  addressBytes(holder.host).copy(head, 32)
  return head
}

/** Undefined when it asks for nothing we know. */
export function decodeRightQuestion(request: Frame): RightQuestion | undefined {
  const { head } = request
  const asks = QUESTIONS[head[24]!]
  if (asks === undefined) return undefined
  const holder = { host: addressText(head.subarray(32, 48)), port: head.readUInt16LE(26) }
  return { vid: oidVid(objectFields.oid(request)), asks, isClaim: head[25] !== 0, holder }
}

/** object_cache_info: what GET_CACHE_INFO answers; its request's data_length is exactly this. */
export const CACHE_INFO_BYTES = 12312
export const CACHE_INFO_VOLUMES_MAX = 1024
const COUNT_OFFSET = 12304
const DIRECTIO_OFFSET = 12308
const VOLUMES_OFFSET = 16
const VOLUME_BYTES = 12

export interface CacheInfo {
  readonly sizeBytes: number
  readonly usedBytes: number
  /** Objects in the cache, and those of them that are dirty. */
  readonly volumes: readonly { readonly vid: Vid; readonly dirty: number; readonly total: number }[]
  readonly directio: boolean
}

/** Volumes beyond the first 1024 are left out. */
export function encodeCacheInfo(info: CacheInfo): Buffer {
  const bytes = Buffer.alloc(CACHE_INFO_BYTES)
  const volumes = info.volumes.slice(0, CACHE_INFO_VOLUMES_MAX)
  bytes.writeBigUInt64LE(BigInt(info.sizeBytes), 0)
  bytes.writeBigUInt64LE(BigInt(info.usedBytes), 8)
  volumes.forEach(({ vid, dirty, total }, i) => {
    const at = VOLUMES_OFFSET + i * VOLUME_BYTES
    bytes.writeUInt32LE(vid, at)
    bytes.writeUInt32LE(dirty, at + 4)
    bytes.writeUInt32LE(total, at + 8)
  })
  bytes.writeInt32LE(volumes.length, COUNT_OFFSET)
  bytes[DIRECTIO_OFFSET] = info.directio ? 1 : 0
  return bytes
}

/** Throws RangeError when `bytes` cannot be one. */
export function decodeCacheInfo(bytes: Buffer): CacheInfo {
  const count = bytes.length === CACHE_INFO_BYTES ? bytes.readInt32LE(COUNT_OFFSET) : -1
  if (count < 0 || count > CACHE_INFO_VOLUMES_MAX) {
    throw new RangeError(`${bytes.length} bytes are not the state of an object cache`)
  }
  return {
    sizeBytes: Number(bytes.readBigUInt64LE(0)),
    usedBytes: Number(bytes.readBigUInt64LE(8)),
    volumes: Array.from({ length: count }, (_, i) => {
      const at = VOLUMES_OFFSET + i * VOLUME_BYTES
      return {
        vid: asVid(bytes.readUInt32LE(at)),
        dirty: bytes.readUInt32LE(at + 4),
        total: bytes.readUInt32LE(at + 8),
      }
    }),
    directio: bytes[DIRECTIO_OFFSET] !== 0,
  }
}
