/**
 * QEMU's driver keeps the map of a volume (its slots) in memory, and deleting one of the volume's *snapshots*
 * (`qemu-img snapshot -d`, `delvm`) it empties that map and writes the zeros into the inode of the volume it has open,
 * instead of the snapshot's. Nothing else sends such a request, so the data are saved here: the zeros are
 * not written, and a process that goes on without its map cannot overwrite what it does not know of any more.
 */
import { Code, type Done } from '../../base/codes.js'
import { isSlotUpdate, SLOT_BYTES, slotRange } from '../../model/inode.js'
import { inodeOid, type Oid, oidIndex, oidVid, vidName } from '../../model/oid.js'
import type { SheepNode } from '../../sheep/node.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { Flag } from '../../wire/sheepdog/opcodes.js'

/** The driver leaves the version out of object requests; dog and tgt state theirs. */
const UNSTATED = 0
/** A discard of the object may be under way: its slot gets this long to become empty. */
const PATIENCE_MS = 2_000
const AGAIN_MS = 50

/**
 * A write to an inode that empties several slots at once. A discard of QEMU's is one slot; its other slot updates
 * begin and end with an object. The deletion itself, which follows, gives back what nobody names any more.
 */
export function isEmptying(request: Frame, offset: number, data: Buffer): boolean {
  if (request.version !== UNSTATED || data.length <= SLOT_BYTES) return false
  return isSlotUpdate(offset, data.length) && data.every((byte) => byte === 0)
}

/** A creation with QEMU's belief that the slot is empty. */
export function believesEmpty(request: Frame): boolean {
  return request.version === UNSTATED && !request.has(Flag.COW) && !request.has(Flag.TGT)
}

interface Creation {
  readonly oid: Oid
  readonly offset: number
  readonly data: Buffer
}

/**
 * Calls `create` when the slot is empty as the client believes, and `done` otherwise: with SUCCESS when the slot
 * names just this object with just these bytes (it is asked for again after its slot was written), else with EIO:
 * the client would replace data it cannot see.
 */
export function unlessOccupied(
  node: SheepNode,
  creation: Creation,
  create: () => void,
  done: Done,
): void {
  const vid = oidVid(creation.oid)
  const { offset } = slotRange(oidIndex(creation.oid), 1)
  if (!isSlotUpdate(offset, SLOT_BYTES)) {
    create()
    return
  }
  const slot = Buffer.alloc(SLOT_BYTES)
  const inode = node.gateway.ref(inodeOid(vid))
  const look = (waitedMs: number): void => {
    node.gateway.read(inode, offset, slot, (code) => {
      const owner = slot.readUInt32LE(0)
      if (code !== Code.SUCCESS && code !== Code.NO_OBJ) done(code)
      else if (code === Code.NO_OBJ || owner === 0) create()
      else if (waitedMs < PATIENCE_MS) node.after(AGAIN_MS, () => look(waitedMs + AGAIN_MS))
      else if (owner === vid) answerAgain(node, creation, done)
      else refuse(node, creation, done)
    })
  }
  look(0)
}

function answerAgain(node: SheepNode, creation: Creation, done: Done): void {
  const there = Buffer.allocUnsafe(creation.data.length)
  const compare: Done = (code) => {
    if (code !== Code.SUCCESS) done(code)
    else if (there.equals(creation.data)) done(Code.SUCCESS)
    else refuse(node, creation, done)
  }
  node.cache.read(node.cache.ref(creation.oid), creation.offset, there, compare, false)
}

function refuse(node: SheepNode, { oid }: Creation, done: Done): void {
  node.log.error('client.map.lost', {
    vid: vidName(oidVid(oid)),
    slot: oidIndex(oid),
    remedy: 'restart the virtual machine: this QEMU does not see its data any more',
  })
  done(Code.EIO)
}
