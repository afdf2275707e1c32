/**
 * Attributes of volumes: small named values that live in objects of their own (GET_VDI_ATTR; objects spec, section 8).
 *
 * The slot of an attribute follows from its name; where another one is in the way, the next slot is tried. What was
 * deleted leaves its slot occupied while there is another attribute behind it, which could not be found otherwise, and
 * is used again. Unlike sheepdog 1.0's, a set looks before it writes (defect O24: it overwrote whatever was there).
 */
import { Code, SheepError } from '../base/codes.js'
import type { Selector } from '../model/access.js'
import { fnv1a64, vidHash } from '../model/hash.js'
import type { InodeHeader } from '../model/inode.js'
import { asVid, attributeOid, type Oid } from '../model/oid.js'
import {
  ATTRIBUTE_HEAD_BYTES,
  AttributeFlag,
  attributeIdentity,
  decodeAttribute,
  isDeletedAttribute,
  isSameAttribute,
  setAttributeTime,
} from '../wire/sheepdog/attribute.js'
import { type Frame, MalformedFrame } from '../wire/sheepdog/frame.js'
import type { VdiReply } from '../wire/sheepdog/replies.js'
import type { Gateway } from './gateway.js'

/** Slots with other attributes in a row; more than can come about by chance. */
const SLOTS_TRIED_MAX = 1024
const SLOT_LIMIT = 2 ** 32

export interface AttributesOptions {
  readonly gateway: Gateway
  /** Rejects with NO_VDI or NO_TAG. */
  readonly find: (name: string, selector: Selector) => Promise<InodeHeader>
}

/** Where an attribute is, or could be put. */
interface Place {
  readonly slot: number
  readonly isThere: boolean
}

export class Attributes {
  readonly #gateway: Gateway
  readonly #find: AttributesOptions['find']

  constructor({ gateway, find }: AttributesOptions) {
    this.#gateway = gateway
    this.#find = find
  }

  /**
   * GET_VDI_ATTR, in a turn of its own. Rejects with a SheepError: NO_VDI, NO_TAG, NO_OBJ without such an attribute,
   * VDI_EXIST when it was to be new, FULL_VDI.
   */
  async perform(request: Frame): Promise<Partial<VdiReply>> {
    const record = Buffer.from(request.body)
    const { name, tag, snapId, key } = decoded(record)
    if (name === '' || key === '') throw new SheepError(Code.INVALID_PARMS)
    const header = await this.#find(name, selectorOf(tag, snapId))
    const place = await this.#search(record, name)
    const oidOf = (slot: number): Oid => attributeOid(asVid(vidHash(name)), slot)
    if (request.has(AttributeFlag.DELETE)) {
      if (!place.isThere) throw new SheepError(Code.NO_OBJ)
      await this.#delete(oidOf(place.slot), oidOf((place.slot + 1) % SLOT_LIMIT))
    } else if (request.has(AttributeFlag.CREATE)) {
      if (place.isThere && request.has(AttributeFlag.EXCLUSIVE))
        throw new SheepError(Code.VDI_EXIST)
      setAttributeTime(record, header.createTime)
      const ref = this.#gateway.ref(oidOf(place.slot))
      await must((done) => this.#gateway.create(ref, 0, record, undefined, done))
    } else if (!place.isThere) {
      throw new SheepError(Code.NO_OBJ)
    } else if (request.has(AttributeFlag.EXCLUSIVE)) {
      throw new SheepError(Code.VDI_EXIST)
    }
    return { vid: asVid(vidHash(name)), attributeId: place.slot, copies: header.copies }
  }

  /** The attribute's slot, else the first one it can have. */
  async #search(record: Buffer, name: string): Promise<Place> {
    const first = Number(fnv1a64(attributeIdentity(record)) & 0xffffffffn)
    let free: number | undefined
    for (let step = 0; step < SLOTS_TRIED_MAX; step++) {
      const slot = (first + step) % SLOT_LIMIT
      const head = await this.#head(attributeOid(asVid(vidHash(name)), slot))
      if (head === undefined) return { slot: free ?? slot, isThere: false }
      if (isDeletedAttribute(head)) free ??= slot
      else if (isSameAttribute(head, record)) return { slot, isThere: true }
    }
    if (free === undefined) throw new SheepError(Code.FULL_VDI)
    return { slot: free, isThere: false }
  }

  async #head(oid: Oid): Promise<Buffer | undefined> {
    const head = Buffer.alloc(ATTRIBUTE_HEAD_BYTES)
    const ref = this.#gateway.ref(oid)
    const code = await new Promise<Code>((resolve) => this.#gateway.read(ref, 0, head, resolve))
    if (code === Code.NO_OBJ) return undefined
    if (code !== Code.SUCCESS) throw new SheepError(code)
    return head
  }

  async #delete(oid: Oid, next: Oid): Promise<void> {
    const isLast = (await this.#head(next)) === undefined
    if (isLast) await must((done) => this.#gateway.remove(oid, done))
    else {
      const ref = this.#gateway.ref(oid)
      await must((done) => this.#gateway.write(ref, 0, Buffer.alloc(1), true, done))
    }
  }
}

function decoded(record: Buffer): ReturnType<typeof decodeAttribute> {
  try {
    return decodeAttribute(record)
  } catch (error) {
    if (error instanceof MalformedFrame) throw new SheepError(Code.INVALID_PARMS, error.message)
    throw error
  }
}

function selectorOf(tag: string, snapId: number): Selector {
  if (tag !== '') return { kind: 'tag', tag }
  return snapId === 0 ? { kind: 'working' } : { kind: 'id', snapId }
}

async function must(start: (done: (code: Code) => void) => void): Promise<void> {
  const code = await new Promise<Code>(start)
  if (code !== Code.SUCCESS) throw new SheepError(code)
}
