/**
 * From which epoch on it means something that this node lacks an object it owned then. What recovery concludes from
 * that ("nobody wrote it in that epoch") is false of a node whose disk was lost or replaced since: it must say that
 * it does not know, or an older version would win silently (defect O20).
 */
import type { EpochLog } from '../store/epoch-log.js'
import type { Files, World } from '../world/world.js'
import type { NodeState } from './state.js'

const FILE = 'witness'

export interface WitnessOptions {
  readonly world: Pick<World, 'files'>
  readonly metaDirectory: string
  readonly epochLog: EpochLog
}

export class Witness {
  readonly #files: Files
  readonly #path: string
  readonly #state: NodeState
  #isNew: boolean
  /** Of the cluster with that creation time; of others nothing is known, and all counts. */
  #since: { readonly ctime: string; readonly epoch: number } | undefined
  #saved = true

  constructor({ world, metaDirectory, epochLog }: WitnessOptions, state: NodeState) {
    const { files } = world
    this.#files = files
    this.#path = `${metaDirectory}/${FILE}`
    this.#state = state
    // Whatever a store without a history had before, it is not here.
    this.#isNew = epochLog.latest() === 0
    if (!files.exists(this.#path)) return
    const text = files.readFile(this.#path).toString('latin1')
    const [, ctime, epoch] = /^([0-9a-f]+) (\d{1,10})\n$/.exec(text) ?? []
    if (ctime !== undefined) this.#since = { ctime, epoch: Number(epoch) }
  }

  /** True: had the object been written in that epoch while this node owned it, it would be here. */
  knows(epoch: number): boolean {
    return (
      this.#since === undefined || this.#since.ctime !== this.#ctime || epoch >= this.#since.epoch
    )
  }

  /** This node serves an epoch; on a new store it knows nothing of the ones before. */
  serves(epoch: number): void {
    if (this.#isNew) this.#forget(epoch)
    this.#isNew = false
  }

  /** Objects went with a disk: what was written up to and in this epoch may have been among them. */
  lost(epoch: number): void {
    this.#forget(epoch + 1)
  }

  /** The cluster was formatted: there is nothing this node could have lost. */
  reset(): void {
    this.#isNew = false
    this.#since = undefined
  }

  /** Durable, when something has changed. Rejects with an errno error. */
  async save(): Promise<void> {
    const since = this.#since
    if (this.#saved || since === undefined) return
    await this.#files.writeFileAtomic(this.#path, Buffer.from(`${since.ctime} ${since.epoch}\n`))
    if (this.#since === since) this.#saved = true
  }

  get #ctime(): string {
    return this.#state.settings.ctime.toString(16)
  }

  #forget(before: number): void {
    const known = this.#since?.ctime === this.#ctime ? this.#since.epoch : 0
    this.#since = { ctime: this.#ctime, epoch: Math.max(known, before) }
    this.#saved = false
  }
}
