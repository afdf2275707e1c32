/**
 * Generic netlink, bytes <-> values (linux/netlink.h, linux/genetlink.h; RFC 3549). Numbers are in the host's byte
 * order, which is little endian on every machine this runs on; the binding's loader looks.
 */

//  length u32 | type u16 | flags u16 | sequence u32 | port u32 | command u8 | version u8 | reserved u16 | attributes
const HEADER_BYTES = 16
const GENERIC_BYTES = 4
//  length u16 | type u16 | value, padded to four
const ATTRIBUTE_HEADER_BYTES = 4
const ERROR_BYTES = HEADER_BYTES + 4

const TYPE_ERROR = 2
const TYPE_MASK = 0x3fff
const NESTED = 0x8000
const FLAG_REQUEST = 1
const FLAG_ACK = 4
const VERSION = 1

const CONTROL_FAMILY = 0x10
const ControlCommand = { GETFAMILY: 3 } as const
const ControlAttribute = { FAMILY_ID: 1, FAMILY_NAME: 2, MCAST_GROUPS: 7 } as const
const GroupAttribute = { NAME: 1, ID: 2 } as const

export interface Attribute {
  readonly type: number
  readonly value: Buffer
}

/** One message of a family. */
export interface Message {
  readonly family: number
  readonly command: number
  readonly attributes: readonly Attribute[]
}

export interface Reply {
  /** Error number of the verdict, 0 for done; undefined where there is none. */
  readonly errno: number | undefined
  readonly messages: readonly Message[]
}

/** A family of this kernel. Numbers are given out as modules are loaded. */
export interface Family {
  readonly id: number
  /** Multicast groups by name. */
  readonly groups: ReadonlyMap<string, number>
}

export function u32(type: number, value: number): Attribute {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return { type, value: bytes }
}

/** `value` up to 2^53. */
export function u64(type: number, value: number): Attribute {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return { type, value: bytes }
}

export function text(type: number, value: string): Attribute {
  return { type, value: Buffer.from(`${value}\0`) }
}

export function nested(type: number, inner: readonly Attribute[]): Attribute {
  return { type: type | NESTED, value: Buffer.concat(inner.map(encodeAttribute)) }
}

/** A request that wants an acknowledgement. */
export function encodeRequest({ family, command, attributes }: Message): Buffer {
  const body = Buffer.concat(attributes.map(encodeAttribute))
  const head = Buffer.alloc(HEADER_BYTES + GENERIC_BYTES)
  head.writeUInt32LE(head.length + body.length, 0)
  head.writeUInt16LE(family, 4)
  head.writeUInt16LE(FLAG_REQUEST | FLAG_ACK, 6)
  head.writeUInt8(command, HEADER_BYTES)
  head.writeUInt8(VERSION, HEADER_BYTES + 1)
  return Buffer.concat([head, body])
}

/** Everything up to the verdict, or up to what is cut short. */
export function decodeReply(bytes: Buffer): Reply {
  const messages: Message[] = []
  let at = 0
  while (at + HEADER_BYTES <= bytes.length) {
    const length = bytes.readUInt32LE(at)
    if (length < HEADER_BYTES || at + length > bytes.length) break
    const family = bytes.readUInt16LE(at + 4)
    if (family === TYPE_ERROR) {
      if (length < ERROR_BYTES) break
      return { errno: Math.abs(bytes.readInt32LE(at + HEADER_BYTES)), messages }
    }
    if (length >= HEADER_BYTES + GENERIC_BYTES) {
      const command = bytes.readUInt8(at + HEADER_BYTES)
      const body = bytes.subarray(at + HEADER_BYTES + GENERIC_BYTES, at + length)
      messages.push({ family, command, attributes: decodeAttributes(body) })
    }
    at += padded(length)
  }
  return { errno: undefined, messages }
}

/** Attributes in a row; those of a nested one when `bytes` is its value. */
export function decodeAttributes(bytes: Buffer): Attribute[] {
  const attributes: Attribute[] = []
  let at = 0
  while (at + ATTRIBUTE_HEADER_BYTES <= bytes.length) {
    const length = bytes.readUInt16LE(at)
    if (length < ATTRIBUTE_HEADER_BYTES || at + length > bytes.length) break
    const value = bytes.subarray(at + ATTRIBUTE_HEADER_BYTES, at + length)
    attributes.push({ type: bytes.readUInt16LE(at + 2) & TYPE_MASK, value })
    at += padded(length)
  }
  return attributes
}

export function find(attributes: readonly Attribute[], type: number): Buffer | undefined {
  return attributes.find((one) => one.type === type)?.value
}

/** The number in an attribute of 1, 2, 4 bytes; undefined when it is absent or of another size. */
export function findNumber(attributes: readonly Attribute[], type: number): number | undefined {
  const value = find(attributes, type)
  if (value === undefined || ![1, 2, 4].includes(value.length)) return undefined
  return value.readUIntLE(0, value.length)
}

/** Asks the controller for a family by name. */
export function encodeFamilyQuestion(name: string): Buffer {
  return encodeRequest({
    family: CONTROL_FAMILY,
    command: ControlCommand.GETFAMILY,
    attributes: [text(ControlAttribute.FAMILY_NAME, name)],
  })
}

export function decodeFamily(messages: readonly Message[]): Family | undefined {
  const attributes = messages[0]?.attributes ?? []
  const id = findNumber(attributes, ControlAttribute.FAMILY_ID)
  if (id === undefined) return undefined
  const groups = new Map<string, number>()
  const list = find(attributes, ControlAttribute.MCAST_GROUPS)
  for (const { value } of list === undefined ? [] : decodeAttributes(list)) {
    const group = decodeAttributes(value)
    const name = find(group, GroupAttribute.NAME)
    const number = findNumber(group, GroupAttribute.ID)
    if (name !== undefined && number !== undefined) {
      groups.set(name.toString('latin1').replace(/\0.*$/s, ''), number)
    }
  }
  return { id, groups }
}

function encodeAttribute({ type, value }: Attribute): Buffer {
  const length = ATTRIBUTE_HEADER_BYTES + value.length
  const bytes = Buffer.alloc(padded(length))
  bytes.writeUInt16LE(length, 0)
  bytes.writeUInt16LE(type, 2)
  value.copy(bytes, ATTRIBUTE_HEADER_BYTES)
  return bytes
}

function padded(length: number): number {
  return Math.ceil(length / 4) * 4
}
