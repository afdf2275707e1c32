/**
 * The stale area: copies of earlier epochs, kept until recovery is complete everywhere (objects spec,
 * sections 14 and 16). Large moves go in batches, between which the event loop serves others.
 */
import { Code, SheepError } from '../base/codes.js'
import type { Oid } from '../model/oid.js'
import type { OpenFile } from '../world/world.js'
import type { StaleCopy } from './catalog.js'
import {
  diskAt,
  judge,
  occupied,
  replicaName,
  type StoreContext,
  syncNames,
  workingPath,
} from './context.js'
import type { Disk } from './disks.js'
import { errnoOf } from './errno.js'
import { turn } from './file-io.js'
import { REPLICA, staleFileName } from './names.js'

/** Objects looked at, and at most renamed, before the event loop gets its turn. */
const MOVES_AT_ONCE = 64

function stalePath(context: StoreContext, oid: Oid, copy: StaleCopy): string {
  return `${diskAt(context, copy.disk).stalePath}/${staleFileName({ oid, ...copy })}`
}

/** Lets `use` read the stale replica of that epoch. Undefined when absent; rejects with a SheepError. */
export async function useStale<T>(
  context: StoreContext,
  oid: Oid,
  epoch: number,
  use: (file: OpenFile) => Promise<T>,
): Promise<T | undefined> {
  const { catalog, files, lanes } = context
  const leave = await lanes.hold(oid, false)
  const copy = catalog.staleReplica(oid, epoch)
  try {
    if (copy === undefined) return undefined
    const file = files.open(stalePath(context, oid, copy), {})
    try {
      return await use(file)
    } finally {
      file.close()
    }
  } catch (error) {
    const code = judge(context, diskAt(context, copy!.disk), 'store.stale-read-failed', error)
    if (code !== Code.NO_OBJ) throw new SheepError(code)
    catalog.removeStale(oid, copy!)
    return undefined
  } finally {
    leave()
  }
}

/**
 * Moves the replicas `gone` names. Fragments stay: who owns one depends on its index. What cannot be moved
 * or synced stays a working object, and the call rejects with the last such code after the rest is done.
 */
export async function setAside(
  context: StoreContext,
  epoch: number,
  gone: (oid: Oid) => boolean,
): Promise<void> {
  const leaveAll = await context.lanes.holdAll()
  const ids = [...context.catalog.working.keys()]
  leaveAll()
  const touched = new Set<Disk>()
  let failure: Code = Code.SUCCESS
  for (let at = 0; at < ids.length; at += MOVES_AT_ONCE) {
    const leaving = ids.slice(at, at + MOVES_AT_ONCE).filter(gone)
    const codes = await Promise.all(leaving.map((oid) => moveAside(context, oid, epoch, touched)))
    failure = codes.find((code) => code !== Code.SUCCESS) ?? failure
    await turn(context.clock)
  }
  for (const disk of touched) {
    await Promise.all([syncNames(context, disk.names), syncNames(context, disk.staleNames)]).catch(
      (error: unknown) => {
        failure = judge(context, disk, 'store.set-aside-not-durable', error)
      },
    )
  }
  if (failure !== Code.SUCCESS) throw new SheepError(failure)
}

async function moveAside(
  context: StoreContext,
  oid: Oid,
  epoch: number,
  touched: Set<Disk>,
): Promise<Code> {
  const { catalog, files, handles, lanes } = context
  const leave = await lanes.hold(oid, true)
  try {
    const index = catalog.working.get(oid)
    if (index === undefined) return Code.SUCCESS
    const handle = handles.peek(oid)
    if (handle?.dirty) {
      const code = await new Promise<Code>((resolve) => handles.syncObject(handle, resolve))
      if (code !== Code.SUCCESS) return code
    }
    const disk = diskAt(context, index)
    const from = workingPath(disk, replicaName(oid))
    const copy: StaleCopy = { epoch, fragment: REPLICA, disk: index }
    try {
      const used = occupied(context, from)
      const to = stalePath(context, oid, copy)
      // A rename onto a link of the same file would leave both names (rename(2)).
      if (catalog.staleReplica(oid, epoch) !== undefined) await files.unlink(to)
      await files.rename(from, to)
      disk.usedBytes -= used
    } catch (error) {
      return judge(context, disk, 'store.set-aside-failed', error)
    }
    touched.add(disk)
    catalog.working.delete(oid)
    catalog.addStale(oid, copy)
    handles.retire(oid)
    return Code.SUCCESS
  } finally {
    leave()
  }
}

