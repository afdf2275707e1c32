/**
 * The handshake of one NBD connection, without I/O: bytes in, questions out, bytes to send.
 *
 *   flags --client flags--> options --option--> options | asking | done | dead
 *   asking --answer--> options | done | dead
 *
 * Questions are about exports, which only the owner can look up; it answers with `listed`, `found`,
 * `opened` or `failed`, and calls `next` again. While a question is open no option is read.
 */
import { type Code, nbdErrorOf } from '../../base/codes.js'
import type { Inbox } from '../../base/inbox.js'
import type { ExportInfo, Volume } from '../../volume/volume.js'
import { HandshakeFlag, Info, NBD_LIMITS, NbdError, Option, Rep } from '../../wire/nbd/constants.js'
import { COMPACT, EXTENDED, type Framing } from '../../wire/nbd/framing.js'
import * as wire from '../../wire/nbd/options.js'
import type { ChosenContext } from './exports.js'

/** What the owner has to do next. */
export type HandshakeStep =
  | { readonly kind: 'starve' }
  | { readonly kind: 'list' }
  /** Look only. */
  | { readonly kind: 'find'; readonly name: string }
  /** Look which meta contexts there are. */
  | { readonly kind: 'contexts'; readonly name: string }
  /** Open; `describe`: the description is wanted too; `contexts`: names of what was chosen. */
  | {
      readonly kind: 'open'
      readonly name: string
      readonly describe: boolean
      readonly contexts: readonly string[]
    }
  /** Send what there is and go on encrypted, then call `secured`. */
  | { readonly kind: 'secure' }
  /** Send what there is and close. */
  | { readonly kind: 'end' }
  /** Close at once. */
  | { readonly kind: 'dead'; readonly reason: string }

/** What both sides agreed on. */
export interface Agreed {
  /** Shape of reply chunks, and of requests; undefined: simple replies to compact requests. */
  readonly chunks: Framing | undefined
  /** Chosen for this export, ready to answer. */
  readonly contexts: readonly ChosenContext[]
}

/** What of TLS there is: before `required` is met nothing is told. */
export type TlsMode = 'none' | 'optional' | 'required' | 'done'

type State = 'flags' | 'options' | 'asking' | 'done' | 'dead'

/** The option a question was asked for. */
interface Pending {
  readonly option: number
  readonly name: string
  readonly kinds: readonly number[]
  readonly queries: readonly string[]
}

/** Options that may come before TLS where that is required. */
const IN_THE_CLEAR: ReadonlySet<number> = new Set([Option.STARTTLS, Option.ABORT])

const STARVE: HandshakeStep = { kind: 'starve' }
const NO_PENDING: Pending = { option: 0, name: '', kinds: [], queries: [] }

export class Handshake {
  #state: State = 'flags'
  #fixed = false
  #noZeroes = false
  #chunks: Framing | undefined
  /** The contexts the client chose last, and for which export; numbers are places in this list, from 1. */
  #chosen: readonly string[] = []
  #chosenFor: string | undefined
  #options = 0
  #skip = 0
  #pending = NO_PENDING
  #out: Buffer[] = [wire.encodeGreeting()]
  #tls: TlsMode
  readonly #refusal: string | undefined

  /** `refusal`: why this client is not served; it is told so, whatever it asks for first. */
  constructor(tls: TlsMode = 'none', refusal?: string) {
    this.#tls = tls
    this.#refusal = refusal
  }

  /** Bytes to send since the last call. */
  take(): Buffer[] {
    const out = this.#out
    this.#out = []
    return out
  }

  /** Shape of what follows; meaningful once `opened` was called. */
  get chunks(): Framing | undefined {
    return this.#chunks
  }

  /** Reads on until a question, an end, or until bytes are missing. */
  next(inbox: Inbox): HandshakeStep {
    for (;;) {
      const step = this.#state === 'flags' ? this.#readFlags(inbox) : this.#readOption(inbox)
      if (step === undefined) continue
      if (step.kind === 'dead' || step.kind === 'end') this.#state = 'dead'
      return step
    }
  }

  /** Answer to `secure`: nothing that was said in the clear counts. */
  secured(): void {
    this.#tls = 'done'
    this.#chunks = undefined
    this.#chosenFor = undefined
    this.#state = 'options'
  }

  /** Answer to `list`. */
  listed(exports: readonly ExportInfo[]): void {
    for (const { name, description } of exports) {
      this.#reply(Rep.SERVER, wire.encodeServer(name, description))
    }
    this.#ack()
  }

  /** Answer to `find`. */
  found(info: ExportInfo): void {
    this.#inform(info)
    this.#ack()
  }

  /** Answer to `contexts`. */
  offered(available: readonly string[]): void {
    const { option, name, queries } = this.#pending
    const setting = option === Option.SET_META_CONTEXT
    const chosen = setting ? exactly(available, queries) : matching(available, queries)
    // In answer to LIST the numbers have no meaning and are zero.
    chosen.forEach((context, i) => {
      this.#reply(Rep.META_CONTEXT, wire.encodeMetaContext(setting ? i + 1 : 0, context))
    })
    if (setting) {
      this.#chosen = chosen
      this.#chosenFor = name
    }
    this.#ack()
  }

