/**
 * RECYCLE_VID: ids of volumes that are deleted become free again. Anything left of the volume that had the id would pass for
 * the next one's: objects on a node that was away, an intent to remove some, blocks in a cache, the memory of a client. So
 *
 *   who is asked     every node that was a member at any time since the volume was made, or it stays
 *   when             recovery of the epoch is over on all, every deletion has given back what it could
 *   first question   family by family: clients of a node that has started since come back within a minute, or never
 *   erase            an event all perform in order: whatever a node has of these ids goes, durably
 *   question         has everybody, and does no client of anybody remember one of the family?
 *   free             a second event, void in another epoch: the ids are unknown from then on
 *
 * all as one volume operation, so that nothing is created meanwhile. What stops half-way leaves ids that are taken by
 * nothing, and is done again. So the newest knowledge of an old id is gone from every disk before a new volume has it;
 * nodes that come back, forced epochs and learning from disks need no rule of their own.
 */
import { Code, codeName, SheepError } from '../base/codes.js'
import type { Log } from '../base/log.js'
import { type InodeHeader, sdTimeSeconds } from '../model/inode.js'
import { type NodeKey, nodeKey, type SdNode } from '../model/node.js'
import { type Oid, oidKind, oidVid, type Vid } from '../model/oid.js'
import type { EpochLog } from '../store/epoch-log.js'
import type { ObjectStore } from '../store/object-store.js'
import type { Frame } from '../wire/sheepdog/frame.js'
import { ClusterFlag } from '../wire/sheepdog/opcodes.js'
import {
  decodeRecycling,
  type KeptIds,
  RECYCLED_MAX,
  type RecyclingQuestion,
  type RecyclingStep,
  recyclingMessage,
  recyclingQuestion,
} from '../wire/sheepdog/recycling.js'
import type { Clock, Files } from '../world/world.js'
import type { ClusterOps } from './cluster-ops.js'
import type { Suspects } from './equal/suspects.js'
import { withinLimit } from './every-node.js'
import type { InodeCopies } from './inode-copies.js'
import { readableHeader } from './inode-io.js'
import type { LockKeeper } from './lock-keeper.js'
import { replyCode } from './outcome.js'
import type { Peers } from './peers.js'
import type { Reclaim } from './reclaim.js'
import type { Recovery } from './recovery/engine.js'
import { awaySince, deadFamilies, tails } from './recyclable.js'
import type { NodeState } from './state.js'
import { VidUsers } from './vid-users.js'

const INTERVAL_MS_MIN = 10_000
const INTERVAL_MS_MAX = 160_000
/** Clients of a node that has come back have connected again by then. */
const RETURN_MS = 60_000
const ANSWER_MS = 10_000
const OBJECTS_AT_ONCE = 4096
/** Families everybody is asked about in one turn; every volume operation of the cluster waits meanwhile. */
const FAMILIES_MAX = 256

export interface RecyclingOptions {
  readonly state: NodeState
  readonly ops: Pick<ClusterOps, 'exclusively' | 'broadcast'>
  readonly locks: Pick<LockKeeper, 'nextSerial'>
  readonly peers: Pick<Peers, 'request'>
  readonly recovery: Pick<Recovery, 'isWhole'>
  readonly suspects: Pick<Suspects, 'forget'>
  readonly reclaim: Pick<Reclaim, 'backlog'>
  readonly copies: Pick<InodeCopies, 'headers'>
  readonly store: Pick<ObjectStore, 'inventory' | 'piecesOf' | 'remove' | 'syncAll'>
  readonly epochLog: Pick<EpochLog, 'read' | 'latest'>
  readonly files: Files
  readonly clock: Clock
  readonly log: Log
  /** Where intents to remove objects are kept. */
  readonly intents: string
  /** A door of this node has it open, or its cache holds something of it. */
  readonly isHeld: (vid: Vid) => boolean
  readonly changed: (vid: Vid) => void
}

