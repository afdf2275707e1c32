/**
 * A working VDI for somebody who only reads, and has no lock: others may write to it. What its slots name is believed for a second
 * and then asked for again, so a read sees all that was acknowledged a second before it; what a slot names in vain (it was
 * discarded) is asked for at once.
 */
import { Code, codeOf, type Done, SheepError } from '../base/codes.js'
import { type InodeHeader, slotsOf } from '../model/inode.js'
import { dataOid, type Vid } from '../model/oid.js'
import { byPieces } from '../volume/cut.js'
import { extentsIn, leavesNow, ownerIn } from '../volume/hyper-leaves.js'
import { readOnly } from '../volume/read-only.js'
import { SlotTable } from '../volume/slot-table.js'
import { SnapshotVolume } from '../volume/snapshot-volume.js'
import { checkServable, findSuccessor, isHyper, readSlots, readVdi } from '../volume/vdi-reading.js'
import type { ByteRange, Extent, OwnedExtent, Volume } from '../volume/volume.js'
import type { Clock } from '../world/world.js'
import type { RemoteAccess } from './remote-access.js'

const BELIEVED_MS = 1_000
const NOBODY = 0 as Vid
/** Looks in a row for an object that a slot names and nobody has. */
const LOOKS_MAX = 5

export interface Followed {
  readonly volume: Volume
  /** False: `renew` before anything is read. */
  isFresh(): boolean
  /** It is gone, also when another one has its name by now: whoever opened it gets errors, and not the other one's bytes. */
  isLost(): boolean
  /** Makes sure that `extents` and the size are not older than a second. Rejects with a SheepError. */
  renew(): Promise<void>
}

export async function followVdi(
  name: string,
  access: RemoteAccess,
  clock: Clock,
): Promise<Followed> {
  const image = await imageNow(access, await access.find(name, { kind: 'working' }))
  const volume = new FollowingVolume(name, image, access, clock)
  return {
    volume: readOnly(volume),
    renew: () => volume.renew(),
    isFresh: () => true,
    isLost: () => volume.isLost,
  }
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
  let isLost = false
  const isFresh = (): boolean => clock.monotonic() - checkedAt < BELIEVED_MS
  const renew = async (): Promise<void> => {
    if (isFresh()) return
    const askedAt = clock.monotonic()
    const now = await access.readHeader(vid)
    const isSame = now.name === name && now.createTime === createTime && now.snapId === snapId
    isLost ||= !isSame
    if (isLost) throw new SheepError(Code.NO_TAG, `snapshot ${snapId} of ${name} is gone`)
    checkedAt = askedAt
  }
  return { volume: readOnly(volume), renew, isFresh, isLost: () => isLost }
}

/** What names the objects: the slots, or a hypervolume's index. */
interface Owners {
  readonly length: number
  /** 0 is a hole. */
  vid(slot: number): Vid
  extents(range: ByteRange, objectBytes: number): Extent[]
  owners(range: ByteRange, objectBytes: number): OwnedExtent[]
}

interface ImageNow {
  readonly vid: Vid
  readonly header: InodeHeader
  readonly table: Owners
}

async function imageNow(access: RemoteAccess, vid: Vid): Promise<ImageNow> {
  const header = await access.readHeader(vid)
  checkServable(header)
  if (!isHyper(header)) {
    return { vid, header, table: new SlotTable(access, await readSlots(access, vid, header)) }
  }
  const leaves = await leavesNow(access, vid)
  const extents = (range: ByteRange, objectBytes: number): Extent[] =>
    extentsIn(leaves, range, objectBytes)
  // It has no snapshots: all it has is its own.
  const owners = (range: ByteRange, objectBytes: number): OwnedExtent[] =>
    extents(range, objectBytes).map(({ length, hole }) => ({ length, vid: hole ? NOBODY : vid }))
  const length = slotsOf(header.sizeBytes, header.blockSizeShift)
  return { vid, header, table: { length, vid: (slot) => ownerIn(leaves, slot), extents, owners } }
}

class FollowingVolume {
  readonly name: string
  readonly objectBytes: number
  readonly #access: RemoteAccess
  readonly #clock: Clock
  isLost = false
  #image: ImageNow
  #readAt: number
  #renewal: Promise<void> | undefined

  constructor(name: string, image: ImageNow, access: RemoteAccess, clock: Clock) {
    this.name = name
    this.objectBytes = 2 ** image.header.blockSizeShift
    this.#access = access
    this.#clock = clock
    this.#image = image
    this.#readAt = clock.monotonic()
  }

  get sizeBytes(): number {
    return this.#image.header.sizeBytes
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
    try {
      this.#image = await this.#successor()
      this.#readAt = askedAt
    } catch (error) {
      this.isLost ||= codeOf(error) === Code.NO_VDI
      throw error
    }
  }

  /** The same VDI as it is now, or what snapshots have made of it. */
  async #successor(): Promise<ImageNow> {
    const { vid: before, header } = this.#image
    const gone = new SheepError(Code.NO_VDI, `${this.name} is gone`)
    if (this.isLost) throw gone
    const vid = await findSuccessor(this.#access, this.name, before)
    const image = await imageNow(this.#access, vid)
    if (vid === before && image.header.createTime !== header.createTime) throw gone
    return image
  }

  readonly #readSlot = (slot: number, at: number, into: Uint8Array, done: Done): void => {
    this.#attempt({ slot, at, into, looks: 0 }, done)
  }

  #attempt(piece: { slot: number; at: number; into: Uint8Array; looks: number }, done: Done): void {
    const { slot, at, into, looks } = piece
    const owner = slot < this.#image.table.length ? this.#image.table.vid(slot) : 0
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
    return this.#image.table.extents(range, this.objectBytes)
  }

  owners(range: ByteRange): OwnedExtent[] {
    return this.#image.table.owners(range, this.objectBytes)
  }

  async close(): Promise<void> {
    await Promise.resolve()
  }
}
