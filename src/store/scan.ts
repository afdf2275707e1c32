/**
 * Finding what is on the disks at a start. Names that are no object's are left alone; unfinished creates
 * are deleted; an object found twice is served from where a 1.0 daemon would have looked first.
 */
import { objectOf, type StoredId } from '../model/oid.js'
import { diskAt, occupied, type StoreContext } from './context.js'
import type { Disk } from './disks.js'
import { errnoOf } from './errno.js'
import { turn } from './file-io.js'
import {
  isTemporaryName,
  parseStaleName,
  parseWorkingName,
  TWIN_PREFIX,
  workingFileName,
} from './names.js'
import type { DiskControl } from './object-store.js'

/** Names handled before the event loop gets its turn. */
const NAMES_AT_ONCE = 512

/**
 * Fills the catalog of a store that serves nobody yet. A disk that cannot be read is left out when there are
 * others. Rejects with errno errors.
 */
export async function scanDisks(context: StoreContext, control: DiskControl): Promise<void> {
  for (const disk of context.disks.disks) {
    try {
      await forNames(context, disk.path, (name) => foundWorking(context, disk, name))
      await forNames(context, disk.stalePath, (name) => foundStale(context, disk, name))
    } catch (error) {
      if (errnoOf(error) === '' || context.disks.disks.length === 1) throw error
      context.log.error('store.scan-failed', { disk: disk.path, errno: errnoOf(error) })
      await control.drop(disk.path)
    }
  }
  const { working, stale } = context.catalog
  context.log.info('store.scanned', { working: working.size, stale: stale.size })
}

async function forNames(
  context: StoreContext,
  directory: string,
  found: (name: string) => Promise<void> | undefined,
): Promise<void> {
  let seen = 0
  for (const name of await context.files.readDir(directory)) {
    // No promise for a plain name: there may be millions.
    const work = found(name)
    if (work !== undefined) await work
    if (++seen % NAMES_AT_ONCE === 0) await turn(context.clock)
  }
}

function foundWorking(context: StoreContext, disk: Disk, text: string): Promise<void> | undefined {
  const id = parseWorkingName(text)
  if (id === undefined) return dropTemporary(context, `${disk.path}/${text}`, text)
  disk.usedBytes += occupied(context, `${disk.path}/${text}`)
  const known = context.catalog.working.get(id)
  if (known === undefined) {
    context.catalog.working.set(id, disk.index)
    return undefined
  }
  return settleTwins(context, id, [diskAt(context, known), disk])
}

function foundStale(context: StoreContext, disk: Disk, text: string): Promise<void> | undefined {
  const name = parseStaleName(text)
  if (name === undefined) return undefined
  context.catalog.addStale(name.id, { epoch: name.epoch, disk: disk.index })
  return undefined
}

function dropTemporary(
  { files, log }: StoreContext,
  path: string,
  name: string,
): Promise<void> | undefined {
  if (!isTemporaryName(name)) return undefined
  log.info('store.unfinished-deleted', { path })
  return files.unlink(path)
}

/**
 * Two disks hold the object: the daemon died while moving it, or the set of disks changed. The one the
 * ring names was the one in use. The other is put out of sight under a name that everybody skips, never
 * deleted and never found again by accident.
 */
async function settleTwins(
  context: StoreContext,
  id: StoredId,
  twins: readonly [Disk, Disk],
): Promise<void> {
  const wanted = context.disks.choose(objectOf(id))
  const [keep, drop] = twins[1] === wanted ? [twins[1], twins[0]] : twins
  const file = workingFileName(id)
  const aside = `${drop.path}/${TWIN_PREFIX}${file}`
  context.log.warn('store.found-twice', { kept: `${keep.path}/${file}`, aside })
  await context.files.rename(`${drop.path}/${file}`, aside)
  context.catalog.working.set(id, keep.index)
}
