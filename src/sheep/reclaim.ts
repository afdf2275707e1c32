/**
 * Gives objects back that no volume names any more (objects spec, section 6).
 *
 * An object of volume v is needed while a living inode has v in the slot of its index. That is looked up
 * in the inodes before anything is removed; the ledgers of generational references are kept as sheepdog
 * 1.0 keeps them, for nodes and tools that go by them, but they never decide. So a count that was applied
 * twice or lost (defects O2, O3) cannot take data away, and cannot keep it for ever either.
 *
 * Of two volumes that drop the last two references at once, each writes its slot durably before it looks,
 * so the later one sees that nobody is left.
 *
 * A volume may write where it has just discarded: the object's name is then created again before its slot
 * is set, and nobody names it at that moment. So a create calls off a removal that has been decided by then
 * but not begun, and waits for one that has.
 */
import { Code, codeName } from '../base/codes.js'
import type { Log } from '../base/log.js'
import {
  encodeTreeHead,
  leafOids,
  loadTree,
  type ReadBytes,
  type Tree,
} from '../model/hyper-tree.js'
import { type InodeHeader, SLOT_BYTES, SLOTS_MAX, slotRange, slotsOf } from '../model/inode.js'
import {
  dataOid,
  ledgerOid,
  type Oid,
  oidKind,
  oidName,
  type Vid,
  vmstateOid,
} from '../model/oid.js'
import type { Files } from '../world/world.js'
import type { Gateway } from './gateway.js'
import type { InodeIo } from './inode-io.js'
import type { Ledgers } from './ledger.js'
import type { NodeState } from './state.js'

/** A copy may be missing here and there after faults: that many in a row are the end. */
const VMSTATE_GAP_MAX = 4

interface ObjectPlace {
  readonly target: Vid
  readonly index: number
}

/** A slot of `referrer` stopped naming object `index` of `target`. */
export interface DroppedRef extends ObjectPlace {
  readonly referrer: Vid
  readonly generation: number
  readonly count: number
}

export interface ReclaimOptions {
  readonly state: NodeState
  readonly gateway: Gateway
  readonly inodes: InodeIo
  readonly ledgers: Ledgers
  readonly files: Files
  readonly log: Log
  /** Where intents that must survive a crash are kept. */
  readonly directory: string
}

/** An object that may have to go. */
interface Doomed {
  readonly oid: Oid
  /** It has been created anew: the removal is off. */
  isBack: boolean
  /** Set while it is being removed: creates that wait for the end of it. */
  waiting: (() => void)[] | undefined
}

export class Reclaim {
  readonly #state: NodeState
  readonly #gateway: Gateway
  readonly #inodes: InodeIo
  readonly #ledgers: Ledgers
  readonly #files: Files
  readonly #log: Log
  readonly #directory: string
  readonly #doomed = new Map<Oid, Doomed>()
  /** Drops are worked off one after the other, behind the requests that caused them. */
  #drops: Promise<void> = Promise.resolve()
  #deletions: Promise<void> = Promise.resolve()
  #waiting = 0

  constructor(options: ReclaimOptions) {
    this.#state = options.state
    this.#gateway = options.gateway
    this.#inodes = options.inodes
    this.#ledgers = options.ledgers
    this.#files = options.files
    this.#log = options.log
    this.#directory = options.directory
  }

  /** References and deleted volumes that wait to be accounted for. */
  get backlog(): number {
    return this.#waiting
  }

