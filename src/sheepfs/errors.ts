/** Errors of the file system: errno(3) numbers, and what results of the cluster become. */
import { Code, codeText, SheepError } from '../base/codes.js'
import { Errno } from '../wire/fuse/constants.js'

/** Thrown by nodes of the tree; the caller's errno. */
export class FsError extends Error {
  override readonly name = 'FsError'
  readonly errno: number
  /** The message says more than the number. */
  readonly explains: boolean

  constructor(errno: number, message?: string) {
    super(message ?? `errno ${errno}`)
    this.errno = errno
    this.explains = message !== undefined
  }
}

const ERRNOS: Readonly<Partial<Record<Code, number>>> = {
  [Code.SUCCESS]: 0,
  [Code.VDI_EXIST]: Errno.EEXIST,
  [Code.INVALID_PARMS]: Errno.EINVAL,
  [Code.VDI_LOCKED]: Errno.EBUSY,
  [Code.NO_VDI]: Errno.ENOENT,
  [Code.NO_TAG]: Errno.ENOENT,
  [Code.FULL_VDI]: Errno.ENOSPC,
  [Code.NO_SPACE]: Errno.ENOSPC,
  [Code.NO_MEM]: Errno.ENOMEM,
  [Code.READONLY]: Errno.EROFS,
  [Code.NO_SUPPORT]: Errno.EOPNOTSUPP,
}

/** Of an operation on names; everything else is EIO. */
export function errnoOf(code: Code): number {
  return ERRNOS[code] ?? Errno.EIO
}

/** Of I/O on an open file: that its volume is in other hands, or gone, is an error of the device. */
export function ioErrnoOf(code: Code): number {
  const errno = errnoOf(code)
  return errno === Errno.EBUSY || errno === Errno.ENOENT || errno === Errno.EINVAL
    ? Errno.EIO
    : errno
}

/** Of anything thrown; undefined for what is a mistake of ours. */
export function errnoOfError(error: unknown): number | undefined {
  if (error instanceof FsError) return error.errno
  if (error instanceof SheepError) return errnoOf(error.code)
  return undefined
}

/** It says more than its number: it belongs into the log, because its user sees only the number. */
export function explains(error: unknown): boolean {
  if (error instanceof FsError) return error.explains
  return error instanceof SheepError && error.message !== codeText(error.code)
}

export function mustBe(code: Code): void {
  if (code !== Code.SUCCESS) throw new SheepError(code, codeText(code))
}
