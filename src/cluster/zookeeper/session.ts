/**
 * A ZooKeeper session: one connection at a time to a server of the ensemble, the next one when that dies
 * or falls silent, the same session on it as long as the ensemble keeps it.
 *
 *   seeking   no connection: servers are tried in turn; requests wait
 *   open      requests are answered in the order they were sent
 *   over      expired or closed; every request is refused with SESSION_EXPIRED
 *
 * What was on its way when a connection broke: reads are sent again on the next one, changes are refused
 * with CONNECTION_LOSS, because nobody can tell whether they happened; the caller looks.
 */
import type { Log } from '../../base/log.js'
import { JuteFrames, JuteReader } from '../../wire/zookeeper/jute.js'
import {
  ANY_VERSION,
  type CreateFlags,
  createChange,
  encodePing,
  encodeRequest,
  encodeSetWatches,
  readEvent,
  readMultiReply,
  readReplyHead,
  readStat,
  type ZkChange,
  ZkCode,
  ZkError,
  type ZkRequest,
  type ZkStat,
  ZkXid,
} from '../../wire/zookeeper/messages.js'
import type { Connection, World } from '../../world/world.js'
import { type Attached, connectOnce } from './connect.js'
import type { ZkServer } from './options.js'
import { type Watcher, Watches, type WatchKind } from './watches.js'

/** Shares of the session time-out. */
const PING_SHARE = 1 / 5
const SILENCE_SHARE = 1 / 4
const CONNECT_SHARE = 1 / 5
const LOOK_SHARE = 1 / 20
/**
 * A change that was answered proves the session alive when it was sent, and the ensemble does not end it
 * before a whole time-out without a sign of life. It may have missed the last sign (the server it went to
 * died before passing it on), but not the one before: they are PING_SHARE apart at most.
 */
const SURE_SHARE = 0.75
const CONNECT_MS_MAX = 5000
const ROUND_PAUSE_MS = 250
/** The last word of an orderly end is waited for this long. */
const CLOSE_WAIT_MS = 1000

export interface SessionOptions {
  readonly world: Pick<World, 'clock' | 'network' | 'random'>
  readonly log: Log
  readonly servers: readonly ZkServer[]
  /** Wanted; the servers have limits of their own (2 to 20 ticks). */
  readonly timeoutMs: number
}

/** One request, from the call until its answer. */
interface Call {
  readonly request: ZkRequest | 'ping' | { readonly kind: 'watches'; readonly bytes: Buffer }
  readonly answered: (from: JuteReader) => void
  readonly refused: (code: number) => void
  readonly isChange: boolean
  xid: number
  sentAt: number
}

const READS: ReadonlySet<string> = new Set(['exists', 'get', 'children', 'sync'])

export class ZkSession {
  readonly #options: SessionOptions
  readonly #watches = new Watches()
  readonly #failures = new Map<string, string>()
  #order: readonly ZkServer[]
  #next = 0
  #state: 'seeking' | 'open' | 'over' = 'seeking'
  #id = 0n
  #password: Buffer = Buffer.alloc(16)
  #timeoutMs: number
  #lastZxid = 0n
  #xid = 1
  #connection: Connection | undefined
  #localHost: string | undefined
  #inFlight: Call[] = []
  #waiting: Call[] = []
  #closing: Promise<void> | undefined
  #sentAt = 0
  #openedAt = Number.NEGATIVE_INFINITY
  #provenAt = Number.NEGATIVE_INFINITY
  #cancelLook: () => void = () => undefined
  /** Called when the session is over without having been closed. */
  onExpired: (reason: string) => void = () => undefined
  /** Called after each connection, the first one too. */
  onConnected: () => void = () => undefined

  constructor(options: SessionOptions) {
    this.#options = options
    this.#timeoutMs = options.timeoutMs
    const { random } = options.world
    const left = [...options.servers]
    // Each client begins with another server: they share the load.
    this.#order = options.servers.map(() => left.splice(random.below(left.length), 1)[0]!)
    void this.#seek()
  }