/** What a turn came to. */
export interface RecyclingOutcome {
  readonly freed: number
  readonly kept: readonly KeptIds[]
}

export class Recycling {
  readonly users = new VidUsers()
  readonly #options: RecyclingOptions
  readonly #startedMs: number
  /** The newest step of each node that has been performed here. */
  readonly #performed = new Map<NodeKey, number>()
  #cancel: (() => void) | undefined
  #intervalMs = INTERVAL_MS_MIN
  /** Turns so far: no family is always the last one. */
  #turns = 0

  constructor(options: RecyclingOptions) {
    this.#options = options
    this.#startedMs = options.clock.monotonic()
  }

  get isOn(): boolean {
    return this.#options.state.has(ClusterFlag.RECYCLE_VID)
  }

  /** From now on, as long as the cluster runs and recycles: one member looks what may become free. */
  begin(): void {
    if (this.#cancel !== undefined || !this.isOn) return
    this.#cancel = this.#options.clock.after(this.#intervalMs, () => {
      void this.look().finally(() => {
        this.#cancel = undefined
        if (this.#options.state.status === 'ok') this.begin()
      })
    })
  }

  stop(): void {
    this.#cancel?.()
    this.#cancel = () => undefined
  }

  /** Frees what may be; resolves when there is nothing more to do now. */
  async look(): Promise<void> {
    const { state, log } = this.#options
    const [first] = state.epochNodes
    const isMine = first !== undefined && state.isSelf(first)
    if (!isMine || !this.isOn || !this.#isQuiet || deadFamilies(state.vids).length === 0) return
    try {
      const { kept } = await this.now()
      const isRefused = kept.some(({ why }) => why === 'refused')
      // Every volume operation of the cluster waits meanwhile: not too often.
      this.#intervalMs = isRefused ? this.#longer : INTERVAL_MS_MIN
    } catch (error) {
      this.#intervalMs = this.#longer
      log.debug('vids.not-recycled', { reason: String(error) })
    }
  }

  /** The same for whoever asks. Rejects with AGAIN while something is on its way between nodes. */
  async now(): Promise<RecyclingOutcome> {
    if (!this.#isQuiet) throw new SheepError(Code.AGAIN)
    let outcome: RecyclingOutcome = { freed: 0, kept: [] }
    await this.#options.ops.exclusively(async () => {
      outcome = await this.#recycle()
    })
    return outcome
  }

