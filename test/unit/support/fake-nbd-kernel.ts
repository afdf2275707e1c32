/**
 * A kernel with NBD devices and the servers they come from, without either: netlink requests are taken apart and obeyed,
 * connections are handed over by number, and a test makes links die.
 */

import { Option, Rep, TransmissionFlag } from '../../../src/wire/nbd/constants.js'
import * as wire from '../../../src/wire/nbd/options.js'
import {
  CLIENT_FLAGS_BYTES,
  decodeInfoRequest,
  decodeOptionHeader,
} from '../../../src/wire/nbd/options.js'
import * as nl from '../../../src/wire/netlink/messages.js'
import type { KernelDevice, NbdKernel } from '../../../src/world/nbd-kernel.js'
import type { TlsKeys } from '../../../src/world/tls-client.js'
import type {
  Address,
  Connection,
  ConnectionEvents,
  Listener,
  Network,
} from '../../../src/world/world.js'
import { TestConnection } from './nbd-rig.js'

export const FAMILY = 27
const GROUP = 5
const CONTROL = 0x10
const Command = { CONNECT: 1, DISCONNECT: 2, RECONFIGURE: 3, LINK_DEAD: 4 } as const
const Attr = {
  INDEX: 1,
  SIZE: 2,
  BLOCK: 3,
  TIMEOUT: 4,
  FLAGS: 5,
  SOCKETS: 7,
  DEAD: 8,
  BACKEND: 10,
} as const
const [EPERM, ENOENT, EBUSY, EINVAL, ENOSPC] = [1, 2, 16, 22, 28]

export const WRITABLE =
  TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH | TransmissionFlag.CAN_MULTI_CONN

export interface FakeExport {
  sizeBytes: number
  flags: number
}

/** What one address does; absent: nobody listens there. */
export interface FakeServer {
  readonly exports: Map<string, FakeExport>
  /** Answers everything with this instead. */
  refusal?: number
  /** Sends this instead of greeting. */
  rubbish?: Buffer
  /** Pieces its bytes arrive in. */
  pieceBytes?: number
  /** Opens exports over TLS only. */
  hasTls?: boolean
  /** Sends this behind its consent to TLS, in the clear. */
  injected?: Buffer
}

interface Device {
  readonly sockets: number[]
  readonly dead: Set<number>
  readonly backend: string
  readonly request: ReadonlyMap<number, number>
  sizeBytes: number
}

export class FakeNbdKernel implements NbdKernel {
  readonly servers = new Map<string, FakeServer>()
  readonly attached = new Map<number, Device>()
  /** Files of the addresses that were dialled, in order. */
  readonly dialled: string[] = []
  /** Devices somebody uses. */
  readonly busy = new Set<number>()
  /** What became of devices: `settled 0`, `disconnected 0`. */
  readonly story: string[] = []
  isLoaded = true
  isRoot = true
  isReadable = true
  pid = 4711
  pidLives = true
  #connections = new Map<Connection, number>()
  #open = new Map<number, string>()
  #listeners: ((messages: Buffer) => void)[] = []

  readonly network: Network = {
    listen: (): Promise<Listener> => Promise.reject(new Error('nobody listens here')),
    connect: (to) => this.#connect(to),
  }

