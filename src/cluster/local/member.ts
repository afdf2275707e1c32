/**
 * A process that is in the log: reads what is ordered, orders what it has to say, finds the dead.
 *
 * It wakes up when the directory changes and every TICK_MS in any case. The lock is taken only to append
 * and never across a turn of the event loop. A process stopped with the lock in hand stops the whole
 * order, of joins, leaves and messages alike, until it goes on or is killed: nobody's view can go wrong
 * meanwhile, so the others wait, complain in the log and do not give up.
 */
import { Code, SheepError } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import type { Clock, Files } from '../../world/world.js'
import { Delivery } from '../delivery.js'
import type { DriverEvents } from '../driver.js'
import {
  type Entry,
  everybody,
  type MemberId,
  mayAppend,
  memberById,
  nextToBury,
} from '../membership.js'
import { Outbox } from '../outbox.js'
import { segmentNumber, segmentPath } from './event-log.js'
import { type Entrance, lockPath } from './join.js'
import { memberOfFile, memberPath, Presence } from './presence.js'

const TICK_MS = 50
/** The lock is held for microseconds; who finds it taken looks again soon, then less often. */
const LOCK_RETRY_MIN_MS = 1
const LOCK_RETRY_MAX_MS = 20
const LOCK_COMPLAIN_MS = 5000
/** Records appended in one go before somebody else gets a chance. */
const BATCH_MAX = 256
/** An orderly leave takes this long at most; then the released lock tells the others. */
const LEAVE_WAIT_MS = 5000

export interface MemberOptions {
  readonly files: Files
  readonly clock: Clock
  readonly directory: string
  readonly log: Log
  readonly entrance: Entrance
  readonly events: DriverEvents
  /** The own accept has been delivered. */
  entered(): void
  /** It is over: withdrawn or lost before the accept (`inside` false), left or lost after it. */
  over(reason: string, inside: boolean): void
}

type Phase = 'running' | 'withdrawing' | 'leaving' | 'over'

export class LocalMember {
  readonly #options: MemberOptions
  readonly #id: MemberId
  readonly #presence: Presence
  readonly #delivery: Delivery
  readonly #outbox = new Outbox()
  readonly #cancels = new Set<() => void>()
  #phase: Phase = 'running'
  #leaveReason = ''
  #woken = false
  #lockRetryMs = 0
  #lockBusySinceMs: number | undefined
  #sweeping = false

