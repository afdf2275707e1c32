/**
 * Opens an export as a client of NBD, up to the point where the kernel takes the connection over: fixed newstyle,
 * NBD_OPT_GO, simple replies, which is all that the kernel's client can read.
 *
 *   greeting --flags, GO--> replies --INFO--> replies --ACK--> done
 */

import {
  decodeGreeting,
  decodeInfo,
  decodeOptionReplyHeader,
  decodeReason,
  encodeClientFlags,
  encodeGo,
  GREETING_BYTES,
  OPTION_REPLY_HEADER_BYTES,
} from '../wire/nbd/client.js'
import { Info, NBD_LIMITS, Option, Rep } from '../wire/nbd/constants.js'
import type { ExportFacts } from '../wire/nbd/options.js'
import type { Address, Connection } from '../world/world.js'
import type { DogWorld } from './command.js'

const CONNECT_MS = 5_000
/** A sheep may hold an export back until its cluster is there again. */
const HANDSHAKE_MS = 30_000
/** The kernel's own smallest block. */
const BLOCK_BYTES = 512

export interface OpenExport extends ExportFacts {
  readonly connection: Connection
  readonly blockBytes: number
}

/**
 * Why an export was not opened. `missing`: the server has no such export; `tls`: it speaks to nobody without; `refused`: it
 * said no; `unreachable`: there was nobody, or he went in the middle; `broken`: this is no NBD server.
 */
export type DialTrouble = 'missing' | 'tls' | 'refused' | 'unreachable' | 'broken'

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

/** Rejects with DialFailed. Nothing of what the connection has sent is left unread, and nothing was asked of the disk. */
export async function dial(world: DogWorld, to: Address, exportName: string): Promise<OpenExport> {
  const connection = await world.network.connect(to, CONNECT_MS).catch((error: unknown) => {
    throw new DialFailed('unreachable', error instanceof Error ? error.message : String(error))
  })
  const session = new DialSession(exportName)
  return await new Promise((resolve, reject) => {
    const fail = (error: DialFailed): void => {
      stopTimer()
      connection.destroy()
      reject(error)
    }
    const stopTimer = world.clock.after(HANDSHAKE_MS, () =>
      fail(new DialFailed('unreachable', `no answer within ${HANDSHAKE_MS / 1000} seconds`)),
    )
    connection.on({
      data: (chunk) => {
        try {
          const found = session.receive(chunk)
          connection.writeAll(session.take())
          if (found === undefined) return
          stopTimer()
          resolve({ connection, ...found })
        } catch (error) {
          if (!(error instanceof DialFailed)) throw error
          fail(error)
        }
      },
      close: (error) =>
        fail(new DialFailed('unreachable', error?.message ?? 'the server closed the connection')),
      drain: () => undefined,
    })
  })
}

export type FoundExport = Omit<OpenExport, 'connection'>

/** The session without its connection. */
export class DialSession {
  readonly #name: string
  #held: Buffer = Buffer.alloc(0)
  #out: Buffer[] = []
  #greeted = false
  #facts: ExportFacts | undefined
  #blockBytes = BLOCK_BYTES

  constructor(name: string) {
    this.#name = name
  }

  /** Bytes to send since the last call. */
  take(): Buffer[] {
    const out = this.#out
    this.#out = []
    return out
  }

  /** What was opened, once it is; throws DialFailed. */
  receive(chunk: Buffer): FoundExport | undefined {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    if (!this.#greeted && !this.#readGreeting()) return undefined
    for (;;) {
      const step = this.#readReply()
      if (step === 'more') return undefined
      if (step === 'open') return this.#opened()
    }
  }

  #readGreeting(): boolean {
    if (this.#held.length < GREETING_BYTES) return false
    const greeting = decodeGreeting(this.#held)
    if (greeting?.fixedNewstyle !== true) {
      throw new DialFailed('broken', 'this is no NBD server (of the fixed newstyle)')
    }
    this.#held = this.#held.subarray(GREETING_BYTES)
    this.#greeted = true
    this.#out.push(encodeClientFlags(greeting), encodeGo(this.#name, [Info.BLOCK_SIZE]))
    return true
  }

  #readReply(): 'more' | 'again' | 'open' {
    if (this.#held.length < OPTION_REPLY_HEADER_BYTES) return 'more'
    const head = decodeOptionReplyHeader(this.#held)
    if (
      head === undefined ||
      head.option !== Option.GO ||
      head.length > NBD_LIMITS.optionBytesMax
    ) {
      throw new DialFailed('broken', 'the server answers in an unknown way')
    }
    const end = OPTION_REPLY_HEADER_BYTES + head.length
    if (this.#held.length < end) return 'more'
    const data = this.#held.subarray(OPTION_REPLY_HEADER_BYTES, end)
    this.#held = this.#held.subarray(end)
    if (head.type === Rep.ACK) return 'open'
    if (head.type !== Rep.INFO) throw refusal(head.type, decodeReason(data))
    const info = decodeInfo(data)
    if (info === undefined) throw new DialFailed('broken', 'the server sent half an answer')
    if (info.kind === 'export') this.#facts = info.facts
    if (info.kind === 'block-size') this.#blockBytes = Math.max(BLOCK_BYTES, info.minimumBytes)
    return 'again'
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
