/**
 * An NBD server side without sockets: a connection that records, a clock that a test moves, and the
 * client's bytes as small builders. Reply streams are decoded into lines that read like a transcript.
 */
import { BufferPool } from '../../../src/base/buffer-pool.js'
import { silentLog } from '../../../src/base/log.js'
import { NbdClient, type TlsDoor } from '../../../src/doors/nbd/connection.js'
import { type ExportRules, NO_RULES } from '../../../src/doors/nbd/export-rules.js'
import { NbdHall } from '../../../src/doors/nbd/hall.js'
import type { VolumeSource } from '../../../src/volume/volume.js'
import {
  EXTENDED_REQUEST_MAGIC,
  OPTION_MAGIC,
  REQUEST_MAGIC,
} from '../../../src/wire/nbd/constants.js'
import type { Clock, Connection, ConnectionEvents } from '../../../src/world/world.js'

export class TestClock implements Clock {
  #now = 0
  #timers = new Set<{ readonly at: number; readonly fn: () => void }>()

  now(): number {
    return this.#now
  }

  monotonic(): number {
    return this.#now
  }

  after(delayMs: number, fn: () => void): () => void {
    const timer = { at: this.#now + delayMs, fn }
    this.#timers.add(timer)
    return () => this.#timers.delete(timer)
  }

  soon(fn: () => void): void {
    setImmediate(fn)
  }

  /** Lets time pass, timer by timer. */
  advance(ms: number): void {
    const end = this.#now + ms
    for (;;) {
      const due = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0]
      if (due === undefined) break
      this.#timers.delete(due)
      this.#now = due.at
      due.fn()
    }
    this.#now = end
  }

  get timers(): number {
    return this.#timers.size
  }
}

export class TestConnection implements Connection {
  readonly remote = 'test'
  readonly remoteHost?: string
  events!: ConnectionEvents
  /** What was sent, one entry a system call. */
  readonly writes: Buffer[] = []
  /** When set, every write says "wait". */
  slow = false
  paused = false
  ended = false
  destroyed = false
  #closed = false

  constructor(remoteHost?: string) {
    if (remoteHost !== undefined) this.remoteHost = remoteHost
  }

  on(events: ConnectionEvents): void {
    this.events = events
  }

  write(bytes: Uint8Array, sent?: () => void): boolean {
    return this.writeAll([bytes], sent)
  }

  writeAll(pieces: readonly Uint8Array[], sent?: () => void): boolean {
    const bytes = Buffer.concat(pieces)
    this.writes.push(bytes)
    setImmediate(() => {
      // A kernel that takes them late would have sent something else.
      if (!Buffer.concat(pieces).equals(bytes))
        throw new Error('bytes changed before they were sent')
      sent?.()
    })
    return !this.slow
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    this.paused = false
  }

  end(): void {
    this.ended = true
    setImmediate(() => this.#close())
  }

  destroy(): void {
    this.destroyed = true
    setImmediate(() => this.#close())
  }

  /** The client goes away without a word. */
  vanish(): void {
    this.#close()
  }

  get sent(): Buffer {
    return Buffer.concat(this.writes)
  }

  get over(): boolean {
    return this.ended || this.destroyed
  }

  #close(): void {
    if (this.#closed) return
    this.#closed = true
    // Refused by who accepted it, it has nobody who listens.
    const events: ConnectionEvents | undefined = this.events
    events?.close()
  }
}

export interface Rig {
  readonly client: NbdClient
  readonly connection: TestConnection
  readonly clock: TestClock
  /** Feeds bytes and lets everything settle that can. */
  feed(...bytes: Buffer[]): Promise<void>
  gone: number
}

export interface RigOptions {
  readonly rules?: ExportRules
  readonly remoteHost?: string
  readonly hall?: NbdHall
  readonly refusal?: string
  readonly clock?: TestClock
}

export function rig(source: VolumeSource, tls?: TlsDoor, options: RigOptions = {}): Rig {
  const connection = new TestConnection(options.remoteHost)
  const clock = options.clock ?? new TestClock()
  const client = new NbdClient({
    connection,
    clock,
    log: silentLog,
    source,
    rules: { current: options.rules ?? NO_RULES },
    hall: options.hall ?? new NbdHall(clock),
    memory: new BufferPool({ scribble: true }),
    refusal: options.refusal,
    tls,
    gone: () => {
      made.gone++
    },
  })
  const made: Rig = {
    client,
    connection,
    clock,
    gone: 0,
    feed: async (...bytes) => {
      lend(connection.events, Buffer.concat(bytes))
      await settle()
    },
  }
  return made
}

/** Bytes as a socket gives them: where there is room for them, else in memory that is overwritten afterwards. */
export function lend(events: ConnectionEvents, bytes: Buffer): void {
  for (let at = 0; at < bytes.length; ) {
    const room = events.room?.()
    const end = room === undefined ? bytes.length : Math.min(bytes.length, at + room.length)
    const piece = Buffer.from(bytes.subarray(at, end))
    room?.set(piece)
    events.data(room === undefined ? piece : (room.subarray(0, piece.length) as Buffer))
    piece.fill(0xd7)
    at = end
  }
}

/** Lets promises and `soon` run out. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve))
}

// ---- what a client sends

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value, 0)
  return bytes
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value, 0)
  return bytes
}

export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value), 0)
  return bytes
}

export const HELLO = u32(3)

/** An option; `declares` lies about the length. */
export function option(id: number, data: Buffer = Buffer.alloc(0), declares = data.length): Buffer {
  return Buffer.concat([u32(OPTION_MAGIC[0]), u32(OPTION_MAGIC[1]), u32(id), u32(declares), data])
}

export function infoData(name: string, ...kinds: number[]): Buffer {
  const text = Buffer.from(name)
  return Buffer.concat([u32(text.length), text, u16(kinds.length), ...kinds.map(u16)])
}

export function metaData(name: string, ...queries: string[]): Buffer {
  const text = (value: string) => Buffer.concat([u32(Buffer.byteLength(value)), Buffer.from(value)])
  return Buffer.concat([text(name), u32(queries.length), ...queries.map(text)])
}

export interface Ask {
  readonly type: number
  readonly cookie?: number
  readonly flags?: number
  readonly offset?: number | bigint
  readonly length?: number
  readonly data?: Buffer
}

/** The same with extended headers; `length` is the payload's where there is one. */
export function askExtended(request: Ask): Buffer {
  const { type, cookie = 1, flags = 0, offset = 0, data = Buffer.alloc(0) } = request
  const length = request.length ?? data.length
  const head = [u32(EXTENDED_REQUEST_MAGIC), u16(flags), u16(type), u64(cookie), u64(offset)]
  return Buffer.concat([...head, u64(length), data])
}

export function ask(request: Ask): Buffer {
  const { type, cookie = 1, flags = 0, offset = 0, data = Buffer.alloc(0) } = request
  const length = request.length ?? data.length
  const head = [u32(REQUEST_MAGIC), u16(flags), u16(type), u64(cookie), u64(offset), u32(length)]
  return Buffer.concat([...head, data])
}
