/** What one says to the kernel's NBD client (linux/nbd-netlink.h), values <-> messages of the family `nbd`. */
import {
  type Attribute,
  decodeAttributes,
  encodeRequest,
  find,
  findNumber,
  type Message,
  nested,
  text,
  u32,
  u64,
} from './messages.js'

export const NBD_FAMILY = 'nbd'
export const NBD_EVENTS = 'nbd_mc_group'

const Command = { CONNECT: 1, DISCONNECT: 2, RECONFIGURE: 3, LINK_DEAD: 4, STATUS: 5 } as const

const Attr = {
  INDEX: 1,
  SIZE_BYTES: 2,
  BLOCK_SIZE_BYTES: 3,
  TIMEOUT: 4,
  SERVER_FLAGS: 5,
  SOCKETS: 7,
  DEAD_CONN_TIMEOUT: 8,
  DEVICE_LIST: 9,
  BACKEND_IDENTIFIER: 10,
} as const
const SOCKET_ITEM = 1
const SOCKET_FD = 1
const DEVICE_ITEM = 1
const DeviceAttr = { INDEX: 1, CONNECTED: 2 } as const

export interface ConnectRequest {
  /** Undefined: the kernel takes a free one. */
  readonly index: number | undefined
  readonly sizeBytes: number
  readonly blockBytes: number
  /** Transmission flags of the server. */
  readonly flags: number
  /** Descriptors of this process. */
  readonly sockets: readonly number[]
  /** After so long without an answer a request goes out again on another connection; 0: never. */
  readonly timeoutSeconds: number
  /** How long requests wait for a connection when all are dead; 0: they fail at once. */
  readonly deadSeconds: number
  /** Shown in sysfs; whoever reconfigures the device must know it. */
  readonly backend: string
}

export interface ReconfigureRequest {
  readonly index: number
  readonly backend: string
  /** Each takes the place of a dead one. */
  readonly sockets?: readonly number[]
  readonly sizeBytes?: number
}

export function encodeConnect(family: number, wanted: ConnectRequest): Buffer {
  const attributes = [
    ...(wanted.index === undefined ? [] : [u32(Attr.INDEX, wanted.index)]),
    u64(Attr.SIZE_BYTES, wanted.sizeBytes),
    u64(Attr.BLOCK_SIZE_BYTES, wanted.blockBytes),
    u64(Attr.SERVER_FLAGS, wanted.flags),
    ...(wanted.timeoutSeconds > 0 ? [u64(Attr.TIMEOUT, wanted.timeoutSeconds)] : []),
    ...(wanted.deadSeconds > 0 ? [u64(Attr.DEAD_CONN_TIMEOUT, wanted.deadSeconds)] : []),
    text(Attr.BACKEND_IDENTIFIER, wanted.backend),
    socketList(wanted.sockets),
  ]
  return encodeRequest({ family, command: Command.CONNECT, attributes })
}

export function encodeReconfigure(family: number, wanted: ReconfigureRequest): Buffer {
  const { sockets = [], sizeBytes } = wanted
  const attributes = [
    u32(Attr.INDEX, wanted.index),
    text(Attr.BACKEND_IDENTIFIER, wanted.backend),
    ...(sizeBytes === undefined ? [] : [u64(Attr.SIZE_BYTES, sizeBytes)]),
    ...(sockets.length === 0 ? [] : [socketList(sockets)]),
  ]
  return encodeRequest({ family, command: Command.RECONFIGURE, attributes })
}

export function encodeDisconnect(family: number, index: number): Buffer {
  const attributes = [u32(Attr.INDEX, index)]
  return encodeRequest({ family, command: Command.DISCONNECT, attributes })
}

/** Of one device, or of all. */
export function encodeStatus(family: number, index?: number): Buffer {
  const attributes = index === undefined ? [] : [u32(Attr.INDEX, index)]
  return encodeRequest({ family, command: Command.STATUS, attributes })
}

/** Which device the kernel took. */
export function decodeConnected(messages: readonly Message[]): number | undefined {
  const reply = messages.find(({ command }) => command === Command.CONNECT)
  return reply === undefined ? undefined : findNumber(reply.attributes, Attr.INDEX)
}

/** Device number -> whether it is attached. */
export function decodeStatus(messages: readonly Message[]): Map<number, boolean> {
  const devices = new Map<number, boolean>()
  for (const { command, attributes } of messages) {
    const list = find(attributes, Attr.DEVICE_LIST)
    if (command !== Command.STATUS || list === undefined) continue
    for (const { type, value } of decodeAttributes(list)) {
      const device = decodeAttributes(value)
      const index = findNumber(device, DeviceAttr.INDEX)
      if (type === DEVICE_ITEM && index !== undefined) {
        devices.set(index, findNumber(device, DeviceAttr.CONNECTED) === 1)
      }
    }
  }
  return devices
}

/** Devices that lost a connection, told by an event. */
export function decodeDeadLinks(messages: readonly Message[], family: number): number[] {
  return messages
    .filter((one) => one.family === family && one.command === Command.LINK_DEAD)
    .map(({ attributes }) => findNumber(attributes, Attr.INDEX))
    .filter((index) => index !== undefined)
}

function socketList(descriptors: readonly number[]): Attribute {
  const items = descriptors.map((fd) => nested(SOCKET_ITEM, [u32(SOCKET_FD, fd)]))
  return nested(Attr.SOCKETS, items)
}
