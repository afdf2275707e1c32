/**
 * One object in the cache: a file of its full size, and which of its 64 blocks hold the object's bytes. What is read
 * and written here comes one after the other; only a push, once it has taken what it sends, goes on beside it.
 *
 * The one way from here to the owners is a push, and one is under way at a time: an older content of a block can
 * never overtake a newer one. What is dirty stays so until every owner has it on stable storage.
 */
import { Code, type Done } from '../../base/codes.js'
import type { ObjectRef } from '../../model/access.js'
import { codeOfErrno } from '../../store/errno.js'
import { readAt, syncFile, WRITE_NOW_BYTES_MAX, writeAt } from '../../store/file-io.js'
import type { OpenFile } from '../../world/world.js'
import { type BlockRange, BlockSet, blocksTouched, bytesOfBlocks } from './blocks.js'
import { Lane } from './lane.js'

/** The owners of the objects, as the cache uses them. */
export interface Backing {
  read(ref: ObjectRef, offset: number, into: Uint8Array, done: Done): void
  /** `durable`: on stable storage of every owner before `done`. */
  write(ref: ObjectRef, offset: number, data: Uint8Array, durable: boolean, done: Done): void
}

/** What an object needs of the cache it is in. */
export interface ObjectHome {
  readonly objectBytes: number
  readonly blockBytes: number
  readonly backing: Backing
  /** Files are past the page cache: nothing of them can be done at once. */
  readonly isDirect: boolean
  /** Makes the object's file. False: there is no room, it is used without. */
  admit(object: CachedObject): Promise<boolean>
  /** The object's file, opened again if need be; throws errno errors. */
  open(object: CachedObject): OpenFile
  /** Takes its file away. */
  remove(object: CachedObject): Promise<void>
  /** It has been used, and may have become idle. */
  used(object: CachedObject): void
  /** Which of its blocks are not on the owners has changed; throws errno errors. */
  dirtied(object: CachedObject): void
}

/** `ref`: of who asks; what goes past the cache goes in his name. */
interface Write {
  readonly ref: ObjectRef
  readonly offset: number
  readonly data: Uint8Array
  readonly durable: boolean
}

interface PushWaiter {
  readonly done: Done
}

export class CachedObject {
  readonly index: number
  readonly ref: ObjectRef
  readonly #home: ObjectHome
  readonly #lane = new Lane()
  readonly #valid = new BlockSet()
  readonly #dirty = new BlockSet()
  /** Taken by the push under way. */
  #sent: BlockSet | undefined
  #waiters: PushWaiter[] = []
  #isPushing = false
  /** Operations that go past the cache, straight to the owners. */
  #direct = 0
  /** The owners have it: a write to what does not exist must fail at once. */
  #exists = false
  /** Its file cannot be trusted with what is dirty any more. */
  #damage: Code | undefined
  isAdmitted = false
  file: OpenFile | undefined

  /** `dirty`: found after a crash, in a file that is there already. */
  constructor(home: ObjectHome, index: number, ref: ObjectRef, dirty?: BlockSet) {
    this.#home = home
    this.index = index
    this.ref = ref
    if (dirty === undefined) return
    this.#dirty.addAll(dirty)
    this.#valid.addAll(dirty)
    this.isAdmitted = true
    this.#exists = true
  }

  get isDirty(): boolean {
    return this.#sent !== undefined || !this.#dirty.isEmpty
  }

  /** Nothing of it is under way. */
  get isIdle(): boolean {
    return this.#lane.isIdle && !this.#isPushing && this.#direct === 0
  }

  /** Blocks the owners may not have: what is dirty, and what is on its way. */
  unpushed(): BlockSet {
    const blocks = this.#dirty.copy()
    if (this.#sent !== undefined) blocks.addAll(this.#sent)
    return blocks
  }

  /** `pulls` false: what is not cached is read past the cache. */
  read(ref: ObjectRef, offset: number, into: Uint8Array, pulls: boolean, done: Done): void {
    this.#lane.enter(() => {
      if (this.#readNow(offset, into)) this.#end(Code.SUCCESS, done)
      else void this.#readSlowly(ref, offset, into, pulls, done)
    })
  }

