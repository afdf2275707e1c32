/**
 * Whole sessions of the sheepdog door without a node: each request runs through every decoder its bytes may meet, and is
 * answered at once or later, in any order. What must hold, whatever the bytes:
 *
 *   every frame that arrived whole is answered once, with its id and opcode, and nothing else is
 *   a session that is not closed has nothing under way in the end, and is still read from
 *   nothing is thrown but what a decoder promises to throw
 */
import { BufferPool } from '../../src/base/buffer-pool.js'
import { codeOf } from '../../src/base/codes.js'
import { LIMITS } from '../../src/base/limits.js'
import { silentLog } from '../../src/base/log.js'
import type { DoorContext, Operation, OperationTable } from '../../src/doors/sheepdog/context.js'
import { decodeDiskPaths } from '../../src/doors/sheepdog/disk-ops.js'
import { Greetings } from '../../src/doors/sheepdog/greetings.js'
import { OneConnection } from '../../src/doors/sheepdog/one-connection.js'
import { SheepdogSession } from '../../src/doors/sheepdog/session.js'
import { INODE_HEADER_BYTES } from '../../src/model/inode.js'
import { decodeNode, NODE_BYTES } from '../../src/model/node.js'
import { ATTRIBUTE_BYTES, objectBytes, oidKind, oidName } from '../../src/model/oid.js'
import { isRedundancy } from '../../src/model/policy.js'
import type { Reply } from '../../src/sheep/answer.js'
import { readableHeader } from '../../src/sheep/inode-io.js'
import { Stats } from '../../src/sheep/stats.js'
import { VidUsers } from '../../src/sheep/vid-users.js'
import { decodeAttribute } from '../../src/wire/sheepdog/attribute.js'
import { type Frame, HEADER_BYTES, MalformedFrame } from '../../src/wire/sheepdog/frame.js'
import { decodeListRequest } from '../../src/wire/sheepdog/object-list.js'
import { decodeOids } from '../../src/wire/sheepdog/oid-list.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import {
  decodeRecoveryThrottling,
  RECOVERY_THROTTLING_BYTES,
} from '../../src/wire/sheepdog/records.js'
import { decodeRecycling, decodeRecyclingQuestion } from '../../src/wire/sheepdog/recycling.js'
import {
  decodeCheckpointFields,
  decodeClusterFields,
  decodeForwardFields,
  decodeRefFields,
  decodeVdiFields,
  decodeVdiStateFields,
  objectFields,
} from '../../src/wire/sheepdog/requests.js'
import { firstVidOf } from '../../src/wire/sheepdog/volume-list.js'
import type { Clock, Connection, ConnectionEvents } from '../../src/world/world.js'
import type { Dice } from '../faults/dice.js'
import { chunksOf, conversation } from './mutate.js'

const FRAMES_PER_SESSION = 40
const ANSWER_BYTES_MAX = 512
const OIDS_BYTES_MAX = 256

/** Runs sessions until `frames` frames have been sent; throws an Error that names what went wrong. */
export function fuzzSessions(dice: Dice, frames: number): { sessions: number; answers: number } {
  let [sent, sessions, answers] = [0, 0, 0]
  while (sent < frames) {
    const parts = [...conversation(dice, FRAMES_PER_SESSION)]
    answers += oneSession(Buffer.concat(parts), dice)
    sent += parts.length
    sessions++
  }
  return { sessions, answers }
}

class Wire implements Connection {
  readonly remote = 'fuzz'
  readonly sent: Buffer[] = []
  events: ConnectionEvents | undefined
  isPaused = false
  isClosed = false

  on(events: ConnectionEvents): void {
    this.events = events
  }
  write(bytes: Uint8Array): boolean {
    this.sent.push(Buffer.from(bytes))
    return true
  }
  writeAll(pieces: readonly Uint8Array[]): boolean {
    for (const piece of pieces) this.sent.push(Buffer.from(piece))
    return true
  }
  pause(): void {
    this.isPaused = true
  }
  resume(): void {
    this.isPaused = false
  }
  end(): void {
    this.destroy()
  }
  destroy(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.events?.close()
  }
}

function oneSession(stream: Buffer, dice: Dice): number {
  const wire = new Wire()
  const queue: (() => void)[] = []
  const late: (() => void)[] = []
  const session = new SheepdogSession({
    connection: wire,
    context: { ...contextOfNobody(), memory: new BufferPool({ scribble: true }) },
    operations: operations(dice, late),
    greetings: new Greetings(() => new Set()),
    oneConnection: new OneConnection(),
    clock: { soon: (fn: () => void) => void queue.push(fn) } as unknown as Clock,
    ended: () => undefined,
  })
  const work = (): void => {
    for (let fn = queue.shift(); fn !== undefined; fn = queue.shift()) fn()
  }
  for (const chunk of chunksOf(stream, dice)) {
    if (wire.isClosed) break
    wire.events?.data(chunk)
    work()
    while (late.length > 0 && (wire.isPaused || dice.below(3) === 0)) {
      late.splice(dice.below(late.length), 1)[0]!()
      work()
    }
  }
  for (let fn = late.pop(); fn !== undefined; fn = late.pop()) {
    fn()
    work()
  }
  if (!wire.isClosed && wire.isPaused) throw new Error('a session without work is not read from')
  const answered = check(wire, framesIn(stream))
  session.cut()
  return answered
}

