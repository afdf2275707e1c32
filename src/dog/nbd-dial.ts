/**
 * Opens an export as a client of NBD, up to the point where the kernel takes the connection over: fixed newstyle,
 * NBD_OPT_GO, simple replies, which is all that the kernel's client can read.
 *
 *   greeting --flags, GO--> replies --INFO--> replies --ACK--> done
 *   greeting --flags, STARTTLS--> upgrade --ACK, then TLS, GO--> replies
 *
 * The kernel speaks no TLS: then it gets one end of a connection within this host, and this process carries the bytes.
 */

import {
  decodeGreeting,
  decodeInfo,
  decodeOptionReplyHeader,
  decodeReason,
  encodeClientFlags,
  encodeGo,
  encodeStartTls,
  GREETING_BYTES,
  OPTION_REPLY_HEADER_BYTES,
} from '../wire/nbd/client.js'
import { Info, NBD_LIMITS, Option, Rep } from '../wire/nbd/constants.js'
import type { ExportFacts } from '../wire/nbd/options.js'
import { heardThrough } from '../world/heard-through.js'
import type { Address, Connection, ConnectionEvents } from '../world/world.js'
import type { DogWorld } from './command.js'
import type { Backend } from './nbd-backend.js'
import { relay } from './nbd-relay.js'

const CONNECT_MS = 5_000
/** A sheep may hold an export back until its cluster is there again. */
const HANDSHAKE_MS = 30_000
const SILENCE_MS = 30_000
/** The kernel's own smallest block. */
const BLOCK_BYTES = 512

export interface OpenExport extends ExportFacts {
  /** For the kernel. */
  readonly connection: Connection
  readonly blockBytes: number
  /** Where this process carries the bytes: settles when it need not any more. */
  readonly relayed?: Promise<void>
}

/**
 * Why an export was not opened. `missing`: the server has no such export; `tls`: it speaks to nobody without; `keys`: TLS
 * was not agreed on; `refused`: it said no; `unreachable`: there was nobody, or he went in the middle; `broken`: this is no
 * NBD server.
 */
export type DialTrouble = 'missing' | 'tls' | 'keys' | 'refused' | 'unreachable' | 'broken'

export class DialFailed extends Error {
  readonly trouble: DialTrouble

  constructor(trouble: DialTrouble, message: string) {
    super(message)
    this.trouble = trouble
  }
}

