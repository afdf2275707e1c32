/**
 * A cluster over the sheepdog protocol, as volumes need it: `ObjectAccess` and `VdiAccess` for one opened volume, or
 * for looking around. One connection each, so that locking again after a reconnect is a fence for just this volume's writes.
 */
import { cString } from '../base/bytes.js'
import { Code, type Done, SheepError, toCode } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import type { Log } from '../base/log.js'
import type { ObjectAccess, ObjectRef, Selector, SlotUpdate, VdiAccess } from '../model/access.js'
import {
  decodeInodeHeader,
  type InodeHeader,
  NAME_BYTES,
  SLOT_BYTES,
  slotArray,
  slotRange,
} from '../model/inode.js'
import { decodeNodes, NODE_BYTES } from '../model/node.js'
import { inodeOid, type Oid, oidVid, VID_LIMIT, type Vid } from '../model/oid.js'
import { NAMELESS } from '../model/vdi-state.js'
import type { Frame } from '../wire/sheepdog/frame.js'
import { Flag, LockType, Op } from '../wire/sheepdog/opcodes.js'
import { VID_BITMAP_BYTES } from '../wire/sheepdog/records.js'
import { decodeNodeReply, decodeVdiReply } from '../wire/sheepdog/replies.js'
import { objectRequest, plainRequest, vdiRequest } from '../wire/sheepdog/requests.js'
import {
  HEAD_BYTES,
  nextVolumeOf,
  type VolumeRange,
  volumeHeadsRequest,
} from '../wire/sheepdog/volume-heads.js'
import type { Address, World } from '../world/world.js'
import { Holding, lockRequest } from './holding.js'
import { Link, type LinkDone } from './link.js'
import { Sureness } from './sureness.js'

/** Stated by clients that reconnect: a node that is not in yet lets them wait, one on its way out says nothing. */
const RECONNECTING_VERSION = 1
/** How long somebody who is just letting go is waited for, and how often he is looked at. */
const LOCK_WAIT_MS = 5_000
const LOCK_AGAIN_MS = 200
/** How long a volume that turned out to be a snapshot counts as one: the snapshot may yet fail. */
const READ_ONLY_MS = 1_000
/** Slots of one read: 256 KiB. */
const SLOTS_PER_READ = 65_536
/** How often an opened volume's inode is looked at: it may have grown, or become a snapshot. */
const LOOK_MS = 2_000
/** Pages of headers on their way, and how many each has. */
const HEAD_PAGES_AT_ONCE = 4
const HEADS_PER_PAGE = 64
/** Inodes read at once. */
const HEADERS_AT_ONCE = 64

export interface RemoteOptions {
  readonly world: Pick<World, 'clock' | 'network' | 'random'>
  readonly log: Log
  /** Sheep of the cluster; the next one is tried when one does not answer. */
  readonly addresses: readonly Address[]
  /** How long I/O waits for a sheep before it fails; undefined: as long as it takes. */
  readonly patienceMs?: number | undefined
}

type BodyDone = (code: Code, reply: Frame | undefined) => void

export class RemoteAccess implements ObjectAccess, VdiAccess {
  readonly #options: RemoteOptions
  readonly #link: Link
  readonly #sureness: Sureness
  readonly #holder: number
  readonly #listeners = new Map<Vid, Set<() => void>>()
  readonly #seen = new Map<Vid, string>()
  /** Until when, on the monotonic clock. */
  readonly #readOnly = new Map<Vid, number>()
  #holding: Holding | undefined
  #cancelLook: (() => void) | undefined
  #closed = false

