/** `dog vdi check` and `dog cluster check`: are all copies there and equal; and making them so. */
import { Code, codeText, SheepError } from '../base/codes.js'
import { nodeKey, type SdNode } from '../model/node.js'
import { dataOid, inodeOid, type Oid, oidKind, oidName } from '../model/oid.js'
import { buildRing, ownersOf, type Ring } from '../model/ring.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { objectRequest } from '../wire/sheepdog/requests.js'
import { inOrder } from './bounded.js'
import type { Sheep } from './client.js'
import type { Context, Subcommand } from './command.js'
import { checkCopies, type Peers } from './copies-check.js'
import { Exit, failed } from './failure.js'
import type { OpenedVdi } from './image.js'
import { isSnapshot, listVdis } from './listing.js'
import { loadMap } from './object-map.js'
import { vdiOption as option } from './options.js'
import { openOr } from './placement.js'
import { Progress } from './progress.js'
import { mustKnowVdis } from './waiting.js'

export const check: Subcommand = {
  name: 'check',
  summary: 'check and repair image consistency',
  options: [
    ...[option.snapshot, option.exist, option.address, option.port, option.help, option.time],
  ],
  synopsis: '<vdiname>',
  needsOperand: true,
  run: (context) => withPeers(context, (peers) => runCheck(context, peers)),
}

export const clusterCheck: Subcommand = {
  name: 'check',
  summary: 'check and repair cluster',
  options: [option.address, option.port, option.help, option.time],
  synopsis: '',
  run: (context) => withPeers(context, (peers) => runClusterCheck(context, peers)),
}

async function runCheck(context: Context, peers: Peers): Promise<number> {
  const { operands, options } = context
  const name = operands[0] ?? ''
  const vdi = await openOr(context, name, 'FATAL: no inode objects')
  const isWhole = options.exist
    ? await checkExistence(context, peers, name, vdi)
    : await checkVdi(context, peers, name, vdi)
  return isWhole ? Exit.ok : Exit.failed
}

async function runClusterCheck(context: Context, peers: Peers): Promise<number> {
  let isWhole = true
  let isEmpty = true
  for await (const row of listVdis(context)) {
    isEmpty = false
    const { name, snapId, tag } = row.header
    const what = isSnapshot(row.header)
      ? `snapshot ${name} (id: ${snapId}, tag: "${tag}")`
      : `vdi ${name}`
    context.out.line(`fix ${what}`)
    if (!(await checkVdi(context, peers, name, row))) isWhole = false
  }
  if (isEmpty) await mustKnowVdis(context.sheep)
  return isWhole ? Exit.ok : Exit.failed
}

/** One connection a node for the whole run. */
async function withPeers(
  { sheep }: Context,
  run: (peers: Peers) => Promise<number>,
): Promise<number> {
  const open = new Map<string, Sheep>()
  const of = (node: SdNode): Sheep => {
    const peer = open.get(nodeKey(node)) ?? sheep.peer(node)
    open.set(nodeKey(node), peer)
    return peer
  }
  try {
    return await run({ of })
  } catch (error) {
    if (error instanceof SheepError) throw failed(`The check broke off: ${error.message}`)
    throw error
  } finally {
    for (const peer of open.values()) await peer.close()
  }
}

/** The inode, and every object the volume uses, its relatives' among them. */
async function objectsOf({ sheep }: Context, vdi: OpenedVdi): Promise<Oid[]> {
  const map = await loadMap(sheep, vdi)
  const oids = [inodeOid(vdi.vid), ...map.leaves]
  for (let at = map.next(0, Number.MAX_SAFE_INTEGER); at !== undefined; ) {
    oids.push(dataOid(map.vid(at), at))
    at = map.next(at + 1, Number.MAX_SAFE_INTEGER)
  }
  return oids
}

function isCoded({ header }: OpenedVdi, oid: Oid): boolean {
  return header.policy !== 0 && oidKind(oid) === 'data'
}

