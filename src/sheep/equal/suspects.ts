/**
 * Objects whose copies may differ: writes to them were in flight when a gateway died, when this node died, or when a
 * write failed on some copies only. They are compared and made equal before anybody reads them.
 *
 * At the beginning of every epoch each node tells the others which suspects it has (GET_SUSPECTS), and serves no
 * object before it has heard from all. So everybody knows the same lists, and decides alike whose copy is right: that of the
 * first owner in ring order who does not list the object itself, and of the first owner when all do. Whatever of the
 * writes in flight that copy has is kept on all, the rest is nowhere; nobody was told that they were done.
 *
 * A suspect stays on record (in-flight.ts) until every node has finished the epoch's recovery, of which the comparison
 * is a part: when the owner whose copy is right dies before the others have it, what is left is compared again.
 */
import { Code, codeName } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import { type NodeKey, nodeKey, type SdNode } from '../../model/node.js'
import { inodeOid, type Oid, oidName, oidVid, type Vid } from '../../model/oid.js'
import { decodeOids } from '../../wire/sheepdog/oid-list.js'
import { Op } from '../../wire/sheepdog/opcodes.js'
import { objectRequest } from '../../wire/sheepdog/requests.js'
import type { Clock } from '../../world/world.js'
import type { Peers } from '../peers.js'
import type { NodeState } from '../state.js'
import type { InFlight } from './in-flight.js'

/** Suspects one node may tell of: twice what its log can hold. */
export const SUSPECTS_MAX = 131_072
const RETRY_MS = 200

export interface SuspectsOptions {
  readonly state: NodeState
  readonly inFlight: InFlight
  readonly peers: Pick<Peers, 'call'>
  readonly clock: Clock
  readonly log: Log
  /** Is there a working copy here? */
  readonly isHere: (oid: Oid) => boolean
  /** Is there any, working or of an earlier epoch? Others may be about to fetch that one. */
  readonly isAnywhere: (oid: Oid) => boolean
  /** One more object is to be compared, during an epoch. */
  readonly added: (oid: Oid) => void
}

interface Round {
  readonly epoch: number
  readonly waiting: (() => void)[]
}

export class Suspects {
  readonly #options: SuspectsOptions
  /** Here, and not compared yet. */
  readonly #open = new Set<Oid>()
  /** Compared as far as possible: served, but to be compared again with those who are away. */
  readonly #lent = new Set<Oid>()
  /** Compared; the record stays until the whole cluster has finished the epoch. */
  readonly #closed = new Set<Oid>()
  /** What this node told of at the beginning of the epoch. */
  #told: readonly Oid[] = []
  /** Nodes that told of the object at the beginning of the epoch; everybody, when it came later. */
  readonly #listed = new Map<Oid, Set<NodeKey> | 'all'>()
  /** Objects somebody told of in this epoch. */
  readonly #heardOf = new Set<Oid>()
  /** Being made equal to the copy somebody named. `doubted`: a write has failed since, so not all is as it was before. */
  readonly #repairs = new Map<Oid, 'asked' | 'doubted'>()
  #round: Round | undefined
  /** Every node has finished the recovery of this epoch. */
  #isGathered = false
  /** Nothing is served any more. */
  #ended = false

  constructor(options: SuspectsOptions) {
    this.#options = options
  }

