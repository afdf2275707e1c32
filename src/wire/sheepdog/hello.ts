/**
 * HELLO, number 0xa7, ours: how a node introduces itself to another before its first request. Sheepdog 1.0
 * answers INVALID_PARMS to the number.
 *
 *   address 16 B | port u16 | 0 6 B | incarnation 8 B | serial u32 | 0 4 B      40 bytes, little endian
 */
import { addressBytes, addressText, type NodeKey, nodeKey } from '../../model/node.js'
import { MalformedFrame } from './frame.js'

export const HELLO_BYTES = 40
export const INCARNATION_BYTES = 8
const PORT_AT = 16
const INCARNATION_AT = 24
const SERIAL_AT = 32

export interface Hello {
  readonly node: NodeKey
  /** Chosen at random by each start of the node's process; as hex. */
  readonly incarnation: string
  /** Of two connections of one process the newer has the larger one (serial comparison, u32). */
  readonly serial: number
}

export function encodeHello(hello: {
  readonly host: string
  readonly port: number
  readonly incarnation: Buffer
  readonly serial: number
}): Buffer {
  const bytes = Buffer.alloc(HELLO_BYTES)
  addressBytes(hello.host).copy(bytes)
  bytes.writeUInt16LE(hello.port, PORT_AT)
  hello.incarnation.copy(bytes, INCARNATION_AT, 0, INCARNATION_BYTES)
  bytes.writeUInt32LE(hello.serial >>> 0, SERIAL_AT)
  return bytes
}

/** Throws MalformedFrame. */
export function decodeHello(bytes: Buffer): Hello {
  if (bytes.length !== HELLO_BYTES) throw new MalformedFrame(`a HELLO of ${bytes.length} bytes`)
  return {
    node: nodeKey({
      host: addressText(bytes.subarray(0, PORT_AT)),
      port: bytes.readUInt16LE(PORT_AT),
    }),
    incarnation: bytes.toString('hex', INCARNATION_AT, SERIAL_AT),
    serial: bytes.readUInt32LE(SERIAL_AT),
  }
}
