/** What clients say to a sheep, short enough for tests; every call gives the reply's frame. */
import { cString } from '../../../src/base/bytes.js'
import { Code } from '../../../src/base/codes.js'
import {
  decodeInodeHeader,
  INODE_HEADER_BYTES,
  type InodeHeader,
  NAME_BYTES,
  slotRange,
  TAG_OFFSET,
} from '../../../src/model/inode.js'
import { asVid, inodeOid, type Oid, type Vid } from '../../../src/model/oid.js'
import type { SheepClient } from '../../../src/peer/client.js'
import type { Frame } from '../../../src/wire/sheepdog/frame.js'
import { Flag, Op } from '../../../src/wire/sheepdog/opcodes.js'
import { decodeVdiReply } from '../../../src/wire/sheepdog/replies.js'
import {
  type ObjectFields,
  objectRequest,
  plainRequest,
  type VdiFields,
  vdiRequest,
} from '../../../src/wire/sheepdog/requests.js'

export function ask(client: SheepClient, opcode: number, dataLength = 0): Promise<Frame> {
  return client.call(plainRequest({ opcode, dataLength }))
}

export function readObject(
  client: SheepClient,
  oid: Oid,
  offset: number,
  length: number,
): Promise<Frame> {
  return client.call(objectRequest({ opcode: Op.READ_OBJ, oid, offset, dataLength: length }))
}

export function writeObject(
  client: SheepClient,
  oid: Oid,
  offset: number,
  data: Buffer,
): Promise<Frame> {
  return object(client, Op.WRITE_OBJ, { oid, offset }, data)
}

export function createObject(
  client: SheepClient,
  oid: Oid,
  offset: number,
  data: Buffer,
  cowOid?: Oid,
): Promise<Frame> {
  const fields = cowOid === undefined ? { oid, offset } : { oid, offset, cowOid }
  return object(client, Op.CREATE_AND_WRITE_OBJ, fields, data, cowOid === undefined ? 0 : Flag.COW)
}

export function object(
  client: SheepClient,
  opcode: number,
  fields: ObjectFields & { readonly epoch?: number },
  data: Buffer = Buffer.alloc(0),
  flags = 0,
): Promise<Frame> {
  const dataLength = data.length
  const head = objectRequest({ opcode, flags: Flag.WRITE | flags, dataLength, ...fields })
  return client.call(head, data)
}

export function setSlot(client: SheepClient, vid: Vid, index: number, value: Vid): Promise<Frame> {
  const data = Buffer.alloc(4)
  data.writeUInt32LE(value)
  return writeObject(client, inodeOid(vid), slotRange(index, 1).offset, data)
}

/** A volume operation that names its volume; with `tag` the payload has both fields. */
export function vdi(
  client: SheepClient,
  opcode: number,
  name: string,
  { tag, ...fields }: VdiFields & { readonly tag?: string } = {},
): Promise<Frame> {
  const parts: Buffer[] = [cString(name, NAME_BYTES)]
  if (tag !== undefined) parts.push(cString(tag, NAME_BYTES))
  const body = Buffer.concat(parts)
  const head = vdiRequest({ opcode, flags: Flag.WRITE, dataLength: body.length, ...fields })
  return client.call(head, body)
}

/** As `vdi`, for operations that must succeed: the id in the answer. */
export async function vdiId(...request: Parameters<typeof vdi>): Promise<Vid> {
  const reply = await vdi(...request)
  if (reply.result !== Code.SUCCESS) throw new Error(`${request[2]}: result ${reply.result}`)
  return decodeVdiReply(reply).vid
}

export function newVdi(client: SheepClient, name: string, sizeBytes: number): Promise<Vid> {
  return vdiId(client, Op.NEW_VDI, name, { sizeBytes })
}

/** Turns the working volume into a snapshot, as clients do it; the result is the new working one. */
export async function snapshot(client: SheepClient, name: string, tag = ''): Promise<Vid> {
  const working = await vdiId(client, Op.GET_VDI_INFO, name)
  if (tag !== '') await writeObject(client, inodeOid(working), TAG_OFFSET, cString(tag, NAME_BYTES))
  return vdiId(client, Op.NEW_VDI, name, { base: working, snapId: 1 })
}

export function clone(client: SheepClient, base: Vid, name: string): Promise<Vid> {
  return vdiId(client, Op.NEW_VDI, name, { base })
}

export async function headerOf(client: SheepClient, vid: Vid): Promise<InodeHeader> {
  const reply = await readObject(client, inodeOid(vid), 0, INODE_HEADER_BYTES)
  if (reply.result !== Code.SUCCESS) throw new Error(`inode ${vid}: result ${reply.result}`)
  return decodeInodeHeader(reply.body)
}

export async function slotOf(client: SheepClient, vid: Vid, index: number): Promise<Vid> {
  const reply = await readObject(client, inodeOid(vid), slotRange(index, 1).offset, 4)
  return asVid(reply.body.readUInt32LE(0))
}
