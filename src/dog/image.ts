/** A VDI or snapshot opened through its inode: header and slots, as 1.0's clients hold it. */
import { Code, codeText, SheepError } from '../base/codes.js'
import {
  decodeInodeHeader,
  INODE_HEADER_BYTES,
  type InodeHeader,
  SLOT_BYTES,
  SLOTS_MAX,
  slotRange,
  slotsOf,
} from '../model/inode.js'
import { asVid, inodeOid, type Oid, oidName, type Vid } from '../model/oid.js'
import type { Redundancy } from '../model/policy.js'
import { reasonOf, type Sheep } from './client.js'
import { type Failure, failed } from './failure.js'
import type { SnapshotSelector } from './options.js'
import type { Output } from './output.js'

/** Slots fetched with one request: 256 KiB. */
const SLOTS_PER_READ = 65536

export interface OpenedVdi {
  readonly vid: Vid
  readonly header: InodeHeader
}

export function redundancyOf(header: InodeHeader): Redundancy {
  return { copies: header.copies, policy: header.policy }
}

export function isHyper(header: InodeHeader): boolean {
  return header.storePolicy !== 0
}

/** `Failed to open VDI img (snapshot id: 9 snapshot tag: ): ...` */
export function openFailure(name: string, which: SnapshotSelector, error: unknown): Failure {
  const selector = `(snapshot id: ${which.snapId} snapshot tag: ${which.tag})`
  return failed(`Failed to open VDI ${name} ${selector}: ${reasonOf(error)}`)
}

/** Throws the open failure. */
export async function openVdi(
  sheep: Sheep,
  name: string,
  which: SnapshotSelector,
): Promise<OpenedVdi> {
  try {
    const vid = await sheep.lookup(name, which)
    return { vid, header: await readHeader(sheep, vid) }
  } catch (error) {
    throw openFailure(name, which, error)
  }
}

/** Rejects with the SheepError of the read; INVALID_PARMS for a header that cannot be one. */
export async function readHeader(sheep: Sheep, vid: Vid): Promise<InodeHeader> {
  const bytes = await sheep.readObject(inodeOid(vid), 0, INODE_HEADER_BYTES)
  try {
    const header = decodeInodeHeader(bytes)
    const slots = slotsOf(header.sizeBytes, header.blockSizeShift)
    if (header.blockSizeShift > 31 || (!isHyper(header) && slots > SLOTS_MAX)) {
      throw new RangeError(`a VDI of ${slots} objects`)
    }
    return header
  } catch (error) {
    if (error instanceof RangeError) throw new SheepError(Code.INVALID_PARMS)
    throw error
  }
}

/**
 * The slots up to the volume's size, in pieces. `use` gets the index of the first and the vids;
 * rejects with the SheepError of a read.
 */
export async function scanSlots(
  sheep: Sheep,
  vdi: OpenedVdi,
  use: (first: number, vids: Uint32Array) => void,
): Promise<void> {
  const count = slotsOf(vdi.header.sizeBytes, vdi.header.blockSizeShift)
  for (let first = 0; first < count; first += SLOTS_PER_READ) {
    use(first, await readSlots(sheep, vdi.vid, first, Math.min(SLOTS_PER_READ, count - first)))
  }
}

/** All slots up to the volume's size; at most 4 MiB. */
export async function loadSlots(sheep: Sheep, vdi: OpenedVdi): Promise<Uint32Array> {
  const slots = new Uint32Array(slotsOf(vdi.header.sizeBytes, vdi.header.blockSizeShift))
  await scanSlots(sheep, vdi, (first, vids) => {
    slots.set(vids, first)
  })
  return slots
}

async function readSlots(
  sheep: Sheep,
  vid: Vid,
  first: number,
  count: number,
): Promise<Uint32Array> {
  const { offset, length } = slotRange(first, count)
  const bytes = await sheep.readObject(inodeOid(vid), offset, length)
  return Uint32Array.from({ length: count }, (_, i) => asVid(bytes.readUInt32LE(i * SLOT_BYTES)))
}

export async function readSlot(sheep: Sheep, vid: Vid, index: number): Promise<Vid> {
  const [slot] = await readSlots(sheep, vid, index, 1)
  return asVid(slot ?? 0)
}

/** Writes a run of slots; `vids` may be zeros to give the objects up. */
export async function writeSlots(
  sheep: Sheep,
  vdi: OpenedVdi,
  first: number,
  vids: readonly number[],
): Promise<void> {
  const data = Buffer.alloc(vids.length * SLOT_BYTES)
  vids.forEach((vid, i) => {
    data.writeUInt32LE(vid, i * SLOT_BYTES)
  })
  const { offset } = slotRange(first, vids.length)
  const oid = inodeOid(vdi.vid)
  await sheep.writeObject({ oid, offset, data, redundancy: redundancyOf(vdi.header) })
}

/** Tells which object could not be read or written (1.0 puts a colon only after the latter). */
export function sayObjectFailure(
  out: Output,
  verb: 'read' | 'write',
  oid: Oid,
  error: unknown,
): void {
  const colon = verb === 'write' ? ':' : ''
  out.error(`Failed to ${verb} object ${oidName(oid)}${colon} ${reasonOf(error)}`)
}

/** Hyper volumes keep their slots in a B-tree, which this program does not write. */
export function refuseHyper(name: string, header: InodeHeader): void {
  if (!isHyper(header)) return
  throw failed(`${name} is a hyper volume: ${codeText(Code.NO_SUPPORT)}`)
}

export function hasCode(error: unknown, ...codes: readonly Code[]): boolean {
  return error instanceof SheepError && codes.includes(error.code)
}
