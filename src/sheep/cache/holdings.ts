/**
 * The volumes this node caches. It takes the right to one when a client uses it in a way that may be cached, and begins
 * when every other member has heard of that and has ended its own writes. It gives the right back, with everything
 * pushed, when somebody else asks, when the volume becomes a snapshot, and when it stops.
 *
 *   asking --all have heard, own writes ended--> held <--> closed (operations wait) --> over
 */
import { Code, codeName } from '../../base/codes.js'
import { describe, type Log } from '../../base/log.js'
import { type Vid, vidName } from '../../model/oid.js'
import { sameNode } from '../../model/vdi-state.js'
import type { EpochLog } from '../../store/epoch-log.js'
import type { CacheInfo } from '../../wire/sheepdog/cache.js'
import type { Clock } from '../../world/world.js'
import type { NodeState } from '../state.js'
import { CachedVolume, type CachedVolumeOptions, DIRTY_FILE } from './cached-volume.js'
import { type DirtyFound, readDirty } from './dirty-file.js'
import { Holding } from './holding.js'
import type { ObjectCache } from './object-cache.js'
import { refusalOf } from './recovered.js'
import type { CacheRights } from './rights.js'
import type { Uses } from './uses.js'

/** A volume somebody else wanted is left alone for a while: two who share one do better without a cache. */
const CONTENDED_MS = 30_000
const PUSH_RETRY_MS = 1_000
/** An orderly stop waits for pushes this long; what is left outlives it on disk. */
const STOP_PATIENCE_MS = 10_000
/** Objects of volumes beyond this are pushed in too large pieces. */
const BLOCK_SIZE_SHIFT_MAX = 24

export interface HoldingsOptions {
  readonly cache: ObjectCache
  readonly state: NodeState
  readonly rights: CacheRights
  readonly uses: Uses
  readonly epochLog: EpochLog
  readonly backing: CachedVolumeOptions['backing']
  readonly clock: Clock
  readonly log: Log
}

export class Holdings {
  readonly #options: HoldingsOptions
  readonly #holdings = new Map<Vid, Holding>()
  /** Until when (monotonic) a volume is used without the cache. */
  readonly #contended = new Map<Vid, number>()
  #isOver = false

  constructor(options: HoldingsOptions) {
    this.#options = options
  }

  get(vid: Vid): Holding | undefined {
    return this.#holdings.get(vid)
  }

  /** What an earlier process left dirty is settled before anybody uses it here; call once, before serving. */
  async begin(): Promise<void> {
    const { cache, state } = this.#options
    await cache.start()
    const left = await cache.found()
    for (const vid of left) this.#holdings.set(vid, new Holding(vid, 'closed'))
    const serve = (): void => {
      if (this.#isOver) return
      if (state.status !== 'ok') {
        state.afterViewChange(serve)
        return
      }
      for (const vid of left) void this.#return(this.#holdings.get(vid)!)
      this.#follow()
    }
    serve()
  }

  /** Begins to cache the volume soon, if that may be. */
  want(vid: Vid): void {
    if (this.#holdings.has(vid) || !this.#isCacheable(vid)) return
    const holding = new Holding(vid, 'asking')
    this.#holdings.set(vid, holding)
    this.#take(holding).catch((error: unknown) => {
      this.#options.log.warn('cache.not-taken', { vid: vidName(vid), reason: describe(error) })
      this.#over(holding)
    })
  }

