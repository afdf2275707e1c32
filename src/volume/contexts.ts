/**
 * What can be told of the stretches of a VDI beside their bytes, under the names NBD clients know (`meta contexts`):
 *
 *   qemu:allocation-depth             how many generations back a stretch was written: 1 here, 2 in the parent, ..., 0 nowhere
 *   sheepdog:changed-since/TAG        1 where an object was written or discarded since the snapshot, 0 where none was
 *   qemu:dirty-bitmap:TAG             the same, for clients that ask for bitmaps
 *   sheepdog:changed-blocks-since/TAG the same, refined to 4 KiB by comparing the bytes
 *
 * A snapshot's objects never change, and a write to one makes a new object of another VDI. So an object was changed exactly
 * when its slot names another VDI than the snapshot's slot. Nothing that was acknowledged is left out; while a volume's slots
 * are in doubt everything counts as changed.
 */
import { roundDown, roundUp } from '../base/bytes.js'
import { Code, codeOf, SheepError } from '../base/codes.js'
import type { ObjectAccess, VdiAccess } from '../model/access.js'
import { type InodeHeader, slotsOf } from '../model/inode.js'
import { dataOid, type Vid } from '../model/oid.js'
import { exportsOf, resolveExport } from './export-name.js'
import { spread } from './spread.js'
import type { ByteRange, OwnedExtent, StatusStretch, Volume, VolumeContext } from './volume.js'

const DEPTH = 'qemu:allocation-depth'
const CHANGED = 'sheepdog:changed-since/'
const BITMAP = 'qemu:dirty-bitmap:'
const COMPARED = 'sheepdog:changed-blocks-since/'

const CHANGED_STATE = 1
const UNCHANGED_STATE = 0
const BLOCK_BYTES = 4096
/** Compared for one answer; the client asks again from where it ends. */
const COMPARED_BYTES_MAX = 16 * 1024 * 1024
const COMPARED_AT_ONCE_BYTES = 1024 * 1024
/** Generations a chain of snapshots may have. */
const DEPTH_MAX = 4096

export interface ContextOptions {
  readonly vdis: VdiAccess
  readonly objects: ObjectAccess
}

/** Names of the contexts of an export; snapshots in the order of their export names. */
export async function contextNames({ vdis }: ContextOptions, name: string): Promise<string[]> {
  const header = await vdis.readHeader((await resolveExport(vdis, name)).vid)
  const family = (await vdis.list()).filter((one) => one.name === header.name)
  const tags = exportsOf(family)
    .filter(({ readOnly }) => readOnly)
    .map((snapshot) => snapshot.name.slice(header.name.length + 1))
  return [
    DEPTH,
    ...[CHANGED, BITMAP, COMPARED].flatMap((prefix) => tags.map((tag) => prefix + tag)),
  ]
}

/** Rejects with NO_TAG when there is no such snapshot, or none the volume can be compared with. */
export async function openContext(
  options: ContextOptions,
  volume: Volume,
  contextName: string,
): Promise<VolumeContext> {
  const { vid } = await resolveExport(options.vdis, volume.name)
  const header = await options.vdis.readHeader(vid)
  if (contextName === DEPTH) return new Depth(options, volume, header.name)
  const prefix = [CHANGED, BITMAP, COMPARED].find((one) => contextName.startsWith(one))
  if (prefix === undefined) throw new SheepError(Code.NO_TAG, `no context ${contextName}`)
  const then = await readThen(options, header, contextName.slice(prefix.length))
  const changed = new Changed(volume, then)
  return prefix === COMPARED ? new Compared(options, volume, then, changed) : changed
}

/** The slots of a snapshot. */
type Slots = Uint32Array

async function readThen({ vdis }: ContextOptions, now: InodeHeader, tag: string): Promise<Slots> {
  const { vid, isSnapshot } = await resolveExport(vdis, `${now.name}@${tag}`)
  const then = await vdis.readHeader(vid)
  const fits = isSnapshot && then.storePolicy === 0 && then.blockSizeShift === now.blockSizeShift
  if (!fits) throw new SheepError(Code.NO_TAG, `${now.name} cannot be compared with ${tag}`)
  return vdis.readSlots(vid, slotsOf(then.sizeBytes, then.blockSizeShift))
}

