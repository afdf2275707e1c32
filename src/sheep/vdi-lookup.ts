/** From a name to a volume id, by probing (objects spec, section 3.2). */
import { Code, SheepError } from '../base/codes.js'
import type { Selector } from '../model/access.js'
import { vidHash } from '../model/hash.js'
import type { InodeHeader } from '../model/inode.js'
import { asVid, VID_LIMIT, type Vid } from '../model/oid.js'
import type { VidTable } from './vid-table.js'

export interface LookupResult {
  readonly found: InodeHeader | undefined
  /** Why nothing was found. */
  readonly code: Code
  /** Where a new volume of this name goes; undefined when all ids are taken. */
  readonly free: Vid | undefined
  /** Last snapshot of a working volume that has been deleted: the next one's parent in memory. */
  readonly lastSnapshot: InodeHeader | undefined
}

export type ReadHeader = (vid: Vid) => Promise<InodeHeader | undefined>

/** First id a name may have: its hash, or 1. */
function firstId(name: string): Vid {
  return asVid(vidHash(name) || 1)
}

/** Ids the name may have been given, from the newest position of the probing chain to the oldest. */
function* candidates(first: Vid, free: Vid | undefined): Generator<Vid> {
  const span =
    ((free ?? first) - first + VID_LIMIT) % VID_LIMIT || (free === undefined ? VID_LIMIT : 0)
  for (let step = span - 1; step >= 0; step--) {
    const vid = asVid((first + step) % VID_LIMIT)
    if (vid !== 0) yield vid
  }
}

function matches(header: InodeHeader, selector: Selector): boolean {
  if (selector.kind === 'tag') return header.tag !== '' && header.tag === selector.tag
  return selector.kind === 'id' && header.snapId === selector.snapId
}

/** Rejects only when an inode cannot be read. */
export async function lookUp(
  vids: VidTable,
  readHeader: ReadHeader,
  name: string,
  selector: Selector,
): Promise<LookupResult> {
  const first = firstId(name)
  const free = vids.firstFree(first)
  const missing = { found: undefined, free, lastSnapshot: undefined }
  let nameExists = false
  for (const vid of candidates(first, free)) {
    if (vids.isDeleted(vid) || !vids.isInUse(vid)) continue
    const header = await readHeader(vid)
    if (header === undefined || header.name !== name) continue
    if (selector.kind === 'working') {
      if (header.snapCtime === 0n) return { ...missing, found: header, code: Code.SUCCESS }
      return { ...missing, code: Code.NO_VDI, lastSnapshot: header }
    }
    if (header.snapCtime === 0n) nameExists = true
    else if (matches(header, selector)) return { ...missing, found: header, code: Code.SUCCESS }
    else nameExists = true
  }
  return { ...missing, code: nameExists ? Code.NO_TAG : Code.NO_VDI }
}

/** Found, or a SheepError of the lookup's code. */
export function mustFind(result: LookupResult): InodeHeader {
  if (result.found === undefined) throw new SheepError(result.code)
  return result.found
}
