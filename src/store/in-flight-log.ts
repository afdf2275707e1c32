/**
 * Which objects have writes in flight, on disk: after a crash their copies may differ from those of other
 * nodes. A file of fixed slots beside sheepdog 1.0's files in the meta directory, full length from the
 * beginning, so that a full disk cannot keep an object out of it.
 *
 * A slot is an object id, its CRC-32 and four zero bytes; all zero is an empty one. An id is written and synced
 * before the first write to the object may touch the disk. Nobody waits for it to be taken out: one that comes back
 * after a power cut costs a comparison.
 */
import { Code, type Done } from '../base/codes.js'
import { crc32 } from '../base/crc32.js'
import type { Log } from '../base/log.js'
import type { Oid } from '../model/oid.js'
import type { Files, OpenFile } from '../world/world.js'
import { codeOfErrno } from './errno.js'
import { readAt, syncFile } from './file-io.js'
import { SharedSync } from './shared-sync.js'

const FILE = 'in-flight'
const SLOT_BYTES = 16
/**
 * Objects that may have writes in flight at once on one node. Random writes to 256 GiB fit with objects of 4 MiB; the
 * file is 1 MiB.
 */
const SLOTS = 65_536

export interface InFlightLogOptions {
  readonly files: Files
  readonly log: Log
  readonly metaDirectory: string
  /** False: never synced (`sheep -n`). */
  readonly durable: boolean
  /** SLOTS when not given. */
  readonly slots?: number
}

interface Waiting {
  readonly oid: Oid
  readonly done: Done
}

/** Opens the file, or makes it. Rejects with errno errors. */
export async function openInFlightLog(options: InFlightLogOptions): Promise<InFlightLog> {
  const { files, metaDirectory, slots = SLOTS } = options
  const path = `${metaDirectory}/${FILE}`
  const bytes = slots * SLOT_BYTES
  const isNew = !files.exists(path)
  const file = files.open(path, { write: true, create: isNew })
  const content = Buffer.alloc(Math.max(bytes, file.size()))
  await readAt(file, content, 0)
  if (file.size() < bytes) {
    await file.allocate(bytes)
    await syncFile(file)
  }
  if (isNew) await files.syncDir(metaDirectory)
  return new InFlightLog(file, content, options)
}

export class InFlightLog {
  /** What was in the file when it was opened: not finished by an earlier process. */
  readonly found: readonly Oid[]
  readonly #file: OpenFile
  readonly #log: Log
  readonly #durable: boolean
  readonly #sync: SharedSync
  readonly #slots = new Map<Oid, number>()
  readonly #free: number[] = []
  #waiting: Waiting[] = []
  #closed = false

  constructor(file: OpenFile, content: Buffer, { log, durable }: InFlightLogOptions) {
    this.#file = file
    this.#log = log
    this.#durable = durable
    this.#sync = new SharedSync((done) => file.sync(done))
    for (let slot = Math.floor(content.length / SLOT_BYTES) - 1; slot >= 0; slot--) {
      const at = slot * SLOT_BYTES
      const oid = content.readBigUInt64LE(at) as Oid
      const isWhole = crc32(content.subarray(at, at + 8)) === content.readUInt32LE(at + 8)
      // A torn slot was not durable yet, so nothing has been written under it.
      if (oid === 0n || !isWhole || this.#slots.has(oid)) this.#free.push(slot)
      else this.#slots.set(oid, slot)
    }
    this.found = [...this.#slots.keys()]
  }

  /** True when there is little room left: what is not needed any more should go now. */
  get isTight(): boolean {
    return this.#free.length * 4 < this.#slots.size
  }

  /** `done` once the object is in the file for good; it waits while all slots are taken. */
  add(oid: Oid, done: Done): void {
    if (this.#closed) {
      done(Code.SHUTDOWN)
      return
    }
    if (!this.#slots.has(oid)) {
      const slot = this.#free.pop()
      if (slot === undefined) {
        this.#waiting.push({ oid, done })
        return
      }
      try {
        this.#file.writeNow(slotOf(oid), slot * SLOT_BYTES)
      } catch (error) {
        this.#free.push(slot)
        this.#failed(error, done)
        return
      }
      this.#slots.set(oid, slot)
      this.#sync.touch()
    }
    if (!this.#durable || (this.#sync.current && !this.#sync.busy)) {
      done(Code.SUCCESS)
      return
    }
    this.#sync.request((error) => {
      if (error === null) {
        done(Code.SUCCESS)
        return
      }
      // Pages of a failed sync may be lost: the next one to come writes its slot again.
      this.remove(oid)
      this.#failed(error, done)
    })
  }

  /** The object's copies are equal and on stable storage, as far as this node is concerned. */
  remove(oid: Oid): void {
    const slot = this.#slots.get(oid)
    if (slot === undefined || this.#closed) return
    this.#slots.delete(oid)
    this.#free.push(slot)
    try {
      this.#file.writeNow(Buffer.alloc(SLOT_BYTES), slot * SLOT_BYTES)
    } catch (error) {
      // It stays on disk: compared once more after a crash.
      this.#log.warn('in-flight.not-removed', { reason: String(error) })
    }
    this.#sync.touch()
    const next = this.#waiting.shift()
    if (next !== undefined) this.add(next.oid, next.done)
  }

  /** Makes what was taken out durable as well, so that a power cut does not bring it back. */
  tidy(): void {
    if (this.#closed || !this.#durable || this.#sync.current) return
    this.#sync.request((error) => {
      if (error !== null) this.#log.warn('in-flight.not-tidied', { reason: String(error) })
    })
  }

  /** Nothing here counts any more: the cluster is formatted, or all objects are out of date. */
  async clear(): Promise<void> {
    for (const oid of [...this.#slots.keys()]) this.remove(oid)
    if (this.#closed || !this.#durable) return
    await syncFile(this.#file)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const { done } of this.#waiting.splice(0)) done(Code.SHUTDOWN)
    this.#file.close()
  }

  #failed(error: unknown, done: Done): void {
    this.#log.error('in-flight.not-recorded', { reason: String(error) })
    done(codeOfErrno(error))
  }
}

function slotOf(oid: Oid): Buffer {
  const bytes = Buffer.alloc(SLOT_BYTES)
  bytes.writeBigUInt64LE(oid)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 8)), 8)
  return bytes
}
