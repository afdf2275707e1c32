/**
 * One NBD client: carries bytes between its connection, the protocol sessions and the volume, and
 * sees that memory stays bounded, that replies leave once a turn, and that the volume is handed
 * back exactly once.
 *
 *   handshake --opened--> transmission --goodbye, shutdown--> ending --close--> gone
 */
import type { BufferPool } from '../../base/buffer-pool.js'
import { Code, codeOf, codeText, SheepError } from '../../base/codes.js'
import { Inbox } from '../../base/inbox.js'
import type { Log } from '../../base/log.js'
import { ReplyQueue } from '../../base/reply-queue.js'
import type { ExportInfo, Volume, VolumeSource } from '../../volume/volume.js'
import { NBD_LIMITS } from '../../wire/nbd/constants.js'
import type { Clock, Connection, ConnectionEvents, TlsServer } from '../../world/world.js'
import { AccessRefused, accessFor, type RuleBook } from './access.js'
import { type OpenedExport, offeredContexts, openExport } from './exports.js'
import type { NbdHall, Visit } from './hall.js'
import { Handshake, type HandshakeStep } from './handshake.js'
import { perform } from './perform.js'
import { Transmission } from './transmission.js'

export interface ClientOptions {
  readonly connection: Connection
  readonly clock: Clock
  readonly log: Log
  readonly source: VolumeSource
  readonly rules: RuleBook
  readonly hall: NbdHall
  readonly memory: BufferPool
  /** Why it is not served; it is told so. */
  readonly refusal?: string | undefined
  readonly tls?: TlsDoor | undefined
  /** The connection is closed and the volume handed back. */
  gone(): void
}

/** How a door offers encryption. */
export interface TlsDoor {
  /** Nothing is told in the clear. */
  readonly isRequired: boolean
  readonly server: TlsServer
}

/** Of the connection in the clear nothing is heard any more: its end is that of the encrypted one. */
const SPENT: ConnectionEvents = {
  data: () => undefined,
  drain: () => undefined,
  close: () => undefined,
}

type Question = Extract<HandshakeStep, { kind: 'list' | 'find' | 'contexts' | 'open' }>
type Answer =
  | OpenedExport
  | { readonly exports: ExportInfo[] }
  | { readonly info: ExportInfo }
  | { readonly available: string[] }
  | { readonly refused: string }
  | { readonly code: Code; readonly text: string }

type State = 'handshake' | 'transmission' | 'ending' | 'gone'

export class NbdClient implements ConnectionEvents {
  readonly #options: ClientOptions
  /** As far as the rules grant it to this client. */
  readonly #source: VolumeSource
  #connection: Connection
  readonly #inbox = new Inbox()
  readonly #replies: ReplyQueue
  readonly #handshake: Handshake
  readonly #visit: Visit
  #transmission: Transmission | undefined
  #volume: Volume | undefined
  #state: State = 'handshake'
  /** A question of the handshake is being looked up. */
  #asking = false
  /** The connection wants no more before `drain`. */
  #blocked = false
  /** Too much is in flight to read on. */
  #full = false
  #paused = false
  #turnArmed = false
  #isEncrypted = false
  /** Of a verified certificate or a pre-shared key. */
  #peerNames: readonly string[] = []
  #cancelTimer: () => void
  readonly #started: number
  #heard: number

