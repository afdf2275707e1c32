/** Looks after volume operations and removals whose node died half-way. */
import type { Log } from '../base/log.js'
import type { Vid } from '../model/oid.js'
import { Flag, Op } from '../wire/sheepdog/opcodes.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import type { Files } from '../world/world.js'
import type { ClusterOps } from './cluster-ops.js'
import type { InodeIo } from './inode-io.js'
import type { Reclaim } from './reclaim.js'
import { examine } from './settle.js'
import type { NodeState } from './state.js'

/** Where `Reclaim` keeps its intents, below the meta directory. */
export const INTENTS = 'reclaim'

export interface CaretakerOptions {
  readonly state: NodeState
  readonly ops: ClusterOps
  readonly inodes: InodeIo
  readonly reclaim: Reclaim
  readonly files: Files
  readonly log: Log
  /** The meta directory. */
  readonly directory: string
}

export class Caretaker {
  readonly #options: CaretakerOptions

  constructor(options: CaretakerOptions) {
    this.#options = options
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
   * One member, the first in node order, settles for all. `everything`: nobody lived through the
   * crash, so any operation may have been cut off.
   */
  settleSoon(everything: boolean): void {
    const { state, ops, log } = this.#options
    const first = state.epochNodes[0]
    if (first === undefined || !state.isSelf(first)) return
    ops
      .exclusively(() => this.#settle(everything))
      .catch((error: unknown) => log.error('settle.failed', { reason: String(error) }))
  }

  async #settle(everything: boolean): Promise<void> {
    const { state, ops, inodes, reclaim, log } = this.#options
    const { vids } = state
    const candidates = new Set<Vid>(ops.unfinished())
    for (const { vid } of vids.all()) {
      if (vids.isInUse(vid) && (everything || vids.isDeleted(vid))) candidates.add(vid)
    }
    const found = await examine(state, inodes, candidates)
    for (const { vid } of found.undo) {
      log.warn('snapshot.undone', { vid: vid.toString(16) })
      await inodes.blank(vid)
      await ops.broadcast(...deletion(vid))
    }
    for (const { vid, parent, copies, policy, blockSizeShift } of found.adopt) {
      const what = { oldVid: parent, newVid: vid, copies, policy, blockSizeShift }
      await ops.announce({ ...what, setBitmap: true })
    }
    for (const vid of found.reclaim) reclaim.deleteVolume(vid)
  }
}

function deletion(vid: Vid): [Buffer, Buffer] {
  const payload = Buffer.alloc(4)
  payload.writeUInt32LE(vid)
  const head = plainRequest({ opcode: Op.NOTIFY_VDI_DEL, flags: Flag.WRITE, dataLength: 4 })
  return [head, payload]
}
