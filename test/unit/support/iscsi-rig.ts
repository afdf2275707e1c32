/**
 * An iSCSI server without a network, and an initiator that says exactly what it is told: PDUs by hand, answers one by
 * one. Time passes only when a test says so.
 */
import type { BufferPool } from '../../../src/base/buffer-pool.js'
import { crc32c } from '../../../src/base/crc32c.js'
import { silentLog } from '../../../src/base/log.js'
import type { Elsewhere } from '../../../src/doors/iscsi/paths.js'
import { type IscsiServer, iscsiShared, startIscsiServer } from '../../../src/doors/iscsi/server.js'
import { NO_TARGET_RULES, type TargetRules } from '../../../src/doors/iscsi/target-rules.js'
import type { ReservationStore } from '../../../src/doors/iscsi/units.js'
import { Answer, BHS_BYTES, CommandFlag, FINAL, Op } from '../../../src/wire/iscsi/constants.js'
import * as pdu from '../../../src/wire/iscsi/pdu.js'
import { decodeText, encodeText } from '../../../src/wire/iscsi/text.js'
import type { Clock, Connection, ConnectionEvents } from '../../../src/world/world.js'
import { MemorySource, MemoryVolume } from './memory-volume.js'

export const INITIATOR = 'iqn.2026-11.test:initiator'
export const TARGET = 'iqn.2026-11.io.sheepdog:v'
export const NO_TAG = 0xffffffff

/** Stands still until it is told. `soon` is the next turn. */
export class ManualClock implements Clock {
  #nowMs = 1000
  #timers: { readonly at: number; readonly fn: () => void }[] = []

  now(): number {
    return this.#nowMs
  }

  monotonic(): number {
    return this.#nowMs
  }

  after(delayMs: number, fn: () => void): () => void {
    const timer = { at: this.#nowMs + delayMs, fn }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((one) => one !== timer)
    }
  }

  soon(fn: () => void): void {
    setImmediate(fn)
  }

  advance(ms: number): void {
    const until = this.#nowMs + ms
    for (;;) {
      const next = this.#timers.filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0]
      if (next === undefined) break
      this.#nowMs = next.at
      this.#timers = this.#timers.filter((one) => one !== next)
      next.fn()
    }
    this.#nowMs = until
  }
}

/** The server's end of a connection. */
class Wire implements Connection {
  readonly remote = '127.0.0.1:1'
  readonly remoteHost = '127.0.0.1'
  readonly localHost = '127.0.0.1'
  events: ConnectionEvents | undefined
  sent: Buffer = Buffer.alloc(0)
  isClosed = false

  on(events: ConnectionEvents): void {
    this.events = events
  }
  write(bytes: Uint8Array, sent?: () => void): boolean {
    return this.writeAll([bytes], sent)
  }
  writeAll(pieces: readonly Uint8Array[], sent?: () => void): boolean {
    const now = Buffer.concat(pieces)
    this.sent = Buffer.concat([this.sent, now])
    setImmediate(() => {
      // A kernel that takes them late would have sent something else.
      if (!now.equals(Buffer.concat(pieces))) throw new Error('bytes changed before they were sent')
      sent?.()
    })
    return true
  }
  /** Bytes arrive: where there is room, else in memory that is somebody else's afterwards. */
  receive(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; ) {
      const room = this.events?.room?.()
      const count = Math.min(room?.length ?? Infinity, bytes.length - at)
      const lent = Buffer.from(bytes.subarray(at, at + count))
      room?.set(lent)
      this.events?.data(
        room === undefined ? lent : Buffer.from(room.buffer as ArrayBuffer, room.byteOffset, count),
      )
      lent.fill(0xd5)
      at += count
    }
  }
  pause(): void {}
  resume(): void {}
  end(): void {
    this.destroy()
  }
  destroy(): void {
    if (this.isClosed) return
    this.isClosed = true
    setImmediate(() => this.events?.close())
  }
}

export interface Pdu {
  readonly opcode: number
  readonly header: Buffer
  readonly data: Buffer
}

export interface CommandPart {
  readonly cdb: readonly number[]
  readonly read?: number
  readonly write?: number
  readonly immediate?: Buffer
  readonly isOpen?: boolean
  readonly lun?: number
  readonly attribute?: number
}

