/**
 * A file system in memory that knows what a power cut keeps. Content is in the page cache until a sync,
 * names until the directory's sync; `crash` forgets the rest. Faults are injected per operation, and
 * operations can be held back to look at what happens meanwhile.
 */
import type { FileDone, FileLock, Files, OpenFile, OpenHow } from '../../../src/world/world.js'

const PAGE_BYTES = 4096
const NO_PAGE = Buffer.alloc(PAGE_BYTES)

export type FakeOperation =
  | 'open'
  | 'readFile'
  | 'readNow'
  | 'read'
  | 'writeNow'
  | 'write'
  | 'sync'
  | 'allocate'
  | 'punch'
  | 'truncate'
  | 'mkdir'
  | 'readDir'
  | 'rename'
  | 'link'
  | 'unlink'
  | 'syncDir'
  | 'syncAll'
  | 'getAttribute'
  | 'setAttribute'

export interface FakeFilesOptions {
  /** How asynchronous operations complete: later, in order. setImmediate when not given. */
  readonly later?: (fn: () => void) => void
  readonly totalBytes?: number
}

/** One file, whatever its names. Pages shared by both maps are never changed in place. */
interface Inode {
  pages: Map<number, Buffer>
  size: number
  durablePages: Map<number, Buffer>
  durableSize: number
  /** Pages that differ from the durable ones. */
  dirty: Set<number>
  allocated: Set<number>
}

interface Directory {
  entries: Map<string, Inode>
  durable: Map<string, Inode>
  readonly attributes: Map<string, Buffer>
}

