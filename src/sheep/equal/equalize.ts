/** Makes this node's copy of an object equal to another one's, where they differ. */
import { Code, toCode } from '../../base/codes.js'
import type { SdNode } from '../../model/node.js'
import { type Oid, objectBytes, oidVid } from '../../model/oid.js'
import type { ObjectStore } from '../../store/object-store.js'
import { Flag, Op } from '../../wire/sheepdog/opcodes.js'
import { objectRequest } from '../../wire/sheepdog/requests.js'
import type { Peers } from '../peers.js'
import type { NodeState } from '../state.js'

/** Compared, and written where different, in one go. */
const PIECE_BYTES = 1024 * 1024

export interface Comparison {
  readonly state: NodeState
  readonly store: Pick<ObjectStore, 'read' | 'write'>
  readonly peers: Pick<Peers, 'call'>
  readonly oid: Oid
  /** The comparison is of this epoch; a newer one begins it again. */
  readonly epoch: number
  /** The owner whose copy is right. */
  readonly source: SdNode
  /** The other node must have heard that the copies may differ, too: else a write that was carried out here may still be on its way there. */
  readonly both: boolean
  /** False: the object has been removed meanwhile. */
  readonly isWanted: () => boolean
}

/**
 * The other node answers like any read of the epoch: once its own copy is the right one; or AGAIN, when somebody is having
 * it repaired, perhaps from the copy here, or when it has not heard of the object in this epoch. Writes that reach it after a
 * piece was read come here too, and wait until this is done. Nothing needs space: only what differs is written, in place,
 * and until all is done the object stays on record as one to be compared.
 */
export async function equalize(comparison: Comparison): Promise<Code> {
  const { state, oid } = comparison
  const bytes = objectBytes(oid, state.blockSizeShiftOf(oidVid(oid)))
  for (let offset = 0; offset < bytes; offset += PIECE_BYTES) {
    const code = await piece(comparison, offset, Math.min(PIECE_BYTES, bytes - offset))
    if (code !== Code.SUCCESS) return code
  }
  return Code.SUCCESS
}

async function piece(comparison: Comparison, offset: number, length: number): Promise<Code> {
  const { state, store, peers, oid, epoch, source, both } = comparison
  const own = Buffer.allocUnsafe(length)
  const read = {
    opcode: Op.READ_PEER,
    flags: Flag.COMPARES,
    epoch,
    targetEpoch: both ? epoch : 0,
    oid,
    offset,
    dataLength: length,
  }
  const head = objectRequest(read)
  const [reply, code] = await Promise.all([
    peers.call(source, head).catch(() => undefined),
    new Promise<Code>((resolve) => store.read(oid, offset, own, resolve)),
  ])
  if (code !== Code.SUCCESS) return code
  if (reply === undefined) return Code.NETWORK_ERROR
  if (reply.result !== Code.SUCCESS) return toCode(reply.result)
  if (reply.body.length !== length) return Code.NETWORK_ERROR
  if (state.epoch !== epoch) return Code.OLD_NODE_VER
  if (!comparison.isWanted()) return Code.NO_OBJ
  if (own.equals(reply.body)) return Code.SUCCESS
  return new Promise((resolve) => {
    store.write(oid, offset, reply.body, { durable: true }, resolve)
  })
}
