/** Attributes of VDIs (GET_VDI_ATTR), and the extended attributes that carry them and what the inode says. */
import { Code, codeOf } from '../base/codes.js'
import { vidHash } from '../model/hash.js'
import { type InodeHeader, sdTimeSeconds } from '../model/inode.js'
import { ATTRIBUTE_BYTES, asVid, attributeOid } from '../model/oid.js'
import type { RemoteAccess } from '../remote/remote-access.js'
import { Errno } from '../wire/fuse/constants.js'
import {
  ATTRIBUTE_VALUE_BYTES_MAX,
  AttributeFlag,
  decodeAttribute,
  encodeAttribute,
} from '../wire/sheepdog/attribute.js'
import { Flag, Op } from '../wire/sheepdog/opcodes.js'
import { decodeVdiReply } from '../wire/sheepdog/replies.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import { FsError } from './errors.js'
import type { Xattrs } from './node.js'

const PREFIX = 'user.sheepdog.'
const ATTRIBUTE_PREFIX = 'user.sheepdog.attribute.'
const KEY_BYTES_MAX = 255

/** Attributes of the working VDI (snapId 0) or of a snapshot. */
export class VdiAttributes {
  readonly #access: RemoteAccess
  readonly #name: string
  readonly #snapId: number
  /** Keys that were used through this mount: the cluster keeps no list of them. */
  readonly #seen: Set<string>

  constructor(access: RemoteAccess, name: string, snapId: number, seen: Set<string>) {
    this.#access = access
    this.#name = name
    this.#snapId = snapId
    this.#seen = seen
  }

  async #perform(key: string, value: Buffer, flags: number): Promise<number | undefined> {
    if (key === '' || Buffer.byteLength(key) > KEY_BYTES_MAX) throw new FsError(Errno.ENAMETOOLONG)
    const record = encodeAttribute({
      ...{ name: this.#name, tag: '', snapId: this.#snapId, key, value },
    })
    const head = plainRequest({
      ...{ opcode: Op.GET_VDI_ATTR, flags: Flag.WRITE | flags, dataLength: record.length },
    })
    try {
      return decodeVdiReply(await this.#access.call(head, record)).attributeId
    } catch (error) {
      if (codeOf(error) === Code.NO_OBJ) return undefined
      throw error
    }
  }

  async get(key: string): Promise<Buffer | undefined> {
    const slot = await this.#perform(key, Buffer.alloc(0), 0)
    if (slot === undefined) return undefined
    this.#seen.add(key)
    const oid = attributeOid(asVid(vidHash(this.#name)), slot)
    return decodeAttribute(await this.#access.readBytes(oid, 0, ATTRIBUTE_BYTES)).value
  }

  async set(key: string, value: Buffer, how: 'any' | 'create' | 'replace' = 'any'): Promise<void> {
    if (value.length > ATTRIBUTE_VALUE_BYTES_MAX) throw new FsError(Errno.EFBIG)
    if (how === 'replace' && (await this.get(key)) === undefined) throw new FsError(Errno.ENODATA)
    const exclusive = how === 'create' ? AttributeFlag.EXCLUSIVE : 0
    await this.#perform(key, value, AttributeFlag.CREATE | exclusive)
    this.#seen.add(key)
  }

  /** False when there was none. */
  async remove(key: string): Promise<boolean> {
    const was = await this.#perform(key, Buffer.alloc(0), AttributeFlag.DELETE)
    this.#seen.delete(key)
    return was !== undefined
  }

  /** Those that were used through this mount and are there still. */
  async keys(): Promise<string[]> {
    const found: string[] = []
    for (const key of [...this.#seen].sort()) {
      if ((await this.#perform(key, Buffer.alloc(0), 0)) !== undefined) found.push(key)
    }
    return found
  }
}

/** `user.sheepdog.*` of a disk: what the inode says cannot be set; `user.sheepdog.attribute.KEY` are the VDI's attributes. */
export function diskXattrs(
  header: () => Promise<InodeHeader>,
  attributes: VdiAttributes,
  readOnly: boolean,
): Xattrs {
  const keyOf = (name: string): string | undefined =>
    name.startsWith(ATTRIBUTE_PREFIX) ? name.slice(ATTRIBUTE_PREFIX.length) : undefined
  const refuse = (name: string): never => {
    throw new FsError(name.startsWith('user.') ? Errno.EPERM : Errno.EOPNOTSUPP)
  }
  return {
    list: async () => {
      const own = Object.keys(describeHeader(await header())).map((name) => PREFIX + name)
      return [...own, ...(await attributes.keys()).map((key) => ATTRIBUTE_PREFIX + key)]
    },
    get: async (name) => {
      const key = keyOf(name)
      if (key !== undefined) return attributes.get(key)
      if (!name.startsWith(PREFIX)) return undefined
      const value = describeHeader(await header())[name.slice(PREFIX.length)]
      return value === undefined ? undefined : Buffer.from(value)
    },
    set: async (name, value, how) => {
      const key = keyOf(name)
      if (key === undefined || readOnly) return refuse(name)
      await attributes.set(key, value, how)
    },
    remove: async (name) => {
      const key = keyOf(name)
      if (key === undefined || readOnly) return refuse(name)
      if (!(await attributes.remove(key))) throw new FsError(Errno.ENODATA)
    },
  }
}

/** What the inode says, as text. */
export function describeHeader(header: InodeHeader): Record<string, string> {
  const time = (seconds: number): string => new Date(seconds * 1000).toISOString()
  return {
    id: header.vid.toString(16),
    name: header.name,
    size: `${header.sizeBytes}`,
    copies: copiesText(header),
    object_size: `${2 ** header.blockSizeShift}`,
    snapshot_id: `${header.snapId}`,
    created: time(sdTimeSeconds(header.createTime)),
    ...(header.tag !== '' && { tag: header.tag }),
    ...(header.snapCtime !== 0n && { taken: time(sdTimeSeconds(header.snapCtime)) }),
    ...(header.parent !== 0 && { parent: header.parent.toString(16) }),
  }
}

/** `3`, or `4:2`. */
export function copiesText({ copies, policy }: InodeHeader): string {
  return policy === 0 ? `${copies}` : `${(policy >> 4) * 2}:${policy & 15}`
}
