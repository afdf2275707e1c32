/**
 * A volume in memory for tests of doors: a real sparse object map, so that its extents are real,
 * and a tap through which a test delays, reorders or fails what the volume does.
 */
import { Code, type Done, SheepError } from '../../../src/base/codes.js'
import type { Vid } from '../../../src/model/oid.js'
import type {
  ByteRange,
  Decide,
  ExportInfo,
  Extent,
  OwnedExtent,
  Volume,
  VolumeContext,
  VolumeSource,
  ZeroOptions,
} from '../../../src/volume/volume.js'

export const OBJECT_BYTES = 4 * 1024 * 1024

export type Verb = 'read' | 'write' | 'zero' | 'discard' | 'flush'

/**
 * Sees every operation before it happens. `go` does it and completes; a test may call it later, or
 * call `done` with a failure instead.
 */
export type Tap = (verb: Verb, go: () => void, done: Done) => void

export interface MemoryOptions {
  readonly sizeBytes: number
  readonly readOnly?: boolean
  readonly objectBytes?: number
}

const straight: Tap = (_verb, go) => go()

export class MemoryVolume implements Volume {
  readonly name: string
  readonly readOnly: boolean
  readonly objectBytes: number
  sizeBytes: number
  tap: Tap = straight
  /** How often `close` was called. */
  closes = 0
  /** Verbs with their arguments, in order; only when `recording`. */
  readonly calls: string[] = []
  recording = false
  readonly #objects = new Map<number, Buffer>()

  constructor(name: string, options: MemoryOptions) {
    this.name = name
    this.sizeBytes = options.sizeBytes
    this.readOnly = options.readOnly ?? false
    this.objectBytes = options.objectBytes ?? OBJECT_BYTES
  }

  read(offset: number, into: Uint8Array, done: Done): void {
    if (this.recording) this.calls.push(`read ${offset}+${into.length}`)
    if (this.tap === straight) this.#read(offset, into, done)
    else this.tap('read', () => this.#read(offset, into, done), done)
  }

  write(offset: number, data: Uint8Array, fua: boolean, done: Done): void {
    if (this.recording) this.calls.push(`write ${offset}+${data.length}${fua ? ' fua' : ''}`)
    if (this.tap === straight) this.#write(offset, data, done)
    else this.tap('write', () => this.#write(offset, data, done), done)
  }

  zero(range: ByteRange, options: ZeroOptions, done: Done): void {
    const { fua, mayUnmap, fastOnly } = options
    if (this.recording) {
      const how = `${fua ? ' fua' : ''}${mayUnmap ? ' unmap' : ''}${fastOnly ? ' fast' : ''}`
      this.calls.push(`zero ${range.offset}+${range.length}${how}`)
    }
    this.tap('zero', () => this.#zero(range, options, done), done)
  }

  update(range: ByteRange, decide: Decide, fua: boolean, done: Done): void {
    const found = Buffer.alloc(range.length)
    this.read(range.offset, found, (code) => {
      const next = code === Code.SUCCESS ? decide(found) : undefined
      if (next === undefined) done(code)
      else this.write(range.offset, next, fua, done)
    })
  }

  discard(range: ByteRange, fua: boolean, done: Done): void {
    if (this.recording) {
      this.calls.push(`discard ${range.offset}+${range.length}${fua ? ' fua' : ''}`)
    }
    const go = (): void => {
      this.#pieces(range, (index, at, length) => {
        if (at === 0 && length === this.#bytesOf(index)) this.#objects.delete(index)
      })
      done(Code.SUCCESS)
    }
    this.tap('discard', go, done)
  }

  flush(done: Done): void {
    if (this.recording) this.calls.push('flush')
    this.tap('flush', () => done(Code.SUCCESS), done)
  }

  extents(range: ByteRange): Extent[] {
    const found: { length: number; hole: boolean }[] = []
    this.#pieces(range, (index, _at, length) => {
      const hole = !this.#objects.has(index)
      const last = found.at(-1)
      if (last?.hole === hole) last.length += length
      else found.push({ length, hole })
    })
    return found
  }

  /** All objects are of VDI 1. */
  owners(range: ByteRange): OwnedExtent[] {
    return this.extents(range).map(({ length, hole }) => ({ length, vid: (hole ? 0 : 1) as Vid }))
  }

  async close(): Promise<void> {
    this.closes++
  }

