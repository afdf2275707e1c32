/** Open files and directories of a mount, by the numbers the kernel has for them. */
import type { Listed, OpenFile } from './node.js'

export class Handles {
  readonly #files = new Map<number, OpenFile>()
  readonly #listings = new Map<number, readonly Listed[]>()
  #next = 1

  open(file: OpenFile): number {
    const handle = this.#next++
    this.#files.set(handle, file)
    return handle
  }

  file(handle: number): OpenFile | undefined {
    return this.#files.get(handle)
  }

  async close(handle: number): Promise<undefined> {
    const file = this.#files.get(handle)
    this.#files.delete(handle)
    await file?.close()
    return undefined
  }

  /** Rejects with the first failure; all are closed. */
  async closeAll(): Promise<void> {
    const closes = [...this.#files.keys()].map((handle) => this.close(handle))
    for (const result of await Promise.allSettled(closes)) {
      if (result.status === 'rejected') throw result.reason
    }
  }

  /** A listing stays as it was when the directory was opened: its pages belong together. */
  openDirectory(listed: readonly Listed[]): number {
    const handle = this.#next++
    this.#listings.set(handle, listed)
    return handle
  }

  listing(handle: number): readonly Listed[] | undefined {
    return this.#listings.get(handle)
  }

  closeDirectory(handle: number): undefined {
    this.#listings.delete(handle)
    return undefined
  }
}
