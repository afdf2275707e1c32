/** Disk images in memory, for tests of what is exported and imported. */
import type { ImageFile, Images, NewImage, ProgramEnd } from '../../../src/world/images.js'
import { SparseBytes } from './sparse-bytes.js'

export interface MemoryFile {
  readonly bytes: SparseBytes
  sizeBytes: number
  /** Stretches that were written, in the order of their offsets; the rest is a hole. */
  readonly data: { start: number; end: number }[]
}

function errno(code: string): Error {
  return Object.assign(new Error(code), { code })
}

export class MemoryImages implements Images {
  readonly files = new Map<string, MemoryFile>()
  /** Files in the making that were neither committed nor discarded yet. */
  pending = 0
  #scratches = 0
  /** Called before every write to a new file. */
  beforeWrite: (offset: number) => void = () => undefined
  /** Called with every range that is read. */
  beforeRead: (offset: number, length: number) => void = () => undefined

  /** `parts`: offsets and what lies there. */
  put(path: string, sizeBytes: number, parts: readonly (readonly [number, Buffer])[]): MemoryFile {
    const file: MemoryFile = { bytes: new SparseBytes(), sizeBytes, data: [] }
    for (const [offset, part] of parts) write(file, offset, part)
    this.files.set(path, file)
    return file
  }

  open(path: string): Promise<ImageFile> {
    const file = this.files.get(path)
    if (file === undefined) return Promise.reject(errno('ENOENT'))
    return Promise.resolve({
      sizeBytes: file.sizeBytes,
      read: async (offset, length) => {
        this.beforeRead(offset, length)
        if (offset + length > file.sizeBytes) throw errno('EIO')
        return file.bytes.read(offset, length)
      },
      nextData: (from) => {
        const found = file.data.find(({ end }) => end > from)
        return found && { start: Math.max(from, found.start), end: found.end }
      },
      close: () => Promise.resolve(),
    })
  }

  create(path: string, { replace }: { readonly replace: boolean }): Promise<NewImage> {
    if (this.files.has(path) && !replace) return Promise.reject(errno('EEXIST'))
    const temporary = `${path}.part`
    const file = this.put(temporary, 0, [])
    this.pending++
    const end = (): void => {
      if (this.files.delete(temporary)) this.pending--
    }
    return Promise.resolve({
      path: temporary,
      isFresh: true,
      write: async (offset, data) => {
        this.beforeWrite(offset)
        write(file, offset, Buffer.from(data))
      },
      commit: (sizeBytes = file.sizeBytes) => {
        file.sizeBytes = sizeBytes
        end()
        this.files.set(path, file)
        return Promise.resolve()
      },
      discard: () => Promise.resolve(end()),
    })
  }

  scratch(): Promise<{ readonly path: string; remove(): Promise<void> }> {
    const path = `/scratch/${++this.#scratches}`
    const remove = (): Promise<void> => {
      for (const name of this.files.keys()) if (name.startsWith(path)) this.files.delete(name)
      return Promise.resolve()
    }
    return Promise.resolve({ path, remove })
  }

  run(): Promise<ProgramEnd> {
    return Promise.reject(errno('ENOENT'))
  }
}

function write(file: MemoryFile, offset: number, part: Buffer): void {
  file.bytes.write(offset, part)
  file.data.push({ start: offset, end: offset + part.length })
  file.data.sort((a, b) => a.start - b.start)
  file.sizeBytes = Math.max(file.sizeBytes, offset + part.length)
}
