/**
 * Where the fragment of a coded object comes from: layout by layout backwards (see `layouts.ts`), from the node
 * that had it then, or from any `data` others by decoding.
 *
 * The rule of replicas holds for fragments as it stands. A write is acknowledged only when every owner of its
 * epoch has its fragment. So when one living owner of a layout lacks its own, nothing was acknowledged under that
 * layout, and what the one before knew is as good. When fewer than `data` owners are left and all that live have
 * theirs, nobody can tell: the object waits for the others instead of going back in time.
 *
 * The search ends with the layout of the newest gathered epoch: by then everybody who was there had everything. An owner under
 * that layout who was not there (there may have been fewer zones than fragments) may lack what exists, and its lack
 * proves nothing.
 *
 * `sheep -W` changes nothing here. A copy that is found anywhere is at least a copy; fragments found anywhere need not
 * belong together, and what is decoded from a mixture was never written by anybody.
 *
 * Fragments read one after the other may differ by writes that are under way. Such a write needs this node too:
 * it waits here for the fragment and overwrites what was mixed.
 */
import { Code, SheepError, toCode } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import type { StripMath } from '../../base/strips.js'
import type { ErasureCode } from '../../model/erasure.js'
import { type NodeKey, nodeKey, type SdNode } from '../../model/node.js'
import {
  type FragmentId,
  fragmentId,
  fragmentOf,
  objectOf,
  oidName,
  oidVid,
  type StoredId,
} from '../../model/oid.js'
import { ownersOf } from '../../model/ring.js'
import type { ObjectStore } from '../../store/object-store.js'
import { Flag, Op } from '../../wire/sheepdog/opcodes.js'
import { objectRequest } from '../../wire/sheepdog/requests.js'
import { codeFor } from '../coding.js'
import type { Layouts } from '../layouts.js'
import { type EpochRange, newestIn } from '../local-objects.js'
import type { Peers } from '../peers.js'
import type { NodeState, View } from '../state.js'
import type { Witness } from '../witness.js'
import { collect, type Part, partsOf } from './pieces.js'

export interface CodedFetcherOptions {
  readonly state: NodeState
  readonly store: ObjectStore
  readonly layouts: Layouts
  readonly witness: Witness
  readonly peers: Peers
  readonly log: Log
  readonly strips?: StripMath | undefined
}

/** One fragment to be had under the membership of `epoch`. */
export interface WantedFragment {
  readonly id: FragmentId
  readonly epoch: number
  /** False: the object has been removed meanwhile, and nothing must bring it back. */
  readonly isWanted: () => boolean
  /** Writes to it were cut off while this node may have been away: its own older fragment may not fit. */
  readonly isDoubtful?: boolean
}

type Found = 'found' | 'absent' | 'removed' | 'unknown' | 'unreachable'

/** The fragments of one layout: who was to have which, in the order of their index. */
interface Place {
  readonly wanted: WantedFragment
  readonly code: ErasureCode
  readonly owners: readonly SdNode[]
  /** Labels a copy of this layout can have. */
  readonly range: EpochRange
  /** Whose lack of a fragment proves that nothing was acknowledged; every owner's, when not given. */
  readonly witnesses?: ReadonlySet<NodeKey> | undefined
}

/**
 * What a node says about its fragment. 'silent': it cannot tell, because it lost a disk or was not there. 'later': it is still to be
 * had, or what is there may be written yet.
 */
type Presence = 'present' | 'absent' | 'removed' | 'unreachable' | 'gone' | 'silent' | 'later'

export class CodedFetcher {
  readonly #options: CodedFetcherOptions
  /** As for replicas: the newest epoch an administrator forced; 0: none. */
  forced = 0
  /** Looked for in vain, in `epoch`. */
  readonly #nowhere = { epoch: 0, ids: new Set<FragmentId>() }

  constructor(options: CodedFetcherOptions) {
    this.#options = options
  }

