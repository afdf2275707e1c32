/** What a node tells of itself and its cluster, and what it is told to do (protocol spec, section 10). */
import { noBytes } from '../../base/bytes.js'
import { Code } from '../../base/codes.js'
import { LIMITS } from '../../base/limits.js'
import { encodeNodes, NODE_BYTES } from '../../model/node.js'
import { asVid } from '../../model/oid.js'
import { isPossiblePolicy, isRedundancy } from '../../model/policy.js'
import { VDI_STATE_BYTES, type VdiState } from '../../model/vdi-state.js'
import { failed, OK, type Reply } from '../../sheep/answer.js'
import { type Caller, park } from '../../sheep/caller.js'
import { exportPage, exportVolumes } from '../../sheep/known-volumes.js'
import type { SheepNode } from '../../sheep/node.js'
import { notServing } from '../../sheep/vdi-access.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { ClusterFlag, Op } from '../../wire/sheepdog/opcodes.js'
import {
  ACCEPTED_VERSION,
  CLUSTER_INFO_BYTES,
  EPOCH_LOG_HEAD_BYTES,
  encodeClusterInfo,
  encodeEpochLogRecord,
  encodeMdInfo,
  encodeStat,
  MD_INFO_BYTES,
  VID_BITMAP_BYTES,
} from '../../wire/sheepdog/records.js'
import { decodeRecyclingQuestion, isRecycling } from '../../wire/sheepdog/recycling.js'
import { setClusterDefault, setNodeReply } from '../../wire/sheepdog/replies.js'
import {
  clearReopens,
  decodeClusterFields,
  decodeVdiFields,
  decodeVdiStateFields,
} from '../../wire/sheepdog/requests.js'
import { firstVidOf, setVolumesReply } from '../../wire/sheepdog/volume-list.js'
import { lock } from './connection-locks.js'
import type { DoorContext, Operation, OperationTable } from './context.js'
import { DISK_OPERATIONS } from './disk-ops.js'
import { recycleNow } from './recycle-ops.js'

/** A body as far as the asker has room for all of it. */
function whole(request: Frame, reply: Reply, body: Buffer): void {
  if (body.length > request.dataLength) reply(failed(Code.BUFFER_SMALL))
  else reply({ result: Code.SUCCESS, body })
}

/** The asker must have room for exactly or at least this much; what is missing is refused by name. */
function sized(request: Frame, reply: Reply, bytes: number, make: () => Buffer): void {
  if (request.dataLength < bytes) reply(failed(Code.INVALID_PARMS))
  else reply({ result: Code.SUCCESS, body: make() })
}

function bitmap(which: 'inUse' | 'deleted'): Operation['run'] {
  return ({ node }, request, reply) => {
    if (request.dataLength !== VID_BITMAP_BYTES) reply(failed(Code.INVALID_PARMS))
    else reply({ result: Code.SUCCESS, body: Buffer.from(node.state.vids[which]) })
  }
}

function clusterDefault({ node }: DoorContext, _request: Frame, reply: Reply): void {
  const { copies, policy, blockSizeShift } = node.state.settings
  reply({
    result: Code.SUCCESS,
    fill: (head) => void setClusterDefault(head, { copies, policy, blockSizeShift }),
  })
}

function nodeList({ node }: DoorContext, request: Frame, reply: Reply): void {
  const { members } = node.state
  const body = encodeNodes(members)
  if (body.length > request.dataLength) {
    reply(failed(Code.BUFFER_SMALL))
    return
  }
  const fill = (head: Buffer): void => void setNodeReply(head, { nodes: members.length })
  reply({ result: Code.SUCCESS, body, fill })
}

function statSheep({ node }: DoorContext, _request: Frame, reply: Reply): void {
  const { usedBytes, freeBytes } = node.store.space()
  const unsure = !node.state.isSure()
  const isGateway = node.state.self.vnodes === 0
  const figures = isGateway
    ? { storeBytes: 0, freeBytes: 0, unsure }
    : { storeBytes: usedBytes + freeBytes, freeBytes, unsure }
  reply({ result: Code.SUCCESS, fill: (head) => void setNodeReply(head, figures) })
}

