/** What a node is made of. */
import type { Log } from '../base/log.js'
import type { ClusterDriver } from '../cluster/driver.js'
import type { SdNode } from '../model/node.js'
import type { StoreConfig } from '../store/config.js'
import type { EpochLog } from '../store/epoch-log.js'
import type { InFlightLog } from '../store/in-flight-log.js'
import type { ObjectStore } from '../store/object-store.js'
import type { World } from '../world/world.js'
import type { CacheOptions } from './cache/object-cache.js'
import type { RecoveryPlan } from './recovery/plan.js'

export interface NodeOptions {
  readonly world: World
  readonly log: Log
  readonly self: SdNode
  readonly driver: ClusterDriver
  readonly store: ObjectStore
  readonly epochLog: EpochLog
  readonly inFlightLog: InFlightLog
  readonly config: StoreConfig
  readonly metaDirectory: string
  readonly recovery?: RecoveryPlan | undefined
  /** Undefined: nothing is cached. */
  readonly cache?: CacheOptions | undefined
  /**
   * The node is over: killed, shut down, or unable to go on (then with the reason). `again`: the cluster has
   * gone on without it; started anew on its store it may come back, as after a crash.
   */
  readonly over: (reason: string | undefined, again?: boolean) => void
}
