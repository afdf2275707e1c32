/**
 * Which ids may become free again, as pure functions (RECYCLE_VID; objects spec, section 3).
 *
 * Sheepdog 1.0 gives such clusters' ids out from 1 on, whatever the name, and looks for a name under all of them from the
 * highest id down: a working volume with a lower id than one of its snapshots is not found (defect O7). Here ids are given
 * out by hash in these clusters too, and one becomes free only where the next one is: every id in use is then still
 * reached from its name's hash without a gap, the working volume is still the highest of its name, and whoever looks
 * a name up (QEMU does so itself) stops at the first gap as ever.
 */

import { type NodeKey, nodeKey, type SdNode } from '../model/node.js'
import { asVid, VID_LIMIT, type Vid } from '../model/oid.js'
import type { EpochRecord } from '../store/epoch-log.js'
import type { VidTable } from './vid-table.js'

/** Clocks of nodes may differ by as much. */
const CLOCK_SLACK_SECONDS = 24 * 60 * 60

/** Volumes that are deleted together with everything they may share objects with, by common origin. */
export function deadFamilies(vids: VidTable): Vid[][] {
  const families: Vid[][] = []
  const seen = new Set<Vid>()
  for (const { vid } of vids.all()) {
    if (seen.has(vid) || !vids.isDeleted(vid)) continue
    const family = vids.kin(vid)
    for (const member of family) seen.add(member)
    const isDead = family.every((member) => vids.isDeleted(member) || !vids.isInUse(member))
    if (isDead) families.push(family.filter((member) => vids.isInUse(member)))
  }
  return families
}

/** Of `dead` those that no id in use is looked for behind, the last of each run of ids first. */
export function tails(vids: VidTable, dead: ReadonlySet<Vid>): Vid[] {
  const free = new Set<Vid>()
  const isFree = (vid: Vid): boolean => free.has(vid) || !vids.isInUse(vid)
  for (const last of dead) {
    for (let vid = last; dead.has(vid) && !free.has(vid) && isFree(next(vid)); vid = before(vid)) {
      free.add(vid)
    }
  }
  return [...free]
}

function next(vid: Vid): Vid {
  return vid + 1 < VID_LIMIT ? asVid(vid + 1) : asVid(1)
}

function before(vid: Vid): Vid {
  return vid > 1 ? asVid(vid - 1) : asVid(VID_LIMIT - 1)
}

/**
 * Who was a member at any time since then (seconds since the Unix epoch), and is none now: may hold objects, or have clients,
 * of what there was. Undefined: that cannot be told, an epoch is not in the log.
 */
export function awaySince(
  since: number,
  latest: number,
  read: (epoch: number) => EpochRecord | undefined,
  members: readonly SdNode[],
): NodeKey[] | undefined {
  const present = new Set(members.map(nodeKey))
  const away = new Set<NodeKey>()
  for (let epoch = latest; epoch >= 1; epoch--) {
    const record = read(epoch)
    if (record === undefined) return undefined
    for (const key of record.nodes.map(nodeKey)) if (!present.has(key)) away.add(key)
    if (record.time < since - CLOCK_SLACK_SECONDS) break
  }
  return [...away]
}
