/**
 * A hypervolume as a block device: up to 2^32 objects, named by an index instead of slots. It has no snapshots, so that its
 * id never changes; and it is slower to grow than to use, because every new object is a durable change of the index.
 */
import { noBytes, zeros } from '../base/bytes.js'
import { Code, codeOf, type Done, SheepError } from '../base/codes.js'
import type { ObjectAccess, ObjectRef, VdiAccess } from '../model/access.js'
import type { InodeHeader } from '../model/inode.js'
import { dataOid, type Vid } from '../model/oid.js'
import { byPieces, cutRange, type Piece, type PieceStep, piecesOf } from './cut.js'
import type { HyperIndex } from './hyper-index.js'
import type { Content } from './slot-changes.js'
import { SlotGate } from './slot-gate.js'
import { inTurn } from './slot-update.js'
import { spread } from './spread.js'
import type { ByteRange, Decide, Extent, OwnedExtent, Volume, ZeroOptions } from './volume.js'

const ZERO_WRITE_BYTES_MAX = 4 * 1024 * 1024
const ZEROED_AT_ONCE_MAX = 4

export interface HyperVolumeOptions {
  readonly name: string
  readonly header: InodeHeader
  readonly index: HyperIndex
  readonly objects: ObjectAccess
  readonly vdis: VdiAccess
}

export class HyperVolume implements Volume {
  readonly name: string
  readonly readOnly = false
  readonly objectBytes: number
  readonly #vid: Vid
  readonly #objects: ObjectAccess
  readonly #vdis: VdiAccess
  readonly #index: HyperIndex
  readonly #gate = new SlotGate('any')
  readonly #refs = new Map<number, ObjectRef>()
  readonly #forget: () => void
  #sizeBytes: number

