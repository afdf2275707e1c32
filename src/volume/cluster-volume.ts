/**
 * A plain VDI (one slot an object) as a block device, on top of object operations. Requests are cut
 * at object borders. A slot that is 0 is a hole; one that names another volume is inherited and gets
 * an object of its own when it is written.
 */
import { zeros } from '../base/bytes.js'
import { Code, type Done, SheepError } from '../base/codes.js'
import type { Log } from '../base/log.js'
import type { ObjectAccess, VdiAccess } from '../model/access.js'
import type { Clock } from '../world/world.js'
import { byPieces, type Cut, cutRange, type Piece, type PieceStep, piecesOf } from './cut.js'
import { Flusher } from './flusher.js'
import { ALL_ZERO, SlotChanges } from './slot-changes.js'
import { SlotGate } from './slot-gate.js'
import { SlotTable } from './slot-table.js'
import { updateSlots } from './slot-update.js'
import { spread } from './spread.js'
import type { VdiImage } from './vdi-reading.js'
import type { ByteRange, Decide, Extent, OwnedExtent, Volume, ZeroOptions } from './volume.js'
import { WorkingVdi } from './working-vdi.js'

/** Slots of one update of the inode. */
const SLOTS_PER_UPDATE_MAX = 1024
/** Objects one request fills with zeros at once, and bytes of one such write. */
const ZEROED_AT_ONCE_MAX = 4
const ZERO_WRITE_BYTES_MAX = 4 * 1024 * 1024

export interface ClusterVolumeOptions {
  readonly name: string
  /** The working VDI's own name: where its successor is found. */
  readonly vdiName: string
  readonly image: VdiImage
  readonly objects: ObjectAccess
  readonly vdis: VdiAccess
  readonly clock: Clock
  readonly log: Log
}

export class ClusterVolume implements Volume {
  readonly name: string
  readonly readOnly = false
  readonly objectBytes: number
  readonly #objects: ObjectAccess
  readonly #vdis: VdiAccess
  readonly #table: SlotTable
  readonly #gate: SlotGate
  readonly #working: WorkingVdi
  readonly #changes: SlotChanges
  readonly #flusher: Flusher
  #sizeBytes: number

  /** `image` is what was read of the working VDI, which this node has locked. */
  constructor(options: ClusterVolumeOptions) {
    const { objects, vdis, image, clock, log } = options
    this.name = options.name
    this.objectBytes = 2 ** image.header.blockSizeShift
    this.#sizeBytes = image.header.sizeBytes
    this.#objects = objects
    this.#vdis = vdis
    const table = new SlotTable(objects, image.slots)
    const gate = new SlotGate(image.slots.length)
    const isWritable = (vid: typeof image.vid): boolean => {
      const isOpen = objects.begin(vid)
      if (isOpen) objects.end(vid)
      return isOpen
    }
    const adopt = (found: VdiImage): void => this.#adopt(found)
    const name = options.vdiName
    const working = new WorkingVdi({ name, vid: image.vid, vdis, isWritable, adopt, clock, log })
    this.#table = table
    this.#gate = gate
    this.#working = working
    this.#changes = new SlotChanges({ objects, table, gate, working })
    this.#flusher = new Flusher(objects, table, working)
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  read(offset: number, into: Uint8Array, done: Done): void {
    const slot = Math.floor(offset / this.objectBytes)
    const at = offset - slot * this.objectBytes
    if (at + into.length <= this.objectBytes) this.#readSlot(slot, at, into, done)
    else byPieces(offset, into, this.objectBytes, (...piece) => this.#readSlot(...piece), done)
  }

  #readSlot(slot: number, at: number, into: Uint8Array, done: Done): void {
    const gate = this.#gate
    if (this.#working.readsHeld) {
      this.#working.hold(() => this.#readSlot(slot, at, into, done), done)
    } else if (gate.isClaimed(slot)) {
      gate.whenFree(slot, () => this.#readSlot(slot, at, into, done))
    } else if (into.length === 0 || this.#table.vid(slot) === 0) {
      if (!this.#objects.isSure()) {
        this.#objects.whenSure(() => this.#readSlot(slot, at, into, done), done)
        return
      }
      into.fill(0)
      done(Code.SUCCESS)
    } else {
      gate.enter(slot)
      this.#objects.read(this.#table.ref(slot), at, into, (code) => {
        gate.leave(slot)
        done(code)
      })
    }
  }

