/** An object of any size of which only the written pages take memory; the rest reads as zeros. */

const PAGE_BYTES = 64 * 1024

export class SparseBytes {
  readonly #pages = new Map<number, Buffer>()

  read(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length)
    for (const { page, at, start, count } of pagesOf(offset, length)) {
      this.#pages.get(page)?.copy(bytes, at, start, start + count)
    }
    return bytes
  }

  write(offset: number, data: Uint8Array): void {
    for (const { page, at, start, count } of pagesOf(offset, data.length)) {
      const bytes = this.#pages.get(page) ?? Buffer.alloc(PAGE_BYTES)
      this.#pages.set(page, bytes)
      bytes.set(data.subarray(at, at + count), start)
    }
  }

  copy(): SparseBytes {
    const twin = new SparseBytes()
    for (const [page, bytes] of this.#pages) twin.#pages.set(page, Buffer.from(bytes))
    return twin
  }
}

function* pagesOf(
  offset: number,
  length: number,
): Generator<{ page: number; at: number; start: number; count: number }> {
  for (let at = 0; at < length; ) {
    const start = (offset + at) % PAGE_BYTES
    const count = Math.min(PAGE_BYTES - start, length - at)
    yield { page: Math.floor((offset + at) / PAGE_BYTES), at, start, count }
    at += count
  }
}