  constructor(options: ClientOptions) {
    this.#options = options
    this.#replies = new ReplyQueue(options.memory)
    this.#connection = options.connection
    const { tls, source, rules, hall, refusal } = options
    const { remote, remoteHost } = options.connection
    this.#visit = hall.enter({
      ...{ remote, remoteHost, isRefused: refusal !== undefined },
      isEncrypted: () => this.#isEncrypted,
      requestsInFlight: () => this.requestsInFlight,
    })
    this.#source = accessFor(source, rules, () => ({
      host: remoteHost,
      names: this.#peerNames,
    }))
    this.#handshake = new Handshake(
      tls === undefined ? 'none' : tls.isRequired ? 'required' : 'optional',
      refusal,
    )
    if (refusal !== undefined) this.#note('nbd.connection.refused', refusal)
    this.#started = options.clock.now()
    this.#heard = this.#started
    this.#cancelTimer = options.clock.after(NBD_LIMITS.handshakeIdleMs, this.#checkIdle)
    this.#connection.on(this)
    this.#send(this.#handshake.take())
  }

  get remote(): string {
    return this.#connection.remote
  }

  /** Name of the volume in use; undefined during the handshake. */
  get exportName(): string | undefined {
    return this.#volume?.name
  }

  get requestsInFlight(): number {
    return this.#transmission?.inFlight ?? 0
  }

  data(chunk: Buffer): void {
    if (this.#state === 'ending' || this.#state === 'gone') return
    if (this.#state === 'transmission') this.#heard = this.#options.clock.now()
    this.#inbox.push(chunk, true)
    if (!this.#stalled()) this.#run()
    else if (!this.#paused) {
      // Only now: most stalls are over before more bytes come, and pausing costs system calls.
      this.#paused = true
      this.#connection.pause()
    }
    this.#inbox.keep()
  }

  room(): Buffer | undefined {
    return this.#transmission?.room(this.#inbox)
  }

  drain(): void {
    this.#blocked = false
    if (this.#state === 'ending' || this.#state === 'gone') return
    this.#run()
  }

  close(error?: Error): void {
    if (error !== undefined) this.#note('nbd.connection.lost', error.message)
    this.#state = 'gone'
    this.#cancelTimer()
    this.#inbox.clear()
    this.#transmission?.end()
    this.#release()
  }

  /** Ends in order: requests at work are finished, new ones answered ESHUTDOWN. */
  shutdown(): void {
    if (this.#state === 'handshake') this.#end()
    else if (this.#state === 'transmission') {
      this.#transmission!.draining = true
      this.#run()
    }
  }

  /** Ends now, answered or not. */
  cutOff(): void {
    if (this.#state !== 'gone') this.#drop('did not end in time')
  }

  #stalled(): boolean {
    return this.#asking || this.#blocked || this.#full
  }

  /** Reads what there is, sends what came of it. */
  #run(): void {
    if (this.#state === 'handshake') this.#haggle()
    if (this.#state === 'transmission') this.#serve(this.#transmission!)
    const reads = this.#state === 'handshake' || this.#state === 'transmission'
    if (reads && this.#paused && !this.#stalled()) {
      this.#paused = false
      this.#connection.resume()
    }
  }

  #haggle(): void {
    while (this.#state === 'handshake' && !this.#stalled()) {
      const step = this.#handshake.next(this.#inbox)
      const sent = this.#handshake.take()
      if (sent.length > 0) {
        this.#heard = this.#options.clock.now()
        this.#send(sent)
      }
      if (step.kind === 'starve') return
      if (step.kind === 'end') this.#end()
      else if (step.kind === 'dead') this.#drop(step.reason)
      else if (step.kind === 'secure') void this.#secure()
      else {
        this.#asking = true
        void this.#answer(step)
      }
    }
  }

  /** Goes on encrypted. Never rejects: whoever fails the handshake is dropped. */
  async #secure(): Promise<void> {
    // What was sent behind STARTTLS, in the clear, is of somebody who wants it to count as encrypted.
    if (this.#inbox.bytes > 0) {
      this.#drop('bytes behind STARTTLS')
      return
    }
    this.#asking = true
    this.#connection.on(SPENT)
    try {
      const secure = await this.#options.tls!.server.secure(this.#connection)
      this.#connection = secure
      this.#peerNames = secure.peerNames
      this.#isEncrypted = true
      this.#asking = false
      this.#heard = this.#options.clock.now()
      this.#blocked = false
      this.#paused = false
      this.#handshake.secured()
      secure.on(this)
      if (this.#state !== 'handshake') secure.destroy()
    } catch (error) {
      this.#asking = false
      this.close(error instanceof Error ? error : new Error(String(error)))
    }
  }

  /** Looks a question up and lets the handshake go on. Never rejects: failures are answers. */
  async #answer(question: Question): Promise<void> {
    const answer = await this.#lookUp(question)
    this.#asking = false
    this.#heard = this.#options.clock.now()
    if (this.#state !== 'handshake') {
      // The client did not wait.
      if ('volume' in answer) this.#volume = answer.volume
      if (this.#state === 'gone') this.#release()
      return
    }
    if ('code' in answer || 'refused' in answer) {
      const step =
        'code' in answer
          ? this.#handshake.failed(answer.code, answer.text)
          : this.#handshake.refused(answer.refused)
      if (step?.kind === 'dead') {
        this.#drop(step.reason)
        return
      }
    } else if ('volume' in answer) this.#open(answer)
    else if ('exports' in answer) this.#handshake.listed(answer.exports)
    else if ('available' in answer) this.#handshake.offered(answer.available)
    else this.#handshake.found(answer.info)
    this.#send(this.#handshake.take())
    this.#run()
  }

  async #lookUp(question: Question): Promise<Answer> {
    const { log } = this.#options
    const source = this.#source
    try {
      if (question.kind === 'list') return { exports: await source.list() }
      if (question.kind === 'find') return { info: await source.stat(question.name) }
      if (question.kind === 'contexts') {
        return { available: await offeredContexts(source, question.name) }
      }
      return await openExport(source, question)
    } catch (error) {
      const name = question.kind === 'list' ? undefined : question.name
      if (error instanceof AccessRefused) {
        log.warn('nbd.access.refused', {
          ...{ remote: this.remote, export: name, names: this.#peerNames.join(',') },
        })
        return { refused: error.message }
      }
      const code = codeOf(error)
      const fields = { remote: this.remote, export: name, reason: String(error) }
      if (code === Code.SYSTEM_ERROR) log.error('nbd.lookup.failed', fields)
      else log.info('nbd.lookup.refused', fields)
      return { code, text: error instanceof SheepError ? error.message : codeText(code) }
    }
  }

  #open({ volume, description, contexts }: OpenedExport): void {
    this.#cancelTimer()
    this.#volume = volume
    this.#handshake.opened(volume, description)
    const agreed = { chunks: this.#handshake.chunks, contexts }
    const replies = this.#replies
    const stage = { volume, agreed, replies }
    const { chunks } = agreed
    const share = this.#visit.opened({
      ...{ exportName: volume.name, readOnly: volume.readOnly },
      ...{ structured: chunks !== undefined, extended: chunks?.isExtended === true },
    })
    this.#transmission = new Transmission({
      agreed,
      ...{ counters: this.#visit.counters, share, memory: this.#options.memory },
      disk: volume,
      replies,
      perform: (slot) => perform(stage, slot),
      late: this.#late,
    })
    this.#state = 'transmission'
    this.#heard = this.#options.clock.now()
    if (this.#options.hall.limits.idleMs !== undefined) this.#checkIdle()
    this.#options.log.info('nbd.opened', { remote: this.remote, export: volume.name })
  }

  #serve(transmission: Transmission): void {
    while (!this.#blocked) {
      const verdict = transmission.receive(this.#inbox)
      this.#full = verdict === 'full'
      this.#flush()
      if (verdict === 'corked') continue
      if (verdict === 'goodbye') this.#end()
      else if (verdict === 'badMagic') this.#drop('no request magic')
      else if (verdict === 'tooLong') this.#drop('write is too long')
      break
    }
    const isIdle = transmission.draining && transmission.inFlight === 0
    if (isIdle && this.#state === 'transmission') this.#end()
  }

  /** A request ended after its turn: one turn for all that end together. */
  readonly #late = (): void => {
    if (this.#state === 'gone') this.#release()
    else if (!this.#turnArmed) {
      this.#turnArmed = true
      this.#options.clock.soon(this.#lateTurn)
    }
  }

  readonly #lateTurn = (): void => {
    this.#turnArmed = false
    this.#full = false
    if (this.#state === 'ending') this.#endWhenDone()
    else this.#run()
  }

  /** Sends the queued replies unless the client is slow to take the ones before. */
  #flush(): void {
    if (this.#replies.bytes === 0) return
    const { pieces, sent } = this.#replies.take()
    this.#send(pieces, sent)
  }

  #send(pieces: readonly Buffer[], sent?: () => void): void {
    if (pieces.length === 0) return
    const connection = this.#connection
    const isOne = pieces.length === 1
    const took = isOne ? connection.write(pieces[0]!, sent) : connection.writeAll(pieces, sent)
    if (!took) this.#blocked = true
  }

  /** Reads no more; closes when the requests at work are answered. */
  #end(): void {
    this.#state = 'ending'
    this.#cancelTimer()
    this.#inbox.clear()
    this.#endWhenDone()
  }

  #endWhenDone(): void {
    this.#flush()
    if (this.requestsInFlight > 0) return
    this.#connection.end()
    // The other side's close is only seen by reading.
    if (this.#paused) this.#connection.resume()
    this.#paused = false
    const { clock } = this.#options
    this.#cancelTimer()
    this.#cancelTimer = clock.after(NBD_LIMITS.lingerMs, () => this.#connection.destroy())
  }

  #drop(reason: string): void {
    this.#note('nbd.client.dropped', reason)
    this.#state = 'ending'
    this.#cancelTimer()
    this.#inbox.clear()
    this.#connection.destroy()
  }

  #note(event: string, reason: string): void {
    this.#options.log.warn(event, { remote: this.remote, export: this.exportName, reason })
  }

  /** After the end: hands the volume back as soon as nothing works on it any more. */
  #release(): void {
    if (this.requestsInFlight > 0 || this.#asking) return
    this.#replies.take()
    const { log, gone } = this.#options
    const volume = this.#volume
    this.#volume = undefined
    this.#visit.leave()
    if (volume === undefined) {
      gone()
      return
    }
    const failed = (error: unknown): void => {
      log.error('nbd.close.failed', { export: volume.name, reason: String(error) })
    }
    void volume.close().catch(failed).then(gone)
  }

  readonly #checkIdle = (): void => {
    const { clock, hall } = this.#options
    const { handshakeIdleMs, handshakeTotalMs } = NBD_LIMITS
    if (this.#state === 'transmission') {
      const { idleMs = Infinity } = hall.limits
      // While we work on something the silence is ours; replies that wait for a client that does not read are its own.
      const leftMs = this.requestsInFlight > 0 ? idleMs : this.#heard + idleMs - clock.now()
      if (leftMs <= 0) this.#drop(`no request for ${idleMs / 1000} s`)
      else this.#cancelTimer = clock.after(leftMs, this.#checkIdle)
      return
    }
    const until = Math.min(this.#heard + handshakeIdleMs, this.#started + handshakeTotalMs)
    // While we look something up the silence is ours.
    const leftMs = this.#asking ? handshakeIdleMs : until - clock.now()
    if (leftMs <= 0) this.#drop('handshake took too long')
    else this.#cancelTimer = clock.after(leftMs, this.#checkIdle)
  }
}
