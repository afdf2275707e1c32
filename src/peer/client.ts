/**
 * One connection to a sheep, from the requesting side: any number of requests in flight, matched by id.
 * Requests leave in the order they were made; a sheep applies those on one object in that order.
 */
import { Code, SheepError } from '../base/codes.js'
import { Outbox } from '../base/outbox.js'
import {
  type Frame,
  FrameReader,
  MalformedFrame,
  responseBodyLength,
} from '../wire/sheepdog/frame.js'
import type { Address, Connection, World } from '../world/world.js'

/** Called once: with the reply, or with the reason why none will come. */
export type ReplyDone = (reply: Frame | undefined, error?: Error) => void

export interface ClientOptions {
  readonly connectTimeoutMs?: number
  /** A request without a reply for this long costs the connection; 0 waits for ever. */
  readonly replyTimeoutMs?: number
}

const CONNECT_TIMEOUT_MS = 5_000

interface Waiting {
  readonly done: ReplyDone
  readonly since: number
}

export class SheepClient {
  readonly #connection: Connection
  readonly #clock: World['clock']
  readonly #outbox: Outbox
  readonly #reader = new FrameReader(responseBodyLength)
  readonly #waiting = new Map<number, Waiting>()
  readonly #replyTimeoutMs: number
  #nextId = 1
  #closed: Error | undefined
  #cancelTimer: (() => void) | undefined
  /** Called once when the connection is over. */
  onClose: (() => void) | undefined

  private constructor(connection: Connection, clock: World['clock'], replyTimeoutMs: number) {
    this.#connection = connection
    this.#clock = clock
    this.#replyTimeoutMs = replyTimeoutMs
    this.#outbox = new Outbox(
      (pieces) => connection.writeAll(pieces),
      (fn) => clock.soon(fn),
    )
    connection.on({
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
    return new SheepClient(connection, world.clock, options.replyTimeoutMs ?? 0)
  }

  get alive(): boolean {
    return this.#closed === undefined
  }

  /** Sends; `head` gets its id here. `payload` must not change until the reply is there. */
  request(head: Buffer, payload: Uint8Array | undefined, done: ReplyDone): void {
    if (this.#closed !== undefined) {
      done(undefined, this.#closed)
      return
    }
    const id = this.#nextId
    this.#nextId = (id + 1) >>> 0
    head.writeUInt32LE(id, 8)
    this.#waiting.set(id, { done, since: this.#clock.now() })
    this.#watchReplies()
    this.#outbox.push(head)
    if (payload !== undefined) this.#outbox.push(payload)
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
    this.#connection.end()
    this.#over(new Error('connection closed'))
  }

  #received(chunk: Buffer): void {
    const frames = this.#reader.read(chunk)
    for (;;) {
      const reply = this.#next(frames)
      if (reply === undefined) return
      const { done } = this.#waiting.get(reply.id)!
      this.#waiting.delete(reply.id)
      done(reply)
    }
  }

  /** The next reply somebody waits for; undefined at the end of the chunk, or of the connection. */
  #next(frames: Generator<Frame, void, undefined>): Frame | undefined {
    try {
      const next = frames.next()
      if (next.done === true) return undefined
      if (!this.#waiting.has(next.value.id)) {
        throw new MalformedFrame(`reply to request ${next.value.id}, which nobody made`)
      }
      return next.value
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
    this.onClose?.()
  }

  /** One timer a connection, armed while something is in flight. */
  #watchReplies(): void {
    if (this.#replyTimeoutMs === 0 || this.#cancelTimer !== undefined) return
    this.#cancelTimer = this.#clock.after(this.#replyTimeoutMs / 2, () => {
      this.#cancelTimer = undefined
      const [oldest] = this.#waiting.values()
      if (oldest === undefined) return
      if (this.#clock.now() - oldest.since < this.#replyTimeoutMs) {
        this.#watchReplies()
        return
      }
      this.#connection.destroy()
      this.#over(new Error(`no reply for ${this.#replyTimeoutMs} ms`))
    })
  }
}
