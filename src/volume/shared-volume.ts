/** One user's share of a volume that several use: closing it twice counts once. */
import { Code, type Done } from '../base/codes.js'
import type { ByteRange, Decide, Extent, OwnedExtent, Volume, ZeroOptions } from './volume.js'

export class SharedVolume implements Volume {
  readonly name: string
  readonly readOnly: boolean
  readonly objectBytes: number
  readonly #under: Volume
  readonly #leave: () => Promise<void>
  #closing: Promise<void> | undefined

  constructor(under: Volume, leave: () => Promise<void>) {
    this.name = under.name
    this.readOnly = under.readOnly
    this.objectBytes = under.objectBytes
    this.#under = under
    this.#leave = leave
  }

  get sizeBytes(): number {
    return this.#under.sizeBytes
  }

  /** Operations after the close would reach a VDI whose lock is gone. */
  get #isOpen(): boolean {
    return this.#closing === undefined
  }

  read(offset: number, into: Uint8Array, done: Done): void {
    if (this.#isOpen) this.#under.read(offset, into, done)
    else done(Code.SHUTDOWN)
  }

  write(offset: number, data: Uint8Array, fua: boolean, done: Done): void {
    if (this.#isOpen) this.#under.write(offset, data, fua, done)
    else done(Code.SHUTDOWN)
  }

  zero(range: ByteRange, options: ZeroOptions, done: Done): void {
    if (this.#isOpen) this.#under.zero(range, options, done)
    else done(Code.SHUTDOWN)
  }

  update(range: ByteRange, decide: Decide, fua: boolean, done: Done): void {
    if (this.#isOpen) this.#under.update(range, decide, fua, done)
    else done(Code.SHUTDOWN)
  }

  discard(range: ByteRange, fua: boolean, done: Done): void {
    if (this.#isOpen) this.#under.discard(range, fua, done)
    else done(Code.SHUTDOWN)
  }

  flush(done: Done): void {
    if (this.#isOpen) this.#under.flush(done)
    else done(Code.SHUTDOWN)
  }

  extents(range: ByteRange): Extent[] {
    return this.#under.extents(range)
  }

  owners(range: ByteRange): OwnedExtent[] | undefined {
    return this.#under.owners(range)
  }

  close(): Promise<void> {
    this.#closing ??= this.#leave()
    return this.#closing
  }
}
