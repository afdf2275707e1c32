/**
 * Where the fragments of coded objects are. Fragment i is on owner i of the ring, of a ring with a zone for every
 * fragment: while there are fewer zones than fragments nothing of a coded object is written or created (defect
 * P10), and its fragments stay where the newest sufficient epoch has put them. Sheepdog 1.0 lets the indexes of
 * the remaining owners close up instead, which moves nearly every fragment when a node goes and again when it
 * comes back (O13).
 *
 * So the content of coded objects changes in epochs with enough zones only: the copy a node has of a later, too
 * small epoch is as good as one of the epoch that put it there.
 */

import { type NodeKey, nodeKey, type SdNode } from '../model/node.js'
import { fragmentId, type Oid, oidVid, type StoredId } from '../model/oid.js'
import { stripsOf } from '../model/policy.js'
import { ownersOf } from '../model/ring.js'
import type { EpochRings } from './recovery/epoch-rings.js'
import type { NodeState, View } from './state.js'

/** A membership with a zone for every fragment; 'none': there has not been any; 'unknown': ask again later. */
export type Layout = View | 'none' | 'unknown'

/** Under which id this node is to hold an object; undefined: it is not. */
export type Holdings = (oid: Oid) => StoredId | undefined

export class Layouts {
  readonly #state: NodeState
  readonly #rings: EpochRings
  /** What `at` found for the current view when that has too few zones, by width. */
  readonly #found = new Map<number, View | 'none'>()
  #foundFor: View | undefined

  constructor(state: NodeState, rings: EpochRings) {
    this.#state = state
    this.#rings = rings
  }

  /** Of objects with `width` fragments, now. Undefined when history must be asked: use `at`. */
  now(width: number): View | 'none' | undefined {
    const { view } = this.#state
    if (view.ring.zones >= width) return view
    return this.#foundFor === view ? this.#found.get(width) : undefined
  }

  /** The newest sufficient membership that is not newer than `epoch`. */
  async at(epoch: number, width: number): Promise<Layout> {
    const { view } = this.#state
    const known = epoch === view.epoch ? this.now(width) : undefined
    if (known !== undefined) return known
    const found = await this.#search(epoch, width)
    if (found !== 'unknown' && epoch === view.epoch && this.#state.view === view) {
      if (this.#foundFor !== view) this.#found.clear()
      this.#foundFor = view
      this.#found.set(width, found)
    }
    return found
  }

  async #search(from: number, width: number): Promise<Layout> {
    for (let epoch = from; epoch > 0; epoch--) {
      const ring = await this.#rings.of(epoch)
      if (ring === undefined) return 'unknown'
      if (ring.zones >= width) return { epoch, ring }
    }
    return 'none'
  }

  /** Who was in an epoch; undefined: ask again later. */
  async membersOf(epoch: number): Promise<ReadonlySet<NodeKey> | undefined> {
    const ring = await this.#rings.of(epoch)
    return ring === undefined ? undefined : new Set(ring.nodes.map(nodeKey))
  }

  /** What this node is to hold in `epoch`. A layout nobody knows gives it nothing. */
  async holdings(epoch: number): Promise<Holdings> {
    const layouts = new Map<number, Layout>()
    for (const width of this.#widths()) layouts.set(width, await this.at(epoch, width))
    const ring = await this.#rings.of(epoch)
    return (oid) => {
      const strips = stripsOf(this.#state.codingOf(oid))
      const copies = this.#state.copiesOf(oidVid(oid))
      if (strips === undefined) {
        return ring !== undefined && this.#indexIn(ownersOf(ring, oid, copies)) >= 0
          ? oid
          : undefined
      }
      const width = strips.data + strips.parity
      const layout = layouts.get(width) ?? this.now(width)
      if (layout === undefined || typeof layout === 'string') return undefined
      const index = this.#indexIn(ownersOf(layout.ring, oid, width))
      return index < 0 ? undefined : fragmentId(oid, index)
    }
  }

  #indexIn(owners: readonly SdNode[]): number {
    return owners.findIndex((node) => this.#state.isSelf(node))
  }

  #widths(): Set<number> {
    const { vids, settings } = this.#state
    const policies = new Set([
      settings.policy,
      ...[...vids.all()].map(({ vid }) => this.#state.policyOf(vid)),
    ])
    const strips = [...policies].map(stripsOf).filter((one) => one !== undefined)
    return new Set(strips.map(({ data, parity }) => data + parity))
  }
}
