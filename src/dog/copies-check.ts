/** Compares the copies of one object on its owners, and makes them equal where a majority says what is right. */
import { Code, codeText } from '../base/codes.js'
import { nodeKey, type SdNode } from '../model/node.js'
import { type Oid, oidName } from '../model/oid.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { decodeHashReply } from '../wire/sheepdog/replies.js'
import { forwardRequest, objectRequest } from '../wire/sheepdog/requests.js'
import type { Sheep } from './client.js'
import type { Context } from './command.js'

/** An object that is being written differs from look to look; so often it is looked at before that is said. */
const LOOKS_MAX = 5
const PAUSE_MS = 200

/** Hex SHA-1, or what there is instead. */
type Copy = { readonly hash: string } | 'absent' | { readonly reason: string }

export interface Peers {
  /** Connections stay open between objects. */
  of(node: SdNode): Sheep
}

/** True when all copies are equal in the end. What was found and done is printed in 1.0's words. */
export async function checkCopies(
  context: Context,
  peers: Peers,
  oid: Oid,
  owners: readonly SdNode[],
): Promise<boolean> {
  const { out } = context
  const name = oidName(oid)
  const copies = await steadyCopies(context, peers, oid, owners)
  if (copies === undefined) {
    out.error(`${name} is being written, its copies were not compared`)
    return false
  }
  for (const [i, copy] of copies.entries()) {
    if (typeof copy === 'string' || 'hash' in copy) continue
    out.error(`${nodeKey(owners[i]!)} does not tell about ${name}: ${copy.reason}`)
  }
  const hashes = copies.map(hashOf).filter((hash) => hash !== undefined)
  const isEqual = hashes.length === copies.length && new Set(hashes).size === 1
  if (isEqual) return true
  if (copies.some((copy) => typeof copy === 'object' && 'reason' in copy)) return false
  if (hashes.length === 0) {
    out.error(`no node has ${name}`)
    return false
  }
  const right = majorityOf(hashes)
  if (right === undefined) {
    out.error(`no majority of ${name}`)
    return false
  }
  const source = owners[copies.findIndex((copy) => hashOf(copy) === right)]!
  let isWhole = true
  for (const [i, copy] of copies.entries()) {
    if (hashOf(copy) === right) continue
    const target = owners[i]!
    const isFixed = await repair(context, { peers, oid, source, target })
    if (isFixed) out.line(`fixed ${copy === 'absent' ? 'missing' : 'replica'} ${name}`)
    isWhole &&= isFixed
  }
  return isWhole
}

/** Undefined when two looks in a row never told the same. */
async function steadyCopies(
  { world }: Context,
  peers: Peers,
  oid: Oid,
  owners: readonly SdNode[],
): Promise<Copy[] | undefined> {
  let before: string | undefined
  for (let look = 0; look < LOOKS_MAX; look++) {
    const copies = await Promise.all(owners.map((owner) => copyOf(peers.of(owner), oid)))
    const now = JSON.stringify(copies)
    const areEqual = copies.every((copy) => JSON.stringify(copy) === JSON.stringify(copies[0]))
    if (areEqual || now === before) return copies
    before = now
    await new Promise<void>((resolve) => void world.clock.after(PAUSE_MS, resolve))
  }
  return undefined
}

async function copyOf(peer: Sheep, oid: Oid): Promise<Copy> {
  const reply = await peer.exchange(objectRequest({ opcode: Op.GET_HASH, oid }))
  if (reply.result === Code.SUCCESS) return { hash: decodeHashReply(reply).toString('hex') }
  return reply.result === Code.NO_OBJ ? 'absent' : { reason: codeText(reply.result) }
}

function hashOf(copy: Copy): string | undefined {
  return typeof copy === 'object' && 'hash' in copy ? copy.hash : undefined
}

/** What more than half of those that are there say. */
function majorityOf(hashes: readonly string[]): string | undefined {
  return hashes.find((hash) => 2 * hashes.filter((one) => one === hash).length > hashes.length)
}

async function repair(
  { out }: Context,
  how: {
    readonly peers: Peers
    readonly oid: Oid
    readonly source: SdNode
    readonly target: SdNode
  },
): Promise<boolean> {
  const { peers, oid, source, target } = how
  const { host, port } = source
  const head = forwardRequest({ opcode: Op.REPAIR_REPLICA, oid, host, port })
  const { result } = await peers.of(target).exchange(head)
  if (result === Code.SUCCESS) return true
  out.error(`Response's result: ${codeText(result)}`)
  out.error(`failed to repair object ${oidName(oid)} from ${nodeKey(source)} to ${nodeKey(target)}`)
  return false
}
