/** What the nodes of a mount share. */
import type { RemoteVolumes } from '../remote/remote-volumes.js'
import type { Clock } from '../world/world.js'
import type { Catalogue } from './catalogue.js'
import type { DiskTimes } from './disk-times.js'
import type { Disks } from './disks.js'
import type { Remembered } from './text-file.js'

export interface FsContext {
  readonly volumes: RemoteVolumes
  readonly catalogue: Catalogue
  readonly disks: Disks
  readonly times: DiskTimes
  readonly remembered: Remembered
  readonly clock: Clock
  readonly readOnly: boolean
  /** Disks go through the kernel's page cache: config/page_cache. */
  pageCache: boolean
  /** Keys of attributes that were used through this mount, by VDI. */
  readonly attributeKeys: Map<string, Set<string>>
  /** What `dog` prints for these words; rejects with a FsError when it fails. */
  readonly dog: (words: readonly string[]) => Promise<string>
  /** `127.0.0.1:7000`, for people. */
  readonly sheep: string
  readonly mountedMs: number
}
