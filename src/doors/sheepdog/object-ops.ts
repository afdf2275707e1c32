/** Object operations of clients: this node is the gateway (protocol spec, sections 9.1 to 9.5, 12). */
import { Code, type Done } from '../../base/codes.js'
import { LIMITS } from '../../base/limits.js'
import {
  isSlotUpdate,
  REFS_OFFSET,
  SIZE_OFFSET,
  SLOT_BYTES,
  SLOTS_OFFSET,
  slotArray,
  slotRange,
} from '../../model/inode.js'
import {
  inodeOid,
  type Oid,
  objectBytes,
  oidIndex,
  oidKind,
  oidVid,
  type Vid,
  vidName,
} from '../../model/oid.js'
import { failed, type Reply } from '../../sheep/answer.js'
import type { Caller } from '../../sheep/caller.js'
import type { SheepNode } from '../../sheep/node.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { Flag, Op } from '../../wire/sheepdog/opcodes.js'
import { objectFields } from '../../wire/sheepdog/requests.js'
import { holds } from './connection-locks.js'
import type { DoorContext, Operation, OperationContext, OperationTable } from './context.js'
import { indexKind } from './index-kind.js'
import { believesEmpty, isEmptying, unlessOccupied } from './qemu-map.js'

/** A client that does not ask for write-back gets write-through. */
function isDurable(request: Frame): boolean {
  return !request.has(Flag.CACHE)
}

function inBounds(node: SheepNode, oid: Oid, offset: number, length: number): boolean {
  return offset + length <= objectBytes(oid, node.state.blockSizeShiftOf(oidVid(oid)))
}

/** A client that reconnects sends again what had no answer: the first one must not come later than what follows it. */
const unlessGone = (caller: Caller) => (): boolean => !caller.isGone

function read(
  { node, memory }: OperationContext,
  request: Frame,
  reply: Reply,
  caller: Caller,
): void {
  const oid = objectFields.oid(request)
  const offset = objectFields.offset(request)
  const length = request.dataLength
  node.stats.add('gatewayReads')
  if (!inBounds(node, oid, offset, length)) {
    reply(failed(Code.INVALID_PARMS))
    return
  }
  const body = memory.take(length)
  const sent = (): void => memory.give(body)
  const ref = node.cache.ref(oid, unlessGone(caller))
  // After a failure the body is the garbage collector's: a part of the read may not have ended yet.
  const done: Done = (code) =>
    reply(code === Code.SUCCESS ? { result: code, body, sent } : failed(code))
  node.cache.read(ref, offset, body, done, request.has(Flag.CACHE))
}

function write({ node }: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const oid = objectFields.oid(request)
  const offset = objectFields.offset(request)
  const { body } = request
  node.stats.add('gatewayWrites')
  if (!inBounds(node, oid, offset, body.length)) {
    reply(failed(Code.INVALID_PARMS))
    return
  }
  const done: Done = (code) => reply(failed(code))
  if (oidKind(oid) === 'btree' && isHeldByDoor(node, oidVid(oid), caller)) done(Code.VDI_LOCKED)
  else if (oidKind(oid) === 'inode' && isEmptying(request, offset, body)) {
    node.log.warn('slots.kept', { vid: vidName(oidVid(oid)), reason: 'a snapshot is deleted' })
    done(Code.SUCCESS)
  } else if (oidKind(oid) === 'inode') {
    const change = { offset, data: body, isWanted: unlessGone(caller), caller }
    writeInode(node, oidVid(oid), change, done)
  } else {
    const ref = node.cache.ref(oid, unlessGone(caller))
    if (request.has(Flag.DIRECT)) node.cache.writeDirect(ref, offset, body, done)
    else node.cache.write(ref, offset, body, isDurable(request), done)
  }
}

/**
 * Clients keep the index of a hypervolume themselves; while a door of this cluster keeps it, they do not. 1.0's dog writes
 * zeros over it before it asks for the deletion (defect O9), which needs it.
 */
function updateIndex(node: SheepNode, vid: Vid, write: InodeWrite, done: Done): void {
  const { offset, data, isWanted, caller } = write
  const isWiping = data.length > SLOT_BYTES && data.every((byte) => byte === 0)
  if (isHeldByDoor(node, vid, caller)) done(Code.VDI_LOCKED)
  else if (isWiping) {
    node.log.warn('index.kept', { vid: vidName(vid), reason: 'zeros were to be written over it' })
    done(Code.SUCCESS)
  } else node.gateway.write(node.gateway.ref(inodeOid(vid), isWanted), offset, data, true, done)
}

/** By another one than the caller. */
function isHeldByDoor(node: SheepNode, vid: Vid, caller: Caller): boolean {
  return node.state.vids.get(vid)?.lock.door === true && !holds(node, caller, vid)
}

interface InodeWrite {
  readonly caller: Caller
  readonly offset: number
  readonly data: Buffer
  readonly isWanted: () => boolean
}

/**
 * Clients change metadata by writing inodes. What lies in the slots goes through the accounting of
 * references, also when a write covers what is before or behind them as well (defect P19).
 */
