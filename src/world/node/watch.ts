/**
 * Change notices for a file, or for a directory and everything below it.
 *
 * inotify watches one directory at a time, so a tree is a set of watchers that follows the
 * directories as they come and go. A file is watched through its directory: it stays watched when
 * another one is renamed over it.
 */
import { type FSWatcher, readdirSync, statSync, watch } from 'node:fs'
import { basename, dirname, join } from 'node:path'

const POLL_MS = 500

/** Returns what ends it. Throws ENOENT, and ENOSPC when the system has no watches left. */
export function watchPath(path: string, changed: () => void): () => void {
  if (statSync(path).isDirectory()) return watchTree(path, changed)
  const name = basename(path)
  const watcher = watch(dirname(path), (_kind, about) => {
    if (about === name || about === null) changed()
  })
  watcher.on('error', changed)
  return () => watcher.close()
}

function watchTree(root: string, changed: () => void): () => void {
  const watchers = new Map<string, FSWatcher>()
  let polling: NodeJS.Timeout | undefined
  let ended = false

  const drop = (directory: string): void => {
    for (const [path, watcher] of watchers) {
      if (path !== directory && !path.startsWith(`${directory}/`)) continue
      watcher.close()
      watchers.delete(path)
    }
  }

  const add = (directory: string): void => {
    const watcher = watch(directory, (kind, name) => {
      if (ended) return
      // 'rename' is a name that came or went; it may be a directory's.
      if (kind === 'rename' && name !== null) follow(join(directory, name))
      changed()
    })
    watcher.on('error', () => {
      drop(directory)
      if (!ended) changed()
    })
    watchers.set(directory, watcher)
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      if (entry.isDirectory()) follow(join(directory, entry.name))
    }
  }

  /**
   * Watches a directory below the root. One that vanished meanwhile needs no watcher; for one that
   * cannot be watched (no watches left, no permission) a regular spurious notice stands in.
   */
  const follow = (path: string): void => {
    drop(path)
    try {
      if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) add(path)
    } catch (error) {
      drop(path)
      const vanished = (error as NodeJS.ErrnoException).code === 'ENOENT'
      if (!vanished) polling ??= setInterval(changed, POLL_MS)
    }
  }

  add(root)
  return () => {
    ended = true
    clearInterval(polling)
    for (const watcher of watchers.values()) watcher.close()
  }
}