  /**
   * Before slots change. The volume an object belongs to usually still names it, and its own deletion
   * will look again; only where it is deleted already may this have been the last reference.
   */
  async aboutToDrop(refs: readonly DroppedRef[]): Promise<void> {
    for (const ref of refs) {
      if (!this.#mayBeLast(ref)) continue
      this.#files.mkdir(this.#directory)
      await this.#files.writeFileAtomic(this.#intentPath(ref), Buffer.alloc(0))
    }
  }

  /** After slots changed durably, before anybody else may know of it. */
  dropped(refs: readonly DroppedRef[]): void {
    for (const ref of refs) {
      const doomed = this.#doom(ref)
      this.#afterDrops(async () => {
        await this.#account(ref)
        await this.#removeUnnamed(ref, doomed)
      })
    }
  }

  /** Runs `create`, which makes the object, when no removal can take away what it makes. */
  beforeCreate(oid: Oid, create: () => void): void {
    const doomed = this.#doomed.get(oid)
    if (doomed?.waiting !== undefined) {
      doomed.waiting.push(create)
      return
    }
    if (doomed !== undefined) doomed.isBack = true
    create()
  }

  /** Resolves when every slot update so far is accounted for: nothing is removed because of one later. */
  dropsDone(): Promise<void> {
    return this.#drops
  }

  /** Intents a crash left: the objects are removed unless somebody names them after all. */
  resumeIntents(names: readonly string[]): void {
    for (const name of names) {
      const [, vid, index] = /^([0-9a-f]{6})-([0-9a-f]{8})$/.exec(name) ?? []
      if (vid === undefined || index === undefined) continue
      const ref = { target: Number.parseInt(vid, 16) as Vid, index: Number.parseInt(index, 16) }
      const doomed = this.#doom(ref)
      this.#afterDrops(() => this.#removeUnnamed(ref, doomed))
    }
  }

  /**
   * Takes back everything only this volume named. Its inode is blank already (deleted), still with its
   * slots and size; both go last, so that an interrupted run is found and done again.
   */
  deleteVolume(vid: Vid): void {
    const work = async (): Promise<void> => {
      const freed = (await this.#takeBack(vid)) + (await this.#removeVmstate(vid))
      await this.#inodes.blank(vid)
      this.#log.info('vdi.reclaimed', { vid: vid.toString(16), objects: freed })
    }
    this.#deletions = this.#after(this.#deletions, work)
  }

  #doom({ target, index }: ObjectPlace): Doomed {
    const doomed: Doomed = { oid: dataOid(target, index), isBack: false, waiting: undefined }
    this.#doomed.set(doomed.oid, doomed)
    return doomed
  }

  async #removeUnnamed(ref: ObjectPlace, doomed: Doomed): Promise<void> {
    try {
      const isNamed = await this.#isNamed(ref.target, ref.index)
      // Dropped once more since: that drop decides.
      const isLatest = this.#doomed.get(doomed.oid) === doomed
      if (!isNamed && !doomed.isBack && isLatest) {
        doomed.waiting = []
        await this.#removeObject(ref)
      }
      await this.#forgetIntent(ref)
    } finally {
      if (this.#doomed.get(doomed.oid) === doomed) this.#doomed.delete(doomed.oid)
      for (const create of doomed.waiting ?? []) create()
    }
  }

  /** Removes what nobody else names, counts the other references; returns how many were removed. */
  async #takeBack(vid: Vid): Promise<number> {
    const header = await this.#inodes.mustHeader(vid)
    if (header.storePolicy !== 0) return this.#takeBackIndexed(header)
    const count = Math.min(slotsOf(header.sizeBytes, header.blockSizeShift), SLOTS_MAX)
    const slots = await this.#inodes.readSlots(vid, count)
    const refs = await this.#inodes.readRefs(vid, count)
    const shared: number[] = []
    let freed = 0
    const giveBack = async (index: number): Promise<void> => {
      await this.#removeObject({ target: slots[index] as Vid, index })
      freed++
    }
    const others = await this.#otherSlots(vid, slots)
    for (let index = 0; index < count; index++) {
      const target = slots[index] as Vid
      if (target === 0) continue
      if (others.some((array) => array[index] === target)) {
        await this.#account({ referrer: vid, target, index, ...refs[index]! })
        shared.push(index)
      } else {
        await giveBack(index)
      }
    }
    // Deleted elsewhere meanwhile: that deletion did not count this volume, and came before our counting.
    const left = shared.length === 0 ? [] : await this.#otherSlots(vid, slots)
    for (const index of shared) {
      if (!left.some((array) => array[index] === slots[index])) await giveBack(index)
    }
    // After the blank inode nothing would find them again, should a power cut bring them back.
    for (const owner of new Set(slots)) if (owner !== 0) await this.#flush(owner as Vid)
    return freed
  }

  /** A hypervolume shares nothing: everything its index names is its own, and the index goes last. */
  async #takeBackIndexed({ vid, btreeCounter }: InodeHeader): Promise<number> {
    let freed = 0
    for (const { entries } of (await this.#treeOf(vid)).leaves) {
      for (let at = 0; at < entries.count; at++) {
        // Of those that became holes, too: a crash may have come before their removal.
        const code = await this.#tryRemove(dataOid(vid, entries.index(at)))
        if (code === Code.SUCCESS) freed++
      }
    }
    for (const leaf of leafOids(vid, btreeCounter)) await this.#remove(leaf)
    await this.#flush(vid)
    return freed
  }

  /** Of an interrupted deletion the leaves may be gone: then so is what they named. */
  async #treeOf(vid: Vid): Promise<Tree> {
    const read: ReadBytes = async (oid, offset, length) => {
      const into = Buffer.alloc(length)
      const ref = this.#gateway.ref(oid)
      const code = await new Promise<Code>((resolve) =>
        this.#gateway.read(ref, offset, into, resolve),
      )
      // An empty node, where there is none.
      if (code === Code.NO_OBJ && oidKind(oid) === 'btree') return encodeTreeHead(1, 0)
      if (code !== Code.SUCCESS) throw new Error(`index ${oidName(oid)}: ${codeName(code)}`)
      return into
    }
    return loadTree(vid, read)
  }

  /** Saved states of virtual machines are the volume's alone, and lie one behind the other. */
  async #removeVmstate(vid: Vid): Promise<number> {
    let freed = 0
    for (let index = 0, absent = 0; absent < VMSTATE_GAP_MAX; index++) {
      const code = await this.#tryRemove(vmstateOid(vid, index))
      absent = code === Code.NO_OBJ ? absent + 1 : 0
      if (code !== Code.NO_OBJ) freed++
    }
    if (freed > 0) await this.#flush(vid)
    return freed
  }

  #afterDrops(work: () => Promise<void>): void {
    this.#drops = this.#after(this.#drops, work)
  }

  #after(queue: Promise<void>, work: () => Promise<void>): Promise<void> {
    this.#waiting++
    return queue
      .then(work)
      .catch((error: unknown) => {
        this.#log.error('reclaim.failed', { reason: String(error) })
      })
      .finally(() => {
        this.#waiting--
      })
  }

  /** Slot arrays of every living volume that may share objects with `vid`. */
  async #otherSlots(vid: Vid, slots: Uint32Array): Promise<Uint32Array[]> {
    const others = new Set<Vid>()
    for (const owner of new Set(slots)) {
      if (owner === 0) continue
      for (const member of this.#state.vids.family(owner as Vid)) others.add(member)
    }
    others.delete(vid)
    const arrays: Uint32Array[] = []
    for (const other of others) {
      if (await this.#inodes.isLiving(other)) {
        arrays.push(await this.#inodes.readSlots(other, slots.length))
      }
    }
    return arrays
  }

  async #isNamed(target: Vid, index: number): Promise<boolean> {
    for (const member of this.#state.vids.family(target)) {
      if (this.#state.vids.isDeleted(member)) continue
      const { offset } = slotRange(index, 1)
      const slot = await this.#inodes.read(member, offset, SLOT_BYTES)
      if (slot?.readUInt32LE(0) === target && (await this.#inodes.isLiving(member))) return true
    }
    return false
  }

  #mayBeLast(ref: DroppedRef): boolean {
    return ref.target !== ref.referrer && this.#state.vids.get(ref.target)?.deleted !== false
  }

  async #removeObject(ref: ObjectPlace): Promise<void> {
    const oid = dataOid(ref.target, ref.index)
    await this.#remove(oid)
    if (this.#state.vids.family(ref.target).length > 1) await this.#remove(ledgerOid(oid))
  }

  async #flush(vid: Vid): Promise<void> {
    const code = await new Promise<Code>((resolve) => this.#gateway.flush(vid, resolve))
    if (code !== Code.SUCCESS) throw new Error(`removals are not durable (${codeName(code)})`)
  }

  async #remove(oid: Oid): Promise<void> {
    await this.#tryRemove(oid)
  }

  /** SUCCESS, or NO_OBJ; rejects with anything else. */
  async #tryRemove(oid: Oid): Promise<Code> {
    const code = await new Promise<Code>((resolve) => this.#gateway.remove(oid, resolve))
    if (code === Code.SUCCESS || code === Code.NO_OBJ) return code
    throw new Error(`object ${oidName(oid)} could not be removed (${code})`)
  }

  /** Counts the drop in the ledger. A reference that was never shared has none. */
  async #account({ target, index, generation, count }: DroppedRef): Promise<void> {
    if (generation === 0 && count === 0) return
    const ledger = ledgerOid(dataOid(target, index))
    const code = await this.#ledgers.drop({ ledger, generation, count })
    if (code !== Code.SUCCESS) {
      this.#log.warn('ledger.missed', { oid: oidName(ledger), result: codeName(code) })
    }
  }

  #intentPath(ref: ObjectPlace): string {
    const vid = ref.target.toString(16).padStart(6, '0')
    return `${this.#directory}/${vid}-${ref.index.toString(16).padStart(8, '0')}`
  }

  async #forgetIntent(ref: ObjectPlace): Promise<void> {
    const path = this.#intentPath(ref)
    if (this.#files.exists(path)) await this.#files.unlink(path)
  }
}
