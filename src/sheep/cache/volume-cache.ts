/**
 * Objects as the doors of this node use them: through its object cache where it has the right to one, and never past
 * somebody else's. Every node has this in front of its gateway, also one that caches nothing itself.
 *
 * Only the contents of data objects that exist are cached. Creations, inodes, attributes and the state of guests go to
 * their owners at once: no slot ever names an object that exists in a cache only.
 */
import { Code, codeName, codeOf, type Done } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import type { ObjectAccess, ObjectRef, SlotUpdate } from '../../model/access.js'
import { type Oid, oidIndex, oidVid, type Vid, vidName } from '../../model/oid.js'
import { type NodeId, sameNode } from '../../model/vdi-state.js'
import type { EpochLog } from '../../store/epoch-log.js'
import { type CacheInfo, type RightQuestion, rightChangeOf } from '../../wire/sheepdog/cache.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { objectFields } from '../../wire/sheepdog/requests.js'
import type { Clock, Files } from '../../world/world.js'
import type { Caller } from '../caller.js'
import type { Gateway } from '../gateway.js'
import type { PlacedRef } from '../placed-ref.js'
import type { NodeState } from '../state.js'
import type { CachedVolume } from './cached-volume.js'
import { Holdings } from './holdings.js'
import { type CacheOptions, ObjectCache } from './object-cache.js'
import { CacheRights, type RightsOptions } from './rights.js'
import { Uses } from './uses.js'

/** An announcement may be this much later than the question that follows it. */
const HEARING_MS = 10_000
const SHUTDOWN_PATIENCE_MS = 10_000

export interface VolumeCacheOptions extends RightsOptions {
  readonly gateway: Gateway
  readonly epochLog: EpochLog
  readonly files: Files
  /** Undefined: this node caches nothing. */
  readonly cache?: CacheOptions | undefined
}

export class VolumeCache implements ObjectAccess {
  readonly #gateway: Gateway
  readonly #state: NodeState
  readonly #clock: Clock
  readonly #log: Log
  readonly #rights: CacheRights
  readonly #uses = new Uses()
  readonly #holdings: Holdings | undefined

