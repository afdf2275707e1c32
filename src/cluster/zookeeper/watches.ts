/** One-shot watches of a session: who wants to know of which path, and what to ask for after a reconnection. */
import type { WatchedPaths, ZkEvent } from '../../wire/zookeeper/messages.js'

/** Called once, when the watched thing has changed; look again and watch again. */
export type Watcher = () => void

export type WatchKind = keyof WatchedPaths

const KINDS: Readonly<Record<ZkEvent['kind'], readonly WatchKind[]>> = {
  created: ['exists', 'data'],
  deleted: ['data', 'exists', 'children'],
  changed: ['data', 'exists'],
  children: ['children'],
  session: [],
}

export class Watches {
  readonly #by: Readonly<Record<WatchKind, Map<string, Set<Watcher>>>> = {
    data: new Map(),
    exists: new Map(),
    children: new Map(),
  }

  add(kind: WatchKind, path: string, watcher: Watcher): void {
    const watchers = this.#by[kind].get(path) ?? new Set()
    this.#by[kind].set(path, watchers.add(watcher))
  }

  fire(event: ZkEvent): void {
    const called = new Set<Watcher>()
    for (const kind of KINDS[event.kind]) {
      for (const watcher of this.#by[kind].get(event.path) ?? []) called.add(watcher)
      this.#by[kind].delete(event.path)
    }
    for (const watcher of called) watcher()
  }

  paths(): WatchedPaths {
    return {
      data: [...this.#by.data.keys()],
      exists: [...this.#by.exists.keys()],
      children: [...this.#by.children.keys()],
    }
  }

  get count(): number {
    return this.#by.data.size + this.#by.exists.size + this.#by.children.size
  }

  /** The session is over: everybody looks once more, and finds that out. */
  end(): void {
    const called = new Set<Watcher>()
    for (const watchers of Object.values(this.#by)) {
      for (const some of watchers.values()) for (const watcher of some) called.add(watcher)
      watchers.clear()
    }
    for (const watcher of called) watcher()
  }
}
