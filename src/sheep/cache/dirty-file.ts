/**
 * What is dirty in the cache of one volume, on disk: the file `dirty` beside the volume's cached objects. It is kept
 * in the page cache, which a process that dies leaves behind, and a power cut does not: so it names the boot
 * of the machine it was written in, and counts only in the same one, unless it and the objects were synced.
 *
 *   magic u32 | version u32 | ctime u64 | epoch u32 | block size shift u32 | synced u32 | 0 u32 | boot 40      72 bytes
 *   then records of 16: index u32 | 1 u32 (0: none) | dirty blocks 8
 */
import { readCString, writeCString } from '../../base/bytes.js'
import { readAt, syncFile } from '../../store/file-io.js'
import type { Files, OpenFile } from '../../world/world.js'
import { BLOCK_SET_BYTES, BlockSet } from './blocks.js'

const MAGIC = 0x63616368
const VERSION = 1
const HEAD_BYTES = 72
const BOOT_OFFSET = 32
const BOOT_BYTES = 40
const RECORD_BYTES = 8 + BLOCK_SET_BYTES
/** As many objects as a volume can have. */
const RECORDS_MAX = 1 << 20

export interface DirtyHead {
  /** Of the cluster: its format. */
  readonly ctime: bigint
  /** Newest epoch in which this node had the right to cache the volume. */
  readonly epoch: number
  readonly blockSizeShift: number
  /** Everything was synced: the machine may have been started anew since. */
  readonly synced: boolean
  /** Which start of the machine; '' when that is not known. */
  readonly boot: string
}

/** What an earlier process left. */
export interface DirtyFound {
  readonly head: DirtyHead
  /** Dirty blocks by the object's index. */
  readonly objects: ReadonlyMap<number, BlockSet>
}

function encodeHead(head: DirtyHead): Buffer {
  const bytes = Buffer.alloc(HEAD_BYTES)
  bytes.writeUInt32LE(MAGIC, 0)
  bytes.writeUInt32LE(VERSION, 4)
  bytes.writeBigUInt64LE(head.ctime, 8)
  bytes.writeUInt32LE(head.epoch, 16)
  bytes.writeUInt32LE(head.blockSizeShift, 20)
  bytes.writeUInt32LE(head.synced ? 1 : 0, 24)
  writeCString(bytes, BOOT_OFFSET, BOOT_BYTES, head.boot)
  return bytes
}

function encodeRecord(index: number, dirty: BlockSet): Buffer {
  const record = Buffer.alloc(RECORD_BYTES)
  record.writeUInt32LE(index, 0)
  record.writeUInt32LE(1, 4)
  record.set(dirty.bits, 8)
  return record
}

/** Undefined: no file of ours, or one that was cut short. */
export function decodeDirty(bytes: Buffer): DirtyFound | undefined {
  if (bytes.length < HEAD_BYTES || bytes.readUInt32LE(0) !== MAGIC) return undefined
  if (bytes.readUInt32LE(4) !== VERSION) return undefined
  const objects = new Map<number, BlockSet>()
  for (let at = HEAD_BYTES; at + RECORD_BYTES <= bytes.length; at += RECORD_BYTES) {
    if (bytes.readUInt32LE(at + 4) !== 1) continue
    const blocks = new BlockSet(bytes.subarray(at + 8, at + RECORD_BYTES))
    if (!blocks.isEmpty) objects.set(bytes.readUInt32LE(at), blocks)
  }
  const head = {
    ctime: bytes.readBigUInt64LE(8),
    epoch: bytes.readUInt32LE(16),
    blockSizeShift: bytes.readUInt32LE(20),
    synced: bytes.readUInt32LE(24) !== 0,
    boot: readCString(bytes, BOOT_OFFSET, BOOT_BYTES),
  }
  return { head, objects }
}

/** Rejects with errno errors; undefined when the file is none of ours. */
export async function readDirty(files: Files, path: string): Promise<DirtyFound | undefined> {
  const file = files.open(path, {})
  try {
    const bytes = Buffer.alloc(Math.min(file.size(), HEAD_BYTES + RECORDS_MAX * RECORD_BYTES))
    return decodeDirty(bytes.subarray(0, await readAt(file, bytes, 0)))
  } finally {
    file.close()
  }
}

export class DirtyFile {
  readonly #file: OpenFile
  readonly #slots: Map<number, number>
  readonly #free: number[] = []
  #head: DirtyHead

  private constructor(file: OpenFile, head: DirtyHead, indexes: Iterable<number>) {
    this.#file = file
    this.#head = head
    this.#slots = new Map([...indexes].map((index, slot) => [index, slot]))
  }

  /** Replaces the file by one with what `objects` has, or leaves it as it was. Rejects with errno errors. */
  static async make(files: Files, path: string, { head, objects }: DirtyFound): Promise<DirtyFile> {
    const records = [...objects].map(([index, blocks]) => encodeRecord(index, blocks))
    await files.writeFileAtomic(path, Buffer.concat([encodeHead(head), ...records]))
    return new DirtyFile(files.open(path, { write: true }), head, objects.keys())
  }

  /** Before the write that makes them so is acknowledged. None: the object is clean. Throws errno errors. */
  note(index: number, dirty: BlockSet): void {
    if (dirty.isEmpty) {
      this.#forget(index)
      return
    }
    const slot = this.#slots.get(index) ?? this.#free.pop() ?? this.#slots.size
    this.#slots.set(index, slot)
    this.#file.writeNow(encodeRecord(index, dirty), HEAD_BYTES + slot * RECORD_BYTES)
  }

  /** Changes the head; throws errno errors. */
  stamp(change: Partial<DirtyHead>): void {
    this.#head = { ...this.#head, ...change }
    this.#file.writeNow(encodeHead(this.#head), 0)
  }

  sync(): Promise<void> {
    return syncFile(this.#file)
  }

  close(): void {
    this.#file.close()
  }

  #forget(index: number): void {
    const slot = this.#slots.get(index)
    if (slot === undefined) return
    this.#slots.delete(index)
    this.#free.push(slot)
    this.#file.writeNow(Buffer.alloc(RECORD_BYTES), HEAD_BYTES + slot * RECORD_BYTES)
  }
}