export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/** Several turns: what is done then is done. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 12; i++) await turn()
}

export class Initiator {
  readonly wire: Wire
  cmdSn = 1
  tag = 1
  digests = false

  constructor(wire: Wire) {
    this.wire = wire
  }

  get isClosed(): boolean {
    return this.wire.isClosed
  }

  /** Sends bytes as they are, in chunks of `chunkBytes`. */
  async raw(bytes: Buffer, chunkBytes = bytes.length): Promise<void> {
    for (let at = 0; at < bytes.length && !this.isClosed; at += chunkBytes) {
      this.wire.receive(bytes.subarray(at, at + chunkBytes))
    }
    await settle()
  }

  pdu(opcode: number, flags: number, data: Buffer, fill: (header: Buffer) => void): Buffer {
    const header = Buffer.alloc(BHS_BYTES)
    header[0] = opcode
    header[1] = flags
    header.writeUIntBE(data.length, 5, 3)
    fill(header)
    const body = Buffer.concat([data, Buffer.alloc(pdu.padded(data.length) - data.length)])
    const parts: Buffer[] = [header]
    if (this.digests) parts.push(digestOf(header))
    parts.push(body)
    if (this.digests && body.length > 0) parts.push(digestOf(body))
    return Buffer.concat(parts)
  }

  /** Everything the server has said since. */
  answers(): Pdu[] {
    const found: Pdu[] = []
    let { sent } = this.wire
    while (sent.length > 0) {
      const bytes = pdu.dataBytes(sent, 0)
      const header = sent.subarray(0, BHS_BYTES)
      const from = BHS_BYTES + (this.digests ? 4 : 0)
      const end = from + pdu.padded(bytes)
      const isDigested = this.digests && bytes > 0
      if (this.digests && crc32c(header) !== sent.readUInt32LE(BHS_BYTES)) throw new Error('digest')
      if (isDigested && crc32c(sent.subarray(from, end)) !== sent.readUInt32LE(end)) {
        throw new Error('data digest')
      }
      found.push({
        ...{ opcode: pdu.opcodeOf(header), header: Buffer.from(header) },
        data: Buffer.from(sent.subarray(from, from + bytes)),
      })
      sent = sent.subarray(end + (isDigested ? 4 : 0))
    }
    this.wire.sent = Buffer.alloc(0)
    return found
  }

  /** One login request; the answer's status and pairs. `flags` 0x87: operational, on to full feature. */
  async loginStep(
    pairs: Record<string, string>,
    { flags = 0x87, isid = '400000000001', tsih = 0 } = {},
  ): Promise<{ status: number; pairs: Map<string, string>; flags: number }> {
    const request = this.pdu(
      0x40 | Op.LOGIN,
      flags,
      encodeText(Object.entries(pairs)),
      (header) => {
        Buffer.from(isid, 'hex').copy(header, 8)
        header.writeUInt16BE(tsih, 14)
        header.writeUInt32BE(this.cmdSn, 24)
      },
    )
    await this.raw(request)
    const [answer] = this.answers()
    if (answer?.opcode !== Answer.LOGIN) throw new Error('no login response')
    const { header, data } = answer
    return { status: header.readUInt16BE(36), pairs: decodeText(data), flags: header[1]! }
  }

  /** A whole login with what is usual; throws when it fails. */
  async login(more: Record<string, string> = {}, isid?: string): Promise<Map<string, string>> {
    const usual = {
      ...{ InitiatorName: INITIATOR, TargetName: TARGET, SessionType: 'Normal' },
      ...{ InitialR2T: 'No', ImmediateData: 'Yes', MaxRecvDataSegmentLength: '262144' },
    }
    const step = await this.loginStep({ ...usual, ...more }, isid === undefined ? {} : { isid })
    if (step.status !== 0) throw new Error(`login: 0x${step.status.toString(16)}`)
    this.digests = step.pairs.get('HeaderDigest') === 'CRC32C'
    return step.pairs
  }

  commandPdu({ cdb, read, write, immediate, isOpen, lun, attribute = 1 }: CommandPart): Buffer {
    const flags =
      (isOpen === true ? 0 : FINAL) |
      (read === undefined ? 0 : CommandFlag.READ) |
      (write === undefined ? 0 : CommandFlag.WRITE) |
      attribute
    return this.pdu(Op.SCSI_COMMAND, flags, immediate ?? Buffer.alloc(0), (header) => {
      header[9] = lun ?? 0
      header.writeUInt32BE(this.tag++, 16)
      header.writeUInt32BE(read ?? write ?? 0, 20)
      header.writeUInt32BE(this.cmdSn++, 24)
      Buffer.from(cdb).copy(header, 32)
    })
  }

  dataOut(
    tag: number,
    part: { ttt?: number; serial?: number; at: number; data: Buffer; more?: boolean },
  ) {
    const { ttt = NO_TAG, serial = 0, at, data, more = false } = part
    return this.pdu(Op.DATA_OUT, more ? 0 : FINAL, data, (header) => {
      header.writeUInt32BE(tag, 16)
      header.writeUInt32BE(ttt, 20)
      header.writeUInt32BE(serial, 36)
      header.writeUInt32BE(at, 40)
    })
  }

  /** A task management request; the tag it has. */
  async manage(what: number, referenced = NO_TAG): Promise<void> {
    const request = this.pdu(0x40 | Op.TASK_MANAGEMENT, FINAL | what, Buffer.alloc(0), (header) => {
      header.writeUInt32BE(this.tag++, 16)
      header.writeUInt32BE(referenced, 20)
      header.writeUInt32BE(this.cmdSn, 24)
    })
    await this.raw(request)
  }

  /** Sends a command and gives all its answers. */
  async ask(part: CommandPart): Promise<Pdu[]> {
    await this.raw(this.commandPdu(part))
    return this.answers()
  }

  /** Status and sense of a command: `good`, `conflict`, `check 5/2400`. */
  async outcome(part: CommandPart): Promise<string> {
    const last = (await this.ask(part)).at(-1)
    return last === undefined ? 'nothing' : outcomeOf(last)
  }
}

