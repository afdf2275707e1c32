/**
 * The login phase of one connection, without I/O: requests in, answers and questions out.
 *
 *   security --authenticated--> operational --agreed--> opening (the shell opens the target) --> full feature
 *
 * Stages may be left out where nothing is demanded there. Everything goes wrong with a status the initiator is told.
 */
import { noBytes } from '../../base/bytes.js'
import {
  Answer,
  BHS_BYTES,
  ISCSI_LIMITS,
  LoginFlag,
  LoginStatus,
  Op,
  Stage,
} from '../../wire/iscsi/constants.js'
import * as pdu from '../../wire/iscsi/pdu.js'
import { decodeText, encodeText, MalformedText } from '../../wire/iscsi/text.js'
import type { Random } from '../../world/world.js'
import { CHAP_KEYS, Chap, type ChapRules } from './chap.js'
import { BadOffer, defaultParameters, negotiate, type Parameters } from './parameters.js'

/** Who logs in to what. */
export interface Visit {
  readonly initiator: string
  /** Six bytes; with the name it is the initiator's port. */
  readonly isid: string
  /** Undefined: a discovery session. */
  readonly target: string | undefined
}

/** What the rules say of a visit. */
export type Admission =
  | { readonly kind: 'granted'; readonly chap: ChapRules | undefined }
  | { readonly kind: 'refused'; readonly status: number; readonly reason: string }

export interface LoginOptions {
  readonly random: Random
  admit(visit: Visit): Admission
  /** A session with this handle exists. */
  hasSession(tsih: number): boolean
  /** Number of the target port group the initiator came to. */
  readonly group: number
}

export type LoginStep =
  | { readonly kind: 'send'; readonly bytes: Buffer }
  /** Ask `opened` or `failed` for what is sent next. */
  | { readonly kind: 'open'; readonly visit: Visit }
  /** `bytes` is the last that is sent. */
  | { readonly kind: 'refuse'; readonly bytes: Buffer; readonly reason: string }
  /** Not even an answer. */
  | { readonly kind: 'drop'; readonly reason: string }

const HANDLED = new Set<string>([
  ...['InitiatorName', 'SessionType', 'TargetName', 'AuthMethod', ...CHAP_KEYS],
])
/** iSCSI names are of these (RFC 3722), and others are not looked for. */
const NAME = /^[^\s\p{Cc}]+$/u

class Refusal extends Error {
  readonly status: number

  constructor(status: number, reason: string) {
    super(reason)
    this.status = status
  }
}

export class Login {
  readonly agreed: Parameters = defaultParameters()
  /** Of the next command. */
  cmdSn = 0
  statSn = 1
  readonly #options: LoginOptions
  #visit: Visit | undefined
  #chap: Chap | undefined
  /** Nothing is demanded any more in the security stage. */
  #authenticated = false
  #declared = false
  #stage: number | undefined
  #requests = 0
  #text: Buffer = noBytes()
  #header: Buffer = noBytes()
  #flags = 0

  constructor(options: LoginOptions) {
    this.#options = options
  }

  get user(): string | undefined {
    return this.#chap?.user
  }

  /** `header` is kept. */
  receive(header: Buffer, data: Buffer): LoginStep {
    if (pdu.opcodeOf(header) !== Op.LOGIN) return { kind: 'drop', reason: 'no login request' }
    const isFirst = this.#requests === 0
    if (++this.#requests > ISCSI_LIMITS.loginRequestsMax) {
      return { kind: 'drop', reason: 'too many login requests' }
    }
    const before = this.#header
    this.#header = header
    if (isFirst) this.cmdSn = pdu.cmdSn(header)
    try {
      this.#checkHeader(header, isFirst ? undefined : before)
      const pairs = this.#gather(header, data)
      return pairs === undefined ? this.#send(0, []) : this.#handle(pairs)
    } catch (error) {
      if (error instanceof Refusal) return this.#refuse(error.status, error.message)
      if (error instanceof MalformedText || error instanceof BadOffer) {
        return this.#refuse(LoginStatus.INITIATOR_ERROR, error.message)
      }
      throw error
    }
  }

  /** The target is open: what is sent last in this phase. */
  opened(tsih: number): Buffer {
    return this.#encode(LoginStatus.SUCCESS, this.#flags, this.#text, tsih)
  }