function clusterResult(node: SheepNode): Code {
  return node.state.status === 'ok' ? Code.SUCCESS : notServing(node)
}

function statCluster({ node }: DoorContext, request: Frame, reply: Reply): void {
  const slots = decodeClusterFields(request).nodeSlots
  if (slots > LIMITS.nodesMax) {
    reply(failed(Code.INVALID_PARMS))
    return
  }
  const room = Math.floor(request.dataLength / (EPOCH_LOG_HEAD_BYTES + slots * NODE_BYTES))
  const records: Buffer[] = []
  const { settings } = node.state
  for (let epoch = node.epochLog.latest(); epoch > 0 && records.length < room; epoch--) {
    const logged = node.epochLog.read(epoch)
    if (logged === undefined) continue
    if (slots > 0 && logged.nodes.length > slots) {
      reply(failed(Code.BUFFER_SMALL))
      return
    }
    const first = records.length === 0
    const record = {
      ctime: first ? settings.ctime : 0n,
      time: logged.time,
      epoch,
      recoveryDisabled: first && settings.recoveryDisabled,
      copies: first ? settings.copies : 0,
      policy: first ? settings.policy : 0,
      flags: first ? settings.flags : 0,
      store: first ? settings.store : '',
      nodes: logged.nodes,
    }
    records.push(encodeEpochLogRecord(record, slots))
  }
  reply({ result: clusterResult(node), body: Buffer.concat(records) })
}

function clusterInfo({ node }: DoorContext, request: Frame, reply: Reply): void {
  sized(request, reply, CLUSTER_INFO_BYTES, () => {
    const info = { ...node.clusterInfo, version: ACCEPTED_VERSION, status: node.state.status }
    const body = Buffer.alloc(CLUSTER_INFO_BYTES)
    encodeClusterInfo(info).copy(body)
    return body
  })
}

/** A node that joins wants what this one knows after its join, not what it knows yet. */
function volumes(context: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const { state } = context.node
  if (state.status === 'ok' && ((request.epoch - state.epoch) | 0) > 0) {
    park(state, caller, {
      again: () => volumes(context, request, reply, caller),
      givenUp: () => reply(failed(Code.AGAIN)),
    })
    return
  }
  const firstVid = firstVidOf(request)
  if (firstVid === undefined) whole(request, reply, exportVolumes(state.vids))
  // Who is still learning has heard half of it, of a time before it came: not even what it says of locks is so any more.
  else if (state.status === 'wait' && request.epoch > 0) reply(failed(Code.WAIT_FOR_JOIN))
  else volumePage(context, request, reply, firstVid)
}

function volumePage({ node }: DoorContext, request: Frame, reply: Reply, firstVid: number): void {
  const room = Math.min(request.dataLength, LIMITS.sheepdogPayloadBytesMax)
  if (room < VDI_STATE_BYTES) {
    reply(failed(Code.BUFFER_SMALL))
    return
  }
  const asTold = (state: VdiState): VdiState => node.locks.asOf(request.epoch, state)
  const { body, nextVid } = exportPage(node.state.vids, firstVid, room, asTold)
  reply({ result: Code.SUCCESS, body, fill: (head) => void setVolumesReply(head, nextVid) })
}

function kill({ kill: stop }: DoorContext, _request: Frame, reply: Reply): void {
  reply(OK)
  stop()
}

function getLogLevel({ logLevel }: DoorContext, request: Frame, reply: Reply): void {
  sized(request, reply, 4, () => {
    const body = Buffer.alloc(4)
    body.writeInt32LE(logLevel.get())
    return body
  })
}

function setLogLevel({ logLevel }: DoorContext, request: Frame, reply: Reply): void {
  const { body } = request
  const known = body.length === 4 && logLevel.set(body.readInt32LE(0))
  reply(known ? OK : failed(Code.INVALID_PARMS))
}

function vnodes({ node }: DoorContext, request: Frame, reply: Reply): void {
  sized(request, reply, 4, () => {
    const body = Buffer.alloc(4)
    body.writeInt32LE(node.state.self.vnodes)
    return body
  })
}

