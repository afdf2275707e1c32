/**
 * ISCSI_PATH, number 0xd7, ours: an initiator has come to a node for a volume that another node serves. After SUCCESS the
 * connection carries what the initiator says and hears, and is none of the sheepdog protocol any more. The sender says
 * nothing more before the answer.
 *
 *   number of the target port group u16 | initiator's address, 0 to 45 characters      little endian
 *
 * No address: it came over a local socket of the sender. Sheepdog 1.0 answers INVALID_PARMS, a node without an iSCSI door
 * NO_SUPPORT.
 */
import { type Frame, MalformedFrame } from './frame.js'
import { Flag, Op } from './opcodes.js'
import { plainRequest } from './requests.js'

/** An IPv6 address that ends as an IPv4 one. */
const HOST_BYTES_MAX = 45
const GROUP_BYTES = 2

/** How an initiator came. */
export interface IscsiPath {
  /** Of the node it came to: 1 to 65535. */
  readonly group: number
  /** Its numeric address; undefined: a local socket. */
  readonly host: string | undefined
}

export function iscsiPathRequest({ group, host = '' }: IscsiPath): Buffer {
  const body = Buffer.alloc(GROUP_BYTES)
  body.writeUInt16LE(group)
  const bytes = Buffer.concat([body, Buffer.from(host, 'latin1')])
  const flags = Flag.WRITE
  const head = plainRequest({ opcode: Op.ISCSI_PATH, flags, dataLength: bytes.length })
  return Buffer.concat([head, bytes])
}

/** Throws MalformedFrame. */
export function decodeIscsiPath({ body }: Frame): IscsiPath {
  const isSized = body.length >= GROUP_BYTES && body.length <= GROUP_BYTES + HOST_BYTES_MAX
  const host = body.toString('latin1', GROUP_BYTES)
  if (!isSized || !/^[0-9a-fA-F:.]*$/.test(host)) throw new MalformedFrame('an odd ISCSI_PATH')
  const group = body.readUInt16LE(0)
  if (group === 0) throw new MalformedFrame('an ISCSI_PATH of no group')
  return { group, host: host === '' ? undefined : host }
}