  #read(offset: number, into: Uint8Array, done: Done): void {
    let filled = 0
    this.#pieces({ offset, length: into.length }, (index, at, length) => {
      const object = this.#objects.get(index)
      if (object === undefined) into.fill(0, filled, filled + length)
      else object.copy(into, filled, at, at + length)
      filled += length
    })
    done(Code.SUCCESS)
  }

  #write(offset: number, data: Uint8Array, done: Done): void {
    let taken = 0
    this.#pieces({ offset, length: data.length }, (index, at, length) => {
      this.#object(index).set(data.subarray(taken, taken + length), at)
      taken += length
    })
    done(Code.SUCCESS)
  }

  #zero(range: ByteRange, { mayUnmap, fastOnly }: ZeroOptions, done: Done): void {
    let slow = !mayUnmap
    this.#pieces(range, (index, _at, length) => {
      if (length !== this.#bytesOf(index) && this.#objects.has(index)) slow = true
    })
    if (fastOnly && slow) {
      done(Code.NO_SUPPORT)
      return
    }
    this.#pieces(range, (index, at, length) => {
      if (mayUnmap && length === this.#bytesOf(index)) this.#objects.delete(index)
      else if (!mayUnmap || this.#objects.has(index)) this.#object(index).fill(0, at, at + length)
    })
    done(Code.SUCCESS)
  }

  #object(index: number): Buffer {
    let object = this.#objects.get(index)
    if (object === undefined) {
      object = Buffer.alloc(this.objectBytes)
      this.#objects.set(index, object)
    }
    return object
  }

  #bytesOf(index: number): number {
    return Math.min(this.objectBytes, this.sizeBytes - index * this.objectBytes)
  }

  #pieces(
    { offset, length }: ByteRange,
    visit: (index: number, at: number, length: number) => void,
  ): void {
    if (offset < 0 || offset + length > this.sizeBytes) throw new Error('outside of the volume')
    let from = offset
    while (from < offset + length) {
      const index = Math.floor(from / this.objectBytes)
      const at = from - index * this.objectBytes
      const count = Math.min(this.objectBytes - at, offset + length - from)
      visit(index, at, count)
      from += count
    }
  }
}

/** Serves the volumes it was given; opens are counted, and fail as told. */
export class MemorySource implements VolumeSource {
  readonly volumes: readonly MemoryVolume[]
  opens = 0
  /** Awaited before each open and stat: lets a test hold a lookup. */
  hold: Promise<void> = Promise.resolve()
  /** Thrown by the next opens when set. */
  refusal: Error | undefined

  constructor(...volumes: MemoryVolume[]) {
    this.volumes = volumes
  }

  async list(): Promise<ExportInfo[]> {
    return this.volumes.map(infoOf)
  }

  async contexts(name: string): Promise<string[]> {
    await this.stat(name)
    return ['test:odd', 'test:tags/a', 'test:tags/b']
  }

  /** `test:odd`: 1 for every second object; the others say the length of their name once. */
  async context(volume: Volume, contextName: string): Promise<VolumeContext> {
    if (this.refusal !== undefined) throw this.refusal
    const { objectBytes } = volume
    return {
      states: ({ offset, length }, most, done) => {
        if (contextName !== 'test:odd') {
          done(Code.SUCCESS, [{ length, state: contextName.length }])
          return
        }
        const stretches: { length: number; state: number }[] = []
        for (let at = offset; at < offset + length && stretches.length < most; ) {
          const object = Math.floor(at / objectBytes)
          const end = Math.min(offset + length, (object + 1) * objectBytes)
          stretches.push({ length: end - at, state: object % 2 })
          at = end
        }
        done(Code.SUCCESS, stretches)
      },
    }
  }

  async stat(name: string): Promise<ExportInfo & { readonly objectBytes: number }> {
    await this.hold
    const volume = this.#find(name)
    return { ...infoOf(volume), objectBytes: volume.objectBytes }
  }

  async open(name: string): Promise<Volume> {
    await this.hold
    if (this.refusal !== undefined) throw this.refusal
    const volume = this.#find(name)
    this.opens++
    return volume
  }

  #find(name: string): MemoryVolume {
    const volume = this.volumes.find((each) => each.name === name)
    if (volume === undefined) throw new SheepError(Code.NO_VDI)
    return volume
  }
}

function infoOf(volume: MemoryVolume): ExportInfo {
  const { name, sizeBytes, readOnly } = volume
  return { name, sizeBytes, readOnly, description: readOnly ? 'a snapshot' : 'a disk' }
}
