/** Reading a VDI's inode the way a volume needs it, and refusing what a volume cannot serve. */
import { Code, SheepError } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import type { VdiAccess } from '../model/access.js'
import { HYPER_OBJECTS_MAX } from '../model/hyper-tree.js'
import { type InodeHeader, slotsOf } from '../model/inode.js'
import { type Vid, vidName } from '../model/oid.js'

/** Snapshots that may have been taken between two looks at a VDI. */
const GENERATIONS_MAX = 256

export interface VdiImage {
  readonly vid: Vid
  readonly header: InodeHeader
  /** One owner a slot, as many as the size needs. */
  readonly slots: Uint32Array
}

/** Its objects are named by an index instead of slots. */
export function isHyper(header: InodeHeader): boolean {
  return header.storePolicy === 1
}

/** Throws a SheepError when a volume cannot serve this VDI. */
export function checkServable(header: InodeHeader): void {
  const isKnown = header.storePolicy === 0 || (isHyper(header) && header.snapCtime === 0n)
  if (!isKnown) {
    const what = isHyper(header) ? 'a snapshot of a hypervolume' : 'of a kind nobody knows'
    throw new SheepError(Code.NO_SUPPORT, `VDI ${header.name} is ${what}`)
  }
  const shift = header.blockSizeShift
  const objectsMax = isHyper(header) ? HYPER_OBJECTS_MAX : LIMITS.objectsPerVdiMax
  const isSane =
    shift >= LIMITS.blockSizeShiftMin &&
    shift <= LIMITS.blockSizeShiftMax &&
    slotsOf(header.sizeBytes, shift) <= objectsMax
  if (!isSane) {
    throw new SheepError(
      Code.NO_SUPPORT,
      `VDI ${header.name}: ${header.sizeBytes} bytes in objects of 2^${shift} bytes`,
    )
  }
}

/** Header and slots. Rejects with a SheepError, NO_SUPPORT for VDIs a volume cannot serve. */
export async function readVdi(vdis: VdiAccess, vid: Vid): Promise<VdiImage> {
  const header = await vdis.readHeader(vid)
  checkServable(header)
  if (isHyper(header)) {
    throw new SheepError(Code.NO_SUPPORT, `VDI ${header.name} is a hypervolume and has no slots`)
  }
  return { vid, header, slots: await readSlots(vdis, vid, header) }
}

/** As many as the size needs. Rejects with a SheepError. */
export async function readSlots(
  vdis: VdiAccess,
  vid: Vid,
  header: InodeHeader,
): Promise<Uint32Array> {
  const count = slotsOf(header.sizeBytes, header.blockSizeShift)
  const slots = await vdis.readSlots(vid, count)
  if (slots.length !== count) {
    throw new SheepError(Code.VDI_READ, `VDI ${header.name}: ${slots.length} of ${count} slots`)
  }
  return slots
}

/**
 * The working VDI that came out of `vid` by snapshots; `vid` itself when none was taken. Rejects with
 * NO_VDI when there is none, also when the name now belongs to a VDI of other descent: writing
 * there what was meant for the old one would destroy it.
 */
export async function findSuccessor(vdis: VdiAccess, name: string, vid: Vid): Promise<Vid> {
  const found = await vdis.find(name, { kind: 'working' })
  let at: Vid = found
  for (let i = 0; i < GENERATIONS_MAX && at !== 0; i++) {
    if (at === vid) return found
    at = (await vdis.readHeader(at)).parent
  }
  throw new SheepError(
    Code.NO_VDI,
    `VDI ${name} (${vidName(vid)}) is gone; the name belongs to another VDI (${vidName(found)})`,
  )
}
