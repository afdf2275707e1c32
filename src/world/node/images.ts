/** Disk images on this machine's file systems and devices. */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import fs, { type FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { ByteStretch, ImageFile, Images, NewImage, ProgramEnd } from '../images.js'
import { loadNative, type Native } from './native.js'

/** A disk is its owner's business. */
const FILE_MODE = 0o600
const SECTOR_BYTES = 512
/** What a program says is kept for its end, and no more of it. */
const SAID_BYTES_MAX = 64 * 1024

export class NodeImages implements Images {
  async open(path: string): Promise<ImageFile> {
    const handle = await fs.open(path, 'r')
    try {
      return new OpenImage(handle, await sizeOf(handle), nativeIfAny())
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  async create(path: string, { replace }: { readonly replace: boolean }): Promise<NewImage> {
    const found = await fs.stat(path).catch(ignoring('ENOENT'))
    if (found !== undefined && !replace) throw errnoError('EEXIST', path)
    if (found?.isDirectory()) throw errnoError('EISDIR', path)
    if (found !== undefined && !found.isFile()) {
      return new DeviceImage(path, await fs.open(path, constants.O_WRONLY))
    }
    const target = found === undefined ? path : await fs.realpath(path)
    const temporary = `${target}.${randomBytes(4).toString('hex')}.part`
    const handle = await fs.open(temporary, 'wx', FILE_MODE)
    return new FreshImage({ target, temporary, replace: found !== undefined }, handle)
  }

  async scratch(): Promise<{ readonly path: string; remove(): Promise<void> }> {
    const path = await fs.mkdtemp(join(tmpdir(), 'dog-'))
    return { path, remove: () => fs.rm(path, { recursive: true, force: true }) }
  }

  run(words: readonly string[], stop: AbortSignal): Promise<ProgramEnd> {
    const [command = '', ...args] = words
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      signal: stop,
      env: { ...process.env, LC_ALL: 'C' },
    })
    const [stdout, stderr] = [gather(child.stdout), gather(child.stderr)]
    return new Promise((resolve, reject) => {
      child.on('error', (error) => {
        // Stopping it is not a failure to run it: it ends, and `close` tells.
        if (error.name !== 'AbortError') reject(error)
      })
      child.on('close', (code) => {
        resolve({ status: code ?? -1, stdout: stdout(), stderr: stderr() })
      })
    })
  }
}

class OpenImage implements ImageFile {
  readonly #handle: FileHandle
  readonly #native: Native | undefined
  readonly sizeBytes: number

  constructor(handle: FileHandle, sizeBytes: number, native: Native | undefined) {
    this.#handle = handle
    this.#native = native
    this.sizeBytes = sizeBytes
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const into = Buffer.allocUnsafe(length)
    for (let moved = 0; moved < length; ) {
      const { bytesRead } = await this.#handle.read(into, moved, length - moved, offset + moved)
      if (bytesRead === 0) throw errnoError('EIO', 'the file has become shorter')
      moved += bytesRead
    }
    return into
  }

  /** Where the file system cannot tell, all of it may be data. */
  nextData(from: number): ByteStretch | undefined {
    if (from >= this.sizeBytes) return undefined
    const all = { start: from, end: this.sizeBytes }
    if (this.#native === undefined) return all
    try {
      const start = this.#native.seekData(this.#handle.fd, from)
      if (start < 0 || start >= this.sizeBytes) return undefined
      const end = this.#native.seekHole(this.#handle.fd, start)
      return { start, end: end < 0 ? this.sizeBytes : Math.min(end, this.sizeBytes) }
    } catch {
      return all
    }
  }

  close(): Promise<void> {
    return this.#handle.close()
  }
}

interface FreshPlace {
  readonly target: string
  readonly temporary: string
  /** Something is to be replaced: it was there when this began. */
  readonly replace: boolean
}

class FreshImage implements NewImage {
  readonly #place: FreshPlace
  readonly #handle: FileHandle
  readonly isFresh = true

  constructor(place: FreshPlace, handle: FileHandle) {
    this.#place = place
    this.#handle = handle
  }

  get path(): string {
    return this.#place.temporary
  }

  write(offset: number, data: Uint8Array): Promise<void> {
    return writeAll(this.#handle, offset, data)
  }

  async commit(sizeBytes?: number): Promise<void> {
    const { target, temporary, replace } = this.#place
    if (sizeBytes !== undefined) await this.#handle.truncate(sizeBytes)
    await this.#handle.sync()
    await this.#handle.close()
    if (replace) await fs.rename(temporary, target)
    else {
      // Unlike a rename this does not take the place of what somebody else has put there meanwhile.
      await fs.link(temporary, target)
      await fs.unlink(temporary)
    }
    const directory = await fs.open(dirname(target), 'r')
    await directory.sync().finally(() => directory.close())
  }

  async discard(): Promise<void> {
    await this.#handle.close().catch(ignoring('EBADF'))
    await fs.unlink(this.#place.temporary).catch(ignoring('ENOENT'))
  }
}

class DeviceImage implements NewImage {
  readonly path: string
  readonly isFresh = false
  readonly #handle: FileHandle

  constructor(path: string, handle: FileHandle) {
    this.path = path
    this.#handle = handle
  }

  write(offset: number, data: Uint8Array): Promise<void> {
    return writeAll(this.#handle, offset, data)
  }

  async commit(): Promise<void> {
    // Pipes and terminals have nothing to sync.
    await this.#handle.sync().catch(ignoring('EINVAL'))
    await this.#handle.close()
  }

  discard(): Promise<void> {
    return this.#handle.close()
  }
}

async function writeAll(handle: FileHandle, offset: number, data: Uint8Array): Promise<void> {
  for (let moved = 0; moved < data.length; ) {
    const { bytesWritten } = await handle.write(data, moved, data.length - moved, offset + moved)
    moved += bytesWritten
  }
}

/** A block device's is in sysfs. */
async function sizeOf(handle: FileHandle): Promise<number> {
  const { size, rdev, mode } = await handle.stat()
  const kind = mode & constants.S_IFMT
  if (kind === constants.S_IFREG) return size
  if (kind === constants.S_IFDIR) throw errnoError('EISDIR', 'open')
  if (kind !== constants.S_IFBLK) throw errnoError('ESPIPE', 'open')
  const major = ((rdev >> 8) & 0xfff) | 0
  const minor = (rdev & 0xff) | ((rdev >> 12) & 0xfff00)
  const text = await fs.readFile(`/sys/dev/block/${major}:${minor}/size`, 'utf8')
  return Number(text) * SECTOR_BYTES
}

/** Without it holes are read as zeros, which takes longer and is right as well. */
function nativeIfAny(): Native | undefined {
  try {
    return loadNative()
  } catch {
    return undefined
  }
}

function gather(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = []
  let length = 0
  stream.on('data', (chunk: Buffer) => {
    if (length < SAID_BYTES_MAX) chunks.push(chunk)
    length += chunk.length
  })
  return () => Buffer.concat(chunks).toString()
}

function ignoring(code: string): (error: unknown) => undefined {
  return (error) => {
    if (error instanceof Error && 'code' in error && error.code === code) return undefined
    throw error
  }
}

function errnoError(code: string, about: string): Error {
  return Object.assign(new Error(`${code}: ${about}`), { code })
}
