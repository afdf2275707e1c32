/**
 * The connection to one other node, pipelined. The first thing said on it is HELLO: a node that knows it makes
 * sure that nothing sent on older connections happens after its answer. Hence a silent connection is given up
 * and the requests of it fail, to be made again on a new one. A node of sheepdog 1.0 does not know HELLO; it is
 * waited for until it answers or leaves, because it could execute what it had received on the old connection
 * later, over newer data.
 *
 * A node with a second address (-i) is asked there first. When that network fails, its connection is given up for
 * one to the main address, sooner than otherwise; an attempt every few seconds finds out when it is back.
 *
 * What is under way is bounded, below what the other side takes at once: so it goes on reading, and a probe is
 * answered. More waits here in order, referring to bytes whose owners (the doors' sessions) are bounded.
 */
import { Code, codeName } from '../base/codes.js'
import type { Log } from '../base/log.js'
import { type NodeKey, nodeKey, type SdNode } from '../model/node.js'
import { type ReplyDone, SheepClient, type Watch } from '../peer/client.js'
import { encodeHello } from '../wire/sheepdog/hello.js'
import { Flag, Op } from '../wire/sheepdog/opcodes.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import type { Address, World } from '../world/world.js'

const CONNECT_TIMEOUT_MS = 3_000
/** Longer than the other side takes to end what an older connection had under way, as a rule. */
const HELLO_TIMEOUT_MS = 5_000
/** Requests to a node that just refused a connection fail at once for this long. */
const REFUSED_PAUSE_MS = 50
const TICK_MS = 250
const LATE_TICKS = 2
const SILENT_TICKS = 20
/** Of LIMITS.requestsInFlightMax and connectionBytesMax, with room for probes. */
const SENT_MAX = 224
const SENT_BYTES_MAX = 48 * 1024 * 1024

/** On the data network, where there is the other one to fall back on. */
const IO_CONNECT_TIMEOUT_MS = 1_000
const IO_SILENT_TICKS = 8
const IO_PROBE_MS = 5_000
/** Requests under way on the main network get this long to end before the data network is used again. */
const IO_RETURN_MS = 1_000

export type NodeAddress = Pick<SdNode, 'host' | 'port' | 'io'>

/** What this node says of itself in a HELLO. */
export interface Introduction {
  readonly host: string
  readonly port: number
  readonly incarnation: Buffer
  /** Larger at each call. */
  readonly nextSerial: () => number
}

export interface PeerRequest {
  readonly head: Buffer
  readonly payload: Uint8Array | undefined
  readonly done: ReplyDone
  late: (() => void) | undefined
}

export interface PeerOptions {
  readonly world: Pick<World, 'clock' | 'network'>
  readonly log: Log
  readonly introduction: Introduction
  readonly node: NodeAddress
}

export class Peer {
  readonly #world: PeerOptions['world']
  readonly #log: Log
  readonly #introduction: Introduction
  readonly #key: NodeKey
  #node: NodeAddress
  /** Greeted, and in use. */
  #client: SheepClient | undefined
  /** Connected, HELLO not answered yet. */
  #greeting: SheepClient | undefined
  #connecting = false
  readonly #queue: PeerRequest[] = []
  #sent = 0
  #sentBytes = 0
  #refusedUntil = 0
  #isSlow = false
  #dropped: Error | undefined
  /** The connection in use is one of the data network. */
  #overIo = false
  #ioIsBad = false
  /** What is under way ends, then the data network is used again. */
  #returning = false
  #cancelProbe: (() => void) | undefined

  constructor(options: PeerOptions) {
    this.#world = options.world
    this.#log = options.log
    this.#introduction = options.introduction
    this.#node = options.node
    this.#key = nodeKey(options.node)
  }

  get isQuick(): boolean {
    return !this.#isSlow && this.#client?.isQuiet !== true
  }

  /** `node` as it is known now: the address of a data network may be new. */
  request(node: NodeAddress, request: PeerRequest): void {
    this.#node = node
    const isFree = this.#queue.length === 0 && !this.#returning
    if (isFree && this.#client?.alive === true && this.#hasRoom(request)) {
      this.#send(this.#client, request)
      return
    }
    this.#queue.push(request)
    this.#pump()
  }

  /** What is in flight or waits fails now, with the reason. */
  drop(reason: string): void {
    this.#dropped = new Error(reason)
    this.#cancelProbe?.()
    this.#greeting?.close()
    this.#client?.close()
    this.#pump()
  }

  #hasRoom({ head }: PeerRequest): boolean {
    if (this.#sent === 0) return true
    return this.#sent < SENT_MAX && this.#sentBytes + dataLength(head) <= SENT_BYTES_MAX
  }

  #send(client: SheepClient, { head, payload, done, late }: PeerRequest): void {
    const bytes = dataLength(head)
    this.#sent++
    this.#sentBytes += bytes
    const finish: ReplyDone = (reply, error) => {
      this.#sent--
      this.#sentBytes -= bytes
      done(reply, error)
      if (this.#queue.length > 0 || this.#returning) this.#pump()
    }
    client.request(head, payload, finish, late)
  }

