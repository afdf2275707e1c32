/** Emptying the disks: the cluster is being formatted. */
import { Code, SheepError } from '../base/codes.js'
import { judge, type StoreContext, syncNames } from './context.js'
import type { Disk } from './disks.js'
import { turn } from './file-io.js'
import { isTemporaryName, parseStaleName, parseWorkingName, TWIN_PREFIX } from './names.js'

/** Files deleted before the event loop gets its turn. */
const DELETIONS_AT_ONCE = 64

/**
 * Deletes every object, stale copy and unfinished file; other people's files stay. The caller holds all
 * lanes. Rejects with a SheepError when a disk fails: the cluster must not take it for empty.
 */
export async function formatDisks(context: StoreContext): Promise<void> {
  context.catalog.clear()
  context.handles.retireAll()
  for (const disk of context.disks.disks) {
    try {
      await empty(context, disk.path, isOurs)
      await empty(context, disk.stalePath, (name) => parseStaleName(name) !== undefined)
      await Promise.all([syncNames(context, disk.names), syncNames(context, disk.staleNames)])
    } catch (error) {
      const code = formatFailure(context, disk, error)
      // A disk that is taken out of use brings nothing back: what is on it is put out of sight when it is plugged.
      if (code !== Code.NETWORK_ERROR || context.disks.disks.length === 1)
        throw new SheepError(code)
    }
    disk.usedBytes = 0
  }
}

function formatFailure(context: StoreContext, disk: Disk, error: unknown): Code {
  const code = judge(context, disk, 'store.format-failed', error)
  return code === Code.NO_OBJ ? Code.EIO : code
}

async function empty(
  { files, clock }: StoreContext,
  directory: string,
  isVictim: (name: string) => boolean,
): Promise<void> {
  const victims = (await files.readDir(directory)).filter(isVictim)
  for (let at = 0; at < victims.length; at += DELETIONS_AT_ONCE) {
    const batch = victims.slice(at, at + DELETIONS_AT_ONCE)
    await Promise.all(batch.map((name) => files.unlink(`${directory}/${name}`)))
    await turn(clock)
  }
}

function isOurs(name: string): boolean {
  const plain = name.startsWith(TWIN_PREFIX) ? name.slice(TWIN_PREFIX.length) : name
  return parseWorkingName(plain) !== undefined || isTemporaryName(plain)
}
