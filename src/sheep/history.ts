/**
 * What survives a restart besides objects: the config file, the epoch log, and up to which epoch copies of
 * removed objects may still be somewhere (`gathered`: the cluster's creation time and the epoch), and the newest
 * epoch an administrator forced (`forced`, the same way). With the epoch comes the note of the volumes there are.
 */
import { type StoreConfig, writeConfig } from '../store/config.js'
import type { EpochLog } from '../store/epoch-log.js'
import type { ClusterInfo } from '../wire/sheepdog/records.js'
import type { Clock, Files } from '../world/world.js'
import { noteVolumes, recallVolumes } from './noted-volumes.js'
import type { VidTable } from './vid-table.js'

const GATHERED = 'gathered'
const FORCED = 'forced'

export interface HistoryOptions {
  readonly files: Files
  readonly clock: Clock
  readonly epochLog: EpochLog
  readonly config: StoreConfig
  readonly metaDirectory: string
  /** Filled with what was noted of volumes. */
  readonly vids: VidTable
}

export class History {
  readonly #files: Files
  readonly #clock: Clock
  readonly #epochLog: EpochLog
  readonly #metaDirectory: string
  readonly #vids: VidTable
  #config: StoreConfig

  /** Throws when the note of volumes is damaged. */
  constructor(options: HistoryOptions) {
    this.#files = options.files
    this.#clock = options.clock
    this.#epochLog = options.epochLog
    this.#metaDirectory = options.metaDirectory
    this.#vids = options.vids
    this.#config = options.config
    recallVolumes(options, { ctime: options.config.createdAt, epoch: options.epochLog.latest() })
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
      gathered: this.#noted(GATHERED),
      forced: this.#noted(FORCED),
      nodes: this.#epochLog.read(epoch)?.nodes ?? [],
    }
  }

  /** Every node has everything it owns in `epoch`. */
  async recordGathered(epoch: number): Promise<void> {
    await this.#note(GATHERED, epoch, this.#config.createdAt)
  }

  async #note(file: string, epoch: number, ctime: bigint): Promise<void> {
    const text = `${ctime.toString(16)} ${epoch}\n`
    await this.#files.writeFileAtomic(`${this.#metaDirectory}/${file}`, Buffer.from(text))
  }

  /** 0 when nothing is known; a file of a cluster formatted since says nothing. */
  #noted(file: string): number {
    const noted = this.#read(file)
    if (noted?.ctime !== this.#config.createdAt) return 0
    return noted.epoch <= this.#epochLog.latest() ? noted.epoch : 0
  }

  #read(file: string): { readonly ctime: bigint; readonly epoch: number } | undefined {
    const path = `${this.#metaDirectory}/${file}`
    if (!this.#files.exists(path)) return undefined
    const text = this.#files.readFile(path).toString('latin1')
    const [, ctime, epoch] = /^([0-9a-f]{1,16}) (\d{1,10})\n$/.exec(text) ?? []
    return ctime === undefined ? undefined : { ctime: BigInt(`0x${ctime}`), epoch: Number(epoch) }
  }

  /** Durable before anything is served under `info`. */
  async record(info: ClusterInfo): Promise<void> {
    // Before the epoch itself: a note of an epoch that is not in the log yet says nothing.
    const { forced = 0 } = info
    const before = this.#read(FORCED)
    if (before?.ctime !== info.ctime || before.epoch !== forced) {
      if (before !== undefined || forced > 0) await this.#note(FORCED, forced, info.ctime)
    }
    // And the volumes: who starts from the epoch may have nothing else of those that went before it began.
    const noted = { files: this.#files, metaDirectory: this.#metaDirectory, vids: this.#vids }
    await noteVolumes(noted, info)
    // The config first: an epoch without the creation time it belongs to would be one of another cluster.
    await this.#save(info, false)
    if (this.#epochLog.latest() === info.epoch) return
    const time = Math.floor(this.#clock.now() / 1000)
    await this.#epochLog.write(info.epoch, { nodes: info.nodes, time })
  }

  /** The default of volumes made from now on. */
  async recordCopies(copies: number): Promise<void> {
    this.#config = { ...this.#config, copies }
    await writeConfig(this.#files, this.#metaDirectory, this.#config)
  }

  /** What this node announces; durable before it does. */
  async recordSpace(spaceBytes: number): Promise<void> {
    this.#config = { ...this.#config, spaceBytes }
    await writeConfig(this.#files, this.#metaDirectory, this.#config)
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