  /** A search of this epoch found that no such fragment was ever acknowledged. */
  isNowhere(id: StoredId): boolean {
    const { epoch, ids } = this.#nowhere
    return epoch === this.#options.state.epoch && ids.has(id as FragmentId)
  }

  /** As the `Fetcher` of replicas. Rejects with a SheepError of this node's disk. */
  async fetch(wanted: WantedFragment, oldest: number): Promise<Code> {
    const code = await this.#fetch(wanted, oldest)
    if (code !== Code.NO_OBJ) return code
    const nowhere = this.#nowhere
    if (nowhere.epoch !== wanted.epoch) nowhere.ids.clear()
    nowhere.epoch = wanted.epoch
    nowhere.ids.add(wanted.id)
    return code
  }

  async #fetch(wanted: WantedFragment, oldest: number): Promise<Code> {
    const { state, layouts, log } = this.#options
    const { id, epoch } = wanted
    const code = codeFor(state.codingOf(id), this.#options.strips)
    if (code === undefined) return Code.INVALID_PARMS
    for (let to = epoch; to >= oldest; ) {
      const layout: View | 'none' | 'unknown' = await layouts.at(to, code.width)
      if (layout === 'unknown') return Code.NETWORK_ERROR
      if (layout === 'none') return Code.NO_OBJ
      const owners = ownersOf(layout.ring, objectOf(id), code.width)
      // A fragment that was this node's in later layouts as well carries their label. Nothing was acknowledged under
      // them, or the search would not have come here: it is as good as one that was set aside before.
      const range = { from: layout.epoch, to: epoch }
      const isLast = layout.epoch <= oldest
      const witnesses = isLast ? await layouts.membersOf(oldest) : undefined
      if (isLast && witnesses === undefined) return Code.NETWORK_ERROR
      const found = await this.#fromLayout({ wanted, code, owners, range, witnesses })
      if (found === 'found') return Code.SUCCESS
      if (found === 'removed') return Code.NO_OBJ
      if (found === 'unreachable' || state.epoch !== epoch) return Code.NETWORK_ERROR
      if (found === 'unknown' && layout.epoch >= this.forced) {
        log.error('object.holders.gone', { oid: oidName(id), epoch: layout.epoch })
        return Code.STALE_OBJ
      }
      to = layout.epoch - 1
    }
    return Code.NO_OBJ
  }

