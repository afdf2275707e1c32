/**
 * The full feature phase of one connection, which is all of its session, without I/O: bytes in, answers into the reply
 * queue, commands to the logical units.
 *
 * Commands must come in the order of CmdSN: over one connection a gap is somebody's mistake and ends it, what is
 * outside of the window is passed over (RFC 7143, section 4.2.2.1). A digest that is wrong ends the connection too,
 * as error recovery level 0 has it.
 */
import type { BufferPool } from '../../base/buffer-pool.js'
import type { Inbox } from '../../base/inbox.js'
import type { ReplyQueue } from '../../base/reply-queue.js'
import {
  ISCSI_LIMITS,
  LogoutReason,
  LogoutResponse,
  NO_TAG,
  Op,
  RejectReason,
} from '../../wire/iscsi/constants.js'
import * as pdu from '../../wire/iscsi/pdu.js'
import { Incoming, type Place } from './incoming.js'
import { Jobs } from './jobs.js'
import type { LogicalUnit } from './logical-unit.js'
import { Output } from './output.js'
import type { Parameters } from './parameters.js'
import { TaskManager } from './task-manager.js'
import { TextAnswers } from './text-answers.js'

/** Answers are sent when they are more than this, in the middle of a turn. */
const CORKED_BYTES_MAX = 1024 * 1024

/**
 * Why `receive` stopped: bytes are missing; answers should be sent first; the initiator logged out; it broke the
 * protocol.
 */
export type Verdict =
  | { readonly kind: 'starve' | 'corked' | 'goodbye' }
  | { readonly kind: 'broken'; readonly reason: string }

const STARVE: Verdict = { kind: 'starve' }
const CORKED: Verdict = { kind: 'corked' }
const GOODBYE: Verdict = { kind: 'goodbye' }
const broken = (reason: string): Verdict => ({ kind: 'broken', reason })

export interface SessionOptions {
  readonly agreed: Parameters
  readonly nexus: string
  /** Number of the target port group it came to. */
  readonly group: number
  /** Undefined: a discovery session. */
  readonly targetName: string | undefined
  readonly units: ReadonlyMap<number, LogicalUnit>
  readonly replies: ReplyQueue
  /** For the data of writes. */
  readonly pool: BufferPool
  /** Of the next command, and of the next answer. */
  readonly cmdSn: number
  readonly statSn: number
  /** The text SendTargets is answered with; undefined: no such thing may be asked. */
  targets(wanted: string): Promise<[string, string][] | undefined>
  /** TARGET COLD RESET: every session of the target ends. */
  coldReset(): void
  /** An answer waits that no `receive` will send. */
  late(): void
  /** The client is slow to take what it was sent. */
  isBlocked(): boolean
}

export class Session {
  readonly jobs: Jobs
  readonly #options: SessionOptions
  readonly #incoming: Incoming
  readonly #output: Output
  readonly #management: TaskManager
  readonly #text: TextAnswers
  #expCmdSn: number
  #receiving = false
  #logout: number | undefined
  #isGone = false
  #pings = 0