  failed(status: number): Buffer {
    return this.#encode(status, 0, noBytes(), 0)
  }

  #checkHeader(header: Buffer, before: Buffer | undefined): void {
    const flags = pdu.flagsOf(header)
    const [current, following] = [(flags >> 2) & 3, flags & 3]
    if (header[3]! > 0) throw new Refusal(LoginStatus.UNSUPPORTED_VERSION, 'version')
    const tsih = header.readUInt16BE(14)
    if (tsih !== 0) {
      const exists = this.#options.hasSession(tsih)
      throw new Refusal(
        exists ? LoginStatus.TOO_MANY_CONNECTIONS : LoginStatus.NO_SUCH_SESSION,
        exists ? 'a second connection of a session' : 'a session that is not there',
      )
    }
    const isTransit = (flags & LoginFlag.TRANSIT) !== 0
    const isContinued = (flags & LoginFlag.CONTINUE) !== 0
    const isStage = current === Stage.SECURITY || current === Stage.OPERATIONAL
    const isForward =
      !isTransit ||
      (following > current && (following === Stage.OPERATIONAL || following === Stage.FULL_FEATURE))
    if (!isStage || !isForward || (isTransit && isContinued)) {
      throw new Refusal(LoginStatus.INVALID_REQUEST, 'stages of login')
    }
    const isSame = before === undefined || header.compare(before, 8, 14, 8, 14) === 0
    if (!isSame || (this.#stage !== undefined && current !== this.#stage)) {
      throw new Refusal(LoginStatus.INVALID_REQUEST, 'another stage or initiator than before')
    }
    this.#stage = current
  }

