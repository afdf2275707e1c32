/** How a node learns of volumes: from the inodes on its own disks, and from other nodes. */
import { Code, codeOf } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import type { Log } from '../base/log.js'
import { INODE_HEADER_BYTES, type InodeHeader } from '../model/inode.js'
import { nodeKey, type SdNode } from '../model/node.js'
import { type Oid, oidKind, oidName, oidVid } from '../model/oid.js'
import {
  decodeVdiState,
  encodeVdiState,
  isAnnounced,
  isHearsay,
  markAnnounced,
  markHearsay,
  readCacheRight,
  UNLOCKED,
  VDI_STATE_BYTES,
  type VdiState,
  writeCacheRight,
} from '../model/vdi-state.js'
import type { ObjectStore } from '../store/object-store.js'
import { nextVidOf, volumesRequest } from '../wire/sheepdog/volume-list.js'
import { readableHeader } from './inode-io.js'
import type { Peers } from './peers.js'
import type { VidTable } from './vid-table.js'

const ROOM_RECORDS_START = 512
const ROOM_RECORDS_MAX = Math.floor(LIMITS.sheepdogPayloadBytesMax / VDI_STATE_BYTES)

function stateOf(header: InodeHeader): VdiState {
  return {
    vid: header.vid,
    copies: header.copies,
    policy: header.policy,
    blockSizeShift: header.blockSizeShift,
    snapshot: header.snapCtime !== 0n,
    deleted: header.name === '',
    parent: header.parent,
    lock: UNLOCKED,
  }
}

/**
 * Adds working and stale inodes to what was noted (noted-volumes.ts). A working one is right; a stale one is older than a
 * note, except that none ever becomes a working volume again. One that cannot be read is an error of its own.
 */
export async function learnFromDisk(vids: VidTable, store: ObjectStore, log: Log): Promise<void> {
  for (const oid of store.list()) {
    if (oidKind(oid) !== 'inode') continue
    const vid = oidVid(oid)
    const header = await readInode(store, oid).catch((error: unknown) => {
      if (codeOf(error) === Code.VDI_READ) return undefined
      throw error
    })
    if (header === undefined) {
      log.error('inode.unreadable', { oid: oidName(oid) })
      vids.markInUse(vid)
      continue
    }
    const found = stateOf({ ...header, vid })
    const noted = vids.get(vid)
    if (store.has(oid)) vids.learn(found, { hearsay: false })
    else if (noted === undefined) vids.learn(found, { hearsay: true })
    else if (found.snapshot) vids.change(vid, { snapshot: true })
  }
}

async function readInode(store: ObjectStore, oid: Oid): Promise<InodeHeader | undefined> {
  const bytes = Buffer.alloc(INODE_HEADER_BYTES)
  let code: Code
  if (store.has(oid)) {
    code = await new Promise<Code>((resolve) => store.read(oid, 0, bytes, resolve))
  } else {
    const newest = store.staleEpochs(oid)[0]
    if (newest === undefined) return undefined
    code = await store.readStale(oid, newest, 0, bytes)
  }
  return code === Code.SUCCESS ? readableHeader(bytes) : undefined
}

/** The answer to GET_VDI_COPIES: every volume that exists, deleted ones included. */
export function exportVolumes(vids: VidTable): Buffer {
  const known = [...vids.all()].filter((state) => vids.isInUse(state.vid))
  return Buffer.concat(known.map((state) => recordOf(vids, state)))
}

function recordOf(vids: VidTable, state: VdiState): Buffer {
  const record = encodeVdiState(state)
  if (!vids.isInUse(state.vid)) markAnnounced(record)
  if (vids.hearsay.has(state.vid)) markHearsay(record)
  const right = vids.cachedBy.get(state.vid)
  if (right !== undefined) writeCacheRight(record, right)
  return record
}

/**
 * Volumes from `firstVid` on, by id, as far as `room` bytes hold them, each `asTold`; `nextVid` 0: there are no more. With
 * those that are being created: a joiner must know a snapshot's successor, whose announcement it has missed.
 */
export function exportPage(
  vids: VidTable,
  firstVid: number,
  room: number,
  asTold: (state: VdiState) => VdiState = (state) => state,
): { readonly body: Buffer; readonly nextVid: number } {
  const most = Math.floor(room / VDI_STATE_BYTES)
  const { known, next } = vids.knownFrom(firstVid, most)
  const records = known.map((state) => recordOf(vids, asTold(state)))
  return { body: Buffer.concat(records), nextVid: next }
}

/**
 * Takes over what another node knows. `trusted`: it lived through what this one missed, so its word
 * counts; else both start from their disks: a working inode wins over hearsay, and of equals the later state.
 */
export function importVolumes(vids: VidTable, records: Buffer, trusted: boolean): void {
  for (let at = 0; at + VDI_STATE_BYTES <= records.length; at += VDI_STATE_BYTES) {
    const told = decodeVdiState(records, at)
    const { vid } = told
    const own = vids.get(vid)
    const [isTold, isOwn] = [!isHearsay(records, at), own !== undefined && !vids.hearsay.has(vid)]
    const isBetter = own === undefined || (isTold && !isOwn)
    const base = trusted || isBetter ? told : own
    // An inode on disk that says snapshot is right: none ever becomes a working volume again.
    const state = { ...base, snapshot: told.snapshot || own?.snapshot === true }
    const right = readCacheRight(records, at)
    if (trusted && right !== undefined) vids.cachedBy.set(vid, right)
    else if (trusted) vids.cachedBy.delete(vid)
    if (isAnnounced(records, at)) vids.put(state)
    else if (!trusted && isBetter) vids.learn(state, { hearsay: !isTold })
    else {
      vids.put(state)
      const isDeleted = told.deleted && (trusted || isTold === isOwn)
      if (isDeleted || vids.isDeleted(vid)) vids.markDeleted(vid)
      else vids.markInUse(vid)
    }
  }
}

export interface Question {
  readonly peers: Peers
  readonly log: Log
  readonly node: SdNode
  /** The answer is to be of this epoch or later; 0: as it is now. */
  readonly epoch: number
}

/** All of it; nothing or a part; nothing, because it is a joiner itself and still asks others. */
export type Telling = 'told' | 'silent' | 'learning'

/** Asks one node, page by page, each given to `take`. */
export async function fetchVolumes(
  { peers, log, node, epoch }: Question,
  take: (records: Buffer) => void,
): Promise<Telling> {
  let [firstVid, room] = [0, ROOM_RECORDS_START]
  for (;;) {
    const head = volumesRequest({ epoch, firstVid, room: room * VDI_STATE_BYTES })
    try {
      const reply = await peers.call(node, head)
      if (reply.result === Code.SUCCESS) {
        take(reply.body)
        const next = nextVidOf(reply)
        if (next === 0) return 'told'
        if (next <= firstVid) throw new RangeError(`volumes after ${firstVid} begin at ${next}`)
        firstVid = next
      } else if (reply.result === Code.BUFFER_SMALL && room < ROOM_RECORDS_MAX) {
        // One of sheepdog 1.0: all at once or not at all.
        room = Math.min(room * 2, ROOM_RECORDS_MAX)
      } else if (reply.result === Code.WAIT_FOR_JOIN) return 'learning'
      else {
        log.warn('volumes.refused', { node: nodeKey(node), result: reply.result })
        return 'silent'
      }
    } catch (error) {
      log.warn('volumes.unreachable', { node: nodeKey(node), reason: String(error) })
      return 'silent'
    }
  }
}
