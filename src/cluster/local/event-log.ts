/**
 * The shared event log: files `events.1`, `events.2`, ... of which only the newest grows.
 *
 * Appending happens under the cluster's lock, reading does not need it. A segment is closed for ever
 * the moment the next one exists; it starts with a snapshot, made from the end of the one before it,
 * so every writer would write the same bytes and an unfinished one can be finished by anybody. A torn
 * record (its writer was killed) is never overwritten: the next writer leaves it behind and starts
 * a new segment. All calls are synchronous, so nobody waits for anything with the lock in hand.
 */
import type { Files, OpenFile } from '../../world/world.js'
import {
  applyRecord,
  type ClusterEvent,
  type ClusterState,
  EMPTY_CLUSTER,
  type Entry,
  everybody,
  type MemberId,
} from '../membership.js'
import { decodeRecord, decodeSnapshot, encodeRecord, encodeSnapshot } from './record.js'

/** A segment that is larger gets a successor before the next record. */
const SEGMENT_BYTES_MAX = 1024 * 1024
/** No segment we write is larger: a snapshot and a record more than the aim. */
const FILE_BYTES_MAX = 8 * 1024 * 1024
/** Segments kept for members that have not read them; one further behind is lost. */
const SEGMENTS_KEPT_MAX = 16

/** The log cannot be followed any more; `message` says why. */
export class LogDamaged extends Error {}

export type LogFiles = Pick<Files, 'open' | 'readFile' | 'exists'>

interface Segment {
  readonly number: number
  readonly path: string
  readonly file: OpenFile
}

export class EventLog {
  readonly #files: LogFiles
  readonly #directory: string
  #segment: Segment
  #position: number
  /** Bytes of the segment's snapshot; it does not count against the segment's size. */
  #start: number
  #state: ClusterState

  private constructor(at: { files: LogFiles; directory: string; start: Start }) {
    this.#files = at.files
    this.#directory = at.directory
    this.#segment = at.start.segment
    this.#position = at.start.position
    this.#start = at.start.position
    this.#state = at.start.state
  }

  /**
   * Opens the log at its end; `newest` is the highest segment there is. Under the lock.
   * Undefined when neither it nor the one before it can be read (the machine crashed).
   */
  static open(files: LogFiles, directory: string, newest: number): EventLog | undefined {
    for (const number of [newest, newest - 1]) {
      if (number < 1 || !files.exists(segmentPath(directory, number))) continue
      const start = openSegment(files, directory, number)
      if (start === undefined) continue
      const log = new EventLog({ files, directory, start })
      log.catchUp()
      log.#makeAppendable()
      return log
    }
    return undefined
  }

  /** Starts an empty log with segment `number`. Under the lock, with nobody else in the cluster. */
  static create(files: LogFiles, directory: string, number: number): EventLog {
    return new EventLog({
      files,
      directory,
      start: writeSegment(files, directory, number, EMPTY_CLUSTER),
    })
  }

  get state(): ClusterState {
    return this.#state
  }

  /** Number of the segment being read. */
  get segment(): number {
    return this.#segment.number
  }