  async #fromLayout(place: Place): Promise<Found> {
    const { code, owners, witnesses } = place
    const told = await Promise.all(owners.map((_, index) => this.#ask(place, index)))
    const answers = told.map((answer, index): Presence => {
      const isWitness = witnesses?.has(nodeKey(owners[index]!)) ?? true
      return answer === 'absent' && !isWitness ? 'silent' : answer
    })
    if (answers.includes('removed')) return 'removed'
    const present = answers.flatMap((answer, index) => (answer === 'present' ? [index] : []))
    if (present.length >= code.strips.data) {
      const outcome = await this.#take(place, present)
      if (outcome === Code.SUCCESS) return 'found'
      return outcome === Code.NOT_FOUND ? 'removed' : 'unreachable'
    }
    if (answers.includes('unreachable')) return 'unreachable'
    return answers.includes('absent') ? 'absent' : 'unknown'
  }

  /** A read of nothing tells whether it is there. */
  async #ask(place: Place, index: number, flags = 0): Promise<Presence> {
    const { state } = this.#options
    const node = place.owners[index]!
    if (state.isSelf(node)) {
      if (this.#ownLabel(place, index) !== undefined) return 'present'
      return this.#options.witness.knows(place.range.from) ? 'absent' : 'silent'
    }
    if (!this.#lives(node)) return 'gone'
    const reply = await this.#read(place, index, { offset: 0, length: 0 }, flags)
    if (reply.code === Code.SUCCESS) return 'present'
    if (reply.code === Code.AGAIN) return 'later'
    if (reply.code === Code.NOT_FOUND) return 'removed'
    if (reply.code === Code.STALE_OBJ) return 'silent'
    return reply.code === Code.NO_OBJ ? 'absent' : 'unreachable'
  }

  #lives(node: SdNode): boolean {
    const key: NodeKey = nodeKey(node)
    return this.#options.state.members.some((member) => nodeKey(member) === key)
  }

  /** Epoch of this node's own copy of one index, 'working', or undefined. */
  #ownLabel({ wanted, range }: Place, index: number): number | 'working' | undefined {
    const id = fragmentId(objectOf(wanted.id), index)
    if (this.#options.store.has(id)) return 'working'
    return newestIn(this.#options.store.staleEpochs(id), range)
  }

  /** Brings the fragment here: by name, from whoever has it, or decoded. */
  async #take(place: Place, present: readonly number[]): Promise<Code> {
    const { state, store } = this.#options
    const { wanted, code } = place
    const index = fragmentOf(wanted.id)
    const stillWanted = (): boolean => state.epoch === wanted.epoch && wanted.isWanted()
    const label = this.#ownLabel(place, index)
    const others = present.filter((one) => one !== index)
    const isOthersWord = wanted.isDoubtful === true && others.length >= code.strips.data
    if (!isOthersWord && typeof label === 'number' && state.isSelf(place.owners[index]!)) {
      const restored = await store.restoreStale(wanted.id, label, stillWanted)
      if (restored === Code.SUCCESS || restored === Code.NETWORK_ERROR) return restored
      throw new SheepError(restored)
    }
    const bytes = this.#bytesOf(wanted.id, code)
    const isThere = present.includes(index) && !isOthersWord
    const needed = isThere ? [index] : others.slice(0, code.strips.data)
    // What has been created here meanwhile is newer, unless it is what has to be replaced.
    const isNewer = (): boolean => wanted.isDoubtful !== true && store.has(wanted.id)
    const isWanted = (): boolean => stillWanted() && !isNewer()
    const read = (part: Part): Promise<Uint8Array | Code> => this.#content(place, needed, part)
    const got = await collect({ store, id: wanted.id, bytes, read, stillWanted: isWanted })
    if ('theirs' in got) return got.theirs
    if (got.ours === Code.SUCCESS || got.ours === Code.NETWORK_ERROR) return got.ours
    throw new SheepError(got.ours)
  }

  /**
   * The fragment that is here may not fit the others, because a write was cut off: those of the first `data` owners
   * that have theirs are right, whatever of the write they have, and the others are made from them. Only when all have
   * theirs who can: those that are still being brought may come from older fragments, which fit nothing that is here. AGAIN
   * until then.
   */
  async reconcile(wanted: WantedFragment): Promise<{ code: Code; isFinal: boolean }> {
    const { state, layouts } = this.#options
    const coding = codeFor(state.codingOf(wanted.id), this.#options.strips)
    if (coding === undefined) return { code: Code.INVALID_PARMS, isFinal: false }
    const layout = await layouts.at(wanted.epoch, coding.width)
    if (typeof layout === 'string') return { code: Code.NETWORK_ERROR, isFinal: false }
    const owners = ownersOf(layout.ring, objectOf(wanted.id), coding.width)
    const range = { from: layout.epoch, to: wanted.epoch }
    const place: Place = { wanted, code: coding, owners, range }
    const answers = await Promise.all(
      owners.map((_, index) => this.#ask(place, index, Flag.COMPARES)),
    )
    if (answers.includes('removed')) return { code: Code.NO_OBJ, isFinal: false }
    if (answers.includes('unreachable')) return { code: Code.NETWORK_ERROR, isFinal: false }
    if (answers.includes('later')) return { code: Code.AGAIN, isFinal: false }
    const isFinal = !answers.includes('gone')
    const present = answers.flatMap((answer, index) => (answer === 'present' ? [index] : []))
    const right = present.slice(0, coding.strips.data)
    if (right.length < coding.strips.data || right.includes(fragmentOf(wanted.id))) {
      return { code: Code.SUCCESS, isFinal }
    }
    for (const part of partsOf(this.#bytesOf(wanted.id, coding))) {
      const code = await this.#reconcilePart(place, right, part)
      if (code !== Code.SUCCESS) return { code, isFinal }
    }
    return { code: Code.SUCCESS, isFinal }
  }

  async #reconcilePart(place: Place, right: readonly number[], part: Part): Promise<Code> {
    const { state, store } = this.#options
    const { wanted } = place
    const [data, own] = [await this.#content(place, right, part), Buffer.allocUnsafe(part.length)]
    if (typeof data === 'number') return data
    const result = await new Promise<Code>((resolve) =>
      store.read(wanted.id, part.offset, own, resolve),
    )
    if (state.epoch !== wanted.epoch) return Code.OLD_NODE_VER
    if (!wanted.isWanted()) return Code.NO_OBJ
    if (result !== Code.SUCCESS || own.equals(data)) return result
    return new Promise<Code>((resolve) =>
      store.write(wanted.id, part.offset, data, { durable: true }, resolve),
    )
  }

  /** A part of the wanted fragment from those named: as it is, or made from `data` of them. */
  async #content(place: Place, needed: readonly number[], part: Part): Promise<Uint8Array | Code> {
    const { wanted, code } = place
    const index = fragmentOf(wanted.id)
    const replies = await Promise.all(needed.map((one) => this.#read(place, one, part)))
    const fragments: (Uint8Array | undefined)[] = []
    for (const [at, { code: result, body }] of replies.entries()) {
      if (result !== Code.SUCCESS) return result === Code.NO_OBJ ? Code.NETWORK_ERROR : result
      fragments[needed[at]!] = body
    }
    return fragments[index] ?? code.rebuild(index, fragments)
  }

  /** A part of a fragment from its owner in a layout; this node's own from its disk. */
  async #read(
    place: Place,
    index: number,
    part: Part,
    flags = 0,
  ): Promise<{ code: Code; body: Buffer }> {
    const { state, peers } = this.#options
    const node = place.owners[index]!
    if (state.isSelf(node)) return this.#readOwn(place, index, part)
    const { wanted, range } = place
    const head = objectRequest({
      opcode: Op.READ_PEER,
      flags: Flag.RECOVERY | flags,
      epoch: wanted.epoch,
      oid: objectOf(wanted.id),
      copies: place.code.width,
      policy: state.codingOf(wanted.id),
      fragment: index,
      sinceEpoch: range.from,
      targetEpoch: range.to,
      offset: part.offset,
      dataLength: part.length,
    })
    const reply = await peers.call(node, head).catch(() => undefined)
    const body = reply?.body ?? Buffer.alloc(0)
    if (reply === undefined) return { code: Code.NETWORK_ERROR, body }
    const isShort = reply.result === Code.SUCCESS && body.length !== part.length
    return { code: isShort ? Code.NETWORK_ERROR : toCode(reply.result), body }
  }

  async #readOwn(
    place: Place,
    index: number,
    { offset, length }: Part,
  ): Promise<{ code: Code; body: Buffer }> {
    const { store } = this.#options
    const id = fragmentId(objectOf(place.wanted.id), index)
    const body = Buffer.alloc(length)
    const label = this.#ownLabel(place, index)
    if (label === undefined) return { code: Code.NO_OBJ, body }
    if (label === 'working') {
      const code = await new Promise<Code>((resolve) => store.read(id, offset, body, resolve))
      return { code, body }
    }
    return { code: await store.readStale(id, label, offset, body), body }
  }

  #bytesOf(id: FragmentId, code: ErasureCode): number {
    return code.share(2 ** this.#options.state.blockSizeShiftOf(oidVid(id)))
  }
}
