/**
 * Writes into a working VDI the way 1.0's clients do: an own object is written, anything else is
 * created first (as a copy of the object the slot named, if any) and then the slot is set.
 */
import { Code } from '../base/codes.js'
import { SLOT_BYTES, slotRange } from '../model/inode.js'
import { asVid, dataOid, inodeOid, type Oid } from '../model/oid.js'
import type { Sheep } from './client.js'
import { Exit, Failure } from './failure.js'
import {
  hasCode,
  loadSlots,
  type OpenedVdi,
  openVdi,
  redundancyOf,
  sayObjectFailure,
} from './image.js'
import { WORKING } from './options.js'
import type { Output } from './output.js'

interface Target extends OpenedVdi {
  readonly slots: Uint32Array
}

export class VdiWriter {
  readonly #sheep: Sheep
  readonly #out: Output
  readonly #name: string
  readonly #writeback: boolean
  #target: Target
  /** The reopening under way, shared by all writes that were refused. */
  #renewal: Promise<void> | undefined
  /**
   * Last write of each object that has one under way: pieces of an object go one after the other.
   */
  readonly #tails = new Map<number, Promise<void>>()

  private constructor(
    context: { readonly sheep: Sheep; readonly out: Output },
    name: string,
    target: Target,
    writeback: boolean,
  ) {
    this.#sheep = context.sheep
    this.#out = context.out
    this.#name = name
    this.#target = target
    this.#writeback = writeback
  }

  /** Rejects with the SheepError of reading the slots. */
  static async open(
    context: { readonly sheep: Sheep; readonly out: Output },
    name: string,
    vdi: OpenedVdi,
    writeback: boolean,
  ): Promise<VdiWriter> {
    const slots = await loadSlots(context.sheep, vdi)
    return new VdiWriter(context, name, { ...vdi, slots }, writeback)
  }

  get vdi(): OpenedVdi {
    return this.#target
  }

  /**
   * `data` must not change until it is done. Throws a Failure, the object already named on
   * stderr.
   */
  write(index: number, offset: number, data: Uint8Array): Promise<void> {
    const before = this.#tails.get(index)
    const put = (): Promise<void> => this.#put(index, offset, data)
    const written = before === undefined ? put() : before.then(put)
    this.#tails.set(index, written)
    const forget = (): void => {
      if (this.#tails.get(index) === written) this.#tails.delete(index)
    }
    written.then(forget, forget)
    return written
  }

  async #put(index: number, offset: number, data: Uint8Array): Promise<void> {
    for (;;) {
      const target = this.#target
      try {
        await this.#attempt(target, index, offset, data)
        return
      } catch (error) {
        if (error instanceof Failure) throw error
        // A snapshot was taken: the volume lives on under a new id, with this object shared.
        if (hasCode(error, Code.READONLY) && (await this.#renew(target))) continue
        sayObjectFailure(this.#out, 'write', dataOid(target.vid, index), error)
        throw new Failure(Exit.failed, [])
      }
    }
  }

  async #attempt(target: Target, index: number, offset: number, data: Uint8Array): Promise<void> {
    const { vid, slots, header } = target
    const slot = slots[index]!
    const oid = dataOid(vid, index)
    const write = { offset, data, redundancy: redundancyOf(header), writeback: this.#writeback }
    if (slot === vid) {
      await this.#sheep.writeObject({ ...write, oid })
      return
    }
    const cowOid: Oid | undefined = slot === 0 ? undefined : dataOid(asVid(slot), index)
    await this.#sheep.createObject({ ...write, oid, cowOid })
    const name = Buffer.alloc(SLOT_BYTES)
    name.writeUInt32LE(vid)
    const place = { oid: inodeOid(vid), offset: slotRange(index, 1).offset, data: name }
    await this.#sheep.writeObject({ ...write, ...place })
    slots[index] = vid
    await this.#checkNamed(target, index, offset, data)
  }

  /**
   * A snapshot may have copied the slots between the create and our update: then the update went
   * into the snapshot alone, and nobody refused it. But the object is the snapshot's since before
   * the copy, so that one more byte written to it is refused as READONLY, and the whole write is
   * made again under the new id.
   */
  async #checkNamed(
    { vid, header }: Target,
    index: number,
    offset: number,
    data: Uint8Array,
  ): Promise<void> {
    await this.#sheep.writeObject({
      ...{ oid: dataOid(vid, index), offset, data: data.subarray(0, 1) },
      ...{ redundancy: redundancyOf(header), writeback: true },
    })
  }

  /** True when the volume has another id than `refused` now. */
  async #renew(refused: Target): Promise<boolean> {
    if (this.#target === refused) {
      this.#renewal ??= this.#reopen().finally(() => {
        this.#renewal = undefined
      })
      await this.#renewal
    }
    return this.#target.vid !== refused.vid
  }

  async #reopen(): Promise<void> {
    const vdi = await openVdi(this.#sheep, this.#name, WORKING)
    const slots = await loadSlots(this.#sheep, vdi)
    if (vdi.vid !== this.#target.vid) this.#target = { ...vdi, slots }
  }
}
