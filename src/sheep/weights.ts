/**
 * How much of the cluster's data this node takes: announced anew when its space has changed (`dog cluster
 * reweight`) or an administrator sets its vnodes. Everybody hears of it in the order of events and takes the next
 * epoch (cluster spec, section 8).
 */
import { Code, codeOf } from '../base/codes.js'
import type { Log } from '../base/log.js'
import type { ClusterDriver } from '../cluster/driver.js'
import type { SdNode } from '../model/node.js'
import type { ObjectStore } from '../store/object-store.js'
import { ClusterFlag } from '../wire/sheepdog/opcodes.js'
import type { NodeState } from './state.js'

/** Smaller differences are not worth moving objects for; 1.0's rule. */
const CHANGE_LEAST = 0.01
const VNODES_MAX = 65535

export interface WeightsOptions {
  readonly state: NodeState
  readonly store: Pick<ObjectStore, 'space'>
  readonly driver: Pick<ClusterDriver, 'updateNode'>
  readonly log: Log
  /** Makes the space durable: a restart must announce the same. */
  readonly record: (spaceBytes: number) => Promise<void>
}

export class Weights {
  readonly #options: WeightsOptions

  constructor(options: WeightsOptions) {
    this.#options = options
  }

  /**
   * GATEWAY_MODE, INVALID_VNODES_STRATEGY (the cluster computes the numbers) or INVALID_PARMS where it cannot be
   * done; SUCCESS once the driver has taken the announcement.
   */
  setVnodes(vnodes: number): Code {
    const { state } = this.#options
    if (state.self.vnodes === 0) return Code.GATEWAY_MODE
    if (state.has(ClusterFlag.AUTO_VNODES)) return Code.INVALID_VNODES_STRATEGY
    if (vnodes < 1 || vnodes > VNODES_MAX) return Code.INVALID_PARMS
    if (vnodes === state.self.vnodes) return Code.SUCCESS
    return this.#announce({ ...state.self, vnodes })
  }

  /** Measures the disks. Rejects with an errno error when the new space cannot be recorded. */
  async measure(): Promise<Code> {
    const { state, store, log, record } = this.#options
    const { self } = state
    if (self.vnodes === 0) return Code.SUCCESS
    const { usedBytes, freeBytes } = store.space()
    const spaceBytes = usedBytes + freeBytes
    if (Math.abs(spaceBytes - self.spaceBytes) < self.spaceBytes * CHANGE_LEAST) return Code.SUCCESS
    log.info('node.reweight', { from: self.spaceBytes, to: spaceBytes })
    await record(spaceBytes)
    return this.#announce({ ...state.self, spaceBytes })
  }

  /** Nothing about this node has changed: everybody takes the next epoch for another reason. */
  nextEpoch(): Code {
    return this.#announce(this.#options.state.self)
  }

  #announce(node: SdNode): Code {
    try {
      this.#options.driver.updateNode(node)
      return Code.SUCCESS
    } catch (error) {
      this.#options.log.warn('node.reweight.failed', { reason: String(error) })
      return codeOf(error)
    }
  }
}