  /** Segments below this one are read by nobody any more. */
  get keepFrom(): number {
    const read = everybody(this.#state).map((member) => member.mark)
    const unread = Math.min(this.segment, ...read)
    return Math.min(this.segment - 1, Math.max(unread, this.segment - SEGMENTS_KEPT_MAX))
  }

  /** Applies what others have appended. Throws LogDamaged or an errno error. */
  catchUp(): ClusterEvent[] {
    const events: ClusterEvent[] = []
    for (;;) {
      this.#readRecords(events)
      const next = this.segment + 1
      if (!this.#files.exists(segmentPath(this.#directory, next))) {
        this.#checkPresence()
        return events
      }
      // Nobody appends to this one any more; something may have come before its successor did.
      this.#readRecords(events)
      const start = openSegment(this.#files, this.#directory, next)
      if (start === undefined) return events
      this.#enter(start)
    }
  }

  /** Under the lock, before the first `append`: catches up and makes the end fit to append to. */
  prepare(): ClusterEvent[] {
    const events = this.catchUp()
    this.#makeAppendable()
    return events
  }

  /** Under the lock, after `prepare`. Appends and applies one record. Throws an errno error. */
  append(sender: MemberId, entry: Entry): readonly ClusterEvent[] {
    if (this.#position - this.#start > SEGMENT_BYTES_MAX) this.#rotate()
    const record = { seq: this.#state.nextSeq, sender, entry }
    const bytes = encodeRecord(record)
    this.#segment.file.writeNow(bytes, this.#position)
    this.#position += bytes.length
    const { state, events } = applyRecord(this.#state, record)
    this.#state = state
    return events
  }

  close(): void {
    this.#segment.file.close()
  }

  /**
   * Segments are removed oldest first, so while this one is there its successors are too, and "no
   * successor" means the end. Checked after looking for the successor, not before.
   */
  #checkPresence(): void {
    if (!this.#files.exists(this.#segment.path)) {
      throw new LogDamaged(`${this.#segment.path} was removed before this node had read on`)
    }
  }

  #readRecords(events: ClusterEvent[]): void {
    const bytes = readFrom(this.#files, this.#segment, this.#position)
    let at = 0
    for (;;) {
      const decoded = decodeRecord(bytes, at, this.#state.nextSeq)
      if (decoded === undefined) break
      at += decoded.bytes
      const applied = applyRecord(this.#state, decoded.value)
      this.#state = applied.state
      for (const event of applied.events) events.push(event)
    }
    this.#position += at
  }

  #enter(start: Start): void {
    if (!encodeSnapshot(start.state).equals(encodeSnapshot(this.#state))) {
      start.segment.file.close()
      throw new LogDamaged(`${start.segment.path} does not continue what this node has seen`)
    }
    this.#segment.file.close()
    this.#segment = start.segment
    this.#position = start.position
    this.#start = start.position
  }

  /** A torn end, or a successor whose snapshot is unfinished, is left behind by a new segment. */
  #makeAppendable(): void {
    const unfinished = this.#files.exists(segmentPath(this.#directory, this.segment + 1))
    if (unfinished || this.#segment.file.size() > this.#position) this.#rotate()
  }

  #rotate(): void {
    this.#enter(writeSegment(this.#files, this.#directory, this.segment + 1, this.#state))
  }
}

export function segmentPath(directory: string, number: number): string {
  return `${directory}/events.${number}`
}

/** Number of a segment by its file name; undefined for other files. */
export function segmentNumber(name: string): number | undefined {
  const match = /^events\.([1-9]\d{0,14})$/.exec(name)
  return match === null ? undefined : Number(match[1])
}

interface Start {
  readonly segment: Segment
  /** Where the records begin. */
  readonly position: number
  readonly state: ClusterState
}

/** Undefined when its snapshot is not complete. */
function openSegment(files: LogFiles, directory: string, number: number): Start | undefined {
  const path = segmentPath(directory, number)
  const segment = { number, path, file: files.open(path, { write: true }) }
  const snapshot = decodeSnapshot(readFrom(files, segment, 0))
  if (snapshot === undefined) {
    segment.file.close()
    return undefined
  }
  return { segment, position: snapshot.bytes, state: snapshot.value }
}

function writeSegment(
  files: LogFiles,
  directory: string,
  number: number,
  state: ClusterState,
): Start {
  const path = segmentPath(directory, number)
  const file = files.open(path, { write: true, create: true })
  const snapshot = encodeSnapshot(state)
  file.writeNow(snapshot, 0)
  return { segment: { number, path, file }, position: snapshot.length, state }
}

/** What is behind `position` now. */
function readFrom(files: LogFiles, { path, file }: Segment, position: number): Buffer {
  const size = file.size()
  if (size > FILE_BYTES_MAX) throw new LogDamaged(`${path} is too long to be an event log`)
  if (size <= position) return Buffer.alloc(0)
  const into = Buffer.allocUnsafe(size - position)
  const count = file.readNow(into, position)
  // Not in the page cache, or this file system cannot tell: read it whole, it is small.
  if (count < 0) return files.readFile(path).subarray(position)
  return into.subarray(0, count)
}
