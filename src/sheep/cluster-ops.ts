/**
 * Operations that every node performs in the same order (cluster spec, section 7). One-phase ones are
 * announced and carried out by all. Two-phase ones wait for their turn, do their work on the node that was
 * asked, and then tell everybody the outcome.
 */

import { readCString } from '../base/bytes.js'
import { Code, codeOf, SheepError } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import type { Log } from '../base/log.js'
import type { ClusterDriver } from '../cluster/driver.js'
import type { Selector } from '../model/access.js'
import { NAME_BYTES } from '../model/inode.js'
import { type NodeKey, nodeKey, type SdNode } from '../model/node.js'
import { asVid, type Vid } from '../model/oid.js'
import { isRedundancy } from '../model/policy.js'
import { UNLOCKED } from '../model/vdi-state.js'
import { decodeClusterMessage, encodeClusterMessage } from '../wire/sheepdog/cluster-message.js'
import { lockHolder, lockSerial, setLockSerial } from '../wire/sheepdog/coherence.js'
import { Frame, HEADER_BYTES } from '../wire/sheepdog/frame.js'
import { Flag, Op, opName } from '../wire/sheepdog/opcodes.js'
import type { ClusterInfo } from '../wire/sheepdog/records.js'
import { decodeVdiReply, replyHead } from '../wire/sheepdog/replies.js'
import {
  decodeVdiFields,
  decodeVdiStateFields,
  deletionRequest,
  plainRequest,
  setReleased,
  type VdiFields,
  type VdiStateFields,
  vdiStateRequest,
} from '../wire/sheepdog/requests.js'
import { type Answer, failed, OK, type Reply, vdiAnswer } from './answer.js'
import { forceAnswer } from './force.js'
import { holders, type LockKeeper } from './lock-keeper.js'
import type { NodeState } from './state.js'
import { mustFind } from './vdi-lookup.js'
import type { Announcement, VdiService } from './vdi-service.js'

interface Pending {
  readonly request: Frame
  readonly reply: Reply
}

/** Work under a turn of its own that is no client's request. */
interface Chore {
  readonly run: () => Promise<void>
  readonly failed: (error: unknown) => void
}

/** A creation under way, or left behind by a node that died. */
interface Unfinished {
  /** The working volume that becomes a snapshot, the base of a clone, or 0. */
  readonly from: Vid
  readonly by: NodeKey
}

export interface ClusterOpsOptions {
  readonly state: NodeState
  readonly driver: ClusterDriver
  readonly vdis: VdiService
  readonly locks: LockKeeper
  readonly log: Log
  /** One-phase operations of the node itself, performed in order on every node. */
  readonly perform: (request: Frame, sender: SdNode) => Promise<Answer>
  /** This node got a lock; nobody is told before this resolves. */
  readonly lockGranted: (vid: Vid, serial: number) => Promise<Code>
  /** The cluster as the administrator who forces it sees it. */
  readonly forceable: () => ClusterInfo
  /** A volume's slots, size or state changed. */
  readonly changed: (vid: Vid) => void
  /** A deletion this node did has become known to all. */
  readonly deletedHere: (vid: Vid) => void
}

const TWO_PHASE: ReadonlySet<number> = new Set([
  Op.NEW_VDI,
  Op.DEL_VDI,
  Op.GET_VDI_INFO,
  Op.LOCK_VDI,
  Op.RELEASE_VDI,
  Op.GET_VDI_ATTR,
  Op.FORCE_RECOVER,
])

export class ClusterOps {
  readonly #options: ClusterOpsOptions
  /** Own announcements, answered as they come back in order. */
  #announced: Pending[] = []
  /** Own two-phase operations; the first one has asked for its turn. */
  readonly #turns: (Pending | Chore)[] = []
  /** The outcome of the turn that has just been told to everybody. */
  #current: { readonly pending: Pending | Chore; readonly answer: Answer } | undefined
  /** Volumes announced whose creation has not been told finished, by their new id. */
  readonly #unfinished = new Map<Vid, Unfinished>()

  /** Set once this node is on its way out. */
  #ended: Code | undefined

  constructor(options: ClusterOpsOptions) {
    this.#options = options
  }

  submit(request: Frame, reply: Reply): void {
    if (2 * HEADER_BYTES + request.body.length > LIMITS.clusterMessageBytesMax) {
      reply(failed(Code.INVALID_PARMS))
    } else if (request.opcode === Op.LOCK_VDI) {
      this.#lock(request, reply)
    } else if (TWO_PHASE.has(request.opcode)) {
      this.#takeTurn({ request, reply })
    } else {
      this.#notify({ request, reply })
    }
  }