  /** Answer to `open`: transmission begins behind these bytes. */
  opened(volume: Volume, description: string): void {
    const { name, sizeBytes, readOnly } = volume
    if (this.#pending.option === Option.GO) {
      this.#inform({ name, sizeBytes, readOnly, description })
      this.#reply(Rep.ACK)
    } else {
      this.#out.push(wire.encodeExportNameAnswer(this.#facts(volume), !this.#noZeroes))
    }
    this.#state = 'done'
  }

  /** Answer to any question that came to nothing; EXPORT_NAME has no way to say so. */
  failed(code: Code, reason: string): HandshakeStep | undefined {
    return this.#comeToNothing(refusalOf(code), reason)
  }

  /** Answer to any question about an export this client may not have. */
  refused(reason: string): HandshakeStep | undefined {
    return this.#comeToNothing(Rep.ERR_POLICY, reason)
  }

  #comeToNothing(type: number, reason: string): HandshakeStep | undefined {
    if (this.#pending.option === Option.EXPORT_NAME) {
      this.#state = 'dead'
      return { kind: 'dead', reason }
    }
    this.#refuse(type, reason)
    return undefined
  }

  #readFlags(inbox: Inbox): HandshakeStep | undefined {
    if (inbox.bytes < wire.CLIENT_FLAGS_BYTES) return STARVE
    const flags = inbox.take(wire.CLIENT_FLAGS_BYTES).readUInt32BE(0)
    const known: number = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
    if ((flags & ~known) !== 0) return { kind: 'dead', reason: 'unknown client flags' }
    this.#fixed = (flags & HandshakeFlag.FIXED_NEWSTYLE) !== 0
    this.#noZeroes = (flags & HandshakeFlag.NO_ZEROES) !== 0
    this.#state = 'options'
    return undefined
  }

  #readOption(inbox: Inbox): HandshakeStep | undefined {
    if (this.#state !== 'options') return STARVE
    if (this.#skip > 0) {
      this.#skip -= inbox.skip(this.#skip)
      if (this.#skip > 0) return STARVE
      this.#refuse(Rep.ERR_TOO_BIG, 'option is too long')
    }
    if (inbox.bytes < wire.OPTION_HEADER_BYTES) return STARVE
    inbox.frame(wire.OPTION_HEADER_BYTES)
    const header = wire.decodeOptionHeader(inbox.view, inbox.viewAt)
    if (header === undefined) return { kind: 'dead', reason: 'no option magic' }
    const { option, length } = header
    if (length > NBD_LIMITS.optionBytesMax) return this.#oversized(inbox, option, length)
    if (inbox.bytes < wire.OPTION_HEADER_BYTES + length) return STARVE
    inbox.skip(wire.OPTION_HEADER_BYTES)
    if (++this.#options > NBD_LIMITS.optionsMax) return { kind: 'dead', reason: 'endless options' }
    this.#pending = { ...NO_PENDING, option }
    const data = inbox.take(length)
    if (!this.#fixed && option !== Option.EXPORT_NAME) {
      return { kind: 'dead', reason: 'option without fixed newstyle' }
    }
    if (this.#refusal !== undefined) {
      if (option !== Option.EXPORT_NAME) this.#refuse(Rep.ERR_POLICY, this.#refusal)
      return { kind: 'end' }
    }
    if (this.#tls === 'required' && !IN_THE_CLEAR.has(option)) return this.#demandTls(option)
    return this.#dispatch(option, data)
  }

  #demandTls(option: number): HandshakeStep | undefined {
    if (option === Option.EXPORT_NAME) return { kind: 'dead', reason: 'TLS is required' }
    this.#refuse(Rep.ERR_TLS_REQD, 'TLS is required: send STARTTLS first')
    return undefined
  }

  #oversized(inbox: Inbox, option: number, length: number): HandshakeStep | undefined {
    const hopeless = option === Option.EXPORT_NAME || length > NBD_LIMITS.optionSkipBytesMax
    if (hopeless) return { kind: 'dead', reason: 'option is too long' }
    inbox.skip(wire.OPTION_HEADER_BYTES)
    this.#pending = { ...NO_PENDING, option }
    this.#options++
    this.#skip = length
    return undefined
  }

  #dispatch(option: number, data: Buffer): HandshakeStep | undefined {
    switch (option) {
      case Option.EXPORT_NAME:
        return this.#exportName(data)
      case Option.ABORT:
        this.#reply(Rep.ACK)
        return { kind: 'end' }
      case Option.STARTTLS:
        return this.#startTls(data)
      case Option.LIST:
        if (data.length > 0) return this.#invalid('LIST takes no data')
        return this.#ask({ kind: 'list' })
      case Option.INFO:
      case Option.GO:
        return this.#info(option, data)
      case Option.STRUCTURED_REPLY:
        if (data.length > 0) return this.#invalid('STRUCTURED_REPLY takes no data')
        if (this.#chunks?.isExtended === true) return this.#invalid('headers are extended already')
        return this.#agree(COMPACT)
      case Option.EXTENDED_HEADERS:
        if (data.length > 0) return this.#invalid('EXTENDED_HEADERS takes no data')
        return this.#agree(EXTENDED)
      case Option.LIST_META_CONTEXT:
      case Option.SET_META_CONTEXT:
        return this.#metaContext(option, data)
      default:
        this.#refuse(Rep.ERR_UNSUP, 'option is not supported')
        return undefined
    }
  }

  #startTls(data: Buffer): HandshakeStep | undefined {
    if (data.length > 0) return this.#invalid('STARTTLS takes no data')
    if (this.#tls === 'done') return this.#invalid('the connection is encrypted already')
    if (this.#tls === 'none') {
      this.#refuse(Rep.ERR_UNSUP, 'this server has no TLS')
      return undefined
    }
    this.#reply(Rep.ACK)
    return this.#ask({ kind: 'secure' })
  }

  #exportName(data: Buffer): HandshakeStep {
    const name = wire.decodeName(data, 0, data.length)
    if (name === undefined) return { kind: 'dead', reason: 'malformed export name' }
    this.#pending = { ...this.#pending, name }
    return this.#askToOpen(name, false)
  }

  #info(option: number, data: Buffer): HandshakeStep | undefined {
    const request = wire.decodeInfoRequest(data)
    if (request === undefined) return this.#invalid('malformed request')
    const { name, kinds } = request
    this.#pending = { ...this.#pending, name, kinds }
    if (option === Option.INFO) return this.#ask({ kind: 'find', name })
    return this.#askToOpen(name, kinds.includes(Info.DESCRIPTION))
  }

  #askToOpen(name: string, describe: boolean): HandshakeStep {
    const contexts = this.#chosenFor === name ? this.#chosen : []
    return this.#ask({ kind: 'open', name, describe, contexts })
  }

  #agree(chunks: Framing): undefined {
    this.#chunks = chunks
    this.#reply(Rep.ACK)
  }

  #metaContext(option: number, data: Buffer): HandshakeStep | undefined {
    // A failed SET leaves nothing chosen.
    if (option === Option.SET_META_CONTEXT) this.#chosenFor = undefined
    if (this.#chunks === undefined) return this.#invalid('structured replies come first')
    const request = wire.decodeMetaRequest(data)
    if (request === undefined) return this.#invalid('malformed request')
    const { name, queries } = request
    this.#pending = { ...this.#pending, name, queries }
    return this.#ask({ kind: 'contexts', name })
  }

  #ask(step: HandshakeStep): HandshakeStep {
    this.#state = 'asking'
    return step
  }

  #inform(info: ExportInfo): void {
    this.#reply(Rep.INFO, wire.encodeInfoExport(this.#facts(info)))
    for (const kind of new Set(this.#pending.kinds)) {
      if (kind === Info.NAME) this.#reply(Rep.INFO, wire.encodeInfoText(kind, info.name))
      else if (kind === Info.DESCRIPTION) {
        this.#reply(Rep.INFO, wire.encodeInfoText(kind, info.description))
      } else if (kind === Info.BLOCK_SIZE) this.#reply(Rep.INFO, wire.encodeInfoBlockSize())
    }
  }

  #facts(disk: Pick<ExportInfo, 'sizeBytes' | 'readOnly'>): wire.ExportFacts {
    const { sizeBytes, readOnly } = disk
    return {
      sizeBytes,
      flags: wire.transmissionFlags({ readOnly, chunks: this.#chunks }),
    }
  }

  #ack(): void {
    this.#reply(Rep.ACK)
    this.#state = 'options'
  }

  #reply(type: number, data?: Buffer): void {
    this.#out.push(wire.encodeOptionReply(this.#pending.option, type, data))
  }

  #invalid(text: string): undefined {
    this.#refuse(Rep.ERR_INVALID, text)
  }

  #refuse(type: number, text: string): void {
    this.#out.push(wire.encodeRefusal(this.#pending.option, type, text))
    this.#state = 'options'
  }
}

/** A query that ends with a colon or a slash asks for everything below it; no query at all for everything. */
function matching(available: readonly string[], queries: readonly string[]): readonly string[] {
  if (queries.length === 0) return available
  return available.filter((name) =>
    queries.some((query) => query === name || (/[:/]$/.test(query) && name.startsWith(query))),
  )
}

/** What exists of what was asked for, as much as one client may have. */
function exactly(available: readonly string[], queries: readonly string[]): readonly string[] {
  const known = new Set(available)
  return [...new Set(queries)].filter((query) => known.has(query)).slice(0, NBD_LIMITS.contextsMax)
}

/** The option error a client understands best; its text says the rest. */
function refusalOf(code: Code): number {
  const error = nbdErrorOf(code)
  if (error === NbdError.EPERM) return Rep.ERR_POLICY
  return error === NbdError.ESHUTDOWN ? Rep.ERR_SHUTDOWN : Rep.ERR_UNKNOWN
}
