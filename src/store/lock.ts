/** One daemon a directory: the lock on `lock` in the meta directory ends with the process. */
import type { FileLock, Files } from '../world/world.js'

/** Makes the directory when absent. Throws an Error that names it when another process has it. */
export function lockStore(files: Files, metaDirectory: string): FileLock {
  if (!files.exists(metaDirectory)) files.mkdir(metaDirectory)
  const lock = files.lock(`${metaDirectory}/lock`)
  if (lock !== undefined) return lock
  throw new Error(
    `${metaDirectory} is in use by another sheep: stop that one, or give another directory`,
  )
}
