/** A stream socket as a Connection. */
import net, { type Socket, type SocketConstructorOpts } from 'node:net'
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

/**
 * What all connections are read into, one after the other: nobody keeps any of it, and an idle connection has no memory.
 * Node's own way, 64 KiB of new memory a read, costs more than the read.
 */
const SHARED = Buffer.allocUnsafeSlow(256 * 1024)

/** How a socket is read (`onread` of net.Socket): into memory that its reader names. */
class Reading {
  /** Who reads; until somebody does, what comes is kept. */
  events: ConnectionEvents | undefined
  early: Buffer[] = []
  ended = false
  #target: Uint8Array = SHARED

  readonly onread = {
    buffer: (): Uint8Array => {
      this.#target = this.events?.room?.() ?? SHARED
      return this.#target
    },
    callback: (count: number): boolean => {
      const { buffer, byteOffset } = this.#target
      this.take(Buffer.from(buffer as ArrayBuffer, byteOffset, count))
      return true
    },
  }

  /** `bytes` are borrowed. */
  take(bytes: Buffer): void {
    // Who has ended does not listen any more; the bytes are read only to see the end behind them.
    if (this.ended) return
    if (this.events === undefined) this.early.push(Buffer.from(bytes))
    else this.events.data(this.events.room === undefined ? Buffer.from(bytes) : bytes)
  }
}

const readings = new WeakMap<Socket, Reading>()

/** A socket, not connected yet, that is read into the shared memory. */
export function readingSocket(): Socket {
  const reading = new Reading()
  const socket = new net.Socket(withReading(reading, {}))
  readings.set(socket, reading)
  return socket
}

/** The same for a connected socket of this process, by its number. */
export function readingDescriptor(fd: number): Socket {
  const reading = new Reading()
  const socket = new net.Socket({ ...withReading(reading, {}), fd, readable: true, writable: true })
  readings.set(socket, reading)
  return socket
}

/**
 * The same for one that a server has accepted with `pauseOnConnect`. Node has no public way to say how accepted sockets are
 * read, so their handle gets a new socket around it; where there is none to be had, Node reads as it does.
 */
export function rereading(accepted: Socket): Socket {
  const owner = accepted as unknown as { _handle: unknown }
  const handle = owner._handle
  if (typeof handle !== 'object' || handle === null) {
    accepted.resume()
    return accepted
  }
  owner._handle = null
  const reading = new Reading()
  const socket = new net.Socket(withReading(reading, { handle }))
  readings.set(socket, reading)
  return socket
}

/** The types of Node list neither. */
function withReading({ onread }: Reading, more: { handle?: object }): SocketConstructorOpts {
  return { ...socketOptions, ...more, onread } as SocketConstructorOpts
}

export class SocketConnection implements Connection {
  readonly remote: string
  readonly remoteHost?: string
  readonly localHost?: string
  readonly #socket: Socket
  readonly #reading: Reading
  #error: Error | undefined
  #closed = false

  /** Takes a connected socket over. */
  constructor(socket: Socket) {
    this.#socket = socket
    this.remote = remoteName(socket)
    if (socket.remoteAddress !== undefined) this.remoteHost = unmapped(socket.remoteAddress)
    if (socket.localAddress !== undefined) this.localHost = unmapped(socket.localAddress)
    // Both are without effect on unix sockets.
    socket.setNoDelay(true)
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    this.#reading = readings.get(socket) ?? new Reading()
    socket.on('error', (error) => {
      this.#error ??= error
    })
    socket.on('close', () => {
      this.#closed = true
      this.#reading.events?.close(this.#error)
    })
  }

  on(events: ConnectionEvents): void {
    const reading = this.#reading
    reading.events = events
    if (this.#closed) {
      setImmediate(() => events.close(this.#error))
      return
    }
    this.#socket.on('drain', () => events.drain())
    if (readings.has(this.#socket)) for (const bytes of reading.early.splice(0)) reading.take(bytes)
    // Of an encrypted connection each chunk is new memory anyway.
    else this.#socket.on('data', (chunk: Buffer) => !reading.ended && events.data(chunk))
  }

  /** The kernel's number of it; undefined once it has ended. */
  get descriptor(): number | undefined {
    const { _handle: handle } = this.#socket as unknown as { _handle: { fd: number } | null }
    return handle === null || handle.fd < 0 ? undefined : handle.fd
  }

  /** Gives the socket to somebody else; of this connection only the end is left. */
  surrender(): Socket {
    this.#reading.events = undefined
    for (const event of ['data', 'drain']) this.#socket.removeAllListeners(event)
    return this.#socket
  }

  write(bytes: Uint8Array, sent?: () => void): boolean {
    // Nothing will ever drain: `close` is on its way, and waiting would be for ever.
    if (!this.#socket.writable) return true
    return this.#socket.write(bytes, whenSent(sent))
  }

  writeAll(pieces: readonly Uint8Array[], sent?: () => void): boolean {
    if (!this.#socket.writable) return true
    const last = pieces.length - 1
    this.#socket.cork()
    pieces.forEach(
      (piece, i) => void this.#socket.write(piece, whenSent(i === last ? sent : undefined)),
    )
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
    if (this.#reading.ended) return
    this.#reading.ended = true
    this.#socket.end()
    this.#socket.resume()
    this.#socket.setTimeout(LINGER_MS, () => this.#socket.destroy())
  }

  destroy(): void {
    this.#socket.destroy()
  }
}

/** What failed to leave may still be looked at by the kernel. */
function whenSent(sent: (() => void) | undefined): ((error?: Error | null) => void) | undefined {
  return sent && ((error) => error ?? sent())
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
