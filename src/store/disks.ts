/**
 * The directories objects live in, their weights, and which of them a new object goes to (objects spec,
 * section 12). A disk gets one virtual disk per 16 MiB of weight on a hash ring. Disks come and go while
 * the store serves; each keeps its index for good.
 */
import { encodeText } from '../base/bytes.js'
import type { Log } from '../base/log.js'
import { hashBytes, hashOid, nextHash } from '../model/hash.js'
import type { Oid } from '../model/oid.js'
import type { Files, Random } from '../world/world.js'
import { idOf, nameDisk } from './disk-table.js'
import { errnoOf } from './errno.js'
import { SharedSync } from './shared-sync.js'

export const WEIGHT_ATTRIBUTE = 'user.md.size'
const VIRTUAL_DISK_BYTES = 16 * 1024 * 1024
const STALE_DIRECTORY = '.stale'

export interface Disk {
  readonly index: number
  readonly path: string
  /** What the directory itself says which one it is. */
  readonly id: string
  readonly stalePath: string
  readonly weightBytes: number
  /** Bytes the working objects occupied when they were found or created. */
  usedBytes: number
  /** It failed or was unplugged: nothing on it is this node's any more, whatever was begun. */
  gone: boolean
  /** Durability of the names in `path` and `stalePath`. */
  readonly names: SharedSync
  readonly staleNames: SharedSync
}

export interface DiskOptions {
  readonly files: Files
  readonly random: Pick<Random, 'bytes'>
  readonly log: Log
  /** Directory of config and epoch; objects live in its `obj` when `disks` is empty. */
  readonly metaDirectory: string
  readonly disks: readonly string[]
}

interface Point {
  readonly position: bigint
  readonly disk: number
}

export class DiskSet {
  /** Those in use. */
  readonly disks: readonly Disk[]
  /** Sum of the weights: what this node announces. */
  readonly spaceBytes: number
  /** Every disk there ever was, by its index. */
  readonly slots: readonly Disk[]
  private readonly positions: BigUint64Array
  private readonly owners: Uint32Array

  /** `slots`: disks by their index; those that are gone keep theirs. */
  constructor(slots: readonly Disk[]) {
    this.slots = slots
    this.disks = slots.filter((disk) => !disk.gone)
    this.spaceBytes = this.disks.reduce((sum, disk) => sum + disk.weightBytes, 0)
    const points = this.disks.length > 1 ? this.disks.flatMap(pointsOf) : []
    points.sort((a, b) => (a.position < b.position ? -1 : a.position > b.position ? 1 : 0))
    this.positions = BigUint64Array.from(points, (point) => point.position)
    this.owners = Uint32Array.from(points, (point) => point.disk)
  }

  at(index: number): Disk {
    return this.slots[index]!
  }

  byPath(path: string): Disk | undefined {
    return this.disks.find((disk) => disk.path === path)
  }

  /** The same with one disk more, at the next index. */
  with(make: (index: number) => Disk): DiskSet {
    return new DiskSet([...this.slots, make(this.slots.length)])
  }

  /** The same without the disks that are `gone` by now. */
  current(): DiskSet {
    return new DiskSet(this.slots)
  }

  /** Where a new object goes: the first position at or after its hash, wrapping. */
  choose(oid: Oid): Disk {
    if (this.positions.length === 0) return this.disks[0]!
    return this.slots[this.owners[this.place(oid)]!]!
  }

  /** All disks, beginning with the chosen one, in the order the ring names them. */
  *inOrder(oid: Oid): Iterable<Disk> {
    if (this.positions.length === 0) {
      yield* this.disks
      return
    }
    const seen = new Set<number>()
    const start = this.place(oid)
    for (let i = 0; i < this.owners.length && seen.size < this.disks.length; i++) {
      const owner = this.owners[(start + i) % this.owners.length]!
      if (seen.has(owner)) continue
      seen.add(owner)
      yield this.slots[owner]!
    }
  }

  private place(oid: Oid): number {
    const hash = hashOid(oid)
    let low = 0
    let high = this.positions.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.positions[middle]! < hash) low = middle + 1
      else high = middle
    }
    return low === this.positions.length ? 0 : low
  }
}

/** Positions of a disk's virtual disks, in the order of the chain. */
export function virtualDiskPositions(path: string, weightBytes: number): bigint[] {
  let position = hashBytes(encodeText(path))
  return Array.from({ length: Math.ceil(weightBytes / VIRTUAL_DISK_BYTES) }, () => {
    position = nextHash(position)
    return position
  })
}

function pointsOf(disk: Disk): Point[] {
  const positions = virtualDiskPositions(disk.path, disk.weightBytes)
  return positions.map((position) => ({ position, disk: disk.index }))
}

/** Throws an Error that says why `path` can be no disk, whatever is on it. */
export function mustBeDisk(files: Files, path: string): void {
  if (files.exists(`${path}/config`) && files.exists(`${path}/epoch`)) {
    throw new Error(`${path} is the meta directory of a sheep, not a disk: give another directory`)
  }
  if (files.exists(`${path}/meta`)) {
    throw new Error(
      `${path} holds a tree store, which this sheep cannot read: start with an empty directory ` +
        'and let recovery fill it',
    )
  }
}

/** Makes the directories, reads the weight and gives an identity to one that has none. */
export function openDisk({ files, random, log }: DiskOptions, path: string, index: number): Disk {
  const stalePath = `${path}/${STALE_DIRECTORY}`
  makeDirectory(files, path)
  makeDirectory(files, stalePath)
  const weightBytes = weigh(files, path)
  const id = idOf(files, path) ?? nameDisk(files, path, random)
  log.info('store.disk', { path, weightBytes })
  return {
    index,
    path,
    id,
    stalePath,
    weightBytes,
    usedBytes: 0,
    gone: false,
    names: directorySync(files, path),
    staleNames: directorySync(files, stalePath),
  }
}

function directorySync(files: Files, path: string): SharedSync {
  return new SharedSync((done) => {
    files.syncDir(path).then(() => done(null), done)
  })
}

export function makeDirectory(files: Files, path: string): void {
  if (!files.exists(path)) files.mkdir(path)
}

/** The weight is set once, at first use, to what is free then: it must not move objects later. */
function weigh(files: Files, path: string): number {
  try {
    const known = files.getAttribute(path, WEIGHT_ATTRIBUTE)
    if (known !== undefined) return decodeWeight(path, known)
    const { freeBytes } = files.space(path)
    const value = Buffer.alloc(8)
    value.writeBigUInt64LE(BigInt(freeBytes))
    files.setAttribute(path, WEIGHT_ATTRIBUTE, value)
    return freeBytes
  } catch (error) {
    const errno = errnoOf(error)
    if (errno !== 'ENOTSUP' && errno !== 'EOPNOTSUPP') throw error
    throw new Error(
      `${path}: its file system has no extended attributes (user.*), which the store needs: ` +
        'use ext4, xfs or btrfs, or mount it with user_xattr',
      { cause: error },
    )
  }
}

function decodeWeight(path: string, value: Buffer): number {
  const weight = value.length === 8 ? value.readBigUInt64LE() : undefined
  if (weight === undefined || weight > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new Error(
      `${path}: attribute ${WEIGHT_ATTRIBUTE} is not a size; ` +
        `remove it (setfattr -x ${WEIGHT_ATTRIBUTE} ${path}) to have it measured anew`,
    )
  }
  return Number(weight)
}