  constructor(options: MemberOptions) {
    this.#options = options
    this.#id = options.entrance.id
    this.#presence = new Presence(options.files, options.directory)
    this.#delivery = new Delivery(this.#id, options.events, {
      answered: (joiner, answer) => this.#outbox.answer(joiner, answer),
      declined: (joiner, reason) => this.#outbox.decline(joiner, reason),
      entered: () => {
        if (this.#phase === 'withdrawing') this.#phase = 'running'
        options.entered()
        this.#sweep()
      },
      departed: (declined) => this.#departed(declined),
    })
    this.#delivery.push(options.entrance.events)
  }

  start(): void {
    const { files, directory, log } = this.#options
    try {
      this.#cancels.add(files.watch(directory, () => this.wake()))
    } catch (error) {
      // The system has no watches left, say: the timer alone is slower, not wrong.
      log.warn('cluster.unwatched', { directory, reason: String(error) })
    }
    this.#tick()
  }

  /** From the own accept to the own leave; also while the leave waits to be ordered. */
  get inside(): boolean {
    return this.#delivery.inside
  }

  /** Throws what Outbox.add throws. */
  send(entry: Entry): void {
    this.#outbox.add(entry)
    this.wake()
  }

  /** Throws CLUSTER_ERROR when this member does not hold the active BLOCK, and what `send` throws. */
  unblock(message: Buffer): void {
    if (!this.#delivery.blocking) {
      throw new SheepError(Code.CLUSTER_ERROR, 'unblock without an active block')
    }
    this.send({ kind: 'unblock', message })
    this.#delivery.endBlock()
  }

  /** Gives an unanswered join up; one that is answered meanwhile stays. */
  withdraw(reason: string): void {
    this.#stopBeing('withdrawing', reason)
  }

  leave(): void {
    this.#stopBeing('leaving', 'left the cluster')
  }

  /** Works soon; many calls make one turn of work. */
  wake(): void {
    if (this.#woken || this.#phase === 'over') return
    this.#woken = true
    this.#options.clock.soon(() => {
      this.#woken = false
      this.#work()
    })
  }

  #stopBeing(phase: 'withdrawing' | 'leaving', reason: string): void {
    if (this.#phase === 'over') return
    this.#phase = phase
    this.#leaveReason = reason
    this.#after(LEAVE_WAIT_MS, () => {
      if (this.#phase !== phase) return
      this.#options.log.warn('cluster.leave_unordered', { member: this.#id })
      this.#end(reason)
    })
    this.wake()
  }

  #tick(): void {
    if (this.#phase === 'over') return
    this.#after(TICK_MS, () => this.#tick())
    const others = everybody(this.#state).flatMap(({ id }) => (id === this.#id ? [] : [id]))
    this.#guard(() => {
      if (!this.#presence.isClaimed(this.#id)) {
        throw new Error(`${memberPath(this.#options.directory, this.#id)} was removed`)
      }
      this.#presence.keepOnly(others)
      this.#presence.probe(others)
    })
    this.#work()
  }

  #work(): void {
    if (this.#phase === 'over') return
    this.#guard(() => this.#delivery.push(this.#options.entrance.log.catchUp()))
    this.#delivery.run()
    if (this.#isOver() || this.#next() === undefined) return
    const appended = this.#guard(() => this.#appendAll())
    if (appended === false) this.#retry()
    if (appended !== true) return
    this.#lockRetryMs = 0
    this.#lockBusySinceMs = undefined
    this.#delivery.run()
    if (!this.#isOver() && this.#next() !== undefined) this.wake()
  }

  /** False when somebody else holds the lock. */
  #appendAll(): boolean {
    const { files, directory, entrance } = this.#options
    const lock = files.lock(lockPath(directory))
    if (lock === undefined) return false
    try {
      this.#delivery.push(entrance.log.prepare())
      for (let i = 0; i < BATCH_MAX; i++) {
        const entry = this.#next()
        if (entry === undefined) break
        this.#delivery.push(entrance.log.append(this.#id, entry))
        this.#appended(entry)
      }
    } finally {
      lock.release()
    }
    return true
  }

  /** What this member has to put into the order now; undefined when there is nothing or it must wait. */
  #next(): Entry | undefined {
    const state = this.#state
    const dead = nextToBury(state, (id) => this.#presence.knownDead(id))
    if (dead !== undefined) return { kind: 'leave', member: dead }
    const self = memberById(state, this.#id)
    if (self === undefined) return undefined
    const said = this.#outbox.next(state, this.#id)
    if (said !== undefined) return said
    const isGoing =
      this.#phase === 'leaving' || (this.#phase === 'withdrawing' && state.joining?.id === this.#id)
    const leave: Entry = { kind: 'leave', member: this.#id }
    if (isGoing && mayAppend(state, this.#id, leave)) return leave
    const mark: Entry = { kind: 'mark', mark: this.#options.entrance.log.segment }
    const isBehind = self.mark < mark.mark
    return isBehind && mayAppend(state, this.#id, mark) ? mark : undefined
  }

  #appended(entry: Entry): void {
    if (entry.kind === 'leave' || entry.kind === 'mark') this.#sweep()
    else this.#outbox.taken(entry)
  }

  #retry(): void {
    const { clock, log } = this.#options
    const next = Math.max(LOCK_RETRY_MIN_MS, this.#lockRetryMs * 2)
    this.#lockRetryMs = Math.min(LOCK_RETRY_MAX_MS, next)
    this.#lockBusySinceMs ??= clock.now()
    if (clock.now() - this.#lockBusySinceMs > LOCK_COMPLAIN_MS) {
      this.#lockBusySinceMs = clock.now()
      log.error('cluster.lock_held', {
        file: lockPath(this.#options.directory),
        remedy: 'a stopped process holds it: continue or kill it',
      })
    }
    this.#after(this.#lockRetryMs, () => this.wake())
  }

  #departed(declined: string | undefined): void {
    const reason = declined ?? (this.#phase === 'running' ? undefined : this.#leaveReason)
    if (reason === undefined) this.#lose('the other nodes took this one for dead')
    else this.#end(reason)
  }

  /** An error of the log or the directory ends the membership: its promises cannot be kept. */
  #guard<Result>(act: () => Result): Result | undefined {
    if (this.#phase === 'over') return undefined
    try {
      return act()
    } catch (error) {
      this.#lose(error instanceof Error ? error.message : String(error))
      return undefined
    }
  }

  /** The node hears of it before the others can: the lock is released last. */
  #lose(reason: string): void {
    const { log, events } = this.#options
    log.error('cluster.lost', { member: this.#id, reason })
    const wasInside = this.#delivery.inside
    this.#phase = 'over'
    this.#delivery.stop()
    try {
      if (wasInside) events.lost(reason)
    } finally {
      this.#close(reason, wasInside)
    }
  }

  #end(reason: string): void {
    const wasInside = this.#delivery.inside
    this.#phase = 'over'
    this.#delivery.stop()
    this.#close(reason, wasInside)
  }

  #close(reason: string, wasInside: boolean): void {
    for (const cancel of this.#cancels) cancel()
    this.#cancels.clear()
    this.#options.entrance.log.close()
    this.#options.entrance.claim.release()
    this.#options.over(reason, wasInside)
  }

  /** Removes what nobody needs any more: segments all have read, files of members long gone. */
  #sweep(): void {
    if (this.#sweeping) return
    this.#sweeping = true
    this.#sweepNames()
      .catch((error: unknown) => {
        this.#options.log.warn('cluster.sweep_failed', { reason: String(error) })
      })
      .finally(() => {
        this.#sweeping = false
      })
  }

  async #sweepNames(): Promise<void> {
    const { files, directory, entrance } = this.#options
    const names = await files.readDir(directory)
    const isGone = (id: MemberId): boolean =>
      id < this.#state.nextSeq && memberById(this.#state, id) === undefined
    const members = names.flatMap((name) => memberOfFile(name) ?? []).filter(isGone)
    for (const id of members) await removeIfThere(files, memberPath(directory, id))
    const segments = names.flatMap((name) => segmentNumber(name) ?? []).sort((a, b) => a - b)
    for (const number of segments) {
      // Oldest first: whoever finds its segment present may trust that the later ones are.
      if (number >= entrance.log.keepFrom) break
      await removeIfThere(files, segmentPath(directory, number))
    }
  }

  get #state() {
    return this.#options.entrance.log.state
  }

  /** Callbacks may have ended it since the phase was last looked at. */
  #isOver(): boolean {
    return this.#phase === 'over'
  }

  #after(delayMs: number, act: () => void): void {
    const cancel = this.#options.clock.after(delayMs, () => {
      this.#cancels.delete(cancel)
      act()
    })
    this.#cancels.add(cancel)
  }
}

/** Several members sweep; who comes second finds nothing. */
async function removeIfThere(files: Files, path: string): Promise<void> {
  try {
    await files.unlink(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}