  #lock(request: Frame, reply: Reply): void {
    const { locks, lockGranted } = this.#options
    const serial = locks.nextSerial()
    setLockSerial(request.head, serial)
    const granted = (answer: Answer): void => {
      const head = replyHead({ opcode: request.opcode, id: 0, epoch: 0, result: answer.result })
      answer.fill?.(head)
      void lockGranted(decodeVdiReply(new Frame(head)).vid, serial).then((code) =>
        reply(code === Code.SUCCESS ? answer : failed(code)),
      )
    }
    this.#takeTurn({
      request,
      reply: (answer) => (answer.result === Code.SUCCESS ? granted(answer) : reply(answer)),
    })
  }

  /** Runs `run` as an operation of its own: no volume is created, deleted or locked meanwhile. */
  exclusively(run: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#takeTurn({ run: () => run().then(resolve, reject), failed: reject })
    })
  }

  /** Tells every node of a volume; resolves once this node has processed it. */
  announce(what: Announcement): Promise<void> {
    const head = vdiStateRequest({ opcode: Op.NOTIFY_VDI_ADD, epoch: this.#epoch(), ...what })
    return this.broadcast(head).then(() => undefined)
  }

  /** Tells every node that the volume is deleted, or did not come about. */
  announceGone(vid: Vid): Promise<void> {
    return this.broadcast(...deletionRequest(vid)).then(() => undefined)
  }

  broadcast(head: Buffer, payload?: Buffer): Promise<Answer> {
    const request = new Frame(head, payload)
    return new Promise((resolve) => this.#notify({ request, reply: resolve }))
  }

  /** Creations that were announced and neither finished nor failed: their node may have died. */
  unfinished(): { readonly vid: Vid; readonly from: Vid }[] {
    return [...this.#unfinished].map(([vid, { from }]) => ({ vid, from }))
  }

  /** This node's turn has come: nobody else's operation runs until the outcome is told. */
  onTurn(): void {
    const pending = this.#turns[0]
    if (pending === undefined) return
    void this.#work(pending).then((answer) => {
      this.#current = { pending, answer }
      const request = 'request' in pending ? pending.request : noOperation()
      try {
        this.#options.driver.unblock(this.#message(request, answer))
      } catch (error) {
        this.#options.log.error('turn.outcome.untold', { reason: String(error) })
        this.abandon(codeOf(error))
      }
    })
  }

  /** A message everybody gets at the same place in the order of events. */
  async onMessage(sender: SdNode, bytes: Buffer): Promise<void> {
    const { request, response } = decodeClusterMessage(bytes)
    const own = this.#options.state.isSelf(sender)
    if (TWO_PHASE.has(request.opcode) || request.opcode === Op.FLUSH_DEL_CACHE) {
      const isRefused = response.result === Code.SUCCESS && !this.#learn(request, response, sender)
      if (request.opcode === Op.NEW_VDI) this.#creationOver(sender)
      if (request.opcode === Op.LOCK_VDI) this.#options.locks.heard(sender, lockSerial(request))
      if (own) this.#turnOver(isRefused ? failed(Code.VDI_LOCKED) : undefined)
      return
    }
    const answer = await this.#perform(request, sender)
    if (own) this.#announced.shift()?.reply(answer)
  }

  /** This node leaves: what waits fails now, and so does what still comes. */
  end(code: Code): void {
    this.#ended = code
    this.abandon(code)
  }

  /** Nobody will answer what waits any more. */
  abandon(code: Code): void {
    const waiting = [...this.#announced, ...this.#turns]
    this.#announced = []
    this.#turns.length = 0
    for (const one of waiting) {
      if ('reply' in one) one.reply(failed(code))
      else one.failed(new SheepError(code))
    }
  }

  #epoch(): number {
    return this.#options.state.epoch
  }

  #notify(pending: Pending): void {
    if (this.#ended !== undefined) {
      pending.reply(failed(this.#ended))
      return
    }
    this.#announced.push(pending)
    try {
      this.#options.driver.notify(this.#message(pending.request, OK))
    } catch (error) {
      // Not a member yet, or no more: nothing will come back.
      this.#announced = this.#announced.filter((one) => one !== pending)
      pending.reply(failed(codeOf(error)))
    }
  }

  #takeTurn(pending: Pending | Chore): void {
    if (this.#ended !== undefined) {
      if ('reply' in pending) pending.reply(failed(this.#ended))
      else pending.failed(new SheepError(this.#ended))
      return
    }
    this.#turns.push(pending)
    if (this.#turns.length === 1) this.#askForTurn()
  }

  #askForTurn(): void {
    try {
      this.#options.driver.block()
    } catch (error) {
      for (const one of this.#turns.splice(0)) {
        if ('reply' in one) one.reply(failed(codeOf(error)))
        else one.failed(error)
      }
    }
  }

  /** `refusal`: what the others did meanwhile is in the way of the outcome. */
  #turnOver(refusal: Answer | undefined): void {
    const current = this.#current
    this.#current = undefined
    this.#turns.shift()
    if (current !== undefined && 'reply' in current.pending) {
      current.pending.reply(refusal ?? current.answer)
    }
    if (this.#turns.length > 0) this.#askForTurn()
  }

  #message(request: Frame, answer: Answer): Buffer {
    const head = Buffer.from(request.head)
    head.writeUInt32LE(this.#epoch(), 4)
    const response = replyHead({
      opcode: request.opcode,
      id: 0,
      epoch: this.#epoch(),
      result: answer.result,
      dataLength: answer.body?.length ?? 0,
    })
    answer.fill?.(response)
    const data = request.has(Flag.WRITE) ? request.body : (answer.body ?? request.body)
    return encodeClusterMessage(head, response, data)
  }

  async #work(pending: Pending | Chore): Promise<Answer> {
    try {
      if ('request' in pending) return await this.#workOn(pending.request)
      await pending.run()
      return OK
    } catch (error) {
      const op = 'request' in pending ? opName(pending.request.opcode) : 'settle'
      const code = codeOf(error)
      // That there is no such volume is an answer, and nothing for an administrator to look at.
      const level = code === Code.NO_VDI || code === Code.NO_TAG ? 'debug' : 'warn'
      this.#options.log[level]('cluster.operation.failed', { op, reason: String(error) })
      return failed(code)
    }
  }

  async #workOn(request: Frame): Promise<Answer> {
    if (request.opcode === Op.RELEASE_VDI) {
      await this.#followRelease(request)
      return OK
    }
    if (request.opcode === Op.FORCE_RECOVER) {
      return forceAnswer(this.#options.forceable(), request.dataLength)
    }
    if (request.opcode === Op.GET_VDI_ATTR) {
      return vdiAnswer(await this.#options.vdis.attributes.perform(request))
    }
    const who = decodeTarget(request)
    if (who === undefined) return failed(Code.INVALID_PARMS)
    const { vdis, locks } = this.#options
    const fields = decodeVdiFields(request)
    if (request.opcode === Op.NEW_VDI) {
      if (request.body.length !== NAME_BYTES) return failed(Code.INVALID_PARMS)
      const { vid, copies, blockSizeShift } = await vdis.create(who.name, fields)
      return vdiAnswer({ vid, copies, blockSizeShift })
    }
    if (request.opcode === Op.DEL_VDI) {
      const { vid } = await vdis.delete(who.name, who.selector)
      return vdiAnswer({ vid })
    }
    const { vid, copies, blockSizeShift } = mustFind(await vdis.find(who.name, who.selector))
    if (request.opcode === Op.LOCK_VDI && !locks.isFree(vid, fields.lockType)) {
      this.#options.log.info('vdi.locked', { name: who.name, by: holders(locks.of(vid)) })
      return failed(Code.VDI_LOCKED)
    }
    const isLock = request.opcode === Op.LOCK_VDI && lockHolder(request) !== 0
    const before = isLock && { attributeId: locks.of(vid).holder ?? 0 }
    return vdiAnswer({ vid, copies, blockSizeShift, ...before })
  }

  /** A client that has not noticed a snapshot releases what it locked; it has the successor since. */
  async #followRelease(request: Frame): Promise<void> {
    const { vdis, locks } = this.#options
    const { base, lockType } = decodeVdiFields(request)
    const vid = asVid(base)
    if (!locks.isEnforced(lockType) || locks.of(vid).state !== 'unlocked') return
    const successor = await vdis.successorOf(vid)
    if (successor === undefined || !locks.isHandedToSelf(successor, lockType)) return
    setReleased(request.head, successor)
  }

  /** What every node remembers of a finished two-phase operation. False when it came to nothing after all. */
  #learn(request: Frame, response: Frame, sender: SdNode): boolean {
    const { locks } = this.#options
    const { vids } = this.#options.state
    const fields = decodeVdiFields(request)
    const { vid } = decodeVdiReply(response)
    switch (request.opcode) {
      case Op.NEW_VDI:
        this.#finished(vid, fields, response)
        break
      case Op.DEL_VDI:
        vids.markDeleted(vid)
        this.#options.changed(vid)
        if (this.#options.state.isSelf(sender)) this.#options.deletedHere(vid)
        break
      case Op.LOCK_VDI:
        return locks.take(vid, fields.lockType, sender, lockHolder(request))
      case Op.RELEASE_VDI:
        locks.release(asVid(fields.base), fields.lockType, sender)
        break
    }
    return true
  }

  /** Its creations are done or undone; those of others who died stay until they are looked after. */
  #creationOver(sender: SdNode): void {
    for (const [vid, { by }] of this.#unfinished) {
      if (by === nodeKey(sender)) this.#unfinished.delete(vid)
    }
  }

  /**
   * A node that came in after the announcement hears of the volume here first. The parent is where its
   * objects come from: for a branch that is not the working volume, which the announcement named.
   */
  #finished(vid: Vid, fields: Required<VdiFields>, response: Frame): void {
    const { vids } = this.#options.state
    vids.markInUse(vid)
    const { copies, blockSizeShift } = decodeVdiReply(response)
    const known = vids.get(vid) ?? {
      vid,
      copies,
      policy: this.#policyFrom(fields),
      blockSizeShift,
      snapshot: false,
      deleted: false,
      parent: asVid(0),
      lock: UNLOCKED,
    }
    vids.put(fields.base === 0 ? known : { ...known, parent: asVid(fields.base) })
    // A node that came in meanwhile did not hear which volume was to become the snapshot: the base, but for branches.
    const from = this.#unfinished.get(vid)?.from ?? asVid(fields.base)
    if (fields.snapId !== 0) this.#options.locks.handOn(from, vid)
  }

  /** The answer to NEW_VDI does not tell the policy; it follows from the question (protocol spec, 9.6). */
  #policyFrom({ base, copies, policy }: Required<VdiFields>): number {
    const { vids, settings } = this.#options.state
    if (base !== 0) return vids.get(asVid(base))?.policy ?? settings.policy
    return copies === 0 ? settings.policy : policy
  }

  async #perform(request: Frame, sender: SdNode): Promise<Answer> {
    if (request.opcode !== Op.NOTIFY_VDI_ADD) {
      try {
        return await this.#options.perform(request, sender)
      } catch (error) {
        const fields = {
          op: opName(request.opcode),
          sender: nodeKey(sender),
          reason: String(error),
        }
        this.#options.log.error('cluster.operation.failed', fields)
        return failed(codeOf(error))
      }
    }
    const what = decodeVdiStateFields(request)
    if (!isSane(what)) return failed(Code.INVALID_PARMS)
    // Else what anybody sends would make a volume writable while its snapshot is being taken.
    const { vids } = this.#options.state
    const isKnown = vids.isInUse(what.newVid)
    if (isKnown && what.reopens !== true) return failed(Code.VDI_EXIST)
    if (!isKnown) vids.born.add(what.newVid)
    this.#heardOf(what, sender)
    return OK
  }

  #heardOf(what: VdiStateFields, sender: SdNode): void {
    const { vids } = this.#options.state
    const { oldVid, newVid, copies, policy, blockSizeShift } = what
    vids.put({
      vid: newVid,
      copies,
      policy,
      blockSizeShift,
      snapshot: false,
      deleted: false,
      parent: oldVid,
      lock: vids.get(newVid)?.lock ?? UNLOCKED,
    })
    if (oldVid !== 0) vids.change(oldVid, { snapshot: true })
    if (what.setBitmap) {
      vids.markInUse(newVid)
      this.#options.locks.handOn(this.#unfinished.get(newVid)?.from, newVid)
      this.#unfinished.delete(newVid)
    } else if (!vids.isInUse(newVid)) {
      this.#unfinished.set(newVid, { from: oldVid, by: nodeKey(sender) })
    }
    this.#options.changed(oldVid)
    this.#options.changed(newVid)
  }
}

