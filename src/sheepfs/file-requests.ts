/** Requests about open files, but reads and writes. */
import { Errno, SEEK_DATA, SEEK_HOLE } from '../wire/fuse/constants.js'
import { encodeOffset } from '../wire/fuse/replies.js'
import { decodeFallocate, decodeHandle, decodeSeek } from '../wire/fuse/requests.js'
import { allocationOf } from './allocation.js'
import { FsError } from './errors.js'
import type { Handles } from './handles.js'
import type { OpenFile } from './node.js'

function fileOf(handles: Handles, handle: number): OpenFile {
  const file = handles.file(handle)
  if (file === undefined) throw new FsError(Errno.EBADF)
  return file
}

/** FLUSH: a descriptor is closed. */
export async function settleFile(handles: Handles, bytes: Buffer): Promise<undefined> {
  await fileOf(handles, decodeHandle(bytes)).settle?.()
}

/** FSYNC. */
export async function syncFile(handles: Handles, bytes: Buffer): Promise<undefined> {
  const file = fileOf(handles, decodeHandle(bytes))
  const errno = await new Promise<number>((done) => {
    if (file.sync === undefined) done(0)
    else file.sync(done)
  })
  if (errno !== 0) throw new FsError(errno)
}

/** FALLOCATE. */
export async function allocateFile(handles: Handles, bytes: Buffer): Promise<undefined> {
  const { handle, offset, length, mode } = decodeFallocate(bytes)
  const file = fileOf(handles, handle)
  if (file.allocate === undefined) throw new FsError(Errno.EOPNOTSUPP)
  await file.allocate({ offset, length }, allocationOf(mode))
}

/** LSEEK: for data or a hole; ENXIO behind the last data. */
export async function seekFile(handles: Handles, bytes: Buffer): Promise<Uint8Array> {
  const { handle, offset, whence } = decodeSeek(bytes)
  const file = fileOf(handles, handle)
  if (file.seek === undefined) throw new FsError(Errno.ENOSYS)
  if (whence !== SEEK_DATA && whence !== SEEK_HOLE) throw new FsError(Errno.EINVAL)
  const found = await file.seek(offset, whence === SEEK_DATA ? 'data' : 'hole')
  if (found === undefined) throw new FsError(Errno.ENXIO)
  return encodeOffset(found)
}