export function errnoError(code: string, path: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${path}`), { code })
}

export class FakeFiles implements Files {
  /** Operations so far, for counting and for `fault`. */
  readonly calls: { readonly operation: FakeOperation; readonly path: string }[] = []
  /** Return an errno name to make an operation fail before it changes anything. */
  fault: (operation: FakeOperation, path: string) => string | undefined = () => undefined
  /** True keeps an asynchronous operation from completing until `resume`. */
  hold: (operation: FakeOperation, path: string) => boolean = () => false
  /** readNow finds nothing: every read must go to the disk. */
  cold = false
  /** Descriptors open now, and the most there ever were. */
  openCount = 0
  openMost = 0
  private readonly directories = new Map<string, Directory>()
  private readonly locks = new Set<string>()
  private readonly watchers = new Map<() => void, string>()
  private held: (() => void)[] = []
  private readonly later: (fn: () => void) => void
  /** Size of the file system; a test may grow or shrink it. */
  totalBytes: number
  private era = 0

  constructor(options: FakeFilesOptions = {}) {
    this.later = options.later ?? ((fn) => void setImmediate(fn))
    this.totalBytes = options.totalBytes ?? 1024 ** 3
    this.directories.set('/', { entries: new Map(), durable: new Map(), attributes: new Map() })
  }

  /** A power cut: what was not synced is gone, every open file is dead, every lock is free. */
  crash(): void {
    this.era++
    this.held = []
    this.locks.clear()
    this.openCount = 0
    for (const directory of this.directories.values()) {
      directory.entries = new Map(directory.durable)
      for (const inode of directory.entries.values()) {
        inode.pages = new Map(inode.durablePages)
        inode.size = inode.durableSize
        inode.dirty.clear()
      }
    }
  }

  /** Lets everything that `hold` keeps go on. */
  resume(): void {
    const held = this.held
    this.held = []
    for (const go of held) go()
  }

  get heldCount(): number {
    return this.held.length
  }

  /** Removes a directory with all its files, as a lost disk does. */
  loseDirectory(path: string): void {
    for (const name of [...this.directories.keys()]) {
      if (name === path || name.startsWith(`${path}/`)) this.directories.delete(name)
    }
  }

  count(operation: FakeOperation, pattern = /./): number {
    return this.calls.filter((call) => call.operation === operation && pattern.test(call.path))
      .length
  }

  open(path: string, how: OpenHow): OpenFile {
    this.begin('open', path)
    const { directory, name } = this.locate(path)
    let inode = directory.entries.get(name)
    if (inode !== undefined && how.create && how.exclusive) throw errnoError('EEXIST', path)
    if (inode === undefined) {
      if (!how.create) throw errnoError('ENOENT', path)
      inode = newInode()
      directory.entries.set(name, inode)
      this.changed(path)
    }
    if (how.truncate) resize(inode, 0)
    this.openCount++
    this.openMost = Math.max(this.openMost, this.openCount)
    return new FakeFile(this, inode, path, how.direct === true)
  }

  readFile(path: string): Buffer {
    this.begin('readFile', path)
    const inode = this.inode(path)
    const bytes = Buffer.alloc(inode.size)
    readPages(inode, bytes, 0)
    return bytes
  }

  async writeFileAtomic(path: string, data: Uint8Array): Promise<void> {
    const temporary = `${path}.tmp`
    const file = this.open(temporary, { write: true, create: true, truncate: true })
    try {
      file.writeNow(data, 0)
      await new Promise<void>((resolve, reject) => {
        file.sync((error) => (error === null ? resolve() : reject(error)))
      })
    } finally {
      file.close()
    }
    await this.rename(temporary, path)
    await this.syncDir(path.slice(0, path.lastIndexOf('/')) || '/')
  }

  exists(path: string): boolean {
    if (this.directories.has(path)) return true
    const parts = this.tryLocate(path)
    return parts?.directory.entries.has(parts.name) ?? false
  }

  mkdir(path: string): void {
    this.begin('mkdir', path)
    const parent = path.slice(0, path.lastIndexOf('/'))
    if (parent !== '' && !this.directories.has(parent)) this.mkdir(parent)
    if (this.directories.has(path)) return
    this.directories.set(path, { entries: new Map(), durable: new Map(), attributes: new Map() })
    this.changed(path)
  }

  readDir(path: string): Promise<string[]> {
    return this.promise('readDir', path, () => {
      const directory = this.directories.get(path)
      if (directory === undefined) throw errnoError('ENOENT', path)
      const below = [...this.directories.keys()]
        .filter((name) => name !== '/' && name.slice(0, name.lastIndexOf('/')) === path)
        .map((name) => name.slice(path.length + 1))
      return [...directory.entries.keys(), ...below]
    })
  }

  rename(from: string, to: string): Promise<void> {
    return this.promise('rename', from, () => {
      const source = this.locate(from)
      const target = this.locate(to)
      const inode = source.directory.entries.get(source.name)
      if (inode === undefined) throw errnoError('ENOENT', from)
      // rename(2): two links of one file stay as they are.
      if (target.directory.entries.get(target.name) === inode) return
      source.directory.entries.delete(source.name)
      target.directory.entries.set(target.name, inode)
      this.changed(to)
    })
  }

  link(from: string, to: string): Promise<void> {
    return this.promise('link', from, () => {
      const target = this.locate(to)
      const inode = this.inode(from)
      if (target.directory.entries.has(target.name)) throw errnoError('EEXIST', to)
      target.directory.entries.set(target.name, inode)
      this.changed(to)
    })
  }

  unlink(path: string): Promise<void> {
    return this.promise('unlink', path, () => {
      const { directory, name } = this.locate(path)
      if (!directory.entries.delete(name)) throw errnoError('ENOENT', path)
      this.changed(path)
    })
  }

  syncDir(path: string): Promise<void> {
    const started = this.directories.get(path)
    // What is named when the sync starts becomes durable, what comes meanwhile may not.
    const names = new Map(started?.entries)
    return this.promise('syncDir', path, () => {
      const directory = this.directories.get(path)
      if (directory === undefined) throw errnoError('ENOENT', path)
      directory.durable = names
    })
  }

  syncAll(path: string): Promise<void> {
    return this.promise('syncAll', path, () => {
      for (const directory of this.directories.values()) {
        directory.durable = new Map(directory.entries)
        for (const inode of directory.entries.values()) makeDurable(inode, [...inode.dirty])
      }
    })
  }

  space(_path: string): { readonly totalBytes: number; readonly freeBytes: number } {
    const inodes = new Set<Inode>()
    for (const { entries } of this.directories.values()) {
      for (const inode of entries.values()) inodes.add(inode)
    }
    let used = 0
    for (const inode of inodes) used += usedBytes(inode)
    return { totalBytes: this.totalBytes, freeBytes: Math.max(0, this.totalBytes - used) }
  }

  usedBytes(path: string): number {
    return usedBytes(this.inode(path))
  }

  getAttribute(path: string, name: string): Buffer | undefined {
    this.begin('getAttribute', path)
    return this.directories.get(path)?.attributes.get(name)
  }

  setAttribute(path: string, name: string, value: Uint8Array): void {
    this.begin('setAttribute', path)
    const directory = this.directories.get(path)
    if (directory === undefined) throw errnoError('ENOENT', path)
    directory.attributes.set(name, Buffer.from(value))
  }

  lock(path: string): FileLock | undefined {
    if (this.locks.has(path)) return undefined
    if (!this.exists(path)) this.open(path, { write: true, create: true }).close()
    this.locks.add(path)
    const era = this.era
    let held = true
    const release = (): void => {
      if (held && era === this.era) this.locks.delete(path)
      held = false
    }
    return { release }
  }

  watch(path: string, changed: () => void): () => void {
    // A function of our own: the same `changed` may watch two paths.
    const watcher = (): void => changed()
    this.watchers.set(watcher, path)
    return () => this.watchers.delete(watcher)
  }

  /** Notes an operation and throws its injected fault. */
  begin(operation: FakeOperation, path: string): void {
    this.calls.push({ operation, path })
    const errno = this.fault(operation, path)
    if (errno !== undefined) throw errnoError(errno, path)
  }

  /** Completes `act` later, or when `resume` lets it; a crash meanwhile swallows it. */
  run(operation: FakeOperation, path: string, act: (error: Error | null) => void): void {
    const era = this.era
    let error: Error | null = null
    try {
      this.begin(operation, path)
    } catch (fault) {
      error = fault as Error
    }
    const go = (): void => {
      if (era === this.era) act(error)
    }
    if (this.hold(operation, path)) this.held.push(go)
    else this.later(go)
  }

  get generation(): number {
    return this.era
  }

  changed(path: string): void {
    for (const [watcher, watched] of this.watchers) {
      if (path === watched || path.startsWith(`${watched}/`)) this.later(watcher)
    }
  }

  private promise<T>(operation: FakeOperation, path: string, act: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.run(operation, path, (error) => {
        try {
          if (error !== null) throw error
          resolve(act())
        } catch (failure) {
          reject(failure)
        }
      })
    })
  }

  private tryLocate(path: string): { directory: Directory; name: string } | undefined {
    const slash = path.lastIndexOf('/')
    const directory = this.directories.get(path.slice(0, slash) || '/')
    return directory === undefined ? undefined : { directory, name: path.slice(slash + 1) }
  }

  private locate(path: string): { directory: Directory; name: string } {
    const found = this.tryLocate(path)
    if (found === undefined) throw errnoError('ENOENT', path)
    return found
  }

  private inode(path: string): Inode {
    const { directory, name } = this.locate(path)
    const inode = directory.entries.get(name)
    if (inode === undefined) throw errnoError('ENOENT', path)
    return inode
  }
}

class FakeFile implements OpenFile {
  private readonly files: FakeFiles
  private readonly inode: Inode
  private readonly path: string
  private readonly era: number
  private readonly isDirect: boolean
  private closed = false

  constructor(files: FakeFiles, inode: Inode, path: string, isDirect: boolean) {
    this.files = files
    this.inode = inode
    this.path = path
    this.isDirect = isDirect
    this.era = files.generation
  }

  readNow(into: Uint8Array, position: number): number {
    this.begin('readNow')
    return this.files.cold || this.isDirect ? -1 : readPages(this.inode, into, position)
  }

  read(into: Uint8Array, position: number, done: FileDone): void {
    this.run('read', done, () => readPages(this.inode, into, position))
  }

  writeNow(data: Uint8Array, position: number): void {
    this.begin('writeNow')
    if (this.isDirect) throw errnoError('ENOTSUP', this.path)
    writePages(this.inode, data, position)
    this.files.changed(this.path)
  }

  write(data: Uint8Array, position: number, done: FileDone): void {
    this.run('write', done, () => {
      writePages(this.inode, data, position)
      this.files.changed(this.path)
      return data.length
    })
  }

  sync(done: FileDone): void {
    // As the kernel: it promises what was written before the call.
    const pages = [...this.inode.dirty].map((page) => [page, this.inode.pages.get(page)] as const)
    const { size } = this.inode
    this.run('sync', done, () => {
      for (const [page, content] of pages) {
        if (content === undefined) this.inode.durablePages.delete(page)
        else this.inode.durablePages.set(page, content)
        if (this.inode.pages.get(page) === content) this.inode.dirty.delete(page)
      }
      this.inode.durableSize = size
      return 0
    })
  }

  allocate(length: number): Promise<void> {
    return this.promise('allocate', () => {
      for (let at = 0; at < length; at += PAGE_BYTES) this.inode.allocated.add(at / PAGE_BYTES)
      this.inode.size = Math.max(this.inode.size, length)
    })
  }

  punch(offset: number, length: number): Promise<void> {
    return this.promise('punch', () => {
      const end = Math.min(offset + length, this.inode.size)
      if (end > offset) writePages(this.inode, Buffer.alloc(end - offset), offset)
      for (let page = Math.ceil(offset / PAGE_BYTES); (page + 1) * PAGE_BYTES <= end; page++) {
        this.inode.allocated.delete(page)
        this.inode.pages.delete(page)
      }
    })
  }

  truncate(length: number): Promise<void> {
    return this.promise('truncate', () => resize(this.inode, length))
  }

  size(): number {
    this.check()
    return this.inode.size
  }

  close(): void {
    this.check()
    this.closed = true
    if (this.era === this.files.generation) this.files.openCount--
  }

  private check(): void {
    if (this.closed) throw errnoError('EBADF', this.path)
    if (this.era !== this.files.generation) throw errnoError('EIO', this.path)
  }

  private begin(operation: FakeOperation): void {
    this.check()
    this.files.begin(operation, this.path)
  }

  private run(operation: FakeOperation, done: FileDone, act: () => number): void {
    this.check()
    this.files.run(operation, this.path, (error) => {
      if (error === null) done(null, act())
      else done(error as NodeJS.ErrnoException, 0)
    })
  }

  private promise(operation: FakeOperation, act: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.run(
        operation,
        (error) => (error === null ? resolve() : reject(error)),
        () => {
          act()
          return 0
        },
      )
    })
  }
}

function newInode(): Inode {
  return {
    pages: new Map(),
    size: 0,
    durablePages: new Map(),
    durableSize: 0,
    dirty: new Set(),
    allocated: new Set(),
  }
}

function makeDurable(inode: Inode, pages: number[]): void {
  for (const page of pages) {
    const content = inode.pages.get(page)
    if (content === undefined) inode.durablePages.delete(page)
    else inode.durablePages.set(page, content)
    inode.dirty.delete(page)
  }
  inode.durableSize = inode.size
}

function readPages(inode: Inode, into: Uint8Array, position: number): number {
  const length = Math.max(0, Math.min(into.length, inode.size - position))
  for (let at = 0; at < length; ) {
    const page = Math.floor((position + at) / PAGE_BYTES)
    const start = (position + at) % PAGE_BYTES
    const count = Math.min(PAGE_BYTES - start, length - at)
    into.set((inode.pages.get(page) ?? NO_PAGE).subarray(start, start + count), at)
    at += count
  }
  return length
}

function writePages(inode: Inode, data: Uint8Array, position: number): void {
  for (let at = 0; at < data.length; ) {
    const page = Math.floor((position + at) / PAGE_BYTES)
    const start = (position + at) % PAGE_BYTES
    const count = Math.min(PAGE_BYTES - start, data.length - at)
    const content = Buffer.from(inode.pages.get(page) ?? NO_PAGE)
    content.set(data.subarray(at, at + count), start)
    inode.pages.set(page, content)
    inode.dirty.add(page)
    inode.allocated.add(page)
    at += count
  }
  inode.size = Math.max(inode.size, position + data.length)
}

function resize(inode: Inode, length: number): void {
  if (length < inode.size) {
    const tail = Math.min(inode.size, Math.ceil(length / PAGE_BYTES) * PAGE_BYTES) - length
    if (tail > 0) writePages(inode, Buffer.alloc(tail), length)
    for (const page of [...inode.pages.keys()]) {
      if (page * PAGE_BYTES < length) continue
      inode.pages.delete(page)
      inode.allocated.delete(page)
      inode.dirty.add(page)
    }
  }
  inode.size = length
}

function usedBytes(inode: Inode): number {
  return inode.allocated.size * PAGE_BYTES
}
