/**
 * Requests of the kernel (linux/fuse.h), little endian as on every machine this runs on:
 *
 *   length u32 | opcode u32 | unique u64 | node u64 | uid u32 | gid u32 | pid u32 | extensions u16 | pad u16     40 bytes
 *
 * then a structure of the opcode's own, then names (each with a NUL) or bytes. The kernel is trusted more than a network, but its
 * lengths are checked all the same: Malformed is the only thing thrown.
 */
import { Errno, FuseOp } from './constants.js'

export const REQUEST_HEAD_BYTES = 40

export class MalformedRequest extends Error {
  override readonly name = 'MalformedRequest'
}

export interface RequestHead {
  readonly opcode: number
  /** Handed back as it is, and the key of INTERRUPT. */
  readonly unique: bigint
  readonly node: number
  readonly uid: number
  readonly gid: number
  readonly pid: number
}

/** Throws MalformedRequest unless `bytes` are just one request. */
export function decodeHead(bytes: Buffer): RequestHead {
  if (bytes.length < REQUEST_HEAD_BYTES || bytes.readUInt32LE(0) !== bytes.length) {
    throw new MalformedRequest(`a request of ${bytes.length} bytes`)
  }
  return {
    opcode: bytes.readUInt32LE(4),
    unique: bytes.readBigUInt64LE(8),
    node: readU64(bytes, 16),
    uid: bytes.readUInt32LE(24),
    gid: bytes.readUInt32LE(28),
    pid: bytes.readUInt32LE(32),
  }
}

/** A 64-bit number this side has given out or that must fit a file; larger ones become larger than any such. */
export function readU64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at + 4) * 2 ** 32 + bytes.readUInt32LE(at)
}

function body(bytes: Buffer, least: number): Buffer {
  if (bytes.length < REQUEST_HEAD_BYTES + least) {
    throw new MalformedRequest(`opcode ${bytes.readUInt32LE(4)} with ${bytes.length} bytes`)
  }
  return bytes.subarray(REQUEST_HEAD_BYTES)
}

/** Names end with a NUL and hold no slash; they are bytes, and here UTF-8 or what survives of it. */
function names(from: Buffer, count: number): { found: string[]; rest: Buffer } {
  const found: string[] = []
  let rest = from
  for (let i = 0; i < count; i++) {
    const end = rest.indexOf(0)
    if (end < 0) throw new MalformedRequest('a name without an end')
    found.push(rest.toString('utf8', 0, end))
    rest = rest.subarray(end + 1)
  }
  return { found, rest }
}

export function decodeName(bytes: Buffer): string {
  return names(body(bytes, 1), 1).found[0]!
}

export interface InitRequest {
  readonly major: number
  readonly minor: number
  readonly maxReadahead: number
  readonly flags: number
}

export function decodeInit(bytes: Buffer): InitRequest {
  const b = body(bytes, 16)
  return {
    major: b.readUInt32LE(0),
    minor: b.readUInt32LE(4),
    maxReadahead: b.readUInt32LE(8),
    flags: b.readUInt32LE(12),
  }
}

export function decodeForget(bytes: Buffer): number {
  return readU64(body(bytes, 8), 0)
}

export function decodeBatchForget(bytes: Buffer): { node: number; lookups: number }[] {
  const b = body(bytes, 8)
  const count = b.readUInt32LE(0)
  if (b.length < 8 + 16 * count) throw new MalformedRequest(`${count} nodes to forget`)
  return Array.from({ length: count }, (_, i) => {
    return { node: readU64(b, 8 + 16 * i), lookups: readU64(b, 16 + 16 * i) }
  })
}

