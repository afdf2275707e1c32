/**
 * Volumes that clients of several nodes use at once (`tgt` as a multipath target, protocol spec, section 13). Each
 * client remembers the inode. Whoever is about to change which objects a volume has makes the others' memory invalid
 * first; a request that relies on it is refused then (INODE_INVALIDATED) until that client has read the inode again.
 *
 * In 1.0 a node goes on as soon as it has heard its own message. Others may hear it later, and meanwhile serve, or
 * change, what is wrong already. So here whoever sends such a message also waits until every participant has
 * heard it and has none of the changes under way any more that it began before:
 *
 *   change    invalidate, heard by all  ->  create the object, name it in its slot
 *   refresh   validate, heard by all    ->  read the inode
 *
 * Hence no two gateways create objects of one volume at the same time, and no inode that was read for a refresh
 * lacks a change that was acknowledged before. Participants that leave the cluster are not waited for: their
 * writes are of an older epoch.
 */
import { Code } from '../base/codes.js'
import type { NodeKey } from '../model/node.js'
import type { Vid } from '../model/oid.js'
import { type NodeId, sameNode, type VdiLock } from '../model/vdi-state.js'
import { coherenceRequest, hearingRequest } from '../wire/sheepdog/coherence.js'
import type { Clock } from '../world/world.js'
import type { Answer } from './answer.js'
import type { Caller } from './caller.js'
import { isValidAt, type LockKeeper } from './lock-keeper.js'
import { participantOf } from './locks.js'
import type { Peers } from './peers.js'
import type { NodeState } from './state.js'

const HEARING_RETRY_MS = 100

export interface SharedVolumesOptions {
  readonly state: NodeState
  readonly locks: LockKeeper
  readonly peers: Pick<Peers, 'request'>
  readonly clock: Clock
  /** Ends with this node's own hearing of the message. */
  readonly broadcast: (head: Buffer) => Promise<Answer>
  /** Calls `done` when this gateway has no write of the volume under way. */
  readonly drainWrites: (vid: Vid, done: () => void) => void
}

/** A change of a volume's objects under way. */
export interface Change {
  readonly end: () => void
}

interface Draining {
  readonly waitsFor: Set<Change>
  readonly done: () => void
}

export class SharedVolumes {
  readonly #options: SharedVolumesOptions
  readonly #changes = new Map<Vid, Set<Change>>()
  readonly #draining = new Set<Draining>()
  /** Messages of ours that not everybody has heard yet. */
  readonly #announcing = new Map<Vid, Promise<Code>>()
  /**
   * Volumes of which a client of this node shares a lock and another one, that takes no part in it, changed the
   * objects: the others do not believe what they remember already, that one must not either.
   */
  readonly changedBeside = new Set<Vid>()

  constructor(options: SharedVolumesOptions) {
    this.#options = options
  }

