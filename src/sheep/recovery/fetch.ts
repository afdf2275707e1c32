/**
 * Where the copy of an object comes from: epoch by epoch backwards, from the owners it had then.
 *
 * Which copy is right. A write is acknowledged only when every owner of its epoch has it. So when one
 * living owner of epoch E lacks an object, no write to it was acknowledged in E, and what E-1 knew is as
 * good. When all owners of E are gone nobody can tell; then an older copy is not used and the object stays
 * unavailable until one of them is back, instead of letting old data win silently (defects O20, O23).
 */
import { Code, SheepError, toCode } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import { type NodeKey, nodeKey, type SdNode } from '../../model/node.js'
import { type Oid, objectBytes, oidName, oidVid, vidName } from '../../model/oid.js'
import { ownersOf, type Ring } from '../../model/ring.js'
import type { ObjectStore } from '../../store/object-store.js'
import { Flag, Op } from '../../wire/sheepdog/opcodes.js'
import { decodeHashReply } from '../../wire/sheepdog/replies.js'
import { objectRequest } from '../../wire/sheepdog/requests.js'
import type { Suspects } from '../equal/suspects.js'
import type { Peers } from '../peers.js'
import type { NodeState } from '../state.js'
import type { Witness } from '../witness.js'
import { type EpochRings, otherStorers } from './epoch-rings.js'
import { collect, type Part } from './pieces.js'

/** Complaints about objects that cannot be had, of one epoch. */
const OBJECTS_NAMED_MAX = 20

export interface FetcherOptions {
  readonly state: NodeState
  readonly store: ObjectStore
  readonly rings: EpochRings
  readonly peers: Peers
  readonly suspects: Suspects
  readonly witness: Witness
  readonly log: Log
}

/** One object to be fetched for the membership of `epoch`. */
export interface Wanted {
  readonly oid: Oid
  readonly epoch: number
  /** False: it has been removed meanwhile, and nothing must bring it back. */
  readonly isWanted: () => boolean
}

/** What asking the owners of one epoch gave. */
type Found = 'found' | 'absent' | 'removed' | 'unknown' | 'unreachable'

/** One node that may have the copy of `target`. */
interface Holder {
  readonly node: SdNode
  readonly target: number
}

/** How a node is asked for its copy; which part of it is added. */
type ReadRequest = Omit<Parameters<typeof objectRequest>[0], 'offset' | 'dataLength'>

export class Fetcher {
  readonly #state: NodeState
  readonly #store: ObjectStore
  readonly #rings: EpochRings
  readonly #peers: Peers
  readonly #suspects: Suspects
  readonly #witness: Witness
  readonly #log: Log
  /**
   * The newest epoch an administrator forced; 0: none. That all owners of an earlier one are gone does not hold
   * an object up any more: what they alone had was given up then.
   */
  forced = 0
  #told = { epoch: 0, oids: 0 }

  constructor(options: FetcherOptions) {
    this.#state = options.state
    this.#store = options.store
    this.#rings = options.rings
    this.#peers = options.peers
    this.#suspects = options.suspects
    this.#witness = options.witness
    this.#log = options.log
  }

  /**
   * SUCCESS: the object is a working one here. NO_OBJ: it does not exist. STALE_OBJ: whoever had the newest
   * copy is gone. NETWORK_ERROR: to be tried again. Rejects with a SheepError of this node's disk. Copies
   * older than `oldest` are not looked for.
   */
  async fetch(wanted: Wanted, oldest: number): Promise<Code> {
    const { oid, epoch } = wanted
    let givenUp: number | undefined
    // What everybody had at `oldest` may be among what was given up: then anything older is better than nothing.
    const isWorthALook = (target: number): boolean => target >= oldest || givenUp !== undefined
    for (let target = epoch; target >= 1 && isWorthALook(target); target--) {
      const ring = await this.#rings.of(target)
      if (ring === undefined && target < oldest) continue
      if (ring === undefined) return Code.NETWORK_ERROR
      const found = await this.#fromEpoch(wanted, target, ring)
      if (found === 'found') {
        if (givenUp !== undefined) this.#tellOlder(oid, target, givenUp)
        return Code.SUCCESS
      }
      if (found === 'removed') return Code.NO_OBJ
      if (found === 'unreachable') return Code.NETWORK_ERROR
      if (found === 'unknown' && target < this.forced) {
        givenUp ??= target
      } else if (found === 'unknown') {
        this.#tellUnavailable(oid, target)
        return Code.STALE_OBJ
      }
      if (this.#state.epoch !== epoch) return Code.NETWORK_ERROR
    }
    if (givenUp !== undefined) {
      this.#log.warn('object.perhaps-lost', { ...objectNames(oid), epoch: givenUp })
    }
    return Code.NO_OBJ
  }

  /** What a forced recovery could not avoid: named object by object, so that its volume can be looked after. */
  #tellOlder(oid: Oid, target: number, givenUp: number): void {
    const epochs = { epoch: target, newestLost: givenUp }
    this.#log.warn('object.older-copy', { ...objectNames(oid), ...epochs })
  }

