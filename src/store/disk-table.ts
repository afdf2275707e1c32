/**
 * Which directories hold this node's objects: `disks` in the meta directory, beside sheepdog 1.0's files.
 *
 * A directory proves by an attribute that it is the one the table speaks of, so that a disk that is not mounted
 * is not taken for an empty one. A disk that failed or was unplugged stays `out`: what lies on it was current
 * up to `epoch` only, and may be older than the copies made since.
 */
import type { Files, Random } from '../world/world.js'

/** Identity of a directory: `idOf`; nothing of sheepdog 1.0 looks at it. */
const ID_ATTRIBUTE = 'user.sheep.disk'
const ID_BYTES = 16
const FILE = 'disks'
const VERSION = 1
/** Disks that are out are remembered up to this number; one forgotten is refused when it holds objects. */
const OUT_MAX = 256

export interface DiskEntry {
  readonly path: string
  /** 32 hex digits. */
  readonly id: string
  /** `given`: named at the start of the sheep. `plugged`: by command, and used at the next start as well. */
  readonly state: 'given' | 'plugged' | 'out'
  /** When `out`: the epoch it went in. */
  readonly epoch: number
}

export class DiskTable {
  readonly #files: Files
  readonly #path: string
  #entries: readonly DiskEntry[]
  /** Nothing was known: a new store, or one of sheepdog 1.0. */
  readonly isNew: boolean

  /** Throws an Error that names the file when it cannot be understood. */
  constructor(files: Files, metaDirectory: string) {
    this.#files = files
    this.#path = `${metaDirectory}/${FILE}`
    this.isNew = !files.exists(this.#path)
    this.#entries = this.isNew ? [] : this.#decode(files.readFile(this.#path).toString('utf8'))
  }

  get entries(): readonly DiskEntry[] {
    return this.#entries
  }

  byPath(path: string): DiskEntry | undefined {
    return this.#entries.find((entry) => entry.path === path)
  }

  byId(id: string): DiskEntry | undefined {
    return this.#entries.find((entry) => entry.id === id)
  }

  /** Durable. Rejects with an errno error, and then nothing has changed. */
  async write(entries: readonly DiskEntry[]): Promise<void> {
    const out = entries.filter(({ state }) => state === 'out')
    const kept = new Set(out.slice(-OUT_MAX))
    const next = entries.filter((entry) => entry.state !== 'out' || kept.has(entry))
    const text = `${JSON.stringify({ version: VERSION, disks: next }, undefined, 1)}\n`
    await this.#files.writeFileAtomic(this.#path, Buffer.from(text))
    this.#entries = next
  }

  #decode(text: string): DiskEntry[] {
    const table = parse(text)
    const entries = isRecord(table) && table.version === VERSION ? table.disks : undefined
    if (Array.isArray(entries) && entries.every(isEntry)) {
      return entries.map(({ path, id, state, epoch }) => ({ path, id, state, epoch }))
    }
    throw new Error(
      `${this.#path} is not a table of disks: remove it if you are sure that all the disks given hold ` +
        'what they held when this sheep last ran',
    )
  }
}

/** Identity of a directory; undefined when it has none. Throws errno errors. */
export function idOf(files: Files, path: string): string | undefined {
  const value = files.getAttribute(path, ID_ATTRIBUTE)
  return value?.length === ID_BYTES ? value.toString('hex') : undefined
}

export function nameDisk(files: Files, path: string, random: Pick<Random, 'bytes'>): string {
  const value = random.bytes(ID_BYTES)
  files.setAttribute(path, ID_ATTRIBUTE, value)
  return value.toString('hex')
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // The caller says which file it is.
    return undefined
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function isEntry(value: unknown): value is DiskEntry {
  if (!isRecord(value)) return false
  const { path, id, state, epoch } = value
  return (
    typeof path === 'string' &&
    typeof id === 'string' &&
    (state === 'given' || state === 'plugged' || state === 'out') &&
    Number.isSafeInteger(epoch)
  )
}
