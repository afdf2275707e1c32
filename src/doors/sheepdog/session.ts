/**
 * One client's connection on the sheepdog protocol. Requests are worked on as they come and answered as
 * they finish; a connection that has too much under way is not read from until some of it is done.
 */
import { Code, codeOf } from '../../base/codes.js'
import { LIMITS } from '../../base/limits.js'
import { Outbox } from '../../base/outbox.js'
import type { Answer } from '../../sheep/answer.js'
import { notServing } from '../../sheep/vdi-access.js'
import {
  type Frame,
  FrameReader,
  HEADER_BYTES,
  MalformedFrame,
  requestBodyLength,
  versionAccepted,
} from '../../wire/sheepdog/frame.js'
import { Flag, opName } from '../../wire/sheepdog/opcodes.js'
import { replyHead } from '../../wire/sheepdog/replies.js'
import type { Clock, Connection } from '../../world/world.js'
import type { DoorContext, OperationTable } from './context.js'

export class SheepdogSession {
  readonly #connection: Connection
  readonly #context: DoorContext
  readonly #operations: OperationTable
  readonly #reader = new FrameReader(requestBodyLength)
  readonly #outbox: Outbox
  readonly #ended: (session: SheepdogSession) => void
  /** Arrived and not looked at yet: while the connection is full, what one read brought may wait here. */
  readonly #chunks: Buffer[] = []
  #frames: Generator<Frame, void, undefined> | undefined
  #working = false
  #inFlight = 0
  #heldBytes = 0
  #paused = false
  #slowReader = false
  #closing = false

  constructor(options: {
    readonly connection: Connection
    readonly context: DoorContext
    readonly operations: OperationTable
    readonly clock: Clock
    readonly ended: (session: SheepdogSession) => void
  }) {
    this.#connection = options.connection
    this.#context = options.context
    this.#operations = options.operations
    this.#ended = options.ended
    this.#outbox = new Outbox(
      (pieces) => this.#send(pieces),
      (fn) => options.clock.soon(fn),
    )
    options.connection.on({
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
    if (this.#inFlight === 0) this.#finish()
  }

  #received(chunk: Buffer): void {
    if (this.#closing) return
    this.#chunks.push(chunk)
    this.#work()
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
      for (let chunk = this.#chunks[0]; chunk !== undefined; chunk = this.#chunks[0]) {
        this.#frames ??= this.#reader.read(chunk)
        const next = this.#frames.next()
        if (next.done !== true) return next.value
        this.#frames = undefined
        this.#chunks.shift()
      }
    } catch (error) {
      if (!(error instanceof MalformedFrame)) throw error
      const { remote } = this.#connection
      this.#context.node.log.warn('client.malformed', { remote, reason: error.message })
      this.#connection.destroy()
    }
    return undefined
  }

  #begin(request: Frame): void {
    // Room the answer may take counts as well: the client decides it.
    const held = HEADER_BYTES + request.dataLength
    let isAnswered = false
    this.#inFlight++
    this.#heldBytes += held
    const reply = (answer: Answer): void => {
      if (isAnswered) return
      isAnswered = true
      this.#inFlight--
      this.#heldBytes -= held
      this.#answer(request, answer)
      this.#adjust()
      if (this.#closing && this.#inFlight === 0) this.#finish()
    }
    const refusal = this.#refusal(request)
    if (refusal !== undefined) {
      reply({ result: refusal })
      return
    }
    this.#adjust()
    try {
      this.#operations.get(request.opcode)!.run(this.#context, request, reply)
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
    const operation = this.#operations.get(request.opcode)
    if (operation === undefined) return Code.INVALID_PARMS
    const { node } = this.#context
    const { status } = node.state
    if (status === 'ok' || (status === 'wait' && operation.force)) return undefined
    return notServing(node)
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
    if (body !== undefined) this.#outbox.push(body)
  }

  #send(pieces: readonly Uint8Array[]): boolean {
    const more = this.#connection.writeAll(pieces)
    if (!more) {
      this.#slowReader = true
      this.#adjust()
    }
    return more
  }

  get #full(): boolean {
    return (
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
    if (!full && this.#chunks.length > 0) this.#work()
  }

  #finish(): void {
    this.#outbox.flush()
    this.#connection.end()
  }

  #over(): void {
    this.#closing = true
    this.#ended(this)
  }
}