  /** By name as long as there are few; each is tried again and again. */
  #tellUnavailable(oid: Oid, target: number): void {
    if (this.#told.epoch !== this.#state.epoch) this.#told = { epoch: this.#state.epoch, oids: 0 }
    if (++this.#told.oids > OBJECTS_NAMED_MAX) return
    this.#log.error('object.holders.gone', { oid: oidName(oid), epoch: target })
  }

  async #fromEpoch(wanted: Wanted, target: number, ring: Ring): Promise<Found> {
    const { oid, epoch } = wanted
    const owners = ownersOf(ring, oid, this.#state.copiesOf(oidVid(oid)))
    const living = new Set<NodeKey>(this.#state.members.map(nodeKey))
    const sure = owners.slice(0, this.#state.leastCopiesOf(oidVid(oid)))
    let absent = false
    let unreachable = false
    if (owners.some((node) => this.#state.isSelf(node))) {
      if (target !== epoch && this.#store.staleEpochs(oid).includes(target)) {
        const code = await this.#store.restoreStale(oid, target, this.#stillWanted(wanted))
        if (code === Code.SUCCESS) return 'found'
        throw new SheepError(code)
      }
      absent = this.#witness.knows(target) && sure.some((node) => this.#state.isSelf(node))
    }
    for (const node of this.#surestFirst(oid, owners)) {
      if (this.#state.isSelf(node) || !living.has(nodeKey(node))) continue
      const code = await this.#take(wanted, { node, target })
      if (code === Code.SUCCESS) return 'found'
      if (code === Code.NOT_FOUND) return 'removed'
      if (code === Code.NO_OBJ) absent ||= sure.includes(node)
      // It lost a disk since and cannot tell: as if it were gone.
      else if (code !== Code.STALE_OBJ) unreachable = true
    }
    if (unreachable) return 'unreachable'
    // In an epoch without storage there was nothing to write to.
    return absent || owners.length === 0 ? 'absent' : 'unknown'
  }

  /**
   * Asks every member for every epoch's copy, newest first, whoever should have it: what was placed by a history that
   * is wrong is found as well (`sheep -W`). The price: what nobody has counts as never written.
   */
  async fetchFromAnybody(wanted: Wanted, oldest: number): Promise<Code> {
    const { oid, epoch } = wanted
    for (let target = epoch; target >= oldest; target--) {
      const isHere = target !== epoch && this.#store.staleEpochs(oid).includes(target)
      if (isHere)
        return orThrow(await this.#store.restoreStale(oid, target, this.#stillWanted(wanted)))
      for (const node of otherStorers(this.#state, this.#state.epochNodes)) {
        const code = await this.#take(wanted, { node, target }, Flag.WILDCARD)
        if (code === Code.SUCCESS) {
          this.#log.info('object.found', { oid: oidName(oid), epoch: target, on: nodeKey(node) })
          return code
        }
        if (code === Code.NOT_FOUND) return Code.NO_OBJ
        if (code !== Code.NO_OBJ && code !== Code.STALE_OBJ) return Code.NETWORK_ERROR
      }
    }
    return Code.NO_OBJ
  }

  /** Copies that may differ: those of nodes that do not doubt their own may have been read already. */
  #surestFirst(oid: Oid, owners: readonly SdNode[]): SdNode[] {
    const doubtful = (node: SdNode): number => (this.#suspects.isDoubtful(oid, node) ? 1 : 0)
    return [...owners].sort((a, b) => doubtful(a) - doubtful(b))
  }

  /** Gets the copy of the owner whose copy is right; it answers once it has it. */
  async fetchFrom(wanted: Wanted, node: SdNode): Promise<Code> {
    const { oid, epoch } = wanted
    // On a disk that is nearly full there may be no room beside the copy of before.
    const linked = await this.#linkSame(wanted, { node, target: epoch }, Flag.COMPARES)
    if (linked !== undefined) return linked
    this.#needRoom(oid)
    return this.#keep(wanted, node, { opcode: Op.READ_PEER, epoch, oid })
  }

  /** Our copy of an earlier epoch becomes the working one when it has the same bytes; undefined: it has not. */
  async #linkSame(wanted: Wanted, holder: Holder, flags = 0): Promise<Code | undefined> {
    const { oid } = wanted
    const stale = this.#store.staleEpochs(oid)[0]
    if (stale === undefined || !(await this.#isSame(wanted, holder, stale, flags))) return undefined
    if (!wanted.isWanted()) return Code.NO_OBJ
    const code = await this.#store.restoreStale(oid, stale, this.#stillWanted(wanted))
    // Without the file the copy comes as bytes.
    return code === Code.NO_OBJ ? undefined : orThrow(code)
  }

  /** Gets one node's copy: by name when ours of an earlier epoch has the same bytes, else as a whole. */
  async #take(wanted: Wanted, holder: Holder, flags = 0): Promise<Code> {
    const { oid } = wanted
    const linked = await this.#linkSame(wanted, holder)
    if (linked !== undefined) return linked
    this.#needRoom(oid)
    return this.#keep(wanted, holder.node, {
      opcode: Op.READ_PEER,
      flags: Flag.RECOVERY | flags,
      epoch: wanted.epoch,
      oid,
      targetEpoch: holder.target,
    })
  }

  /** Nobody sends what cannot be kept, over and over. */
  #needRoom(oid: Oid): void {
    if (!this.#store.hasRoom(oid, this.#bytesOf(oid))) throw new SheepError(Code.NO_SPACE)
  }

  /** A whole object as another node answers `request` becomes the working one here. */
  async #keep(wanted: Wanted, node: SdNode, request: ReadRequest): Promise<Code> {
    const { oid } = wanted
    const read = async ({ offset, length }: Part): Promise<Uint8Array | Code> => {
      const head = objectRequest({ ...request, offset, dataLength: length })
      const reply = await this.#peers.call(node, head).catch(() => undefined)
      if (reply === undefined) return Code.NETWORK_ERROR
      if (reply.result !== Code.SUCCESS) return toCode(reply.result)
      if (reply.body.length !== length) return Code.NETWORK_ERROR
      return wanted.isWanted() ? reply.body : Code.NO_OBJ
    }
    // What has been created here meanwhile is newer, and written to already.
    const isWanted = this.#stillWanted(wanted)
    const stillWanted = (): boolean => isWanted() && !this.#store.has(oid)
    const store = this.#store
    const got = await collect({ store, id: oid, bytes: this.#bytesOf(oid), read, stillWanted })
    return 'theirs' in got ? got.theirs : orThrow(got.ours)
  }

  /** A copy that arrives after the membership changed may not be this node's to keep any more. */
  #stillWanted({ epoch, isWanted }: Wanted): () => boolean {
    return () => this.#state.epoch === epoch && isWanted()
  }

  /** The node is in our epoch when it answers: what it acknowledges afterwards comes here too. */
  async #isSame(
    { oid, epoch }: Wanted,
    { node, target }: Holder,
    stale: number,
    flags: number,
  ): Promise<boolean> {
    const head = objectRequest({ opcode: Op.GET_HASH, flags, epoch, oid, targetEpoch: target })
    const reply = await this.#peers.call(node, head).catch(() => undefined)
    if (reply?.result !== Code.SUCCESS) return false
    const own = await this.#store.hashStale(oid, stale, this.#bytesOf(oid))
    return own?.equals(decodeHashReply(reply)) === true
  }

  #bytesOf(oid: Oid): number {
    return objectBytes(oid, this.#state.blockSizeShiftOf(oidVid(oid)))
  }
}

function objectNames(oid: Oid): { readonly oid: string; readonly vdi: string } {
  return { oid: oidName(oid), vdi: vidName(oidVid(oid)) }
}

/** What this node's own disk says is no word about the other's copy. NETWORK_ERROR: it is not wanted any more. */
function orThrow(code: Code): Code {
  if (code === Code.SUCCESS || code === Code.NETWORK_ERROR) return code
  throw new SheepError(code)
}