interface RestoreRequest {
  readonly oid: Oid
  readonly epoch: number
  readonly stillWanted: (() => boolean) | undefined
}

/** Links the stale copy to the working name, durably. An object that is there already stays. */
export async function restoreStale(context: StoreContext, request: RestoreRequest): Promise<Code> {
  const { catalog, files, lanes } = context
  const { oid, epoch } = request
  const leave = await lanes.hold(oid, true)
  try {
    if (request.stillWanted?.() === false) return Code.NETWORK_ERROR
    if (catalog.working.has(oid)) return Code.SUCCESS
    const copy = catalog.staleReplica(oid, epoch)
    if (copy === undefined) return Code.NO_OBJ
    const disk = diskAt(context, copy.disk)
    const to = workingPath(disk, replicaName(oid))
    try {
      await linkAnew(context, stalePath(context, oid, copy), to)
      await syncNames(context, disk.names)
    } catch (error) {
      const code = judge(context, disk, 'store.restore-failed', error)
      if (code === Code.NO_OBJ) catalog.removeStale(oid, copy)
      return code
    }
    disk.usedBytes += occupied(context, to)
    catalog.working.set(oid, disk.index)
    return Code.SUCCESS
  } finally {
    leave()
  }

  /** A name we know nothing of is what an earlier, failed restore left: it must not be trusted. */
  async function linkAnew({ log }: StoreContext, from: string, to: string): Promise<void> {
    try {
      await files.link(from, to)
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error
      log.warn('store.left-over-replaced', { path: to })
      await files.unlink(to)
      await files.link(from, to)
    }
  }
}

/**
 * Deletes the copies known at the call. Copies that are set aside meanwhile belong to a newer epoch's
 * recovery and stay. Rejects with the last failure after the rest is done.
 */
export async function purgeStale(context: StoreContext): Promise<void> {
  const known = [...context.catalog.stale].flatMap(([oid, copies]) =>
    copies.map((copy) => ({ oid, copy })),
  )
  let failure: Code = Code.SUCCESS
  for (let at = 0; at < known.length; at += MOVES_AT_ONCE) {
    const batch = known.slice(at, at + MOVES_AT_ONCE)
    const codes = await Promise.all(batch.map(({ oid, copy }) => purge(context, oid, copy)))
    failure = codes.find((code) => code !== Code.SUCCESS) ?? failure
    await turn(context.clock)
  }
  if (failure !== Code.SUCCESS) throw new SheepError(failure)
}

async function purge(context: StoreContext, oid: Oid, copy: StaleCopy): Promise<Code> {
  const leave = await context.lanes.hold(oid, true)
  try {
    return await unlinkStale(context, oid, copy)
  } finally {
    leave()
  }
}

/** Every stale copy of one object. The caller holds the lane. The first failure's code, if any. */
export async function removeStaleCopies(
  context: StoreContext,
  oid: Oid,
): Promise<Code | undefined> {
  for (const copy of [...(context.catalog.stale.get(oid) ?? [])]) {
    const code = await unlinkStale(context, oid, copy)
    if (code !== Code.SUCCESS) return code
  }
  return undefined
}

async function unlinkStale(context: StoreContext, oid: Oid, copy: StaleCopy): Promise<Code> {
  const { catalog, files } = context
  if (!catalog.isStale(oid, copy)) return Code.SUCCESS
  try {
    await files.unlink(stalePath(context, oid, copy))
  } catch (error) {
    const code = judge(context, diskAt(context, copy.disk), 'store.purge-failed', error)
    if (code !== Code.NO_OBJ) return code
  }
  catalog.removeStale(oid, copy)
  return Code.SUCCESS
}
