/**
 * Which VDIs and snapshots there are, for look-ups and listings: asked of the cluster at most once a second. Of ten thousand only
 * the ones that are new since then are read, and the ones that may have become snapshots; everything once a minute.
 */
import { Code, codeOf } from '../base/codes.js'
import { type InodeHeader, sdTimeSeconds } from '../model/inode.js'
import type { Vid } from '../model/oid.js'
import type { RemoteAccess } from '../remote/remote-access.js'
import type { Clock } from '../world/world.js'

const BELIEVED_MS = 1_000
const COMPLETE_MS = 60_000
/** Inodes read at once. */
const AT_ONCE = 96
/** Single inodes that are remembered. */
const FRESH_MAX = 20_000

export interface Family {
  readonly name: string
  readonly working: InodeHeader | undefined
  /** By their ids, ascending. */
  readonly snapshots: readonly InodeHeader[]
}

export type Families = ReadonlyMap<string, Family>

interface Fresh {
  readonly header: InodeHeader
  readonly atMs: number
}

export class Catalogue {
  readonly #access: RemoteAccess
  readonly #clock: Clock
  readonly #known = new Map<Vid, InodeHeader>()
  readonly #fresh = new Map<Vid, Fresh>()
  #families: Families = new Map()
  #readAt = Number.NEGATIVE_INFINITY
  #completeAt = Number.NEGATIVE_INFINITY
  #reading: Promise<Families> | undefined

  constructor(access: RemoteAccess, clock: Clock) {
    this.#access = access
    this.#clock = clock
  }

  /** Rejects with a SheepError. */
  families(): Promise<Families> {
    if (this.#clock.monotonic() - this.#readAt < BELIEVED_MS) {
      return Promise.resolve(this.#families)
    }
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined
    })
    return this.#reading
  }

  /** Undefined when there is none of this name: the cluster is asked then, it may have been made just now. */
  async family(name: string): Promise<Family | undefined> {
    const known = (await this.families()).get(name)
    if (known !== undefined) return known
    try {
      await this.#access.find(name, { kind: 'working' })
    } catch (error) {
      if (codeOf(error) === Code.NO_VDI) return undefined
      throw error
    }
    this.#readAt = Number.NEGATIVE_INFINITY
    this.#reading = undefined
    return (await this.families()).get(name)
  }

  /** The inode as it was less than a second ago. Rejects with NO_VDI when it is gone. */
  async header(vid: Vid): Promise<InodeHeader> {
    const now = this.#clock.monotonic()
    const fresh = this.#fresh.get(vid)
    if (fresh !== undefined && now - fresh.atMs < BELIEVED_MS) return fresh.header
    const header = await this.#access.readHeader(vid)
    if (this.#fresh.size >= FRESH_MAX) this.#fresh.clear()
    this.#fresh.set(vid, { header, atMs: now })
    return header
  }

  /** Something was changed through this mount: what is remembered is asked for again. */
  changed(): void {
    this.#readAt = Number.NEGATIVE_INFINITY
    this.#completeAt = Number.NEGATIVE_INFINITY
    this.#fresh.clear()
    this.#reading = undefined
  }

  async #read(): Promise<Families> {
    const askedAt = this.#clock.monotonic()
    const isComplete = askedAt - this.#completeAt > COMPLETE_MS
    const vids = await this.#access.living()
    const living = new Set(vids)
    for (const vid of this.#known.keys()) if (!living.has(vid)) this.#known.delete(vid)
    const wanted = isComplete ? vids : vids.filter((vid) => !this.#known.has(vid))
    await this.#load(wanted)
    // Who has a new child may have become a snapshot by it.
    const parents = wanted.map((vid) => this.#known.get(vid)?.parent ?? 0)
    if (!isComplete) await this.#load([...new Set(parents)].filter((vid) => living.has(vid as Vid)))
    const families = familiesOf(this.#known.values())
    this.#families = families
    this.#readAt = askedAt
    if (isComplete) this.#completeAt = askedAt
    return families
  }

  async #load(vids: readonly number[]): Promise<void> {
    let next = 0
    const worker = async (): Promise<void> => {
      while (next < vids.length) await this.#loadOne(vids[next++] as Vid)
    }
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, vids.length) }, worker))
  }

  async #loadOne(vid: Vid): Promise<void> {
    try {
      this.#known.set(vid, await this.#access.readHeader(vid))
    } catch (error) {
      // One that has just gone, or nobody can make sense of, does not hide the others.
      const code = codeOf(error)
      if (code !== Code.NO_OBJ && code !== Code.VDI_READ) throw error
      this.#known.delete(vid)
    }
  }
}

function familiesOf(headers: Iterable<InodeHeader>): Families {
  const families = new Map<string, { working: InodeHeader | undefined; snapshots: InodeHeader[] }>()
  for (const header of headers) {
    if (header.name === '') continue
    const family = families.get(header.name) ?? { working: undefined, snapshots: [] }
    families.set(header.name, family)
    if (header.snapCtime === 0n) family.working = header
    else family.snapshots.push(header)
  }
  const found = new Map<string, Family>()
  for (const name of [...families.keys()].sort()) {
    const { working, snapshots } = families.get(name)!
    snapshots.sort((a, b) => a.snapId - b.snapId)
    found.set(name, { name, working, snapshots })
  }
  return found
}

export function createdMs(header: InodeHeader): number {
  return sdTimeSeconds(header.createTime) * 1000
}

export function takenMs(header: InodeHeader): number {
  return sdTimeSeconds(header.snapCtime) * 1000
}
