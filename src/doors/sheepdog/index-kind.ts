/** Whether a volume's inode has slots, or the root of an index (hypervolumes): what writes there mean. */
import { Code } from '../../base/codes.js'
import { STORE_POLICY_OFFSET } from '../../model/inode.js'
import { inodeOid, type Vid } from '../../model/oid.js'
import type { VdiState } from '../../model/vdi-state.js'
import type { SheepNode } from '../../sheep/node.js'

export type IndexKind = 'slots' | 'tree'

/** It never changes; what is known of a volume goes with what the node knows of it. */
const known = new WeakMap<VdiState, IndexKind>()

/** `then` gets the code of the read that was necessary. */
export function indexKind(
  node: SheepNode,
  vid: Vid,
  then: (code: Code, kind: IndexKind) => void,
): void {
  const state = node.state.vids.get(vid)
  const kind = state === undefined ? undefined : known.get(state)
  if (kind !== undefined) {
    then(Code.SUCCESS, kind)
    return
  }
  const byte = Buffer.alloc(1)
  node.gateway.read(node.gateway.ref(inodeOid(vid)), STORE_POLICY_OFFSET, byte, (code) => {
    const found: IndexKind = byte[0] === 0 ? 'slots' : 'tree'
    if (code === Code.SUCCESS && state !== undefined) known.set(state, found)
    then(code, found)
  })
}
