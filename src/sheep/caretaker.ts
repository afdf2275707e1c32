/**
 * Looks after volume operations and removals whose node died half-way. Runs as a volume operation itself,
 * so nothing is created, deleted or locked meanwhile.
 */
import { Code, codeName, codeOf, retryOf } from '../base/codes.js'
import type { Log } from '../base/log.js'
import { type InodeHeader, NAME_BYTES, refRange, slotsOf } from '../model/inode.js'
import { type Vid, vidName } from '../model/oid.js'
import type { Clock, Files } from '../world/world.js'
import type { ClusterOps } from './cluster-ops.js'
import { type InodeCopies, versionToKeep } from './inode-copies.js'
import { type InodeIo, readableHeader } from './inode-io.js'
import type { SheepNode } from './node.js'
import type { Reclaim } from './reclaim.js'
import { Recycling, type RecyclingOptions } from './recycling.js'
import { settlement } from './settle.js'
import type { NodeState } from './state.js'

/** Where `Reclaim` keeps its intents, below the meta directory. */
export const INTENTS = 'reclaim'

const INODES_AT_ONCE = 8
const RETRY_MS = 1_000

export interface CaretakerOptions {
  readonly state: NodeState
  readonly ops: ClusterOps
  readonly inodes: InodeIo
  readonly copies: InodeCopies
  readonly reclaim: Reclaim
  readonly files: Files
  readonly clock: Clock
  readonly log: Log
  /** The meta directory. */
  readonly directory: string
  readonly node: Pick<SheepNode, 'locks' | 'peers' | 'recovery' | 'suspects' | 'store' | 'epochLog'>
  readonly isHeld: RecyclingOptions['isHeld']
  readonly changed: RecyclingOptions['changed']
}

export class Caretaker {
  readonly #options: CaretakerOptions
  /** Of ids that nothing has any more. */
  readonly recycling: Recycling

  constructor(options: CaretakerOptions) {
    this.#options = options
    const { locks, peers, recovery, suspects, store, epochLog } = options.node
    const intents = `${options.directory}/${INTENTS}`
    const parts = { locks, peers, recovery, suspects, store, epochLog, intents }
    this.recycling = new Recycling({ ...options, ...parts })
  }

  /** Removals this node had begun when it stopped. */
  resumeIntents(): void {
    const { files, reclaim, log } = this.#options
    const directory = `${this.#options.directory}/${INTENTS}`
    if (!files.exists(directory)) return
    files.readDir(directory).then(
      (names) => reclaim.resumeIntents(names),
      (error: unknown) => log.error('reclaim.intents.unreadable', { reason: String(error) }),
    )
  }

  /**
   * One member, the first in node order, settles for all, and tries again until it has. `everything`:
   * nobody lived through the crash, so any operation may have been cut off.
   */
  settleSoon(everything: boolean): void {
    const { state, ops, clock, log } = this.#options
    const [first] = state.epochNodes
    if (first === undefined || !state.isSelf(first) || state.status !== 'ok') return
    ops
      .exclusively(() => this.#settle(everything))
      .catch((error: unknown) => {
        log.error('settle.failed', { reason: String(error) })
        clock.after(RETRY_MS, () => this.settleSoon(everything))
      })
  }

  async #settle(everything: boolean): Promise<void> {
    const { state, ops, inodes, log } = this.#options
    const { vids } = state
    const unfinished = ops.unfinished()
    const announced = unfinished.map(({ vid }) => vid)
    const headers = await this.#alike(new Set([...vids.living(), ...announced]))
    const found = settlement(vids, headers, everything)
    for (const header of headers) {
      if (unfinished.some(({ vid, from }) => [vid, from].includes(header.vid)))
        await this.#alignRefs(header)
    }
    for (const { vid } of found.undo) {
      log.warn('snapshot.undone', { vid: vidName(vid) })
      await inodes.blank(vid)
      await ops.announceGone(vid)
    }
    for (const { vid, copies, policy, blockSizeShift } of found.reopen) {
      log.warn('snapshot.called-off', { vid: vidName(vid) })
      const oldVid = vids.get(vid)!.parent
      const what = { oldVid, newVid: vid, copies, policy, blockSizeShift }
      await ops.announce({ ...what, setBitmap: true, reopens: true })
    }
    for (const { vid, parent, copies, policy, blockSizeShift } of found.adopt) {
      log.warn('vdi.adopted', { vid: vidName(vid) })
      const what = { oldVid: parent, newVid: vid, copies, policy, blockSizeShift }
      await ops.announce({ ...what, setBitmap: true })
    }
    for (const vid of found.deleted) await ops.announceGone(vid)
    await this.#takeBackDeleted()
  }

