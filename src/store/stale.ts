/**
 * The stale area: copies of earlier epochs, kept until recovery is complete everywhere (objects spec,
 * sections 14 and 16). Large moves go in batches, between which the event loop serves others.
 */
import { Code, SheepError } from '../base/codes.js'
import type { StoredId } from '../model/oid.js'
import type { OpenFile } from '../world/world.js'
import type { StaleCopy } from './catalog.js'
import { diskAt, judge, occupied, type StoreContext, syncNames, workingPath } from './context.js'
import type { Disk } from './disks.js'
import { errnoOf } from './errno.js'
import { turn } from './file-io.js'
import { staleFileName } from './names.js'

/** Objects looked at, and at most renamed, before the event loop gets its turn. */
const MOVES_AT_ONCE = 64

function stalePath(context: StoreContext, id: StoredId, copy: StaleCopy): string {
  return `${diskAt(context, copy.disk).stalePath}/${staleFileName({ id, epoch: copy.epoch })}`
}

/** Lets `use` read the stale copy of that epoch. Undefined when absent; rejects with a SheepError. */
export async function useStale<T>(
  context: StoreContext,
  id: StoredId,
  epoch: number,
  use: (file: OpenFile) => Promise<T>,
): Promise<T | undefined> {
  const { catalog, files, lanes } = context
  const leave = await lanes.hold(id, false)
  const copy = catalog.staleCopy(id, epoch)
  try {
    if (copy === undefined) return undefined
    const file = files.open(stalePath(context, id, copy), {})
    try {
      return await use(file)
    } finally {
      file.close()
    }
  } catch (error) {
    const code = judge(context, diskAt(context, copy!.disk), 'store.stale-read-failed', error)
    if (code !== Code.NO_OBJ) throw new SheepError(code)
    catalog.removeStale(id, copy!)
    return undefined
  } finally {
    leave()
  }
}

/**
 * Moves what `gone` names. What cannot be moved or synced stays a working object, and the call rejects with the
 * last such code after the rest is done.
 */
export async function setAside(
  context: StoreContext,
  epoch: number,
  gone: (id: StoredId) => boolean,
): Promise<void> {
  const leaveAll = await context.lanes.holdAll()
  leaveAll()
  const touched = new Set<Disk>()
  let failure: Code = Code.SUCCESS
  const judgeAndMove = async (ids: readonly StoredId[]): Promise<void> => {
    const leaving = ids.filter(gone)
    const codes = await Promise.all(leaving.map((id) => moveAside(context, id, epoch, touched)))
    failure = codes.find((code) => code !== Code.SUCCESS) ?? failure
    await turn(context.clock)
  }
  // Walked through as it is: a copy of millions of ids would hold the event loop up. What comes meanwhile is looked
  // at, too, and belongs here.
  let batch: StoredId[] = []
  for (const id of context.catalog.working.keys()) {
    if (batch.push(id) < MOVES_AT_ONCE) continue
    await judgeAndMove(batch)
    batch = []
  }
  await judgeAndMove(batch)
  for (const disk of touched) {
    await Promise.all([syncNames(context, disk.names), syncNames(context, disk.staleNames)]).catch(
      (error: unknown) => {
        const code = judge(context, disk, 'store.set-aside-not-durable', error)
        if (!disk.gone) failure = code
      },
    )
  }
  if (failure !== Code.SUCCESS) throw new SheepError(failure)
}

