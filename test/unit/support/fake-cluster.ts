/**
 * A cluster in memory that is as unkind as its contract allows: everything may complete at once or
 * late, in any order except the promised one per object; snapshots come at any moment; errors
 * happen before or after the effect; a power cut loses all that was not made durable. What
 * a volume does against the contract is collected in `violations`.
 */
import { Code, type Done, SheepError } from '../../../src/base/codes.js'
import type {
  ObjectAccess,
  ObjectRef,
  Selector,
  SlotUpdate,
  VdiAccess,
} from '../../../src/model/access.js'
import { type InodeHeader, type SdTime, slotsOf } from '../../../src/model/inode.js'
import { asVid, dataOid, type Oid, oidIndex, oidVid, type Vid } from '../../../src/model/oid.js'
import type { Clock } from '../../../src/world/world.js'

/** Uniform numbers from a seed (mulberry32). */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let t = this.#state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }

  below(limit: number): number {
    return Math.floor(this.next() * limit)
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }
}

/** One object or inode: what reads see, and what a power cut leaves. */
interface Stored {
  now: Buffer
  stable: Buffer
  /** Counts durable writes: a flush that began before one must not undo it. */
  hardened: number
}

export interface FakeVdi {
  header: InodeHeader
  slots: Uint32Array
  stableSlots: Uint32Array
  hardened: number
  isSnapshot: boolean
  /** Changes that are open; a snapshot waits for them. */
  open: number
  waiting: (() => void)[]
  watchers: Set<() => void>
  lockedBy: number
}

export interface FakeOptions {
  readonly seed?: number
  /** Chance that something completes before the call returns. */
  readonly atOnce?: number
  /** Chance of an injected failure. */
  readonly failures?: number
}

interface Task {
  readonly key: string
  readonly run: () => void
}

export interface Call {
  readonly verb: string
  readonly oid?: Oid
  readonly update?: SlotUpdate
  readonly durable?: boolean
}

export class FakeCluster implements ObjectAccess, VdiAccess {
  readonly dice: Dice
  readonly violations: string[] = []
  readonly vdis = new Map<Vid, FakeVdi>()
  readonly objects = new Map<Oid, Stored>()
  readonly calls: Call[] = []
  /** Set by a test: answers instead of the normal outcome; the effect happens when `applied`. */
  refuse: ((call: Call) => { code: Code; applied: boolean } | undefined) | undefined
  atOnce: number
  failures: number
  #queues = new Map<string, Task[]>()
  #loose: (() => void)[] = []
  #nextVid = 1
  readonly clock: Clock

  constructor(options: FakeOptions = {}) {
    this.dice = new Dice(options.seed ?? 1)
    this.atOnce = options.atOnce ?? 1
    this.failures = options.failures ?? 0
    this.clock = {
      now: () => 0,
      monotonic: () => 0,
      soon: (fn) => this.#loose.push(fn),
      after: (_delay, fn) => {
        this.#loose.push(fn)
        return () => undefined
      },
    }
  }

  // ---- scheduling ---------------------------------------------------------

  get pending(): number {
    return this.#queues.size + this.#loose.length
  }

  /** Runs one thing that waits, any. */
  step(): void {
    const keys = [...this.#queues.keys()]
    const pick = this.dice.below(keys.length + this.#loose.length)
    if (pick >= keys.length) {
      const [fn] = this.#loose.splice(pick - keys.length, 1)
      fn?.()
      return
    }
    const key = keys[pick]!
    const queue = this.#queues.get(key)!
    const task = queue.shift()!
    if (queue.length === 0) this.#queues.delete(key)
    task.run()
  }

  /** Takes effect in the order of calls per key; at once when nothing of the key waits. */
  #order(key: string, run: () => void): void {
    const queue = this.#queues.get(key)
    if (queue !== undefined) queue.push({ key, run })
    else if (this.dice.chance(this.atOnce)) run()
    else this.#queues.set(key, [{ key, run }])
  }

  #complete(done: Done, code: Code): void {
    let isDone = false
    const once = (): void => {
      if (isDone) this.violations.push('completed twice')
      isDone = true
      done(code)
    }
    if (this.dice.chance(this.atOnce)) once()
    else this.#loose.push(once)
  }