  /** Servers that connections now lead to, of one device. */
  linksOf(index: number): string[] {
    const { sockets = [], dead = new Set() } = this.attached.get(index) ?? {}
    return sockets.filter((fd) => !dead.has(fd)).map((fd) => this.#open.get(fd)!)
  }

  /** All connections to the server break. */
  kill(server: string): void {
    this.servers.delete(server)
    for (const [index, device] of this.attached) {
      for (const fd of device.sockets) {
        if (device.dead.has(fd) || this.#open.get(fd) !== server) continue
        device.dead.add(fd)
        const attributes = [nl.u32(Attr.INDEX, index)]
        const event = nl.encodeRequest({ family: FAMILY, command: Command.LINK_DEAD, attributes })
        for (const listener of this.#listeners) listener(event)
      }
    }
  }

  async netlink(request: Uint8Array): Promise<Buffer> {
    const [message] = nl.decodeReply(Buffer.from(request)).messages
    if (message?.family === CONTROL) return this.isLoaded ? family() : verdict(ENOENT)
    if (!this.isRoot) return verdict(EPERM)
    return this.#obey(message!)
  }

  watch(group: number, listener: (messages: Buffer) => void): void {
    if (group !== GROUP) throw new Error(`no group ${group}`)
    this.#listeners.push(listener)
  }

  serve(): Promise<void> {
    return Promise.reject(new Error('no ioctls here'))
  }

  async hangUp(): Promise<void> {}

  /** Milliseconds of silence that were allowed, one entry a connection. */
  readonly patience: number[] = []

  descriptor(connection: Connection, silenceMs: number): number {
    this.patience.push(silenceMs)
    return this.#connections.get(connection)!
  }

  noticeDeath(_connection: Connection, milliseconds: number): void {
    this.patience.push(milliseconds)
  }

  /** What TLS was begun with, and for whom. */
  readonly upgrades: { keys: TlsKeys; host: string | undefined }[] = []
  /** Why it fails. */
  tlsTrouble: string | undefined

  readonly tlsClient = (keys: TlsKeys) => ({
    secure: async (connection: Connection, host: string | undefined): Promise<Connection> => {
      this.upgrades.push({ keys, host })
      if (this.tlsTrouble !== undefined) {
        connection.destroy()
        throw new Error(this.tlsTrouble)
      }
      return (connection as FakeConnection).upgraded()
    },
  })

  /** Ends that the kernel got of pairs, and what the other end is to the server. */
  readonly carried: { readonly kernel: TestConnection; readonly ours: TestConnection }[] = []

  /** The kernel's end leads to whoever was dialled last. */
  pair(): readonly [Connection, Connection] {
    const [kernel, ours] = [new TestConnection(), new TestConnection()]
    this.carried.push({ kernel, ours })
    this.#connections.set(kernel, 100 + this.dialled.length)
    return [kernel, ours]
  }

  async devices(): Promise<KernelDevice[]> {
    return [0, 1, 2].map((index) => {
      const device = this.attached.get(index)
      return {
        ...{ index, sizeBytes: device?.sizeBytes ?? 0 },
        readOnly: ((device?.request.get(Attr.FLAGS) ?? 0) & TransmissionFlag.READ_ONLY) !== 0,
        ...{
          pid: device && this.pid,
          pidLives: device !== undefined && this.pidLives,
          backend: device?.backend,
        },
      }
    })
  }

  async probe(): Promise<void> {
    if (!this.isReadable) throw Object.assign(new Error('EIO'), { code: 'EIO' })
  }

  async settle(index: number): Promise<void> {
    if (this.busy.has(index)) throw Object.assign(new Error('EBUSY'), { code: 'EBUSY' })
    this.story.push(`settled ${index}`)
  }

  #obey({ command, attributes }: nl.Message): Buffer {
    const numbers = new Map(attributes.map(({ type, value }) => [type, numberOf(value)]))
    const sockets = socketsOf(nl.find(attributes, Attr.SOCKETS))
    const backend = nl.find(attributes, Attr.BACKEND)?.toString().replace(/\0$/, '') ?? ''
    const index = numbers.get(Attr.INDEX) ?? [0, 1, 2].find((one) => !this.attached.has(one))!
    const device = this.attached.get(index)
    if (command === Command.CONNECT) {
      if (device !== undefined) return verdict(EBUSY)
      const sizeBytes = numbers.get(Attr.SIZE)!
      this.attached.set(index, { sockets, dead: new Set(), backend, request: numbers, sizeBytes })
      const reply = { family: FAMILY, command, attributes: [nl.u32(Attr.INDEX, index)] }
      return Buffer.concat([nl.encodeRequest(reply), verdict(0)])
    }
    if (device === undefined || (command === Command.RECONFIGURE && backend !== device.backend)) {
      return verdict(EINVAL)
    }
    if (command === Command.DISCONNECT) {
      this.attached.delete(index)
      this.story.push(`disconnected ${index}`)
      return verdict(0)
    }
    device.sizeBytes = numbers.get(Attr.SIZE) ?? device.sizeBytes
    for (const fd of sockets) {
      const place = device.sockets.findIndex((one) => device.dead.has(one))
      if (place < 0) return verdict(ENOSPC)
      device.dead.delete(device.sockets[place]!)
      device.sockets[place] = fd
    }
    return verdict(0)
  }

  async #connect(to: Address): Promise<Connection> {
    const name = 'path' in to ? to.path : `${to.host}:${to.port}`
    this.dialled.push(name)
    const server = this.servers.get(name)
    if (server === undefined) {
      throw Object.assign(new Error(`connect ECONNREFUSED ${name}`), { code: 'ECONNREFUSED' })
    }
    const connection = new FakeConnection(server)
    const fd = 100 + this.dialled.length
    this.#connections.set(connection, fd)
    this.#open.set(fd, name)
    return connection
  }
}

/** The server's side of a handshake, behind the connection of its client. */
class FakeConnection implements Connection {
  readonly remote = 'fake'
  readonly #server: FakeServer
  #events: ConnectionEvents | undefined
  #input: Buffer = Buffer.alloc(0)
  #flagsRead = false
  #closed = false
  readonly #isSecure: boolean

