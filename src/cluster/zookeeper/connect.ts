/** One attempt to get a session, new or resumed, from one server. */
import { noBytes } from '../../base/bytes.js'
import { JuteFrames } from '../../wire/zookeeper/jute.js'
import {
  type Accepted,
  type ConnectRequest,
  decodeAccepted,
  encodeConnect,
} from '../../wire/zookeeper/messages.js'
import type { Connection, World } from '../../world/world.js'
import type { ZkServer } from './options.js'

export interface Listener {
  data(chunk: Buffer): void
  close(error?: Error): void
}

export interface Attached {
  readonly connection: Connection
  readonly accepted: Accepted
  /** Whoever takes the connection over hears everything behind the server's first answer. */
  readonly take: (listener: Listener) => void
}

/** No server's first answer is longer. */
const FIRST_BYTES_MAX = 1024
const LENGTH_BYTES = 4

/** Rejects with an Error: refused, silent for `limitMs`, or not a ZooKeeper server. */
export async function connectOnce(
  world: Pick<World, 'clock' | 'network'>,
  server: ZkServer,
  limitMs: number,
  request: ConnectRequest,
): Promise<Attached> {
  const connection = await world.network.connect({ host: server.host, port: server.port }, limitMs)
  return new Promise((resolve, reject) => {
    const cancel = world.clock.after(limitMs, () => fail(`no answer within ${limitMs} ms`))
    const fail = (reason: string): void => {
      cancel()
      connection.destroy()
      reject(new Error(reason))
    }
    const greeting = new Greeting(connection)
    connection.on({
      data: (chunk) => {
        try {
          const attached = greeting.data(chunk)
          if (attached === undefined) return
          cancel()
          resolve(attached)
        } catch (error) {
          fail(error instanceof Error ? error.message : String(error))
        }
      },
      close: (error) => {
        if (!greeting.close(error)) fail(error?.message ?? 'closed by the server')
      },
      drain: () => undefined,
    })
    connection.write(encodeConnect(request))
  })
}

/** Keeps what arrives until somebody takes the connection over. */
class Greeting {
  readonly #connection: Connection
  #listener: Listener | undefined
  #early = noBytes()
  #closed: { readonly error: Error | undefined } | undefined
  #isAnswered = false

  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** The first answer, once, when it is complete. Throws an Error when it is none. */
  data(chunk: Buffer): Attached | undefined {
    if (this.#listener !== undefined) {
      this.#listener.data(chunk)
      return undefined
    }
    this.#early = Buffer.concat([this.#early, chunk])
    if (this.#isAnswered || this.#early.length < LENGTH_BYTES) return undefined
    const length = this.#early.readInt32BE(0)
    if (length < 0 || length > FIRST_BYTES_MAX) {
      throw new Error('it does not speak the ZooKeeper protocol')
    }
    const end = LENGTH_BYTES + length
    if (this.#early.length < end) return undefined
    const [content = noBytes()] = new JuteFrames().push(this.#early.subarray(0, end))
    this.#early = this.#early.subarray(end)
    this.#isAnswered = true
    return {
      connection: this.#connection,
      accepted: decodeAccepted(content),
      take: (listener) => this.#take(listener),
    }
  }

  /** False when nobody has been given the connection yet. */
  close(error: Error | undefined): boolean {
    this.#closed = { error }
    this.#listener?.close(error)
    return this.#isAnswered
  }

  #take(listener: Listener): void {
    this.#listener = listener
    if (this.#early.length > 0) listener.data(this.#early)
    this.#early = noBytes()
    if (this.#closed !== undefined) listener.close(this.#closed.error)
  }
}