  /** Counts that were being raised: on some copies they are, on others not. */
  async #alignRefs(header: InodeHeader): Promise<void> {
    const { vid, sizeBytes, blockSizeShift } = header
    const { inodes } = this.#options
    // An index keeps no counts.
    if (header.storePolicy !== 0) return
    const { offset, length } = refRange(0, slotsOf(sizeBytes, blockSizeShift))
    const refs = await inodes.read(vid, offset, length)
    if (refs !== undefined) await inodes.write(vid, offset, refs)
  }

  /** Deleted volumes still have a size until all their objects are given back. */
  async #takeBackDeleted(): Promise<void> {
    const { state, copies, inodes, reclaim } = this.#options
    const { vids } = state
    const deleted = [...vids.all()].map(({ vid }) => vid).filter((vid) => vids.isDeleted(vid))
    await inTurns(deleted, async (vid) => {
      await this.#unlessLost(vid, async () => {
        const found = await copies.headers(vid)
        const nameless = found.find((header) => header[0] === 0)
        if (nameless === undefined) return
        if (found.some((header) => header[0] !== 0)) {
          await inodes.write(vid, 0, nameless.subarray(0, NAME_BYTES))
        }
        if (readableHeader(nameless).sizeBytes > 0) reclaim.deleteVolume(vid)
      })
    })
  }

  /** The headers, after copies that differed have been made alike. */
  async #alike(candidates: Iterable<Vid>): Promise<InodeHeader[]> {
    const { copies, inodes, log } = this.#options
    const headers = new Map<Vid, InodeHeader>()
    const torn = new Map<Vid, Buffer[]>()
    await inTurns([...candidates], async (vid) => {
      await this.#unlessLost(vid, async () => {
        const found = await copies.headers(vid)
        const [first] = found
        if (first === undefined) return
        headers.set(vid, readableHeader(versionToKeep(found)))
        if (!found.every((header) => header.equals(first))) torn.set(vid, found)
      })
    })
    for (const [vid, found] of torn) {
      const kept = this.#choose(vid, found, [...headers.values()])
      log.warn('inode.made-alike', { vid: vidName(vid) })
      await inodes.write(vid, 0, kept)
      headers.set(vid, readableHeader(kept))
    }
    return [...headers.values()]
  }

  /** A name somebody has taken meanwhile cannot be given back. */
  #choose(vid: Vid, found: readonly Buffer[], headers: readonly InodeHeader[]): Buffer {
    const { vids } = this.#options.state
    const kept = versionToKeep(found)
    const nameless = found.find((header) => header[0] === 0)
    const { name, snapCtime } = readableHeader(kept)
    const isTaken = headers.some(
      (other) =>
        other.vid !== vid &&
        other.name === name &&
        other.snapCtime === 0n &&
        snapCtime === 0n &&
        vids.isInUse(other.vid),
    )
    return isTaken && nameless !== undefined ? nameless : kept
  }

  /** An inode nobody can read, now or by trying again, does not hold up the others. */
  async #unlessLost(vid: Vid, look: () => Promise<void>): Promise<void> {
    try {
      await look()
    } catch (error) {
      const code = codeOf(error)
      if (retryOf(code) !== 'never' || code === Code.SHUTDOWN) throw error
      const fields = { vid: vidName(vid), result: codeName(code), reason: String(error) }
      this.#options.log.warn('inode.unreadable', fields)
    }
  }
}

/** Several at once; the first failure wins. */
async function inTurns(vids: readonly Vid[], work: (vid: Vid) => Promise<void>): Promise<void> {
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < vids.length) await work(vids[next++]!)
  }
  await Promise.all(Array.from({ length: INODES_AT_ONCE }, worker))
}
