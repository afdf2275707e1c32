/** The layer that lets nothing be changed. */
import { Code, type Done } from '../base/codes.js'
import type { ByteRange, Extent, OwnedExtent, Volume } from './volume.js'

/** What reading needs; every Volume has it. */
export type Readable = Pick<
  Volume,
  'name' | 'sizeBytes' | 'objectBytes' | 'read' | 'extents' | 'owners' | 'close'
>

class ReadOnlyVolume implements Volume {
  readonly readOnly = true
  readonly #under: Readable

  constructor(under: Readable) {
    this.#under = under
  }

  get name(): string {
    return this.#under.name
  }

  get sizeBytes(): number {
    return this.#under.sizeBytes
  }

  get objectBytes(): number {
    return this.#under.objectBytes
  }

  read(offset: number, into: Uint8Array, done: Done): void {
    this.#under.read(offset, into, done)
  }

  write(_offset: number, _data: Uint8Array, _fua: boolean, done: Done): void {
    done(Code.READONLY)
  }

  zero(_range: ByteRange, _options: unknown, done: Done): void {
    done(Code.READONLY)
  }

  update(_range: ByteRange, _decide: unknown, _fua: boolean, done: Done): void {
    done(Code.READONLY)
  }

  discard(_range: ByteRange, _fua: boolean, done: Done): void {
    done(Code.READONLY)
  }

  /** Nothing was written through here. */
  flush(done: Done): void {
    done(Code.SUCCESS)
  }

  extents(range: ByteRange): Extent[] {
    return this.#under.extents(range)
  }

  owners(range: ByteRange): OwnedExtent[] | undefined {
    return this.#under.owners(range)
  }

  close(): Promise<void> {
    return this.#under.close()
  }
}

/** `under` for reading; changes complete with READONLY. Closing it closes `under`. */
export function readOnly(under: Readable): Volume {
  return new ReadOnlyVolume(under)
}
