/**
 * One client's connection on the sheepdog protocol. Requests are worked on as they come and answered as
 * they finish; a connection that has too much under way is not read from until some of it is done.
 */
import { Code, codeOf } from '../../base/codes.js'
import { LIMITS } from '../../base/limits.js'
import { Outbox } from '../../base/outbox.js'
import { type Answer, failed, type Reply } from '../../sheep/answer.js'
import { Caller } from '../../sheep/caller.js'
import { notServing } from '../../sheep/vdi-access.js'
import {
  type Frame,
  FrameReader,
  HEADER_BYTES,
  MalformedFrame,
  requestBodyLength,
  versionAccepted,
} from '../../wire/sheepdog/frame.js'
import { decodeHello } from '../../wire/sheepdog/hello.js'
import { Flag, Op, opName } from '../../wire/sheepdog/opcodes.js'
import { replyHead } from '../../wire/sheepdog/replies.js'
import type { Clock, Connection } from '../../world/world.js'
import type { OperationContext, OperationTable } from './context.js'
import type { Greeter, Greetings } from './greetings.js'
import type { OneConnection } from './one-connection.js'
import { canWait, isBetterUnsaid } from './reconnecting.js'
import { noteUse } from './volume-use.js'

/** Their handlers use the body until they reply, and no longer. What others bring is theirs to keep. */
const BORROWING: ReadonlySet<number> = new Set([
  ...[Op.CREATE_AND_WRITE_OBJ, Op.WRITE_OBJ, Op.CREATE_AND_WRITE_PEER, Op.WRITE_PEER],
])

export class SheepdogSession implements Greeter {
  readonly caller = new Caller()
  readonly #connection: Connection
  readonly #context: OperationContext
  readonly #operations: OperationTable
  readonly #greetings: Greetings
  readonly #oneConnection: OneConnection
  readonly #reader: FrameReader
  readonly #outbox: Outbox
  readonly #ended: (session: SheepdogSession) => void
  #working = false
  #inFlight = 0
  /** Of those: what may still change something. */
  #changing = 0
  #heldBytes = 0
  #paused = false
  #slowReader = false
  #closing = false
  /** A HELLO is being answered: what is behind it may not be begun. */
  #greeting = false
  readonly #idle: (() => void)[] = []
  /** Whose the connection is after the next answer. */
  #heir: ((connection: Connection) => void) | undefined

