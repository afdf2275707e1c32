/**
 * What sheepdog 1.0's nodes and tools ask for when they look after copies and locks: REPAIR_REPLICA takes another node's
 * copy of an object over the one here, VDI_STATE_CHECKPOINT_CTL tells what a node knows of one volume.
 */
import { Code, type Done } from '../../base/codes.js'
import { nodeKey } from '../../model/node.js'
import { asVid, oidVid } from '../../model/oid.js'
import { encodeVdiState, VDI_STATE_BYTES } from '../../model/vdi-state.js'
import { failed, OK, type Reply } from '../../sheep/answer.js'
import type { Caller } from '../../sheep/caller.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { Op } from '../../wire/sheepdog/opcodes.js'
import { decodeCheckpointFields, decodeForwardFields } from '../../wire/sheepdog/requests.js'
import type { DoorContext, OperationTable } from './context.js'

/**
 * The copies are compared as after a cut-off write, with the named node's as the right one; what is written meanwhile
 * waits. AGAIN: the other copy is being repaired itself. INVALID_PARMS: the object is coded, or one of the two nodes does not hold it. Answered once the copy is the other one's.
 */
function repair({ node }: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const { oid, host, port } = decodeForwardFields(request)
  const { state, suspects, recovery } = node
  const source = nodeKey({ host, port })
  const owners = state.owners(oid, oidVid(oid))
  const others = owners.filter((owner) => !state.isSelf(owner))
  const isOwner = others.length < owners.length
  const isSane = isOwner && others.some((owner) => nodeKey(owner) === source)
  if (state.codingOf(oid) !== 0 || !isSane) {
    reply(failed(Code.INVALID_PARMS))
    return
  }
  const done = caller.unlessGone(
    () => reply(failed(Code.AGAIN)),
    (code: Code) => reply(failed(code)),
  )
  if (!node.store.has(oid)) {
    recovery.ensure(oid, done)
    return
  }
  // Two who have each other's copy taken over would wait for ever; what is not done need not be kept on record.
  const ended: Done = (code) => {
    if (code === Code.AGAIN) suspects.giveUpRepair(oid)
    done(code)
  }
  suspects.repair(oid, source, (code) => {
    if (code === Code.SUCCESS) recovery.ensure(oid, ended)
    else done(code)
  })
}

/** 1.0's joiners ask for the state before their join; ours get all states as of its epoch (GET_VDI_COPIES). */
function checkpoint({ node }: DoorContext, request: Frame, reply: Reply): void {
  const { get, targetEpoch, vid } = decodeCheckpointFields(request)
  const { state } = node
  const known = state.vids.isInUse(vid) ? state.vids.get(asVid(vid)) : undefined
  if (!get) reply(OK)
  else if (((targetEpoch - state.epoch) | 0) > 0) reply(failed(Code.AGAIN))
  else if (known === undefined) reply(failed(Code.NO_CHECKPOINT_ENTRY))
  else if (request.dataLength < VDI_STATE_BYTES) reply(failed(Code.BUFFER_SMALL))
  else {
    const asked = node.locks.asOf((targetEpoch + 1) >>> 0, known)
    reply({ result: Code.SUCCESS, body: encodeVdiState(asked) })
  }
}

export const REPAIR_OPERATIONS: OperationTable = new Map([
  [Op.REPAIR_REPLICA, { force: false, run: repair }],
  [Op.VDI_STATE_CHECKPOINT_CTL, { force: false, isHarmless: true as const, run: checkpoint }],
])
