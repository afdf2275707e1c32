/**
 * An object that comes from other nodes: as a whole when it fits one request, else piece by piece into a file that
 * nobody sees before all of it is there. The pieces are of one epoch and one place each; what is written meanwhile waits
 * at this node until the object is here, and overwrites whatever of it some pieces had already.
 */
import { Code } from '../../base/codes.js'
import { LIMITS } from '../../base/limits.js'
import type { StoredId } from '../../model/oid.js'
import type { ObjectStore } from '../../store/object-store.js'

/** A part of an object. */
export interface Part {
  readonly offset: number
  readonly length: number
}

export interface Collection {
  readonly store: Pick<ObjectStore, 'create' | 'assemble'>
  readonly id: StoredId
  readonly bytes: number
  /** Exactly the part, or why it is not to be had. */
  readonly read: (part: Part) => Promise<Uint8Array | Code>
  /** Asked before the object takes its place; false: NETWORK_ERROR, and nothing happens. */
  readonly stillWanted: () => boolean
}

/** `theirs`: what reading the pieces gave. `ours`: what this node's disk said, once everything was read. */
export type Collected = { readonly theirs: Code } | { readonly ours: Code }

export function* partsOf(bytes: number): Generator<Part> {
  for (let offset = 0; offset < bytes; offset += LIMITS.pieceBytesMax) {
    yield { offset, length: Math.min(LIMITS.pieceBytesMax, bytes - offset) }
  }
}

export async function collect(collection: Collection): Promise<Collected> {
  const { bytes, read } = collection
  // Nobody takes space for what is not there to be had.
  const first = await read({ offset: 0, length: Math.min(LIMITS.pieceBytesMax, bytes) })
  if (typeof first === 'number') return { theirs: first }
  return first.length === bytes ? createWhole(collection, first) : putTogether(collection, first)
}

async function createWhole(collection: Collection, data: Uint8Array): Promise<Collected> {
  const { store, id, bytes, stillWanted } = collection
  const ours = await new Promise<Code>((resolve) => {
    store.create({ id, bytes, offset: 0, data, stillWanted }, resolve)
  })
  return { ours }
}

async function putTogether(collection: Collection, first: Uint8Array): Promise<Collected> {
  const { store, id, bytes, read, stillWanted } = collection
  const assembly = await store.assemble(id, bytes)
  if (typeof assembly === 'number') return { ours: assembly }
  for (const part of partsOf(bytes)) {
    const data = part.offset === 0 ? first : await read(part)
    if (typeof data === 'number' || !stillWanted()) {
      await assembly.abandon()
      // It was there a moment ago: that it is not any more says nothing about earlier epochs.
      const isGone = data === Code.NO_OBJ || typeof data !== 'number'
      return { theirs: isGone ? Code.NETWORK_ERROR : data }
    }
    const ours = await assembly.write(part.offset, data)
    if (ours !== Code.SUCCESS) {
      await assembly.abandon()
      return { ours }
    }
  }
  return { ours: await assembly.finish(stillWanted) }
}
