/**
 * The `local` driver: nodes of one host agree through a shared directory, one directory a cluster.
 *
 *   lock          held for the moment of an append
 *   events.<n>    the order of events, in segments (event-log.ts)
 *   member.<id>   locked by a member as long as its process lives (presence.ts)
 *
 * Any process may be killed at any moment, also in the middle of a write or with the lock in hand.
 * Nothing is synced: after a crash of the machine all members are gone, and the first joiner buries
 * what the log still names. A memory file system (/dev/shm, /run) is a good place for the directory.
 */
import { Code, SheepError } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import { nodeKey, type SdNode } from '../../model/node.js'
import type { World } from '../../world/world.js'
import type { ClusterDriver, DriverEvents } from '../driver.js'
import { JOIN_BYTES_MAX } from '../membership.js'
import { attemptJoin, type Entrance } from './join.js'
import { LocalMember } from './member.js'

/** A join is answered within milliseconds unless the member that has to answer is stopped. */
const JOIN_WAIT_MS = 30_000
/** A killed process may take this long to be gone with its locks. */
const TAKEN_WAIT_MS = 3000
const JOIN_RETRY_MS = 20
const NO_ANSWER = 'the cluster did not answer, is its oldest node stopped?'

/** What a join has waited too long for. */
interface Late {
  join: boolean
  taken: boolean
}

export interface LocalDriverOptions {
  readonly world: Pick<World, 'files' | 'clock'>
  /** Of this cluster alone; made when absent. */
  readonly directory: string
  readonly log: Log
}

export function localDriver(options: LocalDriverOptions): ClusterDriver {
  return new LocalDriver(options)
}

class LocalDriver implements ClusterDriver {
  readonly name = 'local'
  readonly #options: LocalDriverOptions
  #member: LocalMember | undefined
  #self: SdNode | undefined
  #departure: (() => void) | undefined

  constructor(options: LocalDriverOptions) {
    this.#options = options
  }

  localAddress(): string {
    return '127.0.0.1'
  }

  sureUntil(): number {
    return Number.POSITIVE_INFINITY
  }

  async join(self: SdNode, request: Buffer, events: DriverEvents): Promise<void> {
    if (request.length > JOIN_BYTES_MAX) throw failed(`join request of ${request.length} bytes`)
    if (this.#self !== undefined) throw failed('this driver has joined already')
    this.#self = self
    const late: Late = { join: false, taken: false }
    const { clock } = this.#options.world
    const cancels = [
      clock.after(TAKEN_WAIT_MS, () => {
        late.taken = true
      }),
      clock.after(JOIN_WAIT_MS, () => {
        late.join = true
        this.#member?.withdraw(NO_ANSWER)
      }),
    ]
    try {
      await this.#run(await this.#enter(self, request, late), events, late)
    } catch (error) {
      this.#self = undefined
      throw error instanceof SheepError ? error : failed((error as Error).message)
    } finally {
      for (const cancel of cancels) cancel()
    }
  }

  leave(): Promise<void> {
    const member = this.#member
    if (member === undefined) return Promise.resolve()
    return new Promise((resolve) => {
      const before = this.#departure
      this.#departure = () => {
        before?.()
        resolve()
      }
      member.leave()
    })
  }

  notify(message: Buffer): void {
    this.#inside().send({ kind: 'notify', message })
  }

  block(): void {
    this.#inside().send({ kind: 'block' })
  }

  unblock(message: Buffer): void {
    this.#inside().unblock(message)
  }

  updateNode(node: SdNode): void {
    if (this.#self === undefined || nodeKey(node) !== nodeKey(this.#self)) {
      throw new SheepError(Code.CLUSTER_ERROR, 'a node can update itself only')
    }
    this.#inside().send({ kind: 'update', node })
  }

  async #enter(self: SdNode, request: Buffer, late: Readonly<Late>): Promise<Entrance> {
    const { world, directory } = this.#options
    const { files } = world
    if (!files.exists(directory)) files.mkdir(directory)
    for (;;) {
      const attempt = await attemptJoin({ files, directory, self, request })
      if (attempt.kind === 'entered') return attempt.entrance
      if (late.join || (late.taken && attempt.kind === 'taken')) throw failed(attempt.reason)
      await new Promise<void>((resolve) => world.clock.after(JOIN_RETRY_MS, resolve))
    }
  }

  /** Resolves with the own accept. */
  #run(entrance: Entrance, events: DriverEvents, late: Readonly<Late>): Promise<void> {
    const { world, directory, log } = this.#options
    return new Promise((resolve, reject) => {
      const member = new LocalMember({
        files: world.files,
        clock: world.clock,
        directory,
        log,
        entrance,
        events,
        entered: resolve,
        over: (reason, inside) => {
          this.#member = undefined
          this.#self = undefined
          if (!inside) reject(failed(reason))
          this.#departure?.()
          this.#departure = undefined
        },
      })
      this.#member = member
      if (late.join) member.withdraw(NO_ANSWER)
      member.start()
    })
  }

  #inside(): LocalMember {
    if (this.#member?.inside !== true) {
      throw new SheepError(Code.CLUSTER_ERROR, 'this node is not a member of the cluster')
    }
    return this.#member
  }
}

function failed(reason: string): SheepError {
  return new SheepError(Code.JOIN_FAILED, `cannot join the cluster: ${reason}`)
}
