/**
 * A small NBD client for tests: fixed newstyle, OPT_GO, simple replies, any number of requests in flight.
 * What became of a request is told apart exactly, because a model of the disk needs it: answered with
 * success, answered with an error, or nobody knows (NBD document, "Transmission").
 */
import { createConnection, type Socket } from 'node:net'
import {
  Command,
  CommandFlag,
  GREETING_MAGIC,
  HandshakeFlag,
  Info,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  Option,
  REQUEST_MAGIC,
  Rep,
  SIMPLE_REPLY_MAGIC,
} from '../../src/wire/nbd/constants.js'

const GREETING_BYTES = 18
const OPTION_REPLY_BYTES = 20
const REQUEST_BYTES = 28
const SIMPLE_REPLY_BYTES = 16
const CONNECT_MS = 10_000

/** The server answered a request with an error number (NBD document, "Error values"). */
export class NbdRefused extends Error {
  readonly errno: number

  constructor(what: string, errno: number) {
    super(`${what}: the server answered error ${errno}`)
    this.errno = errno
  }
}

/** The connection ended with the request unanswered: it may have been done or not. */
export class NbdLost extends Error {}

/** The export could not be opened; nothing was asked of it. */
export class NbdNotOpened extends Error {}

interface Waiting {
  readonly what: string
  readonly readBytes: number
  readonly done: (data: Buffer | undefined, error: Error | undefined) => void
}

export interface NbdPlace {
  readonly host: string
  readonly port: number
}

export class NbdClient {
  readonly sizeBytes: number
  readonly #socket: Socket
  readonly #waiting = new Map<number, Waiting>()
  #nextCookie = 1
  #held: Buffer
  #lost: Error | undefined

  private constructor(socket: Socket, sizeBytes: number, rest: Buffer) {
    this.#socket = socket
    this.sizeBytes = sizeBytes
    this.#held = rest
    socket.on('data', (chunk: Buffer) => this.#received(chunk))
    socket.on('close', () => this.#over(new NbdLost('the server closed the connection')))
  }

  /** Rejects with NbdNotOpened, whatever the reason. */
  static async open(place: NbdPlace, exportName: string): Promise<NbdClient> {
    const socket = createConnection({ ...place, noDelay: true })
    // A connection that fails also closes, and that is what is acted on.
    let trouble = ''
    socket.on('error', (error) => {
      trouble = error.message
    })
    const timer = setTimeout(() => socket.destroy(new Error('no answer')), CONNECT_MS)
    try {
      const { sizeBytes, rest } = await handshake(socket, exportName)
      return new NbdClient(socket, sizeBytes, rest)
    } catch (error) {
      socket.destroy()
      throw new NbdNotOpened(trouble || (error instanceof Error ? error.message : String(error)))
    } finally {
      clearTimeout(timer)
    }
  }

  get alive(): boolean {
    return this.#lost === undefined
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const data = await this.#request({ type: Command.READ, flags: 0, offset, length })
    return data ?? Buffer.alloc(0)
  }

  async write(offset: number, data: Buffer, fua: boolean): Promise<void> {
    const flags = fua ? CommandFlag.FUA : 0
    await this.#request({ type: Command.WRITE, flags, offset, length: data.length }, data)
  }

  async flush(): Promise<void> {
    await this.#request({ type: Command.FLUSH, flags: 0, offset: 0, length: 0 })
  }

  /** The orderly end: what is in flight is answered first by a good server. */
  close(): void {
    if (this.#lost !== undefined) return
    this.#socket.write(requestHead({ type: Command.DISC, flags: 0, offset: 0, length: 0 }, 0))
    this.#socket.end()
  }

  /** Gives the connection up at once; what is in flight is lost. */
  destroy(reason: string): void {
    this.#over(new NbdLost(reason))
    this.#socket.destroy()
  }

  #request(request: Request, payload?: Buffer): Promise<Buffer | undefined> {
    return new Promise((resolve, reject) => {
      if (this.#lost !== undefined) {
        reject(this.#lost)
        return
      }
      const cookie = this.#nextCookie++ >>> 0
      this.#waiting.set(cookie, {
        what: `${COMMAND_NAMES[request.type]} at ${request.offset}`,
        readBytes: request.type === Command.READ ? request.length : 0,
        done: (data, error) => (error === undefined ? resolve(data) : reject(error)),
      })
      const head = requestHead(request, cookie)
      this.#socket.write(payload === undefined ? head : Buffer.concat([head, payload]))
    })
  }

  #received(chunk: Buffer): void {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    while (this.#held.length >= SIMPLE_REPLY_BYTES) {
      const head = this.#held
      const cookie = head.readUInt32BE(12)
      const waiting = this.#waiting.get(cookie)
      if (head.readUInt32BE(0) !== SIMPLE_REPLY_MAGIC || waiting === undefined) {
        this.destroy('the server sent something that is no reply to a request')
        return
      }
      const errno = head.readUInt32BE(4)
      const bytes = SIMPLE_REPLY_BYTES + (errno === 0 ? waiting.readBytes : 0)
      if (head.length < bytes) return
      this.#held = head.subarray(bytes)
      this.#waiting.delete(cookie)
      const error = errno === 0 ? undefined : new NbdRefused(waiting.what, errno)
      waiting.done(head.subarray(SIMPLE_REPLY_BYTES, bytes), error)
    }
  }

  #over(error: Error): void {
    if (this.#lost !== undefined) return
    this.#lost = error
    const waiting = [...this.#waiting.values()]
    this.#waiting.clear()
    for (const one of waiting) one.done(undefined, error)
  }
}