  /** As agreed with the servers, in milliseconds. */
  get timeoutMs(): number {
    return this.#timeoutMs
  }

  get id(): bigint {
    return this.#id
  }

  get connected(): boolean {
    return this.#state === 'open'
  }

  /** Numeric address of this end of the connection to the ensemble. */
  get localHost(): string | undefined {
    return this.#localHost
  }

  /** Until when, by the monotonic clock, the ensemble cannot have ended this session. */
  sureUntil(): number {
    if (this.#state === 'over') return Number.NEGATIVE_INFINITY
    return this.#provenAt + this.#timeoutMs * SURE_SHARE
  }

  /** What the servers said last, for people: `127.0.0.1:2181 (connection refused), ...`. */
  describeFailures(): string {
    const names = this.#options.servers.map(({ host, port }) => `${host}:${port}`)
    return names
      .map((name) => `${name} (${this.#failures.get(name) ?? 'not tried yet'})`)
      .join(', ')
  }

  /** Rejects with ZkError, NODE_EXISTS among them. Resolves to the path with its number. */
  async create(path: string, data: Buffer, how: CreateFlags = {}): Promise<string> {
    return this.#call(createChange(path, data, how), (from) => from.text())
  }

  async delete(path: string, version = ANY_VERSION): Promise<void> {
    await this.#call({ kind: 'delete', path, version }, () => undefined)
  }

  async set(path: string, data: Buffer, version = ANY_VERSION): Promise<ZkStat> {
    return this.#call({ kind: 'set', path, data, version }, readStat)
  }

  /** All of them or none. */
  async multi(changes: readonly ZkChange[]): Promise<string[]> {
    const what = changes.map(({ kind, path }) => `${kind} ${path}`).join(', ')
    return this.#call({ kind: 'multi', changes }, (from) => readMultiReply(from, what))
  }

  /** Makes this session see everything the ensemble has agreed on so far. */
  async sync(path: string): Promise<void> {
    await this.#call({ kind: 'sync', path }, () => undefined)
  }

  /** Undefined when there is no such node; a watcher hears of its creation, change or deletion. */
  async exists(path: string, watcher?: Watcher): Promise<ZkStat | undefined> {
    return this.#look({ kind: 'exists', path, watch: watcher !== undefined }, readStat, watcher)
  }

  /** Undefined when there is no such node; then nothing is watched. */
  async get(
    path: string,
    watcher?: Watcher,
  ): Promise<{ readonly data: Buffer; readonly stat: ZkStat } | undefined> {
    const read = (from: JuteReader) => ({ data: from.buffer(), stat: readStat(from) })
    return this.#look({ kind: 'get', path, watch: watcher !== undefined }, read, watcher)
  }

  /** Names, in no order; undefined when there is no such node. */
  async children(path: string, watcher?: Watcher): Promise<string[] | undefined> {
    const request: ZkRequest = { kind: 'children', path, watch: watcher !== undefined }
    return this.#look(request, (from) => from.texts(), watcher)
  }

  /** Ends the session: its ephemeral nodes go at once when a server hears of it, else with its time-out. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    if (this.#state === 'open') {
      const { clock } = this.#options.world
      let cancel: () => void = () => undefined
      const late = new Promise<void>((resolve) => {
        cancel = clock.after(CLOSE_WAIT_MS, resolve)
      })
      const said = this.#call({ kind: 'close' }, () => undefined).catch(() => undefined)
      await Promise.race([said, late])
      cancel()
    }
    this.#end()
  }

  async #look<Value>(
    request: Extract<ZkRequest, { kind: 'exists' | 'get' | 'children' }>,
    read: (from: JuteReader) => Value,
    watcher: Watcher | undefined,
  ): Promise<Value | undefined> {
    const { kind, path } = request
    const found: WatchKind = kind === 'children' ? 'children' : 'data'
    const watch = (at: WatchKind): void => {
      if (watcher !== undefined) this.#watches.add(at, path, watcher)
    }
    // The watch is set with the answer, before any later event can be read.
    const answered = (from: JuteReader): Value => {
      const value = read(from)
      watch(found)
      return value
    }
    try {
      return await this.#call(request, answered, () => {
        if (kind === 'exists') watch('exists')
      })
    } catch (error) {
      if (error instanceof ZkError && error.code === ZkCode.NO_NODE) return undefined
      throw error
    }
  }

  #call<Value>(
    request: ZkRequest,
    read: (from: JuteReader) => Value,
    absent: () => void = () => undefined,
  ): Promise<Value> {
    return new Promise((resolve, reject) => {
      const what = 'path' in request ? `${request.kind} ${request.path}` : request.kind
      const call: Call = {
        request,
        isChange: !READS.has(request.kind),
        answered: (from) => {
          try {
            resolve(read(from))
          } catch (error) {
            reject(error)
            // A refusal of the server is an answer; anything else is not what was asked for.
            if (!(error instanceof ZkError)) throw error
          }
        },
        refused: (code) => {
          if (code === ZkCode.NO_NODE) absent()
          reject(new ZkError(code, what))
        },
        xid: 0,
        sentAt: 0,
      }
      if (this.#state === 'over') call.refused(ZkCode.SESSION_EXPIRED)
      else if (this.#state === 'open') this.#send(call)
      else this.#waiting.push(call)
    })
  }

  #send(call: Call): void {
    const { request } = call
    call.sentAt = this.#options.world.clock.monotonic()
    this.#sentAt = call.sentAt
    this.#inFlight.push(call)
    if (request === 'ping') {
      call.xid = ZkXid.PING
      this.#connection?.write(encodePing())
    } else if (request.kind === 'watches') {
      call.xid = ZkXid.SET_WATCHES
      this.#connection?.write(request.bytes)
    } else {
      call.xid = this.#xid
      this.#xid = this.#xid === 0x7fffffff ? 1 : this.#xid + 1
      this.#connection?.write(encodeRequest(call.xid, request))
    }
  }

  async #seek(): Promise<void> {
    // A server that drops its clients at once must not be asked in a circle.
    if (this.#now() - this.#openedAt < ROUND_PAUSE_MS) await this.#pause()
    while (this.#state === 'seeking') {
      const server = this.#order[this.#next++ % this.#order.length]!
      const name = `${server.host}:${server.port}`
      try {
        await this.#attach(server)
        this.#failures.delete(name)
        return
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error)
        this.#failures.set(name, reason)
        this.#options.log.debug('zookeeper.connect.failed', { server: name, reason })
      }
      if (this.#next % this.#order.length === 0) {
        await this.#pause()
      }
    }
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      this.#options.world.clock.after(ROUND_PAUSE_MS, resolve)
    })
  }

  async #attach(server: ZkServer): Promise<void> {
    const limitMs = Math.min(CONNECT_MS_MAX, this.#timeoutMs * CONNECT_SHARE)
    const { world } = this.#options
    const startedAt = world.clock.monotonic()
    const attached = await connectOnce(world, server, limitMs, {
      lastZxid: this.#lastZxid,
      timeoutMs: this.#options.timeoutMs,
      sessionId: this.#id,
      password: this.#password,
    })
    if (this.#state !== 'seeking') {
      attached.connection.destroy()
      return
    }
    if (attached.accepted.timeoutMs <= 0) {
      attached.connection.destroy()
      this.#expire('the ensemble did not hear from this node for longer than the session lasts')
      return
    }
    this.#opened(server, attached, startedAt)
  }

  #opened(server: ZkServer, attached: Attached, startedAt: number): void {
    const { accepted, connection } = attached
    // A new session is a change the ensemble agreed on; a resumed one is one server's word.
    if (this.#id === 0n) this.#provenAt = startedAt
    this.#id = accepted.sessionId
    this.#password = accepted.password
    this.#timeoutMs = accepted.timeoutMs
    this.#connection = connection
    this.#localHost = connection.localHost
    this.#state = 'open'
    this.#openedAt = this.#now()
    this.#options.log.info('zookeeper.connected', {
      server: `${server.host}:${server.port}`,
      session: `0x${this.#id.toString(16)}`,
      timeoutMs: this.#timeoutMs,
    })
    this.#listen(connection, attached)
    if (this.#watches.count > 0) {
      const bytes = encodeSetWatches(this.#lastZxid, this.#watches.paths())
      this.#send(quietCall({ kind: 'watches', bytes }))
    }
    for (const call of this.#waiting.splice(0)) this.#send(call)
    this.#lookLater()
    this.onConnected()
  }

  #listen(connection: Connection, { take }: Attached): void {
    const frames = new JuteFrames()
    const data = (chunk: Buffer): void => {
      if (this.#connection !== connection) return
      try {
        for (const content of frames.push(chunk)) this.#frame(content)
      } catch (error) {
        connection.destroy()
        this.#disconnected(connection, error instanceof Error ? error.message : String(error))
      }
    }
    take({
      data,
      close: (error) => this.#disconnected(connection, error?.message ?? 'closed by the server'),
    })
  }

  #frame(content: Buffer): void {
    const from = new JuteReader(content)
    const head = readReplyHead(from)
    if (head.zxid > this.#lastZxid) this.#lastZxid = head.zxid
    if (head.xid === ZkXid.EVENT) {
      this.#watches.fire(readEvent(from))
      return
    }
    const call = this.#inFlight[0]
    if (call === undefined || call.xid !== head.xid) {
      throw new Error(`answer ${head.xid}, expected was ${call?.xid ?? 'none'}`)
    }
    this.#inFlight.shift()
    if (call.isChange) this.#provenAt = Math.max(this.#provenAt, call.sentAt)
    if (head.error === ZkCode.OK) call.answered(from)
    else call.refused(head.error)
    if (head.error === ZkCode.SESSION_EXPIRED) this.#expire('a server says that it has expired')
  }

  #disconnected(connection: Connection, reason: string): void {
    if (this.#connection !== connection) return
    this.#connection = undefined
    this.#cancelLook()
    if (this.#state !== 'open') return
    this.#state = 'seeking'
    this.#options.log.warn('zookeeper.disconnected', { server: connection.remote, reason })
    const broken = this.#inFlight.splice(0)
    const again = broken.filter(
      ({ request }) => request !== 'ping' && request.kind !== 'watches' && READS.has(request.kind),
    )
    this.#waiting = [...again, ...this.#waiting]
    for (const call of broken) if (call.isChange) call.refused(ZkCode.CONNECTION_LOSS)
    void this.#seek()
  }

  /** Pings when nothing else is said, and gives a silent server up. */
  #lookLater(): void {
    this.#cancelLook()
    this.#cancelLook = this.#options.world.clock.after(this.#timeoutMs * LOOK_SHARE, () => {
      const { connection, now } = { connection: this.#connection, now: this.#now() }
      if (connection === undefined) return
      const oldest = this.#inFlight[0]
      if (oldest !== undefined && now - oldest.sentAt > this.#timeoutMs * SILENCE_SHARE) {
        connection.destroy()
        const silent = Math.round(now - oldest.sentAt)
        this.#disconnected(connection, `no answer for ${silent} ms`)
        return
      }
      if (now - this.#sentAt >= this.#timeoutMs * PING_SHARE) this.#send(quietCall('ping'))
      this.#lookLater()
    })
  }

  #now(): number {
    return this.#options.world.clock.monotonic()
  }

  #expire(reason: string): void {
    if (this.#state === 'over') return
    this.#end()
    this.onExpired(reason)
  }

  #end(): void {
    if (this.#state === 'over') return
    this.#state = 'over'
    this.#cancelLook()
    this.#connection?.destroy()
    this.#connection = undefined
    const calls = [...this.#inFlight.splice(0), ...this.#waiting.splice(0)]
    for (const call of calls) call.refused(ZkCode.SESSION_EXPIRED)
    this.#watches.end()
  }
}

/** Nobody waits for its answer. */
function quietCall(request: Call['request']): Call {
  const nothing = (): void => undefined
  return { request, answered: nothing, refused: nothing, isChange: false, xid: 0, sentAt: 0 }
}