export function outcomeOf({ opcode, header, data }: Pdu): string {
  if (opcode !== Answer.DATA_IN && opcode !== Answer.SCSI_RESPONSE) return `opcode ${opcode}`
  const status = header[3]!
  if (status === 2) return `check ${data[4]!.toString(16)}/${data.toString('hex', 14, 16)}`
  return status === 0 ? 'good' : status === 0x18 ? 'conflict' : `status ${status}`
}

function digestOf(bytes: Buffer): Buffer {
  const digest = Buffer.alloc(4)
  digest.writeUInt32LE(crc32c(bytes))
  return digest
}

export interface Rig {
  readonly server: IscsiServer
  readonly pool: BufferPool
  readonly volume: MemoryVolume
  readonly source: MemorySource
  readonly clock: ManualClock
  connect(): Initiator
}

let lives = 0

/** `store` outlives the rig where a restart is played. */
export async function iscsiRig(
  options: {
    rules?: TargetRules
    store?: ReservationStore
    sizeBytes?: number
    elsewhere?: Elsewhere
  } = {},
): Promise<Rig> {
  const volume = new MemoryVolume('v', { sizeBytes: options.sizeBytes ?? 64 * 1024 * 1024 })
  const source = new MemorySource(volume)
  const clock = new ManualClock()
  let accept: (connection: Connection) => void = () => undefined
  const shared = iscsiShared({
    ...{ source, log: silentLog, store: options.store ?? memoryStore() },
    ...{ elsewhere: options.elsewhere, life: `${++lives}` },
    ...{ book: { current: options.rules ?? NO_TARGET_RULES }, identity: () => 'a cluster' },
    scribble: true,
  })
  const server = await startIscsiServer({
    ...{ log: silentLog, shared },
    address: { host: '127.0.0.1', port: 3260 },
    world: {
      clock,
      random: { below: () => 7, bytes: (length) => Buffer.alloc(length, 0x5a) },
      network: {
        listen: async (at, taken) => {
          accept = taken
          if (!('port' in at)) throw new Error('no such address here')
          return { address: at, close: async () => undefined }
        },
        connect: async () => Promise.reject(new Error('nobody connects from here')),
      },
    },
  })
  const connect = (): Initiator => {
    const wire = new Wire()
    accept(wire)
    return new Initiator(wire)
  }
  return { server, volume, source, clock, pool: shared.pool, connect }
}

export function memoryStore(): ReservationStore & { readonly kept: Map<string, Buffer> } {
  const kept = new Map<string, Buffer>()
  return {
    kept,
    load: async (name) => kept.get(name),
    save: async (name, value) => {
      if (value === undefined) kept.delete(name)
      else kept.set(name, value)
    },
  }
}

/** READ(10), WRITE(10) of blocks of 512 bytes. */
export const read10 = (lba: number, count: number): number[] => [
  ...[0x28, 0, lba >>> 24, (lba >> 16) & 255, (lba >> 8) & 255, lba & 255],
  ...[0, count >> 8, count & 255, 0],
]
export const write10 = (lba: number, count: number, flags = 0): number[] => [
  ...[0x2a, flags, ...read10(lba, count).slice(2)],
]
