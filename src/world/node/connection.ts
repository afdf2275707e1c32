/** A stream socket as a Connection. */
import type { Socket, SocketConstructorOpts } from 'node:net'
import type { Connection, ConnectionEvents } from '../world.js'

/**
 * Unsent bytes from which on `write` says "wait". Node's own 16 KiB would stop a client with 32
 * requests of 4 KiB after every batch. A paused socket reads ahead at most as much.
 */
const HIGH_WATER_BYTES = 512 * 1024
/** A peer that vanished without a word is noticed after this and nine probes more. */
const KEEP_ALIVE_MS = 30_000
/** How long an ended connection may be silent before it is closed for good. */
const LINGER_MS = 5_000

/** For `new Socket` (whose types do not list it) and `createServer`. */
export const socketOptions: SocketConstructorOpts & { highWaterMark: number } = {
  highWaterMark: HIGH_WATER_BYTES,
}

export class SocketConnection implements Connection {
  readonly remote: string
  readonly remoteHost?: string
  readonly localHost?: string
  readonly #socket: Socket
  #events: ConnectionEvents | undefined
  #error: Error | undefined
  #closed = false
  #ended = false

  /** Takes a connected socket over. */
  constructor(socket: Socket) {
    this.#socket = socket
    this.remote = remoteName(socket)
    if (socket.remoteAddress !== undefined) this.remoteHost = unmapped(socket.remoteAddress)
    if (socket.localAddress !== undefined) this.localHost = unmapped(socket.localAddress)
    // Both are without effect on unix sockets.
    socket.setNoDelay(true)
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    socket.on('error', (error) => {
      this.#error ??= error
    })
    socket.on('close', () => {
      this.#closed = true
      this.#events?.close(this.#error)
    })
  }

  on(events: ConnectionEvents): void {
    this.#events = events
    if (this.#closed) {
      setImmediate(() => events.close(this.#error))
      return
    }
    this.#socket.on('drain', () => events.drain())
    this.#socket.on('data', (chunk: Buffer) => {
      // Who has ended does not listen any more; the bytes are read only to see the end behind them.
      if (!this.#ended) events.data(chunk)
    })
  }

  /** Gives the socket to somebody else; of this connection only the end is left. */
  surrender(): Socket {
    for (const event of ['data', 'drain']) this.#socket.removeAllListeners(event)
    return this.#socket
  }

  write(bytes: Uint8Array): boolean {
    // Nothing will ever drain: `close` is on its way, and waiting would be for ever.
    if (!this.#socket.writable) return true
    return this.#socket.write(bytes)
  }

  writeAll(pieces: readonly Uint8Array[]): boolean {
    if (!this.#socket.writable) return true
    this.#socket.cork()
    for (const piece of pieces) this.#socket.write(piece)
    this.#socket.uncork()
    return !this.#socket.writableNeedDrain
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  /**
   * Closing with unread bytes would make the kernel answer with a reset, which can overtake our last
   * words; so the other side's end is awaited, as long as something moves.
   */
  end(): void {
    if (this.#ended) return
    this.#ended = true
    this.#socket.end()
    this.#socket.resume()
    this.#socket.setTimeout(LINGER_MS, () => this.#socket.destroy())
  }

  destroy(): void {
    this.#socket.destroy()
  }
}

function remoteName(socket: Socket): string {
  const { remoteAddress, remotePort } = socket
  if (remoteAddress === undefined || remotePort === undefined) return 'unix'
  const host = unmapped(remoteAddress)
  return host.includes(':') ? `[${host}]:${remotePort}` : `${host}:${remotePort}`
}

/** An IPv4 address as a socket that listens on both families shows it, as itself. */
function unmapped(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/, '')
}
