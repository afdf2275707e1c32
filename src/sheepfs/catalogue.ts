/**
 * Which VDIs and snapshots there are, for look-ups and listings: asked of the cluster at most once a second. Of ten thousand only
 * the ones that are new since then are read, and the ones that may have become snapshots; everything once a minute, while nobody
 * waits for it.
 */
import { Code, codeOf, SheepError } from '../base/codes.js'
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

export type CatalogueAccess = Pick<
  RemoteAccess,
  'find' | 'living' | 'heads' | 'readHeader' | 'headerIfAny'
>

interface Fresh {
  readonly header: InodeHeader
  readonly atMs: number
}

export class Catalogue {
  readonly #access: CatalogueAccess
  readonly #clock: Clock
  readonly #known = new Map<Vid, InodeHeader>()
  readonly #fresh = new Map<Vid, Fresh>()
  /** Up to date but for the names in `#touched`. */
  readonly #families = new Map<string, Family>()
  readonly #touched = new Set<string>()
  readonly #byName = new Map<string, Set<Vid>>()
  #readAt = Number.NEGATIVE_INFINITY
  #completeAt = Number.NEGATIVE_INFINITY
  #reading: Promise<Families> | undefined
  /** Counts changes. What was asked for before a name was changed says nothing of it afterwards. */
  #generation = 0
  /** The last one after which the cluster has to be asked what there is. */
  #unknownSince = 0
  readonly #changes = new Map<string, number>()
  readonly #made = new Map<Vid, number>()
  #reads = 0

  constructor(access: CatalogueAccess, clock: Clock) {
    this.#access = access
    this.#clock = clock
  }

  /** As they were last seen; it goes with the times. */
  get latest(): Families {
    return this.#families
  }