  /**
   * Pushes everything and gives the right back, to somebody else who wants it (`isWanted`) or not. EIO: the files
   * cannot be read, nothing is given back.
   */
  async giveUp(vid: Vid, isWanted = false): Promise<Code> {
    const holding = this.#holdings.get(vid)
    if (holding === undefined) {
      if (this.#options.rights.isOwn(vid)) await this.#options.rights.end(vid, 'release')
      return Code.SUCCESS
    }
    holding.cancel()
    if (isWanted) this.#leaveAlone(vid)
    return await holding.change(async () => {
      const { volume } = holding
      if (volume === undefined) return Code.SUCCESS
      const code = await this.#pushAll(holding)
      if (code !== Code.SUCCESS || this.#isOver) {
        holding.open(volume)
        return code
      }
      await this.#end(holding, volume)
      return Code.SUCCESS
    })
  }

  /** Tries until everything the volume's clients were told is on its owners. False: this node stops before. */
  async quiet(vid: Vid): Promise<boolean> {
    const holding = this.#holdings.get(vid)
    if (holding === undefined) return true
    holding.cancel()
    return await holding.change(async () => {
      const { volume } = holding
      if (volume === undefined) return true
      const code = await this.#pushAll(holding)
      if (code === Code.EIO) {
        const reason = 'its files cannot be read; flushes have failed, a snapshot goes without them'
        this.#options.log.error('cache.damaged', { vid: vidName(vid), reason })
      }
      holding.open(volume)
      return code === Code.SUCCESS || code === Code.EIO
    })
  }

  /** What is cached goes without being pushed: whoever says so has been told. */
  async discard(vid: Vid): Promise<void> {
    const holding = this.#holdings.get(vid)
    await holding?.change(async () => {
      const { volume } = holding
      if (volume === undefined) return
      if (volume.dirtyCount > 0 && !this.#options.state.vids.isDeleted(vid)) {
        const fields = { vid: vidName(vid), objects: volume.dirtyCount }
        this.#options.log.warn('cache.dirty.thrown-away', fields)
      }
      await volume.drop()
      holding.open(volume)
    })
  }

  async discardAll(): Promise<void> {
    await Promise.all([...this.#holdings.keys()].map((vid) => this.discard(vid)))
  }

  holds(vid: Vid): boolean {
    return this.#holdings.has(vid)
  }

  /** The volume became a snapshot, was deleted, or grew. */
  changed(vid: Vid): void {
    const holding = this.#holdings.get(vid)
    if (holding === undefined || holding.state === 'asking') return
    const { vids } = this.#options.state
    if (vids.isDeleted(vid)) void this.discard(vid).then(() => this.giveUp(vid))
    else if (vids.get(vid)?.snapshot === true) void this.giveUp(vid)
  }

  info(): CacheInfo {
    const { cache } = this.#options
    const volumes = [...this.#holdings.values()].flatMap(({ vid, volume }) =>
      volume === undefined || volume.objectCount === 0
        ? []
        : [{ vid, dirty: volume.dirtyCount, total: volume.objectCount }],
    )
    const { sizeBytes, usedBytes, directio } = cache
    return { sizeBytes, usedBytes, volumes, directio }
  }

  /** Gives everything back if it can (`pushes`); what stays dirty is left on disk for the next start. */
  async stop(pushes: boolean): Promise<void> {
    const { cache, clock, log } = this.#options
    if (pushes) {
      const given = Promise.all([...this.#holdings.keys()].map((vid) => this.giveUp(vid)))
      let cancel: () => void = () => undefined
      const late = new Promise<void>((resolve) => {
        cancel = clock.after(STOP_PATIENCE_MS, resolve)
      })
      await Promise.race([given, late])
      cancel()
    }
    this.#isOver = true
    for (const holding of [...this.#holdings.values()]) {
      const { volume } = holding
      holding.end()
      this.#holdings.delete(holding.vid)
      if (volume === undefined) continue
      if (volume.dirtyCount > 0) {
        log.warn('cache.left-dirty', { vid: vidName(holding.vid), objects: volume.dirtyCount })
        await volume.preserve().catch((error: unknown) => {
          log.error('cache.not-preserved', { vid: vidName(holding.vid), reason: describe(error) })
        })
      }
      volume.close()
    }
    cache.close()
  }

  #isCacheable(vid: Vid): boolean {
    const { state, rights, cache, clock } = this.#options
    if (this.#isOver || state.status !== 'ok' || rights.isForeign(vid)) return false
    const known = state.vids.get(vid)
    if (known === undefined || known.snapshot || known.deleted) return false
    if (known.lock.state === 'shared') return false
    const shift = state.blockSizeShiftOf(vid)
    if (shift > BLOCK_SIZE_SHIFT_MAX || 2 ** shift > cache.sizeBytes / 2) return false
    const until = this.#contended.get(vid)
    if (until !== undefined && clock.monotonic() < until) return false
    this.#contended.delete(vid)
    return true
  }

  async #take(holding: Holding): Promise<void> {
    const { vid } = holding
    if (!(await this.#granted(holding, false))) {
      this.#leaveAlone(vid)
      await this.#giveBack(holding)
      return
    }
    await holding.change(async () => {
      await new Promise<void>((resolve) => this.#options.uses.whenIdle(vid, resolve))
      const isSnapshot = this.#options.state.vids.get(vid)?.snapshot !== false
      if (holding.isCancelled || isSnapshot || this.#isOver) await this.#giveBack(holding)
      else await this.#hold(holding)
    })
  }

  /** Takes the right; true when all other members agree that it is this node's. */
  async #granted(holding: Holding, isClaim: boolean): Promise<boolean> {
    const { rights, state } = this.#options
    const { vid } = holding
    const { result } = await rights.take(vid)
    if (result !== Code.SUCCESS || !rights.isOwn(vid)) return false
    const others = state.members.filter((member) => !state.isSelf(member))
    const all = Promise.all(others.map((node) => rights.confirmed(node, vid, isClaim)))
    const agreed = all.then((answers) => answers.every((isFine) => isFine))
    return await (isClaim ? agreed : Promise.race([agreed, holding.cancelled.then(() => false)]))
  }

  async #hold(holding: Holding, found?: DirtyFound): Promise<void> {
    const { cache, state, backing, clock, log } = this.#options
    const { vid } = holding
    const { ctime } = state.settings
    const blockSizeShift = found?.head.blockSizeShift ?? state.blockSizeShiftOf(vid)
    const head = { ctime, epoch: state.epoch, blockSizeShift }
    const objects = found === undefined ? {} : { found: found.objects }
    try {
      const volume = await CachedVolume.open({ vid, cache, backing, clock, log, head, ...objects })
      holding.open(volume)
      log.info('cache.right.taken', { vid: vidName(vid), dirty: volume.dirtyCount })
    } catch (error) {
      log.warn('cache.volume.refused', { vid: vidName(vid), reason: describe(error) })
      await this.#giveBack(holding)
    }
  }

  /** After a start: what was left dirty is taken up again if nobody can have used the volume meanwhile. */
  async #return(holding: Holding): Promise<void> {
    const { cache, log } = this.#options
    const { vid } = holding
    try {
      const path = `${cache.volumeDirectory(vid)}/${DIRTY_FILE}`
      const found = cache.files.exists(path) ? await readDirty(cache.files, path) : undefined
      if (found === undefined || found.objects.size === 0) {
        await cache.clean(vid, new Set())
        await this.#giveBack(holding)
        return
      }
      const refusal = await this.#refusal(holding, found)
      if (refusal === undefined) {
        await this.#hold(holding, found)
        return
      }
      const where = await cache.setAside(vid)
      const fields = { vid: vidName(vid), objects: found.objects.size, where, reason: refusal }
      log.error('cache.set-aside', fields)
      await this.#giveBack(holding)
    } catch (error) {
      log.error('cache.unreadable', { vid: vidName(vid), reason: describe(error) })
      await this.#giveBack(holding)
    }
  }

  async #refusal(holding: Holding, found: DirtyFound): Promise<string | undefined> {
    const { rights, state, epochLog, cache } = this.#options
    const { vid } = holding
    const refusal = refusalOf({ found, vid, state, boot: cache.boot })
    if (refusal !== undefined) return refusal
    if (rights.isOwn(vid)) return undefined
    if (found.head.epoch > state.epoch) return 'its epoch is none of this cluster'
    // Everybody was away: nobody is left who would know.
    for (let epoch = found.head.epoch; epoch <= state.epoch; epoch++) {
      const nodes = epochLog.read(epoch)?.nodes
      const wasMember = nodes?.some((node) => sameNode(node, state.self)) === true
      if (!wasMember) return `others may have used the volume: this node was away in epoch ${epoch}`
    }
    if (await this.#granted(holding, true)) return undefined
    return 'others have used the volume meanwhile'
  }

  /** Operations of the volume have ended and wait. */
  async #pushAll(holding: Holding): Promise<Code> {
    const { clock, log } = this.#options
    const { volume } = holding
    for (;;) {
      const code = (await volume?.push()) ?? Code.SUCCESS
      if (code === Code.SUCCESS || code === Code.EIO || this.#isOver) return code
      const fields = { vid: vidName(holding.vid), result: codeName(code) }
      log.warn('cache.push.failed', fields)
      if (code === Code.SHUTDOWN) return code
      await new Promise<void>((resolve) => void clock.after(PUSH_RETRY_MS, resolve))
    }
  }

  async #end(holding: Holding, volume: CachedVolume): Promise<void> {
    await volume.end()
    await this.#giveBack(holding)
  }

  /** The right goes back, whatever became of taking it; operations that wait go on without the cache. */
  async #giveBack(holding: Holding): Promise<void> {
    const { rights } = this.#options
    if (rights.isOwn(holding.vid)) await rights.end(holding.vid, 'release')
    this.#over(holding)
  }

  #leaveAlone(vid: Vid): void {
    this.#contended.set(vid, this.#options.clock.monotonic() + CONTENDED_MS)
  }

  #over(holding: Holding): void {
    if (this.#holdings.get(holding.vid) === holding) this.#holdings.delete(holding.vid)
    holding.end()
  }

  /** The right was good in each epoch this node lives to see; a format ends it. */
  #follow(): void {
    const { state, rights, log } = this.#options
    state.afterViewChange(() => {
      if (this.#isOver) return
      for (const holding of [...this.#holdings.values()]) {
        const { vid, volume } = holding
        if (holding.state !== 'held') continue
        try {
          if (rights.isOwn(vid)) volume?.stamp(state.epoch)
          else void this.discard(vid).then(() => this.giveUp(vid))
        } catch (error) {
          log.warn('cache.epoch.not-noted', { vid: vidName(vid), reason: describe(error) })
        }
      }
      this.#follow()
    })
  }
}