const COMMAND_NAMES: Readonly<Record<number, string>> = {
  [Command.READ]: 'read',
  [Command.WRITE]: 'write',
  [Command.FLUSH]: 'flush',
}

interface Request {
  readonly type: number
  readonly flags: number
  readonly offset: number
  readonly length: number
}

//  magic u32 | flags u16 | type u16 | cookie u64 | offset u64 | length u32
function requestHead(request: Request, cookie: number): Buffer {
  const head = Buffer.alloc(REQUEST_BYTES)
  head.writeUInt32BE(REQUEST_MAGIC, 0)
  head.writeUInt16BE(request.flags, 4)
  head.writeUInt16BE(request.type, 6)
  head.writeUInt32BE(cookie, 12)
  head.writeBigUInt64BE(BigInt(request.offset), 16)
  head.writeUInt32BE(request.length, 24)
  return head
}

/** Greeting, client flags, GO; returns the size and whatever came behind the last answer. */
async function handshake(
  socket: Socket,
  exportName: string,
): Promise<{ sizeBytes: number; rest: Buffer }> {
  const input = new ByteReader(socket)
  const greeting = await input.take(GREETING_BYTES)
  if (greeting.readUInt32BE(0) !== GREETING_MAGIC[0]) throw new Error('this is no NBD server')
  const flags = Buffer.alloc(4)
  flags.writeUInt32BE(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
  socket.write(Buffer.concat([flags, goOption(exportName)]))
  let sizeBytes = 0
  for (;;) {
    const head = await input.take(OPTION_REPLY_BYTES)
    if (head.readUInt32BE(0) !== OPTION_REPLY_MAGIC[0]) throw new Error('no option reply')
    const data = await input.take(head.readUInt32BE(16))
    const type = head.readUInt32BE(12)
    if (type === Rep.INFO && data.readUInt16BE(0) === Info.EXPORT) {
      sizeBytes = Number(data.readBigUInt64BE(2))
    }
    if (type === Rep.ACK) return { sizeBytes, rest: input.release() }
    if (type !== Rep.INFO) throw new Error(`refused: ${data.toString() || type.toString(16)}`)
  }
}

function goOption(exportName: string): Buffer {
  const name = Buffer.from(exportName)
  const option = Buffer.alloc(16 + 4 + name.length + 2)
  option.writeUInt32BE(OPTION_MAGIC[0], 0)
  option.writeUInt32BE(OPTION_MAGIC[1], 4)
  option.writeUInt32BE(Option.GO, 8)
  option.writeUInt32BE(4 + name.length + 2, 12)
  option.writeUInt32BE(name.length, 16)
  name.copy(option, 20)
  return option
}

/** Takes exact numbers of bytes from a socket until it is released. */
class ByteReader {
  readonly #socket: Socket
  #held = Buffer.alloc(0)
  #wake: () => void = () => undefined
  #closed = false
  readonly #onData = (chunk: Buffer): void => {
    this.#held = Buffer.concat([this.#held, chunk])
    this.#wake()
  }
  readonly #onClose = (): void => {
    this.#closed = true
    this.#wake()
  }

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', this.#onData)
    socket.on('close', this.#onClose)
  }

  async take(bytes: number): Promise<Buffer> {
    while (this.#held.length < bytes) {
      if (this.#closed) throw new Error('the connection ended during the handshake')
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    const taken = this.#held.subarray(0, bytes)
    this.#held = this.#held.subarray(bytes)
    return taken
  }

  release(): Buffer {
    this.#socket.off('data', this.#onData)
    this.#socket.off('close', this.#onClose)
    return this.#held
  }
}