  /** Throws an Error for people when the cache's directory cannot be used. */
  constructor(options: VolumeCacheOptions) {
    const { gateway, state, clock, log, files, epochLog } = options
    this.#gateway = gateway
    this.#state = state
    this.#clock = clock
    this.#log = log
    this.#rights = new CacheRights(options)
    if (options.cache === undefined) return
    this.#holdings = new Holdings({
      ...{ state, clock, log, epochLog, rights: this.#rights, uses: this.#uses },
      cache: new ObjectCache(options.cache, { files, log }),
      backing: {
        ref: (oid) => gateway.ref(oid),
        read: (ref, offset, into, done) => gateway.read(ref, offset, into, done),
        write: (ref, offset, data, durable, done) =>
          this.#patiently(done, (ended) => gateway.push(ref, offset, data, durable, ended)),
      },
    })
  }

  /** Before this node joins. Rejects with errno errors. */
  async start(): Promise<void> {
    await this.#holdings?.begin()
  }

  /** Gives back what can be given back; nothing is cached any more. */
  async stop(): Promise<void> {
    const isServing = this.#state.status === 'ok' && !this.#gateway.stopping
    await this.#holdings?.stop(isServing)
    this.#rights.stop()
  }

  get stopping(): boolean {
    return this.#gateway.stopping
  }

  /** `isWanted`: false once nobody waits for what is done with the reference (gateway.ts). */
  ref(oid: Oid, isWanted?: () => boolean): ObjectRef {
    return this.#gateway.ref(oid, isWanted)
  }

  isSure(): boolean {
    return this.#gateway.isSure()
  }

  whenSure(go: () => void, fail: Done): void {
    this.#gateway.whenSure(go, fail)
  }

  begin(vid: Vid): boolean {
    return this.#gateway.begin(vid)
  }

  end(vid: Vid): void {
    this.#gateway.end(vid)
  }

  /** `pulls` false: what is not cached stays so. */
  read(ref: ObjectRef, offset: number, into: Uint8Array, done: Done, pulls = true): void {
    const { isData, vid } = ref as PlacedRef
    if (!isData) {
      this.#gateway.read(ref, offset, into, done)
      return
    }
    if (this.#holdings === undefined && !this.#rights.isForeign(vid)) {
      this.#uses.touch(vid)
      this.#gateway.read(ref, offset, into, done)
      return
    }
    const again = unlessGone(ref, done, () => this.read(ref, offset, into, done, pulls))
    this.#use(vid, again, done, (volume, ended) => {
      if (volume !== undefined) {
        volume.read(ref, offset, into, pulls, ended)
        return
      }
      this.#uses.touch(vid)
      if (pulls) this.#holdings?.want(vid)
      this.#gateway.read(ref, offset, into, done)
    })
  }

  write(ref: ObjectRef, offset: number, data: Uint8Array, durable: boolean, done: Done): void {
    const { isData, vid } = ref as PlacedRef
    if (!isData) {
      this.#gateway.write(ref, offset, data, durable, done)
      return
    }
    if (this.#holdings === undefined && !this.#rights.isForeign(vid)) {
      this.#uses.begin(vid)
      this.#gateway.write(ref, offset, data, durable, (code) => {
        this.#uses.end(vid)
        done(code)
      })
      return
    }
    const again = unlessGone(ref, done, () => this.write(ref, offset, data, durable, done))
    this.#use(vid, again, done, (volume, ended) => {
      if (volume !== undefined) {
        if (this.#state.vids.get(vid)?.snapshot === true) ended(Code.READONLY)
        else volume.write(ref, offset, data, durable, ended)
        return
      }
      if (!durable) this.#holdings?.want(vid)
      this.#counted(vid, done, (ended) => this.#gateway.write(ref, offset, data, durable, ended))
    })
  }

  /** Past the cache, of which nothing of the volume is left before. */
  writeDirect(ref: ObjectRef, offset: number, data: Uint8Array, done: Done): void {
    const { isData, vid } = ref as PlacedRef
    if (!isData || this.#holdings?.get(vid) === undefined) {
      this.write(ref, offset, data, true, done)
      return
    }
    const write = unlessGone(ref, done, () => this.write(ref, offset, data, true, done))
    this.letGo(vid, (code) => {
      if (code === Code.SUCCESS) write()
      else done(code)
    })
  }

  create(
    ref: ObjectRef,
    offset: number,
    data: Uint8Array,
    source: ObjectRef | undefined,
    done: Done,
  ): void {
    const { isData, vid } = ref as PlacedRef
    const create = (ended: Done): void => this.#gateway.create(ref, offset, data, source, ended)
    if (!isData) {
      create(done)
      return
    }
    const again = unlessGone(ref, done, () => this.create(ref, offset, data, source, done))
    const from = source === undefined ? vid : oidVid(source.oid)
    if (from !== vid && this.#isCachedAnywhere(from)) {
      // Its bytes are read from the owners.
      this.#free(from, again, done)
      return
    }
    this.#use(vid, again, done, (volume, ended) => this.#createIn(volume, ref, ended, create))
  }

  remove(oid: Oid, done: Done): void {
    const { isData, vid } = this.#gateway.ref(oid)
    if (!isData) {
      this.#gateway.remove(oid, done)
      return
    }
    const again = (): void => this.remove(oid, done)
    this.#use(vid, again, done, (volume, ended) => {
      const remove = (finish: Done): void => this.#gateway.remove(oid, finish)
      if (volume === undefined) this.#counted(vid, ended, remove)
      else void volume.drop([oidIndex(oid)]).then(() => remove(ended), toCode(ended))
    })
  }

  setSlots(update: SlotUpdate, done: Done): void {
    const { vid, first, next, previous } = update
    const again = unlessGone(update, done, () => this.setSlots(update, done))
    this.#use(vid, again, done, (volume, ended) => {
      if (volume === undefined) {
        this.#counted(vid, done, (finish) => this.#gateway.setSlots(update, finish))
        return
      }
      const gone: number[] = []
      previous.forEach((was, i) => {
        if (was === vid && next[i] !== was) gone.push(first + i)
      })
      if (gone.length === 0) {
        this.#gateway.setSlots(update, ended)
        return
      }
      // Should the update fail, what was written before must still be there.
      this.#pushed(volume, gone, ended, (finish) =>
        this.#gateway.setSlots(update, (code) => {
          if (code === Code.SUCCESS) void volume.drop(gone).then(() => finish(code), toCode(finish))
          else finish(code)
        }),
      )
    })
  }

  flush(vid: Vid, done: Done): void {
    const again = (): void => this.flush(vid, done)
    this.#use(vid, again, done, (volume, ended) => {
      if (volume === undefined) this.#gateway.flush(vid, done)
      else this.#pushed(volume, undefined, ended, (finish) => this.#gateway.flush(vid, finish))
    })
  }

  /** Pushes what is cached of the volume, and gives the right to it back; `isWanted` by another node. */
  letGo(vid: Vid, done: Done, isWanted = false): void {
    const given = this.#holdings?.giveUp(vid, isWanted) ?? this.#giveBack(vid)
    given.then(done, toCode(done))
  }

  /** Before the cluster is shut down: all nodes give back what they can within ten seconds. */
  async letAllGo(): Promise<void> {
    const vids = [...this.#state.vids.cachedBy.keys()]
    const given = vids.map(
      (vid) =>
        new Promise<void>((resolve) => {
          this.#free(vid, resolve, (code) => {
            this.#log.warn('cache.kept', { vid: vidName(vid), result: codeName(code) })
            resolve()
          })
        }),
    )
    let cancel: () => void = () => undefined
    const late = new Promise<void>((resolve) => {
      cancel = this.#clock.after(SHUTDOWN_PATIENCE_MS, resolve)
    })
    await Promise.race([Promise.all(given), late])
    cancel()
  }

  /** For the gateway: a snapshot waits until everything acknowledged is on the owners. */
  pushed(vid: Vid, done: () => void): void {
    if (this.#holdings?.get(vid) === undefined) {
      done()
      return
    }
    this.#holdings.quiet(vid).then(
      (isPushed) => {
        if (isPushed) done()
      },
      (error: unknown) => this.#log.error('cache.not-quiet', { reason: String(error) }),
    )
  }

  /** DELETE_CACHE, as all nodes hear of it in order: a client's, or a step about a right. */
  heard(message: Frame, sender: NodeId): void {
    const vid = oidVid(objectFields.oid(message))
    const change = rightChangeOf(message)
    if (change !== undefined) this.#rights.heard(change, vid, sender)
    // What it waits for may be behind this very message in the order of events.
    else void this.purge(vid)
  }

  /** CACHE_RIGHT, as another node asks. */
  answer(question: RightQuestion, caller: Caller, done: Done): void {
    const { vid, asks } = question
    if (asks === 'yield') this.letGo(vid, done, true)
    else this.#confirm(question, caller, done)
  }

  changed(vid: Vid): void {
    this.#rights.changed(vid)
    this.#holdings?.changed(vid)
  }

  /** Something of it is, or was, kept here. */
  isCaching(vid: Vid): boolean {
    return this.#holdings?.holds(vid) === true
  }

  /** Undefined: there is no cache. */
  info(): CacheInfo | undefined {
    return this.#holdings?.info()
  }

  /** Of this node alone, and not pushed. All volumes when not told which. */
  async purge(vid: Vid | undefined): Promise<void> {
    if (vid === undefined) await this.#holdings?.discardAll()
    else await this.#holdings?.discard(vid)
  }

  /** Runs `go` with the cached volume, or without when it is not cached; `again` once it may be used. */
  #use(
    vid: Vid,
    again: () => void,
    fail: Done,
    go: (volume: CachedVolume | undefined, ended: Done) => void,
  ): void {
    const holding = this.#holdings?.get(vid)
    if (holding === undefined || holding.state === 'asking' || holding.state === 'over') {
      if (this.#rights.isForeign(vid)) this.#rights.whenFree(vid, again, fail)
      else go(undefined, fail)
      return
    }
    if (holding.state === 'closed') {
      holding.wait(again)
      return
    }
    // Others may have gone on without this node, and with the volume.
    if (!this.#gateway.isSure()) {
      this.#gateway.whenSure(again, fail)
      return
    }
    holding.begin()
    go(holding.volume, (code) => {
      holding.ended()
      fail(code)
    })
  }

  #isCachedAnywhere(vid: Vid): boolean {
    const state = this.#holdings?.get(vid)?.state
    return state === 'held' || state === 'closed' || this.#rights.isForeign(vid)
  }

  /** Runs `go` when nobody had anything cached of the volume a moment ago. */
  #free(vid: Vid, go: () => void, fail: Done): void {
    if (this.#rights.isForeign(vid)) this.#rights.whenFree(vid, go, fail)
    else
      this.letGo(vid, (code) => {
        if (code === Code.SUCCESS) go()
        else fail(code)
      })
  }

  #counted(vid: Vid, done: Done, run: (ended: Done) => void): void {
    this.#uses.begin(vid)
    run((code) => {
      this.#uses.end(vid)
      done(code)
    })
  }

  #createIn(
    volume: CachedVolume | undefined,
    ref: ObjectRef,
    done: Done,
    create: (ended: Done) => void,
  ): void {
    if (volume === undefined) {
      this.#counted((ref as PlacedRef).vid, done, create)
      return
    }
    // Of an object that was there before and went; what is dirty of it has no place to go to.
    void volume.drop([oidIndex(ref.oid)]).then(() => create(done), toCode(done))
  }

  #pushed(
    volume: CachedVolume,
    indexes: readonly number[] | undefined,
    done: Done,
    then: (done: Done) => void,
  ): void {
    volume.push(indexes).then((code) => {
      if (code === Code.SUCCESS) then(done)
      else done(code)
    }, toCode(done))
  }

  /** Owners that are away are waited for, as a block device does (patient-access.ts). */
  #patiently(done: Done, run: (ended: Done) => void): void {
    const { view } = this.#state
    run((code) => {
      const waits = code === Code.HALT || code === Code.STALE_OBJ
      if (!waits || this.#state.status !== 'ok' || this.#gateway.stopping) done(code)
      else if (this.#state.view !== view) this.#patiently(done, run)
      else this.#state.afterViewChange(() => this.#patiently(done, run))
    })
  }

  /** A right this node does not know that it has. */
  async #giveBack(vid: Vid): Promise<Code> {
    if (!this.#rights.isOwn(vid)) return Code.SUCCESS
    return (await this.#rights.end(vid, 'release')).result
  }

  /** The event that names the holder may still be on its way here. */
  #confirm({ vid, isClaim, holder }: RightQuestion, caller: Caller, done: Done): void {
    const until = this.#clock.monotonic() + HEARING_MS
    const look = (): void => {
      const known = this.#rights.holderOf(vid)
      if (caller.isGone || this.#clock.monotonic() > until) done(Code.AGAIN)
      else if (known === undefined || !sameNode(known, holder)) this.#rights.soon(vid, look)
      else if (isClaim && this.#uses.isUsed(vid)) done(Code.STALE_OBJ)
      else
        this.#uses.whenIdle(vid, () => {
          this.#uses.forget(vid)
          done(Code.SUCCESS)
        })
    }
    look()
  }
}

/** What waited is done late, or not at all when its client is gone: it may have asked again, and gone on. */
function unlessGone(
  by: { readonly isWanted?: (() => boolean) | undefined } | ObjectRef,
  done: Done,
  again: () => void,
): () => void {
  return () => {
    const isWanted = 'isWanted' in by ? by.isWanted : undefined
    if (isWanted?.() === false) done(Code.NETWORK_ERROR)
    else again()
  }
}

/** For promises that end a request. */
function toCode(done: Done): (error: unknown) => void {
  return (error) => done(codeOf(error))
}
