/**
 * One connection to a sheep, from the requesting side: any number of requests in flight, matched by id.
 * Requests leave in the order they were made; a sheep applies those on one object in that order.
 */
import { Code, SheepError } from '../base/codes.js'
import { Outbox } from '../base/outbox.js'
import { Frame, FrameReader, MalformedFrame, responseBodyLength } from '../wire/sheepdog/frame.js'
import type { Address, Connection, World } from '../world/world.js'

/** Called once: with the reply, or with the reason why none will come. */
export type ReplyDone = (reply: Frame | undefined, error?: Error) => void

export interface ClientOptions {
  readonly connectTimeoutMs?: number
}

/**
 * How a silent connection is told from a slow answer: while replies are awaited and nothing comes, a probe is
 * sent, which the other side answers at once whatever else it is busy with. Time is counted in ticks of our
 * own event loop, so that a process that was stopped itself does not take the others for dead.
 */
export interface Watch {
  readonly tickMs: number
  /** Ticks without a byte after which the connection is given up. */
  readonly silentTicks: number
  /** Ticks after which a request that was made with `late` is late. */
  readonly lateTicks: number
  readonly probe: () => { readonly head: Buffer; readonly payload: Buffer }
}

const CONNECT_TIMEOUT_MS = 5_000
/** Ticks without a byte after which the other side is asked for a sign of life. */
const QUIET_TICKS = 2

interface Waiting {
  readonly done: ReplyDone
  late?: (() => void) | undefined
  /** Where the body of a success belongs that has just its size. */
  readonly into?: Buffer
  readonly tick: number
}