  /** The outcome of a call: injected or real. */
  #outcome(call: Call, apply: () => Code, done: Done): void {
    this.calls.push(call)
    let injected = this.refuse?.(call)
    if (injected === undefined && this.failures > 0 && this.dice.chance(this.failures)) {
      injected = { code: Code.EIO, applied: this.dice.chance(0.5) }
    }
    const real = injected === undefined || injected.applied ? apply() : Code.SUCCESS
    this.#complete(done, injected === undefined ? real : injected.code)
  }

  // ---- ObjectAccess -------------------------------------------------------

  ref(oid: Oid): ObjectRef {
    return { oid }
  }

  read(ref: ObjectRef, offset: number, into: Uint8Array, done: Done): void {
    const { oid } = ref
    this.#order(`${oid}`, () => {
      const apply = (): Code => {
        const stored = this.objects.get(oid)
        if (stored === undefined) return Code.NO_OBJ
        stored.now.copy(into, 0, offset, offset + into.length)
        return Code.SUCCESS
      }
      this.#outcome({ verb: 'read', oid }, apply, done)
    })
  }

  write(ref: ObjectRef, offset: number, data: Uint8Array, durable: boolean, done: Done): void {
    const { oid } = ref
    this.#order(`${oid}`, () => {
      if (this.vdis.get(oidVid(oid))?.isSnapshot !== false) {
        this.#complete(done, Code.READONLY)
        return
      }
      const apply = (): Code => {
        const stored = this.objects.get(oid)
        if (stored === undefined) return Code.NO_OBJ
        stored.now.set(data, offset)
        if (durable) {
          stored.stable.set(data, offset)
          stored.hardened++
        }
        return Code.SUCCESS
      }
      this.#outcome({ verb: 'write', oid, durable }, apply, done)
    })
  }

  create(
    ref: ObjectRef,
    offset: number,
    data: Uint8Array,
    source: ObjectRef | undefined,
    done: Done,
  ): void {
    const { oid } = ref
    this.#order(`${oid}`, () => {
      const vdi = this.vdis.get(oidVid(oid))!
      if (vdi.open === 0) this.violations.push(`create ${oid} outside begin/end`)
      if (vdi.isSnapshot) this.violations.push(`create ${oid} in a snapshot`)
      const apply = (): Code => {
        if (vdi.slots[oidIndex(oid)] === vdi.header.vid) {
          this.violations.push(`create ${oid} over an object in use`)
        }
        const from = source === undefined ? undefined : this.objects.get(source.oid)
        if (source !== undefined && from === undefined) return Code.NO_OBJ
        const bytes = 2 ** vdi.header.blockSizeShift
        const now = from === undefined ? Buffer.alloc(bytes) : Buffer.from(from.now)
        now.set(data, offset)
        this.objects.set(oid, { now, stable: Buffer.from(now), hardened: 0 })
        return Code.SUCCESS
      }
      this.#outcome({ verb: 'create', oid }, apply, done)
    })
  }

  setSlots(update: SlotUpdate, done: Done): void {
    const vdi = this.vdis.get(update.vid)!
    this.#order(`inode ${update.vid}`, () => {
      if (vdi.open === 0) this.violations.push('setSlots outside begin/end')
      if (vdi.isSnapshot) this.violations.push('setSlots of a snapshot')
      const { durable } = update
      this.#outcome({ verb: 'setSlots', update, durable }, () => this.#setSlots(vdi, update), done)
    })
  }

  #setSlots(vdi: FakeVdi, { first, next, previous, durable }: SlotUpdate): Code {
    for (let i = 0; i < next.length; i++) {
      const slot = first + i
      if (vdi.slots[slot] !== previous[i]) {
        this.violations.push(`slot ${slot} was ${vdi.slots[slot]}, not ${previous[i]}`)
      }
      if (next[i] !== 0 && !this.objects.has(dataOid(asVid(next[i]!), slot))) {
        this.violations.push(`slot ${slot} would name an object that is not there`)
      }
      vdi.slots[slot] = next[i]!
      if (durable) {
        vdi.stableSlots[slot] = next[i]!
        vdi.hardened++
      }
      this.#reclaim(asVid(previous[i]!), slot)
    }
    return Code.SUCCESS
  }

  /** An object nobody names is gone at once; a power cut brings it back, as recovery would. */
  #reclaim(vid: Vid, slot: number): void {
    if (vid === 0 || [...this.vdis.values()].some(({ slots }) => slots[slot] === vid)) return
    const oid = dataOid(vid, slot)
    const stored = this.objects.get(oid)
    this.objects.delete(oid)
    if (stored !== undefined) this.#removed.set(oid, stored)
  }

  /** What volumes are told of the membership. */
  sure = true
  readonly #removed = new Map<Oid, Stored>()

  /** Covers what took effect before the call, and little more. */
  flush(vid: Vid, done: Done): void {
    const vdi = this.vdis.get(vid)!
    const { hardened } = vdi
    const slots = vdi.slots.slice()
    const contents = [...this.objects]
      .filter(([oid, { now, stable }]) => oidVid(oid) === vid && !now.equals(stable))
      .map(([, stored]) => ({ stored, bytes: Buffer.from(stored.now), was: stored.hardened }))
    this.#order(`flush ${vid} ${this.dice.next()}`, () => {
      const apply = (): Code => {
        vdi.stableSlots = vdi.hardened === hardened ? slots : vdi.slots.slice()
        for (const { stored, bytes, was } of contents) {
          stored.stable = stored.hardened === was ? bytes : Buffer.from(stored.now)
        }
        return Code.SUCCESS
      }
      this.#outcome({ verb: 'flush' }, apply, done)
    })
  }

  isSure(): boolean {
    return this.sure
  }

  whenSure(go: () => void): void {
    this.#loose.push(go)
  }

  begin(vid: Vid): boolean {
    const vdi = this.vdis.get(vid)
    if (vdi === undefined || vdi.isSnapshot) return false
    vdi.open++
    return true
  }

  end(vid: Vid): void {
    const vdi = this.vdis.get(vid)!
    if (--vdi.open < 0) this.violations.push('end without begin')
    if (vdi.open > 0) return
    for (const go of vdi.waiting.splice(0)) go()
  }

  // ---- VdiAccess ----------------------------------------------------------

  #later<T>(work: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const run = (): void => {
        if (this.failures > 0 && this.dice.chance(this.failures / 4)) {
          reject(new SheepError(Code.NETWORK_ERROR))
          return
        }
        try {
          resolve(work())
        } catch (error) {
          reject(error)
        }
      }
      if (this.dice.chance(this.atOnce)) run()
      else this.#loose.push(run)
    })
  }

  #ofName(name: string): FakeVdi[] {
    return [...this.vdis.values()].filter(({ header }) => header.name === name)
  }

  find(name: string, selector: Selector): Promise<Vid> {
    return this.#later(() => {
      const family = this.#ofName(name)
      if (family.length === 0) throw new SheepError(Code.NO_VDI)
      const found = family.find(({ header, isSnapshot }) => {
        if (selector.kind === 'working') return !isSnapshot
        if (!isSnapshot) return false
        return selector.kind === 'tag'
          ? header.tag === selector.tag
          : header.snapId === selector.snapId
      })
      if (found !== undefined) return found.header.vid
      throw new SheepError(selector.kind === 'working' ? Code.NO_VDI : Code.NO_TAG)
    })
  }

  lock(name: string): Promise<Vid> {
    return this.#later(() => {
      const found = this.#ofName(name).find(({ isSnapshot }) => !isSnapshot)
      if (found === undefined) throw new SheepError(Code.NO_VDI)
      if (found.lockedBy > 0) throw new SheepError(Code.VDI_LOCKED)
      found.lockedBy++
      return found.header.vid
    })
  }

  unlock(vid: Vid): Promise<void> {
    return this.#later(() => {
      const vdi = this.vdis.get(vid)!
      if (vdi.lockedBy === 0) throw new SheepError(Code.VDI_NOT_LOCKED)
      vdi.lockedBy--
    })
  }

  readHeader(vid: Vid): Promise<InodeHeader> {
    return this.#later(() => this.vdis.get(vid)!.header)
  }

  readSlots(vid: Vid, count: number): Promise<Uint32Array> {
    return this.#later(() => {
      const { slots } = this.vdis.get(vid)!
      const read = new Uint32Array(count)
      read.set(slots.subarray(0, count))
      return read
    })
  }

  list(): Promise<InodeHeader[]> {
    return this.#later(() => [...this.vdis.values()].map(({ header }) => header))
  }

  onChange(vid: Vid, changed: () => void): () => void {
    const { watchers } = this.vdis.get(vid)!
    watchers.add(changed)
    return () => watchers.delete(changed)
  }

  // ---- what others do to the cluster --------------------------------------

  vdi(vid: Vid): FakeVdi {
    return this.vdis.get(vid)!
  }

  working(name: string): FakeVdi {
    return this.#ofName(name).find(({ isSnapshot }) => !isSnapshot)!
  }

  addVdi(
    name: string,
    sizeBytes: number,
    more: Partial<InodeHeader> & { readonly slots?: Uint32Array } = {},
  ): Vid {
    const vid = asVid(this.#nextVid++)
    const { slots, ...fields } = more
    const header: InodeHeader = {
      name,
      tag: '',
      createTime: 0n as SdTime,
      snapCtime: 0n as SdTime,
      vmClockNsec: 0n,
      sizeBytes,
      vmStateBytes: 0n,
      policy: 0,
      storePolicy: 0,
      copies: 3,
      blockSizeShift: 20,
      snapId: 1,
      parent: asVid(0),
      btreeCounter: 0,
      ...fields,
      vid,
    }
    const own = slots ?? new Uint32Array(slotsOf(sizeBytes, header.blockSizeShift))
    this.vdis.set(vid, {
      header,
      slots: own.slice(),
      stableSlots: own.slice(),
      hardened: 0,
      isSnapshot: header.snapCtime !== 0n,
      open: 0,
      waiting: [],
      watchers: new Set(),
      lockedBy: 0,
    })
    return vid
  }

  /** Takes a snapshot as soon as no change is open; `taken` gets both VDIs. */
  snapshot(name: string, tag: string, taken?: (old: FakeVdi, fresh: FakeVdi) => void): void {
    const vdi = this.working(name)
    if (vdi.open > 0) {
      vdi.waiting.push(() => this.snapshot(name, tag, taken))
      return
    }
    const { header, slots, lockedBy } = vdi
    const successor = { ...header, parent: header.vid, snapId: header.snapId + 1, slots }
    const fresh = this.vdi(this.addVdi(name, header.sizeBytes, successor))
    fresh.lockedBy = lockedBy
    vdi.lockedBy = 0
    vdi.isSnapshot = true
    vdi.header = { ...header, tag, snapCtime: 0x6000_0000_0000_0000n as SdTime }
    vdi.stableSlots = slots.slice()
    taken?.(vdi, fresh)
    for (const changed of [...vdi.watchers]) if (this.dice.chance(0.5)) changed()
  }

  grow(name: string, sizeBytes: number): void {
    const vdi = this.working(name)
    vdi.header = { ...vdi.header, sizeBytes }
    for (const key of ['slots', 'stableSlots'] as const) {
      const grown = new Uint32Array(slotsOf(sizeBytes, vdi.header.blockSizeShift))
      grown.set(vdi[key])
      vdi[key] = grown
    }
    for (const changed of [...vdi.watchers]) changed()
  }

  /** Only hypervolumes remove by themselves. */
  remove(oid: Oid, done: Done): void {
    done(this.objects.delete(oid) ? Code.SUCCESS : Code.NO_OBJ)
  }

  /** The name and its slots are gone; objects nobody names go too. */
  removeVdi(vid: Vid): void {
    const vdi = this.vdi(vid)
    const { slots } = vdi
    vdi.header = { ...vdi.header, name: '' }
    vdi.isSnapshot = true
    vdi.slots = new Uint32Array(slots.length)
    slots.forEach((owner, slot) => {
      this.#reclaim(asVid(owner), slot)
    })
    for (const changed of [...vdi.watchers]) changed()
  }

  /** What a reader of this VDI finds, now or after a power cut. */
  contents(vid: Vid, when: 'now' | 'stable' = 'now'): Buffer {
    const vdi = this.vdi(vid)
    const bytes = 2 ** vdi.header.blockSizeShift
    const all = Buffer.alloc(vdi.slots.length * bytes)
    const slots = when === 'now' ? vdi.slots : vdi.stableSlots
    slots.forEach((owner, slot) => {
      if (owner === 0) return
      const oid = dataOid(asVid(owner), slot)
      const stored = this.objects.get(oid) ?? this.#removed.get(oid)
      if (stored === undefined) this.violations.push(`slot ${slot} names a lost object`)
      else stored[when].copy(all, slot * bytes)
    })
    return all.subarray(0, vdi.header.sizeBytes)
  }

  /** Objects no slot names. */
  leaked(): Oid[] {
    return [...this.objects.keys()].filter((oid) => {
      const slot = oidIndex(oid)
      return ![...this.vdis.values()].some(({ slots }) => slots[slot] === oidVid(oid))
    })
  }
}