function writeInode(node: SheepNode, vid: Vid, write: InodeWrite, done: Done): void {
  const { offset, data, isWanted } = write
  if (data.length > 0 && isSlotUpdate(offset, data.length)) {
    indexKind(node, vid, (code, kind) => {
      if (code !== Code.SUCCESS) done(code)
      else if (kind === 'slots') updateSlots(node, vid, write, done)
      else updateIndex(node, vid, write, done)
    })
    return
  }
  if (!leavesSaneSize(offset, data)) {
    done(Code.INVALID_PARMS)
    return
  }
  const border = [SLOTS_OFFSET, REFS_OFFSET].find((at) => offset < at && offset + data.length > at)
  if (border !== undefined) {
    const split = border - offset
    writeInode(node, vid, { ...write, data: data.subarray(0, split) }, (code) => {
      const rest = { ...write, offset: border, data: data.subarray(split) }
      if (code === Code.SUCCESS) writeInode(node, vid, rest, done)
      else done(code)
    })
    return
  }
  node.gateway.write(node.gateway.ref(inodeOid(vid), isWanted), offset, data, true, (code) => {
    done(code)
    if (code === Code.SUCCESS) node.volumeChanged(vid)
  })
}

/** A size no number can hold would keep every node that reads the inode from working with it. */
function leavesSaneSize(offset: number, data: Buffer): boolean {
  const [from, to] = [SIZE_OFFSET - offset, SIZE_OFFSET - offset + 8]
  if (to <= 0 || from >= data.length) return true
  if (from < 0 || to > data.length) return false
  return data.readBigUInt64LE(from) <= BigInt(LIMITS.volumeBytesMax)
}

function updateSlots(
  node: SheepNode,
  vid: Vid,
  { offset, data, isWanted }: InodeWrite,
  done: Done,
): void {
  const at = offset - SLOTS_OFFSET
  if (at % SLOT_BYTES !== 0 || data.length % SLOT_BYTES !== 0) {
    done(Code.INVALID_PARMS)
    return
  }
  // A snapshot's slots never change, except that deleting it empties them.
  const opened = node.gateway.begin(vid)
  if (!opened && data.some((byte) => byte !== 0)) {
    done(Code.READONLY)
    return
  }
  const finish: Done = (code) => {
    if (opened) node.gateway.end(vid)
    done(code)
  }
  const before = Buffer.alloc(data.length)
  node.gateway.read(node.gateway.ref(inodeOid(vid), isWanted), offset, before, (code) => {
    if (code !== Code.SUCCESS) {
      finish(code)
      return
    }
    const first = at / SLOT_BYTES
    const [next, previous] = [slotArray(data), slotArray(before)]
    node.cache.setSlots({ vid, first, next, previous, durable: true, isWanted }, finish)
  })
}

function create({ node }: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const oid = objectFields.oid(request)
  const offset = objectFields.offset(request)
  const { body } = request
  node.stats.add('gatewayWrites')
  if (!inBounds(node, oid, offset, body.length)) {
    reply(failed(Code.INVALID_PARMS))
    return
  }
  const vid = oidVid(oid)
  const isData = oidKind(oid) === 'data'
  if (isData && !node.gateway.begin(vid)) {
    reply(failed(Code.READONLY))
    return
  }
  if (oidKind(oid) === 'btree' && isHeldByDoor(node, vid, caller)) {
    reply(failed(Code.VDI_LOCKED))
    return
  }
  const source = request.has(Flag.COW) ? node.cache.ref(objectFields.cowOid(request)) : undefined
  const finish: Done = (code) => {
    if (isData) node.gateway.end(vid)
    reply(failed(code))
  }
  const ref = node.cache.ref(oid, unlessGone(caller))
  const go = (): void => node.cache.create(ref, offset, body, source, finish)
  if (isData && believesEmpty(request)) {
    unlessOccupied(node, { oid, offset, data: body }, go, finish)
  } else go()
}

function remove({ node }: DoorContext, request: Frame, reply: Reply): void {
  node.stats.add('gatewayRemoves')
  node.cache.remove(objectFields.oid(request), (code) => reply(failed(code)))
}

/** Old clients: the slot of a data object becomes a hole. */
function discard({ node }: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const oid = objectFields.oid(request)
  if (oidKind(oid) !== 'data') {
    reply(failed(Code.INVALID_PARMS))
    return
  }
  const { offset, length } = slotRange(oidIndex(oid), 1)
  if (!isSlotUpdate(offset, length)) {
    reply(failed(Code.INVALID_PARMS))
    return
  }
  const change = { offset, data: Buffer.alloc(length), isWanted: unlessGone(caller), caller }
  const done: Done = (code) => reply(failed(code))
  const vid = oidVid(oid)
  indexKind(node, vid, (code, kind) => {
    if (code !== Code.SUCCESS) done(code)
    else if (kind === 'slots') updateSlots(node, vid, change, done)
    else done(Code.NO_SUPPORT)
  })
}

function flush({ node }: DoorContext, request: Frame, reply: Reply): void {
  node.stats.add('gatewayFlushes')
  node.cache.flush(oidVid(objectFields.oid(request)), (code) => reply(failed(code)))
}

const running = (run: Operation['run']): Operation => ({ force: false, run })

export const OBJECT_OPERATIONS: OperationTable = new Map([
  [Op.READ_OBJ, running(read)],
  [Op.WRITE_OBJ, running(write)],
  [Op.CREATE_AND_WRITE_OBJ, running(create)],
  [Op.REMOVE_OBJ, running(remove)],
  [Op.DISCARD_OBJ, running(discard)],
  [Op.FLUSH_VDI, running(flush)],
])
