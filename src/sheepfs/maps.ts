/** Maps of disks as JSON: what is allocated, and what was changed since a snapshot. */
import { type InodeHeader, slotsOf } from '../model/inode.js'
import { vidName } from '../model/oid.js'
import { extentsIn, leavesNow } from '../volume/hyper-leaves.js'
import { Errno } from '../wire/fuse/constants.js'
import type { FsContext } from './context.js'
import { FsError } from './errors.js'

interface Stretch {
  readonly start: number
  readonly length: number
}

async function slotsOfVdi(fs: FsContext, header: InodeHeader): Promise<Uint32Array> {
  if (header.storePolicy !== 0) throw new FsError(Errno.EOPNOTSUPP)
  const count = slotsOf(header.sizeBytes, header.blockSizeShift)
  return fs.volumes.access.readSlots(header.vid, count)
}

/** Neighbours that are alike, as stretches of bytes. */
function stretches<T>(
  count: number,
  header: InodeHeader,
  kindOf: (slot: number) => T,
): (Stretch & { readonly kind: T })[] {
  const objectBytes = 2 ** header.blockSizeShift
  const found: (Stretch & { kind: T })[] = []
  for (let first = 0; first < count; ) {
    const kind = kindOf(first)
    let end = first + 1
    while (end < count && kindOf(end) === kind) end++
    const start = first * objectBytes
    found.push({ start, length: Math.min(end * objectBytes, header.sizeBytes) - start, kind })
    first = end
  }
  return found
}

/** As `qemu-img map --output=json` has it, with the VDI each stretch belongs to. */
export async function mapText(fs: FsContext, header: InodeHeader): Promise<string> {
  if (header.storePolicy !== 0) return hyperMapText(fs, header)
  const slots = await slotsOfVdi(fs, header)
  const rows = stretches(slots.length, header, (slot) => slots[slot]!).map(
    ({ start, length, kind }) => {
      const owner = kind === 0 ? {} : { vdi: vidName(kind) }
      return { start, length, data: kind !== 0, zero: kind === 0, ...owner }
    },
  )
  return `${JSON.stringify(rows, undefined, 1)}\n`
}

async function hyperMapText(fs: FsContext, header: InodeHeader): Promise<string> {
  const { vid, sizeBytes, blockSizeShift } = header
  const leaves = await leavesNow(fs.volumes.access, vid)
  let start = 0
  const range = { offset: 0, length: sizeBytes }
  const rows = extentsIn(leaves, range, 2 ** blockSizeShift).map(({ length, hole }) => {
    const owner = hole ? {} : { vdi: vidName(vid) }
    const row = { start, length, data: !hole, zero: hole, ...owner }
    start += length
    return row
  })
  return `${JSON.stringify(rows, undefined, 1)}\n`
}

/** Stretches of `header` that were written or discarded since `base` was taken; granular to objects. */
export async function changesText(
  fs: FsContext,
  header: InodeHeader,
  base: InodeHeader,
): Promise<string> {
  if (base.blockSizeShift !== header.blockSizeShift) throw new FsError(Errno.EOPNOTSUPP)
  const [now, before] = [await slotsOfVdi(fs, header), await slotsOfVdi(fs, base)]
  const rows = stretches(now.length, header, (slot) => now[slot] !== (before[slot] ?? 0))
    .filter(({ kind }) => kind)
    .map(({ start, length }) => ({ start, length }))
  return `${JSON.stringify(rows, undefined, 1)}\n`
}
