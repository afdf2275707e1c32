/**
 * FAT12, FAT16 and FAT32 (Microsoft, "FAT: General Overview of On-Disk Format"). Its label is an entry of the root
 * directory; that of the boot sector is what it was made with. What is free is counted in FAT12's and FAT16's table, which is
 * small, and believed in FAT32.
 */
import type { Content, Prober } from './content.js'
import { type DiskView, isPowerOfTwo, readWithin } from './disk.js'

const ENTRY_BYTES = 32
/** Of the root directory, in which the label is one of the first entries. */
const ROOT_BYTES_MAX = 64 * 1024
const FAT12_CLUSTERS_MAX = 4084
const FAT16_CLUSTERS_MAX = 65524
const VOLUME_ID = 0x08
const LONG_NAME = 0x0f
const INFO_SIGNATURES = [
  [0, 0x41615252],
  [484, 0x61417272],
] as const

interface Layout {
  readonly kind: 'FAT12' | 'FAT16' | 'FAT32'
  readonly sectorBytes: number
  readonly clusterBytes: number
  readonly clusters: number
  readonly sectors: number
  readonly reserved: number
  readonly fatSectors: number
  readonly rootAt: number
  readonly rootBytes: number
}

export const fat: Prober = {
  type: 'vfat',
  async probe(head, disk) {
    const layout = head.length < 512 ? undefined : layoutOf(head)
    if (layout === undefined) return undefined
    const { kind, sectorBytes, clusterBytes, clusters, sectors } = layout
    const ids = kind === 'FAT32' ? 64 : 36
    const free =
      kind === 'FAT32' ? await toldFree(head, disk, layout) : await countFree(disk, layout)
    const content: Content = {
      type: 'vfat',
      version: kind,
      label: (await rootLabel(disk, layout)) ?? bootLabel(head, ids),
      uuid: serialOf(head, ids),
      blockBytes: clusterBytes,
      sizeBytes: sectors * sectorBytes,
      freeBytes: free === undefined ? undefined : free * clusterBytes,
      usedBytes: free === undefined ? undefined : (clusters - free) * clusterBytes,
    }
    return content
  },
}

function layoutOf(head: Buffer): Layout | undefined {
  if (head[510] !== 0x55 || head[511] !== 0xaa) return undefined
  const sectorBytes = head.readUInt16LE(11)
  const perCluster = head[13]!
  const reserved = head.readUInt16LE(14)
  const fats = head[16]!
  const isMedia = head[21] === 0xf0 || head[21]! >= 0xf8
  const isSane =
    isPowerOfTwo(sectorBytes) &&
    sectorBytes >= 512 &&
    sectorBytes <= 4096 &&
    isPowerOfTwo(perCluster) &&
    reserved > 0 &&
    fats > 0 &&
    fats <= 2 &&
    isMedia
  if (!isSane) return undefined
  const sectors = head.readUInt16LE(19) || head.readUInt32LE(32)
  const isOld = head.readUInt16LE(22) !== 0
  const fatSectors = isOld ? head.readUInt16LE(22) : head.readUInt32LE(36)
  const rootBytes = head.readUInt16LE(17) * ENTRY_BYTES
  const rootSector = reserved + fats * fatSectors
  const dataSector = rootSector + Math.ceil(rootBytes / sectorBytes)
  const clusters = Math.floor((sectors - dataSector) / perCluster)
  if (fatSectors === 0 || clusters <= 0) return undefined
  const old = clusters <= FAT12_CLUSTERS_MAX ? 'FAT12' : 'FAT16'
  if (isOld && (clusters > FAT16_CLUSTERS_MAX || rootBytes === 0)) return undefined
  const clusterBytes = perCluster * sectorBytes
  const rootCluster = isOld ? 0 : head.readUInt32LE(44)
  return {
    ...{ kind: isOld ? old : 'FAT32', sectorBytes, clusterBytes, clusters, sectors, reserved },
    fatSectors,
    rootAt: isOld
      ? rootSector * sectorBytes
      : dataSector * sectorBytes + (rootCluster - 2) * clusterBytes,
    rootBytes: Math.min(isOld ? rootBytes : clusterBytes, ROOT_BYTES_MAX),
  }
}

/** Undefined where the directory has none. */
async function rootLabel(disk: DiskView, layout: Layout): Promise<string | undefined> {
  const root = await readWithin(disk, layout.rootAt, layout.rootBytes)
  if (root === undefined) return undefined
  for (let at = 0; at + ENTRY_BYTES <= root.length && root[at] !== 0; at += ENTRY_BYTES) {
    const attributes = root[at + 11]!
    const isLabel = (attributes & VOLUME_ID) !== 0 && (attributes & LONG_NAME) !== LONG_NAME
    if (root[at] !== 0xe5 && isLabel) return root.toString('latin1', at, at + 11).trimEnd()
  }
  return undefined
}

function bootLabel(head: Buffer, ids: number): string {
  if (head[ids + 2] !== 0x29) return ''
  const label = head.toString('latin1', ids + 7, ids + 18).trimEnd()
  return label === 'NO NAME' ? '' : label
}

function serialOf(head: Buffer, ids: number): string | undefined {
  if (head[ids + 2] !== 0x28 && head[ids + 2] !== 0x29) return undefined
  const hex = head
    .readUInt32LE(ids + 3)
    .toString(16)
    .toUpperCase()
    .padStart(8, '0')
  return `${hex.slice(0, 4)}-${hex.slice(4)}`
}

/** What the last one to write it said: the FSInfo sector. */
async function toldFree(head: Buffer, disk: DiskView, layout: Layout): Promise<number | undefined> {
  const info = await readWithin(disk, head.readUInt16LE(48) * layout.sectorBytes, 512)
  const isInfo = INFO_SIGNATURES.every(([at, value]) => info?.readUInt32LE(at) === value)
  const free = info?.readUInt32LE(488)
  return isInfo && free !== undefined && free <= layout.clusters ? free : undefined
}

async function countFree(disk: DiskView, layout: Layout): Promise<number | undefined> {
  const { kind, clusters, reserved, sectorBytes, fatSectors } = layout
  const length = kind === 'FAT12' ? Math.ceil((clusters + 2) * 1.5) : (clusters + 2) * 2
  if (length > fatSectors * sectorBytes) return undefined
  const table = await readWithin(disk, reserved * sectorBytes, length)
  if (table === undefined) return undefined
  let free = 0
  for (let cluster = 2; cluster < clusters + 2; cluster++) {
    if (kind === 'FAT16' && table.readUInt16LE(cluster * 2) === 0) free++
    else if (kind === 'FAT12' && entry12(table, cluster) === 0) free++
  }
  return free
}

/** Two entries share three bytes. */
function entry12(table: Buffer, cluster: number): number {
  const pair = table.readUInt16LE(Math.floor(cluster * 1.5))
  return (cluster & 1) === 0 ? pair & 0xfff : pair >> 4
}
