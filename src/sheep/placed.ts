/**
 * Which epoch the working objects on this node's disks are of. Written after everything not owned in that epoch
 * has been set aside: when a crash comes in between, the next start must not label what is left with an epoch
 * it did not live through, or the copy others look for would seem absent.
 */
import type { Files } from '../world/world.js'

const FILE = 'placed'

export class Placed {
  readonly #files: Files
  readonly #path: string

  constructor(files: Files, metaDirectory: string) {
    this.#files = files
    this.#path = `${metaDirectory}/${FILE}`
  }

  /** Undefined when nothing is known of this cluster: a store of sheepdog 1.0, or one that was formatted. */
  read(ctime: bigint): number | undefined {
    if (!this.#files.exists(this.#path)) return undefined
    const text = this.#files.readFile(this.#path).toString('latin1')
    const [, cluster, epoch] = /^([0-9a-f]+) (\d{1,10})\n$/.exec(text) ?? []
    return cluster === ctime.toString(16) ? Number(epoch) : undefined
  }

  /** Durable. Rejects with an errno error. */
  async write(ctime: bigint, epoch: number): Promise<void> {
    const text = `${ctime.toString(16)} ${epoch}\n`
    await this.#files.writeFileAtomic(this.#path, Buffer.from(text))
  }
}
