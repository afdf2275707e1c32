/**
 * A daemon that died held locks for clients that may still be alive: they connect to it again and go on, and never
 * ask for a lock again. As long as nobody else has taken the volume, the first of their writes takes it back.
 */
import { cString } from '../base/bytes.js'
import { Code, codeOf } from '../base/codes.js'
import { NAME_BYTES } from '../model/inode.js'
import type { Vid } from '../model/oid.js'
import { vidName } from '../model/oid.js'
import { Frame } from '../wire/sheepdog/frame.js'
import { Flag, LockType, Op } from '../wire/sheepdog/opcodes.js'
import { vdiRequest } from '../wire/sheepdog/requests.js'
import type { SheepNode } from './node.js'

const underWay = new WeakMap<SheepNode, Map<Vid, Promise<Code>>>()

/** VDI_LOCKED when somebody else was quicker. */
export function renewLock(node: SheepNode, vid: Vid): Promise<Code> {
  const renewals = underWay.get(node) ?? new Map<Vid, Promise<Code>>()
  underWay.set(node, renewals)
  const renewal = renewals.get(vid) ?? take(node, vid).finally(() => renewals.delete(vid))
  renewals.set(vid, renewal)
  return renewal
}

async function take(node: SheepNode, vid: Vid): Promise<Code> {
  try {
    const { name, snapId, snapCtime } = await node.inodes.mustHeader(vid)
    const body = Buffer.concat([cString(name, NAME_BYTES), Buffer.alloc(NAME_BYTES)])
    const head = vdiRequest({
      ...{ opcode: Op.LOCK_VDI, flags: Flag.WRITE, dataLength: body.length },
      ...{ snapId: snapCtime === 0n ? 0 : snapId, lockType: LockType.NORMAL },
    })
    const { result } = await new Promise<{ result: Code }>((resolve) => {
      node.ops.submit(new Frame(head, body), resolve)
    })
    node.log.info('vdi.lock.renewed', { vid: vidName(vid), result })
    // Two of its clients may have asked: one lock is enough.
    return result === Code.VDI_LOCKED && isOwn(node, vid) ? Code.SUCCESS : result
  } catch (error) {
    return codeOf(error)
  }
}

function isOwn({ locks, state }: SheepNode, vid: Vid): boolean {
  const { owner } = locks.of(vid)
  return owner !== undefined && state.isSelf(owner)
}
