/**
 * Volume operations, as the one node runs them whose turn it is (objects spec, section 7). They consist of
 * several object writes; these come in an order in which a crash at any point leaves either the state
 * before, or something `settle` recognises and undoes (defect O1):
 *
 *   snapshot  new inode, references of the old one, and only then the old one's time of snapshot
 *   clone     references of the base first: too many of them cost nothing, too few would cost data
 *   delete    the name goes first; slots and size go when every object has been given back
 */
import { Code, SheepError } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import type { Selector } from '../model/access.js'
import { encodeTreeHead, HYPER_OBJECTS_MAX } from '../model/hyper-tree.js'
import {
  encodeInodeHeader,
  type InodeHeader,
  NAME_BYTES,
  REF_BYTES,
  REFS_OFFSET,
  type Ref,
  type SdTime,
  SLOT_BYTES,
  SLOTS_MAX,
  SNAP_CTIME_OFFSET,
  sdTime,
  slotsOf,
} from '../model/inode.js'
import { asVid, inodeOid, type Vid } from '../model/oid.js'
import { copiesUnder, isPossiblePolicy } from '../model/policy.js'
import type { VdiLock } from '../model/vdi-state.js'
import type { VdiFields } from '../wire/sheepdog/requests.js'
import type { Clock } from '../world/world.js'
import { Attributes } from './attributes.js'
import type { ClusterOps } from './cluster-ops.js'
import type { Gateway } from './gateway.js'
import type { InodeIo } from './inode-io.js'
import { holders } from './lock-keeper.js'
import type { NodeState } from './state.js'
import { type LookupResult, lookUp, mustFind } from './vdi-lookup.js'

export interface Announcement {
  readonly oldVid: Vid
  readonly newVid: Vid
  readonly copies: number
  readonly policy: number
  readonly blockSizeShift: number
  readonly setBitmap: boolean
  /** The volume exists, and is a working one again after a snapshot that did not come about. */
  readonly reopens?: true
}

export interface VdiServiceOptions {
  readonly state: NodeState
  readonly gateway: Gateway
  readonly inodes: InodeIo
  readonly clock: Clock
  /** Tells every node of a volume to come, or that none came; resolves when this node has processed it in order. */
  readonly announcer: () => Pick<ClusterOps, 'announce' | 'announceGone'>
  /** The lock that keeps a volume from being deleted through this node. */
  readonly guardOf: (vid: Vid) => VdiLock | undefined
}

/** Objects of a hypervolume, when nobody says otherwise. */
const HYPER_SHIFT = 22

interface Format {
  readonly copies: number
  readonly policy: number
  readonly blockSizeShift: number
}

export class VdiService {
  readonly #state: NodeState
  readonly #gateway: Gateway
  readonly #inodes: InodeIo
  readonly #clock: Clock
  readonly #announcer: VdiServiceOptions['announcer']
  readonly attributes: Attributes
  readonly #guardOf: VdiServiceOptions['guardOf']

  constructor(options: VdiServiceOptions) {
    this.#state = options.state
    this.#gateway = options.gateway
    this.#inodes = options.inodes
    this.#clock = options.clock
    this.#announcer = options.announcer
    this.attributes = new Attributes({
      gateway: options.gateway,
      find: async (name, selector) => mustFind(await this.find(name, selector)),
    })
    this.#guardOf = options.guardOf
  }

