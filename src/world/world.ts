/**
 * What the machine offers, as interfaces. Everything above this floor gets its world through
 * constructors, so that the same code runs on real sockets and disks and inside a simulation.
 */
import type { StripMath } from '../base/strips.js'

export interface World {
  readonly clock: Clock
  readonly random: Random
  readonly network: Network
  readonly files: Files
  /** The machine's fast way of erasure coding; the portable one when absent. */
  readonly strips?: StripMath
}

export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now(): number
  /**
   * Milliseconds from an arbitrary start, with a fraction. Never goes back, whoever sets the clock, and
   * counts the time a process was stopped (SIGSTOP). Deadlines, time-outs and leases are measured with it.
   */
  monotonic(): number
  /** Runs `fn` once after `delayMs`; the returned function cancels it. Keeps the process alive. */
  after(delayMs: number, fn: () => void): () => void
  /** Runs `fn` when the current turn of the event loop is over (after pending I/O callbacks). */
  soon(fn: () => void): void
}

export interface Random {
  /** Uniform integer in [0, limit). */
  below(limit: number): number
  bytes(length: number): Buffer
}

export type Address = { readonly host: string; readonly port: number } | { readonly path: string }

/** A listening socket somebody else has opened for this process. */
export interface PassedSocket {
  readonly fd: number
}

export interface Listener {
  /** Where it listens; the real port when 0 was asked for. */
  readonly address: Address
  close(): Promise<void>
}

export interface ConnectionEvents {
  /**
   * Memory for the next bytes, asked for after each `data`; undefined: wherever. Who has it at all gets chunks that are
   * borrowed for the call, not necessarily views of that memory; without it each chunk is the callee's to keep.
   */
  room?(): Uint8Array | undefined
  /** Bytes arrived. */
  data(chunk: Buffer): void
  /** The connection is over, in order or not; called once. */
  close(error?: Error): void
  /** The kernel took what was waiting; called after `write` returned false. */
  drain(): void
}

export interface Connection {
  /** For people: `127.0.0.1:40312` or `unix`. */
  readonly remote: string
  /** Numeric address of the other end; undefined on unix sockets. */
  readonly remoteHost?: string
  /** Numeric address of this end, where there is one. */
  readonly localHost?: string
  /** Set once by whoever owns the connection, before the next turn of the loop. */
  on(events: ConnectionEvents): void
  /**
   * Sends; `bytes` must not change before `sent`, which is called when the kernel has them, and not at all when the
   * connection ends before. False: wait for `drain`.
   */
  write(bytes: Uint8Array, sent?: () => void): boolean
  /** Several pieces in one system call where the platform allows it. */
  writeAll(pieces: readonly Uint8Array[], sent?: () => void): boolean
  pause(): void
  resume(): void
  /** Sends what waits, then closes. */
  end(): void
  /** Closes now. */
  destroy(): void
}

export interface SecureConnection extends Connection {
  /** Names a verified certificate gives the other side, or that of its key; empty when it showed none. */
  readonly peerNames: readonly string[]
}

/** Keys and rules of a server that goes on encrypted. */
export interface TlsServer {
  /**
   * Takes over a connection of which nothing is unread; the client begins a TLS handshake on it. Rejects, with the
   * connection closed, when that fails.
   */
  secure(connection: Connection): Promise<SecureConnection>
}

export interface Network {
  listen(at: Address | PassedSocket, accept: (connection: Connection) => void): Promise<Listener>
  connect(to: Address, timeoutMs: number): Promise<Connection>
}

/** How a file is opened. */
export interface OpenHow {
  readonly write?: boolean
  readonly create?: boolean
  /** With create: fail with EEXIST when the name is taken. */
  readonly exclusive?: boolean
  readonly truncate?: boolean
  /**
   * Past the page cache (O_DIRECT). For files of whole blocks of 4096 bytes that have their full size before they are written,
   * one write at a time; `readNow` finds nothing, and `writeNow` is refused. Throws ENOTSUP where there is no
   * memory for it, EINVAL where the file system has no such thing.
   */
  readonly direct?: boolean
}

/**
 * Callback of a file operation: `error` has the errno name in `code` ('ENOSPC', 'EIO', ...).
 * `count` is the number of bytes moved; short reads happen at the end of the file only.
 */
export type FileDone = (error: NodeJS.ErrnoException | null, count: number) => void

export interface OpenFile {
  /**
   * Reads what is in the page cache at once. Returns the bytes read (short at the end of the file),
   * or -1 when the answer needs the disk: then use `read`.
   */
  readNow(into: Uint8Array, position: number): number
  read(into: Uint8Array, position: number, done: FileDone): void
  /** Puts all of `data` into the page cache at once; throws an errno error. For small writes. */
  writeNow(data: Uint8Array, position: number): void
  write(data: Uint8Array, position: number, done: FileDone): void
  /** fdatasync. */
  sync(done: FileDone): void
  /** Reserves space and sets the size to at least `length`. */
  allocate(length: number): Promise<void>
  /** Makes a hole; the size stays. */
  punch(offset: number, length: number): Promise<void>
  truncate(length: number): Promise<void>
  size(): number
  close(): void
}

export interface Files {
  /** Throws errno errors, ENOENT among them. */
  open(path: string, how: OpenHow): OpenFile
  readFile(path: string): Buffer
  /** Writes `path` as a whole: temporary file, sync, rename, sync of the directory. */
  writeFileAtomic(path: string, data: Uint8Array): Promise<void>
  exists(path: string): boolean
  mkdir(path: string): void
  readDir(path: string): Promise<string[]>
  rename(from: string, to: string): Promise<void>
  link(from: string, to: string): Promise<void>
  unlink(path: string): Promise<void>
  /** Makes the names in a directory durable. */
  syncDir(path: string): Promise<void>
  /** syncfs(2): everything on the file system `path` lives on. */
  syncAll(path: string): Promise<void>
  /** Bytes the file system of `path` has and has free for us. */
  space(path: string): { readonly totalBytes: number; readonly freeBytes: number }
  /** Blocks the file really occupies, in bytes. */
  usedBytes(path: string): number
  getAttribute(path: string, name: string): Buffer | undefined
  setAttribute(path: string, name: string, value: Uint8Array): void
  /**
   * Takes an advisory lock on a file (made when absent) that ends with this process.
   * Undefined when another process holds it.
   */
  lock(path: string): FileLock | undefined
  /** Calls `changed` after something below or at `path` changed; spurious calls are allowed. */
  watch(path: string, changed: () => void): () => void
}

export interface FileLock {
  release(): void
}
