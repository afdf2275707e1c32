/** Which volumes a connection has used, where ids of deleted ones become free again (sheep/recycling.ts). */
import { oidKind, oidVid } from '../../model/oid.js'
import type { Caller } from '../../sheep/caller.js'
import type { SheepNode } from '../../sheep/node.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { Op } from '../../wire/sheepdog/opcodes.js'
import { objectFields } from '../../wire/sheepdog/requests.js'

const USES: ReadonlySet<number> = new Set([
  Op.READ_OBJ,
  Op.WRITE_OBJ,
  Op.CREATE_AND_WRITE_OBJ,
  Op.REMOVE_OBJ,
  Op.DISCARD_OBJ,
  Op.FLUSH_VDI,
])

export function noteUse(node: SheepNode, request: Frame, caller: Caller): void {
  const { recycling } = node.caretaker
  if (!recycling.isOn) return
  const oid = objectFields.oid(request)
  // The id in an attribute's is its volume's name's.
  const isUse = USES.has(request.opcode) && oidKind(oid) !== 'attribute'
  if (isUse) recycling.users.used(caller, oidVid(oid))
  else recycling.users.spoke(caller)
}
