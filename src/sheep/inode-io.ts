/** Inodes as objects in the cluster: the reads and writes that volume operations are made of. */
import { Code, SheepError } from '../base/codes.js'
import {
  decodeInodeHeader,
  encodeInodeHeader,
  INODE_HEADER_BYTES,
  type InodeHeader,
  REF_BYTES,
  type Ref,
  refRange,
  SLOT_BYTES,
  SLOTS_OFFSET,
  slotArray,
} from '../model/inode.js'
import { inodeOid, oidName, type Vid } from '../model/oid.js'
import { isPossiblePolicy } from '../model/policy.js'
import type { Gateway } from './gateway.js'

/** Clients write headers: they may say anything. Throws VDI_READ for what no volume can be. */
export function readableHeader(bytes: Buffer): InodeHeader {
  try {
    const header = decodeInodeHeader(bytes)
    if (isPossiblePolicy(header.policy)) return header
    throw new RangeError(`impossible copy policy 0x${header.policy.toString(16)}`)
  } catch (error) {
    if (error instanceof RangeError) throw new SheepError(Code.VDI_READ, error.message)
    throw error
  }
}

export class InodeIo {
  readonly #gateway: Gateway

  constructor(gateway: Gateway) {
    this.#gateway = gateway
  }

  /** Undefined when there is no such inode; rejects when it cannot be read. */
  async read(vid: Vid, offset: number, length: number): Promise<Buffer | undefined> {
    const into = Buffer.alloc(length)
    const ref = this.#gateway.ref(inodeOid(vid))
    const code = await new Promise<Code>((resolve) =>
      this.#gateway.read(ref, offset, into, resolve),
    )
    if (code === Code.NO_OBJ) return undefined
    if (code !== Code.SUCCESS) throw new SheepError(code)
    return into
  }

  async header(vid: Vid): Promise<InodeHeader | undefined> {
    const bytes = await this.read(vid, 0, INODE_HEADER_BYTES)
    return bytes === undefined ? undefined : readableHeader(bytes)
  }

  /** As `header`; an absent inode is VDI_READ. */
  async mustHeader(vid: Vid): Promise<InodeHeader> {
    const header = await this.header(vid)
    if (header === undefined) throw new SheepError(Code.VDI_READ)
    return header
  }

  async readSlots(vid: Vid, count: number): Promise<Uint32Array> {
    const bytes = await this.read(vid, SLOTS_OFFSET, count * SLOT_BYTES)
    if (bytes === undefined) throw new SheepError(Code.VDI_READ)
    return slotArray(bytes)
  }

  async readRefs(vid: Vid, count: number): Promise<Ref[]> {
    const { offset, length } = refRange(0, count)
    const bytes = await this.read(vid, offset, length)
    if (bytes === undefined) throw new SheepError(Code.VDI_READ)
    return Array.from({ length: count }, (_, i) => ({
      generation: bytes.readInt32LE(REF_BYTES * i),
      count: bytes.readInt32LE(REF_BYTES * i + 4),
    }))
  }

  /** An inode that exists and whose name has not been blanked. */
  async isLiving(vid: Vid): Promise<boolean> {
    const first = await this.read(vid, 0, 1)
    return first !== undefined && first[0] !== 0
  }

  /** Durable on every copy when it resolves; rejects with `failure`'s code or a more telling one. */
  async write(vid: Vid, offset: number, data: Buffer): Promise<void> {
    const ref = this.#gateway.ref(inodeOid(vid))
    const code = await new Promise<Code>((resolve) =>
      this.#gateway.write(ref, offset, data, true, resolve),
    )
    if (code !== Code.SUCCESS) throw new SheepError(code, `inode ${oidName(inodeOid(vid))}`)
  }

  /** Makes or replaces the inode as a whole: `data` from its first byte, zeros behind. */
  async create(vid: Vid, data: Buffer): Promise<void> {
    const ref = this.#gateway.ref(inodeOid(vid))
    const code = await new Promise<Code>((resolve) =>
      this.#gateway.create(ref, 0, data, undefined, resolve),
    )
    if (code !== Code.SUCCESS) throw new SheepError(code, `inode ${oidName(inodeOid(vid))}`)
  }

  /** The last step of a deletion: nameless, sizeless, without slots and references. */
  async blank(vid: Vid): Promise<void> {
    const header = await this.mustHeader(vid)
    await this.create(vid, encodeInodeHeader({ ...header, name: '', sizeBytes: 0 }))
  }
}