async function moveAside(
  context: StoreContext,
  id: StoredId,
  epoch: number,
  touched: Set<Disk>,
): Promise<Code> {
  const { catalog, files, handles, lanes } = context
  const leave = await lanes.hold(id, true)
  try {
    const index = catalog.working.get(id)
    if (index === undefined) return Code.SUCCESS
    const handle = handles.peek(id)
    if (handle?.dirty) {
      const code = await new Promise<Code>((resolve) => handles.syncObject(handle, resolve))
      if (code !== Code.SUCCESS) return code
    }
    const disk = diskAt(context, index)
    // What went with its disk is out of the way.
    if (disk.gone) return Code.SUCCESS
    const from = workingPath(disk, id)
    const copy: StaleCopy = { epoch, disk: index }
    try {
      const used = occupied(context, from)
      const to = stalePath(context, id, copy)
      // A rename onto a link of the same file would leave both names (rename(2)).
      if (catalog.staleCopy(id, epoch) !== undefined) await files.unlink(to)
      await files.rename(from, to)
      disk.usedBytes -= used
    } catch (error) {
      return judge(context, disk, 'store.set-aside-failed', error)
    }
    if (disk.gone) return Code.SUCCESS
    touched.add(disk)
    catalog.working.delete(id)
    catalog.addStale(id, copy)
    handles.retire(id)
    return Code.SUCCESS
  } finally {
    leave()
  }
}

interface RestoreRequest {
  readonly id: StoredId
  readonly epoch: number
  readonly stillWanted: (() => boolean) | undefined
}

/** Links the stale copy to the working name, durably. An object that is there already stays. */
export async function restoreStale(context: StoreContext, request: RestoreRequest): Promise<Code> {
  const { catalog, files, lanes } = context
  const { id, epoch } = request
  const leave = await lanes.hold(id, true)
  try {
    if (request.stillWanted?.() === false) return Code.NETWORK_ERROR
    if (catalog.working.has(id)) return Code.SUCCESS
    const copy = catalog.staleCopy(id, epoch)
    if (copy === undefined) return Code.NO_OBJ
    const disk = diskAt(context, copy.disk)
    const to = workingPath(disk, id)
    try {
      await linkAnew(context, stalePath(context, id, copy), to)
      await syncNames(context, disk.names)
    } catch (error) {
      const code = judge(context, disk, 'store.restore-failed', error)
      if (code === Code.NO_OBJ) catalog.removeStale(id, copy)
      return code
    }
    if (disk.gone) return Code.NETWORK_ERROR
    disk.usedBytes += occupied(context, to)
    catalog.working.set(id, disk.index)
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
  const known = [...context.catalog.stale].flatMap(([id, copies]) =>
    copies.map((copy) => ({ id, copy })),
  )
  let failure: Code = Code.SUCCESS
  for (let at = 0; at < known.length; at += MOVES_AT_ONCE) {
    const batch = known.slice(at, at + MOVES_AT_ONCE)
    const codes = await Promise.all(batch.map(({ id, copy }) => purge(context, id, copy)))
    failure = codes.find((code) => code !== Code.SUCCESS) ?? failure
    await turn(context.clock)
  }
  if (failure !== Code.SUCCESS) throw new SheepError(failure)
}

async function purge(context: StoreContext, id: StoredId, copy: StaleCopy): Promise<Code> {
  const leave = await context.lanes.hold(id, true)
  try {
    return await unlinkStale(context, id, copy)
  } finally {
    leave()
  }
}

/** Every stale copy of one object. The caller holds the lane. The first failure's code, if any. */
export async function removeStaleCopies(
  context: StoreContext,
  id: StoredId,
): Promise<Code | undefined> {
  for (const copy of [...(context.catalog.stale.get(id) ?? [])]) {
    const code = await unlinkStale(context, id, copy)
    if (code !== Code.SUCCESS) return code
  }
  return undefined
}

async function unlinkStale(context: StoreContext, id: StoredId, copy: StaleCopy): Promise<Code> {
  const { catalog, files } = context
  if (!catalog.isStale(id, copy)) return Code.SUCCESS
  try {
    await files.unlink(stalePath(context, id, copy))
  } catch (error) {
    const code = judge(context, diskAt(context, copy.disk), 'store.purge-failed', error)
    if (code !== Code.NO_OBJ) return code
  }
  catalog.removeStale(id, copy)
  return Code.SUCCESS
}
