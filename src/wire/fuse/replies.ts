/**
 * Replies to the kernel (linux/fuse.h): length u32 | error i32 (0 or negative) | unique u64, then a structure.
 * Each function gives the structure alone; `replyHead` goes before it.
 */
import { FUSE_MAJOR, FUSE_MINOR } from './constants.js'

export const REPLY_HEAD_BYTES = 16
const ATTR_BYTES = 88
const ENTRY_BYTES = 40 + ATTR_BYTES
/** Blocks of stat(2). */
const BLOCK_BYTES = 512

export function replyHead(unique: bigint, errno: number, bodyBytes: number): Buffer {
  const head = Buffer.allocUnsafe(REPLY_HEAD_BYTES)
  head.writeUInt32LE(REPLY_HEAD_BYTES + bodyBytes, 0)
  head.writeInt32LE(-errno, 4)
  head.writeBigUInt64LE(unique, 8)
  return head
}

export interface InitReply {
  readonly minor: number
  readonly maxReadahead: number
  readonly flags: number
  readonly maxWrite: number
  readonly maxPages: number
  readonly maxBackground: number
}

export function encodeInit(reply: InitReply): Buffer {
  const body = Buffer.alloc(64)
  body.writeUInt32LE(FUSE_MAJOR, 0)
  body.writeUInt32LE(Math.min(FUSE_MINOR, reply.minor), 4)
  body.writeUInt32LE(reply.maxReadahead, 8)
  body.writeUInt32LE(reply.flags >>> 0, 12)
  body.writeUInt16LE(reply.maxBackground, 16)
  body.writeUInt16LE(Math.floor((reply.maxBackground * 3) / 4), 18)
  body.writeUInt32LE(reply.maxWrite, 20)
  // Times are kept to the nanosecond.
  body.writeUInt32LE(1, 24)
  body.writeUInt16LE(reply.maxPages, 28)
  return body
}

/** Of a version of the protocol nobody here speaks: the kernel then asks again in this one. */
export function encodeInitVersion(): Buffer {
  return encodeInit({
    ...{ minor: FUSE_MINOR, maxReadahead: 0, flags: 0, maxWrite: 0 },
    ...{ maxPages: 0, maxBackground: 0 },
  })
}

export interface Attr {
  readonly node: number
  /** Type and permissions. */
  readonly mode: number
  readonly sizeBytes: number
  /** Bytes that are really there. */
  readonly allocatedBytes: number
  /** Milliseconds since 1970. */
  readonly modifiedMs: number
  readonly uid: number
  readonly gid: number
  /** What I/O should come in. */
  readonly ioBytes: number
}

function writeU64(into: Buffer, at: number, value: number): void {
  into.writeUInt32LE(value >>> 0, at)
  into.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4)
}

function writeTime(into: Buffer, at: number, nanosecondsAt: number, ms: number): void {
  const seconds = Math.floor(ms / 1000)
  writeU64(into, at, seconds)
  into.writeUInt32LE(Math.floor((ms - seconds * 1000) * 1e6), nanosecondsAt)
}

function writeAttr(into: Buffer, at: number, attr: Attr): void {
  writeU64(into, at, attr.node)
  writeU64(into, at + 8, attr.sizeBytes)
  writeU64(into, at + 16, Math.ceil(attr.allocatedBytes / BLOCK_BYTES))
  writeTime(into, at + 24, at + 48, attr.modifiedMs)
  writeTime(into, at + 32, at + 52, attr.modifiedMs)
  // Of the last change, never before that of the content: backup programs go by it.
  writeTime(into, at + 40, at + 56, attr.modifiedMs)
  into.writeUInt32LE(attr.mode, at + 60)
  // As every file has it: 2 of a directory would say that there are no others in it.
  into.writeUInt32LE(1, at + 64)
  into.writeUInt32LE(attr.uid, at + 68)
  into.writeUInt32LE(attr.gid, at + 72)
  into.writeUInt32LE(attr.ioBytes, at + 80)
}

