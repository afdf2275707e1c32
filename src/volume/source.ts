/** Where the doors of a sheep get their volumes: opened once, shared by all who use one name. */
import { codeName, codeOf } from '../base/codes.js'
import type { Log } from '../base/log.js'
import type { ObjectAccess, VdiAccess } from '../model/access.js'
import type { InodeHeader } from '../model/inode.js'
import type { Clock } from '../world/world.js'
import { ClusterVolume } from './cluster-volume.js'
import { contextNames, openContext } from './contexts.js'
import { exportsOf, infoOf, resolveExport } from './export-name.js'
import { HyperIndex } from './hyper-index.js'
import { HyperVolume } from './hyper-volume.js'
import { readOnly } from './read-only.js'
import { SharedVolume } from './shared-volume.js'
import { SnapshotVolume } from './snapshot-volume.js'
import { checkServable, isHyper, readVdi } from './vdi-reading.js'
import type { ExportInfo, Volume, VolumeContext, VolumeSource } from './volume.js'

/** The cluster as one user of it sees it. */
export interface ClusterAccess {
  readonly objects: ObjectAccess
  readonly vdis: VdiAccess
  /** Called when the volume it was made for is closed. */
  close?(): void
}

export interface VolumeSourceOptions extends ClusterAccess {
  readonly clock: Clock
  readonly log: Log
  /** Each opened volume has an access of its own; otherwise they share the one above. */
  readonly accessFor?: () => ClusterAccess
}

/** A volume that may have grown without having been told: by a write of its inode through another node. */
interface Growing extends Volume {
  /** Resolves when it has looked; never rejects. */
  catchUp(): Promise<void>
}

interface Entry {
  users: number
  readonly volume: Promise<Volume | Growing>
  readonly access: ClusterAccess
  /** Set when the last user has left: an open of the same name waits for it. */
  closing: Promise<void> | undefined
}

export function volumeSource(options: VolumeSourceOptions): VolumeSource {
  return new ClusterVolumes(options)
}

class ClusterVolumes implements VolumeSource {
  readonly #options: VolumeSourceOptions
  readonly #open = new Map<string, Entry>()

  constructor(options: VolumeSourceOptions) {
    this.#options = options
  }

  async list(): Promise<ExportInfo[]> {
    const headers = await this.#options.vdis.list()
    return exportsOf(headers.filter((header) => header.storePolicy === 0 || isHyper(header)))
  }

  async stat(name: string): Promise<ExportInfo & { readonly objectBytes: number }> {
    const { vdis } = this.#options
    const header = await vdis.readHeader((await resolveExport(vdis, name)).vid)
    checkServable(header)
    return { ...infoOf(name, header), objectBytes: 2 ** header.blockSizeShift }
  }

  async open(name: string): Promise<Volume> {
    const entry = await this.#enter(name)
    try {
      const volume = await entry.volume
      if (entry.users > 1 && 'catchUp' in volume) await this.#notice(volume)
      return new SharedVolume(volume, () => this.#leave(name, entry))
    } catch (error) {
      if (this.#open.get(name) === entry) this.#open.delete(name)
      throw error
    }
  }

  /** Who shares a volume sees the size it has now, and not the one it had when it was opened. */
  async #notice(volume: Growing): Promise<void> {
    // What cannot be looked up now is served to its other users as it was, and to this one.
    const now = await this.stat(volume.name).catch(() => undefined)
    if (now !== undefined && now.sizeBytes > volume.sizeBytes) await volume.catchUp()
  }

  /** Counts a user in; waits for a close under way, whatever becomes of it. */
  async #enter(name: string): Promise<Entry> {
    for (;;) {
      const entry = this.#open.get(name)
      if (entry === undefined) {
        const access = this.#options.accessFor?.() ?? this.#options
        const volume = this.#openVdi(name, access)
        const opened: Entry = { users: 1, volume, access, closing: undefined }
        this.#open.set(name, opened)
        volume.catch(() => access.close?.())
        return opened
      }
      if (entry.closing === undefined) {
        entry.users++
        return entry
      }
      await Promise.allSettled([entry.closing])
    }
  }

  async #leave(name: string, entry: Entry): Promise<void> {
    if (--entry.users > 0) return
    const closed = entry.volume.then((volume) => volume.close())
    entry.closing = closed.finally(() => {
      entry.access.close?.()
      this.#open.delete(name)
    })
    await entry.closing
  }

  contexts(name: string): Promise<string[]> {
    return contextNames(this.#options, name)
  }

  context(volume: Volume, contextName: string): Promise<VolumeContext> {
    return openContext(this.#options, volume, contextName)
  }

  async #openVdi(name: string, access: ClusterAccess): Promise<Volume | Growing> {
    const { objects, vdis } = access
    const target = await resolveExport(vdis, name)
    if (!target.isSnapshot) return this.#openWorking(name, access)
    // Nobody locks a snapshot: but that it is open is known (sheep/recycling.ts).
    const forget = vdis.onChange(target.vid, () => undefined)
    try {
      const image = await readVdi(vdis, target.vid)
      return readOnly(new SnapshotVolume({ name, image, objects, closed: forget }))
    } catch (error) {
      forget()
      throw error
    }
  }

  async #openHyper(name: string, header: InodeHeader, access: ClusterAccess): Promise<Growing> {
    checkServable(header)
    const { objects, vdis } = access
    const index = await HyperIndex.load({ objects, header })
    const volume = new HyperVolume({ objects, vdis, name, header, index })
    volume.refresh()
    return volume
  }

  async #openWorking(name: string, { objects, vdis }: ClusterAccess): Promise<Growing> {
    const { clock, log } = this.#options
    const vid = await vdis.lock(name)
    let isChanged = false
    const forget = vdis.onChange(vid, () => {
      isChanged = true
    })
    try {
      const header = await vdis.readHeader(vid)
      if (isHyper(header)) return await this.#openHyper(name, header, { objects, vdis })
      const image = await readVdi(vdis, vid)
      const volume = new ClusterVolume({
        ...{ objects, vdis, clock, log },
        ...{ name, vdiName: name, image },
      })
      if (isChanged) volume.refresh()
      return volume
    } catch (error) {
      await vdis.unlock(vid).catch((reason: unknown) => {
        log.warn('volume.unlock-failed', { name, code: codeName(codeOf(reason)) })
      })
      throw error
    } finally {
      forget()
    }
  }
}