  constructor(options: SessionOptions) {
    this.#options = options
    const { agreed, replies, pool, statSn } = options
    const place = (header: Buffer, bytes: number): Place | undefined => this.#place(header, bytes)
    this.#incoming = new Incoming({ agreed, pool, place })
    this.#expCmdSn = options.cmdSn
    const output = new Output({ agreed, replies, statSn, window: () => this.#window() })
    this.#output = output
    const late = (): void => {
      if (!this.#receiving) options.late()
    }
    this.jobs = new Jobs({ ...options, output, late })
    this.#management = new TaskManager({ ...options, output, late, jobs: this.jobs })
    this.#text = new TextAnswers({ ...options, output, late })
  }

  /** The next ones may be sent. */
  drained(): void {
    this.jobs.grant()
  }

  /** Asks the initiator whether it is there. */
  ping(): void {
    this.#pings = (this.#pings + 1) % NO_TAG
    this.#output.ping(this.#pings)
  }

  askLogout(): void {
    this.#output.askLogout(Math.ceil(ISCSI_LIMITS.drainMs / 1000))
  }

  /** No more answers; resolves when no command can do anything any more. */
  async end(): Promise<void> {
    this.#isGone = true
    await this.jobs.end()
  }

  /** Reads PDUs until the verdict. Everything consumed is on its way or answered. */
  receive(inbox: Inbox): Verdict {
    this.#receiving = true
    const verdict = this.#receive(inbox)
    this.#receiving = false
    return verdict
  }

  /** Where the next bytes belong, when many of some data are missing. */
  room(inbox: Inbox): Buffer | undefined {
    return this.#incoming.room(inbox)
  }

  #receive(inbox: Inbox): Verdict {
    const { replies } = this.#options
    const incoming = this.#incoming
    for (;;) {
      if (this.#isGone) return STARVE
      if (this.#logout !== undefined) return this.#leave(this.#logout)
      if (replies.bytes > CORKED_BYTES_MAX) return CORKED
      const what = incoming.receive(inbox)
      if (what === 'starve') return STARVE
      if (what === 'broken') return broken(incoming.reason)
      const reason = this.#handle(incoming)
      incoming.done()
      if (reason !== undefined) return broken(reason)
    }
  }

  /** Where data is wanted that follows a header. */
  #place(header: Buffer, bytes: number): Place | undefined {
    const opcode = pdu.opcodeOf(header)
    if (opcode === Op.SCSI_COMMAND) return this.jobs.placeOfCommand(header, bytes)
    return opcode === Op.DATA_OUT ? this.jobs.placeOfData(header, bytes) : undefined
  }

  /** What is wrong with it, for those the connection does not survive. */
  #handle(incoming: Incoming): string | undefined {
    const { header } = incoming.head
    const opcode = pdu.opcodeOf(header)
    if (opcode === Op.DATA_OUT) {
      this.jobs.dataOut(header, incoming.data)
      return undefined
    }
    const isImmediate = pdu.isImmediate(header)
    if (isImmediate) {
      const isMuch = this.jobs.uncounted + this.#management.waiting >= ISCSI_LIMITS.immediateMax
      if (isMuch) return 'too many immediate requests'
    } else {
      const place = this.#order(pdu.cmdSn(header))
      if (place === 'outside') return undefined
      if (place === 'gap') return 'a gap in the order of commands'
      this.#expCmdSn = pdu.next(this.#expCmdSn)
    }
    return this.#perform(opcode, incoming, isImmediate)
  }

  #perform(opcode: number, incoming: Incoming, isImmediate: boolean): string | undefined {
    const isDiscovery = this.#options.targetName === undefined
    const { header } = incoming.head
    const { data } = incoming
    switch (opcode) {
      case Op.NOP_OUT:
        // Without a tag it answers our own question.
        if (pdu.tagOf(header) === NO_TAG) return undefined
        this.#output.answerPing(header, data.subarray(0, this.#options.agreed.sendBytesMax))
        return undefined
      case Op.TEXT:
        this.#text.request(header, data)
        return undefined
      case Op.LOGOUT:
        return this.#logOut(header)
      case Op.SCSI_COMMAND:
        if (isDiscovery) break
        return this.jobs.command(incoming, isImmediate)
      case Op.TASK_MANAGEMENT:
        if (isDiscovery) break
        this.#management.request(header)
        return undefined
      default:
    }
    this.#output.reject(header, RejectReason.NOT_SUPPORTED)
    return undefined
  }

  #window(): { readonly expCmdSn: number; readonly maxCmdSn: number } {
    const free = ISCSI_LIMITS.windowCommands - this.jobs.counted
    return { expCmdSn: this.#expCmdSn, maxCmdSn: (this.#expCmdSn + free - 1) >>> 0 }
  }

  #order(serial: number): 'next' | 'gap' | 'outside' {
    const { maxCmdSn } = this.#window()
    if (pdu.isBefore(maxCmdSn, serial)) return 'outside'
    if (serial === this.#expCmdSn) return 'next'
    return pdu.isBefore(serial, this.#expCmdSn) ? 'outside' : 'gap'
  }

  #logOut(header: Buffer): string | undefined {
    const reason = pdu.flagsOf(header) & 0x7f
    const tag = pdu.tagOf(header)
    if (reason === LogoutReason.CLOSE_SESSION || reason === LogoutReason.CLOSE_CONNECTION) {
      this.#logout = tag
      // What waits for data will not get any.
      void this.jobs.abortGathering()
      void this.jobs.idle().then(() => this.#options.late())
      return undefined
    }
    const isRecovery = reason === LogoutReason.RECOVERY
    this.#output.sendLogout(
      tag,
      isRecovery ? LogoutResponse.NO_RECOVERY : LogoutResponse.NO_CONNECTION,
    )
    return undefined
  }

  #leave(tag: number): Verdict {
    if (this.jobs.running > 0) return STARVE
    this.#output.sendLogout(tag, LogoutResponse.CLOSED)
    this.#logout = undefined
    return GOODBYE
  }
}
