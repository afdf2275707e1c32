/** A snapshot as something to read: its slots never change. */
import { Code, type Done } from '../base/codes.js'
import type { ObjectAccess } from '../model/access.js'
import { byPieces } from './cut.js'
import type { Readable } from './read-only.js'
import { SlotTable } from './slot-table.js'
import type { VdiImage } from './vdi-reading.js'
import type { ByteRange, Extent, OwnedExtent } from './volume.js'

export interface SnapshotVolumeOptions {
  readonly name: string
  readonly image: VdiImage
  readonly objects: ObjectAccess
  /** Called when it is closed. */
  readonly closed: () => void
}

export class SnapshotVolume implements Readable {
  readonly name: string
  readonly sizeBytes: number
  readonly objectBytes: number
  readonly #objects: ObjectAccess
  readonly #table: SlotTable
  readonly #closed: () => void

  constructor(options: SnapshotVolumeOptions) {
    const { name, image, objects } = options
    this.name = name
    this.sizeBytes = image.header.sizeBytes
    this.objectBytes = 2 ** image.header.blockSizeShift
    this.#objects = objects
    this.#table = new SlotTable(objects, image.slots)
    this.#closed = options.closed
  }

  read(offset: number, into: Uint8Array, done: Done): void {
    byPieces(offset, into, this.objectBytes, this.#readSlot, done)
  }

  readonly #readSlot = (slot: number, at: number, into: Uint8Array, done: Done): void => {
    if (into.length > 0 && this.#table.vid(slot) !== 0) {
      this.#objects.read(this.#table.ref(slot), at, into, done)
    } else {
      into.fill(0)
      done(Code.SUCCESS)
    }
  }

  extents(range: ByteRange): Extent[] {
    return this.#table.extents(range, this.objectBytes)
  }

  owners(range: ByteRange): OwnedExtent[] {
    return this.#table.owners(range, this.objectBytes)
  }

  /** Snapshots are not locked. */
  async close(): Promise<void> {
    await Promise.resolve()
    this.#closed()
  }
}
