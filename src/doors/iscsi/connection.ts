/**
 * One iSCSI connection: carries bytes between the network, the login, the session and the logical units, sees that
 * answers leave once a turn, and that units are handed back exactly once, when nothing is at work on them any more.
 *
 *   login --opened--> session --logout, shutdown--> ending --close--> gone
 *        \--the volume is another node's--> passed --close--> gone
 */
import type { BufferPool } from '../../base/buffer-pool.js'
import { noBytes } from '../../base/bytes.js'
import { Inbox } from '../../base/inbox.js'
import { describe, type Log } from '../../base/log.js'
import { ReplyQueue } from '../../base/reply-queue.js'
import { BHS_BYTES, ISCSI_LIMITS, LoginStatus } from '../../wire/iscsi/constants.js'
import * as pdu from '../../wire/iscsi/pdu.js'
import type { IscsiPath } from '../../wire/sheepdog/iscsi-path.js'
import type { Clock, Connection, ConnectionEvents, Random } from '../../world/world.js'
import type { LogicalUnit, Member } from './logical-unit.js'
import { Login, type LoginStep, type Visit, type Wanted, wantedTarget } from './login.js'
import { reasonOf } from './paths.js'
import { Session } from './session.js'
import { TargetRefused, type Targets } from './targets.js'
import { Tunnel } from './tunnel.js'

/** What the server knows of all its connections. */
export interface Lobby {
  readonly targets: Targets
  hasSession(tsih: number): boolean
  /**
   * Ends the session `visit` stands for, if there is one, and waits until none of its commands can do anything any more.
   * True: there was one.
   */
  replace(visit: Visit, by: IscsiClient): Promise<boolean>
  /** Of a session that begins. */
  nextTsih(): number
  coldReset(targetName: string): void
  /** Of this node, as SendTargets tells them to who came to `localHost`; the one it came to first. */
  portals(localHost: string | undefined): readonly string[]
  /** Number of this node's target port group. */
  readonly group: number
}

export interface ClientOptions {
  readonly connection: Connection
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly lobby: Lobby
  /** Another node passes it on. */
  readonly via?: IscsiPath | undefined
  /** For answers and the data of writes. */
  readonly pool: BufferPool
  /** The connection is closed and the units handed back. */
  gone(): void
}

type State = 'login' | 'session' | 'passed' | 'ending' | 'gone'

export class IscsiClient implements ConnectionEvents {
  visit: Visit | undefined
  tsih = 0
  /** Resolves when the units are handed back. */
  readonly over: Promise<void>
  readonly #options: ClientOptions
  readonly #connection: Connection
  readonly #inbox = new Inbox()
  readonly #replies: ReplyQueue
  readonly #login: Login
  #session: Session | undefined
  #tunnel: Tunnel | undefined
  #isRouted: boolean
  #units: ReadonlyMap<number, LogicalUnit> = new Map()
  #state: State = 'login'
  #asking = false
  #blocked = false
  #paused = false
  #turnArmed = false
  #pinged = false
  #isReleased = false
  #isOver: () => void = () => undefined
  #cancelTimer: () => void
  readonly #started: number
  #heard: number

