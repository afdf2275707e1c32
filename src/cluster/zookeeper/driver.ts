/**
 * The `zookeeper` driver: nodes agree through an Apache ZooKeeper ensemble, in the form sheepdog 1.0 uses
 * there (cluster spec, section 10), so that its nodes may be in the same cluster.
 *
 * A server that dies or falls silent costs nothing: the session goes on with another one. When the session
 * itself ends, the others have gone on without this node: it hears `suspended`, stops serving, and joins again.
 */
import { Code, SheepError } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import { nodeKey, type SdNode } from '../../model/node.js'
import type { World } from '../../world/world.js'
import type { ClusterDriver, DriverEvents } from '../driver.js'
import { JOIN_BYTES_MAX } from '../membership.js'
import { type Entrance, enter } from './entrance.js'
import { isExpiry, Layout } from './layout.js'
import { type Ending, ZookeeperMember } from './member.js'
import type { ZookeeperOptions } from './options.js'
import { ZkSession } from './session.js'

export interface ZookeeperDriverOptions extends ZookeeperOptions {
  readonly world: Pick<World, 'clock' | 'network' | 'random'>
  readonly log: Log
  /** Waits for the ensemble without end, in `join`. */
  readonly isPatient?: boolean
}

/** Rejects, with the servers that were tried, when none of them answers within the session time-out. */
export async function openZookeeperDriver(options: ZookeeperDriverOptions): Promise<ClusterDriver> {
  const zk = new ZkSession(options)
  if (options.isPatient === true) return new ZookeeperDriver(options, zk)
  const isUp = await new Promise<boolean>((resolve) => {
    const cancel = options.world.clock.after(options.timeoutMs, () => resolve(false))
    zk.onConnected = () => {
      cancel()
      resolve(true)
    }
    // The sockets may have been faster than this.
    if (zk.connected) zk.onConnected()
  })
  if (isUp) return new ZookeeperDriver(options, zk)
  const tried = zk.describeFailures()
  await zk.close()
  throw new SheepError(
    Code.JOIN_FAILED,
    `no ZooKeeper server answered within ${options.timeoutMs} ms; tried ${tried}: ` +
      'start the ensemble, or name its servers in -c zookeeper:HOST:PORT[,HOST:PORT...]',
  )
}

/** A join that has to begin anew, with another session. */
class Again extends Error {}

class ZookeeperDriver implements ClusterDriver {
  readonly name = 'zookeeper'
  readonly #options: ZookeeperDriverOptions
  readonly #layout: Layout
  #zk: ZkSession
  #isSpent = false
  #self: SdNode | undefined
  #member: ZookeeperMember | undefined
  #departure: (() => void) | undefined

  constructor(options: ZookeeperDriverOptions, zk: ZkSession) {
    this.#options = options
    this.#layout = new Layout(options.root)
    this.#zk = zk
  }

  /** The address the connection to the ensemble has on this side. */
  localAddress(): string {
    return this.#zk.localHost ?? '127.0.0.1'
  }

  sureUntil(): number {
    return this.#member?.inside === true ? this.#zk.sureUntil() : Number.NEGATIVE_INFINITY
  }

  async join(self: SdNode, request: Buffer, events: DriverEvents): Promise<void> {
    if (request.length > JOIN_BYTES_MAX) throw failed(`join request of ${request.length} bytes`)
    if (this.#self !== undefined) throw failed('this driver has joined already')
    this.#self = self
    const quiet = this.#complainWhileOut()
    try {
      while (!(await this.#attempt(self, request, events)));
    } catch (error) {
      this.#self = undefined
      this.#spend()
      throw error instanceof SheepError ? error : failed((error as Error).message)
    } finally {
      quiet()
    }
  }

  leave(): Promise<void> {
    if (this.#self === undefined) return this.#zk.close()
    return new Promise((resolve) => {
      const before = this.#departure
      this.#departure = () => {
        before?.()
        resolve()
      }
      if (this.#member === undefined) void this.#zk.close()
      else this.#member.leave()
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

  /** False: the session ended under it. */
  async #attempt(self: SdNode, request: Buffer, events: DriverEvents): Promise<boolean> {
    if (this.#isSpent) {
      this.#zk = new ZkSession(this.#options)
      this.#isSpent = false
    }
    const zk = this.#zk
    try {
      const entrance = await enter({ ...this.#options, zk, layout: this.#layout, self, request })
      await this.#run(zk, entrance, events)
      return true
    } catch (error) {
      this.#spend()
      if (this.#departure !== undefined) {
        this.#left()
        throw failed('left before it was let in')
      }
      if (error instanceof Again || isExpiry(error)) return false
      throw error
    }
  }

  /** Resolves with the own accept. */
  #run(zk: ZkSession, entrance: Entrance, events: DriverEvents): Promise<void> {
    return new Promise((resolve, reject) => {
      const { log } = this.#options
      const member = new ZookeeperMember({
        ...this.#options,
        zk,
        layout: this.#layout,
        self: this.#self!,
        entrance,
        events,
        entered: resolve,
        over: (ending) => {
          this.#member = undefined
          this.#spend()
          if (ending.inside) this.#ended(ending, events)
          reject(ending.kind === 'again' ? new Again(ending.reason) : new Error(ending.reason))
        },
      })
      zk.onExpired = (reason) => {
        log.warn('zookeeper.session.expired', { reason })
        member.expired(reason)
      }
      this.#member = member
      member.start()
    })
  }

  #ended({ kind, reason }: Ending, events: DriverEvents): void {
    this.#self = undefined
    if (kind === 'left') {
      // Its nodes go with the session; only then may the same address come back.
      void this.#zk.close().then(() => this.#left())
      return
    }
    this.#left()
    this.#options.log.error('cluster.lost', { reason })
    if (kind === 'again') events.suspended(reason)
    else events.lost(reason)
  }

  #left(): void {
    this.#departure?.()
    this.#departure = undefined
  }

  /** The session serves no other attempt. */
  #spend(): void {
    this.#isSpent = true
    void this.#zk.close()
  }

  /** An administrator should hear why nothing happens. */
  #complainWhileOut(): () => void {
    const { world, timeoutMs, log } = this.#options
    const look = (): void => {
      const tried = this.#zk.describeFailures()
      if (this.#zk.connected) log.warn('cluster.join.waiting', { cluster: this.#layout.root })
      else log.warn('zookeeper.unreachable', { tried })
      cancel = world.clock.after(timeoutMs, look)
    }
    let cancel = world.clock.after(timeoutMs, look)
    return () => cancel()
  }

  #inside(): ZookeeperMember {
    if (this.#member?.inside !== true) {
      throw new SheepError(Code.CLUSTER_ERROR, 'this node is not a member of the cluster')
    }
    return this.#member
  }
}

function failed(reason: string): SheepError {
  return new SheepError(Code.JOIN_FAILED, `cannot join the cluster: ${reason}`)
}