function setVnodes({ node }: DoorContext, { body }: Frame, reply: Reply): void {
  reply(
    failed(body.length === 4 ? node.weights.setVnodes(body.readInt32LE(0)) : Code.INVALID_PARMS),
  )
}

/** Formats this sheep can carry out; told before any node throws its objects away. */
function format({ node }: DoorContext, request: Frame, reply: Reply): void {
  const refusal = refusalOfFormat(request, node.clusterInfo.flags)
  if (refusal === undefined) node.ops.submit(request, reply)
  else reply(failed(refusal))
}

const FLAGS_SERVED =
  ClusterFlag.STRICT |
  ClusterFlag.AUTO_VNODES |
  ClusterFlag.USE_LOCK |
  ClusterFlag.RECYCLE_VID |
  ClusterFlag.AVOID_DISKFULL

/** `flags`: of the cluster as this node was started. */
function refusalOfFormat(request: Frame, flags: number): Code | undefined {
  const { copies, policy, blockSizeShift, clusterFlags, ctime } = decodeClusterFields(request)
  const end = request.body.indexOf(0)
  const store = request.body.subarray(0, end < 0 ? undefined : end).toString('latin1')
  if (store !== 'plain') return Code.NO_STORE
  if ((clusterFlags & ~FLAGS_SERVED) !== 0) return Code.NO_SUPPORT
  if (!isPossiblePolicy(policy)) return Code.INVALID_PARMS
  if (((clusterFlags ^ flags) & ClusterFlag.AUTO_VNODES) !== 0) return Code.INVALID_VNODES_STRATEGY
  if (copies > LIMITS.copiesMax || ctime === 0n) return Code.INVALID_PARMS
  if (blockSizeShift === 0) return undefined
  const { blockSizeShiftMin, blockSizeShiftMax } = LIMITS
  const sane = blockSizeShift >= blockSizeShiftMin && blockSizeShift <= blockSizeShiftMax
  return sane ? undefined : Code.INVALID_PARMS
}

/** Only replicas, only as many as there can be. */
function alterCluster({ node }: DoorContext, request: Frame, reply: Reply): void {
  const { copies, policy } = decodeClusterFields(request)
  const refusal = policy !== 0 || node.state.settings.policy !== 0 ? Code.NO_SUPPORT : undefined
  if (refusal !== undefined) reply(failed(refusal))
  else if (copies < 1 || copies > LIMITS.copiesMax) reply(failed(Code.INVALID_PARMS))
  else node.ops.submit(request, reply)
}

function alterVolume({ node }: DoorContext, request: Frame, reply: Reply): void {
  const { newVid, copies, policy } = decodeVdiStateFields(request)
  const known = node.state.vids.get(newVid)
  if (known === undefined || known.deleted) reply(failed(Code.NO_VDI))
  else if (policy !== 0 || known.policy !== 0) reply(failed(Code.NO_SUPPORT))
  else if (copies < 1 || copies > LIMITS.copiesMax) reply(failed(Code.INVALID_PARMS))
  else node.ops.submit(request, reply)
}

/**
 * Every node believes an announcement: one that names an impossible volume must not reach them, nor one that would
 * change a volume there is. Whoever loads a cluster snapshot announces volumes of an empty cluster.
 */
function announce({ node }: DoorContext, request: Frame, reply: Reply): void {
  const { oldVid, newVid, copies, policy, blockSizeShift } = decodeVdiStateFields(request)
  const { vids } = node.state
  const { blockSizeShiftMin, blockSizeShiftMax } = LIMITS
  const isSane =
    newVid !== 0 &&
    isRedundancy({ copies, policy }) &&
    blockSizeShift >= blockSizeShiftMin &&
    blockSizeShift <= blockSizeShiftMax &&
    vids.get(oldVid)?.snapshot !== false
  clearReopens(request.head)
  if (!isSane) reply(failed(Code.INVALID_PARMS))
  else if (vids.get(newVid) !== undefined) reply(failed(Code.VDI_EXIST))
  else node.ops.submit(request, reply)
}

/** What frees ids comes from nodes alone, in the order of events. */
function notifyDeletion({ node }: DoorContext, request: Frame, reply: Reply): void {
  if (isRecycling(request)) reply(failed(Code.INVALID_PARMS))
  else node.ops.submit(request, reply)
}

