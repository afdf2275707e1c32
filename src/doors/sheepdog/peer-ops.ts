/** Object operations of other sheep on this node's copies (protocol spec, sections 10 and 11). */
import { Code, codeOf, type Done } from '../../base/codes.js'
import { LIMITS } from '../../base/limits.js'
import { encodeNodes } from '../../model/node.js'
import { type Oid, objectOf, oidVid, type StoredId } from '../../model/oid.js'
import { failed, OK, type Reply } from '../../sheep/answer.js'
import { type Caller, park } from '../../sheep/caller.js'
import type { SheepNode } from '../../sheep/node.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { decodeListRequest, setListReply } from '../../wire/sheepdog/object-list.js'
import { Flag, Op } from '../../wire/sheepdog/opcodes.js'
import { setHashReply } from '../../wire/sheepdog/replies.js'
import { decodeRefFields, objectFields } from '../../wire/sheepdog/requests.js'
import type { DoorContext, Operation, OperationTable } from './context.js'
import { distrust, settled, suspects } from './in-flight-ops.js'

/** Which copy or fragment a request is about; undefined: `reply` has refused it. */
function storedId(node: SheepNode, request: Frame, reply: Reply): StoredId | undefined {
  const id = node.local.storedId({
    oid: objectFields.oid(request),
    policy: objectFields.policy(request),
    index: objectFields.fragment(request),
    shift: objectFields.blockSizeShift(request),
  })
  if (typeof id === 'bigint') return id
  reply(failed(id))
  return undefined
}

function read({ node }: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const oid = storedId(node, request, reply)
  if (oid === undefined) return
  const length = request.dataLength
  node.stats.add('peerReads')
  if (length > node.local.bytesOf(oid)) {
    reply(failed(Code.INVALID_PARMS))
    return
  }
  const body = Buffer.allocUnsafe(length)
  const done: Done = (code) => reply(code === Code.SUCCESS ? { result: code, body } : failed(code))
  if (request.has(Flag.RECOVERY)) {
    const to = objectFields.targetEpoch(request)
    const target = { from: objectFields.sinceEpoch(request) || to, to }
    const offset = objectFields.offset(request)
    const wanted = { epoch: request.epoch, target, id: oid, offset, into: body, caller }
    if (request.has(Flag.COMPARES)) node.local.readToFit(wanted, done)
    else node.local.readForRecovery(wanted, done)
    return
  }
  const go = (): void =>
    node.local.read(request.epoch, oid, objectFields.offset(request), body, done, caller)
  // Of an epoch to come: when that is here, everybody's suspects are known before anything is read.
  if (!request.has(Flag.COMPARES) || request.epoch !== node.state.epoch) go()
  else {
    node.suspects.whenGathered(() => {
      if (mayCompare(node, oid, objectFields.targetEpoch(request) !== 0)) go()
      else reply(failed(Code.AGAIN))
    })
  }
}

/** `mustKnow`: what came here before it was known that copies may differ has been carried out (equalize.ts). */
function mayCompare({ suspects }: SheepNode, oid: StoredId, mustKnow: boolean): boolean {
  if (suspects.isBeingRepaired(objectOf(oid))) return false
  return !mustKnow || suspects.hasHeardOf(objectOf(oid))
}

function write({ node }: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const oid = storedId(node, request, reply)
  if (oid === undefined) return
  const offset = objectFields.offset(request)
  const durable = !request.has(Flag.CACHE)
  node.stats.add('peerWrites')
  const { epoch, body } = request
  const write = { epoch, id: oid, offset, data: body, caller }
  node.local.write(write, durable, (code) => reply(failed(code)))
}

function create({ node }: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const oid = storedId(node, request, reply)
  if (oid === undefined) return
  const offset = objectFields.offset(request)
  node.stats.add('peerWrites')
  const { epoch, body } = request
  const create = { epoch, id: oid, offset, data: body, caller }
  node.local.create(create, (code) => reply(failed(code)))
}

function remove({ node }: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  node.stats.add('peerRemoves')
  const oid = storedId(node, request, reply)
  if (oid === undefined) return
  node.local.remove(request.epoch, oid, (code) => reply(failed(code)), caller)
}

function flush({ node }: DoorContext, request: Frame, reply: Reply): void {
  node.local.flush(oidVid(objectFields.oid(request)), (code) => reply(failed(code)))
}

/** How long a snapshot's announcement may be on its way after the request that follows it. */
const HEARING_MS = 10_000

/** The snapshot's announcement is ordered before this request, but may still be on its way here. */
function drain({ node }: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const vid = oidVid(objectFields.oid(request))
  const heir = oidVid(objectFields.cowOid(request))
  const serial = objectFields.targetEpoch(request)
  if (heir === 0 && serial !== 0) {
    if (caller.origin === undefined) reply(failed(Code.INVALID_PARMS))
    else node.shared.hear(caller.origin, { vid, serial }, caller, () => reply(OK))
    return
  }
  const heard = (): boolean =>
    node.state.vids.get(heir) !== undefined && node.state.vids.get(vid)?.snapshot !== false
  const givenUp = (): void => reply(failed(Code.AGAIN))
  const wait = (): void => {
    node.gateway.drain(
      vid,
      caller.unlessGone(givenUp, () => reply(OK)),
    )
  }
  if (heard()) {
    wait()
    return
  }
  const stop = node.onVolumeChange(vid, () => {
    if (!heard()) return
    stop()
    cancel()
    wait()
  })
  const cancel = node.after(HEARING_MS, () => {
    stop()
    reply(failed(Code.AGAIN))
  })
}