/** Stretches, neighbours of one state merged, until there are as many as wanted. */
class Stretches {
  readonly found: { length: number; readonly state: number }[] = []
  readonly #most: number

  constructor(most: number) {
    this.#most = most
  }

  /** False: there is no room for it. */
  add(length: number, state: number): boolean {
    const last = this.found.at(-1)
    if (last?.state === state) last.length += length
    else if (this.found.length === this.#most) return false
    else this.found.push({ length, state })
    return true
  }
}

class Depth implements VolumeContext {
  readonly #vdis: VdiAccess
  readonly #volume: Volume
  readonly #name: string
  /** Of the VDIs the volume's objects may belong to; of the chain that begins with `#first`. */
  readonly #depths = new Map<Vid, number>()
  #first: Vid | undefined

  constructor({ vdis }: ContextOptions, volume: Volume, name: string) {
    this.#vdis = vdis
    this.#volume = volume
    this.#name = name
  }

  states(range: ByteRange, most: number, done: Parameters<VolumeContext['states']>[2]): void {
    const owners = this.#volume.owners(range)
    if (owners === undefined) {
      done(Code.SUCCESS, [{ length: range.length, state: 1 }])
      return
    }
    this.#learn(owners).then(
      () => {
        const stretches = new Stretches(most)
        owners.every(({ length, vid }) => stretches.add(length, this.#depthOf(vid)))
        done(Code.SUCCESS, stretches.found)
      },
      (error: unknown) => done(codeOf(error), []),
    )
  }

  #depthOf(vid: Vid): number {
    if (vid === 0) return 0
    // Of a generation that was deleted: further back than all that are known.
    return this.#depths.get(vid) ?? this.#depths.size + 1
  }

