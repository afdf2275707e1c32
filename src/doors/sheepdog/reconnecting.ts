/**
 * QEMU's driver and tgt connect again when their connection ends, and send what was not answered once more; any
 * error they hand to the guest as one of its disk. So a node that is not in yet lets their requests wait, and
 * one that is on its way out ends their connections instead of telling them so. (Ending them while it is not in yet
 * would make QEMU try again without a pause, and 5.2 does not survive that for long.)
 */
import { Code } from '../../base/codes.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { Op } from '../../wire/sheepdog/opcodes.js'

const BLOCK_IO: ReadonlySet<number> = new Set([
  Op.READ_OBJ,
  Op.WRITE_OBJ,
  Op.CREATE_AND_WRITE_OBJ,
  Op.DISCARD_OBJ,
  Op.FLUSH_VDI,
])

/** Versions clients state: QEMU's object requests none, tgt's 1; dog states 2 and wants the reason. */
const LAST_RECONNECTING = 1

function reconnects(request: Frame): boolean {
  return request.version <= LAST_RECONNECTING && BLOCK_IO.has(request.opcode)
}

/** The node is about to join its cluster: its client would take the refusal for a broken disk. */
export function canWait(request: Frame, refusal: Code): boolean {
  return refusal === Code.WAIT_FOR_JOIN && reconnects(request)
}

/** The answer says only that this node ends, and its client asks again when it does not get any. */
export function isBetterUnsaid(request: Frame, result: Code): boolean {
  const ends = result === Code.SHUTDOWN || result === Code.KILLED || result === Code.WAIT_FOR_JOIN
  return ends && reconnects(request)
}
