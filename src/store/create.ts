/**
 * Creating or replacing an object, atomically (objects spec, section 14):
 *
 *   <name>.tmp (exclusive) -> size or space -> content -> fdatasync -> rename -> sync of the directory
 *
 * Until the rename a failure leaves nothing behind. The caller holds the object's lane, so a `.tmp` found
 * here is the remains of a failed clean-up: it is replaced, never taken for the object.
 */
import { Code } from '../base/codes.js'
import { objectOf, oidKind, oidVid, type StoredId } from '../model/oid.js'
import type { OpenFile } from '../world/world.js'
import {
  diskAt,
  hasRoom,
  judge,
  occupied,
  type StoreContext,
  syncNames,
  workingPath,
} from './context.js'
import type { Disk } from './disks.js'
import { errnoOf } from './errno.js'
import { syncFile, writeRuns } from './file-io.js'
import { temporaryFileName } from './names.js'
import type { CreateRequest } from './object-store.js'

/** False for requests no object could have. */
export function isSaneCreate({ bytes, offset, data }: CreateRequest): boolean {
  return (
    Number.isSafeInteger(bytes) &&
    bytes > 0 &&
    Number.isSafeInteger(offset) &&
    offset >= 0 &&
    offset + data.length <= bytes
  )
}

/**
 * A replaced object stays on its disk, so that the rename replaces it in one step; a new one goes where
 * the ring says. After an error past the rename the new content is there but not promised.
 */
export async function createObject(context: StoreContext, request: CreateRequest): Promise<Code> {
  const { catalog } = context
  const { id } = request
  const before = catalog.working.get(id)
  const disk = before === undefined ? roomyDisk(context, request) : diskAt(context, before)
  if (disk === undefined) return Code.NO_SPACE
  if (disk.gone) return Code.NETWORK_ERROR
  const temporary = `${disk.path}/${temporaryFileName(id)}`
  let file: OpenFile
  try {
    file = await writeTemporary(context, temporary, request)
  } catch (error) {
    return missingIsFailure(context, disk, judge(context, disk, 'store.create-failed', error))
  }
  return putInPlace(context, { id, disk, file, temporary })
}

/** A file with an object's whole content, not yet under its name. */
export interface Finished {
  readonly id: StoredId
  readonly disk: Disk
  readonly file: OpenFile
  readonly temporary: string
}

/** The file becomes the working object on its disk, where any earlier one is too. The caller holds the lane. */
export async function putInPlace(context: StoreContext, finished: Finished): Promise<Code> {
  const { catalog, handles, files } = context
  const { id, disk, file, temporary } = finished
  const path = workingPath(disk, id)
  const usedBefore = catalog.working.get(id) === undefined ? 0 : occupied(context, path)
  try {
    await files.rename(temporary, path)
  } catch (error) {
    shut(context, file, temporary)
    await discard(context, temporary)
    return missingIsFailure(context, disk, judge(context, disk, 'store.create-failed', error))
  }
  if (disk.gone) {
    shut(context, file, path)
    return Code.NETWORK_ERROR
  }
  catalog.working.set(id, disk.index)
  handles.retire(id)
  handles.adopt(id, disk, file)
  disk.usedBytes += occupied(context, path) - usedBefore
  return promiseName(context, disk)
}

type NewFile = Pick<CreateRequest, 'id' | 'bytes'>

/**
 * The disk the ring names for a new object, or the next one with room: a disk that is full does not close those
 * beside it. Undefined when none has any. What the cluster keeps about its volumes may use the last bytes too, so
 * that a full disk can still be emptied.
 */
export function roomyDisk(context: StoreContext, { id, bytes }: NewFile): Disk | undefined {
  const kind = oidKind(id)
  const isPayload = kind === 'data' || kind === 'vmstate'
  for (const disk of context.disks.inOrder(objectOf(id))) {
    if (!isPayload || hasRoom(context, disk, bytes)) return disk
  }
  return undefined
}

async function promiseName(context: StoreContext, disk: Disk): Promise<Code> {
  try {
    await syncNames(context, disk.names)
    return Code.SUCCESS
  } catch (error) {
    return missingIsFailure(context, disk, judge(context, disk, 'store.create-not-durable', error))
  }
}

/** A create cannot miss an object: a missing name means that the directory went away under us. */
export function missingIsFailure(context: StoreContext, disk: Disk, code: Code): Code {
  if (code !== Code.NO_OBJ) return code
  context.onDiskError(disk.path)
  return context.diskErrorCode
}

async function writeTemporary(
  context: StoreContext,
  path: string,
  request: CreateRequest,
): Promise<OpenFile> {
  const file = await openTemporary(context, path)
  try {
    await reserve(file, request)
    await writeRuns(file, request.data, request.offset)
    if (context.durable) await syncFile(file)
    return file
  } catch (error) {
    shut(context, file, path)
    await discard(context, path)
    throw error
  }
}

export async function openTemporary({ files, log }: StoreContext, path: string): Promise<OpenFile> {
  const how = { write: true, create: true, exclusive: true }
  try {
    return files.open(path, how)
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error
    log.warn('store.left-over-replaced', { path })
    await files.unlink(path)
    return files.open(path, how)
  }
}

/** Data objects take their space now, so that a full disk shows here and not in a later write. */
export async function reserve(file: OpenFile, request: NewFile): Promise<void> {
  const kind = oidKind(request.id)
  if (kind === 'inode' || kind === 'ledger') await file.truncate(request.bytes)
  else await file.allocate(request.bytes)
}

/** Closes a file nobody will use; what it held does not count. */
export function shut({ log }: StoreContext, file: OpenFile, path: string): void {
  try {
    file.close()
  } catch (error) {
    log.warn('store.close-failed', { path, errno: errnoOf(error) })
  }
}

/** Takes an unfinished file away. If that fails too the next create or the next start does it. */
export async function discard({ files, log }: StoreContext, path: string): Promise<void> {
  try {
    await files.unlink(path)
  } catch (error) {
    log.warn('store.left-over', { path, errno: errnoOf(error) })
  }
}

/** Removes the working replica or fragment. The caller holds the lane. NO_OBJ when absent. */
export async function removeObject(context: StoreContext, id: StoredId): Promise<Code> {
  const { catalog, handles, files } = context
  const index = catalog.working.get(id)
  if (index === undefined) return Code.NO_OBJ
  const disk = diskAt(context, index)
  const path = workingPath(disk, id)
  const used = occupied(context, path)
  try {
    await files.unlink(path)
  } catch (error) {
    const code = judge(context, disk, 'store.remove-failed', error)
    if (code === Code.NO_OBJ) forget()
    return code
  }
  disk.usedBytes -= used
  forget()
  try {
    // A ledger that comes back after a power cut would miscount the object created under its id next.
    if (oidKind(id) === 'ledger') await syncNames(context, disk.names)
    else context.removedOf.add(oidVid(id))
    return Code.SUCCESS
  } catch (error) {
    return judge(context, disk, 'store.remove-not-durable', error)
  }

  function forget(): void {
    catalog.working.delete(id)
    handles.retire(id)
  }
}