/** Anybody may send an announcement; what comes of it decides about sizes and placement. */
function isSane({ newVid, copies, policy, blockSizeShift }: VdiStateFields): boolean {
  const { blockSizeShiftMin, blockSizeShiftMax } = LIMITS
  const shiftIsSane = blockSizeShift >= blockSizeShiftMin && blockSizeShift <= blockSizeShiftMax
  return newVid !== 0 && isRedundancy({ copies, policy }) && shiftIsSane
}

/** Ends a turn without meaning: nodes of sheepdog 1.0 do nothing on it either. */
function noOperation(): Frame {
  return new Frame(plainRequest({ opcode: Op.FLUSH_DEL_CACHE }))
}

interface Target {
  readonly name: string
  readonly selector: Selector
}

/** Name, and tag or snapshot id; undefined when the payload has neither of the two legal lengths. */
function decodeTarget(request: Frame): Target | undefined {
  const { body } = request
  if (!request.has(Flag.WRITE) || (body.length !== NAME_BYTES && body.length !== 2 * NAME_BYTES)) {
    return undefined
  }
  const name = readCString(body, 0, NAME_BYTES)
  const tag = body.length > NAME_BYTES ? readCString(body, NAME_BYTES, NAME_BYTES) : ''
  const { snapId } = decodeVdiFields(request)
  if (tag !== '') return { name, selector: { kind: 'tag', tag } }
  if (snapId !== 0) return { name, selector: { kind: 'id', snapId } }
  return { name, selector: { kind: 'working' } }
}