  /** A step of another node, or of this one, at its place in the order of events. */
  async heard(request: Frame, sender: SdNode): Promise<Code> {
    const step = decodeRecycling(request)
    if (step === undefined) return Code.INVALID_PARMS
    const { state } = this.#options
    const isDead = step.vids.every((vid) => state.vids.isDeleted(vid))
    if (!isDead || step.epoch !== state.epoch) return Code.AGAIN
    if (step.step === 'free') return this.#free(step)
    if (!this.#isQuiet) return Code.AGAIN
    const code = await this.#erase(new Set(step.vids))
    if (code === Code.SUCCESS) this.#performed.set(nodeKey(sender), step.serial)
    return code
  }

  /** Whether, for this node, these ids may become other volumes'. */
  answer({ serial, vids }: RecyclingQuestion, asker: NodeKey | undefined): Code {
    const { isHeld } = this.#options
    if (asker === undefined) return Code.INVALID_PARMS
    if (serial !== 0 && this.#performed.get(asker) !== serial) return Code.AGAIN
    if (!this.#isQuiet || !this.#mayJudge(vids)) return Code.AGAIN
    return this.users.mayUse(vids) || vids.some(isHeld) ? Code.VDI_LOCKED : Code.SUCCESS
  }

  get #longer(): number {
    return Math.min(this.#intervalMs * 2, INTERVAL_MS_MAX)
  }

  /** No client of an earlier life of this node knew them, or all that did have had the time to come back. */
  #mayJudge(vids: readonly Vid[]): boolean {
    const { state, clock } = this.#options
    const hasWaited = clock.monotonic() - this.#startedMs >= RETURN_MS
    return hasWaited || vids.every((vid) => state.vids.born.has(vid))
  }

  /** Nothing is on its way between nodes, or to be removed. */
  get #isQuiet(): boolean {
    const { state, recovery, reclaim } = this.#options
    return state.status === 'ok' && state.isSure() && recovery.isWhole && reclaim.backlog === 0
  }

  async #recycle(): Promise<RecyclingOutcome> {
    const { state, ops, locks, log } = this.#options
    const { epoch, vids } = state
    const { free, kept } = await this.#judged(this.#someFamilies())
    const ids = tails(vids, new Set(free))
    const behind = free.length - ids.length
    if (behind > 0)
      kept.push({
        vid: free.find((vid) => !ids.includes(vid))!,
        ids: behind,
        why: 'behind',
        who: '',
      })
    if (ids.length === 0) return { freed: 0, kept }
    if (!this.#isQuiet) throw new SheepError(Code.AGAIN)
    const serial = locks.nextSerial()
    const erased = await ops.broadcast(
      ...recyclingMessage({ step: 'erase', epoch, serial, vids: ids }),
    )
    if (erased.result !== Code.SUCCESS) throw new SheepError(erased.result)
    const refusal = await this.#refusal({ serial, vids: free })
    if (refusal !== undefined) throw new SheepError(refusal.code, refusal.reason)
    const freeing = recyclingMessage({ step: 'free', epoch, serial, vids: ids })
    const { result } = await ops.broadcast(...freeing)
    if (result !== Code.SUCCESS) throw new SheepError(result)
    log.info('vids.recycled', { epoch, ids: ids.length })
    return { freed: ids.length, kept }
  }

  /** As many as a turn may take, beginning where the last one left off. */
  #someFamilies(): Vid[][] {
    const all = deadFamilies(this.#options.state.vids)
    const start = all.length > FAMILIES_MAX ? (this.#turns++ * FAMILIES_MAX) % all.length : 0
    const some: Vid[][] = []
    let ids = 0
    for (const family of [...all.slice(start), ...all.slice(0, start)]) {
      ids += family.length
      if (some.length === FAMILIES_MAX || ids > RECYCLED_MAX) break
      some.push(family)
    }
    return some
  }

  /** Ids of families nobody has anything against, and what is against the others. */
  async #judged(families: readonly Vid[][]): Promise<{ free: Vid[]; kept: KeptIds[] }> {
    const kept: KeptIds[] = []
    const over: Vid[][] = []
    for (const family of families) {
      const reason = await this.#notOver(family)
      if (reason === undefined) over.push(family)
      else kept.push({ vid: family[0]!, ids: family.length, ...reason })
    }
    if (over.length === 0) return { free: [], kept }
    const all = await this.#refusal({ serial: 0, vids: over.flat() })
    if (all === undefined) return { free: over.flat(), kept }
    const free: Vid[] = []
    for (const family of over) {
      const refusal = await this.#refusal({ serial: 0, vids: family })
      if (refusal === undefined) free.push(...family)
      else {
        const why = refusal.code === Code.VDI_LOCKED ? 'refused' : 'not-yet'
        kept.push({ vid: family[0]!, ids: family.length, why, who: refusal.who })
      }
    }
    return { free, kept }
  }

  /** Whether everything the family named has been given back, and all who may have something of it are here. */
  async #notOver(family: readonly Vid[]): Promise<Pick<KeptIds, 'why' | 'who'> | undefined> {
    const { state, copies, epochLog, log } = this.#options
    let since = Number.POSITIVE_INFINITY
    for (const vid of family) {
      const headers: InodeHeader[] = (await copies.headers(vid)).map(readableHeader)
      const isLeft = headers.some(({ name, sizeBytes }) => name !== '' || sizeBytes > 0)
      if (isLeft) return { why: 'left', who: '' }
      since = Math.min(since, this.#madeAt(headers[0]))
    }
    const read = (epoch: number) => epochLog.read(epoch)
    const away = awaySince(since, epochLog.latest(), read, state.members)
    if (away?.length === 0) return undefined
    const who = away?.join(' ') ?? ''
    log.debug('vids.kept', { away: who || 'unknown' })
    return { why: 'away', who }
  }

  /** In seconds. Where there is no inode any more, or a client has written nonsense, nothing says how old it was. */
  #madeAt(header: InodeHeader | undefined): number {
    const seconds = header === undefined ? 0 : sdTimeSeconds(header.createTime)
    return seconds > this.#options.clock.now() / 1000 ? 0 : seconds
  }

