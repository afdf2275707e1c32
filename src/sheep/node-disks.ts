/**
 * What a node does about its disks: takes out the one that fails, the one it is told to, and in the one it is given.
 * Why a loss ends an epoch: lost.ts.
 */
import { Code, codeOf, SheepError } from '../base/codes.js'
import type { Log } from '../base/log.js'
import type { ClusterDriver } from '../cluster/driver.js'
import type { EpochLog } from '../store/epoch-log.js'
import type { DiskControl, LostObjects, ObjectStore } from '../store/object-store.js'
import type { World } from '../world/world.js'
import type { ClusterOps } from './cluster-ops.js'
import type { Recovery } from './recovery/engine.js'
import type { NodeState } from './state.js'

const RETRY_MS = 1_000

export interface NodeDisksOptions {
  readonly state: NodeState
  readonly store: Pick<ObjectStore, 'diskControl' | 'close'>
  readonly ops: Pick<ClusterOps, 'exclusively'>
  readonly recovery: Pick<Recovery, 'isWhole' | 'declareLost'>
  readonly epochLog: Pick<EpochLog, 'latest'>
  readonly driver: Pick<ClusterDriver, 'updateNode'>
  readonly world: Pick<World, 'clock'>
  readonly log: Log
  /** The node cannot go on. */
  readonly fail: (reason: string) => void
}

export class NodeDisks {
  readonly #options: NodeDisksOptions
  readonly #control: DiskControl
  #queue: Promise<void> = Promise.resolve()
  /** The epoch that is being asked to end. */
  #ending = 0

  constructor(options: NodeDisksOptions) {
    this.#options = options
    this.#control = options.store.diskControl
    this.#control.watch((path) => this.#failed(path))
  }

  /**
   * Before a node that has just started serves, and before it notes an epoch as its own. What it had on disks that
   * are missing it does not know any more; on a store that is new, whatever it had up to `current`, the
   * cluster's epoch.
   */
  async beforeServing(current: number): Promise<void> {
    const { state, epochLog, log } = this.#options
    if (state.status !== 'wait') return
    const missing = this.#control.unrecorded()
    const latest = epochLog.latest()
    const epoch = latest > 0 ? latest : current
    if ((missing.length === 0 && latest > 0) || epoch === 0) return
    if (missing.length > 0) log.error('disk.missing', { disks: missing.join(','), epoch })
    state.lost.add(epoch, 'everything')
    await this.#record(epoch)
  }

  /** An epoch is served. One in which something was lost must end before the lost objects can come back. */
  served(): void {
    const { state, driver, log } = this.#options
    const { epoch, lost } = state
    lost.served(epoch)
    if (state.status !== 'ok' || lost.epoch < epoch || this.#ending === epoch) return
    log.info('disk.new-epoch-asked', { epoch })
    try {
      driver.updateNode(state.self)
      this.#ending = epoch
    } catch (error) {
      // A driver that cannot announce anything brings a new epoch, or the end, when it is back.
      log.warn('disk.new-epoch-not-asked', { epoch, reason: String(error) })
    }
  }

  /** Takes disks in, one after the other. SUCCESS, or why one of them was not; the log says more. */
  plug(paths: readonly string[]): Promise<Code> {
    return this.#each(paths, 'disk.plug-refused', (path) => this.#control.plug(path))
  }

  /** Takes disks out whose objects have other copies. Codes as `plug`; NODE_IN_RECOVERY: not now. */
  unplug(paths: readonly string[]): Promise<Code> {
    return this.#each(paths, 'disk.unplug-refused', async (path) => {
      if (this.#options.state.status === 'ok') {
        // One disk at a time in the whole cluster: two at once may hold both copies of an object.
        await this.#options.ops.exclusively(() => this.#unplug(path))
      } else await this.#unplug(path)
    })
  }

  /** Everything on the disks is durable, or false: the log says what was not. The store is closed either way. */
  async close(): Promise<boolean> {
    try {
      await this.#options.store.close()
      return true
    } catch (error) {
      this.#options.log.error('store.not-all-durable', { reason: String(error) })
      return false
    }
  }

  /** Returns when the others know: their next check finds that not every copy is there. */
  async #unplug(path: string): Promise<void> {
    const { state, log } = this.#options
    this.#mayGo(path)
    await this.#lose(path, () => this.#control.unplug(path))
    log.info('disk.unplugged', { disk: path })
    while (state.status === 'ok' && state.lost.epoch >= state.epoch) {
      await new Promise<void>((resolve) => state.afterViewChange(resolve))
    }
  }

  #failed(path: string): void {
    const { log } = this.#options
    log.error('disk.failed', { disk: path })
    void this.#inTurn(async () => {
      const paths = this.#control.paths()
      if (!paths.includes(path)) return
      if (paths.length === 1) {
        this.#options.fail(`the last disk, ${path}, has failed: this node leaves the cluster`)
        return
      }
      await this.#lose(path, () => this.#control.drop(path))
    }).catch((error: unknown) => {
      this.#options.fail(`a failing disk, ${path}, could not be taken out of use: ${String(error)}`)
    })
  }

  async #lose(path: string, take: () => Promise<LostObjects>): Promise<void> {
    const { state, log } = this.#options
    const settled = state.lost.begin()
    try {
      const { everything, unsynced } = await take()
      const epoch = Math.max(state.epoch, this.#options.epochLog.latest())
      state.lost.add(epoch, everything)
      state.lost.addUnsynced(unsynced)
      await this.#record(epoch)
      log.warn('disk.lost', { disk: path, epoch, objects: everything.size })
    } finally {
      settled()
    }
    this.served()
  }

  /** Durable before anything lost can come back: a crash must not make the old copy pass for the new one. */
  async #record(epoch: number): Promise<void> {
    const { log } = this.#options
    for (;;) {
      try {
        await this.#options.recovery.declareLost(epoch)
        await this.#control.recordLoss(epoch)
        return
      } catch (error) {
        log.error('disk.loss-not-recorded', { reason: String(error) })
        await this.#pause()
      }
    }
  }

  /** Throws an Error, or a SheepError, that says why the disk has to stay. */
  #mayGo(path: string): void {
    const { state, recovery } = this.#options
    if (!this.#control.paths().includes(path)) throw new Error(`${path} is no disk of this sheep`)
    if (this.#control.paths().length === 1) throw new Error(`${path} is the last disk`)
    if (!state.formatted) return
    if (!recovery.isWhole) throw new SheepError(Code.NODE_IN_RECOVERY)
    const single = [...state.vids.all()].find(({ vid }) => state.copiesOf(vid) < 2)
    if (state.view.ring.zones < 2 || single !== undefined) {
      throw new Error(`objects on ${path} have no copy on another node`)
    }
  }

  async #each(
    paths: readonly string[],
    refusal: string,
    act: (path: string) => Promise<void>,
  ): Promise<Code> {
    for (const path of paths) {
      try {
        await this.#inTurn(() => act(path))
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error)
        this.#options.log.error(refusal, { disk: path, reason })
        return error instanceof SheepError ? codeOf(error) : Code.UNKNOWN
      }
    }
    return Code.SUCCESS
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#queue.then(work)
    this.#queue = turn.catch(() => undefined)
    return turn
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      this.#options.world.clock.after(RETRY_MS, resolve)
    })
  }
}
