/**
 * Which disks a store opens. What it used last must be what is there now: a disk that is not mounted, was swapped
 * or fails is left out and reported, never mistaken for an empty one; one that was taken out stays out until it
 * is plugged.
 */

import { type DiskEntry, DiskTable, idOf } from './disk-table.js'
import {
  type Disk,
  type DiskOptions,
  DiskSet,
  makeDirectory,
  mustBeDisk,
  openDisk,
} from './disks.js'
import { errnoOf } from './errno.js'
import { parseStaleName, parseWorkingName } from './names.js'

const STALE_DIRECTORY = '.stale'

export interface StartedDisks {
  readonly set: DiskSet
  readonly table: DiskTable
}

/** A disk of the table that must be left out, and why. */
interface Unusable {
  readonly path: string
  readonly reason: string
}

/** Rejects with an Error that names the directory and the remedy. */
export async function startDisks(options: DiskOptions): Promise<StartedDisks> {
  const { files, log } = options
  const meta = trimSlashes(options.metaDirectory)
  const given = options.disks.length === 0 ? [`${meta}/obj`] : options.disks.map(trimSlashes)
  const twice = given.find((path, i) => given.indexOf(path) !== i)
  if (twice !== undefined) throw new Error(`${twice} is given twice as a disk`)
  makeDirectory(files, meta)
  const table = new DiskTable(files, meta)
  const plugged = table.entries.filter(({ state }) => state === 'plugged').map(({ path }) => path)
  const opened: Disk[] = []
  const unusable: Unusable[] = []
  for (const path of new Set([...given, ...plugged])) {
    const reason = await whyNot(options, table, path)
    if (reason === undefined) opened.push(openDisk(options, path, opened.length))
    else unusable.push({ path, reason })
  }
  for (const { path, reason } of unusable) log.error('store.disk-left-out', { path, reason })
  if (opened.length === 0) {
    throw new Error(unusable.map(({ path, reason }) => `${path} ${reason}`).join('; '))
  }
  await record(table, opened, given)
  return { set: new DiskSet(opened), table }
}

export function trimSlashes(path: string): string {
  return path.replace(/(?<=.)\/+$/, '')
}

/** Objects, stale ones included, lie in the directory. Rejects with errno errors. */
export async function holdsObjects({ files }: DiskOptions, path: string): Promise<boolean> {
  const working = await files.readDir(path)
  if (working.some((name) => parseWorkingName(name) !== undefined)) return true
  if (!files.exists(`${path}/${STALE_DIRECTORY}`)) return false
  const stale = await files.readDir(`${path}/${STALE_DIRECTORY}`)
  return stale.some((name) => parseStaleName(name) !== undefined)
}

/** Undefined when the disk may be used. Throws when that is a mistake of whoever starts the sheep. */
async function whyNot(
  options: DiskOptions,
  table: DiskTable,
  path: string,
): Promise<string | undefined> {
  const entry = table.byPath(path)
  if (entry !== undefined && entry.state !== 'out') return whyNotAgain(options, entry)
  const { files } = options
  let id: string | undefined
  try {
    mustBeDisk(files, path)
    if (table.isNew) return undefined
    if (!files.exists(path)) return entry === undefined ? undefined : 'is gone'
    id = idOf(files, path)
  } catch (error) {
    if (entry === undefined || errnoOf(error) === '') throw error
    return unreadable(error)
  }
  const known = id === undefined ? undefined : table.byId(id)
  if (known?.state === 'out') {
    return 'was taken out of use: `dog node md plug` takes it in again, and needs a sheep that runs'
  }
  if (known === undefined && (await holdsObjects(options, path))) {
    throw new Error(`${path} holds objects of another store: empty it, or give another directory`)
  }
  return undefined
}

/** A disk in use at the last run: it must be the same, and answer. */
function whyNotAgain({ files }: DiskOptions, { path, id }: DiskEntry): string | undefined {
  try {
    if (!files.exists(path)) return 'is gone'
    mustBeDisk(files, path)
    if (idOf(files, path) === id) return undefined
    return (
      'is not the disk this sheep used: mount that one and start again, ' +
      'or take the new one in with `dog node md plug`'
    )
  } catch (error) {
    if (errnoOf(error) === '') throw error
    return unreadable(error)
  }
}

function unreadable(error: unknown): string {
  return `cannot be read: ${error instanceof Error ? error.message : String(error)}`
}

/** Disks that are missing keep their entries until the node has noted the loss of what was on them. */
async function record(
  table: DiskTable,
  opened: readonly Disk[],
  given: readonly string[],
): Promise<void> {
  const inUse = opened.map(({ path, id }): DiskEntry => {
    return { path, id, state: given.includes(path) ? 'given' : 'plugged', epoch: 0 }
  })
  const others = table.entries.filter(({ id }) => !opened.some((disk) => disk.id === id))
  const next = [...inUse, ...others]
  if (JSON.stringify(next) !== JSON.stringify(table.entries)) await table.write(next)
}