function recycle({ node }: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const question = decodeRecyclingQuestion(request)
  if (question === undefined) reply(failed(Code.INVALID_PARMS))
  else reply(failed(node.caretaker.recycling.answer(question, caller.origin)))
}

/** Nobody can send what he has cached once the cluster is down. */
const shutDown: Operation['run'] = ({ node }, request, reply) => {
  void node.cache.letAllGo().then(() => node.ops.submit(request, reply))
}

const inOrder: Operation['run'] = ({ node }, request, reply) => node.ops.submit(request, reply)
/** What is cached of the volume is the cluster's before anybody else may lock it. */
const release: Operation['run'] = ({ node }, request, reply) => {
  node.cache.letGo(asVid(decodeVdiFields(request).base), (code) => {
    if (code === Code.SUCCESS) node.ops.submit(request, reply)
    else reply(failed(code))
  })
}
const nothing: Operation['run'] = (_context, _request, reply) => reply(OK)

const running = (run: Operation['run']): Operation => ({ force: false, run })
const always = (run: Operation['run']): Operation => ({ force: true, run })

export const NODE_OPERATIONS: OperationTable = new Map([
  [Op.NEW_VDI, running(inOrder)],
  [Op.LOCK_VDI, running(lock)],
  [Op.RELEASE_VDI, running(release)],
  [Op.GET_VDI_INFO, running(inOrder)],
  [Op.DEL_VDI, running(inOrder)],
  [Op.GET_VDI_ATTR, running(inOrder)],
  [Op.MAKE_FS, always(format)],
  [Op.SHUTDOWN, always(shutDown)],
  [Op.CLEANUP, always(inOrder)],
  [Op.COMPLETE_RECOVERY, always(inOrder)],
  [Op.NOTIFY_VDI_ADD, always(announce)],
  [Op.NOTIFY_VDI_DEL, always(notifyDeletion)],
  [Op.RECYCLE_VIDS, running(recycle)],
  [Op.RECYCLE_NOW, running(recycleNow)],
  [Op.FLUSH_DEL_CACHE, running(nothing)],
  [Op.READ_VDIS, always(bitmap('inUse'))],
  [Op.READ_DEL_VDIS, always(bitmap('deleted'))],
  [Op.GET_CLUSTER_DEFAULT, always(clusterDefault)],
  [Op.GET_NODE_LIST, always(nodeList)],
  [Op.STAT_SHEEP, running(statSheep)],
  [Op.STAT_CLUSTER, always(statCluster)],
  [Op.CLUSTER_INFO, always(clusterInfo)],
  [Op.KILL_NODE, always(kill)],
  [Op.GET_LOGLEVEL, always(getLogLevel)],
  [Op.SET_LOGLEVEL, always(setLogLevel)],
  // Before the format as well: a gateway of sheepdog 1.0 asks while it formats (defect C1).
  [Op.GET_VNODES, always(vnodes)],
  [Op.SET_VNODES, running(setVnodes)],
  [Op.REWEIGHT, running(inOrder)],
  [Op.ALTER_CLUSTER_COPY, running(alterCluster)],
  [Op.ALTER_VDI_COPY, running(alterVolume)],
  [Op.FORCE_RECOVER, always(inOrder)],
  [
    Op.GET_STORE_LIST,
    always((_context, request, reply) => whole(request, reply, Buffer.from('plain \0'))),
  ],
  [Op.GET_VDI_COPIES, always(volumes)],
  [
    Op.STAT,
    running(({ node }, request, reply) =>
      sized(request, reply, 120, () => encodeStat(node.stats.snapshot())),
    ),
  ],
  [
    Op.MD_INFO,
    running(({ node }, request, reply) =>
      sized(request, reply, MD_INFO_BYTES, () =>
        encodeMdInfo(node.store.disks().map((disk, index) => ({ ...disk, index }))),
      ),
    ),
  ],
  ...DISK_OPERATIONS,
])

/** The body of an answer, for the session that frames it. */
export function bodyOf(answer: { readonly body?: Buffer }): Buffer {
  return answer.body ?? noBytes()
}
