/**
 * The lock of the volume a connection works with, kept over connections. Back on a new one the volume is locked again
 * before anything else; when somebody else has had it meanwhile, what this process remembers of it is wrong, and the volume
 * is lost to it for good: everything fails until it is opened anew.
 */
import { cString } from '../base/bytes.js'
import { Code, codeName, SheepError, toCode } from '../base/codes.js'
import type { Log } from '../base/log.js'
import { decodeInodeHeader, INODE_HEADER_BYTES, NAME_BYTES } from '../model/inode.js'
import { inodeOid, type Vid, vidName } from '../model/oid.js'
import type { SheepClient } from '../peer/client.js'
import { setLockHolder } from '../wire/sheepdog/coherence.js'
import type { Frame } from '../wire/sheepdog/frame.js'
import { Flag, LockType, Op } from '../wire/sheepdog/opcodes.js'
import { decodeVdiReply } from '../wire/sheepdog/replies.js'
import { objectRequest, vdiRequest } from '../wire/sheepdog/requests.js'
import type { Clock } from '../world/world.js'

const AGAIN_MS = 200
/** Snapshots that may have been taken while the connection was away. */
const GENERATIONS_MAX = 256

export interface HoldingOptions {
  readonly name: string
  /** What this holder calls itself: above NAMELESS, and nobody else's. */
  readonly holder: number
  readonly clock: Clock
  readonly log: Log
}

export class Holding {
  readonly #options: HoldingOptions
  #vid: Vid

  constructor(options: HoldingOptions, vid: Vid) {
    this.#options = options
    this.#vid = vid
  }

  /**
   * Takes the lock again. Rejects with NETWORK_ERROR when the connection ends first, with VDI_LOCKED when the volume is lost.
   */
  async resume(client: SheepClient): Promise<void> {
    const { name, holder, clock, log } = this.#options
    for (;;) {
      const reply = await client.call(...lockRequest(name, holder))
      if (reply.result === Code.SUCCESS) {
        const { vid, attributeId: before } = decodeVdiReply(reply)
        const isOurs = before === 0 || before === holder
        if (!isOurs || !(await this.#descends(client, vid))) {
          log.error('volume.lost', { name, reason: 'somebody else has had it meanwhile' })
          throw new SheepError(Code.VDI_LOCKED, `${name} was in other hands; open it anew`)
        }
        log.info('volume.locked-again', { name, vid: vidName(vid) })
        this.#vid = vid
        return
      }
      if (isLost(reply.result)) {
        log.error('volume.lost', { name, code: codeName(reply.result) })
        throw new SheepError(Code.VDI_LOCKED, `${name} is gone; open it anew`)
      }
      if (reply.result !== Code.VDI_LOCKED) throw new SheepError(toCode(reply.result))
      // By this process's connection before, whose requests are still under way, or by its next holder.
      await new Promise<void>((resolve) => void clock.after(AGAIN_MS, resolve))
    }
  }

  /** Whether the working VDI came out of the one that was locked. */
  async #descends(client: SheepClient, found: Vid): Promise<boolean> {
    let at: number = found
    for (let i = 0; i < GENERATIONS_MAX && at !== 0; i++) {
      if (at === this.#vid) return true
      const head = objectRequest({
        ...{ opcode: Op.READ_OBJ, dataLength: INODE_HEADER_BYTES },
        oid: inodeOid(at as Vid),
      })
      const reply = await client.call(head)
      if (reply.result !== Code.SUCCESS) throw new SheepError(toCode(reply.result))
      at = decodeInodeHeader(reply.body).parent
    }
    return false
  }
}

function isLost(result: number): boolean {
  return result === Code.NO_VDI || result === Code.NO_TAG
}

/** LOCK_VDI of the working VDI of a name. */
export function lockRequest(name: string, holder: number): [head: Buffer, payload: Buffer] {
  const payload = Buffer.concat([cString(name, NAME_BYTES), cString('', NAME_BYTES)])
  const head = vdiRequest({
    ...{ opcode: Op.LOCK_VDI, flags: Flag.WRITE, dataLength: payload.length },
    lockType: LockType.DOOR,
  })
  return [setLockHolder(head, holder), payload]
}

/** Who had the volume before, from the answer: 0 for nobody since the cluster runs. */
export function holderBefore(reply: Frame): number {
  return decodeVdiReply(reply).attributeId
}
