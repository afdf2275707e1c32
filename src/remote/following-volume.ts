/**
 * A working VDI for somebody who only reads, and has no lock: others may write to it. What its slots name is believed for a second
 * and then asked for again, so a read sees all that was acknowledged a second before it; what a slot names in vain (it was
 * discarded) is asked for at once.
 */
import { Code, codeOf, type Done, SheepError } from '../base/codes.js'
import { dataOid, type Vid } from '../model/oid.js'
import { byPieces } from '../volume/cut.js'
import { readOnly } from '../volume/read-only.js'
import { SlotTable } from '../volume/slot-table.js'
import { SnapshotVolume } from '../volume/snapshot-volume.js'
import { readVdi, type VdiImage } from '../volume/vdi-reading.js'
import type { ByteRange, Extent, OwnedExtent, Volume } from '../volume/volume.js'
import type { Clock } from '../world/world.js'
import type { RemoteAccess } from './remote-access.js'

const BELIEVED_MS = 1_000
/** Looks in a row for an object that a slot names and nobody has. */
const LOOKS_MAX = 5

export interface Followed {
  readonly volume: Volume
  /** False: `renew` before anything is read. */
  isFresh(): boolean
  /** Makes sure that `extents` and the size are not older than a second. Rejects with a SheepError. */
  renew(): Promise<void>
}

export async function followVdi(
  name: string,
  access: RemoteAccess,
  clock: Clock,
): Promise<Followed> {
  const image = await readVdi(access, await access.find(name, { kind: 'working' }))
  const volume = new FollowingVolume(name, image, access, clock)
  return { volume: readOnly(volume), renew: () => volume.renew(), isFresh: () => true }
}

/**
 * A snapshot never changes, but it may be deleted, and where ids of deleted volumes are given out again its own may then mean something
 * else: so every second it is made sure that it is the same still.
 */
export async function followSnapshot(
  vid: Vid,
  access: RemoteAccess,
  clock: Clock,
): Promise<Followed> {
  const image = await readVdi(access, vid)
  const { name, createTime, snapId } = image.header
  const volume = new SnapshotVolume({ name, image, objects: access, closed: () => undefined })
  let checkedAt = clock.monotonic()
  const isFresh = (): boolean => clock.monotonic() - checkedAt < BELIEVED_MS
  const renew = async (): Promise<void> => {
    if (isFresh()) return
    const askedAt = clock.monotonic()
    const now = await access.readHeader(vid)
    const isSame = now.name === name && now.createTime === createTime && now.snapId === snapId
    if (!isSame) throw new SheepError(Code.NO_TAG, `snapshot ${snapId} of ${name} is gone`)
    checkedAt = askedAt
  }
  return { volume: readOnly(volume), renew, isFresh }
}

class FollowingVolume {
  readonly name: string
  readonly objectBytes: number
  readonly #access: RemoteAccess
  readonly #clock: Clock
  #sizeBytes: number
  #table: SlotTable
  #readAt: number
  #renewal: Promise<void> | undefined

  constructor(name: string, image: VdiImage, access: RemoteAccess, clock: Clock) {
    this.name = name
    this.objectBytes = 2 ** image.header.blockSizeShift
    this.#access = access
    this.#clock = clock
    this.#sizeBytes = image.header.sizeBytes
    this.#table = new SlotTable(access, image.slots)
    this.#readAt = clock.monotonic()
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  read(offset: number, into: Uint8Array, done: Done): void {
    const go = (): void => byPieces(offset, into, this.objectBytes, this.#readSlot, done)
    if (this.#isFresh) go()
    else this.renew().then(go, (error: unknown) => done(codeOf(error)))
  }

  get #isFresh(): boolean {
    return this.#clock.monotonic() - this.#readAt < BELIEVED_MS
  }

  /** One at a time, for all who ask meanwhile: the slots they get are read after they asked, or a second old at most. */
  renew(): Promise<void> {
    if (this.#isFresh) return Promise.resolve()
    this.#renewal ??= this.#load().finally(() => {
      this.#renewal = undefined
    })
    return this.#renewal
  }

  async #load(): Promise<void> {
    const askedAt = this.#clock.monotonic()
    const vid: Vid = await this.#access.find(this.name, { kind: 'working' })
    const { header, slots } = await readVdi(this.#access, vid)
    this.#table = new SlotTable(this.#access, slots)
    this.#sizeBytes = header.sizeBytes
    this.#readAt = askedAt
  }

  readonly #readSlot = (slot: number, at: number, into: Uint8Array, done: Done): void => {
    this.#attempt({ slot, at, into, looks: 0 }, done)
  }

  #attempt(piece: { slot: number; at: number; into: Uint8Array; looks: number }, done: Done): void {
    const { slot, at, into, looks } = piece
    const owner = slot < this.#table.length ? this.#table.vid(slot) : 0
    if (into.length === 0 || owner === 0) {
      into.fill(0)
      done(Code.SUCCESS)
      return
    }
    this.#access.read({ oid: dataOid(owner as Vid, slot) }, at, into, (code) => {
      if (code !== Code.NO_OBJ || looks >= LOOKS_MAX) {
        done(code)
        return
      }
      this.#readAt = Number.NEGATIVE_INFINITY
      this.renew().then(
        () => this.#attempt({ ...piece, looks: looks + 1 }, done),
        (error: unknown) => done(codeOf(error)),
      )
    })
  }

  extents(range: ByteRange): Extent[] {
    return this.#table.extents(range, this.objectBytes)
  }

  owners(range: ByteRange): OwnedExtent[] {
    return this.#table.owners(range, this.objectBytes)
  }

  async close(): Promise<void> {
    await Promise.resolve()
  }
}
