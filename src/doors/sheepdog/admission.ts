/**
 * Who may do what to a locked volume (protocol spec, section 13). Locks are asked for, not enforced, as far as reads
 * and the volume's name, tag and size are concerned. What would destroy somebody else's data is refused:
 *
 *   a block door has the volume     its data and slots are the door's alone
 *   this daemon died, and others    its clients have missed what happened since; they open the volume anew
 *   have had the volume since
 *   requests with the TGT flag      their sender relies on an inode it remembers, and is told when that is wrong
 */
import { Code } from '../../base/codes.js'
import { isSlotUpdate, REFS_OFFSET, SLOTS_OFFSET } from '../../model/inode.js'
import { type Oid, oidKind, oidVid, type Vid } from '../../model/oid.js'
import type { VdiLock } from '../../model/vdi-state.js'
import { failed, type Reply } from '../../sheep/answer.js'
import type { Caller } from '../../sheep/caller.js'
import { isValidAt } from '../../sheep/lock-keeper.js'
import { renewLock } from '../../sheep/lock-renewal.js'
import { participantOf } from '../../sheep/locks.js'
import type { SheepNode } from '../../sheep/node.js'
import type { Change } from '../../sheep/shared-volumes.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { ClusterFlag, Flag, Op } from '../../wire/sheepdog/opcodes.js'
import { objectFields } from '../../wire/sheepdog/requests.js'
import { holds } from './connection-locks.js'
import type { Operation, OperationContext, OperationTable } from './context.js'

/** What a request does to a volume. `changes`: to which objects it has. */
type Effect = 'reads' | 'refreshes' | 'writes' | 'changes' | 'creates' | 'describes'

/** The volume a client of this connection works with, as far as one can tell: whose inode it has read last. */
const worksWith = new WeakMap<Caller, Vid>()

/** The same operations, done only by who may. */
export function admitting(operations: OperationTable): OperationTable {
  const guarded = [Op.READ_OBJ, Op.WRITE_OBJ, Op.CREATE_AND_WRITE_OBJ, Op.DISCARD_OBJ] as const
  const write = operations.get(Op.WRITE_OBJ)!.run
  return new Map(
    Array.from(operations, ([opcode, operation]): [number, Operation] => {
      if (!guarded.some((one) => one === opcode)) return [opcode, operation]
      const run: Operation['run'] = (context, request, reply, caller) => {
        if (isFree(context.node, request)) operation.run(context, request, reply, caller)
        else admit({ context, request, reply, caller, run: operation.run, write })
      }
      return [opcode, { ...operation, run }]
    }),
  )
}

/** On the way of every request: nobody has anything to do with locks. */
function isFree({ locks, state }: SheepNode, request: Frame): boolean {
  const lock = locks.of(objectFields.vid(request))
  const isTgt = request.has(Flag.TGT) && state.has(ClusterFlag.USE_LOCK)
  return lock.state === 'unlocked' && lock.former === undefined && !isTgt
}

interface Entry {
  readonly context: OperationContext
  readonly request: Frame
  readonly reply: Reply
  readonly caller: Caller
  readonly run: Operation['run']
  readonly write: Operation['run']
}

function go({ context, request, reply, caller, run }: Entry): void {
  run(context, request, reply, caller)
}

function admit(entry: Entry): void {
  const { request, reply, context } = entry
  const { node } = context
  const oid = objectFields.oid(request)
  const vid = oidVid(oid)
  const lock = node.locks.of(vid)
  const isTgt = request.has(Flag.TGT) && node.state.has(ClusterFlag.USE_LOCK)
  const effect = effectOf(request, oid)
  if (isDestructive(effect) && isBarred(entry, vid, isTgt)) reply(failed(Code.VDI_LOCKED))
  else if (isDestructive(effect) && node.locks.isLapsed(vid)) renew(entry, vid)
  else if (isTgt) admitSharer(entry, vid, effect)
  else if (lock.state === 'shared') admitBystander(entry, vid, effect)
  else go(entry)
}

function effectOf(request: Frame, oid: Oid): Effect {
  const kind = oidKind(oid)
  if (request.opcode === Op.READ_OBJ) return isRefresh(request, oid) ? 'refreshes' : 'reads'
  if (request.opcode === Op.DISCARD_OBJ) return 'changes'
  if (kind === 'data') return request.opcode === Op.WRITE_OBJ ? 'writes' : 'creates'
  if (kind !== 'inode') return 'describes'
  const offset = objectFields.offset(request)
  const end = offset + request.body.length
  const touches = isSlotUpdate(offset, end - offset) || (offset < REFS_OFFSET && end > SLOTS_OFFSET)
  return touches ? 'changes' : 'describes'
}

/** The whole inode but for its references, as clients read it before they rely on it. */
function isRefresh(request: Frame, oid: Oid): boolean {
  const isWhole = objectFields.offset(request) === 0 && request.dataLength === REFS_OFFSET
  return oidKind(oid) === 'inode' && isWhole
}

function isDestructive(effect: Effect): boolean {
  return effect === 'writes' || effect === 'changes' || effect === 'creates'
}

