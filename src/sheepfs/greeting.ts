/** INIT: which version and abilities a mount has. */
import { Errno, FUSE_MAJOR, FUSE_MINOR_MIN, InitFlag } from '../wire/fuse/constants.js'
import { encodeInit, encodeInitVersion } from '../wire/fuse/replies.js'
import { decodeInit } from '../wire/fuse/requests.js'
import { FsError } from './errors.js'

const MAX_BACKGROUND = 64
/** The kernel's largest; less when it says so. */
const PAGE_BYTES = 4096

const WANTED_FLAGS = [
  ...[InitFlag.ASYNC_READ, InitFlag.BIG_WRITES, InitFlag.ASYNC_DIO, InitFlag.PARALLEL_DIROPS],
  ...[InitFlag.MAX_PAGES, InitFlag.AUTO_INVAL_DATA],
  // With attributes where somebody looks at those; the kernel finds that out.
  ...[InitFlag.DO_READDIRPLUS, InitFlag.READDIRPLUS_AUTO],
].reduce((all, flag) => all | flag)

/** The answer; `isAgreed` false: the kernel asks again, for the version it was told. Throws EPROTO for one that is too old. */
export function greet(
  bytes: Buffer,
  writeBytesMax: number,
): { readonly reply: Uint8Array; readonly isAgreed: boolean } {
  const { major, minor, maxReadahead, flags } = decodeInit(bytes)
  if (major > FUSE_MAJOR) return { reply: encodeInitVersion(), isAgreed: false }
  if (major < FUSE_MAJOR || minor < FUSE_MINOR_MIN) throw new FsError(Errno.EPROTO)
  const reply = encodeInit({
    ...{ minor, maxReadahead, flags: WANTED_FLAGS & flags },
    maxWrite: writeBytesMax,
    maxPages: writeBytesMax / PAGE_BYTES,
    maxBackground: MAX_BACKGROUND,
  })
  return { reply, isAgreed: true }
}
