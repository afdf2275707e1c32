/** Pages of a listing, as many entries as fit. Places count from 0: `.`, `..`, and then what is listed. */
import {
  dirEntryBytes,
  dirEntryPlusBytes,
  encodeDirEntry,
  encodeDirEntryPlus,
} from '../wire/fuse/replies.js'
import { readU64 } from '../wire/fuse/requests.js'
import type { Listed, TreeNode } from './node.js'

const DOTS: readonly Listed[] = ['.', '..'].map((name) => ({ name, isDirectory: true }))

export interface PageWish {
  /** Place of the first entry. */
  readonly from: number
  readonly bytesMax: number
  readonly idOf: (name: string) => number
}

export function listingPage(listed: readonly Listed[], wish: PageWish): Buffer {
  const parts: Buffer[] = []
  let bytes = 0
  for (let at = wish.from; at < DOTS.length + listed.length; at++) {
    const { name, isDirectory } = entryAt(listed, at)
    bytes += dirEntryBytes(name)
    if (bytes > wish.bytesMax) break
    parts.push(encodeDirEntry({ node: wish.idOf(name), name, isDirectory }, at + 1))
  }
  return Buffer.concat(parts)
}

export interface PlusWish extends PageWish {
  /** The reply to a look-up; the kernel counts it as one. */
  readonly look: (name: string, node: TreeNode) => Promise<Uint8Array>
}

/**
 * READDIRPLUS: `ls -l` need not ask for each name then. Entries whose attributes somebody would have to be asked for come without, and
 * so do those whose cannot be had: who wants them looks them up, and hears why.
 */
export async function plusPage(listed: readonly Listed[], wish: PlusWish): Promise<Buffer> {
  const parts: Buffer[] = []
  let bytes = 0
  for (let at = wish.from; at < DOTS.length + listed.length; at++) {
    const { name, isDirectory, node: find } = entryAt(listed, at)
    bytes += dirEntryPlusBytes(name)
    if (bytes > wish.bytesMax) break
    const node = find?.()
    const looked = node && (await wish.look(name, node).catch(() => undefined))
    const id = looked === undefined ? wish.idOf(name) : readU64(Buffer.from(looked), 0)
    parts.push(encodeDirEntryPlus(looked, { node: id, name, isDirectory }, at + 1))
  }
  return Buffer.concat(parts)
}

function entryAt(listed: readonly Listed[], place: number): Listed {
  return DOTS[place] ?? listed[place - DOTS.length]!
}
