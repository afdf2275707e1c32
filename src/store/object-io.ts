/**
 * Reading, writing and hashing of objects that exist: the data path. What the page cache can answer or
 * take at once completes within the call; the rest waits for its turn in the object's lane.
 */
import { Code, type Done, SheepError } from '../base/codes.js'
import { oidKind, oidName, type StoredId } from '../model/oid.js'
import { diskAt, judge, type StoreContext } from './context.js'
import type { Disk } from './disks.js'
import { WRITE_NOW_BYTES_MAX, writeSparse } from './file-io.js'
import type { OpenObject } from './handles.js'
import { digest } from './hashing.js'
import type { WriteHow } from './object-store.js'

/** What an operation does in its turn; it calls `leave` once, when its effect is complete. */
type Act = (handle: OpenObject, leave: () => void) => void

export class ObjectIo {
  private readonly context: StoreContext

  constructor(context: StoreContext) {
    this.context = context
  }

  read(id: StoredId, offset: number, into: Uint8Array, done: Done): void {
    if (!isSaneRange(offset, into.length)) {
      done(Code.INVALID_PARMS)
      return
    }
    const { handles, lanes } = this.context
    const handle = lanes.mayRead(id) ? handles.peek(id) : undefined
    const code = handle === undefined ? undefined : this.readCached(handle, offset, into)
    if (code === undefined) this.readInTurn(id, offset, into, done)
    else done(code)
  }

  write(id: StoredId, offset: number, data: Uint8Array, how: WriteHow, done: Done): void {
    if (!isSaneRange(offset, data.length)) {
      done(Code.INVALID_PARMS)
      return
    }
    const { handles, lanes } = this.context
    const small = data.length <= WRITE_NOW_BYTES_MAX
    const handle = small && lanes.mayWrite(id) ? handles.peek(id) : undefined
    if (handle === undefined) this.writeInTurn(id, offset, data, how, done)
    else this.finishWrite(handle, writeCached(handle, offset, data), how, done)
  }

  /** SHA-1 over `bytes`. Undefined when absent; rejects with a SheepError. */
  hash(id: StoredId, bytes: number): Promise<Buffer | undefined> {
    return new Promise((resolve, reject) => {
      const missed: Done = (code) =>
        code === Code.NO_OBJ ? resolve(undefined) : reject(new SheepError(code))
      this.inTurn(id, false, missed, (handle, leave) => {
        digest(handle.file, bytes)
          .then(resolve, (error: unknown) => {
            reject(new SheepError(this.failure(handle, 'store.read-failed', error)))
          })
          .finally(leave)
      })
    })
  }

  private readInTurn(id: StoredId, offset: number, into: Uint8Array, done: Done): void {
    this.inTurn(id, false, done, (handle, leave) => {
      const code = this.readCached(handle, offset, into)
      // Completed before the turn is passed on: completions come in the order of the effects.
      const finish = (code: Code): void => {
        done(code)
        leave()
      }
      if (code !== undefined) return finish(code)
      handle.file.read(into, offset, (error, count) => {
        if (error === null) into.fill(0, count)
        finish(error === null ? Code.SUCCESS : this.failure(handle, 'store.read-failed', error))
      })
    })
  }

  private writeInTurn(
    id: StoredId,
    offset: number,
    data: Uint8Array,
    how: WriteHow,
    done: Done,
  ): void {
    this.inTurn(id, true, done, (handle, leave) => {
      // The turn ends when the write took effect: waiting for a sync needs none.
      const finish = (error: unknown): void => {
        this.finishWrite(handle, error, how, done)
        leave()
      }
      if (data.length <= WRITE_NOW_BYTES_MAX) finish(writeCached(handle, offset, data))
      else if (isSparse(id)) {
        writeSparse(handle.file, data, offset).then(() => finish(undefined), finish)
      } else handle.file.write(data, offset, (error) => finish(error ?? undefined))
    })
  }

  /** Undefined: the bytes are not all in the page cache. */
  private readCached(handle: OpenObject, offset: number, into: Uint8Array): Code | undefined {
    try {
      const count = handle.file.readNow(into, offset)
      if (count === into.length) return Code.SUCCESS
      // Short inside the file: the rest is not cached. Only past the end there are zeros.
      if (count < 0 || offset + count < handle.file.size()) return undefined
      into.fill(0, count)
      return Code.SUCCESS
    } catch (error) {
      return this.failure(handle, 'store.read-failed', error)
    }
  }

  /** The write took effect, or failed half-way: either way the file is dirty. */
  private finishWrite(handle: OpenObject, error: unknown, how: WriteHow, done: Done): void {
    const { durable, handles } = this.context
    handles.markDirty(handle)
    if (handle.disk.gone) done(Code.NETWORK_ERROR)
    else if (error !== undefined) done(this.failure(handle, 'store.write-failed', error))
    else if (how.durable && durable) handles.syncObject(handle, done)
    else done(Code.SUCCESS)
  }

  private failure(handle: OpenObject, event: string, error: unknown): Code {
    const code = judge(this.context, handle.disk, event, error)
    // An open file cannot miss its object: whatever says so is a failing disk.
    if (code !== Code.NO_OBJ) return code
    this.context.onDiskError(handle.disk.path)
    return this.context.diskErrorCode
  }

  /** Runs `act` on the open object in its lane, or calls `missed` with the reason why not. */
  private inTurn(id: StoredId, exclusive: boolean, missed: Done, act: Act): void {
    const { handles, lanes } = this.context
    lanes.enter(id, exclusive, (leave) => {
      const disk = this.diskOf(id)
      if (typeof disk === 'number') {
        leave()
        return missed(disk)
      }
      handles.acquire(id, disk, (handle, error) => {
        if (handle !== undefined) {
          return act(handle, () => {
            handles.release(handle)
            leave()
          })
        }
        const code = this.openFailure(id, disk, error)
        leave()
        missed(code)
      })
    })
  }

  private diskOf(id: StoredId): Disk | Code {
    if (this.context.closed) return Code.SHUTDOWN
    const index = this.context.catalog.working.get(id)
    if (index === undefined) return Code.NO_OBJ
    const disk = diskAt(this.context, index)
    return disk.gone ? Code.NETWORK_ERROR : disk
  }

  /** An object whose file was taken away behind our back is not here any more. */
  private openFailure(id: StoredId, disk: Disk, error: unknown): Code {
    const code = judge(this.context, disk, 'store.open-failed', error)
    if (code === Code.NO_OBJ) {
      this.context.log.error('store.file-vanished', { id: oidName(id), disk: disk.path })
      this.context.catalog.working.delete(id)
    }
    return code
  }
}

/** The error, or undefined when everything is in the page cache. */
function writeCached(handle: OpenObject, offset: number, data: Uint8Array): unknown {
  try {
    handle.file.writeNow(data, offset)
    return undefined
  } catch (error) {
    return error
  }
}

function isSparse(id: StoredId): boolean {
  const kind = oidKind(id)
  return kind === 'inode' || kind === 'ledger'
}

/** Offsets the store can compute with; whether they are inside the object is the caller's business. */
export function isSaneRange(offset: number, length: number): boolean {
  return Number.isSafeInteger(offset) && offset >= 0 && Number.isSafeInteger(offset + length)
}