/** True when everything is there and equal in the end (1.0 exits with 0 whatever it found). */
async function checkVdi(
  context: Context,
  peers: Peers,
  name: string,
  vdi: OpenedVdi,
): Promise<boolean> {
  const { out, io, sheep } = context
  const { copies, policy, blockSizeShift } = vdi.header
  const ring = buildRing(await sheep.nodes())
  if (policy !== 0 && ring.zones < copies) {
    throw failed('ABORT: Not enough active zones for consistency-checking erasure coded VDI')
  }
  const oids = await objectsOf(context, vdi)
  const objectBytes = 2 ** blockSizeShift
  const progress = new Progress(out, io.columns, oids.length * objectBytes)
  const one = (oid: Oid): Promise<boolean> => {
    const owners = ownersOf(ring, oid, copies)
    return isCoded(vdi, oid)
      ? checkFragments({ context, peers, vdi, oid, owners })
      : checkCopies(context, peers, oid, owners)
  }
  let isWhole = true
  for await (const isFine of inOrder(oids, one)) {
    progress.add(objectBytes)
    isWhole &&= isFine
  }
  out.line(`finish check&repair ${name}`)
  return isWhole
}

/** Whether all fragments are there. What is lost is not made anew from here: reads decode it, and recovery makes it. */
async function checkFragments(of: {
  readonly context: Context
  readonly peers: Peers
  readonly vdi: OpenedVdi
  readonly oid: Oid
  readonly owners: readonly SdNode[]
}): Promise<boolean> {
  const { context, peers, vdi, oid, owners } = of
  const { out } = context
  const name = oidName(oid)
  const missing: number[] = []
  for (const [index, owner] of owners.entries()) {
    if (!(await isThere(peers.of(owner), vdi, oid, index))) missing.push(index)
  }
  const parity = vdi.header.policy & 15
  if (missing.length > parity) {
    const lost = `${missing.length} copies get lost, more than ${parity}`
    out.error(`failed to rebuild object ${name}. ${lost}`)
    return false
  }
  for (const index of missing) {
    out.error(`missing ${name}, copy index ${index}: it can be decoded, and is not rebuilt here`)
  }
  return missing.length === 0
}

async function checkExistence(
  context: Context,
  peers: Peers,
  name: string,
  vdi: OpenedVdi,
): Promise<boolean> {
  const { out, sheep } = context
  const nodes = await sheep.nodes()
  const ring = buildRing(nodes)
  const oids = await objectsOf(context, vdi)
  let lost = 0
  for (const node of nodes) {
    const wanted = oids.filter((oid) => indexAt(ring, oid, vdi, node) >= 0)
    const look = (oid: Oid): Promise<boolean> =>
      isThere(peers.of(node), vdi, oid, indexAt(ring, oid, vdi, node))
    let at = 0
    for await (const found of inOrder(wanted, look)) {
      const oid = wanted[at++]!
      if (found) continue
      lost++
      out.line(`[${nodeKey(node)}] oid ${oidName(oid)} is missing.`)
    }
  }
  out.line(
    lost === 0 ? `${name} is fine, no object is missing.` : `${name} lost ${lost} object(s).`,
  )
  return lost === 0
}

/** Which of the object's owners the node is; -1: none. */
function indexAt(ring: Ring, oid: Oid, { header }: OpenedVdi, node: SdNode): number {
  const owners = ownersOf(ring, oid, header.copies)
  return owners.findIndex((owner) => nodeKey(owner) === nodeKey(node))
}

/** Rejects with the SheepError of a node that does not tell. */
async function isThere(peer: Sheep, vdi: OpenedVdi, oid: Oid, fragment: number): Promise<boolean> {
  const { policy, blockSizeShift } = vdi.header
  const fields = isCoded(vdi, oid) ? { policy, fragment, blockSizeShift } : {}
  const { result } = await peer.exchange(objectRequest({ opcode: Op.EXIST, oid, ...fields }))
  if (result === Code.SUCCESS) return true
  if (result === Code.NO_OBJ) return false
  throw new SheepError(Code.EIO, `${nodeKey(peer.address)}: ${codeText(result)}`)
}
