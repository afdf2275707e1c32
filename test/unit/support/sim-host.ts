/**
 * A host in memory for crash tests: one directory tree and one virtual clock, shared by processes that
 * can be killed at any file operation (also in the middle of a write), stopped and continued.
 *
 * A killed process throws ProcessDied out of the operation it died in, loses its locks, and none of its
 * callbacks runs any more. Only what drivers need of `Files` is here; the rest throws.
 */
import type { Clock, FileLock, Files, OpenFile, OpenHow } from '../../../src/world/world.js'

export class ProcessDied extends Error {}

interface Inode {
  bytes: Buffer
}

export interface SimProcess {
  readonly files: Files
  readonly clock: Clock
  readonly alive: boolean
  /** File operations so far. */
  readonly operations: number
  /** SIGKILL now. */
  kill(): void
  /** SIGKILL during the n-th file operation from now; a write gets `share` (0..1) of its bytes out. */
  killAt(operation: number, share: number): void
  /** SIGSTOP and SIGCONT: callbacks wait, locks stay. */
  stop(): void
  resume(): void
}

/** `afterWrite` may throw errno errors: a full disk. */
export interface SimHost {
  process(): SimProcess
  /** Runs what is due in the next `ms` milliseconds, promises included. */
  advance(ms: number): Promise<void>
  now(): number
  readonly files: ReadonlyMap<string, Inode>
  remove(path: string): void
  /** When set, writes beyond this many bytes of all files together fail with ENOSPC. */
  capacityBytes: number
}

interface Timer {
  readonly at: number
  readonly order: number
  readonly run: () => void
}

export function simHost(): SimHost {
  return new Host()
}

class Host implements SimHost {
  readonly files = new Map<string, Inode>()
  readonly directories = new Set<string>(['/'])
  readonly locks = new Map<Inode, SimProcess>()
  readonly watchers = new Set<{ readonly path: string; readonly changed: () => void }>()
  capacityBytes = Number.MAX_SAFE_INTEGER
  #timers: Timer[] = []
  #nowMs = 1_000_000
  #order = 0

  now(): number {
    return this.#nowMs
  }

  process(): SimProcess {
    return new Process(this)
  }

  at(delayMs: number, run: () => void): () => void {
    const timer = { at: this.#nowMs + delayMs, order: this.#order++, run }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((one) => one !== timer)
    }
  }

  async advance(ms: number): Promise<void> {
    const until = this.#nowMs + ms
    for (;;) {
      await settlePromises()
      const due = this.#timers.filter((timer) => timer.at <= until)
      const next = due.sort((a, b) => a.at - b.at || a.order - b.order)[0]
      if (next === undefined) break
      this.#timers = this.#timers.filter((one) => one !== next)
      this.#nowMs = Math.max(this.#nowMs, next.at)
      try {
        next.run()
      } catch (error) {
        if (!(error instanceof ProcessDied)) throw error
      }
    }
    this.#nowMs = until
  }

  remove(path: string): void {
    for (const name of [...this.files.keys()]) {
      if (name === path || name.startsWith(`${path}/`)) this.files.delete(name)
    }
    this.directories.delete(path)
    this.changed(path)
  }

  usedBytes(): number {
    return [...this.files.values()].reduce((sum, inode) => sum + inode.bytes.length, 0)
  }

  changed(path: string): void {
    for (const watcher of this.watchers) {
      if (path === watcher.path || path.startsWith(`${watcher.path}/`)) watcher.changed()
    }
  }
}

class Process implements SimProcess {
  readonly files: Files
  readonly clock: Clock
  alive = true
  operations = 0
  readonly host: Host
  #stopped = false
  readonly #waiting: (() => void)[] = []
  #catchingUp = false
  #fatal = { operation: -1, share: 0 }

  constructor(host: Host) {
    this.host = host
    this.files = processFiles(this)
    this.clock = {
      now: () => host.now(),
      monotonic: () => host.now(),
      after: (delayMs, fn) => host.at(delayMs, () => this.run(fn)),
      soon: (fn) => {
        host.at(0, () => this.run(fn))
      },
    }
  }