  /** The node has locked it. */
  constructor(options: HyperVolumeOptions) {
    const { header, vdis } = options
    this.name = options.name
    this.objectBytes = 2 ** header.blockSizeShift
    this.#vid = header.vid
    this.#objects = options.objects
    this.#vdis = vdis
    this.#index = options.index
    this.#sizeBytes = header.sizeBytes
    this.#forget = vdis.onChange(header.vid, () => this.refresh())
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  read(offset: number, into: Uint8Array, done: Done): void {
    const step: PieceStep = (slot, at, part, ended) => this.#readSlot(slot, at, part, ended)
    byPieces(offset, into, this.objectBytes, step, done)
  }

  write(offset: number, data: Uint8Array, fua: boolean, done: Done): void {
    const step: PieceStep = (slot, at, part, ended) => this.#writeSlot(slot, at, part, fua, ended)
    byPieces(offset, data, this.objectBytes, step, done)
  }

  zero(range: ByteRange, options: ZeroOptions, done: Done): void {
    const cut = cutRange(range, { objectBytes: this.objectBytes, sizeBytes: this.#sizeBytes })
    const { fua, mayUnmap, fastOnly } = options
    const isFast = mayUnmap && cut.partial.every(({ slot }) => this.#index.vid(slot) === 0)
    if (fastOnly && !isFast) {
      done(Code.NO_SUPPORT)
      return
    }
    const wholes = (ended: Done): void => {
      if (mayUnmap) this.#unmap(cut.first, cut.end, ended)
      else this.#fillWholes(cut.first, cut.end, fua, ended)
    }
    const step = (index: number, ended: Done): void => {
      const piece = cut.partial[index]
      if (piece === undefined) wholes(ended)
      else if (mayUnmap && this.#index.vid(piece.slot) === 0) this.#idle(piece.slot, ended)
      else this.#writeZeros(piece, fua, ended)
    }
    spread(cut.partial.length + 1, 1, step, done)
  }

  update(range: ByteRange, decide: Decide, fua: boolean, done: Done): void {
    const pieces = piecesOf(range, this.objectBytes)
    const [first, end] = [pieces[0]!.slot, pieces.at(-1)!.slot + 1]
    const found = Buffer.allocUnsafe(range.length)
    this.#gate.claim(first, end, () => {
      const ended: Done = (code) => {
        this.#gate.release(first, end)
        done(code)
      }
      const read = (i: number, at: number, onward: Done): void =>
        this.#readAlone(pieces[i]!, found.subarray(at, at + pieces[i]!.length), onward)
      inTurn(pieces, read, (code) => {
        const next = code === Code.SUCCESS ? decide(found) : undefined
        if (next === undefined) {
          ended(code)
          return
        }
        const write = (i: number, at: number, onward: Done): void =>
          this.#writeAlone(pieces[i]!, next.subarray(at, at + pieces[i]!.length), fua, onward)
        inTurn(pieces, write, ended)
      })
    })
  }

  /** The slot is claimed. */
  #readAlone(piece: Piece, into: Uint8Array, done: Done): void {
    const { slot, at } = piece
    const again = (): void => this.#readAlone(piece, into, done)
    if (this.#index.isUnsure) {
      this.#index.settle().then(again, (error: unknown) => done(codeOf(error)))
    } else if (this.#index.vid(slot) !== 0) this.#objects.read(this.#ref(slot), at, into, done)
    else if (!this.#objects.isSure()) this.#objects.whenSure(again, done)
    else {
      into.fill(0)
      done(Code.SUCCESS)
    }
  }

  /** The slot is claimed. */
  #writeAlone({ slot, at }: Piece, data: Uint8Array, fua: boolean, done: Done): void {
    if (this.#index.vid(slot) === this.#vid) {
      this.#objects.write(this.#ref(slot), at, data, fua, done)
    } else this.#make(slot, { at, data, overOld: true }, done)
  }

  discard(range: ByteRange, _fua: boolean, done: Done): void {
    const cut = cutRange(range, { objectBytes: this.objectBytes, sizeBytes: this.#sizeBytes })
    this.#unmap(cut.first, cut.end, done)
  }

  /** Index changes are durable by themselves. */
  flush(done: Done): void {
    this.#objects.flush(this.#vid, done)
  }

  /** A hypervolume has no snapshots: all it has is its own. */
  owners(range: ByteRange): OwnedExtent[] | undefined {
    if (this.#isInDoubt) return undefined
    return this.extents(range).map(({ length, hole }) => {
      return { length, vid: hole ? (0 as Vid) : this.#vid }
    })
  }

  get #isInDoubt(): boolean {
    return this.#index.isUnsure || !this.#objects.isSure()
  }

  extents(range: ByteRange): Extent[] {
    if (this.#isInDoubt) return [{ length: range.length, hole: false }]
    return this.#index.extents(range, this.objectBytes)
  }

  /** Reads the size again: it may have grown. */
  refresh(): void {
    void this.catchUp()
  }

  /** Resolves when that has been done, or could not be. */
  catchUp(): Promise<void> {
    return this.#vdis.readHeader(this.#vid).then(
      ({ sizeBytes }) => {
        this.#sizeBytes = Math.max(this.#sizeBytes, sizeBytes)
      },
      // The next change is noticed anew; until then the size is the one that was served so far.
      () => undefined,
    )
  }

  /** The lock is given back even when the flush fails; the failure is reported. */
  async close(): Promise<void> {
    this.#forget()
    const flushed = new Promise<Code>((resolve) => this.flush(resolve))
    await this.#vdis.unlock(this.#vid)
    const code = await flushed
    if (code !== Code.SUCCESS) throw new SheepError(code, `${this.name}: the last flush failed`)
  }

  #readSlot(slot: number, at: number, into: Uint8Array, done: Done): void {
    const again = (): void => this.#readSlot(slot, at, into, done)
    if (this.#isHeld(slot, again, done)) return
    if (into.length > 0 && this.#index.vid(slot) !== 0) {
      this.#use(slot, done, (ended) => this.#objects.read(this.#ref(slot), at, into, ended))
    } else if (!this.#objects.isSure()) {
      this.#objects.whenSure(again, done)
    } else {
      into.fill(0)
      done(Code.SUCCESS)
    }
  }

  #writeSlot(slot: number, at: number, data: Uint8Array, fua: boolean, done: Done): void {
    const again = (): void => this.#writeSlot(slot, at, data, fua, done)
    if (data.length === 0) done(Code.SUCCESS)
    else if (this.#isHeld(slot, again, done)) return
    else if (this.#index.vid(slot) === this.#vid) {
      this.#use(slot, done, (ended) => this.#objects.write(this.#ref(slot), at, data, fua, ended))
    } else this.#allocate(slot, { at, data, overOld: true }, done)
  }

  /** True: `again` will run, or `fail` be called, later. */
  #isHeld(slot: number, again: () => void, fail: Done): boolean {
    if (this.#index.isUnsure && !this.#gate.isClaimed(slot)) {
      this.#index.settle().then(again, (error: unknown) => fail(codeOf(error)))
      return true
    }
    if (!this.#gate.isClaimed(slot)) return false
    this.#gate.whenFree(slot, again)
    return true
  }

  #use(slot: number, done: Done, start: (ended: Done) => void): void {
    this.#gate.enter(slot)
    start((code) => {
      this.#gate.leave(slot)
      done(code)
    })
  }

  #ref(slot: number): ObjectRef {
    const known = this.#refs.get(slot)
    if (known !== undefined) return known
    const ref = this.#objects.ref(dataOid(this.#index.vid(slot), slot))
    this.#refs.set(slot, ref)
    return ref
  }

  /** Gives a slot an object of its own. */
  #allocate(slot: number, content: Content, done: Done): void {
    this.#change(slot, done, (ended) => this.#make(slot, content, ended))
  }

  /** The slot is claimed. */
  #make(slot: number, content: Content, done: Done): void {
    const old = this.#index.vid(slot)
    const source = content.overOld && old !== 0 ? this.#ref(slot) : undefined
    const ref = this.#objects.ref(dataOid(this.#vid, slot))
    this.#objects.create(ref, content.at, content.data, source, (code) => {
      if (code === Code.SUCCESS) this.#setIndex(slot, this.#vid, done)
      else done(code)
    })
  }

