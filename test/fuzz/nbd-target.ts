/**
 * Mutated conversations for the session of the NBD door, with a volume that answers at once, late and out of order. Whatever
 * the bytes are: nothing is thrown, what the server says can be read to the end, every request is answered exactly once unless it
 * cost the connection, and each volume comes back.
 */

import { BufferPool } from '../../src/base/buffer-pool.js'
import { zeros } from '../../src/base/bytes.js'
import { Code, type Done, SheepError } from '../../src/base/codes.js'
import { silentLog } from '../../src/base/log.js'
import { NbdClient } from '../../src/doors/nbd/connection.js'
import { NO_RULES } from '../../src/doors/nbd/export-rules.js'
import { NbdHall, type Visit } from '../../src/doors/nbd/hall.js'
import type { Extent, Volume, VolumeContext, VolumeSource } from '../../src/volume/volume.js'
import {
  EXTENDED_REPLY_MAGIC,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from '../../src/wire/nbd/constants.js'
import type { Clock, Connection, ConnectionEvents } from '../../src/world/world.js'
import type { Dice } from '../faults/dice.js'
import { lend, u32 } from '../unit/support/nbd-rig.js'
import { chunksOf } from './mutate.js'
import { EXPORT, nbdConversation } from './nbd-frames.js'

const FRAMES_PER_CONNECTION_MAX = 100
const SIZE_BYTES = 262_144
const OBJECT_BYTES = 65_536
/** Turns after which every question of the handshake has been answered. */
const ANSWER_TURNS = 6
const GREETING_BYTES = 18
const OPTION_REPLY_BYTES = 20
const EXPORT_FACTS_BYTES = 10
const EXPORT_NAME_ZEROES = 124

const MAGICS = [SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC].map(u32)

export interface NbdFuzzed {
  readonly connections: number
  readonly replies: number
}

/** Throws an Error that says what was wrong. */
export async function fuzzNbd(dice: Dice, frames: number): Promise<NbdFuzzed> {
  let [sent, connections, replies] = [0, 0, 0]
  while (sent < frames) {
    const count = Math.min(frames - sent, 1 + dice.below(FRAMES_PER_CONNECTION_MAX))
    const done = await oneConnection(dice, count)
    replies += done.replies
    sent += done.frames
    connections++
  }
  return { connections, replies }
}

interface Conversed {
  /** Brought before the connection was over. */
  readonly frames: number
  readonly replies: number
}

async function oneConnection(dice: Dice, frames: number): Promise<Conversed> {
  const late: (() => void)[] = []
  const clock = new FuzzClock()
  const hall = new WatchedHall(clock)
  const connection = new FuzzConnection(late)
  const source = new FuzzSource(dice, late)
  let gone = 0
  const client = new NbdClient({
    ...{ connection, clock, log: silentLog, source, rules: { current: NO_RULES }, hall },
    memory: new BufferPool({ scribble: true }),
    gone: () => void gone++,
  })
  let brought = 0
  for (const frame of nbdConversation(dice, frames)) {
    brought++
    for (const chunk of chunksOf(frame, dice)) {
      if (connection.isOver) break
      if (connection.events !== undefined) lend(connection.events, chunk)
    }
    if (client.exportName === undefined) await turns(clock)
    if (connection.isOver) break
    if (dice.below(3) === 0) complete(late, dice)
    clock.run()
  }
  await turns(clock)
  while (late.length > 0) {
    complete(late, dice)
    clock.run()
  }
  const replies = repliesIn(connection.sent)
  const { operations = [], errors = 0 } = hall.visit?.counters ?? {}
  const asked = operations.reduce((sum, count) => sum + count, errors)
  const isCut = connection.isDestroyed
  if (isCut ? replies > asked : replies !== asked) {
    throw new Error(`${asked} requests, ${replies} replies${isCut ? ', cut' : ''}`)
  }
  connection.vanish()
  await turns(clock)
  if (gone !== 1) throw new Error(`a connection ended ${gone} times`)
  if (source.opens !== source.closes) {
    throw new Error(`${source.opens} volumes opened, ${source.closes} handed back`)
  }
  if (clock.timers > 0) throw new Error('a timer is left')
  if (hall.records(0, 10).some(({ kind }) => kind === 'connection')) {
    throw new Error('a connection that ended is still in the figures')
  }
  return { frames: brought, replies }
}

async function turns(clock: FuzzClock): Promise<void> {
  for (let i = 0; i < ANSWER_TURNS; i++) {
    clock.run()
    await Promise.resolve()
  }
}

/** Some of what waits, in any order. */
function complete(late: (() => void)[], dice: Dice): void {
  for (let count = 1 + dice.below(4); count > 0 && late.length > 0; count--) {
    const [done] = late.splice(dice.below(late.length), 1)
    done?.()
  }
}

/** Counts replies; throws when the stream is none of the protocol's. All data of reads are zero bytes. */
function repliesIn(sent: Buffer): number {
  let at = GREETING_BYTES
  const left = (): number => sent.length - at
  while (left() >= OPTION_REPLY_BYTES && sent.readUInt32BE(at) === 0x0003e889) {
    at += OPTION_REPLY_BYTES + sent.readUInt32BE(at + 16)
  }
  const isExportName = left() >= EXPORT_FACTS_BYTES && sent.readUInt32BE(at) === 0
  if (isExportName) {
    if (sent.readUInt32BE(at + 4) !== SIZE_BYTES) throw new Error(`no size at ${at}`)
    at += EXPORT_FACTS_BYTES
    if (left() > 0 && sent[at] === 0) at += EXPORT_NAME_ZEROES
  }
  let replies = 0
  while (left() > 0) {
    if (left() < 16) throw new Error(`${left()} bytes are no reply`)
    const magic = sent.readUInt32BE(at)
    const isLast = (sent.readUInt16BE(at + 4) & 1) !== 0
    if (magic === SIMPLE_REPLY_MAGIC) {
      replies++
      // Behind it are zeros, or nothing: a magic begins with none.
      const next = MAGICS.map((bytes) => sent.indexOf(bytes, at + 16)).filter((found) => found >= 0)
      const end = Math.min(sent.length, ...next)
      const data = sent.subarray(at + 16, end)
      if (!data.equals(zeros(data.length))) throw new Error(`behind the reply at ${at}: no zeros`)
      at = end
    } else if (magic === STRUCTURED_REPLY_MAGIC) {
      at += 20 + sent.readUInt32BE(at + 16)
      if (isLast) replies++
    } else if (magic === EXTENDED_REPLY_MAGIC) {
      at += 32 + Number(sent.readBigUInt64BE(at + 24))
      if (isLast) replies++
    } else throw new Error(`no reply magic at ${at}: ${magic.toString(16)}`)
  }
  if (left() < 0) throw new Error('the last reply is cut short')
  return replies
}

/** Knows the visit of its one client. */
class WatchedHall extends NbdHall {
  visit: Visit | undefined

  override enter(guest: Parameters<NbdHall['enter']>[0]): Visit {
    this.visit = super.enter(guest)
    return this.visit
  }
}

class FuzzClock implements Clock {
  timers = 0
  #soon: (() => void)[] = []

  now(): number {
    return 0
  }

  monotonic(): number {
    return 0
  }

  after(): () => void {
    let isSet = true
    this.timers++
    return () => {
      if (isSet) this.timers--
      isSet = false
    }
  }

  soon(fn: () => void): void {
    this.#soon.push(fn)
  }

  run(): void {
    while (this.#soon.length > 0) {
      const due = this.#soon
      this.#soon = []
      for (const fn of due) fn()
    }
  }
}

class FuzzConnection implements Connection {
  readonly remote = 'fuzz'
  events: ConnectionEvents | undefined
  isEnded = false
  isDestroyed = false
  readonly #sent: Buffer[] = []
  readonly #late: (() => void)[]

  /** Puts into `late` when bytes that were written may be used again. */
  constructor(late: (() => void)[]) {
    this.#late = late
  }

  on(events: ConnectionEvents): void {
    this.events = events
  }

  write(bytes: Uint8Array, sent?: () => void): boolean {
    return this.writeAll([bytes], sent)
  }

  /** Looks at the bytes when they may no longer change, as a slow kernel does. */
  writeAll(pieces: readonly Uint8Array[], sent?: () => void): boolean {
    const place = this.#sent.length
    this.#sent.push(...pieces.map(() => Buffer.alloc(0)))
    const take = (): void => {
      for (const [i, piece] of pieces.entries()) this.#sent[place + i] = Buffer.from(piece)
      sent?.()
    }
    this.#late.push(take)
    return true
  }

  pause(): void {
    /* The harness brings what there is. */
  }

  resume(): void {
    /* As above. */
  }

  end(): void {
    this.isEnded = true
  }

  destroy(): void {
    this.isDestroyed = true
  }

  get isOver(): boolean {
    return this.isEnded || this.isDestroyed
  }

  get sent(): Buffer {
    return Buffer.concat(this.#sent)
  }

  vanish(): void {
    this.events?.close()
  }
}

class FuzzSource implements VolumeSource {
  opens = 0
  closes = 0
  readonly #dice: Dice
  readonly #late: (() => void)[]

  constructor(dice: Dice, late: (() => void)[]) {
    this.#dice = dice
    this.#late = late
  }

  list(): Promise<(typeof INFO)[]> {
    return Promise.resolve([INFO])
  }

  stat(name: string): Promise<typeof INFO> {
    return name === EXPORT ? Promise.resolve(INFO) : Promise.reject(new SheepError(Code.NO_VDI))
  }

  async open(name: string): Promise<Volume> {
    await this.stat(name)
    this.opens++
    return zeroVolume(
      (done) => this.#end(done),
      () => void this.closes++,
    )
  }

  async contexts(name: string): Promise<string[]> {
    await this.stat(name)
    return ['qemu:allocation-depth']
  }

  context(): Promise<VolumeContext> {
    return Promise.resolve({
      states: ({ length }, _most, done) => done(Code.SUCCESS, [{ length, state: 1 }]),
    })
  }

  #end(done: Done): void {
    if (this.#dice.below(2) === 0) done(Code.SUCCESS)
    else this.#late.push(() => done(Code.SUCCESS))
  }
}

const INFO = {
  ...{ name: EXPORT, sizeBytes: SIZE_BYTES, readOnly: false, description: 'zeros' },
  objectBytes: OBJECT_BYTES,
}

/** Every second object is a hole; whatever is written, zeros are read. It asserts what the gate has promised it. */
function zeroVolume(end: (done: Done) => void, close: () => void): Volume {
  const inside = (offset: number, length: number): void => {
    const isFine = offset >= 0 && length > 0 && offset + length <= SIZE_BYTES
    if (!isFine || !Number.isSafeInteger(offset)) {
      throw new Error(`the gate let ${offset}+${length} pass`)
    }
  }
  return {
    ...{ name: EXPORT, sizeBytes: SIZE_BYTES, readOnly: false, objectBytes: OBJECT_BYTES },
    read: (offset, into, done) => {
      inside(offset, into.length)
      into.fill(0)
      end(done)
    },
    write: (offset, data, _fua, done) => {
      inside(offset, data.length)
      end(done)
    },
    zero: ({ offset, length }, _how, done) => {
      inside(offset, length)
      end(done)
    },
    update: (_range, _decide, _fua, done) => done(Code.NO_SUPPORT),
    discard: ({ offset, length }, _fua, done) => {
      inside(offset, length)
      end(done)
    },
    flush: (done) => end(done),
    extents: ({ offset, length }) => {
      inside(offset, length)
      const found: Extent[] = []
      for (let at = offset; at < offset + length; ) {
        const next = Math.min(offset + length, (Math.floor(at / OBJECT_BYTES) + 1) * OBJECT_BYTES)
        found.push({ length: next - at, hole: Math.floor(at / OBJECT_BYTES) % 2 === 1 })
        at = next
      }
      return found
    },
    owners: () => undefined,
    close: () => {
      close()
      return Promise.resolve()
    },
  }
}