/** How long the kernel may believe it without asking. */
export interface Validity {
  readonly namesMs: number
  readonly attrsMs: number
}

export function encodeAttr(attr: Attr, { attrsMs }: Pick<Validity, 'attrsMs'>): Buffer {
  const body = Buffer.alloc(16 + ATTR_BYTES)
  writeTime(body, 0, 8, attrsMs)
  writeAttr(body, 16, attr)
  return body
}

/** The reply to LOOKUP and to what makes something. */
export function encodeEntry(attr: Attr, { namesMs, attrsMs }: Validity): Buffer {
  const body = Buffer.alloc(ENTRY_BYTES)
  writeU64(body, 0, attr.node)
  writeTime(body, 16, 32, namesMs)
  writeTime(body, 24, 36, attrsMs)
  writeAttr(body, 40, attr)
  return body
}

export function encodeOpen(handle: number, openFlags: number): Buffer {
  const body = Buffer.alloc(16)
  writeU64(body, 0, handle)
  body.writeUInt32LE(openFlags, 8)
  return body
}

export function encodeWritten(bytes: number): Buffer {
  const body = Buffer.alloc(8)
  body.writeUInt32LE(bytes, 0)
  return body
}

/** LSEEK. */
export function encodeOffset(offset: number): Buffer {
  const body = Buffer.alloc(8)
  writeU64(body, 0, offset)
  return body
}

/** GETXATTR and LISTXATTR that ask for no more than the size. */
export function encodeXattrSize(bytes: number): Buffer {
  return encodeWritten(bytes)
}

export interface StatFs {
  readonly totalBytes: number
  readonly freeBytes: number
  readonly blockBytes: number
  readonly files: number
}

export function encodeStatFs({ totalBytes, freeBytes, blockBytes, files }: StatFs): Buffer {
  const body = Buffer.alloc(80)
  const free = Math.floor(freeBytes / blockBytes)
  writeU64(body, 0, Math.floor(totalBytes / blockBytes))
  writeU64(body, 8, free)
  writeU64(body, 16, free)
  writeU64(body, 24, files)
  body.writeUInt32LE(blockBytes, 40)
  body.writeUInt32LE(255, 44)
  body.writeUInt32LE(blockBytes, 48)
  return body
}

export interface DirEntry {
  readonly node: number
  readonly name: string
  readonly isDirectory: boolean
}

/** Bytes `encodeDirEntry` makes of a name. */
export function dirEntryBytes(name: string): number {
  return Math.ceil((24 + Buffer.byteLength(name)) / 8) * 8
}

/** The same of `encodeDirEntryPlus`. */
export function dirEntryPlusBytes(name: string): number {
  return ENTRY_BYTES + dirEntryBytes(name)
}

/** node u64 | next u64 | name length u32 | type u32 | name, padded to 8 */
function writeDirEntry(into: Buffer, { node, name, isDirectory }: DirEntry, next: number): void {
  writeU64(into, 0, node)
  writeU64(into, 8, next)
  into.writeUInt32LE(into.write(name, 24), 16)
  into.writeUInt32LE(isDirectory ? 4 : 8, 20)
}

/** An entry of READDIR; `next`: the place of the one after it. */
export function encodeDirEntry(entry: DirEntry, next: number): Buffer {
  const bytes = Buffer.alloc(dirEntryBytes(entry.name))
  writeDirEntry(bytes, entry, next)
  return bytes
}

/** What a look-up of the name would be answered with, undefined for nothing, and then the entry as READDIR has it. */
export function encodeDirEntryPlus(
  looked: Uint8Array | undefined,
  entry: DirEntry,
  next: number,
): Buffer {
  const bytes = Buffer.alloc(dirEntryPlusBytes(entry.name))
  if (looked !== undefined) bytes.set(looked)
  writeDirEntry(bytes.subarray(ENTRY_BYTES), entry, next)
  return bytes
}