  find(name: string, selector: Selector): Promise<LookupResult> {
    return lookUp(this.#state.vids, (vid) => this.#inodes.header(vid), name, selector)
  }

  /** The working volume that came out of a snapshot; undefined for what is none, or has no such volume. */
  async successorOf(vid: Vid): Promise<Vid | undefined> {
    if (this.#state.vids.get(vid)?.snapshot !== true) return undefined
    const header = await this.#inodes.header(vid)
    if (header === undefined) return undefined
    const { found } = await this.find(header.name, { kind: 'working' })
    const isHeir = found !== undefined && this.#state.vids.family(vid).includes(found.vid)
    return isHeir ? found.vid : undefined
  }

  /** NEW_VDI in its four meanings (protocol spec, section 9.6). Rejects with a SheepError. */
  async create(name: string, fields: Required<VdiFields>): Promise<InodeHeader> {
    checkRequest(name, fields)
    const lookup = await this.find(name, { kind: 'working' })
    if (lookup.free === undefined) throw new SheepError(Code.FULL_VDI)
    if (fields.snapId !== 0) return this.#snapshot(lookup, asVid(fields.base), lookup.free)
    if (lookup.found !== undefined) throw new SheepError(Code.VDI_EXIST)
    if (fields.base !== 0) return this.#clone(name, fields, lookup, lookup.free)
    return this.#createEmpty(name, fields, lookup, lookup.free)
  }

  /** Blanks the name; the objects are given back afterwards (`Reclaim.deleteVolume`). */
  async delete(name: string, selector: Selector): Promise<InodeHeader> {
    const header = mustFind(await this.find(name, selector))
    const guard = this.#guardOf(header.vid)
    if (guard !== undefined) {
      throw new SheepError(Code.VDI_LOCKED, `${name} is locked by ${holders(guard)}`)
    }
    await this.#inodes.write(header.vid, 0, Buffer.alloc(NAME_BYTES))
    return header
  }

  async #createEmpty(
    name: string,
    fields: Required<VdiFields>,
    lookup: LookupResult,
    free: Vid,
  ): Promise<InodeHeader> {
    const format = this.#format(fields)
    if (fields.sizeBytes > bytesMax(fields.storePolicy, format.blockSizeShift)) {
      throw new SheepError(Code.INVALID_PARMS, 'the size needs larger objects')
    }
    const header = newHeader({
      ...format,
      name,
      vid: free,
      parent: asVid(0),
      sizeBytes: fields.sizeBytes,
      snapId: (lookup.lastSnapshot?.snapId ?? 0) + 1,
      storePolicy: fields.storePolicy,
      time: sdTime(this.#clock.now()),
    })
    // A hypervolume has the root of its index where others have their slots.
    const root = header.storePolicy === 0 ? [] : [encodeTreeHead(1, 0)]
    const inode = Buffer.concat([encodeInodeHeader(header), ...root])
    await this.#tell(lookup.lastSnapshot?.vid ?? asVid(0), header)
    await this.#undoing(free, () => this.#inodes.create(free, inode))
    return header
  }

  async #clone(
    name: string,
    fields: Required<VdiFields>,
    lookup: LookupResult,
    free: Vid,
  ): Promise<InodeHeader> {
    const base = await this.#base(asVid(fields.base))
    if (base.snapCtime === 0n) throw new SheepError(Code.INVALID_PARMS, 'only snapshots are cloned')
    const sizeBytes = fields.sizeBytes || base.sizeBytes
    if (sizeBytes < base.sizeBytes || sizeBytes > SLOTS_MAX * 2 ** base.blockSizeShift) {
      throw new SheepError(Code.INVALID_PARMS, 'a clone has at least the size of its base')
    }
    const header = newHeader({
      copies: base.copies,
      policy: base.policy,
      blockSizeShift: base.blockSizeShift,
      name,
      vid: free,
      parent: base.vid,
      sizeBytes,
      snapId: (lookup.lastSnapshot?.snapId ?? 0) + 1,
      time: sdTime(this.#clock.now()),
    })
    await this.#tell(base.vid, header)
    await this.#undoing(free, async () => {
      const content = await this.#contentOf(base)
      await this.#handDown(base, content)
      await this.#writeHeir(header, content)
    })
    return header
  }

