/**
 * Lists of what this node has, for the recovery of others, in pages. One list serves everybody who recovers the
 * same epoch: what is created in an epoch is made on all its owners at once and needs no list.
 */
import { Code, SheepError } from '../../base/codes.js'
import type { ObjectStore } from '../../store/object-store.js'
import { ID_BYTES, type ListRequest } from '../../wire/sheepdog/object-list.js'
import type { Clock } from '../../world/world.js'
import type { NodeState } from '../state.js'

/** A list nobody asks for any more is let go of. */
const IDLE_MS = 60_000
/** One that serves an epoch, and one made for somebody who wanted a fresh one. */
const LISTS_MAX = 2
/** Cursor: serial number of the list, index in it. */
const INDEX_BITS = 40n

export interface Page {
  readonly ids: Buffer
  /** 0 at the end. */
  readonly next: bigint
}

interface List {
  readonly serial: bigint
  readonly epoch: number
  readonly ids: Promise<BigUint64Array>
  idleSince: number
}

export class Inventories {
  readonly #state: NodeState
  readonly #store: ObjectStore
  readonly #clock: Clock
  readonly #pageBytesMax: number
  /** Newest last. */
  #lists: List[] = []
  #serial = 0n
  #cleaning = false

  constructor(
    parts: { readonly state: NodeState; readonly store: ObjectStore; readonly clock: Clock },
    pageBytesMax: number,
  ) {
    this.#state = parts.state
    this.#store = parts.store
    this.#clock = parts.clock
    this.#pageBytesMax = pageBytesMax
  }

  /** Lists that are held in memory. */
  get held(): number {
    return this.#lists.length
  }

  /** Rejects with AGAIN when the list of the cursor is not held any more: the asker begins anew. */
  async page({ cursor, room, fresh }: ListRequest): Promise<Page> {
    const most = Math.floor(Math.min(room, this.#pageBytesMax) / ID_BYTES)
    if (most === 0) throw new SheepError(Code.BUFFER_SMALL)
    const list = cursor === 0n ? this.#first(fresh) : this.#find(cursor >> INDEX_BITS)
    if (list === undefined) throw new SheepError(Code.AGAIN)
    list.idleSince = this.#clock.monotonic()
    const all = await list.ids
    const from = Number(BigInt.asUintN(Number(INDEX_BITS), cursor))
    const some = all.subarray(from, from + most)
    const end = from + some.length
    const next = end < all.length ? (list.serial << INDEX_BITS) | BigInt(end) : 0n
    return { ids: bytesOf(some), next }
  }

  #find(serial: bigint): List | undefined {
    return this.#lists.find((list) => list.serial === serial)
  }

  #first(fresh: boolean): List {
    const { epoch } = this.#state
    const known = fresh ? undefined : this.#lists.find((list) => list.epoch === epoch)
    if (known !== undefined) return known
    const ids = this.#store.inventory()
    const list = { serial: ++this.#serial, epoch, ids, idleSince: this.#clock.monotonic() }
    ids.catch(() => this.#forget(list))
    this.#lists = [...this.#lists.filter((one) => one.epoch === epoch), list].slice(-LISTS_MAX)
    this.#cleanUp()
    return list
  }

  #forget(list: List): void {
    this.#lists = this.#lists.filter((one) => one !== list)
  }

  #cleanUp(): void {
    if (this.#cleaning) return
    this.#cleaning = true
    this.#clock.after(IDLE_MS, () => {
      this.#cleaning = false
      const now = this.#clock.monotonic()
      this.#lists = this.#lists.filter((list) => now - list.idleSince < IDLE_MS)
      if (this.#lists.length > 0) this.#cleanUp()
    })
  }
}

/** Little-endian on the wire; a typed array of this machine need not be. */
function bytesOf(ids: BigUint64Array): Buffer {
  const bytes = Buffer.allocUnsafe(ids.length * ID_BYTES)
  ids.forEach((id, i) => {
    bytes.writeBigUInt64LE(id, ID_BYTES * i)
  })
  return bytes
}