/** Drops of one ledger are counted one after the other: one of an epoch to come waits outside. */
function dropReference(context: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const { node } = context
  const isHere = request.opcode === Op.DECREF_PEER
  if (isHere && ((request.epoch - node.state.epoch) | 0) > 0) {
    park(node.state, caller, {
      again: () => dropReference(context, request, reply, caller),
      givenUp: () => reply(failed(Code.AGAIN)),
    })
    return
  }
  const counted = isHere
    ? node.ledgers.countHere(request.epoch, decodeRefFields(request), caller)
    : node.ledgers.count(decodeRefFields(request))
  void counted.then((code) => reply(failed(code)))
}

/** A list is complete only once this node is in the asker's epoch: objects may still be created before. */
function listObjects(context: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const { node } = context
  if (((objectFields.targetEpoch(request) - node.state.epoch) | 0) > 0) {
    park(node.state, caller, {
      again: () => listObjects(context, request, reply, caller),
      givenUp: () => reply(failed(Code.AGAIN)),
    })
    return
  }
  const paged = decodeListRequest(request)
  if (paged !== undefined) {
    node.recovery.inventories.page(paged).then(
      ({ ids, next }) =>
        reply({
          result: Code.SUCCESS,
          body: ids,
          fill: (head) => void setListReply(head, next),
        }),
      (error: unknown) => reply(failed(codeOf(error))),
    )
    return
  }
  const oids = node.store.list()
  if (oids.length * 8 > Math.min(request.dataLength, LIMITS.sheepdogPayloadBytesMax)) {
    reply(failed(Code.BUFFER_SMALL))
    return
  }
  const body = Buffer.allocUnsafe(oids.length * 8)
  oids.forEach((oid, i) => {
    body.writeBigUInt64LE(oid, 8 * i)
  })
  reply({ result: Code.SUCCESS, body })
}

function epochNodes({ node }: DoorContext, request: Frame, reply: Reply): void {
  const record = node.epochLog.read(objectFields.targetEpoch(request))
  if (record === undefined) {
    reply(failed(Code.NO_TAG))
    return
  }
  const time = Buffer.alloc(8)
  time.writeBigUInt64LE(BigInt(record.time))
  const body = Buffer.concat([encodeNodes(record.nodes), time])
  reply(
    body.length > request.dataLength ? failed(Code.BUFFER_SMALL) : { result: Code.SUCCESS, body },
  )
}

/** Recovery names its epoch, and relies on what is acknowledged after the answer reaching it as well. */
function hash(context: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const { node } = context
  const order = request.epoch === 0 ? 0 : (request.epoch - node.state.epoch) | 0
  if (order > 0) {
    park(node.state, caller, {
      again: () => hash(context, request, reply, caller),
      givenUp: () => reply(failed(Code.AGAIN)),
    })
    return
  }
  if (order < 0) {
    reply(failed(Code.OLD_NODE_VER))
    return
  }
  const { epoch } = node.state
  const oid = storedId(node, request, reply)
  if (oid === undefined) return
  // Of a copy that is to be the right one: not before it is.
  const isOpen = (): boolean =>
    request.has(Flag.COMPARES) && node.store.has(oid) && node.suspects.holds(objectOf(oid))
  if (isOpen()) {
    reply(failed(Code.AGAIN))
    return
  }
  const bytes = node.local.bytesOf(oid)
  const found = node.store.has(oid)
    ? node.store.hash(oid, bytes)
    : node.store.hashStale(oid, objectFields.targetEpoch(request), bytes)
  found.then(
    (sha1) => {
      if (node.state.epoch !== epoch) reply(failed(Code.OLD_NODE_VER))
      else if (sha1 === undefined) reply(failed(Code.NO_OBJ))
      else if (isOpen()) reply(failed(Code.AGAIN))
      else reply({ result: Code.SUCCESS, fill: (head) => void setHashReply(head, sha1) })
    },
    () => reply(failed(Code.EIO)),
  )
}

function exists({ node }: DoorContext, request: Frame, reply: Reply): void {
  const id = storedId(node, request, reply)
  if (id !== undefined) reply(node.store.has(id) ? OK : failed(Code.NO_OBJ))
}

/** Of a coded object any fragment will do: who asks does not say which one is here. */
function allExist({ node: { store } }: DoorContext, request: Frame, reply: Reply): void {
  const missing: Buffer[] = []
  for (let at = 0; at + 8 <= request.body.length; at += 8) {
    const pieces = store.piecesOf(request.body.readBigUInt64LE(at) as Oid)
    if (!pieces.some((id) => store.has(id))) missing.push(request.body.subarray(at, at + 8))
  }
  reply(missing.length === 0 ? OK : { result: Code.NO_OBJ, body: Buffer.concat(missing) })
}

const running = (run: Operation['run']): Operation => ({ force: false, run })
const reading = (run: Operation['run']): Operation => ({ force: false, isHarmless: true, run })
const always = (run: Operation['run']): Operation => ({ force: true, isHarmless: true, run })

export const PEER_OPERATIONS: OperationTable = new Map([
  [Op.READ_PEER, reading(read)],
  [Op.WRITE_PEER, running(write)],
  [Op.CREATE_AND_WRITE_PEER, running(create)],
  [Op.REMOVE_PEER, running(remove)],
  [Op.FLUSH_PEER, reading(flush)],
  [Op.FLUSH_NODES, reading(drain)],
  [Op.DECREF_PEER, running(dropReference)],
  [Op.DECREF_OBJ, running(dropReference)],
  [Op.SUSPECT, running(distrust)],
  [Op.SETTLED, running(settled)],
  [Op.GET_SUSPECTS, reading(suspects)],
  [Op.GET_OBJ_LIST, reading(listObjects)],
  [Op.GET_EPOCH, reading(epochNodes)],
  [Op.GET_HASH, reading(hash)],
  [Op.EXIST, always(exists)],
  [Op.OIDS_EXIST, always(allExist)],
])