  constructor(options: ClientOptions) {
    this.#options = options
    const { connection, clock, random, lobby, via } = options
    this.#connection = connection
    // Nobody is sent around.
    this.#isRouted = via !== undefined
    this.#replies = new ReplyQueue(options.pool)
    this.over = new Promise((resolve) => {
      this.#isOver = resolve
    })
    this.#login = new Login({
      random,
      admit: (visit) => lobby.targets.admit(visit, this.#host),
      hasSession: (tsih) => lobby.hasSession(tsih),
      group: via?.group ?? lobby.group,
    })
    this.#started = clock.monotonic()
    this.#heard = this.#started
    this.#cancelTimer = clock.after(ISCSI_LIMITS.loginIdleMs, this.#checkLogin)
    connection.on(this)
  }

  get remote(): string {
    return this.#connection.remote
  }

  get nexus(): string {
    const { initiator = '', isid = '' } = this.visit ?? {}
    return `${initiator},i,0x${isid},t,0x${this.group.toString(16).padStart(4, '0')}`
  }

  /** Number of the target port group it came to. */
  get group(): number {
    return this.#options.via?.group ?? this.#options.lobby.group
  }

  get #host(): string | undefined {
    const { via } = this.#options
    return via === undefined ? this.#connection.remoteHost : via.host
  }

  data(chunk: Buffer): void {
    if (this.#tunnel !== undefined) {
      // It is borrowed, and may wait there.
      this.#tunnel.send(Buffer.from(chunk))
      return
    }
    if (this.#state === 'ending' || this.#state === 'gone') return
    this.#heard = this.#options.clock.monotonic()
    this.#pinged = false
    this.#inbox.push(chunk, true)
    if (!this.#stalled()) this.#run()
    else if (!this.#paused) {
      this.#paused = true
      this.#connection.pause()
    }
    this.#inbox.keep()
  }

  room(): Buffer | undefined {
    return this.#session?.room(this.#inbox)
  }

  drain(): void {
    this.#blocked = false
    this.#tunnel?.drained()
    if (this.#state === 'gone' || this.#state === 'passed') return
    this.#session?.drained()
    if (this.#state !== 'ending') this.#run()
  }

  close(error?: Error): void {
    if (this.#state === 'gone') return
    if (error !== undefined) this.#note('iscsi.connection.lost', error.message)
    this.#state = 'gone'
    this.#tunnel?.close()
    this.#cancelTimer()
    this.#inbox.clear()
    // What is being opened is handed back when it is there.
    if (!this.#asking) this.#release()
  }

  /** Ends in order: asks the initiator to log out, and goes when it does not. */
  shutdown(): void {
    if (this.#state === 'login' || this.#state === 'passed') this.#end()
    else if (this.#state === 'session') {
      this.#session!.askLogout()
      this.#flush()
      this.#cancelTimer()
      this.#cancelTimer = this.#options.clock.after(ISCSI_LIMITS.drainMs, () => this.#finish())
    }
  }

  /** Ends after what is under way, without a word: the target was reset. */
  finish(): void {
    this.#finish()
  }

  /** Ends now: a newer session takes its place, or the target was reset. */
  drop(reason: string): void {
    this.#note('iscsi.connection.dropped', reason)
    this.#connection.destroy()
    this.close()
  }

  #stalled(): boolean {
    return this.#asking || this.#blocked
  }

  #run(): void {
    if (this.#state === 'login') this.#haggle()
    if (this.#state === 'session') this.#serve(this.#session!)
    const reads = this.#state === 'login' || this.#state === 'session'
    if (reads && this.#paused && !this.#stalled()) {
      this.#paused = false
      this.#connection.resume()
    }
  }

  #haggle(): void {
    const inbox = this.#inbox
    while (this.#state === 'login' && !this.#stalled()) {
      if (inbox.bytes < BHS_BYTES) return
      inbox.frame(BHS_BYTES)
      const ahs = pdu.ahsBytes(inbox.view, inbox.viewAt)
      const bytes = pdu.dataBytes(inbox.view, inbox.viewAt)
      if (bytes > ISCSI_LIMITS.loginSegmentBytesMax || ahs > 0) {
        this.drop('a login request of no reasonable size')
        return
      }
      if (inbox.bytes < BHS_BYTES + pdu.padded(bytes)) return
      // Copied: it is kept until the next one.
      const header = Buffer.from(inbox.take(BHS_BYTES))
      const padded = bytes === 0 ? noBytes() : Buffer.from(inbox.take(pdu.padded(bytes)))
      const target = this.#isRouted ? undefined : wantedTarget(header, padded.subarray(0, bytes))
      this.#isRouted = true
      if (target === undefined) {
        this.#step(this.#login.receive(header, padded.subarray(0, bytes)))
      } else {
        this.#asking = true
        void this.#route(target, header, padded, bytes)
      }
    }
  }

  /** Passes the initiator on to the node that has the volume, or serves it here. Never rejects. */
  async #route(target: Wanted, header: Buffer, padded: Buffer, bytes: number): Promise<void> {
    const { lobby, log } = this.#options
    let far: Connection | undefined
    try {
      far = await lobby.targets.elsewhere(target.name, { ...target, host: this.#host })
    } catch (error) {
      // It is tried here then, where the volume may be free by now.
      log.warn('iscsi.path.failed', { remote: this.remote, reason: reasonOf(error) })
    }
    this.#asking = false
    if (this.#state === 'gone') {
      far?.destroy()
      this.#release()
    } else if (this.#state !== 'login') far?.destroy()
    else if (far === undefined) {
      this.#step(this.#login.receive(header, padded.subarray(0, bytes)))
      this.#run()
    } else {
      log.info('iscsi.passed', { remote: this.remote, target: target.name, to: far.remote })
      this.#pass(far, Buffer.concat([header, padded, this.#inbox.take(this.#inbox.bytes)]))
    }
  }

  #pass(far: Connection, early: Buffer): void {
    this.#state = 'passed'
    this.#cancelTimer()
    this.#tunnel = new Tunnel(this.#connection, far)
    this.#tunnel.send(early)
    if (this.#paused) this.#connection.resume()
    this.#paused = false
  }

  #step(step: LoginStep): void {
    if (step.kind === 'drop') this.drop(step.reason)
    else if (step.kind === 'open') {
      this.#asking = true
      void this.#open(step.visit)
    } else {
      this.#send([step.bytes])
      if (step.kind === 'refuse') this.#refused(step.reason)
    }
  }

  #refused(reason: string): void {
    this.#options.log.warn('iscsi.login.refused', { remote: this.remote, reason })
    this.#end()
  }

  /** Opens the target and begins the session. Never rejects: whoever cannot have it is told. */
  async #open(visit: Visit): Promise<void> {
    const { lobby } = this.#options
    const { target } = visit
    this.visit = visit
    const member: Member = {
      ...{ nexus: this.nexus, group: this.group },
      abort: async (unit, by) => this.#session?.jobs.abortOf(unit, by),
    }
    this.#member = member
    let status: number | undefined
    let reason = ''
    try {
      await lobby.replace(visit, this)
      if (target !== undefined && this.#state === 'login') {
        this.#units = await lobby.targets.open({ ...visit, target }, this.#host, member)
      }
    } catch (error) {
      const isRefused = error instanceof TargetRefused
      status = isRefused ? error.status : LoginStatus.SERVICE_UNAVAILABLE
      reason = isRefused ? error.message : describe(error)
    }
    this.#asking = false
    if (this.#state === 'gone') this.#release()
    else if (this.#state !== 'login') return
    else if (status !== undefined) {
      this.#send([this.#login.failed(status)])
      this.#refused(reason)
    } else this.#begin(visit)
  }

  #member: Member | undefined

  #begin(visit: Visit): void {
    const { lobby, log, clock, pool } = this.#options
    const login = this.#login
    this.tsih = lobby.nextTsih()
    const last = login.opened(this.tsih)
    const { target, initiator } = visit
    const { group } = this
    const host = this.#host
    const { via } = this.#options
    const portals = via === undefined ? lobby.portals(this.#connection.localHost) : []
    this.#session = new Session({
      ...{ agreed: login.agreed, nexus: this.nexus, group, targetName: target, units: this.#units },
      ...{ pool, replies: this.#replies, cmdSn: login.cmdSn, statSn: login.statSn },
      targets: (wanted) => this.#listTargets(wanted, { initiator, host }, portals),
      coldReset: () => lobby.coldReset(target ?? ''),
      late: this.#late,
      isBlocked: () => this.#blocked,
    })
    this.#state = 'session'
    this.#cancelTimer()
    this.#cancelTimer = clock.after(ISCSI_LIMITS.silenceMs, this.#checkSilence)
    log.info('iscsi.session', {
      ...{ remote: this.remote, initiator, target: target ?? '(discovery)', user: login.user },
    })
    this.#send([last])
    this.#run()
  }

  async #listTargets(
    wanted: string,
    caller: { readonly initiator: string; readonly host: string | undefined },
    portals: readonly string[],
  ): Promise<[string, string][] | undefined> {
    const { lobby, log } = this.#options
    const own = this.visit?.target
    // In a session with a target the empty name means that target (RFC 7143, section 4.3).
    if (wanted === 'All' && own !== undefined) return undefined
    try {
      const all = await lobby.targets.list(caller)
      const name = wanted === '' ? own : wanted
      const shown = wanted === 'All' ? all : all.filter((one) => one === name)
      return shown.flatMap((target): [string, string][] => {
        return [
          ['TargetName', target],
          ...portals.map((at): [string, string] => ['TargetAddress', at]),
        ]
      })
    } catch (error) {
      log.error('iscsi.list.failed', { remote: this.remote, reason: describe(error) })
      return undefined
    }
  }

  #serve(session: Session): void {
    while (!this.#blocked) {
      const verdict = session.receive(this.#inbox)
      this.#flush()
      if (verdict.kind === 'corked') continue
      if (verdict.kind === 'goodbye') this.#end()
      else if (verdict.kind === 'broken') this.drop(verdict.reason)
      return
    }
  }

  /** An answer came about outside of `receive`: one turn for all that come together. */
  readonly #late = (): void => {
    if (this.#state === 'gone' || this.#turnArmed) return
    this.#turnArmed = true
    this.#options.clock.soon(this.#lateTurn)
  }

  readonly #lateTurn = (): void => {
    this.#turnArmed = false
    if (this.#state === 'ending') this.#flush()
    else if (this.#state === 'session') this.#run()
  }

  #flush(): void {
    if (this.#replies.bytes === 0) return
    const { pieces, sent } = this.#replies.take()
    this.#send(pieces, sent)
  }

  #send(pieces: readonly Buffer[], sent?: () => void): void {
    if (this.#state === 'gone') return
    const connection = this.#connection
    const isOne = pieces.length === 1
    const took = isOne ? connection.write(pieces[0]!, sent) : connection.writeAll(pieces, sent)
    if (!took) this.#blocked = true
  }

  /** Reads no more; closes when the commands at work are answered. */
  #finish(): void {
    if (this.#state !== 'session') return
    this.#state = 'ending'
    this.#inbox.clear()
    const { jobs } = this.#session!
    void jobs.abortGathering()
    void jobs.idle().then(() => {
      if (this.#state === 'ending') this.#end()
    })
  }

  #end(): void {
    this.#state = 'ending'
    this.#cancelTimer()
    this.#inbox.clear()
    this.#flush()
    this.#connection.end()
    // The other side's close is only seen by reading.
    if (this.#paused) this.#connection.resume()
    this.#paused = false
    const { clock } = this.#options
    this.#cancelTimer = clock.after(ISCSI_LIMITS.lingerMs, () => this.drop('slow to close'))
  }

  readonly #checkLogin = (): void => {
    const { clock } = this.#options
    const now = clock.monotonic()
    // Who opens the target is us.
    const idleMs = this.#asking ? 0 : now - this.#heard
    const isLate =
      idleMs >= ISCSI_LIMITS.loginIdleMs || now - this.#started >= ISCSI_LIMITS.loginTotalMs
    if (isLate) this.drop('slow to log in')
    else this.#cancelTimer = clock.after(ISCSI_LIMITS.loginIdleMs - idleMs, this.#checkLogin)
  }

  readonly #checkSilence = (): void => {
    const { clock } = this.#options
    const silentMs = clock.monotonic() - this.#heard
    let waitMs: number = ISCSI_LIMITS.silenceMs
    // While we do not read we cannot hear.
    if (this.#paused) waitMs = ISCSI_LIMITS.silenceMs
    else if (silentMs < ISCSI_LIMITS.silenceMs) waitMs -= silentMs
    else if (this.#pinged) {
      this.drop('silent for too long')
      return
    } else {
      this.#pinged = true
      this.#session!.ping()
      this.#flush()
    }
    this.#cancelTimer = clock.after(waitMs, this.#checkSilence)
  }

  /** Hands the units back, once, when no command can do anything to them any more. */
  #release(): void {
    if (this.#isReleased) return
    this.#isReleased = true
    void this.#handBack().then(() => {
      this.#isOver()
      this.#options.gone()
    })
  }

  async #handBack(): Promise<void> {
    await this.#session?.end()
    if (this.#member !== undefined) {
      await this.#options.lobby.targets.close(this.#units, this.#member)
    }
  }

  #note(event: string, reason: string): void {
    const { initiator, target } = this.visit ?? {}
    this.#options.log.warn(event, { remote: this.remote, initiator, target, reason })
  }
}
