/** The cluster's volumes for this node's own doors: `VdiAccess` without a network in between. */
import { cString } from '../base/bytes.js'
import { Code, codeOf, SheepError } from '../base/codes.js'
import type { Selector, VdiAccess } from '../model/access.js'
import { type InodeHeader, NAME_BYTES } from '../model/inode.js'
import { type Vid, vidName } from '../model/oid.js'
import type { VdiLock } from '../model/vdi-state.js'
import { Frame } from '../wire/sheepdog/frame.js'
import { Flag, LockType, Op } from '../wire/sheepdog/opcodes.js'
import { decodeVdiReply, replyHead } from '../wire/sheepdog/replies.js'
import { type VdiFields, vdiRequest } from '../wire/sheepdog/requests.js'
import { holders } from './lock-keeper.js'
import type { SheepNode } from './node.js'

const LOCK_WAIT_MS = 10_000
const LOCK_RETRY_MS = 100

export function vdiAccess(node: SheepNode): VdiAccess {
  /** A cluster operation with a name; rejects with the code it ends with. */
  const ask = (
    opcode: number,
    name: string,
    selector: Selector,
    fields: VdiFields,
  ): Promise<Vid> => {
    const tag = selector.kind === 'tag' ? selector.tag : ''
    const body = Buffer.concat([cString(name, NAME_BYTES), cString(tag, NAME_BYTES)])
    const snapId = selector.kind === 'id' ? selector.snapId : 0
    const head = vdiRequest({
      opcode,
      flags: Flag.WRITE,
      dataLength: body.length,
      ...fields,
      snapId,
    })
    if (node.state.status !== 'ok') return Promise.reject(new SheepError(notServing(node)))
    return new Promise((resolve, reject) => {
      node.ops.submit(new Frame(head, body), (answer) => {
        if (answer.result !== Code.SUCCESS) {
          reject(new SheepError(answer.result))
          return
        }
        const reply = replyHead({ opcode, id: 0, epoch: 0, result: answer.result })
        answer.fill?.(reply)
        resolve(decodeVdiReply(new Frame(reply)).vid)
      })
    })
  }

  /** A client that has just let go on another node is given the moment that takes. */
  const lock = async (name: string): Promise<Vid> => {
    for (let waitedMs = 0; ; waitedMs += LOCK_RETRY_MS) {
      try {
        return await ask(Op.LOCK_VDI, name, { kind: 'working' }, { lockType: LockType.DOOR })
      } catch (error) {
        if (codeOf(error) !== Code.VDI_LOCKED) throw error
        const held = node.locks.of(await ask(Op.GET_VDI_INFO, name, { kind: 'working' }, {}))
        // Clients of the sheepdog protocol say when they are done, or never.
        if (held.state === 'locked' ? !held.door : held.state === 'shared')
          throw lockedBy(name, held)
        if (waitedMs >= LOCK_WAIT_MS) throw lockedBy(name, held)
        await new Promise<void>((resolve) => void node.after(LOCK_RETRY_MS, resolve))
      }
    }
  }

  return {
    find: (name, selector) => ask(Op.GET_VDI_INFO, name, selector, {}),
    lock,
    unlock: async (vid) => {
      // Whoever opens it next, elsewhere, may create again what is still being removed from here.
      await node.reclaim.dropsDone()
      await ask(Op.RELEASE_VDI, '', { kind: 'working' }, { base: vid, lockType: LockType.DOOR })
    },
    readHeader: (vid) => node.inodes.mustHeader(vid),
    readSlots: (vid, count) => node.inodes.readSlots(vid, count),
    list: () => listVolumes(node),
    onChange: (vid, changed) => node.onVolumeChange(vid, changed),
  }
}

function lockedBy(name: string, lock: VdiLock): SheepError {
  const remedy = lock.door
    ? 'disconnect its client'
    : `stop what uses it, or: dog vdi lock unlock ${name}`
  return new SheepError(Code.VDI_LOCKED, `${name} is locked by ${holders(lock)}: ${remedy}`)
}

export function notServing(node: SheepNode): Code {
  const { status } = node.state
  if (status === 'killed') return Code.KILLED
  if (status === 'shutdown') return Code.SHUTDOWN
  return node.state.formatted ? Code.WAIT_FOR_JOIN : Code.WAIT_FOR_FORMAT
}

async function listVolumes(node: SheepNode): Promise<InodeHeader[]> {
  if (node.state.status !== 'ok') throw new SheepError(notServing(node))
  const found: InodeHeader[] = []
  for (const vid of node.state.vids.living()) {
    try {
      const header = await node.inodes.header(vid)
      if (header !== undefined && header.name !== '') found.push(header)
    } catch (error) {
      // One nobody can make sense of does not hide the others.
      if (codeOf(error) !== Code.VDI_READ) throw error
      node.log.warn('inode.unreadable', { vid: vidName(vid), reason: String(error) })
    }
  }
  return found
}
