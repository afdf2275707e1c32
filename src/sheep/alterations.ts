/**
 * Volumes whose number of copies changes (ALTER_VDI_COPY). The new number counts from the next epoch on, on every
 * node alike: within one epoch an object must not have owners that miss some of its writes.
 *
 * Until everybody has everything again, the fewest copies a volume has had is remembered, on disk as well: of an
 * earlier epoch only those first owners can witness that nothing was written, for the others may have come later.
 *
 *   <meta>/altered:   ctime, hex | volume id, hex, and copies, one a line
 */
import { asVid, type Vid } from '../model/oid.js'
import type { Files } from '../world/world.js'
import type { VidTable } from './vid-table.js'

export interface AlterationsOptions {
  readonly files: Files
  readonly metaDirectory: string
  readonly vids: VidTable
}

export class Alterations {
  readonly #options: AlterationsOptions
  readonly #path: string
  readonly #pending = new Map<Vid, number>()
  /** The file as it is, of the cluster it is of; undefined until it has been read. */
  #onDisk: string | undefined

  constructor(options: AlterationsOptions) {
    this.#options = options
    this.#path = `${options.metaDirectory}/altered`
  }

  /** The volume gets so many copies when the next epoch begins. */
  announce(vid: Vid, copies: number): void {
    this.#pending.set(vid, copies)
  }

  /** An epoch begins: durable before anything is served in it. Rejects with an errno error. */
  async apply(ctime: bigint): Promise<void> {
    const { vids } = this.#options
    if (this.#onDisk === undefined) this.#recall(ctime)
    for (const [vid, copies] of this.#pending) {
      const state = vids.get(vid)
      if (state === undefined) continue
      const least = Math.min(state.leastCopies ?? state.copies, state.copies, copies)
      vids.put({ ...state, copies, leastCopies: least })
    }
    this.#pending.clear()
    await this.#write(ctime)
  }

  /** Everybody has everything: what was before does not matter any more. */
  async clear(ctime: bigint): Promise<void> {
    const { vids } = this.#options
    for (const { leastCopies, ...state } of [...vids.all()]) {
      if (leastCopies !== undefined) vids.put(state)
    }
    await this.#write(ctime)
  }

  #recall(ctime: bigint): void {
    const { files, vids } = this.#options
    this.#onDisk = files.exists(this.#path) ? files.readFile(this.#path).toString('latin1') : ''
    const [cluster, ...lines] = this.#onDisk.split('\n')
    if (cluster !== ctime.toString(16)) return
    for (const line of lines) {
      const [, vid = '0', copies] = /^([0-9a-f]{1,6}) (\d{1,2})$/.exec(line) ?? []
      const state = vids.get(asVid(Number.parseInt(vid, 16)))
      if (copies === undefined || state === undefined) continue
      vids.put({ ...state, leastCopies: Math.min(state.leastCopies ?? 255, Number(copies)) })
    }
  }

  async #write(ctime: bigint): Promise<void> {
    const { files, vids } = this.#options
    const lines = [...vids.all()].flatMap(({ vid, leastCopies }) =>
      leastCopies === undefined ? [] : [`${vid.toString(16)} ${leastCopies}\n`],
    )
    const text = lines.length === 0 ? '' : `${ctime.toString(16)}\n${lines.join('')}`
    if (text === this.#onDisk) return
    await files.writeFileAtomic(this.#path, Buffer.from(text))
    this.#onDisk = text
  }
}