/** What a frame is, told without the code under test: header, and length of what follows. */
function framesIn(stream: Buffer): { readonly opcode: number; readonly id: number }[] {
  const found: { opcode: number; id: number }[] = []
  for (let at = 0; at + HEADER_BYTES <= stream.length; ) {
    const length = (stream[at + 2]! & 1) === 0 ? 0 : stream.readUInt32LE(at + 12)
    const isWhole = at + HEADER_BYTES + length <= stream.length
    // Too long to be kept: refused as soon as its header is here.
    if (!isWhole && length <= LIMITS.sheepdogPayloadBytesMax) break
    found.push({ opcode: stream[at + 1]!, id: stream.readUInt32LE(at + 8) })
    at += HEADER_BYTES + length
  }
  return found
}

/** How many answers there were. A connection that was closed need not have answered everything. */
function check(wire: Wire, frames: readonly { opcode: number; id: number }[]): number {
  const bytes = Buffer.concat(wire.sent)
  const open = new Map<string, number>()
  for (const { opcode, id } of frames) {
    const key = `${opcode}/${id}`
    open.set(key, (open.get(key) ?? 0) + 1)
  }
  let answers = 0
  for (let at = 0; at < bytes.length; answers++) {
    const key = `${bytes[at + 1]}/${bytes.readUInt32LE(at + 8)}`
    const left = open.get(key) ?? 0
    if (left === 0) throw new Error(`an answer nobody asked for: ${key}`)
    open.set(key, left - 1)
    at += HEADER_BYTES + bytes.readUInt32LE(at + 12)
    if (at > bytes.length) throw new Error('an answer cut short')
  }
  if (!wire.isClosed && answers !== frames.length) {
    throw new Error(`${answers} answers to ${frames.length} requests`)
  }
  return answers
}

function contextOfNobody(): DoorContext {
  const caretaker = { recycling: { isOn: true, users: new VidUsers() } }
  const state = { status: 'ok', epoch: 1 }
  const node = { stats: new Stats(), log: silentLog, state, caretaker }
  return {
    node: node as unknown as DoorContext['node'],
    kill: () => undefined,
    logLevel: { get: () => 6, set: () => true },
    nbd: { records: () => [] },
  }
}

function operations(dice: Dice, late: (() => void)[]): OperationTable {
  const run: Operation['run'] = (_context, request, reply) => {
    decodeEverything(request)
    const length = dice.below(Math.min(request.dataLength, ANSWER_BYTES_MAX) + 1)
    const answer: Parameters<Reply>[0] = { result: 0, body: Buffer.alloc(length) }
    if (dice.below(2) === 0) reply(answer)
    else late.push(() => reply(answer))
  }
  const numbers = Object.values(Op).filter((opcode) => opcode !== Op.HELLO)
  return new Map(numbers.map((opcode) => [opcode, { force: false, run }]))
}

const DECODERS: readonly ((frame: Frame) => unknown)[] = [
  (frame) => {
    const oid = objectFields.oid(frame)
    return [oidKind(oid), oidName(oid), objectBytes(oid, 22), objectFields.cowOid(frame)]
  },
  (frame) => [objectFields.offset(frame), objectFields.targetEpoch(frame)],
  (frame) => isRedundancy(decodeVdiFields(frame)),
  decodeClusterFields,
  (frame) => isRedundancy(decodeVdiStateFields(frame)),
  decodeRefFields,
  decodeForwardFields,
  decodeCheckpointFields,
  decodeListRequest,
  decodeRecycling,
  decodeRecyclingQuestion,
  firstVidOf,
  ({ body }) => decodeOids(body.subarray(0, OIDS_BYTES_MAX)),
  ({ body }) => decodeDiskPaths(body),
  ({ body }) => body.length === ATTRIBUTE_BYTES && decodeAttribute(body),
  ({ body }) => body.length >= RECOVERY_THROTTLING_BYTES && decodeRecoveryThrottling(body),
  ({ body }) => body.length >= NODE_BYTES && decodeNode(body),
  ({ body }) => body.length >= INODE_HEADER_BYTES && readableHeader(body),
]

/** Throws what no decoder may throw. */
function decodeEverything(frame: Frame): void {
  for (const decode of DECODERS) {
    try {
      decode(frame)
    } catch (error) {
      const isPromised = error instanceof MalformedFrame || error instanceof RangeError
      // VDI_READ of an inode nobody can work with is a SheepError with a code of its own.
      if (!isPromised && codeOf(error) === 6) throw error
    }
  }
}
