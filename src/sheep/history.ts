/**
 * What survives a restart besides objects: the config file, the epoch log, and up to which epoch copies of
 * removed objects may still be somewhere (`gathered`: the cluster's creation time and the epoch).
 */
import { type StoreConfig, writeConfig } from '../store/config.js'
import type { EpochLog } from '../store/epoch-log.js'
import type { ClusterInfo } from '../wire/sheepdog/records.js'
import type { Clock, Files } from '../world/world.js'

export interface HistoryOptions {
  readonly files: Files
  readonly clock: Clock
  readonly epochLog: EpochLog
  readonly config: StoreConfig
  readonly metaDirectory: string
}

export class History {
  readonly #files: Files
  readonly #clock: Clock
  readonly #epochLog: EpochLog
  readonly #metaDirectory: string
  #config: StoreConfig

  constructor(options: HistoryOptions) {
    this.#files = options.files
    this.#clock = options.clock
    this.#epochLog = options.epochLog
    this.#metaDirectory = options.metaDirectory
    this.#config = options.config
  }

  /** The whole cluster was shut down in order, and nothing has been served since. */
  get wasCleanShutdown(): boolean {
    return this.#config.cleanShutdown
  }

  /** The cluster as this node last knew it. */
  clusterInfo(): ClusterInfo {
    const config = this.#config
    const epoch = this.#epochLog.latest()
    return {
      version: 0,
      recoveryDisabled: false,
      epoch,
      ctime: config.createdAt,
      flags: config.flags,
      copies: config.copies,
      policy: config.copyPolicy,
      status: 'wait',
      blockSizeShift: config.blockSizeShift,
      store: config.storeName,
      gathered: this.#gathered(),
      nodes: this.#epochLog.read(epoch)?.nodes ?? [],
    }
  }

  /** Every node has everything it owns in `epoch`. */
  async recordGathered(epoch: number): Promise<void> {
    const text = `${this.#config.createdAt.toString(16)} ${epoch}\n`
    await this.#files.writeFileAtomic(this.#gatheredPath, Buffer.from(text))
  }

  get #gatheredPath(): string {
    return `${this.#metaDirectory}/gathered`
  }

  /** 0 when nothing is known; a file of a cluster formatted since says nothing. */
  #gathered(): number {
    if (!this.#files.exists(this.#gatheredPath)) return 0
    const text = this.#files.readFile(this.#gatheredPath).toString('latin1')
    const [, ctime, epoch] = /^([0-9a-f]+) (\d{1,10})\n$/.exec(text) ?? []
    const isOurs = ctime === this.#config.createdAt.toString(16)
    return isOurs && Number(epoch) <= this.#epochLog.latest() ? Number(epoch) : 0
  }

  /** Durable before anything is served under `info`. */
  async record(info: ClusterInfo): Promise<void> {
    if (this.#epochLog.latest() !== info.epoch) {
      const time = Math.floor(this.#clock.now() / 1000)
      await this.#epochLog.write(info.epoch, { nodes: info.nodes, time })
    }
    await this.#save(info, false)
  }

  /** `clean`: every object is where it belongs, so the next start need not look. */
  recordShutdown(info: ClusterInfo, clean: boolean): Promise<void> {
    return this.#save(info, clean)
  }

  async #save(info: ClusterInfo, cleanShutdown: boolean): Promise<void> {
    this.#config = {
      createdAt: info.ctime,
      flags: info.flags,
      copies: info.copies,
      copyPolicy: info.policy,
      blockSizeShift: info.blockSizeShift,
      storeName: info.store,
      cleanShutdown,
      spaceBytes: this.#config.spaceBytes,
    }
    await writeConfig(this.#files, this.#metaDirectory, this.#config)
  }
}