  /** Turns [first, end) into holes, one object after the other; what is one already costs nothing. */
  #unmap(first: number, end: number, done: Done): void {
    const slot = this.#index.nextAllocated(first, end)
    if (slot === undefined) {
      done(Code.SUCCESS)
      return
    }
    const onward: Done = (code) => {
      if (code === Code.SUCCESS) this.#unmap(slot + 1, end, done)
      else done(code)
    }
    if (this.#isHeld(slot, () => this.#unmap(slot, end, done), done)) return
    this.#change(slot, onward, (ended) => {
      const own = this.#index.vid(slot) === this.#vid
      this.#setIndex(slot, 0 as Vid, (code) => {
        if (code !== Code.SUCCESS || !own) ended(code)
        else {
          this.#objects.remove(dataOid(this.#vid, slot), (removed) =>
            ended(removed === Code.NO_OBJ ? Code.SUCCESS : removed),
          )
        }
      })
    })
  }

  #setIndex(slot: number, vid: Vid, done: Done): void {
    this.#index.set(slot, vid).then(
      () => {
        this.#refs.delete(slot)
        done(Code.SUCCESS)
      },
      (error: unknown) => {
        this.#refs.delete(slot)
        done(codeOf(error))
      },
    )
  }

  /** `act` has the unclaimed slot for itself until it has called back. */
  #change(slot: number, done: Done, act: (ended: Done) => void): void {
    this.#gate.claim(slot, slot + 1, () => {
      act((code) => {
        this.#gate.release(slot, slot + 1)
        done(code)
      })
    })
  }

  /** Waits for whoever changes the slot now. */
  #idle(slot: number, done: Done): void {
    if (!this.#isHeld(slot, () => this.#idle(slot, done), done)) done(Code.SUCCESS)
  }

  #fillWholes(first: number, end: number, fua: boolean, done: Done): void {
    const step = (index: number, ended: Done): void => this.#fillWhole(first + index, fua, ended)
    spread(end - first, ZEROED_AT_ONCE_MAX, step, done)
  }

  #fillWhole(slot: number, fua: boolean, done: Done): void {
    if (this.#isHeld(slot, () => this.#fillWhole(slot, fua, done), done)) return
    const length = Math.min(this.objectBytes, this.#sizeBytes - slot * this.objectBytes)
    if (this.#index.vid(slot) === this.#vid) this.#writeZeros({ slot, at: 0, length }, fua, done)
    else this.#allocate(slot, { at: 0, data: noBytes(), overOld: false }, done)
  }

  #writeZeros({ slot, at, length }: Piece, fua: boolean, done: Done): void {
    const count = Math.ceil(length / ZERO_WRITE_BYTES_MAX)
    const step = (index: number, ended: Done): void => {
      const from = index * ZERO_WRITE_BYTES_MAX
      const data = zeros(Math.min(ZERO_WRITE_BYTES_MAX, length - from))
      this.#writeSlot(slot, at + from, data, fua, ended)
    }
    spread(count, 1, step, done)
  }
}