  constructor(options: {
    readonly connection: Connection
    readonly context: OperationContext
    readonly operations: OperationTable
    readonly greetings: Greetings
    readonly oneConnection: OneConnection
    readonly clock: Clock
    readonly ended: (session: SheepdogSession) => void
  }) {
    this.#connection = options.connection
    this.#context = options.context
    this.#operations = options.operations
    this.#greetings = options.greetings
    this.#oneConnection = options.oneConnection
    this.#ended = options.ended
    this.#reader = new FrameReader(requestBodyLength, options.context.memory)
    this.caller.link = this
    this.#outbox = new Outbox(
      (pieces, sent) => this.#send(pieces, sent),
      (fn) => options.clock.soon(fn),
    )
    options.context.node.caretaker.recycling.users.arrived(this.caller)
    options.connection.on({
      room: () => this.#reader.room(),
      data: (chunk) => this.#received(chunk),
      close: () => this.#over(),
      drain: () => {
        this.#slowReader = false
        this.#adjust()
      },
    })
  }

  /** Finishes what is under way, then closes. */
  close(): void {
    this.#closing = true
    // What waits for the cluster waits no more.
    this.#context.node.state.wakeViewWaiters()
    if (this.#inFlight === 0) this.#finish()
  }

  cut(): void {
    this.#connection.destroy()
    this.#over()
  }

  whenIdle(fn: () => void): void {
    if (this.#changing === 0) fn()
    else this.#idle.push(fn)
  }

  handOver(to: (connection: Connection) => void): boolean {
    if (this.#inFlight > 1 || !this.#reader.isEmpty) return false
    this.#heir = to
    return true
  }

  #received(chunk: Buffer): void {
    if (this.#closing) return
    this.#reader.give(chunk)
    this.#work()
    // While there is enough to do, the rest of what one read brought waits.
    this.#reader.keep()
    this.#outbox.flush()
  }

  /** Takes requests out of what has arrived until there is enough to do. */
  #work(): void {
    if (this.#working) return
    this.#working = true
    while (!this.#full && !this.#closing) {
      const frame = this.#nextFrame()
      if (frame === undefined) break
      this.#begin(frame)
    }
    this.#working = false
  }

  #nextFrame(): Frame | undefined {
    try {
      return this.#reader.next()
    } catch (error) {
      this.#malformed(error)
      return undefined
    }
  }

  #malformed(error: unknown): void {
    if (!(error instanceof MalformedFrame)) throw error
    const { remote } = this.#connection
    this.#context.node.log.warn('client.malformed', { remote, reason: error.message })
    this.#connection.destroy()
  }

  #begin(request: Frame): void {
    // Room the answer may take counts as well: the client decides it.
    const held = HEADER_BYTES + request.dataLength
    let isAnswered = false
    const operation = this.#operations.get(request.opcode)
    const changes = operation !== undefined && operation.isHarmless !== true
    this.#inFlight++
    if (changes) this.#changing++
    this.#heldBytes += held
    const { stats } = this.#context.node
    stats.begin(request.opcode, request.body.length)
    const reply = (answer: Answer): void => {
      if (isAnswered) return
      isAnswered = true
      this.#inFlight--
      this.#heldBytes -= held
      stats.end(request.opcode, answer.body?.length ?? 0)
      if (isBetterUnsaid(request, answer.result)) this.cut()
      else this.#answer(request, answer)
      if (this.#heir !== undefined) {
        this.#pass(this.#heir)
        return
      }
      if (BORROWING.has(request.opcode)) request.release()
      this.#adjust()
      if (this.#closing && this.#inFlight === 0) this.#finish()
      if (changes && --this.#changing === 0) for (const fn of this.#idle.splice(0)) fn()
    }
    this.#adjust()
    this.#perform(request, reply)
  }

  #pass(heir: (connection: Connection) => void): void {
    this.#outbox.flush()
    this.#over()
    heir(this.#connection)
  }

  #perform(request: Frame, reply: Reply): void {
    const refusal = this.#refusal(request)
    const { node } = this.#context
    if (refusal !== undefined && canWait(request, refusal) && !this.#closing) {
      const givenUp = (): void => reply(failed(refusal))
      const again = (): void => this.#perform(request, reply)
      node.state.afterViewChange(this.caller.unlessGone(givenUp, again))
      return
    }
    if (refusal !== undefined) {
      reply(failed(refusal))
      return
    }
    this.#oneConnection.inTurn(request, this.caller, reply, (ended) => this.#run(request, ended))
  }

  #run(request: Frame, reply: Reply): void {
    noteUse(this.#context.node, request, this.caller)
    try {
      if (request.opcode === Op.HELLO) this.#greet(request, reply)
      else this.#operations.get(request.opcode)!.run(this.#context, request, reply, this.caller)
    } catch (error) {
      // A handler's mistake costs its request, not the node and everybody on it.
      const fields = { op: opName(request.opcode), reason: String(error) }
      this.#context.node.log.error('request.failed', fields)
      reply({ result: codeOf(error) })
    }
  }

  /** The checks of the protocol spec, section 8, in its order. */
  #refusal(request: Frame): Code | undefined {
    if (!versionAccepted(request.version, request.opcode)) return Code.VER_MISMATCH
    if (request.isOversized) return Code.INVALID_PARMS
    if (request.opcode === Op.HELLO) return undefined
    const operation = this.#operations.get(request.opcode)
    if (operation === undefined) return Code.INVALID_PARMS
    const { node } = this.#context
    const { status } = node.state
    if (status === 'ok' || (status === 'wait' && operation.force)) return undefined
    return notServing(node)
  }

  #greet(request: Frame, reply: Reply): void {
    try {
      const hello = decodeHello(request.body)
      this.#greeting = true
      this.#greetings.greet(this, hello, (code) => {
        this.#greeting = false
        reply(failed(code))
      })
    } catch (error) {
      reply(failed(Code.INVALID_PARMS))
      this.#malformed(error)
    }
  }

  #answer(request: Frame, answer: Answer): void {
    const expects = !request.has(Flag.WRITE) || request.has(Flag.PIGGYBACK)
    const body = expects ? answer.body : undefined
    const head = replyHead({
      opcode: request.opcode,
      id: request.id,
      epoch: this.#context.node.state.epoch,
      result: answer.result,
      dataLength: body?.length ?? 0,
    })
    answer.fill?.(head)
    this.#outbox.push(head)
    if (body !== undefined) this.#outbox.push(body, answer.sent)
  }

  #send(pieces: readonly Uint8Array[], sent: (() => void) | undefined): boolean {
    const more = this.#connection.writeAll(pieces, sent)
    if (!more) {
      this.#slowReader = true
      this.#adjust()
    }
    return more
  }

  get #full(): boolean {
    return (
      this.#greeting ||
      this.#slowReader ||
      this.#inFlight >= LIMITS.requestsInFlightMax ||
      this.#heldBytes >= LIMITS.connectionBytesMax
    )
  }

  /** Reads on or stops reading, and takes up what had to wait. */
  #adjust(): void {
    const full = this.#full
    if (this.#closing) return
    if (full !== this.#paused) {
      this.#paused = full
      if (full) this.#connection.pause()
      else this.#connection.resume()
    }
    if (!full) this.#work()
  }

  #finish(): void {
    this.#outbox.flush()
    this.#connection.end()
  }

  #over(): void {
    if (this.caller.isGone) return
    this.#closing = true
    this.caller.leave()
    this.#ended(this)
  }
}