  /** The pairs, when they are complete. */
  #gather(header: Buffer, data: Buffer): Map<string, string> | undefined {
    if (this.#text.length + data.length > ISCSI_LIMITS.textBytesMax) {
      throw new Refusal(LoginStatus.OUT_OF_RESOURCES, 'too much text')
    }
    const text = this.#text.length === 0 ? data : Buffer.concat([this.#text, data])
    if ((pdu.flagsOf(header) & LoginFlag.CONTINUE) !== 0) {
      this.#text = Buffer.from(text)
      return undefined
    }
    this.#text = noBytes()
    return decodeText(text)
  }

  #handle(pairs: Map<string, string>): LoginStep {
    const isFirst = this.#visit === undefined
    const visit = this.#visit ?? this.#begin(pairs)
    const isDiscovery = visit.target === undefined
    const answers: [string, string][] = []
    if (isFirst && !isDiscovery) answers.push(['TargetPortalGroupTag', `${this.#options.group}`])
    if (this.#stage === Stage.SECURITY) answers.push(...this.#secure(pairs))
    else if (!this.#authenticated) {
      throw new Refusal(LoginStatus.AUTHENTICATION_FAILED, 'no authentication, which is demanded')
    }
    answers.push(...negotiate(pairs, HANDLED, this.agreed, isDiscovery))
    if (this.#stage === Stage.OPERATIONAL && !this.#declared) {
      this.#declared = true
      answers.push(['MaxRecvDataSegmentLength', String(ISCSI_LIMITS.segmentBytesMax)])
    }
    const flags = pdu.flagsOf(this.#header)
    const wantsOn = (flags & LoginFlag.TRANSIT) !== 0 && this.#authenticated
    if (!wantsOn) return this.#send(0, answers)
    const following = flags & 3
    if (following !== Stage.FULL_FEATURE) {
      this.#stage = following
      return this.#send(LoginFlag.TRANSIT | following, answers)
    }
    this.#flags = LoginFlag.TRANSIT | following
    this.#text = this.#answerText(answers)
    return { kind: 'open', visit }
  }

  #begin(pairs: ReadonlyMap<string, string>): Visit {
    const [initiator, target] = [pairs.get('InitiatorName'), pairs.get('TargetName')]
    const kind = pairs.get('SessionType') ?? 'Normal'
    if (initiator === undefined) {
      throw new Refusal(LoginStatus.MISSING_PARAMETER, 'InitiatorName is missing')
    }
    if (kind !== 'Normal' && kind !== 'Discovery') {
      throw new Refusal(LoginStatus.SESSION_TYPE, `SessionType ${kind}`)
    }
    if (kind === 'Normal' && target === undefined) {
      throw new Refusal(LoginStatus.MISSING_PARAMETER, 'TargetName is missing')
    }
    for (const name of [initiator, target ?? initiator]) {
      const isName = NAME.test(name) && Buffer.byteLength(name) <= ISCSI_LIMITS.nameBytesMax
      if (!isName) throw new Refusal(LoginStatus.INITIATOR_ERROR, 'a name that is none')
    }
    const isid = this.#header.toString('hex', 8, 14)
    const visit: Visit = { initiator, isid, target: kind === 'Normal' ? target : undefined }
    const admission = this.#options.admit(visit)
    if (admission.kind === 'refused') throw new Refusal(admission.status, admission.reason)
    this.#visit = visit
    const { chap } = admission
    if (chap === undefined) this.#authenticated = true
    else this.#chap = new Chap(chap, this.#options.random)
    return visit
  }

  #secure(pairs: ReadonlyMap<string, string>): [string, string][] {
    const answers: [string, string][] = []
    const chap = this.#chap
    const methods = pairs.get('AuthMethod')?.split(',')
    const wanted = chap === undefined ? 'None' : 'CHAP'
    if (methods !== undefined) {
      if (!methods.includes(wanted)) {
        throw new Refusal(LoginStatus.AUTHENTICATION_FAILED, `AuthMethod is to be ${wanted}`)
      }
      answers.push(['AuthMethod', wanted])
    }
    if (chap === undefined || this.#authenticated) return answers
    const step = chap.next(pairs)
    if (step.kind === 'refuse') throw new Refusal(LoginStatus.AUTHENTICATION_FAILED, step.reason)
    const isAsking = methods === undefined && step.pairs.length === 0 && !step.done
    const isLeaving = (pdu.flagsOf(this.#header) & LoginFlag.TRANSIT) !== 0
    if (isAsking && isLeaving) {
      throw new Refusal(LoginStatus.AUTHENTICATION_FAILED, 'no authentication, which is demanded')
    }
    this.#authenticated = step.done
    return [...answers, ...step.pairs]
  }

  #answerText(answers: [string, string][]): Buffer {
    const text = encodeText(answers)
    if (text.length > ISCSI_LIMITS.loginSegmentBytesMax) {
      throw new Refusal(LoginStatus.INITIATOR_ERROR, 'too many keys')
    }
    return text
  }

  #send(flags: number, answers: [string, string][]): LoginStep {
    const text = this.#answerText(answers)
    return { kind: 'send', bytes: this.#encode(LoginStatus.SUCCESS, flags, text, 0) }
  }

  #refuse(status: number, reason: string): LoginStep {
    return { kind: 'refuse', bytes: this.failed(status), reason }
  }

  #encode(status: number, flags: number, text: Buffer, tsih: number): Buffer {
    const header = this.#header
    const bytes = Buffer.alloc(BHS_BYTES + pdu.padded(text.length))
    const current = pdu.flagsOf(header) & 0x0c
    const tag = pdu.tagOf(header)
    const opcode = Answer.LOGIN
    pdu.writeHeader(bytes, 0, { opcode, flags: flags | current, tag, bytes: text.length })
    header.copy(bytes, 8, 8, 14)
    bytes.writeUInt16BE(tsih, 14)
    const maxCmdSn = (this.cmdSn + ISCSI_LIMITS.windowCommands - 1) >>> 0
    const statSn = this.statSn
    pdu.writeNumbers(bytes, 0, { statSn, expCmdSn: this.cmdSn, maxCmdSn })
    this.statSn = pdu.next(statSn)
    bytes.writeUInt16BE(status, 36)
    text.copy(bytes, BHS_BYTES)
    return bytes
  }
}

export interface Wanted {
  readonly initiator: string
  /** The target's. */
  readonly name: string
}

/** Who wants which target, by the first login request; undefined where that is not to be seen, or none is meant. */
export function wantedTarget(header: Buffer, data: Buffer): Wanted | undefined {
  if (pdu.opcodeOf(header) !== Op.LOGIN) return undefined
  try {
    const pairs = decodeText(data)
    const [name, initiator] = [pairs.get('TargetName'), pairs.get('InitiatorName')]
    const isNormal = pairs.get('SessionType') !== 'Discovery'
    return isNormal && name !== undefined && initiator !== undefined
      ? { initiator, name }
      : undefined
  } catch (error) {
    if (error instanceof MalformedText) return undefined
    throw error
  }
}