  /** True while the object must not be served: not heard from all, or not compared. */
  holds(oid: Oid): boolean {
    if (this.#round !== undefined || this.#ended) return true
    return this.#open.size > 0 && this.#open.has(oid) && !this.#lent.has(oid)
  }

  /** Objects still to be compared; of some there is no working copy here. */
  open(): Oid[] {
    return [...this.#open]
  }

  /** The owner whose copy is right. Undefined: the copies are equal, any will do. */
  sourceOf(oid: Oid): SdNode | undefined {
    const listed = this.#listed.get(oid)
    if (listed === undefined) return undefined
    const owners = this.#options.state.owners(oid, oidVid(oid))
    const clean = listed === 'all' ? undefined : owners.find((node) => !listed.has(nodeKey(node)))
    return clean ?? owners[0]
  }

  /** An owner that told of the object itself: its copy is second choice for whoever has none. */
  isDoubtful(oid: Oid, node: SdNode): boolean {
    const listed = this.#listed.get(oid)
    return listed === 'all' || listed?.has(nodeKey(node)) === true
  }

  /** Some node told of the object in this epoch. */
  isListed(oid: Oid): boolean {
    return this.#listed.has(oid)
  }

  /**
   * This node has the lists of all, or was told since, and has carried out what came before that. Whoever compares with its
   * copy sees nothing but what it will keep: writes that come later wait at his node, too.
   */
  hasHeardOf(oid: Oid): boolean {
    return this.#round === undefined && this.#heardOf.has(oid)
  }

  /** A fragment is about to be made here from others that may not fit each other: it is compared like those. */
  join(oid: Oid): void {
    if (this.#open.has(oid)) return
    this.#open.add(oid)
    this.#closed.delete(oid)
    this.#options.inFlight.hold(oid, (code) => this.#recorded(oid, code))
  }

  /**
   * The copy here fits those of all owners that are there, and may be used until the membership changes. Of coded
   * objects one that comes back must not use its own.
   */
  lend(oid: Oid): void {
    if (this.#open.has(oid)) this.#lent.add(oid)
  }

  /** Writes to these were in flight and nobody knows on which copies. Takes effect with the next epoch. */
  add(oids: readonly Oid[]): void {
    const { inFlight, isAnywhere } = this.#options
    for (const oid of oids) {
      if (!isAnywhere(oid)) {
        this.forget(oid)
        continue
      }
      inFlight.hold(oid, (code) => this.#recorded(oid, code))
      this.#open.add(oid)
      this.#lent.delete(oid)
      this.#closed.delete(oid)
    }
  }

  /** A new epoch begins; to be called right before requests see it. */
  begin(epoch: number): void {
    const before = this.#round?.waiting ?? []
    this.#round = { epoch, waiting: before }
    this.#told = [...this.#open].slice(0, SUSPECTS_MAX)
    this.#isGathered = false
    this.#lent.clear()
    this.#listed.clear()
    this.#heardOf.clear()
    this.#repairs.clear()
    this.#list(nodeKey(this.#options.state.self), this.#told)
  }

  /** Asks the other storage nodes of the epoch until all have told or another one begins. */
  async gather(others: readonly SdNode[]): Promise<void> {
    const round = this.#round
    if (round === undefined) return
    await Promise.all(others.map((node) => this.#ask(round, node)))
    if (this.#round !== round) return
    this.#round = undefined
    if (this.#open.size > 0) {
      this.#options.log.info('suspects', { epoch: round.epoch, objects: this.#open.size })
    }
    for (const then of round.waiting) then()
  }

  /** Runs `then` once everybody's lists of this epoch are known. */
  whenGathered(then: () => void): void {
    if (this.#round === undefined) then()
    else this.#round.waiting.push(then)
  }

  /** The answer to GET_SUSPECTS; undefined when this node is not in that epoch. */
  toldIn(epoch: number): readonly Oid[] | undefined {
    return epoch === this.#options.state.epoch ? this.#told : undefined
  }

  /** During an epoch: a write failed on some copies. `done` once that is on record. */
  distrust(oid: Oid, done: (code: Code) => void): void {
    if (this.#repairs.has(oid)) this.#repairs.set(oid, 'doubted')
    this.#hold(oid, done)
  }

  /** The same where there is no copy, which may be about to be fetched. */
  distrustOthers(oid: Oid): void {
    this.#listed.set(oid, 'all')
    this.#heardOf.add(oid)
  }

  /**
   * Writes that come from now on wait. Those that came before are carried out as soon as they are on record, which is
   * before this is: so all owners carry them out, or none, before anybody compares.
   */
  #hold(oid: Oid, done: (code: Code) => void): void {
    const wasOpen = this.#open.has(oid)
    this.#open.add(oid)
    this.#closed.delete(oid)
    this.#lent.delete(oid)
    if (!this.#listed.has(oid)) this.#listed.set(oid, 'all')
    this.#options.inFlight.hold(oid, (code) => {
      if (code === Code.SUCCESS) {
        this.#heardOf.add(oid)
        this.#options.added(oid)
      } else if (!wasOpen) this.#open.delete(oid)
      done(code)
    })
  }

  /**
   * Somebody who looked at all copies says that the one on `source`, an owner, is right. Where a comparison is due
   * already, that decides. `done` as above.
   */
  repair(oid: Oid, source: NodeKey, done: (code: Code) => void): void {
    const { state } = this.#options
    const keys = state.owners(oid, oidVid(oid)).map(nodeKey)
    const others = keys.filter((key) => key !== source)
    if (!this.#open.has(oid)) {
      this.#listed.set(oid, new Set(others))
      this.#repairs.set(oid, 'asked')
    }
    this.#hold(oid, done)
  }

  /** The copy here is waiting for the one somebody named: who compares with it must not wait for that. */
  isBeingRepaired(oid: Oid): boolean {
    return this.#repairs.has(oid)
  }

  /** The named copy waits for another one itself. What has been taken over stays; the rest is as before, or up to the common rule. */
  giveUpRepair(oid: Oid): void {
    const repair = this.#repairs.get(oid)
    this.#repairs.delete(oid)
    if (repair === 'doubted') this.#listed.set(oid, 'all')
    if (repair !== 'asked') return
    this.#listed.delete(oid)
    this.equal(oid)
  }

  /** The copy here is the one all have or will have. */
  equal(oid: Oid): void {
    this.#repairs.delete(oid)
    if (!this.#open.delete(oid)) return
    // What came up since is on record with every owner until it has been compared there.
    if (this.#isGathered) this.#options.inFlight.release(oid)
    else this.#closed.add(oid)
  }

  /** The object has been removed. */
  forget(oid: Oid): void {
    this.#open.delete(oid)
    this.#closed.delete(oid)
    this.#listed.delete(oid)
    this.#repairs.delete(oid)
    this.#options.inFlight.forget(oid)
  }

  /** Every node has finished the epoch's recovery. */
  gathered(): void {
    this.#isGathered = true
    for (const oid of this.#closed) this.#options.inFlight.release(oid)
    this.#closed.clear()
    this.#listed.clear()
    for (const oid of this.#repairs.keys()) this.#repairs.set(oid, 'doubted')
    for (const oid of [...this.#open]) {
      if (this.#options.isHere(oid)) this.#listed.set(oid, 'all')
      else this.forget(oid)
    }
  }

  /** The node ends: nobody waits for anybody's list any more. */
  stop(): void {
    this.#ended = true
    const waiting = this.#round?.waiting ?? []
    this.#round = undefined
    for (const then of waiting) then()
  }

  /** No copy here counts: the cluster was formatted, or went on without this node. */
  async reset(): Promise<void> {
    this.#open.clear()
    this.#closed.clear()
    this.#listed.clear()
    this.#heardOf.clear()
    this.#repairs.clear()
    this.#told = []
    await this.#options.inFlight.reset()
  }

  async #ask(round: Round, node: SdNode): Promise<void> {
    while (this.#round === round) {
      const oids = await this.#listOf(round, node)
      if (oids === undefined) {
        await new Promise<void>((resolve) => {
          this.#options.clock.after(RETRY_MS, resolve)
        })
        continue
      }
      if (this.#round === round) this.#heard(nodeKey(node), oids)
      return
    }
  }

  async #listOf({ epoch }: Round, node: SdNode): Promise<Oid[] | undefined> {
    const { peers, log } = this.#options
    const head = objectRequest({
      opcode: Op.GET_SUSPECTS,
      oid: inodeOid(0 as Vid),
      targetEpoch: epoch,
      dataLength: SUSPECTS_MAX * 8,
    })
    try {
      const reply = await peers.call(node, head)
      if (reply.result === Code.SUCCESS) return decodeOids(reply.body)
      // A sheep of 1.0 keeps no such list.
      if (reply.result === Code.INVALID_PARMS) return []
      log.debug('suspects.refused', { node: nodeKey(node), result: reply.result })
    } catch (error) {
      log.debug('suspects.unreachable', { node: nodeKey(node), reason: String(error) })
    }
    return undefined
  }

  #heard(key: NodeKey, oids: readonly Oid[]): void {
    const { state, isHere, inFlight } = this.#options
    this.#list(key, oids)
    for (const oid of oids) {
      if (!isHere(oid)) continue
      // What is here of a coded object is what this node owns, also while there are too few zones for it.
      const isOwner =
        state.codingOf(oid) !== 0 ||
        state.owners(oid, oidVid(oid)).some((node) => state.isSelf(node))
      if (!isOwner) continue
      this.#open.add(oid)
      this.#closed.delete(oid)
      inFlight.hold(oid, (code) => this.#recorded(oid, code))
    }
  }

  #recorded(oid: Oid, code: Code): void {
    if (code === Code.SUCCESS) return
    this.#options.log.warn('suspect.unrecorded', { oid: oidName(oid), reason: codeName(code) })
  }

  #list(key: NodeKey, oids: readonly Oid[]): void {
    for (const oid of oids) {
      this.#heardOf.add(oid)
      const nodes = this.#listed.get(oid)
      if (nodes === undefined) this.#listed.set(oid, new Set([key]))
      else if (nodes !== 'all') nodes.add(key)
    }
  }
}