  /** Sends what waits as far as there is room, or sees to a connection. */
  #pump(): void {
    if (this.#dropped !== undefined) {
      this.#failWaiting(this.#dropped)
      return
    }
    if (this.#connecting) return
    if (this.#returning && this.#sent === 0) this.#leaveMain()
    while (this.#client?.alive === true) {
      if (this.#returning) return
      const next = this.#queue[0]
      if (next === undefined || !this.#hasRoom(next)) return
      this.#queue.shift()
      this.#send(this.#client, next)
    }
    if (this.#queue.length === 0) return
    if (this.#world.clock.monotonic() < this.#refusedUntil) {
      this.#failWaiting(new Error(`${this.#key} cannot be reached`))
    } else void this.#connect()
  }

  #failWaiting(error: Error): void {
    for (const { done } of this.#queue.splice(0)) done(undefined, error)
  }

  async #connect(): Promise<void> {
    this.#connecting = true
    const notLate = this.#world.clock.after(LATE_TICKS * TICK_MS, () => {
      this.#isSlow = true
      for (const request of [...this.#queue]) {
        const { late } = request
        request.late = undefined
        late?.()
      }
    })
    let failure: Error | undefined
    try {
      this.#client = (await this.#openIo()) ?? (await this.#openMain())
      this.#isSlow = false
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error))
      this.#isSlow = true
      this.#refusedUntil = this.#world.clock.monotonic() + REFUSED_PAUSE_MS
      this.#log.debug('peer.refused', { peer: this.#key, reason: failure.message })
    }
    notLate()
    this.#connecting = false
    if (failure !== undefined) this.#failWaiting(failure)
    this.#pump()
  }

  async #openMain(): Promise<SheepClient> {
    const { host, port } = this.#node
    const client = await this.#open({ host, port }, CONNECT_TIMEOUT_MS, SILENT_TICKS)
    this.#overIo = false
    return client
  }

  /** Undefined when there is no data network, or it is out of order. */
  async #openIo(): Promise<SheepClient | undefined> {
    const { io } = this.#node
    if (io === undefined || this.#ioIsBad) return undefined
    try {
      const client = await this.#open(io, IO_CONNECT_TIMEOUT_MS, IO_SILENT_TICKS)
      this.#overIo = true
      client.onSilent = () => this.#ioFailed('silent')
      return client
    } catch (error) {
      if (this.#dropped !== undefined) throw this.#dropped
      this.#ioFailed(error instanceof Error ? error.message : String(error))
      return undefined
    }
  }

  #ioFailed(reason: string): void {
    if (this.#ioIsBad) return
    this.#ioIsBad = true
    this.#log.warn('peer.io.lost', { peer: this.#key, reason })
    this.#probeLater()
  }

  #probeLater(): void {
    this.#cancelProbe = this.#world.clock.after(IO_PROBE_MS, () => void this.#probeIo())
  }

  async #probeIo(): Promise<void> {
    const { io } = this.#node
    if (io === undefined || this.#dropped !== undefined) return
    try {
      const probe = await this.#world.network.connect(io, IO_CONNECT_TIMEOUT_MS)
      probe.destroy()
    } catch {
      // Still out of order; nobody waits for it.
      if (this.#dropped === undefined) this.#probeLater()
      return
    }
    this.#ioIsBad = false
    this.#log.info('peer.io.back', { peer: this.#key })
    if (this.#client?.alive !== true || this.#overIo) return
    this.#returning = true
    const main = this.#client
    // A node that knows HELLO drops what is left when it is greeted anew; of others it is waited for.
    this.#cancelProbe = this.#world.clock.after(IO_RETURN_MS, () => {
      if (this.#returning && main === this.#client && main.isWatched) this.#leaveMain()
    })
    this.#pump()
  }

  #leaveMain(): void {
    this.#returning = false
    this.#cancelProbe?.()
    this.#client?.close()
    this.#client = undefined
    this.#pump()
  }

  /** Resolves when nothing sent on older connections can happen any more, or with a sheepdog 1.0. */
  async #open(to: Address, connectTimeoutMs: number, silentTicks: number): Promise<SheepClient> {
    const client = await SheepClient.connect(this.#world, to, { connectTimeoutMs })
    this.#greeting = client
    const inTime = this.#world.clock.after(HELLO_TIMEOUT_MS, () => client.close())
    try {
      if (this.#dropped !== undefined) throw this.#dropped
      const { incarnation, nextSerial, ...self } = this.#introduction
      const payload = encodeHello({ ...self, incarnation, serial: nextSerial() })
      const { result } = await client.call(helloHead(payload), payload)
      if (result === Code.SUCCESS) client.watch(watchWith(payload, silentTicks))
      else if (result !== Code.INVALID_PARMS) throw new Error(`HELLO: ${codeName(result)}`)
      if (this.#dropped !== undefined) throw this.#dropped
      return client
    } catch (error) {
      client.close()
      throw error
    } finally {
      inTime()
      this.#greeting = undefined
    }
  }
}

function watchWith(hello: Buffer, silentTicks: number): Watch {
  return {
    ...{ tickMs: TICK_MS, lateTicks: LATE_TICKS, silentTicks },
    // Said again on its own connection it is answered at once, and means nothing else.
    probe: () => ({ head: helloHead(hello), payload: hello }),
  }
}

function dataLength(head: Buffer): number {
  return head.readUInt32LE(12)
}

function helloHead(payload: Buffer): Buffer {
  return plainRequest({ opcode: Op.HELLO, flags: Flag.WRITE, dataLength: payload.length })
}