  /** The first one; undefined when all agree. Rejects when the epoch is over. */
  async #refusal(
    question: RecyclingQuestion,
  ): Promise<{ readonly code: Code; readonly who: NodeKey; readonly reason: string } | undefined> {
    const { state } = this.#options
    const { epoch, members } = state
    const codes = await Promise.all(members.map((node) => this.#ask(node, question)))
    if (state.epoch !== epoch) throw new SheepError(Code.AGAIN)
    const at = codes.findIndex((code) => code !== Code.SUCCESS)
    if (at < 0) return undefined
    const [code, who] = [codes[at]!, nodeKey(members[at]!)]
    return { code, who, reason: `${who} says ${codeName(code)}` }
  }

  #ask(node: SdNode, question: RecyclingQuestion): Promise<Code> {
    const { state, peers, clock } = this.#options
    if (state.isSelf(node)) return Promise.resolve(this.answer(question, state.selfKey))
    return new Promise((resolve) => {
      const { done } = withinLimit(clock, ANSWER_MS, resolve)
      peers.request(node, ...recyclingQuestion(question), (reply) => done(replyCode(reply)))
    })
  }

  /** Whatever is here of these ids, working or stale, also what nobody named. Attributes belong to names, not to ids. */
  async #erase(vids: ReadonlySet<Vid>): Promise<Code> {
    const { store, suspects, clock } = this.#options
    const inventory = await store.inventory()
    const failures = new Set<Code>()
    for (let at = 0; at < inventory.length; at++) {
      if (at % OBJECTS_AT_ONCE === 0) await new Promise<void>((turn) => clock.soon(turn))
      const oid = inventory[at] as Oid
      if (!vids.has(oidVid(oid)) || oidKind(oid) === 'attribute') continue
      for (const id of store.piecesOf(oid)) {
        const code = await new Promise<Code>((resolve) => store.remove(id, resolve))
        if (code !== Code.SUCCESS && code !== Code.NO_OBJ) failures.add(code)
      }
      suspects.forget(oid)
    }
    await this.#forgetIntents(vids)
    // Stale copies as well, that were purged before: a power cut brings nothing back.
    await store.syncAll()
    return [...failures][0] ?? Code.SUCCESS
  }

  /** Of removals that failed: carried out later they would take what the next volume has. */
  async #forgetIntents(vids: ReadonlySet<Vid>): Promise<void> {
    const { files, intents } = this.#options
    if (!files.exists(intents)) return
    for (const name of await files.readDir(intents)) {
      if (vids.has(Number.parseInt(name.slice(0, 6), 16) as Vid)) {
        await files.unlink(`${intents}/${name}`)
      }
    }
    await files.syncDir(intents)
  }

  #free({ vids }: RecyclingStep): Code {
    const { state, changed } = this.#options
    for (const vid of vids) {
      for (const id of state.lost.unsyncedOf(vid)) state.lost.synced(id)
      state.vids.free(vid)
      changed(vid)
    }
    return Code.SUCCESS
  }
}