  constructor(server: FakeServer, isSecure = false) {
    this.#server = server
    this.#isSecure = isSecure
    this.#flagsRead = isSecure
  }

  /** As it goes on behind TLS. */
  upgraded(): FakeConnection {
    this.#events = undefined
    return new FakeConnection(this.#server, true)
  }

  on(events: ConnectionEvents): void {
    this.#events = events
    if (!this.#isSecure) this.#send(this.#server.rubbish ?? wire.encodeGreeting())
  }

  write(bytes: Uint8Array): boolean {
    this.#input = Buffer.concat([this.#input, bytes])
    if (!this.#flagsRead && this.#input.length >= CLIENT_FLAGS_BYTES) {
      this.#flagsRead = true
      this.#input = this.#input.subarray(CLIENT_FLAGS_BYTES)
    }
    const head = this.#input.length >= 16 ? decodeOptionHeader(this.#input, 0) : undefined
    if (head !== undefined && this.#input.length >= 16 + head.length) {
      const data = this.#input.subarray(16, 16 + head.length)
      this.#input = this.#input.subarray(16 + head.length)
      if (head.option === Option.STARTTLS) this.#startTls()
      else this.#answer(head.option, decodeInfoRequest(data)!.name)
    }
    return true
  }

  writeAll(pieces: readonly Uint8Array[]): boolean {
    for (const piece of pieces) this.write(piece)
    return true
  }

  pause(): void {}
  resume(): void {}

  end(): void {
    this.destroy()
  }

  destroy(): void {
    if (this.#closed) return
    this.#closed = true
    setImmediate(() => this.#events?.close())
  }

  #startTls(): void {
    const { hasTls = false, injected = Buffer.alloc(0) } = this.#server
    const answer = hasTls
      ? wire.encodeOptionReply(Option.STARTTLS, Rep.ACK)
      : wire.encodeRefusal(Option.STARTTLS, Rep.ERR_UNSUP, 'no keys')
    this.#send(Buffer.concat([answer, injected]))
  }

  #answer(option: number, name: string): void {
    const found = this.#server.exports.get(name)
    if (option !== Option.GO) throw new Error(`option ${option}`)
    if (this.#server.hasTls === true && !this.#isSecure) {
      this.#send(wire.encodeRefusal(option, Rep.ERR_TLS_REQD, 'because'))
    } else if (this.#server.refusal !== undefined) {
      this.#send(wire.encodeRefusal(option, this.#server.refusal, 'because'))
    } else if (found === undefined) {
      this.#send(wire.encodeRefusal(option, Rep.ERR_UNKNOWN, `no VDI ${name}`))
    } else {
      const replies = [
        wire.encodeOptionReply(option, Rep.INFO, wire.encodeInfoExport(found)),
        wire.encodeOptionReply(option, Rep.INFO, wire.encodeInfoBlockSize()),
        wire.encodeOptionReply(option, Rep.ACK),
      ]
      this.#send(Buffer.concat(replies))
    }
  }

  #send(bytes: Buffer): void {
    const step = this.#server.pieceBytes ?? bytes.length
    for (let at = 0; at < bytes.length; at += step) {
      const piece = bytes.subarray(at, at + step)
      setImmediate(() => {
        if (!this.#closed) this.#events?.data(Buffer.from(piece))
      })
    }
  }
}

function numberOf(value: Buffer): number {
  if (value.length === 8) return Number(value.readBigUInt64LE())
  return value.length === 4 ? value.readUInt32LE() : Number.NaN
}

function socketsOf(list: Buffer | undefined): number[] {
  if (list === undefined) return []
  return nl.decodeAttributes(list).map(({ value }) => nl.findNumber(nl.decodeAttributes(value), 1)!)
}

function verdict(errno: number): Buffer {
  const bytes = Buffer.alloc(36)
  bytes.writeUInt32LE(bytes.length, 0)
  bytes.writeUInt16LE(2, 4)
  bytes.writeInt32LE(-errno, 16)
  return bytes
}

function family(): Buffer {
  const group = nl.nested(1, [nl.text(1, 'nbd_mc_group'), nl.u32(2, GROUP)])
  const id = { type: 1, value: Buffer.from([FAMILY, 0]) }
  const attributes = [id, nl.text(2, 'nbd'), nl.nested(7, [group])]
  return Buffer.concat([nl.encodeRequest({ family: CONTROL, command: 1, attributes }), verdict(0)])
}