  /** Rejects with a SheepError. */
  families(): Promise<Families> {
    if (this.#clock.monotonic() - this.#readAt < BELIEVED_MS) {
      return Promise.resolve(this.#families)
    }
    if (this.#reading !== undefined) return this.#reading
    const reading = this.#counted(() => this.#read()).finally(() => {
      if (this.#reading === reading) this.#reading = undefined
    })
    this.#reading = reading
    return reading
  }

  /** Undefined when there is none of this name: the cluster is asked then, it may have been made just now. */
  async family(name: string): Promise<Family | undefined> {
    const known = (await this.families()).get(name)
    if (known !== undefined) return known
    let vid: Vid
    try {
      vid = await this.#access.find(name, { kind: 'working' })
    } catch (error) {
      if (codeOf(error) === Code.NO_VDI) return undefined
      throw error
    }
    // Where ids are given out again it may be known by the name of a VDI that is gone.
    this.#forget(vid)
    this.#askAgain()
    return (await this.families()).get(name)
  }

  /** The inode as it was less than a second ago. Rejects with NO_VDI when it is gone. */
  async header(vid: Vid): Promise<InodeHeader> {
    const now = this.#clock.monotonic()
    const fresh = this.#fresh.get(vid)
    if (fresh !== undefined && now - fresh.atMs < BELIEVED_MS) return fresh.header
    const generation = this.#generation
    const header = await this.#access.readHeader(vid)
    if (this.#fresh.size >= FRESH_MAX) this.#fresh.clear()
    if (generation === this.#generation) this.#fresh.set(vid, { header, atMs: now })
    return header
  }

  /** A VDI or a snapshot of this name was made or removed through this mount: they are asked for again. */
  changed(name: string): void {
    for (const vid of [...(this.#byName.get(name) ?? [])]) this.#forget(vid)
    this.#fresh.clear()
    this.#askAgain()
    if (this.#reads > 0) this.#changes.set(name, this.#generation)
  }

  /** A VDI was made through this mount, and nothing else has changed. Rejects with the SheepError of reading its inode. */
  async made(vid: Vid): Promise<void> {
    this.#know(vid, await this.#access.readHeader(vid))
    this.#generation++
    if (this.#reads > 0) this.#made.set(vid, this.#generation)
    this.#regroup()
  }

  #askAgain(): void {
    this.#unknownSince = ++this.#generation
    this.#readAt = Number.NEGATIVE_INFINITY
    this.#reading = undefined
  }

  get #isFirst(): boolean {
    return this.#completeAt === Number.NEGATIVE_INFINITY
  }

  #know(vid: Vid, header: InodeHeader): void {
    const { name } = header
    if (this.#known.get(vid)?.name !== name) this.#forget(vid)
    this.#known.set(vid, header)
    this.#touched.add(name)
    const vids = this.#byName.get(name) ?? new Set()
    this.#byName.set(name, vids.add(vid))
  }

  #forget(vid: Vid): void {
    const name = this.#known.get(vid)?.name
    if (name === undefined) return
    this.#known.delete(vid)
    this.#touched.add(name)
    const vids = this.#byName.get(name)
    vids?.delete(vid)
    if (vids?.size === 0) this.#byName.delete(name)
  }

  /** Sorts what was touched into its families. */
  #regroup(): void {
    for (const name of this.#touched) {
      const headers = [...(this.#byName.get(name) ?? [])].map((vid) => this.#known.get(vid)!)
      if (headers.length === 0 || name === '') this.#families.delete(name)
      else this.#families.set(name, familyOf(name, headers))
    }
    this.#touched.clear()
  }

  async #read(): Promise<Families> {
    const generation = this.#generation
    const askedAt = this.#clock.monotonic()
    if (this.#isFirst) await this.#loadAll(generation)
    const vids = await this.#access.living()
    const living = new Set(vids)
    for (const vid of [...this.#known.keys()]) {
      if (!living.has(vid) && (this.#made.get(vid) ?? 0) <= generation) this.#forget(vid)
    }
    const wanted = vids.filter((vid) => !this.#known.has(vid))
    await this.#load(wanted, generation)
    // Who has a new child may have become a snapshot by it, before or after it was read.
    const parents = new Set(wanted.map((vid) => (this.#known.get(vid)?.parent ?? 0) as Vid))
    if (!this.#isFirst)
      await this.#load(
        [...parents].filter((vid) => living.has(vid)),
        generation,
      )
    // Overtaken by a change: whoever waits for this gets what is so after it.
    if (this.#unknownSince > generation) return this.families()
    this.#regroup()
    this.#readAt = askedAt
    this.#refreshNowAndThen(askedAt)
    return this.#families
  }

  /** All of them, while everybody goes on with what is known. When it fails the next one may not. */
  #refreshNowAndThen(now: number): void {
    if (now - this.#completeAt < COMPLETE_MS) return
    const isFirst = this.#isFirst
    this.#completeAt = now
    if (isFirst) return
    const generation = this.#generation
    const load = async (): Promise<void> => {
      const isDone = await this.#loadAll(generation)
      if (!isDone) await this.#load([...this.#known.keys()], generation)
    }
    this.#counted(load).catch((error: unknown) => {
      if (!(error instanceof SheepError)) throw error
    })
  }

  /** What changed during a read is remembered as long as one is under way. */
  async #counted<T>(read: () => Promise<T>): Promise<T> {
    this.#reads++
    try {
      return await read()
    } finally {
      if (--this.#reads === 0) {
        this.#changes.clear()
        this.#made.clear()
      }
    }
  }

  /** False: this sheep tells them one by one. */
  #loadAll(generation: number): Promise<boolean> {
    return this.#access.heads((header) => this.#take(header.vid, header, generation))
  }

  #take(vid: Vid, header: InodeHeader, generation: number): void {
    if ((this.#changes.get(header.name) ?? 0) <= generation) this.#know(vid, header)
  }

  async #load(vids: readonly Vid[], generation: number): Promise<void> {
    let next = 0
    const worker = async (): Promise<void> => {
      while (next < vids.length) await this.#loadOne(vids[next++]!, generation)
    }
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, vids.length) }, worker))
  }

  /** One that has just gone, or nobody can make sense of, does not hide the others. */
  async #loadOne(vid: Vid, generation: number): Promise<void> {
    const header = await this.#access.headerIfAny(vid)
    if (header === undefined) this.#forget(vid)
    else this.#take(vid, header, generation)
  }
}

function familyOf(name: string, headers: readonly InodeHeader[]): Family {
  const snapshots = headers.filter(({ snapCtime }) => snapCtime !== 0n)
  snapshots.sort((a, b) => a.snapId - b.snapId)
  return { name, working: headers.findLast(({ snapCtime }) => snapCtime === 0n), snapshots }
}

export function createdMs(header: InodeHeader): number {
  return sdTimeSeconds(header.createTime) * 1000
}

export function takenMs(header: InodeHeader): number {
  return sdTimeSeconds(header.snapCtime) * 1000
}
