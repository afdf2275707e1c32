/**
 * The directories objects live in, their weights, and which of them a new object goes to (objects spec,
 * section 12). A disk gets one virtual disk per 16 MiB of weight on a hash ring.
 */
import { encodeText } from '../base/bytes.js'
import type { Log } from '../base/log.js'
import { hashBytes, hashOid, nextHash } from '../model/hash.js'
import type { Oid } from '../model/oid.js'
import type { Files } from '../world/world.js'
import { errnoOf } from './errno.js'
import { SharedSync } from './shared-sync.js'

export const WEIGHT_ATTRIBUTE = 'user.md.size'
const VIRTUAL_DISK_BYTES = 16 * 1024 * 1024
const STALE_DIRECTORY = '.stale'

export interface Disk {
  readonly index: number
  readonly path: string
  readonly stalePath: string
  readonly weightBytes: number
  /** Bytes the working objects occupied when they were found or created. */
  usedBytes: number
  /** Durability of the names in `path` and `stalePath`. */
  readonly names: SharedSync
  readonly staleNames: SharedSync
}

export interface DiskOptions {
  readonly files: Files
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
  readonly disks: readonly Disk[]
  /** Sum of the weights: what this node announces. */
  readonly spaceBytes: number
  private readonly positions: BigUint64Array
  private readonly owners: Uint32Array

  constructor(disks: readonly Disk[]) {
    this.disks = disks
    this.spaceBytes = disks.reduce((sum, disk) => sum + disk.weightBytes, 0)
    const points = disks.length > 1 ? disks.flatMap(pointsOf) : []
    points.sort((a, b) => (a.position < b.position ? -1 : a.position > b.position ? 1 : 0))
    this.positions = BigUint64Array.from(points, (point) => point.position)
    this.owners = Uint32Array.from(points, (point) => point.disk)
  }

  /** Where a new object goes: the first position at or after its hash, wrapping. */
  choose(oid: Oid): Disk {
    if (this.positions.length === 0) return this.disks[0]!
    const hash = hashOid(oid)
    let low = 0
    let high = this.positions.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.positions[middle]! < hash) low = middle + 1
      else high = middle
    }
    return this.disks[this.owners[low === this.positions.length ? 0 : low]!]!
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

/** Makes the directories and reads the weights. Throws an Error that names the directory and the remedy. */
export function openDisks(options: DiskOptions): DiskSet {
  const meta = trimSlashes(options.metaDirectory)
  const chosen = options.disks.length === 0 ? [`${meta}/obj`] : options.disks.map(trimSlashes)
  const twice = chosen.find((path, i) => chosen.indexOf(path) !== i)
  if (twice !== undefined) throw new Error(`${twice} is given twice as a disk`)
  makeDirectory(options.files, meta)
  return new DiskSet(chosen.map((path, index) => openDisk(options, path, index)))
}

function openDisk({ files, log }: DiskOptions, path: string, index: number): Disk {
  if (files.exists(`${path}/config`) && files.exists(`${path}/epoch`)) {
    throw new Error(`${path} is the meta directory of a sheep, not a disk: give another directory`)
  }
  if (files.exists(`${path}/meta`)) {
    throw new Error(
      `${path} holds a tree store, which this sheep cannot read: start with an empty directory ` +
        'and let recovery fill it',
    )
  }
  const stalePath = `${path}/${STALE_DIRECTORY}`
  makeDirectory(files, path)
  makeDirectory(files, stalePath)
  const weightBytes = weigh(files, path)
  log.info('store.disk', { path, weightBytes })
  return {
    index,
    path,
    stalePath,
    weightBytes,
    usedBytes: 0,
    names: directorySync(files, path),
    staleNames: directorySync(files, stalePath),
  }
}

function directorySync(files: Files, path: string): SharedSync {
  return new SharedSync((done) => {
    files.syncDir(path).then(() => done(null), done)
  })
}

function makeDirectory(files: Files, path: string): void {
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

function trimSlashes(path: string): string {
  return path.replace(/(?<=.)\/+$/, '')
}
