/** Files whose content is made when somebody asks: it stays the same as long as a descriptor is open. */
import { Errno } from '../wire/fuse/constants.js'
import type { Clock } from '../world/world.js'
import { errnoOfError, FsError } from './errors.js'
import type { Directory, Facts, FileNode, Listed, OpenFile, OpenHow, TreeNode } from './node.js'

const REMEMBERED_MS = 1_000
const REMEMBERED_MAX = 256
const WRITTEN_BYTES_MAX = 65_536

/** What was made a moment ago, by path: a look-up, a stat and an open follow each other. */
export class Remembered {
  readonly #clock: Clock
  readonly #texts = new Map<string, { readonly atMs: number; readonly text: Promise<Buffer> }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  text(key: string, make: () => Promise<string>): Promise<Buffer> {
    const now = this.#clock.monotonic()
    const known = this.#texts.get(key)
    if (known !== undefined && now - known.atMs < REMEMBERED_MS) return known.text
    if (this.#texts.size >= REMEMBERED_MAX) this.#texts.clear()
    const text = make().then((made) => Buffer.from(made))
    text.catch(() => this.#texts.delete(key))
    this.#texts.set(key, { atMs: now, text })
    return text
  }

  forget(key: string): void {
    this.#texts.delete(key)
  }

  clear(): void {
    this.#texts.clear()
  }
}

export interface TextOptions {
  readonly content: () => Promise<Buffer>
  readonly modifiedMs: number
  /** Gets what was written, whole, when the descriptor is closed. */
  readonly written?: (text: Buffer) => Promise<void>
  /** Gets each write as it comes, as sheepdog 1.0's control files do. */
  readonly command?: (text: string) => Promise<void>
}

export function textFile(options: TextOptions): FileNode {
  const { content, modifiedMs, written, command } = options
  const mode = written !== undefined || command !== undefined ? 0o644 : 0o444
  return {
    kind: 'file',
    facts: async () => facts({ sizeBytes: (await content()).length, modifiedMs, mode }),
    open: async ({ writes }: OpenHow) => {
      if (!writes) return new OpenText(await content(), undefined)
      if (command !== undefined) return new OpenCommand(command)
      if (written === undefined) throw new FsError(Errno.EACCES)
      return new OpenText(await content(), written)
    },
    ...(mode === 0o644 && { truncate: () => Promise.resolve() }),
  }
}

export function facts(fields: Partial<Facts>): Facts {
  const modifiedMs = fields.modifiedMs ?? 0
  const sizeBytes = fields.sizeBytes ?? 0
  return {
    ...{ sizeBytes, allocatedBytes: sizeBytes, mode: 0o444, modifiedMs },
    ...fields,
  }
}

class OpenText implements OpenFile {
  readonly isDirect = true
  readonly #written: ((text: Buffer) => Promise<void>) | undefined
  #text: Buffer
  #isDirty = false

  constructor(text: Buffer, written: ((text: Buffer) => Promise<void>) | undefined) {
    this.#text = text
    this.#written = written
  }

  read(offset: number, size: number, done: (errno: number, data: Uint8Array) => void): void {
    done(0, this.#text.subarray(offset, offset + size))
  }

  write(offset: number, data: Uint8Array, done: (errno: number, written: number) => void): void {
    const end = offset + data.length
    if (this.#written === undefined || end > WRITTEN_BYTES_MAX) {
      done(this.#written === undefined ? Errno.EBADF : Errno.EFBIG, 0)
      return
    }
    const longer = Buffer.alloc(Math.max(end, this.#text.length))
    this.#text.copy(longer)
    longer.set(data, offset)
    this.#text = longer
    this.#isDirty = true
    done(0, data.length)
  }

  async truncate(sizeBytes: number): Promise<void> {
    if (this.#written === undefined) throw new FsError(Errno.EINVAL)
    if (sizeBytes > WRITTEN_BYTES_MAX) throw new FsError(Errno.EFBIG)
    const cut = Buffer.alloc(sizeBytes)
    this.#text.copy(cut)
    this.#text = cut
    this.#isDirty = true
  }

  async settle(): Promise<void> {
    if (!this.#isDirty) return
    this.#isDirty = false
    await this.#written?.(this.#text)
  }

  async close(): Promise<void> {
    await this.settle()
  }
}

class OpenCommand implements OpenFile {
  readonly isDirect = true
  readonly #command: (text: string) => Promise<void>

  constructor(command: (text: string) => Promise<void>) {
    this.#command = command
  }

  read(_offset: number, _size: number, done: (errno: number, data: Uint8Array) => void): void {
    done(0, Buffer.alloc(0))
  }

  /** One command a write, up to its first newline. */
  write(_offset: number, data: Uint8Array, done: (errno: number, written: number) => void): void {
    const [line = ''] = Buffer.from(data).toString('utf8').split('\n')
    this.#command(line).then(
      () => done(0, data.length),
      (error: unknown) => done(errnoOfError(error) ?? Errno.EIO, 0),
    )
  }

  async truncate(): Promise<void> {
    await Promise.resolve()
  }

  async close(): Promise<void> {
    await Promise.resolve()
  }
}

/** A directory that always has the same children. */
export function fixedDirectory(
  children: ReadonlyMap<string, () => TreeNode>,
  modifiedMs: number,
): Directory {
  return {
    kind: 'directory',
    facts: async () => facts({ mode: 0o755, modifiedMs }),
    child: async (name) => children.get(name)?.(),
    list: async () =>
      [...children].map(([name, make]): Listed => {
        return { name, isDirectory: make().kind === 'directory' }
      }),
  }
}