export interface SetAttrRequest {
  readonly valid: number
  readonly handle: number
  readonly size: number
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

export function decodeSetAttr(bytes: Buffer): SetAttrRequest {
  const b = body(bytes, 88)
  return {
    valid: b.readUInt32LE(0),
    handle: readU64(b, 8),
    size: readU64(b, 16),
    mode: b.readUInt32LE(68),
    uid: b.readUInt32LE(76),
    gid: b.readUInt32LE(80),
  }
}

export function decodeOpenFlags(bytes: Buffer): number {
  return body(bytes, 8).readUInt32LE(0)
}

/** CREATE and MKNOD put fixed fields of different length before the name. */
export function decodeCreate(bytes: Buffer): { flags: number; name: string } {
  const b = body(bytes, 17)
  return { flags: b.readUInt32LE(0), name: names(b.subarray(16), 1).found[0]! }
}

export function decodeMkdir(bytes: Buffer): string {
  return names(body(bytes, 9).subarray(8), 1).found[0]!
}

export function decodeMknod(bytes: Buffer): { mode: number; name: string } {
  const b = body(bytes, 17)
  return { mode: b.readUInt32LE(0), name: names(b.subarray(16), 1).found[0]! }
}

export interface RenameRequest {
  readonly newDirectory: number
  readonly flags: number
  readonly name: string
  readonly newName: string
}

export function decodeRename(bytes: Buffer): RenameRequest {
  const isSecond = bytes.readUInt32LE(4) === FuseOp.RENAME2
  const fixed = isSecond ? 16 : 8
  const b = body(bytes, fixed + 2)
  const [name, newName] = names(b.subarray(fixed), 2).found
  const flags = isSecond ? b.readUInt32LE(8) : 0
  return { newDirectory: readU64(b, 0), flags, name: name!, newName: newName! }
}

export interface ReadRequest {
  readonly handle: number
  readonly offset: number
  readonly size: number
}

/** READ and READDIR. */
export function decodeRead(bytes: Buffer): ReadRequest {
  const b = body(bytes, 40)
  return { handle: readU64(b, 0), offset: readU64(b, 8), size: b.readUInt32LE(16) }
}

export interface WriteRequest {
  readonly handle: number
  readonly offset: number
  /** A view of the request. */
  readonly data: Buffer
  readonly flags: number
}

export function decodeWrite(bytes: Buffer): WriteRequest {
  const b = body(bytes, 40)
  const size = b.readUInt32LE(16)
  if (b.length !== 40 + size) throw new MalformedRequest(`a write of ${size} bytes`)
  return {
    handle: readU64(b, 0),
    offset: readU64(b, 8),
    data: b.subarray(40),
    flags: b.readUInt32LE(32),
  }
}

/** Of RELEASE, FLUSH, FSYNC and their kind: the open file. */
export function decodeHandle(bytes: Buffer): number {
  return readU64(body(bytes, 8), 0)
}

export interface FallocateRequest {
  readonly handle: number
  readonly offset: number
  readonly length: number
  readonly mode: number
}

export function decodeFallocate(bytes: Buffer): FallocateRequest {
  const b = body(bytes, 32)
  return {
    handle: readU64(b, 0),
    offset: readU64(b, 8),
    length: readU64(b, 16),
    mode: b.readUInt32LE(24),
  }
}

export function decodeSeek(bytes: Buffer): { handle: number; offset: number; whence: number } {
  const b = body(bytes, 24)
  return { handle: readU64(b, 0), offset: readU64(b, 8), whence: b.readUInt32LE(16) }
}

export function decodeGetXattr(bytes: Buffer): { size: number; name: string } {
  const b = body(bytes, 9)
  return { size: b.readUInt32LE(0), name: names(b.subarray(8), 1).found[0]! }
}

export function decodeListXattr(bytes: Buffer): number {
  return body(bytes, 8).readUInt32LE(0)
}

export interface SetXattrRequest {
  readonly name: string
  readonly value: Buffer
  /** XATTR_CREATE 1, XATTR_REPLACE 2. */
  readonly flags: number
}

/** Without FUSE_SETXATTR_EXT, which is not asked for. */
export function decodeSetXattr(bytes: Buffer): SetXattrRequest {
  const b = body(bytes, 9)
  const size = b.readUInt32LE(0)
  const { found, rest } = names(b.subarray(8), 1)
  if (rest.length !== size) throw new MalformedRequest(`an extended attribute of ${size} bytes`)
  return { name: found[0]!, value: Buffer.from(rest), flags: b.readUInt32LE(4) }
}

export function decodeInterrupt(bytes: Buffer): bigint {
  return body(bytes, 8).readBigUInt64LE(0)
}

/** What a request that cannot be read is answered with. */
export const MALFORMED_ERRNO = Errno.EINVAL
