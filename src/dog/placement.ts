/** Where objects are, and where they should be. */
import { Code, codeText } from '../base/codes.js'
import { slotsOf } from '../model/inode.js'
import type { SdNode } from '../model/node.js'
import { asVid, type Oid, oidKind, type Vid } from '../model/oid.js'
import { buildRing, ownersOf } from '../model/ring.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { objectRequest } from '../wire/sheepdog/requests.js'
import type { Sheep } from './client.js'
import type { Context } from './command.js'
import { failed } from './failure.js'
import { isHyper, type OpenedVdi, openVdi, readSlot } from './image.js'
import { loadMap } from './object-map.js'
import { WORKING } from './options.js'

/** 1.0's words when there is no such VDI, `told` behind the reason. Throws the failure. */
export async function openOr(context: Context, name: string, told: string): Promise<OpenedVdi> {
  try {
    return await openVdi(context.sheep, name, context.options.snapshot ?? WORKING)
  } catch (error) {
    if (error instanceof Error && 'lines' in error) {
      const { lines } = error as Error & { readonly lines: readonly string[] }
      throw failed(...lines, told)
    }
    throw error
  }
}

/** Nodes that store objects: gateways do not. */
export function storageNodes(nodes: readonly SdNode[]): SdNode[] {
  return nodes.filter(({ vnodes }) => vnodes > 0)
}

/** In ring order. */
export function placesOf(nodes: readonly SdNode[], oid: Oid, copies: number): SdNode[] {
  return ownersOf(buildRing(nodes), oid, copies)
}

/** Owner of one object of a volume; 0 for a hole, and behind the end. */
export async function ownerOf({ sheep }: Context, vdi: OpenedVdi, index: number): Promise<Vid> {
  const { header } = vdi
  if (isHyper(header)) return (await loadMap(sheep, vdi)).vid(index)
  const isPast = index >= slotsOf(header.sizeBytes, header.blockSizeShift)
  return isPast ? asVid(0) : await readSlot(sheep, vdi.vid, index)
}

export type Presence = 'there' | 'absent' | { readonly reason: string }

/** Whether a node has a copy, or any fragment, of an object. */
export async function presence(peer: Sheep, oid: Oid, vdi: OpenedVdi): Promise<Presence> {
  const { policy, copies, blockSizeShift } = vdi.header
  const isCoded = policy !== 0 && oidKind(oid) === 'data'
  const fragments = isCoded ? copies : 1
  for (let fragment = 0; fragment < fragments; fragment++) {
    const fields = isCoded ? { policy, fragment, blockSizeShift } : {}
    const { result } = await peer.exchange(objectRequest({ opcode: Op.EXIST, oid, ...fields }))
    if (result === Code.SUCCESS) return 'there'
    if (result !== Code.NO_OBJ) return { reason: codeText(result) }
  }
  return 'absent'
}
