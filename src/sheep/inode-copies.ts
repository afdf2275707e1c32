/**
 * Inode headers copy by copy. A node that died in the middle of a write has left copies that differ, and
 * a read gives one of them, today this and tomorrow another: whoever decides by a header must first see
 * all of them, and leave them alike.
 */
import { Code, SheepError, toCode } from '../base/codes.js'
import { INODE_HEADER_BYTES, type InodeHeader } from '../model/inode.js'
import type { SdNode } from '../model/node.js'
import { inodeOid, type Vid } from '../model/oid.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { objectRequest } from '../wire/sheepdog/requests.js'
import { readableHeader } from './inode-io.js'
import type { LocalObjects } from './local-objects.js'
import type { Peers } from './peers.js'
import type { NodeState } from './state.js'

export interface InodeCopiesOptions {
  readonly state: NodeState
  readonly local: LocalObjects
  readonly peers: Peers
}

export class InodeCopies {
  readonly #options: InodeCopiesOptions

  constructor(options: InodeCopiesOptions) {
    this.#options = options
  }

  /** The header on every owner that has the inode, in ring order. Rejects with a SheepError. */
  async headers(vid: Vid): Promise<Buffer[]> {
    const owners = this.#options.state.owners(inodeOid(vid), vid)
    const found = await Promise.all(owners.map((node) => this.#headerOn(node, vid)))
    return found.filter((header) => header !== undefined)
  }

  async #headerOn(node: SdNode, vid: Vid): Promise<Buffer | undefined> {
    const { state, local, peers } = this.#options
    const oid = inodeOid(vid)
    const { epoch } = state
    let code: Code
    let bytes: Buffer
    if (state.isSelf(node)) {
      const into = Buffer.alloc(INODE_HEADER_BYTES)
      code = await new Promise<Code>((resolve) => local.read(epoch, oid, 0, into, resolve))
      bytes = into
    } else {
      const fields = { opcode: Op.READ_PEER, epoch, oid, dataLength: INODE_HEADER_BYTES }
      const reply = await peers.call(node, objectRequest(fields)).catch(() => undefined)
      code = reply === undefined ? Code.NETWORK_ERROR : toCode(reply.result)
      bytes = reply?.body ?? Buffer.alloc(0)
    }
    if (code === Code.NO_OBJ) return undefined
    if (code === Code.SUCCESS && bytes.length !== INODE_HEADER_BYTES) code = Code.NETWORK_ERROR
    if (code !== Code.SUCCESS) throw new SheepError(code)
    return bytes
  }
}

/**
 * Which of several versions stays: the one before the change that was cut off. A deletion clears the
 * name, a snapshot sets its time, growth is all that happens to a size. Throws VDI_READ.
 */
export function versionToKeep(copies: readonly Buffer[]): Buffer {
  const rank = (header: InodeHeader): number[] => [
    header.name === '' ? 0 : 1,
    header.snapCtime === 0n ? 1 : 0,
    header.sizeBytes,
  ]
  const better = (a: Buffer, b: Buffer): boolean => {
    const [ranksA, ranksB] = [rank(readableHeader(a)), rank(readableHeader(b))]
    const at = ranksA.findIndex((value, i) => value !== ranksB[i])
    return at >= 0 && ranksA[at]! > ranksB[at]!
  }
  return copies.reduce((best, copy) => (better(copy, best) ? copy : best))
}
