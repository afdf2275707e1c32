/**
 * A VDI or a snapshot as a block device. Every door serves these and knows nothing below them.
 *
 * Completion: each operation calls `done` exactly once, possibly before the call returns. Buffers
 * handed in are borrowed until then. Offsets and lengths are bytes, any alignment, inside
 * [0, size); the door's gate has checked that.
 */
import type { Code, Done } from '../base/codes.js'
import type { Vid } from '../model/oid.js'

export interface Extent {
  readonly length: number
  /** A hole: nothing is allocated, it reads as zeros. */
  readonly hole: boolean
}

/** A stretch whose objects all belong to one VDI of the family; `vid` 0: a hole. */
export interface OwnedExtent {
  readonly length: number
  readonly vid: Vid
}

/** A stretch in the eyes of one meta context (NBD document, "Metadata querying"). */
export interface StatusStretch {
  readonly length: number
  readonly state: number
}

/** Something that can be told of the stretches of a volume beside their bytes. */
export interface VolumeContext {
  /**
   * `done` gets what is known from the beginning of the range on: at least one stretch, at most `most`, neighbours merged.
   * They may end before the range does.
   */
  states(
    range: ByteRange,
    most: number,
    done: (code: Code, stretches: readonly StatusStretch[]) => void,
  ): void
}

export interface ByteRange {
  readonly offset: number
  readonly length: number
}

export interface ZeroOptions {
  /** Durable on every copy before `done`. */
  readonly fua: boolean
  /** Give space back where whole objects become zero; otherwise everything stays allocated. */
  readonly mayUnmap: boolean
  /** Refuse with NO_SUPPORT when it would cost as much as writing zeros. */
  readonly fastOnly: boolean
}

/** What a range becomes; undefined: it stays. */
export type Decide = (found: Buffer) => Uint8Array | undefined

export interface Volume {
  /** As asked for: `Alice`, `Alice@tag`, `Alice@1`. */
  readonly name: string
  /** Bytes. Grows when the VDI is resized. */
  readonly sizeBytes: number
  readonly readOnly: boolean
  /** Bytes of one object: the granularity of allocation, and the preferred size of big requests. */
  readonly objectBytes: number

  /** Fills `into` from `offset`. */
  read(offset: number, into: Uint8Array, done: Done): void
  /** `fua`: durable on every copy before `done`. */
  write(offset: number, data: Uint8Array, fua: boolean, done: Done): void
  zero(range: ByteRange, options: ZeroOptions, done: Done): void
  /**
   * Reads the range and writes what `decide` makes of it, as one step: no other change of these bytes through the same
   * volume comes between, whoever makes it. `decide` may keep nothing of what it gets; it returns as many bytes, or
   * undefined to leave the range as it is, and is asked again when nothing could be written yet. A power cut may leave
   * a part of it written, as of `write`.
   */
  update(range: ByteRange, decide: Decide, fua: boolean, done: Done): void
  /** Gives whole objects inside the range back; the rest of the range stays as it is. */
  discard(range: ByteRange, fua: boolean, done: Done): void
  /** Every write completed before this call is durable on every copy before `done`. */
  flush(done: Done): void
  /** Allocation of the range, in order, neighbours merged; lengths add up to the range's. */
  extents(range: ByteRange): Extent[]
  /** Whose objects the range is made of; undefined while that is in doubt. */
  owners(range: ByteRange): OwnedExtent[] | undefined
  /** Hands the volume back; the last user's close flushes and releases the lock. */
  close(): Promise<void>
}

export interface ExportInfo {
  readonly name: string
  readonly sizeBytes: number
  readonly readOnly: boolean
  readonly description: string
}

/** Where a door gets its volumes. */
export interface VolumeSource {
  list(): Promise<ExportInfo[]>
  /** Looks without opening or locking. Rejects with a SheepError (NO_VDI, NO_TAG, ...). */
  stat(name: string): Promise<ExportInfo & { readonly objectBytes: number }>
  /**
   * Opens for reading and writing (snapshots: reading only). Several opens in one process share
   * the volume. Rejects with a SheepError; VDI_LOCKED when another node has it open for writing.
   */
  open(name: string): Promise<Volume>
  /** Names of the contexts an export has beside its allocation. Rejects as `stat`. */
  contexts(name: string): Promise<string[]>
  /** One of `contexts` of a volume this source has opened. Rejects with NO_TAG when it is gone. */
  context(volume: Volume, contextName: string): Promise<VolumeContext>
}