  async #snapshot(lookup: LookupResult, baseVid: Vid, free: Vid): Promise<InodeHeader> {
    const working = mustFind(lookup)
    const base = baseVid === working.vid ? working : await this.#base(baseVid)
    if (base !== working && base.snapCtime === 0n) {
      throw new SheepError(Code.INVALID_PARMS, 'a branch begins at a snapshot')
    }
    if (working.storePolicy !== 0) throw new SheepError(Code.NO_SUPPORT, 'of a hypervolume')
    if (!this.#isWritable(working)) {
      throw new SheepError(
        Code.HALT,
        'fewer zones than fragments: its writes could not be waited for',
      )
    }
    const time = sdTime(this.#clock.now())
    const header = newHeader({
      copies: base.copies,
      policy: base.policy,
      blockSizeShift: base.blockSizeShift,
      name: working.name,
      vid: free,
      parent: base.vid,
      sizeBytes: base.sizeBytes,
      snapId: working.snapId + 1,
      time,
    })
    // From here on every gateway answers READONLY to new writes; those under way are waited for.
    await this.#tell(working.vid, header)
    try {
      await this.#undoing(free, async () => {
        await this.#quiesce(working.vid, free)
        const content = await this.#contentOf(base)
        await this.#writeHeir(header, content)
        await this.#handDown(base, content)
        await this.#markSnapshot(working.vid, time)
      })
    } catch (error) {
      await this.#callOff(working, free)
      throw error
    }
    return header
  }

  /**
   * The id is not used again soon: a node that lags behind could take this announcement for that of the next
   * attempt, and go on writing in between. No inode has it, so it is free after a restart.
   */
  async #callOff(working: InodeHeader, heir: Vid): Promise<void> {
    // The cluster may have been formatted meanwhile.
    if (!this.#state.vids.isInUse(working.vid)) return
    await this.#announcer().announceGone(heir)
    await this.#tell(working.parent, working, { reopens: true })
  }

  /** Writes of a coded volume wait while there are too few zones, and a snapshot waits for them. */
  #isWritable({ copies, policy }: InodeHeader): boolean {
    return policy === 0 || this.#state.view.ring.zones >= copies
  }

  /** Runs the steps of a creation; when one fails the half-made inode goes. */
  async #undoing(vid: Vid, steps: () => Promise<void>): Promise<void> {
    try {
      await steps()
    } catch (error) {
      await new Promise<Code>((resolve) => this.#gateway.remove(inodeOid(vid), resolve))
      throw error
    }
  }

  async #quiesce(vid: Vid, heir: Vid): Promise<void> {
    const drained = await new Promise<Code>((done) =>
      this.#gateway.drainEverywhere(vid, heir, done),
    )
    if (drained !== Code.SUCCESS) throw new SheepError(drained)
    const flushed = await new Promise<Code>((done) => this.#gateway.flush(vid, done))
    if (flushed !== Code.SUCCESS) throw new SheepError(flushed)
  }

  async #base(vid: Vid): Promise<InodeHeader> {
    const header = await this.#inodes.header(vid)
    if (header === undefined || header.name === '') throw new SheepError(Code.BASE_VDI_READ)
    if (header.storePolicy !== 0) throw new SheepError(Code.NO_SUPPORT)
    return header
  }

  async #contentOf(base: InodeHeader): Promise<Content> {
    const count = slotsOf(base.sizeBytes, base.blockSizeShift)
    return {
      slots: await this.#inodes.readSlots(base.vid, count),
      refs: await this.#inodes.readRefs(base.vid, count),
    }
  }

  /** The base's references count one more copy of each. */
  async #handDown(base: InodeHeader, content: Content): Promise<void> {
    const raised = content.refs.map((ref, i) =>
      content.slots[i] === 0 ? ref : { ...ref, count: ref.count + 1 },
    )
    await this.#inodes.write(base.vid, REFS_OFFSET, encodeRefs(raised))
  }

  /** The new inode: the base's slots, with references one generation down. */
  async #writeHeir(header: InodeHeader, content: Content): Promise<void> {
    const inherited = content.refs.map((ref, i) =>
      content.slots[i] === 0
        ? { generation: 0, count: 0 }
        : { generation: ref.generation + 1, count: 0 },
    )
    await this.#inodes.create(
      header.vid,
      Buffer.concat([encodeInodeHeader(header), encodeSlots(content.slots)]),
    )
    await this.#inodes.write(header.vid, REFS_OFFSET, encodeRefs(inherited))
  }

  async #markSnapshot(vid: Vid, time: SdTime): Promise<void> {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(time)
    await this.#inodes.write(vid, SNAP_CTIME_OFFSET, bytes)
  }

  #tell(oldVid: Vid, header: InodeHeader, part: { readonly reopens?: true } = {}): Promise<void> {
    const { vid: newVid, copies, policy, blockSizeShift } = header
    const what = { oldVid, newVid, copies, policy, blockSizeShift, setBitmap: false, ...part }
    return this.#announcer().announce(what)
  }

  #format(fields: Required<VdiFields>): Format {
    const { settings } = this.#state
    const redundancy = fields.copies === 0 ? settings : fields
    return {
      copies: copiesUnder(redundancy),
      policy: redundancy.policy,
      blockSizeShift:
        fields.blockSizeShift || (fields.storePolicy === 0 ? settings.blockSizeShift : HYPER_SHIFT),
    }
  }
}

