/**
 * A process outside of the cluster (sheepfs, a stand-alone NBD door) locks a volume as the doors of a sheep do, over the
 * connection it then works on. Such a lock ends with its connection, once nothing that came over it is under way: whoever
 * has the lock next cannot be overtaken by a write of before. The holder names itself (a random number), so that, back on
 * another connection, it learns from the answer whether somebody else has had the volume meanwhile.
 */
import { codeName, codeOf } from '../../base/codes.js'
import { type Vid, vidName } from '../../model/oid.js'
import type { Caller } from '../../sheep/caller.js'
import type { SheepNode } from '../../sheep/node.js'
import { vdiAccess } from '../../sheep/vdi-access.js'
import { lockHolder } from '../../wire/sheepdog/coherence.js'
import { LockType } from '../../wire/sheepdog/opcodes.js'
import { decodeVdiFields } from '../../wire/sheepdog/requests.js'
import type { Operation } from './context.js'

const RELEASE_AGAIN_MS = 1_000

const names = new WeakMap<Caller, number>()
const callers = new WeakMap<SheepNode, Map<number, Caller>>()

/** LOCK_VDI. */
export const lock: Operation['run'] = ({ node }, request, reply, caller) => {
  const name = lockHolder(request)
  const isNamed = name !== 0 && decodeVdiFields(request).lockType === LockType.DOOR
  if (isNamed) introduce(node, caller, name)
  node.ops.submit(request, reply)
}

/** True when the connection has the door's lock of the volume. */
export function holds(node: SheepNode, caller: Caller, vid: Vid): boolean {
  const { door, holder, owner } = node.locks.of(vid)
  return door && holder === names.get(caller) && owner !== undefined && node.state.isSelf(owner)
}

function introduce(node: SheepNode, caller: Caller, name: number): void {
  if (names.get(caller) === name) return
  const known = callers.get(node) ?? new Map<number, Caller>()
  callers.set(node, known)
  // It is back on a new connection, and this end has not noticed yet that the old one is dead.
  known.get(name)?.link?.cut()
  known.set(name, caller)
  names.set(caller, name)
  caller.onLeave(() => {
    caller.link?.whenIdle(() => {
      if (known.get(name) === caller) known.delete(name)
      releaseAll(node, caller)
    })
  })
}

function releaseAll(node: SheepNode, caller: Caller): void {
  const held = [...node.state.vids.all()].filter(({ vid }) => holds(node, caller, vid))
  for (const { vid } of held) {
    node.log.info('vdi.lock.over', { vid: vidName(vid), reason: 'its connection has ended' })
    void vdiAccess(node)
      .unlock(vid)
      .catch((error: unknown) => {
        node.log.warn('vdi.unlock.failed', { vid: vidName(vid), code: codeName(codeOf(error)) })
        // A node that leaves the cluster holds nothing any more.
        if (node.state.status !== 'ok') return
        node.after(RELEASE_AGAIN_MS, () => {
          if (holds(node, caller, vid)) releaseAll(node, caller)
        })
      })
  }
}
