/**
 * The `corosync` driver: nodes agree through a closed process group of corosync (cluster spec, section 11).
 *
 *   message.ts  the messages of 1.0        order.ts  one order of events out of them
 *   beat.ts     what members say beside    lease.ts  until when a member may be sure
 *   votes.ts    which part of a torn cluster goes on
 *   member.ts   one stay in the group      here      joining, again if need be, and corosync's own quorum
 */
import { Code, SheepError } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import { nodeKey, type SdNode } from '../../model/node.js'
import type { Corosync } from '../../world/corosync.js'
import type { World } from '../../world/world.js'
import type { ClusterDriver, DriverEvents } from '../driver.js'
import { CorosyncMember, type End } from './member.js'

/** Networks that have just changed change again. */
const AGAIN_MS = 200
/** A corosync that is being restarted takes seconds. */
const RECONNECT_MS = 1_000
/** How often a node that waits for corosync's quorum says so. */
const COMPLAIN_MS = 30_000

export interface CorosyncDriverOptions {
  readonly world: Pick<World, 'clock' | 'random'>
  readonly corosync: Corosync
  readonly log: Log
  /** The node was a member before: it waits for corosync and its cluster as long as it takes. */
  readonly isPatient?: boolean
}

/**
 * Rejects with an Error that names the remedy when corosync does not run or knows no address of this host; but
 * a patient one waits in `join`, and has no address.
 */
export async function corosyncDriver(options: CorosyncDriverOptions): Promise<ClusterDriver> {
  if (options.isPatient === true) return new CorosyncDriver(options, undefined)
  const [address] = await options.corosync.localAddresses()
  if (address === undefined) {
    throw new Error('corosync knows no address of this host: give one, -c corosync:ADDRESS or -y')
  }
  return new CorosyncDriver(options, address)
}

interface Joining {
  readonly self: SdNode
  readonly request: Buffer
  readonly events: DriverEvents
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

class CorosyncDriver implements ClusterDriver {
  readonly name = 'corosync'
  readonly #options: CorosyncDriverOptions
  readonly #address: string | undefined
  #member: CorosyncMember | undefined
  #joining: Joining | undefined
  #self: SdNode | undefined
  #departure: (() => void) | undefined
  #stopWatching: (() => void) | undefined
  #cancelAgain: (() => void) | undefined
  /** The reason for trying again that was told last. */
  #complained = ''
  /** Undefined until corosync has said so for the first time. */
  #quorate: boolean | undefined

  constructor(options: CorosyncDriverOptions, address: string | undefined) {
    this.#options = options
    this.#address = address
  }