export function addressText(address: Address): string {
  if ('path' in address) return `unix:${address.path}`
  const { host, port } = address
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/**
 * How long a server may be unheard of before its connection counts as dead: its host or network is gone then. What is on this
 * host cannot vanish without a word, and is only slow: giving up on it would send requests again that it still has
 * before it, and might execute after newer ones.
 */
export function silenceMs(server: Address): number {
  const isHere = 'path' in server || /^(127\.|::1$|localhost$)/.test(server.host)
  return isHere ? 0 : SILENCE_MS
}

export type Source = Pick<Backend, 'exportName' | 'tls'>

/** Rejects with DialFailed. Nothing of what the connection has sent is left unread, and nothing was asked of the disk. */
export async function dial(world: DogWorld, to: Address, source: Source): Promise<OpenExport> {
  const connection = await world.network.connect(to, CONNECT_MS).catch((error: unknown) => {
    throw new DialFailed('unreachable', reasonOf(error))
  })
  const session = new DialSession(source.exportName, source.tls !== undefined)
  const found = await converse(world, connection, session)
  if (found !== 'upgrade') return { connection, ...found }
  return await encrypted(world, connection, { to, source, session })
}

interface Upgrade {
  readonly to: Address
  readonly source: Source
  readonly session: DialSession
}

async function encrypted(
  { tlsClient, nbdKernel, ...world }: DogWorld,
  connection: Connection,
  { to, source, session }: Upgrade,
): Promise<OpenExport> {
  if (tlsClient === undefined || nbdKernel === undefined || source.tls === undefined) {
    connection.destroy()
    throw new DialFailed('keys', 'there is no TLS here')
  }
  // Its silence is not for the kernel to notice.
  const patience = silenceMs(to)
  if (patience > 0) nbdKernel.noticeDeath(connection, patience)
  const host = 'path' in to ? undefined : to.host
  const secured = await tlsClient(source.tls)
    .secure(connection, host)
    .then(heardBySeveral, (error: unknown) => {
      throw new DialFailed('keys', `TLS: ${reasonOf(error)}`)
    })
  session.encrypted()
  const found = await converse(world, secured, session)
  if (found === 'upgrade') throw new Error('nobody asked for that twice')
  const [kernelEnd, ours] = nbdKernel.pair()
  return { connection: kernelEnd, ...found, relayed: relay(ours, secured) }
}

/** The same connection, whose listener may be replaced: after the handshake it is who carries its bytes. */
function heardBySeveral(connection: Connection): Connection {
  let listener: ConnectionEvents | undefined
  connection.on({
    data: (chunk) => listener?.data(chunk),
    close: (error) => listener?.close(error),
    drain: () => listener?.drain(),
  })
  return heardThrough(connection, (events) => {
    listener = events
  })
}

/** Until the session has what it wants; rejects with DialFailed, the connection closed. */
function converse(
  { clock }: Pick<DogWorld, 'clock'>,
  connection: Connection,
  session: DialSession,
): Promise<FoundExport | 'upgrade'> {
  return new Promise((resolve, reject) => {
    const fail = (error: DialFailed): void => {
      stopTimer()
      connection.destroy()
      reject(error)
    }
    const stopTimer = clock.after(HANDSHAKE_MS, () =>
      fail(new DialFailed('unreachable', `no answer within ${HANDSHAKE_MS / 1000} seconds`)),
    )
    connection.on({
      data: (chunk) => {
        try {
          const found = session.receive(chunk)
          connection.writeAll(session.take())
          if (found === undefined) return
          stopTimer()
          resolve(found)
        } catch (error) {
          if (!(error instanceof DialFailed)) throw error
          fail(error)
        }
      },
      close: (error) => fail(session.lost(error?.message ?? 'the server closed the connection')),
      drain: () => undefined,
    })
    connection.writeAll(session.take())
  })
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

export type FoundExport = Omit<OpenExport, 'connection' | 'relayed'>

/** The session without its connection. */
export class DialSession {
  readonly #name: string
  readonly #wantsTls: boolean
  #held: Buffer = Buffer.alloc(0)
  #out: Buffer[] = []
  #greeted = false
  #awaited: number = Option.GO
  #isEncrypted = false
  #facts: ExportFacts | undefined
  #blockBytes = BLOCK_BYTES

  constructor(name: string, wantsTls = false) {
    this.#name = name
    this.#wantsTls = wantsTls
  }

  /** Bytes to send since the last call. */
  take(): Buffer[] {
    const out = this.#out
    this.#out = []
    return out
  }

  /** What was opened, once it is, or that TLS begins with the next byte in either direction; throws DialFailed. */
  receive(chunk: Buffer): FoundExport | 'upgrade' | undefined {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    if (!this.#greeted && !this.#readGreeting()) return undefined
    for (;;) {
      const step = this.#readReply()
      if (step === 'more') return undefined
      if (step === 'open') return this.#opened()
      if (step === 'upgrade') return step
    }
  }

  /** It goes on over TLS. */
  encrypted(): void {
    this.#isEncrypted = true
    this.#ask()
  }

  /** What it means that the connection has ended. */
  lost(reason: string): DialFailed {
    // Of TLS 1.3 the server looks at a client's certificate when the client believes to be done.
    if (this.#isEncrypted) return new DialFailed('keys', `the server goes after TLS: ${reason}`)
    return new DialFailed('unreachable', reason)
  }

  #ask(): void {
    const begins = this.#wantsTls && !this.#isEncrypted
    this.#awaited = begins ? Option.STARTTLS : Option.GO
    this.#out.push(begins ? encodeStartTls() : encodeGo(this.#name, [Info.BLOCK_SIZE]))
  }

  #readGreeting(): boolean {
    if (this.#held.length < GREETING_BYTES) return false
    const greeting = decodeGreeting(this.#held)
    if (greeting?.fixedNewstyle !== true) {
      throw new DialFailed('broken', 'this is no NBD server (of the fixed newstyle)')
    }
    this.#held = this.#held.subarray(GREETING_BYTES)
    this.#greeted = true
    this.#out.push(encodeClientFlags(greeting))
    this.#ask()
    return true
  }

  #readReply(): 'more' | 'again' | 'open' | 'upgrade' {
    if (this.#held.length < OPTION_REPLY_HEADER_BYTES) return 'more'
    const head = decodeOptionReplyHeader(this.#held)
    if (head?.option !== this.#awaited || head.length > NBD_LIMITS.optionBytesMax) {
      throw new DialFailed('broken', 'the server answers in an unknown way')
    }
    const end = OPTION_REPLY_HEADER_BYTES + head.length
    if (this.#held.length < end) return 'more'
    const data = this.#held.subarray(OPTION_REPLY_HEADER_BYTES, end)
    this.#held = this.#held.subarray(end)
    if (this.#awaited === Option.STARTTLS) return this.#upgraded(head.type, data)
    if (head.type === Rep.ACK) return 'open'
    if (head.type !== Rep.INFO) throw refusal(head.type, decodeReason(data))
    const info = decodeInfo(data)
    if (info === undefined) throw new DialFailed('broken', 'the server sent half an answer')
    if (info.kind === 'export') this.#facts = info.facts
    if (info.kind === 'block-size') this.#blockBytes = Math.max(BLOCK_BYTES, info.minimumBytes)
    return 'again'
  }

  #upgraded(type: number, data: Buffer): 'upgrade' {
    if (type !== Rep.ACK) {
      const reason = decodeReason(data)
      throw new DialFailed('keys', `the server has no TLS${reason === '' ? '' : ` (${reason})`}`)
    }
    // Somebody in between could have put it there, to be taken for what the server says encrypted.
    if (this.#held.length > 0) {
      throw new DialFailed('broken', 'the server goes on in the clear where TLS should begin')
    }
    return 'upgrade'
  }

  #opened(): FoundExport {
    if (this.#facts === undefined || this.#held.length > 0) {
      throw new DialFailed('broken', 'the server opened the export in an unknown way')
    }
    return { ...this.#facts, blockBytes: this.#blockBytes }
  }
}

function refusal(type: number, reason: string): DialFailed {
  const said = (text: string): string => (reason === '' ? text : `${text} (${reason})`)
  if (type === Rep.ERR_UNKNOWN) return new DialFailed('missing', said('there is no such export'))
  if (type === Rep.ERR_TLS_REQD) return new DialFailed('tls', 'the server wants TLS')
  if (type === Rep.ERR_POLICY) return new DialFailed('refused', said('the server refuses'))
  if (type === Rep.ERR_SHUTDOWN)
    return new DialFailed('unreachable', said('the server is stopping'))
  return new DialFailed('refused', said(`the server answers error 0x${type.toString(16)}`))
}