  /**
   * Opens a change of the volume's objects once this node alone may make one. `relies`: the client does it on the
   * strength of what it remembers, and is told INODE_INVALIDATED when that is wrong.
   */
  begin(vid: Vid, relies: boolean, done: (code: Code, change?: Change) => void): void {
    const lock = this.#options.locks.of(vid)
    if (lock.state !== 'shared') {
      done(Code.SUCCESS, this.#opened(vid))
      return
    }
    const { self } = this.#options.state
    const own = participantOf(lock, self)
    if (relies && !isValidAt(lock, self)) {
      done(Code.INODE_INVALIDATED)
      return
    }
    const announcing = this.#announcing.get(vid)
    if (announcing === undefined && own?.coherence === 'modified') {
      done(Code.SUCCESS, this.#opened(vid))
      return
    }
    void (announcing ?? this.#announce(vid, false)).then((code) => {
      if (code !== Code.SUCCESS) done(code)
      else if (own !== undefined || announcing !== undefined) this.begin(vid, relies, done)
      else done(Code.SUCCESS, this.#opened(vid))
    })
  }

  /** What every client remembers of the volume is wrong. */
  async invalidateAll(vid: Vid): Promise<Code> {
    await this.#announcing.get(vid)
    return this.#announce(vid, false)
  }

  /** Before the inode is read for a client that will rely on it from then on. */
  async refresh(vid: Vid): Promise<Code> {
    await this.#announcing.get(vid)
    if (isValidAt(this.#options.locks.of(vid), this.#options.state.self)) return Code.SUCCESS
    return this.#announcing.get(vid) ?? this.#announce(vid, true)
  }

  /**
   * Another node wants to know that this one has heard its message, and that what was begun before has ended.
   * `done` is not called when the asker leaves first.
   */
  hear(
    asker: NodeKey,
    { vid, serial }: { vid: Vid; serial: number },
    caller: Caller,
    done: () => void,
  ): void {
    const { locks, drainWrites } = this.#options
    const go = (): void => {
      if (!locks.hasHeard(asker, serial)) return
      stop()
      calledOff()
      const isOusted = locks.isOusted(vid)
      this.#drain(vid, () => (isOusted ? drainWrites(vid, done) : done()))
    }
    const stop = locks.onEvent(go)
    const calledOff = caller.onLeave(stop)
    go()
  }

  /** The volume was taken over from a daemon that had died: its clients are shut out before anybody relies on it. */
  async afterLock(vid: Vid, serial: number): Promise<Code> {
    const { former } = this.#options.locks.of(vid)
    return former?.ousted === true ? this.#heardBy([former.node], vid, serial) : Code.SUCCESS
  }

  /** Asks all these nodes, those that leave the cluster excepted; resolves when they have heard. */
  async #heardBy(nodes: readonly NodeId[], vid: Vid, serial: number): Promise<Code> {
    const codes = await Promise.all(nodes.map((node) => this.#heardByOne(node, vid, serial)))
    return codes.find((code) => code !== Code.SUCCESS) ?? Code.SUCCESS
  }

  #announce(vid: Vid, validate: boolean): Promise<Code> {
    const said = this.#say(vid, validate).finally(() => {
      if (this.#announcing.get(vid) === said) this.#announcing.delete(vid)
    })
    this.#announcing.set(vid, said)
    return said
  }

  async #say(vid: Vid, validate: boolean): Promise<Code> {
    const serial = this.#options.locks.nextSerial()
    const { result } = await this.#options.broadcast(coherenceRequest({ vid, validate, serial }))
    if (result !== Code.SUCCESS) return result
    return this.#heardBy(this.#others(this.#options.locks.of(vid)), vid, serial)
  }

  #others({ participants }: VdiLock): NodeId[] {
    return participants.map(({ node }) => node).filter((node) => !this.#options.state.isSelf(node))
  }

  async #heardByOne(node: NodeId, vid: Vid, serial: number): Promise<Code> {
    const { state, locks, peers, clock } = this.#options
    const life = locks.departuresOf(node)
    for (;;) {
      const target = state.members.find((member) => sameNode(member, node))
      if (target === undefined || locks.departuresOf(node) !== life) return Code.SUCCESS
      if (state.status !== 'ok') return Code.WAIT_FOR_JOIN
      const code = await new Promise<Code>((resolve) => {
        const head = hearingRequest({ vid, serial })
        peers.request(target, head, undefined, (reply) =>
          resolve((reply?.result ?? Code.AGAIN) as Code),
        )
      })
      // 1.0 does not know the question, and has to be believed.
      if (code === Code.SUCCESS || code === Code.INVALID_PARMS) return Code.SUCCESS
      await new Promise<void>((resolve) => void clock.after(HEARING_RETRY_MS, resolve))
    }
  }

  #opened(vid: Vid): Change {
    const changes = this.#changes.get(vid) ?? new Set()
    this.#changes.set(vid, changes)
    const change: Change = {
      end: () => {
        changes.delete(change)
        if (changes.size === 0 && this.#changes.get(vid) === changes) this.#changes.delete(vid)
        for (const one of [...this.#draining]) {
          if (!one.waitsFor.delete(change) || one.waitsFor.size > 0) continue
          this.#draining.delete(one)
          one.done()
        }
      },
    }
    changes.add(change)
    return change
  }

  /** Only what is under way now: later changes are made by somebody who may. */
  #drain(vid: Vid, done: () => void): void {
    const waitsFor = new Set(this.#changes.get(vid))
    if (waitsFor.size === 0) done()
    else this.#draining.add({ waitsFor, done })
  }
}
