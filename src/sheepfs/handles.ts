/** Open files and directories of a mount, by the numbers the kernel has for them. */
import { encodeDirEntries } from '../wire/fuse/replies.js'
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

export interface PageWish {
  readonly self: number
  /** Place of the first entry; 0 and 1 are `.` and `..`. */
  readonly from: number
  readonly bytesMax: number
  readonly idOf: (name: string) => number
}

export function listingPage(listed: readonly Listed[], wish: PageWish): Buffer {
  const { self, from, bytesMax, idOf } = wish
  // No page holds more than this many of the smallest entries.
  const most = Math.ceil(bytesMax / 32) + 2
  const dots = ['.', '..'].map((name) => ({ node: self, name, isDirectory: true }))
  const first = Math.max(0, from - dots.length)
  const some = listed.slice(first, first + most).map(({ name, isDirectory }) => {
    return { node: idOf(name), name, isDirectory }
  })
  const all = from < dots.length ? [...dots, ...some] : some
  const page = encodeDirEntries(all, from < dots.length ? from : 0, bytesMax)
  return from < dots.length ? page : shifted(page, from)
}

/** The offsets of the entries, counted from the beginning of the listing. */
function shifted(page: Buffer, by: number): Buffer {
  for (let at = 0; at < page.length; ) {
    const next = page.readUInt32LE(at + 8) + by
    page.writeUInt32LE(next, at + 8)
    at += Math.ceil((24 + page.readUInt32LE(at + 16)) / 8) * 8
  }
  return page
}