  run(fn: () => void): void {
    if (!this.alive) return
    if (this.#stopped || this.#waiting.length > 0) this.#waiting.push(fn)
    else fn()
  }

  kill(): void {
    this.alive = false
    for (const [inode, owner] of this.host.locks) {
      if (owner === this) this.host.locks.delete(inode)
    }
  }

  killAt(operation: number, share: number): void {
    this.#fatal = { operation: this.operations + operation, share }
  }

  stop(): void {
    this.#stopped = true
  }

  resume(): void {
    this.#stopped = false
    if (this.#catchingUp || this.#waiting.length === 0) return
    this.#catchingUp = true
    this.host.at(0, () => this.#catchUp())
  }

  /** What waited comes first, in its order; what comes meanwhile waits behind it. */
  #catchUp(): void {
    const fn = this.alive && !this.#stopped ? this.#waiting[0] : undefined
    if (fn === undefined) {
      this.#catchingUp = false
      return
    }
    try {
      fn()
    } finally {
      this.#waiting.shift()
      this.host.at(0, () => this.#catchUp())
    }
  }

  /** Counts an operation. The share of it that is done before the process dies; 1 when it lives on. */
  begin(): number {
    if (!this.alive) throw new ProcessDied()
    this.operations++
    return this.operations === this.#fatal.operation ? this.#fatal.share : 1
  }

  /** Dies here when this was the operation to die in. */
  end(): void {
    if (this.operations !== this.#fatal.operation) return
    this.kill()
    throw new ProcessDied()
  }
}

function processFiles(process: Process): Files {
  const { host } = process
  const act = <Result>(operation: () => Result): Result => {
    if (process.begin() < 0.5) process.end()
    const result = operation()
    process.end()
    return result
  }
  return {
    open: (path, how) => act(() => openFile(process, path, how)),
    readFile: (path) => act(() => Buffer.from(inodeOf(host, path).bytes)),
    exists: (path) => act(() => host.files.has(path) || host.directories.has(path)),
    mkdir: (path) =>
      act(() => {
        host.directories.add(path)
      }),
    readDir: async (path) => {
      await Promise.resolve()
      return act(() => {
        if (!host.directories.has(path)) throw errno('ENOENT', path)
        const names = [...host.files.keys()].filter((name) => name.startsWith(`${path}/`))
        return names.map((name) => name.slice(path.length + 1))
      })
    },
    unlink: async (path) => {
      await Promise.resolve()
      act(() => {
        inodeOf(host, path)
        host.files.delete(path)
        host.changed(path)
      })
    },
    lock: (path) => act(() => takeLock(process, path)),
    watch: (path, changed) => {
      const watcher = { path, changed: () => process.run(changed) }
      host.watchers.add(watcher)
      return () => host.watchers.delete(watcher)
    },
    writeFileAtomic: unused,
    rename: unused,
    link: unused,
    syncDir: unused,
    syncAll: unused,
    space: unused,
    usedBytes: unused,
    getAttribute: unused,
    setAttribute: unused,
  }
}

function openFile(process: Process, path: string, how: OpenHow): OpenFile {
  const { host } = process
  const inode = how.create === true ? createdInode(host, path) : inodeOf(host, path)
  return {
    readNow: (into, position) => {
      process.begin()
      process.end()
      return inode.bytes.copy(into, 0, position)
    },
    writeNow: (data, position) => {
      const share = process.begin()
      const bytes = data.subarray(0, Math.floor(data.length * share))
      const room = host.capacityBytes - host.usedBytes()
      const growth = Math.max(0, position + bytes.length - inode.bytes.length)
      const fitting = bytes.subarray(0, Math.max(0, bytes.length - Math.max(0, growth - room)))
      writeInto(inode, fitting, position)
      host.changed(path)
      process.end()
      if (fitting.length < bytes.length) throw errno('ENOSPC', path)
    },
    size: () => inode.bytes.length,
    close: () => undefined,
    read: unused,
    write: unused,
    sync: unused,
    allocate: unused,
    punch: unused,
    truncate: unused,
  }
}

function writeInto(inode: Inode, bytes: Uint8Array, position: number): void {
  if (bytes.length === 0) return
  const grown = Buffer.alloc(Math.max(inode.bytes.length, position + bytes.length))
  inode.bytes.copy(grown)
  grown.set(bytes, position)
  inode.bytes = grown
}

function takeLock(process: Process, path: string): FileLock | undefined {
  const { locks } = process.host
  const inode = createdInode(process.host, path)
  if (locks.has(inode)) return undefined
  locks.set(inode, process)
  return {
    release: () => {
      if (locks.get(inode) === process) locks.delete(inode)
    },
  }
}

function inodeOf(host: Host, path: string): Inode {
  const inode = host.files.get(path)
  if (inode === undefined) throw errno('ENOENT', path)
  return inode
}

function createdInode(host: Host, path: string): Inode {
  const found = host.files.get(path)
  if (found !== undefined) return found
  if (!host.directories.has(path.slice(0, path.lastIndexOf('/')))) throw errno('ENOENT', path)
  const inode = { bytes: Buffer.alloc(0) }
  host.files.set(path, inode)
  host.changed(path)
  return inode
}

function errno(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code })
}

function unused(): never {
  throw new Error('not part of the simulated host')
}

/** Promise chains started by the last callback get to run to their end. */
async function settlePromises(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise<void>((resolve) => setImmediate(resolve))
}