  /** `durable`: on stable storage of every owner before `done`; else in the cache. */
  write(ref: ObjectRef, offset: number, data: Uint8Array, durable: boolean, done: Done): void {
    const written: Done = (code) => {
      if (code === Code.SUCCESS && durable) this.push(done)
      else done(code)
    }
    this.#lane.enter(() => {
      const range = blocksTouched(offset, data.length, this.#home.blockBytes)
      const isSmall = data.length <= WRITE_NOW_BYTES_MAX && !this.#home.isDirect
      const isQuick = isSmall && this.#exists
      if (!isQuick || !this.isAdmitted || !this.#valid.hasAll(range)) {
        void this.#writeSlowly({ ref, offset, data, durable }, written, done)
        return
      }
      try {
        this.#home.open(this).writeNow(data, offset)
        this.#end(this.#written(range), written)
      } catch (error) {
        this.#end(this.#spoiled(range, error), written)
      }
    })
  }

  /** Everything written before is on stable storage of every owner before `done`. */
  push(done: Done): void {
    this.#waiters.push({ done })
    if (!this.#isPushing) void this.#pushWhileAsked()
  }

  /** Takes the object out of the cache; what is dirty goes with it. The push under way has ended before. */
  async drop(): Promise<void> {
    this.#dirty.clear()
    await this.#pushEnded()
    await new Promise<void>((resolve) => this.#lane.enter(resolve))
    await this.#leaveCache()
    this.#lane.leave()
    this.#home.used(this)
  }

  /** As `drop`, of an object that is idle and clean; its place is free at once. */
  evict(): void {
    this.#lane.enter(() => {
      void this.#leaveCache().then(() => {
        this.#lane.leave()
        this.#home.used(this)
      })
    })
  }

  async #leaveCache(): Promise<void> {
    this.#valid.clear()
    this.#dirty.clear()
    this.#damage = undefined
    this.#exists = false
    if (this.isAdmitted) await this.#home.remove(this)
  }

  #pushEnded(): Promise<void> {
    if (!this.#isPushing) return Promise.resolve()
    return new Promise((resolve) => this.#waiters.push({ done: () => resolve() }))
  }

  #end(code: Code, done: Done): void {
    this.#lane.leave()
    done(code)
    this.#home.used(this)
  }

  #readNow(offset: number, into: Uint8Array): boolean {
    if (!this.isAdmitted) return false
    const range = blocksTouched(offset, into.length, this.#home.blockBytes)
    if (!this.#valid.hasAll(range)) return false
    try {
      return this.#home.open(this).readNow(into, offset) === into.length
    } catch {
      return false // The slow way meets the same error, and tells.
    }
  }

  async #readSlowly(
    ref: ObjectRef,
    offset: number,
    into: Uint8Array,
    pulls: boolean,
    done: Done,
  ): Promise<void> {
    if (!this.isAdmitted && !(pulls && (await this.#admit()))) {
      this.#past((ended) => this.#home.backing.read(ref, offset, into, ended), done)
      return
    }
    const range = blocksTouched(offset, into.length, this.#home.blockBytes)
    let code = await this.#fill(this.#valid.missing(range))
    if (code === Code.SUCCESS) {
      try {
        const count = await readAt(this.#home.open(this), into, offset)
        if (count < into.length) throw new Error(`a cached object ends at ${offset + count}`)
      } catch (error) {
        code = codeOfErrno(error)
        if (!this.isDirty) {
          // The owners have it all: go without the file.
          await this.#leaveCache()
          this.#past((ended) => this.#home.backing.read(ref, offset, into, ended), done)
          return
        }
      }
    }
    this.#end(code, done)
  }

  async #writeSlowly(write: Write, written: Done, done: Done): Promise<void> {
    const { offset, data } = write
    if (!this.isAdmitted && !(await this.#admit())) {
      const { backing } = this.#home
      const { ref, durable } = write
      this.#past((ended) => backing.write(ref, offset, data, durable, ended), done)
      return
    }
    const range = blocksTouched(offset, data.length, this.#home.blockBytes)
    const filled = await this.#fill(this.#edges(range, offset, data.length))
    const known = filled === Code.SUCCESS ? await this.#probe() : filled
    if (known !== Code.SUCCESS) {
      this.#end(known, written)
      return
    }
    try {
      await writeAt(this.#home.open(this), data, offset)
      this.#end(this.#written(range), written)
    } catch (error) {
      this.#end(this.#spoiled(range, error), written)
    }
  }

  /** Blocks a write covers in part, whose other bytes are not here. */
  #edges({ first, end }: BlockRange, offset: number, length: number): BlockRange[] {
    const { blockBytes, objectBytes } = this.#home
    const isPart = (block: number): boolean => {
      const bytes = bytesOfBlocks({ first: block, end: block + 1 }, blockBytes, objectBytes)
      return offset > bytes.offset || offset + length < bytes.offset + bytes.length
    }
    const edges = [...new Set([first, end - 1])]
    return edges
      .filter((block) => block >= first && !this.#valid.has(block) && isPart(block))
      .map((block) => ({ first: block, end: block + 1 }))
  }

  async #admit(): Promise<boolean> {
    // What goes past the cache may still arrive at the owners: it must not be missed here.
    if (this.#direct > 0) return false
    return await this.#home.admit(this)
  }

  async #fill(runs: readonly BlockRange[]): Promise<Code> {
    const { blockBytes, objectBytes } = this.#home
    for (const run of runs) {
      const { offset, length } = bytesOfBlocks(run, blockBytes, objectBytes)
      const bytes = Buffer.allocUnsafe(length)
      const code = await this.#pull(offset, bytes)
      if (code !== Code.SUCCESS) return code
      try {
        await writeAt(this.#home.open(this), bytes, offset)
      } catch (error) {
        return codeOfErrno(error)
      }
      this.#valid.add(run)
    }
    return Code.SUCCESS
  }

  async #pull(offset: number, into: Uint8Array): Promise<Code> {
    const code = await new Promise<Code>((resolve) =>
      this.#home.backing.read(this.ref, offset, into, resolve),
    )
    if (code === Code.SUCCESS) this.#exists = true
    return code
  }

  #probe(): Promise<Code> {
    return this.#exists ? Promise.resolve(Code.SUCCESS) : this.#pull(0, Buffer.allocUnsafe(512))
  }

  /** Its bytes are in the file: they count from here on. */
  #written(range: BlockRange): Code {
    this.#valid.add(range)
    this.#dirty.add(range)
    try {
      this.#home.dirtied(this)
      return Code.SUCCESS
    } catch (error) {
      return codeOfErrno(error)
    }
  }

  /** A write to the file failed: what these blocks hold is not known. */
  #spoiled({ first, end }: BlockRange, error: unknown): Code {
    const code = codeOfErrno(error)
    const unpushed = this.unpushed()
    for (let block = first; block < end; block++) if (unpushed.has(block)) this.#damage = code
    if (this.#damage !== undefined) return code
    this.#valid.delete({ first, end })
    return code
  }

  /** Goes on without the cache; others may follow at once. */
  #past(operation: (ended: Done) => void, done: Done): void {
    this.#direct++
    this.#lane.leave()
    operation((code) => {
      this.#direct--
      done(code)
      this.#home.used(this)
    })
  }

  async #pushWhileAsked(): Promise<void> {
    this.#isPushing = true
    while (this.#waiters.length > 0) {
      const served = this.#waiters
      this.#waiters = []
      const code = await this.#pushOnce()
      if (this.#waiters.length === 0) this.#isPushing = false
      for (const { done } of served) done(code)
      if (!this.#isPushing) break
    }
    this.#home.used(this)
  }

  async #pushOnce(): Promise<Code> {
    // Others go on meanwhile: what they write now is not on its way out of memory yet.
    if (!this.#dirty.isEmpty) await this.#sync()
    await new Promise<void>((resolve) => this.#lane.enter(resolve))
    const taken = await this.#take()
    if (!Array.isArray(taken)) {
      this.#lane.leave()
      return taken
    }
    this.#sent = this.#dirty.copy()
    this.#dirty.clear()
    this.#lane.leave()
    const codes = await Promise.all(
      taken.map(
        ({ offset, bytes }) =>
          new Promise<Code>((resolve) =>
            this.#home.backing.write(this.ref, offset, bytes, true, resolve),
          ),
      ),
    )
    const failure = codes.find((code) => code !== Code.SUCCESS)
    if (failure !== undefined) this.#dirty.addAll(this.#sent)
    this.#sent = undefined
    if (failure !== undefined) return failure
    try {
      this.#home.dirtied(this)
      return Code.SUCCESS
    } catch {
      return Code.SUCCESS // It is called dirty on disk for longer than it is: pushed once more after a crash.
    }
  }

  /** Pages that could not be written back are gone from memory without a word; a sync tells. */
  async #sync(): Promise<void> {
    try {
      await syncFile(this.#home.open(this))
    } catch (error) {
      this.#damage ??= codeOfErrno(error)
    }
  }

  /** What is dirty, as it is on this machine's disk; a code when there is nothing to send, or it cannot be read. */
  async #take(): Promise<{ readonly offset: number; readonly bytes: Buffer }[] | Code> {
    if (this.#damage !== undefined) return this.#damage
    if (this.#dirty.isEmpty) return Code.SUCCESS
    const { blockBytes, objectBytes } = this.#home
    try {
      const file = this.#home.open(this)
      const taken = []
      for (const run of this.#dirty.runs()) {
        const { offset, length } = bytesOfBlocks(run, blockBytes, objectBytes)
        const bytes = Buffer.allocUnsafe(length)
        const count = await readAt(file, bytes, offset)
        if (count < length) throw new Error(`a cached object ends at ${offset + count}`)
        taken.push({ offset, bytes })
      }
      return taken
    } catch (error) {
      this.#damage = codeOfErrno(error)
      return this.#damage
    }
  }
}