export class SheepClient {
  readonly #connection: Connection
  readonly #clock: World['clock']
  readonly #outbox: Outbox
  readonly #reader = new FrameReader(responseBodyLength, {
    take: (length, head) => this.#placeOf(length, head),
    give: () => undefined,
  })
  readonly #waiting = new Map<number, Waiting>()
  #watch: Watch | undefined
  #tick = 0
  #quietTicks = 0
  #heard = false
  #probing = false
  #nextId = 1
  #closed: Error | undefined
  #cancelTimer: (() => void) | undefined
  /** Called when a watched connection is given up. */
  onSilent: (() => void) | undefined

  private constructor(connection: Connection, clock: World['clock']) {
    this.#connection = connection
    this.#clock = clock
    this.#outbox = new Outbox(
      (pieces) => connection.writeAll(pieces),
      (fn) => clock.soon(fn),
    )
    connection.on({
      room: () => this.#reader.room(),
      data: (chunk) => this.#received(chunk),
      close: (error) => this.#over(error ?? new Error('the sheep closed the connection')),
      drain: () => undefined,
    })
  }

  /** Rejects with the connect error. */
  static async connect(
    world: Pick<World, 'clock' | 'network'>,
    to: Address,
    options: ClientOptions = {},
  ): Promise<SheepClient> {
    const timeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS
    const connection = await world.network.connect(to, timeoutMs)
    return new SheepClient(connection, world.clock)
  }

  get alive(): boolean {
    return this.#closed === undefined
  }

  /** Somebody waits for replies, and has not heard anything for a while. */
  get isQuiet(): boolean {
    return this.#quietTicks >= QUIET_TICKS
  }

  get isWatched(): boolean {
    return this.#watch !== undefined
  }

  /** From now on the connection ends when the other side is silent. */
  watch(watch: Watch): void {
    this.#watch = watch
    if (this.#waiting.size > 0) this.#armTimer()
  }

  /**
   * Sends; `head` gets its id here. `payload` must not change until the reply is there. `late` is called once
   * when a watched connection has not brought it for a while.
   */
  request(head: Buffer, payload: Uint8Array | undefined, done: ReplyDone, late?: () => void): void {
    this.#submit(head, payload, { done, late, tick: this.#tick })
  }

  /**
   * Sends what asks for `into.length` bytes. The body of a success of that length is `into` itself, filled; it is borrowed until `done`,
   * and in case of a failure may have been written to.
   */
  requestInto(head: Buffer, into: Buffer, done: ReplyDone): void {
    this.#submit(head, undefined, { done, into, tick: this.#tick })
  }

  #submit(head: Buffer, payload: Uint8Array | undefined, waiting: Waiting): void {
    if (this.#closed !== undefined) {
      waiting.done(undefined, this.#closed)
      return
    }
    const id = this.#nextId
    this.#nextId = (id + 1) >>> 0
    head.writeUInt32LE(id, 8)
    this.#waiting.set(id, waiting)
    if (this.#watch !== undefined) this.#armTimer()
    this.#outbox.push(head)
    if (payload !== undefined) this.#outbox.push(payload)
  }

  #placeOf(length: number, head: Buffer): Buffer {
    const { id, result } = new Frame(head)
    const into = result === Code.SUCCESS ? this.#waiting.get(id)?.into : undefined
    return into?.length === length ? into : Buffer.allocUnsafeSlow(length)
  }

  /** As `request`; rejects with NETWORK_ERROR when the connection ends first. */
  call(head: Buffer, payload?: Uint8Array): Promise<Frame> {
    return new Promise((resolve, reject) => {
      this.request(head, payload, (reply, error) => {
        if (reply !== undefined) resolve(reply)
        else reject(new SheepError(Code.NETWORK_ERROR, error?.message))
      })
    })
  }

  close(): void {
    this.#outbox.flush()
    // What still comes must not go where its reader no longer wants it.
    const isAwaited = [...this.#waiting.values()].some(({ into }) => into !== undefined)
    if (isAwaited) this.#connection.destroy()
    else this.#connection.end()
    this.#over(new Error('connection closed'))
  }

  /** Ends it now; what the kernel has not taken yet is not sent any more. */
  abort(reason: string): void {
    this.#connection.destroy()
    this.#over(new Error(reason))
  }

  #received(chunk: Buffer): void {
    this.#heard = true
    this.#quietTicks = 0
    this.#reader.give(chunk)
    for (let reply = this.#next(); reply !== undefined; reply = this.#next()) {
      const { done } = this.#waiting.get(reply.id)!
      this.#waiting.delete(reply.id)
      done(reply)
    }
  }

  /** The next reply somebody waits for; undefined when there is none yet, or the connection is over. */
  #next(): Frame | undefined {
    try {
      const reply = this.#reader.next()
      if (reply !== undefined && !this.#waiting.has(reply.id)) {
        throw new MalformedFrame(`reply to request ${reply.id}, which nobody made`)
      }
      return reply
    } catch (error) {
      if (!(error instanceof MalformedFrame)) throw error
      this.#connection.destroy()
      this.#over(error)
      return undefined
    }
  }

  #over(error: Error): void {
    if (this.#closed !== undefined) return
    this.#closed = error
    this.#cancelTimer?.()
    const waiting = [...this.#waiting.values()]
    this.#waiting.clear()
    for (const one of waiting) one.done(undefined, error)
  }

  /** One timer a connection, running while something is in flight. */
  #armTimer(): void {
    const watch = this.#watch
    if (watch === undefined || this.#cancelTimer !== undefined) return
    this.#cancelTimer = this.#clock.after(watch.tickMs, () => {
      this.#cancelTimer = undefined
      this.#ticked(watch)
    })
  }

  #ticked(watch: Watch): void {
    this.#tick++
    if (this.#heard || this.#waiting.size === 0) this.#quietTicks = 0
    else this.#quietTicks++
    this.#heard = false
    if (this.#waiting.size === 0) return
    if (this.#quietTicks >= watch.silentTicks) {
      this.#connection.destroy()
      this.onSilent?.()
      this.#over(new Error(`silent for ${watch.silentTicks * watch.tickMs} ms`))
      return
    }
    this.#armTimer()
    if (this.isQuiet && !this.#probing) this.#probe(watch)
    for (const waiting of [...this.#waiting.values()]) {
      if (waiting.late === undefined || this.#tick - waiting.tick < watch.lateTicks) continue
      const { late } = waiting
      waiting.late = undefined
      late()
    }
  }

  #probe(watch: Watch): void {
    this.#probing = true
    const { head, payload } = watch.probe()
    this.request(head, payload, () => {
      this.#probing = false
    })
  }
}