  constructor(options: RemoteOptions) {
    const { world, log, addresses, patienceMs } = options
    this.#options = options
    this.#holder = NAMELESS + 1 + world.random.below(2 ** 32 - NAMELESS - 2)
    this.#link = new Link({
      ...{ world, log, addresses, patienceMs },
      resume: async (client) => {
        try {
          await this.#holding?.resume(client)
        } catch (error) {
          const isLost = error instanceof SheepError && error.code === Code.VDI_LOCKED
          if (isLost) world.clock.soon(() => this.#link.end(Code.VDI_LOCKED))
          throw error
        }
      },
    })
    this.#sureness = new Sureness((done) => {
      const head = plainRequest({ opcode: Op.STAT_SHEEP })
      const answered: BodyDone = (code, reply) => {
        const isSure = reply !== undefined && !decodeNodeReply(reply).unsure
        done(code === Code.SUCCESS && !isSure ? Code.AGAIN : code)
      }
      this.#ask(head, undefined, answered)
    }, world.clock)
  }

  /** What waits fails with SHUTDOWN. The lock ends with the connection. */
  close(): void {
    this.#closed = true
    this.#cancelLook?.()
    this.#link.end(Code.SHUTDOWN)
  }

  /** For other requests of the protocol. `repeat` as in `LinkRequest`. Rejects with a SheepError of the result. */
  call(
    head: Buffer,
    payload?: Uint8Array,
    repeat: 'again' | 'once' = 'again',
    expects = 0,
  ): Promise<Frame> {
    return new Promise((resolve, reject) => {
      const done: BodyDone = (code, reply) => {
        if (code === Code.SUCCESS) resolve(reply!)
        else reject(new SheepError(code))
      }
      this.#link.submit({ head, payload, repeat, expects, done: judged(done) })
    })
  }

  #ask(head: Buffer, payload: Uint8Array | undefined, done: BodyDone, expects = 0): void {
    this.#link.submit({ head, payload, expects, repeat: 'again', done: judged(done) })
  }

  // ---- ObjectAccess

  ref(oid: Oid): ObjectRef {
    return { oid }
  }

  /** Only while `whenSure` has just made sure: what is remembered here may be old at any other time. */
  isSure(): boolean {
    return this.#sureness.isSure
  }

  whenSure(go: () => void, fail: Done): void {
    this.#sureness.whenSure(go, fail)
  }

  read({ oid }: ObjectRef, offset: number, into: Uint8Array, done: Done): void {
    const head = io({
      opcode: Op.READ_OBJ,
      flags: Flag.CACHE,
      dataLength: into.length,
      oid,
      offset,
    })
    const take: BodyDone = (code, reply) => {
      if (code !== Code.SUCCESS) done(code)
      else done(reply!.body.length === into.length ? code : Code.EIO)
    }
    const place = Buffer.from(into.buffer, into.byteOffset, into.length)
    this.#link.submit({ head, into: place, repeat: 'again', done: judged(take) })
  }

  write({ oid }: ObjectRef, offset: number, data: Uint8Array, durable: boolean, done: Done): void {
    const flags = Flag.WRITE | (durable ? 0 : Flag.CACHE)
    const head = io({ opcode: Op.WRITE_OBJ, flags, dataLength: data.length, oid, offset })
    this.#ask(head, data, this.#noticing(oidVid(oid), done))
  }

  create(
    { oid }: ObjectRef,
    offset: number,
    data: Uint8Array,
    source: ObjectRef | undefined,
    done: Done,
  ): void {
    const flags = Flag.WRITE | (source === undefined ? 0 : Flag.COW)
    const head = io({
      opcode: Op.CREATE_AND_WRITE_OBJ,
      flags,
      dataLength: data.length,
      oid,
      offset,
      ...(source && { cowOid: source.oid }),
    })
    this.#ask(head, data, this.#noticing(oidVid(oid), done))
  }

  remove(oid: Oid, done: Done): void {
    this.#ask(io({ opcode: Op.REMOVE_OBJ, flags: Flag.WRITE, oid }), undefined, done)
  }

  /** The sheep looks itself what the slots were, and makes it durable in any case. */
  setSlots({ vid, first, next }: SlotUpdate, done: Done): void {
    const data = Buffer.alloc(next.length * SLOT_BYTES)
    next.forEach((slot, i) => void data.writeUInt32LE(slot, i * SLOT_BYTES))
    const { offset } = slotRange(first, next.length)
    const oid = inodeOid(vid)
    const head = io({
      opcode: Op.WRITE_OBJ,
      flags: Flag.WRITE,
      dataLength: data.length,
      oid,
      offset,
    })
    this.#ask(head, data, this.#noticing(vid, done))
  }

  /** Sheepdog 1.0 writes through, and refuses: that is as good. */
  flush(vid: Vid, done: Done): void {
    const head = io({ opcode: Op.FLUSH_VDI, flags: Flag.CACHE, oid: inodeOid(vid) })
    this.#ask(head, undefined, (code) => {
      done(code === Code.INVALID_PARMS ? Code.SUCCESS : code)
    })
  }

  /** A snapshot does not wait for a change of several steps here: the last step, naming the object, is refused then. */
  begin(vid: Vid): boolean {
    const until = this.#readOnly.get(vid)
    if (until === undefined) return true
    if (this.#options.world.clock.monotonic() < until) return false
    this.#readOnly.delete(vid)
    return true
  }

  #noticing(vid: Vid, done: Done): Done {
    return (code) => {
      if (code === Code.READONLY) {
        this.#readOnly.set(vid, this.#options.world.clock.monotonic() + READ_ONLY_MS)
      }
      done(code)
    }
  }

  end(): void {}

  // ---- VdiAccess

  async find(name: string, selector: Selector): Promise<Vid> {
    const payload = Buffer.concat([
      cString(name, NAME_BYTES),
      cString(selector.kind === 'tag' ? selector.tag : '', NAME_BYTES),
    ])
    const head = vdiRequest({
      ...{ opcode: Op.GET_VDI_INFO, flags: Flag.WRITE, dataLength: payload.length },
      snapId: selector.kind === 'id' ? selector.snapId : 0,
    })
    return decodeVdiReply(await this.call(head, payload)).vid
  }

  /** One volume a connection: what this object reads and writes from now on is this volume's. */
  async lock(name: string): Promise<Vid> {
    const { world, log } = this.#options
    const { clock } = world
    for (let waitedMs = 0; ; waitedMs += LOCK_AGAIN_MS) {
      try {
        const reply = await this.call(...lockRequest(name, this.#holder))
        const { vid } = decodeVdiReply(reply)
        this.#holding = new Holding({ name, holder: this.#holder, clock, log }, vid)
        return vid
      } catch (error) {
        const isLocked = error instanceof SheepError && error.code === Code.VDI_LOCKED
        if (!isLocked) throw error
        if (waitedMs >= LOCK_WAIT_MS) {
          const remedy = `see dog vdi lock list; stop what uses it`
          throw new SheepError(Code.VDI_LOCKED, `${name} is locked: ${remedy}`)
        }
        await new Promise<void>((resolve) => void clock.after(LOCK_AGAIN_MS, resolve))
      }
    }
  }

  async unlock(vid: Vid): Promise<void> {
    this.#holding = undefined
    const lockType = LockType.DOOR
    await this.call(vdiRequest({ opcode: Op.RELEASE_VDI, base: vid, lockType }))
  }

  async readHeader(vid: Vid): Promise<InodeHeader> {
    return headerOf(await this.readBytes(inodeOid(vid), 0, HEAD_BYTES))
  }

  async readSlots(vid: Vid, count: number): Promise<Uint32Array> {
    const slots = new Uint32Array(count)
    for (let first = 0; first < count; first += SLOTS_PER_READ) {
      const { offset, length } = slotRange(first, Math.min(SLOTS_PER_READ, count - first))
      slots.set(slotArray(await this.readBytes(inodeOid(vid), offset, length)), first)
    }
    return slots
  }

  /** Where a sheep listens that has just answered, whatever state the cluster is in. */
  async sheep(): Promise<Address> {
    await this.call(plainRequest({ opcode: Op.GET_CLUSTER_DEFAULT }))
    return this.#link.address!
  }

  /** Where the members of the cluster listen, as they announce it. */
  async members(): Promise<Address[]> {
    const room = LIMITS.nodesMax * NODE_BYTES
    const head = plainRequest({ opcode: Op.GET_NODE_LIST, dataLength: room })
    const { body } = await this.call(head, undefined, 'again', room)
    const nodes = decodeNodes(body, Math.floor(body.length / NODE_BYTES))
    return nodes.map(({ host, port }) => ({ host, port }))
  }

  /** Ids of all volumes and snapshots that are not deleted, ascending. */
  async living(): Promise<Vid[]> {
    const [inUse, deleted] = await Promise.all([
      this.#bitmap(Op.READ_VDIS),
      this.#bitmap(Op.READ_DEL_VDIS),
    ])
    return setBits(inUse, deleted)
  }

  /**
   * Headers of all that `living` names, in no order, as they come; those that make no sense are left out. Resolves with false when the
   * sheep cannot do that (sheepdog 1.0). Rejects with a SheepError.
   */
  async heads(each: (header: InodeHeader) => void): Promise<boolean> {
    const share = VID_LIMIT / HEAD_PAGES_AT_ONCE
    const parts = Array.from({ length: HEAD_PAGES_AT_ONCE }, (_, i) =>
      this.#headsOf({ first: i * share, end: (i + 1) * share }, each),
    )
    try {
      await Promise.all(parts)
      return true
    } catch (error) {
      if (error instanceof SheepError && error.code === Code.INVALID_PARMS) return false
      throw error
    }
  }

  async #headsOf(range: VolumeRange, each: (header: InodeHeader) => void): Promise<void> {
    const room = HEAD_BYTES * HEADS_PER_PAGE
    for (let { first } = range; ; ) {
      const head = volumeHeadsRequest({ first, end: range.end }, room)
      const reply = await this.call(head, undefined, 'again', room)
      const { body } = reply
      if (body.length > room || body.length % HEAD_BYTES !== 0) throw new SheepError(Code.EIO)
      for (let at = 0; at < body.length; at += HEAD_BYTES) {
        const header = headerIn(body.subarray(at, at + HEAD_BYTES))
        if (header !== undefined) each(header)
      }
      const next = nextVolumeOf(reply)
      if (next === 0) return
      if (next <= first || next >= range.end) throw new SheepError(Code.EIO)
      first = next
    }
  }

  /** Undefined when it is gone, or makes no sense. */
  headerIfAny(vid: Vid): Promise<InodeHeader | undefined> {
    return this.#headerIfAny(vid)
  }

  /** Of volumes and snapshots that are not deleted; one whose inode makes no sense is left out. */
  async list(): Promise<InodeHeader[]> {
    const vids = await this.living()
    const found: InodeHeader[] = []
    for (let from = 0; from < vids.length; from += HEADERS_AT_ONCE) {
      const batch = vids.slice(from, from + HEADERS_AT_ONCE)
      const headers = await Promise.all(batch.map((vid) => this.#headerIfAny(vid)))
      for (const header of headers) {
        if (header !== undefined && header.name !== '') found.push(header)
      }
    }
    return found
  }

  onChange(vid: Vid, changed: () => void): () => void {
    const listeners = this.#listeners.get(vid) ?? new Set()
    this.#listeners.set(vid, listeners)
    listeners.add(changed)
    this.#lookLater()
    return () => {
      listeners.delete(changed)
      if (listeners.size > 0 || this.#listeners.get(vid) !== listeners) return
      this.#listeners.delete(vid)
      this.#seen.delete(vid)
    }
  }

  /** An opened volume was changed by its own user: what it remembers is read again. */
  poke(): void {
    for (const listeners of [...this.#listeners.values()]) {
      for (const changed of [...listeners]) changed()
    }
  }

  /** Looks at once whether an opened volume has changed. */
  async look(): Promise<void> {
    for (const [vid, listeners] of [...this.#listeners]) {
      const header = await this.#headerIfAny(vid)
      const now = `${header?.sizeBytes} ${header?.snapCtime}`
      const before = this.#seen.get(vid)
      if (this.#listeners.has(vid)) this.#seen.set(vid, now)
      if (before !== undefined && before !== now) for (const changed of [...listeners]) changed()
    }
  }

  /** Rejects with the SheepError of the read. */
  async readBytes(oid: Oid, offset: number, length: number): Promise<Buffer> {
    const head = io({ opcode: Op.READ_OBJ, flags: Flag.DIRECT, dataLength: length, oid, offset })
    const { body } = await this.call(head, undefined, 'again', length)
    if (body.length !== length) throw new SheepError(Code.EIO)
    return body
  }

  #lookLater(): void {
    if (this.#cancelLook !== undefined || this.#closed || this.#listeners.size === 0) return
    this.#cancelLook = this.#options.world.clock.after(LOOK_MS, () => {
      void this.look()
        // The volume's own requests meet what is wrong, and say so.
        .catch(() => undefined)
        .finally(() => {
          this.#cancelLook = undefined
          this.#lookLater()
        })
    })
  }

  async #headerIfAny(vid: Vid): Promise<InodeHeader | undefined> {
    try {
      return await this.readHeader(vid)
    } catch (error) {
      if (!(error instanceof SheepError)) throw error
      if (error.code === Code.NO_OBJ || error.code === Code.VDI_READ) return undefined
      throw error
    }
  }

  async #bitmap(opcode: number): Promise<Buffer> {
    const head = plainRequest({ opcode, dataLength: VID_BITMAP_BYTES })
    const { body } = await this.call(head, undefined, 'again', VID_BITMAP_BYTES)
    if (body.length !== VID_BITMAP_BYTES) throw new SheepError(Code.EIO)
    return body
  }
}

/** A result that is none of SUCCESS is the code. */
function judged(done: BodyDone): LinkDone {
  return (reply, code) => {
    if (reply === undefined) done(code, undefined)
    else done(toCode(reply.result), reply)
  }
}

function io(fields: Parameters<typeof objectRequest>[0]): Buffer {
  const head = objectRequest(fields)
  head[0] = RECONNECTING_VERSION
  return head
}

function headerOf(bytes: Buffer): InodeHeader {
  try {
    return decodeInodeHeader(bytes)
  } catch (error) {
    if (error instanceof RangeError) throw new SheepError(Code.VDI_READ, error.message)
    throw error
  }
}

function headerIn(bytes: Buffer): InodeHeader | undefined {
  try {
    return decodeInodeHeader(bytes)
  } catch (error) {
    if (error instanceof RangeError) return undefined
    throw error
  }
}

/** Volume ids that are in use and not deleted, ascending. */
function setBits(inUse: Buffer, deleted: Buffer): Vid[] {
  const vids: Vid[] = []
  const [used, gone] = [wordsOf(inUse), wordsOf(deleted)]
  for (let at = 0; at < used.length; at++) {
    let word = used[at]! & ~gone[at]!
    while (word !== 0) {
      const bit = 31 - Math.clz32(word & -word)
      vids.push((at * 32 + bit) as Vid)
      word &= word - 1
    }
  }
  return vids
}

/** Little endian, as every machine this runs on. */
function wordsOf(bytes: Buffer): Uint32Array {
  const { buffer, byteOffset } = bytes.byteOffset % 4 === 0 ? bytes : Uint8Array.from(bytes)
  return new Uint32Array(buffer, byteOffset, bytes.length / 4)
}