interface Content {
  readonly slots: Uint32Array
  readonly refs: readonly Ref[]
}

function checkRequest(name: string, fields: Required<VdiFields>): void {
  const { copies, policy, storePolicy, blockSizeShift } = fields
  if (name === '') throw new SheepError(Code.INVALID_PARMS, 'a VDI needs a name')
  if (storePolicy > 1) throw new SheepError(Code.INVALID_PARMS, 'an unknown kind of index')
  if (fields.sizeBytes > LIMITS.volumeBytesMax) {
    throw new SheepError(Code.INVALID_PARMS, `${fields.sizeBytes} bytes cannot be addressed`)
  }
  if (!isPossiblePolicy(policy)) throw new SheepError(Code.INVALID_PARMS, 'an impossible policy')
  if (copies > LIMITS.copiesMax) throw new SheepError(Code.INVALID_PARMS)
  if (blockSizeShift === 0) return
  if (blockSizeShift < LIMITS.blockSizeShiftMin || blockSizeShift > LIMITS.blockSizeShiftMax) {
    throw new SheepError(Code.INVALID_PARMS, `object size 2^${blockSizeShift}`)
  }
}

function bytesMax(storePolicy: number, blockSizeShift: number): number {
  const objects = storePolicy === 0 ? SLOTS_MAX : HYPER_OBJECTS_MAX
  return Math.min(objects * 2 ** blockSizeShift, LIMITS.volumeBytesMax)
}

interface NewInode extends Format {
  /** 0 when not given: a slot an object. */
  readonly storePolicy?: number
  readonly name: string
  readonly vid: Vid
  readonly parent: Vid
  readonly sizeBytes: number
  readonly snapId: number
  readonly time: SdTime
}

function newHeader(inode: NewInode): InodeHeader {
  const { time, ...rest } = inode
  return {
    ...rest,
    tag: '',
    createTime: time,
    snapCtime: 0n as SdTime,
    vmClockNsec: 0n,
    vmStateBytes: 0n,
    storePolicy: inode.storePolicy ?? 0,
    btreeCounter: 0,
  }
}

function encodeSlots(slots: Uint32Array): Buffer {
  const bytes = Buffer.alloc(slots.length * SLOT_BYTES)
  slots.forEach((vid, i) => {
    bytes.writeUInt32LE(vid, i * SLOT_BYTES)
  })
  return bytes
}

function encodeRefs(refs: readonly Ref[]): Buffer {
  const bytes = Buffer.alloc(refs.length * REF_BYTES)
  refs.forEach((ref, i) => {
    bytes.writeInt32LE(ref.generation, i * REF_BYTES)
    bytes.writeInt32LE(ref.count, i * REF_BYTES + 4)
  })
  return bytes
}
