/** What a disk or a partition holds: a file system, swap space, or a part of something larger. */
import { type DiskView, readWithin } from './disk.js'

export interface Content {
  /** As blkid calls it: `ext4`, `xfs`, `vfat`, `swap`, `LVM2_member`, `crypto_LUKS`, `qcow2`. */
  readonly type: string
  /** Of its format: `FAT32`, `2` of LUKS2. */
  readonly version?: string | undefined
  readonly label?: string | undefined
  readonly uuid?: string | undefined
  readonly sizeBytes?: number | undefined
  /** As its superblock has it: written when it was unmounted or synced last. */
  readonly usedBytes?: number | undefined
  readonly freeBytes?: number | undefined
  readonly blockBytes?: number | undefined
  /** Short words: `needs recovery`, `volume group vg0`. */
  readonly details?: readonly string[]
  /** Sentences about what is damaged. */
  readonly problems?: readonly string[]
}

/**
 * Recognises one kind of content. `head` is the disk's beginning, HEAD_BYTES or all there is; what lies elsewhere is read.
 * Undefined where it is something else.
 */
export interface Prober {
  readonly type: string
  probe(head: Buffer, disk: DiskView): Content | undefined | Promise<Content | undefined>
}

/** Holds the superblocks of all that is known, btrfs's at 64 KiB being the last. */
export const HEAD_BYTES = 68 * 1024

/** The first of `probers` that knows what it is; undefined where none does. Rejects with the reader's error. */
export async function probe(
  disk: DiskView,
  probers: readonly Prober[],
): Promise<Content | undefined> {
  const head = await readWithin(disk, 0, Math.min(HEAD_BYTES, disk.sizeBytes))
  if (head === undefined) return undefined
  for (const prober of probers) {
    const content = await prober.probe(head, disk)
    if (content !== undefined) return withSize(content, disk)
  }
  return undefined
}

/** Numbers that contradict each other are left out and told of. */
function withSize(content: Content, disk: DiskView): Content {
  const { sizeBytes, usedBytes, freeBytes } = content
  const problems = [...(content.problems ?? [])]
  const reachesOut = sizeBytes !== undefined && sizeBytes > disk.sizeBytes
  if (reachesOut && content.type !== 'qcow2') {
    problems.push(`its ${sizeBytes} bytes do not fit into the ${disk.sizeBytes} bytes it has`)
  }
  const isUsageSane = [usedBytes, freeBytes].every(
    (bytes) => bytes === undefined || (bytes >= 0 && bytes <= (sizeBytes ?? bytes)),
  )
  const usage = isUsageSane ? {} : { usedBytes: undefined, freeBytes: undefined }
  if (!isUsageSane) problems.push('its counters of used and free space cannot be')
  return { ...content, ...usage, problems }
}