  localAddress(): string {
    if (this.#address === undefined) throw new Error('corosync has not been asked for an address')
    return this.#address
  }

  sureUntil(): number {
    return this.#member?.sureUntil ?? Number.NEGATIVE_INFINITY
  }

  join(self: SdNode, request: Buffer, events: DriverEvents): Promise<void> {
    if (this.#self !== undefined) return Promise.reject(failed('this driver has joined already'))
    this.#self = self
    return new Promise((resolve, reject) => {
      this.#joining = { self, request, events, resolve, reject }
      this.#watchQuorum()
    })
  }

  leave(): Promise<void> {
    if (this.#self === undefined) return Promise.resolve()
    return new Promise((resolve) => {
      const before = this.#departure
      this.#departure = () => {
        before?.()
        resolve()
      }
      if (this.#member === undefined) this.#over({ kind: 'left' })
      else this.#member.leave()
    })
  }

  notify(message: Buffer): void {
    this.#inside().send('notify', message)
  }

  block(): void {
    this.#inside().send('block')
  }

  unblock(message: Buffer): void {
    const member = this.#inside()
    if (!member.blocking) {
      throw new SheepError(Code.CLUSTER_ERROR, 'unblock without an active block')
    }
    member.send('unblock', message)
    member.endBlock()
  }

  updateNode(node: SdNode): void {
    if (this.#self === undefined || nodeKey(node) !== nodeKey(this.#self)) {
      throw new SheepError(Code.CLUSTER_ERROR, 'a node can update itself only')
    }
    this.#inside().send('update', undefined, node)
  }

  #inside(): CorosyncMember {
    if (this.#member?.inside !== true) {
      throw new SheepError(Code.CLUSTER_ERROR, 'this node is not a member of the cluster')
    }
    return this.#member
  }

  #watchQuorum(): void {
    this.#stopWatching = this.#options.corosync.watchQuorum({
      changed: (quorate = true) => {
        const isNews = quorate !== this.#quorate
        this.#quorate = quorate
        if (!isNews) return
        this.#options.log.info('corosync.quorum', { quorate })
        this.#member?.quorum(quorate, 'the corosync of this host has lost quorum')
        this.#enter()
      },
      closed: (reason) => {
        this.#stopWatching = undefined
        this.#quorate = undefined
        const end = { kind: 'disconnected', reason, wasMember: false } as const
        if (this.#member !== undefined) this.#member.withdraw('disconnected', reason)
        else if (this.#joining !== undefined) this.#ended(end, this.#joining.events)
      },
    })
  }

  #enter(): void {
    const joining = this.#joining
    if (joining === undefined || this.#member !== undefined) return
    this.#cancelAgain?.()
    if (this.#quorate !== true) {
      this.#options.log.warn('corosync.waits', { reason: 'corosync has no quorum yet' })
      this.#cancelAgain = this.#options.world.clock.after(COMPLAIN_MS, () => this.#enter())
      return
    }
    const { self, request, events } = joining
    const member = new CorosyncMember({
      ...this.#options,
      self,
      request,
      events,
      entered: () => {
        this.#joining = undefined
        joining.resolve()
      },
      over: (end) => {
        if (this.#member !== member) return
        this.#member = undefined
        this.#ended(end, events)
      },
    })
    this.#member = member
    try {
      member.start()
    } catch (error) {
      this.#member = undefined
      this.#over({ kind: 'refused', reason: (error as Error).message })
    }
  }

  #ended(end: End, events: DriverEvents): void {
    if (end.kind !== 'left' && this.#joining !== undefined && this.#mayTryAgain(end)) {
      this.#again(end)
      return
    }
    this.#over(end)
    if (end.kind === 'broken' && end.wasMember) events.lost(end.reason)
    if ((end.kind === 'outside' || end.kind === 'disconnected') && end.wasMember) {
      events.suspended(end.reason)
    }
  }

  #mayTryAgain(end: End): boolean {
    if (end.kind === 'outside') return true
    const isPatience = end.kind === 'disconnected' || end.kind === 'unanswered'
    return isPatience && this.#options.isPatient === true
  }

  #again(end: Exclude<End, { kind: 'left' }>): void {
    const isNews = end.reason !== this.#complained
    if (isNews) this.#options.log.info('corosync.again', { reason: end.reason })
    this.#complained = end.reason
    const delay = end.kind === 'outside' ? AGAIN_MS : RECONNECT_MS
    this.#cancelAgain?.()
    this.#cancelAgain = this.#options.world.clock.after(delay, () => {
      if (this.#stopWatching === undefined) this.#watchQuorum()
      else this.#enter()
    })
  }

  #over(end: End): void {
    this.#cancelAgain?.()
    this.#stopWatching?.()
    this.#stopWatching = undefined
    this.#quorate = undefined
    this.#self = undefined
    const joining = this.#joining
    this.#joining = undefined
    joining?.reject(failed(end.kind === 'left' ? 'left before it was let in' : end.reason))
    this.#departure?.()
    this.#departure = undefined
  }
}

function failed(reason: string): SheepError {
  return new SheepError(Code.JOIN_FAILED, `cannot join the cluster: ${reason}`)
}