  write(offset: number, data: Uint8Array, fua: boolean, done: Done): void {
    const slot = Math.floor(offset / this.objectBytes)
    const at = offset - slot * this.objectBytes
    if (at + data.length <= this.objectBytes) {
      this.#writeSlot(slot, at, data, fua, done)
    } else {
      const step: PieceStep = (target, from, part, ended) =>
        this.#writeSlot(target, from, part, fua, ended)
      byPieces(offset, data, this.objectBytes, step, done)
    }
  }

  #writeSlot(slot: number, at: number, data: Uint8Array, fua: boolean, done: Done): void {
    const working = this.#working
    if (data.length === 0) {
      done(Code.SUCCESS)
    } else if (working.changesHeld || this.#gate.isClaimed(slot)) {
      this.#afterwards(slot, () => this.#writeSlot(slot, at, data, fua, done), done)
    } else if (this.#table.vid(slot) === working.vid) {
      this.#overwrite(slot, at, data, fua, done)
    } else {
      const again = (): void => this.#writeSlot(slot, at, data, fua, done)
      this.#changes.allocate(slot, { at, data, overOld: true }, fua, again, done)
    }
  }

  /** Writes into an object of the working VDI's own. */
  #overwrite(slot: number, at: number, data: Uint8Array, fua: boolean, done: Done): void {
    const working = this.#working
    working.began()
    this.#gate.enter(slot)
    this.#objects.write(this.#table.ref(slot), at, data, fua, (code) => {
      const isRefused = code === Code.READONLY
      if (isRefused) {
        working.turnedReadOnly()
        working.hold(() => this.#writeSlot(slot, at, data, fua, done), done)
      }
      this.#gate.leave(slot)
      working.changed(code)
      if (isRefused) return
      if (fua && code === Code.SUCCESS && this.#table.isLoose(slot)) {
        this.#changes.settle(slot, done)
      } else {
        done(code)
      }
    })
  }

  /** Runs `again` when changes are possible again, or when the claim on the slot has ended. */
  #afterwards(slot: number, again: () => void, fail: Done): void {
    if (this.#working.changesHeld) this.#working.hold(again, fail)
    else this.#gate.whenFree(slot, again)
  }

  zero(range: ByteRange, options: ZeroOptions, done: Done): void {
    const { fua, mayUnmap } = options
    const cut = this.#cut(range)
    if (options.fastOnly && !this.#isFast(cut, mayUnmap)) {
      done(Code.NO_SUPPORT)
      return
    }
    const wholes = (ended: Done): void =>
      mayUnmap ? this.#unmap(cut, fua, ended) : this.#fillWholes(cut, range, fua, ended)
    const step = (index: number, ended: Done): void => {
      const piece = cut.partial[index]
      if (piece === undefined) wholes(ended)
      else this.#zeroPiece(piece, options, ended)
    }
    spread(cut.partial.length + 1, cut.partial.length + 1, step, done)
  }

  /** True when nothing but slots has to change. */
  #isFast(cut: Cut, mayUnmap: boolean): boolean {
    if (!mayUnmap) return cut.first === cut.end && cut.partial.length === 0
    return cut.partial.every(
      ({ slot }) => this.#table.vid(slot) === 0 && !this.#gate.isClaimed(slot),
    )
  }

  update(range: ByteRange, decide: Decide, fua: boolean, done: Done): void {
    const parts = { objects: this.#objects, table: this.#table, changes: this.#changes }
    updateSlots(parts, { pieces: piecesOf(range, this.objectBytes), decide, fua }, done)
  }

  discard(range: ByteRange, fua: boolean, done: Done): void {
    this.#unmap(this.#cut(range), fua, done)
  }

  #cut(range: ByteRange): Cut {
    return cutRange(range, { objectBytes: this.objectBytes, sizeBytes: this.#sizeBytes })
  }

  #unmap(cut: Cut, fua: boolean, done: Done): void {
    const count = Math.ceil((cut.end - cut.first) / SLOTS_PER_UPDATE_MAX)
    const step = (index: number, ended: Done): void => {
      const first = cut.first + index * SLOTS_PER_UPDATE_MAX
      this.#changes.unmap(first, Math.min(cut.end, first + SLOTS_PER_UPDATE_MAX), fua, ended)
    }
    spread(count, 1, step, done)
  }

  #fillWholes(cut: Cut, range: ByteRange, fua: boolean, done: Done): void {
    const until = range.offset + range.length
    const step = (index: number, ended: Done): void => {
      const slot = cut.first + index
      const length = Math.min(this.objectBytes, until - slot * this.objectBytes)
      this.#fillWhole({ slot, at: 0, length }, fua, ended)
    }
    spread(cut.end - cut.first, ZEROED_AT_ONCE_MAX, step, done)
  }

  /** Makes an object of the volume's own that is all zeros, or overwrites the one there is. */
  #fillWhole(piece: Piece, fua: boolean, done: Done): void {
    const { slot } = piece
    const again = (): void => this.#fillWhole(piece, fua, done)
    if (this.#working.changesHeld || this.#gate.isClaimed(slot)) {
      this.#afterwards(slot, again, done)
    } else if (this.#table.vid(slot) === this.#working.vid) {
      this.#writeZeros(piece, fua, done)
    } else {
      this.#changes.allocate(slot, ALL_ZERO, fua, again, done)
    }
  }

  #zeroPiece(piece: Piece, options: ZeroOptions, done: Done): void {
    const { slot } = piece
    if (this.#working.changesHeld || this.#gate.isClaimed(slot)) {
      this.#afterwards(slot, () => this.#zeroPiece(piece, options, done), done)
    } else if (this.#table.vid(slot) !== 0 || !options.mayUnmap) {
      this.#writeZeros(piece, options.fua, done)
    } else if (options.fua && this.#table.isLoose(slot)) {
      this.#changes.settle(slot, done)
    } else {
      done(Code.SUCCESS)
    }
  }

  #writeZeros(piece: Piece, fua: boolean, done: Done): void {
    const count = Math.ceil(piece.length / ZERO_WRITE_BYTES_MAX)
    const step = (index: number, ended: Done): void => {
      const from = index * ZERO_WRITE_BYTES_MAX
      const data = zeros(Math.min(ZERO_WRITE_BYTES_MAX, piece.length - from))
      this.#writeSlot(piece.slot, piece.at + from, data, fua, ended)
    }
    spread(count, 1, step, done)
  }

  flush(done: Done): void {
    this.#flusher.flush(done)
  }

  extents(range: ByteRange): Extent[] {
    if (this.#inDoubt) return [{ length: range.length, hole: false }]
    return this.#table.extents(range, this.objectBytes)
  }

  owners(range: ByteRange): OwnedExtent[] | undefined {
    return this.#inDoubt ? undefined : this.#table.owners(range, this.objectBytes)
  }

  get #inDoubt(): boolean {
    return this.#working.readsHeld || !this.#objects.isSure()
  }

  /** Reads the VDI again: it may have grown or become a snapshot. */
  refresh(): void {
    this.#working.refresh()
  }

  /** Resolves when it has been read again, or could not be. */
  catchUp(): Promise<void> {
    return new Promise((resolve) => {
      this.#working.refresh()
      this.#working.hold(resolve, () => resolve())
    })
  }

  /** The lock is given back even when the flush fails; the failure is reported. */
  async close(): Promise<void> {
    // Who opens next need not wait for this: what is unflushed is in every node's care, and a flush of
    // theirs covers it too.
    const flushed = new Promise<Code>((resolve) => this.flush(resolve))
    await this.#vdis.unlock(await this.#working.close())
    const code = await flushed
    if (code !== Code.SUCCESS) throw new SheepError(code, `${this.name}: the last flush failed`)
  }

  #adopt(image: VdiImage): void {
    const { header, slots } = image
    if (2 ** header.blockSizeShift !== this.objectBytes) {
      throw new SheepError(Code.NO_SUPPORT, `VDI ${header.name} changed its object size`)
    }
    if (slots.length > this.#table.length) this.#gate.grow(slots.length)
    this.#table.replace(padded(slots, this.#table.length))
    this.#sizeBytes = header.sizeBytes
  }
}

/** Of one that was made smaller what is beyond its end reads as zeros until the volume is opened anew. */
function padded(slots: Uint32Array, length: number): Uint32Array {
  if (slots.length >= length) return slots
  const all = new Uint32Array(length)
  all.set(slots)
  return all
}