function isBarred({ context, caller }: Entry, vid: Vid, isTgt: boolean): boolean {
  const { locks } = context.node
  const { state, door } = locks.of(vid)
  if (door) return !holds(context.node, caller, vid)
  return locks.isOusted(vid) || (isTgt && state === 'locked')
}

/** This daemon's clients go on where they were when it died, unless somebody was quicker. */
function renew(entry: Entry, vid: Vid): void {
  const { context, reply } = entry
  void renewLock(context.node, vid).then((code) => {
    if (code === Code.SUCCESS) admit(entry)
    else reply(failed(code))
  })
}

function admitSharer(entry: Entry, vid: Vid, effect: Effect): void {
  const { context, request, reply, caller } = entry
  const { node } = context
  if (oidKind(objectFields.oid(request)) === 'inode') worksWith.set(caller, vid)
  if (effect === 'refreshes') {
    refresh(entry, vid)
  } else if (!isCurrent(node, vid, caller, effect)) {
    reply(failed(Code.INODE_INVALIDATED))
  } else if (node.state.vids.get(vid)?.snapshot === true) {
    // What would change it is refused as what it is: that tells the client of the volume's successor.
    go(entry)
  } else if (effect === 'changes' || effect === 'creates') {
    node.shared.begin(vid, true, (code, change) => {
      if (change === undefined) reply(failed(code))
      else if (effect === 'creates') createOnce(entry, change)
      else go({ ...entry, reply: ending(change, reply) })
    })
  } else {
    go({ ...entry, reply: excusing(entry, vid) })
  }
}

/** Objects it reads may be those of snapshots it came from. */
function isCurrent(node: SheepNode, vid: Vid, caller: Caller, effect: Effect): boolean {
  const { self } = node.state
  const standing = (one: Vid): boolean | undefined => {
    const lock: VdiLock = node.locks.of(one)
    if (participantOf(lock, self) === undefined) return undefined
    return isValidAt(lock, self) && !node.shared.changedBeside.has(one)
  }
  const own = worksWith.get(caller)
  const known = standing(vid) ?? (own === undefined ? undefined : standing(own))
  if (known !== undefined) return known
  const family = node.state.vids.family(vid).map(standing)
  if (family.includes(false)) return false
  if (family.includes(true)) return true
  // A snapshot does not change: nobody need take part in it to read it.
  return !isDestructive(effect) && node.state.vids.get(own ?? vid)?.snapshot === true
}

function refresh(entry: Entry, vid: Vid): void {
  const { context, reply } = entry
  const { shared, locks, state } = context.node
  shared.changedBeside.delete(vid)
  const { participants } = locks.of(vid)
  const isSnapshot = state.vids.get(vid)?.snapshot === true && participants.length === 0
  // The client finds out that it is a snapshot, and asks for the volume that took its place.
  if (locks.of(vid).state === 'locked' || isSnapshot) {
    go(entry)
    return
  }
  void shared.refresh(vid).then((code) => {
    if (code === Code.SUCCESS) go(entry)
    else reply(failed(code))
  })
}

/**
 * Another gateway may have created the object since the client looked. What it has acknowledged is in it, and
 * stays: to create an object is to replace it.
 */
function createOnce(entry: Entry, change: Change): void {
  const { context, request, caller, run, write } = entry
  const { gateway } = context.node
  const reply = ending(change, entry.reply)
  gateway.read(gateway.ref(objectFields.oid(request)), 0, Buffer.alloc(1), (code) => {
    if (code === Code.NO_OBJ) run(context, request, reply, caller)
    else if (code === Code.SUCCESS) write(context, request, reply, caller)
    else reply(failed(code))
  })
}

function ending(change: Change, reply: Reply): Reply {
  return (answer) => {
    change.end()
    reply(answer)
  }
}

/** What went wrong because the inode changed meanwhile is put right by reading it again. */
function excusing({ context, reply }: Entry, vid: Vid): Reply {
  const { locks, state } = context.node
  return (answer) => {
    const isExcused = answer.result === Code.NO_OBJ && !isValidAt(locks.of(vid), state.self)
    reply(isExcused ? failed(Code.INODE_INVALIDATED) : answer)
  }
}

/** Somebody else than those who share the volume, `dog vdi write` say. */
function admitBystander(entry: Entry, vid: Vid, effect: Effect): void {
  const { context, reply } = entry
  const { shared, locks, state } = context.node
  if (effect === 'refreshes' && participantOf(locks.of(vid), state.self) !== undefined) {
    refresh(entry, vid)
    return
  }
  if (effect !== 'changes') {
    go(entry)
    return
  }
  shared.begin(vid, false, (code, change) => {
    if (change === undefined) {
      reply(failed(code))
      return
    }
    const isIn = participantOf(locks.of(vid), state.self) !== undefined
    if (isIn) shared.changedBeside.add(vid)
    const done = ending(change, reply)
    go({
      ...entry,
      reply: (answer) => {
        // Those who have read the inode meanwhile may have missed the change.
        if (isIn || answer.result !== Code.SUCCESS) done(answer)
        else
          void shared
            .invalidateAll(vid)
            .then((told) => done(told === Code.SUCCESS ? answer : failed(told)))
      },
    })
  })
}
