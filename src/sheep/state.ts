/** What a node knows of its cluster, and the view of it that requests run under. */
import { type NodeKey, nodeKey, type SdNode } from '../model/node.js'
import { type Oid, oidKind, oidVid, type StoredId, type Vid } from '../model/oid.js'
import { isPossiblePolicy } from '../model/policy.js'
import { buildRing, ownersOf, type Ring } from '../model/ring.js'
import { ClusterFlag } from '../wire/sheepdog/opcodes.js'
import type { ClusterStatus } from '../wire/sheepdog/records.js'
import { Lost } from './lost.js'
import { VidTable } from './vid-table.js'

export interface Settings {
  /** 0: the cluster has not been formatted. */
  readonly ctime: bigint
  readonly flags: number
  readonly copies: number
  readonly policy: number
  readonly blockSizeShift: number
  readonly store: string
  readonly recoveryDisabled: boolean
}

/** A membership as placement sees it; never changes, a new epoch brings a new one. */
export interface View {
  readonly epoch: number
  readonly ring: Ring
}

export const UNFORMATTED: Settings = {
  ctime: 0n,
  flags: ClusterFlag.AUTO_VNODES,
  copies: 0,
  policy: 0,
  blockSizeShift: 0,
  store: '',
  recoveryDisabled: false,
}

const COPIES_DEFAULT = 3
const BLOCK_SIZE_SHIFT_DEFAULT = 22

export class NodeState {
  /** As announced; changes with the event that tells everybody. */
  self: SdNode
  readonly selfKey: NodeKey
  readonly vids = new VidTable()
  /** What this node had and lost. */
  readonly lost = new Lost()
  status: ClusterStatus = 'wait'
  settings: Settings = UNFORMATTED
  /** False: the others may have gone on without this node, nothing may be served (lease.ts). */
  isSure: () => boolean = () => true
  /** Everybody who is in now, sorted, as announced. */
  members: readonly SdNode[] = []
  /** The nodes of the newest epoch that was logged, with their computed vnodes. */
  epochNodes: readonly SdNode[] = []
  #view: View
  readonly #viewWaiters = new Set<{ readonly fn: () => void }>()

  constructor(self: SdNode) {
    this.self = self
    this.selfKey = nodeKey(self)
    this.#view = { epoch: 0, ring: buildRing([]) }
  }

  /** Keeps of `of` what Settings has. */
  takeSettings(of: Settings): void {
    const { ctime, flags, copies, policy, blockSizeShift, store, recoveryDisabled } = of
    this.settings = { ctime, flags, copies, policy, blockSizeShift, store, recoveryDisabled }
  }

  get view(): View {
    return this.#view
  }

  get epoch(): number {
    return this.#view.epoch
  }

  get formatted(): boolean {
    return this.settings.ctime !== 0n
  }

  has(flag: number): boolean {
    return (this.settings.flags & flag) !== 0
  }

  isSelf(node: Pick<SdNode, 'host' | 'port'>): boolean {
    return nodeKey(node) === this.selfKey
  }

  /** Requests see this membership from now on; those that waited for it run again. */
  setView(epoch: number, nodes: readonly SdNode[]): void {
    this.#view = { epoch, ring: buildRing(nodes, this.#view.ring) }
    this.epochNodes = nodes
    this.wakeViewWaiters()
  }

  /** Runs `fn` once, after the next change of the view; the returned function calls it off. */
  afterViewChange(fn: () => void): () => void {
    const waiter = { fn }
    this.#viewWaiters.add(waiter)
    return () => this.#viewWaiters.delete(waiter)
  }

  /** Lets everything that waits for another view look again. */
  wakeViewWaiters(): void {
    const waiters = [...this.#viewWaiters]
    this.#viewWaiters.clear()
    for (const waiter of waiters) waiter.fn()
  }

  copiesOf(vid: Vid): number {
    return this.vids.get(vid)?.copies || this.settings.copies || COPIES_DEFAULT
  }

  /** Of its owners in an earlier epoch the first so many had every write. */
  leastCopiesOf(vid: Vid): number {
    return this.vids.get(vid)?.leastCopies ?? this.copiesOf(vid)
  }

  /** Policy byte of a volume; one that cannot be counts as replication: nobody opens such a volume. */
  policyOf(vid: Vid): number {
    const known = this.vids.get(vid)
    const policy = known === undefined ? this.settings.policy : known.policy
    return policy === 0 || isPossiblePolicy(policy) ? policy : 0
  }

  /** Policy byte by which an object is stored: inodes, B-trees and ledgers are always replicated. */
  codingOf(oid: StoredId): number {
    const policy = this.policyOf(oidVid(oid))
    if (policy === 0) return 0
    const kind = oidKind(oid)
    return kind === 'data' || kind === 'vmstate' || kind === 'attribute' ? policy : 0
  }

  blockSizeShiftOf(vid: Vid): number {
    return (
      this.vids.get(vid)?.blockSizeShift || this.settings.blockSizeShift || BLOCK_SIZE_SHIFT_DEFAULT
    )
  }

  owners(oid: Oid, vid: Vid): SdNode[] {
    return ownersOf(this.#view.ring, oid, this.copiesOf(vid))
  }
}
