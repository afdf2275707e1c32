/** The file systems of this machine. */
import fs from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { FileLock, Files, OpenFile, OpenHow } from '../world.js'
import { DIRECT_UNIT_BYTES, DirectFile, DirectMemory } from './direct-file.js'
import { makeDirectories } from './directories.js'
import type { Native } from './native.js'
import { NodeFile } from './open-file.js'
import { watchPath } from './watch.js'

const { O_CREAT, O_DIRECT, O_DIRECTORY, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC }: typeof fs.constants =
  fs.constants
/** stat(2): st_blocks counts in these, whatever the file system's own block is. */
/** As sheepdog 1.0 makes them, before the umask: what is in a store is nobody else's business. */
const DIRECTORY_MODE = 0o770
const FILE_MODE = 0o660
const STAT_BLOCK_BYTES = 512

/** Every error has the errno name in `code`. libuv opens everything with O_CLOEXEC. */
export class NodeFiles implements Files {
  readonly #native: Native
  /** Made when the first file wants it. */
  #directMemory: DirectMemory | undefined
  /** Last writer of each path in the making: the order of the calls is the order of the renames. */
  readonly #writers = new Map<string, Promise<void>>()

  constructor(native: Native) {
    this.#native = native
  }

  open(path: string, how: OpenHow): OpenFile {
    let flags = how.write === true ? O_RDWR : O_RDONLY
    if (how.create === true) flags |= O_CREAT
    if (how.exclusive === true) flags |= O_EXCL
    if (how.truncate === true) flags |= O_TRUNC
    if (how.direct === true) return this.#openDirect(path, flags)
    return new NodeFile(this.#native, fs.openSync(path, flags, FILE_MODE))
  }

  #openDirect(path: string, flags: number): OpenFile {
    this.#directMemory ??= new DirectMemory(this.#native)
    const fd = fs.openSync(path, flags | O_DIRECT, FILE_MODE)
    return new DirectFile(new NodeFile(this.#native, fd, DIRECT_UNIT_BYTES), this.#directMemory)
  }

  readFile(path: string): Buffer {
    return fs.readFileSync(path)
  }

  async writeFileAtomic(path: string, data: Uint8Array): Promise<void> {
    const before = this.#writers.get(path) ?? Promise.resolve()
    const mine = before.then(() => this.#replace(path, data))
    // A failed write is its own caller's matter; the next one starts afresh.
    const settled = mine.catch(() => undefined)
    this.#writers.set(path, settled)
    try {
      await mine
    } finally {
      if (this.#writers.get(path) === settled) this.#writers.delete(path)
    }
  }

  async #replace(path: string, data: Uint8Array): Promise<void> {
    const temporary = join(dirname(path), `${basename(path)}.${process.pid}.tmp`)
    try {
      const file = await fs.promises.open(temporary, 'w', FILE_MODE)
      try {
        await file.writeFile(data)
        await file.sync()
      } finally {
        await file.close()
      }
      await fs.promises.rename(temporary, path)
    } catch (error) {
      await fs.promises.rm(temporary, { force: true })
      throw error
    }
    await this.syncDir(dirname(path))
  }

  exists(path: string): boolean {
    return fs.statSync(path, { throwIfNoEntry: false }) !== undefined
  }

  /** With its parents; an existing directory is fine. */
  mkdir(path: string): void {
    makeDirectories(path, DIRECTORY_MODE)
  }

  readDir(path: string): Promise<string[]> {
    return fs.promises.readdir(path)
  }

  rename(from: string, to: string): Promise<void> {
    return fs.promises.rename(from, to)
  }

  link(from: string, to: string): Promise<void> {
    return fs.promises.link(from, to)
  }

  unlink(path: string): Promise<void> {
    return fs.promises.unlink(path)
  }

  async syncDir(path: string): Promise<void> {
    const directory = await fs.promises.open(path, O_RDONLY | O_DIRECTORY)
    try {
      await directory.sync()
    } finally {
      await directory.close()
    }
  }

  async syncAll(path: string): Promise<void> {
    try {
      await this.#native.syncfs(path)
    } catch (error) {
      throw withPath(error, path)
    }
  }

  space(path: string): { readonly totalBytes: number; readonly freeBytes: number } {
    const found = fs.statfsSync(path)
    return { totalBytes: found.blocks * found.bsize, freeBytes: found.bavail * found.bsize }
  }

  usedBytes(path: string): number {
    return fs.statSync(path).blocks * STAT_BLOCK_BYTES
  }

  /** Undefined when the file has no such attribute. Throws ENOTSUP where none can be kept. */
  getAttribute(path: string, name: string): Buffer | undefined {
    return naming(path, () => this.#native.getAttribute(path, name))
  }

  setAttribute(path: string, name: string, value: Uint8Array): void {
    naming(path, () => this.#native.setAttribute(path, name, value))
  }

  lock(path: string): FileLock | undefined {
    const fd = naming(path, () => this.#native.lock(path))
    if (fd < 0) return undefined
    let held = true
    const release = (): void => {
      if (!held) return
      held = false
      fs.closeSync(fd)
    }
    return { release }
  }

  watch(path: string, changed: () => void): () => void {
    return watchPath(path, changed)
  }
}

function naming<T>(path: string, call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw withPath(error, path)
  }
}

/** The binding knows the system call only; people want to know the file. */
function withPath(error: unknown, path: string): unknown {
  if (!(error instanceof Error) || !('syscall' in error)) return error
  error.message += ` '${path}'`
  return Object.assign(error, { path })
}