  /** Walks the chain of parents as far as these owners make necessary. */
  async #learn(owners: readonly OwnedExtent[]): Promise<void> {
    const { vid: first } = await resolveExport(this.#vdis, this.#volume.name)
    if (first !== this.#first) this.#depths.clear()
    this.#first = first
    const unknown = new Set(owners.map(({ vid }) => vid).filter((vid) => vid !== 0))
    for (const vid of this.#depths.keys()) unknown.delete(vid)
    let at: Vid = first
    for (let depth = 1; unknown.size > 0 && at !== 0 && depth <= DEPTH_MAX; depth++) {
      if (!this.#depths.has(at)) this.#depths.set(at, depth)
      unknown.delete(at)
      at = await this.#parentOf(at)
    }
  }

  /** 0 behind the last one there is still an inode of. */
  async #parentOf(vid: Vid): Promise<Vid> {
    try {
      return (await this.#vdis.readHeader(vid)).parent
    } catch (error) {
      if (codeOf(error) === Code.NO_VDI) return 0 as Vid
      throw error
    }
  }
}

class Changed implements VolumeContext {
  readonly #volume: Volume
  readonly #then: Slots

  constructor(volume: Volume, then: Slots) {
    this.#volume = volume
    this.#then = then
  }

  states(range: ByteRange, most: number, done: Parameters<VolumeContext['states']>[2]): void {
    done(Code.SUCCESS, this.stretches(range, most))
  }

  stretches(range: ByteRange, most: number): readonly StatusStretch[] {
    const owners = this.#volume.owners(range)
    if (owners === undefined) return [{ length: range.length, state: CHANGED_STATE }]
    const stretches = new Stretches(most)
    let from = range.offset
    for (const { length, vid } of owners) {
      if (!this.#addOwned({ offset: from, length }, vid, stretches)) break
      from += length
    }
    return stretches.found
  }

  /** Slot by slot: what is one stretch now may have been several then. */
  #addOwned({ offset, length }: ByteRange, vid: Vid, stretches: Stretches): boolean {
    const { objectBytes } = this.#volume
    const until = offset + length
    for (let from = offset; from < until; ) {
      const slot = Math.floor(from / objectBytes)
      const end = Math.min(until, (slot + 1) * objectBytes)
      const state = (this.#then[slot] ?? 0) === vid ? UNCHANGED_STATE : CHANGED_STATE
      if (!stretches.add(end - from, state)) return false
      from = end
    }
    return true
  }
}

class Compared implements VolumeContext {
  readonly #objects: ObjectAccess
  readonly #volume: Volume
  readonly #then: Slots
  readonly #changed: Changed

  constructor({ objects }: ContextOptions, volume: Volume, then: Slots, changed: Changed) {
    this.#objects = objects
    this.#volume = volume
    this.#then = then
    this.#changed = changed
  }

  states(range: ByteRange, most: number, done: Parameters<VolumeContext['states']>[2]): void {
    const stretches = new Stretches(most)
    const queue = [...this.#changed.stretches(range, most)]
    let from = range.offset
    let budget = COMPARED_BYTES_MAX
    const end = (code: Code): void => {
      // What has been found out is an answer, also when the rest cannot be read now.
      if (stretches.found.length > 0) done(Code.SUCCESS, stretches.found)
      else done(code, [])
    }
    const step = (): void => {
      const next = queue.shift()
      if (next === undefined || budget <= 0) {
        end(Code.SUCCESS)
        return
      }
      const length = next.state === UNCHANGED_STATE ? next.length : this.#bite(from, next.length)
      if (length < next.length) queue.unshift({ length: next.length - length, state: next.state })
      const piece = { offset: from, length }
      from += length
      if (next.state === UNCHANGED_STATE) {
        if (stretches.add(length, next.state)) step()
        else end(Code.SUCCESS)
        return
      }
      budget -= length
      this.#compare(piece, (code, differs) => {
        if (code !== Code.SUCCESS || !addBlocks(stretches, piece, differs)) end(code)
        else step()
      })
    }
    step()
  }

  /** Part of one object, up to a border of blocks. */
  #bite(from: number, length: number): number {
    const { objectBytes } = this.#volume
    const inObject = objectBytes - (from % objectBytes)
    const whole = roundDown(from, BLOCK_BYTES) + COMPARED_AT_ONCE_BYTES - from
    return Math.min(length, inObject, whole)
  }

  /** Says of each block of the piece whether it differs; blocks count from the piece's first border. */
  #compare(piece: ByteRange, told: (code: Code, differs: readonly boolean[]) => void): void {
    const now = Buffer.allocUnsafe(piece.length)
    const then = Buffer.alloc(piece.length)
    const readOne = (index: number, done: (code: Code) => void): void => {
      if (index === 0) this.#volume.read(piece.offset, now, done)
      else this.#readThen(piece.offset, then, done)
    }
    spread(2, 2, readOne, (code) => {
      const differs: boolean[] = []
      for (const { at, end } of blocksOf(piece)) {
        differs.push(Buffer.compare(now.subarray(at, end), then.subarray(at, end)) !== 0)
      }
      told(code, differs)
    })
  }

  #readThen(offset: number, into: Buffer, done: (code: Code) => void): void {
    const { objectBytes } = this.#volume
    const slot = Math.floor(offset / objectBytes)
    const vid = (this.#then[slot] ?? 0) as Vid
    if (vid === 0) done(Code.SUCCESS)
    else {
      const ref = this.#objects.ref(dataOid(vid, slot))
      this.#objects.read(ref, offset - slot * objectBytes, into, done)
    }
  }
}

/** Parts of a piece that lie in one block each. */
function* blocksOf({ offset, length }: ByteRange): Generator<{ at: number; end: number }> {
  for (let at = 0; at < length; ) {
    const end = Math.min(length, roundUp(offset + at + 1, BLOCK_BYTES) - offset)
    yield { at, end }
    at = end
  }
}

function addBlocks(stretches: Stretches, piece: ByteRange, differs: readonly boolean[]): boolean {
  let index = 0
  for (const { at, end } of blocksOf(piece)) {
    const state = differs[index++] === true ? CHANGED_STATE : UNCHANGED_STATE
    if (!stretches.add(end - at, state)) return false
  }
  return true
}
