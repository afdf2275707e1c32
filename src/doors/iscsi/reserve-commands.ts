/** RESERVE(6), RELEASE(6) and persistent reservations, on the wire (SPC-2, 7; SPC-4, 6.13 to 6.14). */
import { Opcode } from '../../wire/scsi/constants.js'
import {
  BAD_LIST_LENGTH,
  CONFLICT,
  GOOD,
  INVALID_FIELD,
  INVALID_PARAMETER,
} from '../../wire/scsi/sense.js'
import type { End, LogicalUnit } from './logical-unit.js'
import { type Command, end, type Issue, type Plan, reply } from './plan.js'
import { isHolder, ProutAction, prout, type Registration } from './reservations.js'

const PARAMETER_BYTES = 24
const APTPL = 0x01
const ALL_TARGET_PORTS = 0x04
const SPECIFIED_INITIATORS = 0x08

const RESERVE_6: Command = {
  ...{ name: 'RESERVE(6)', opcode: Opcode.RESERVE_6, access: 'free' },
  usage: [0x16, 0, 0, 0, 0, 0],
  plan: ({ unit, nexus, cdb }) => {
    // Extents and third parties are of SCSI-2.
    if ((cdb[1]! & 0x1f) !== 0) return end(INVALID_FIELD)
    if (unit.reservations.registrations.length > 0) return end(CONFLICT)
    if (unit.reservedBy !== undefined && unit.reservedBy !== nexus) return end(CONFLICT)
    unit.reservedBy = nexus
    return end(GOOD)
  },
}

const RELEASE_6: Command = {
  ...{ name: 'RELEASE(6)', opcode: Opcode.RELEASE_6, access: 'free' },
  usage: [0x17, 0, 0, 0, 0, 0],
  plan: ({ unit, nexus, cdb }) => {
    if ((cdb[1]! & 0x1f) !== 0) return end(INVALID_FIELD)
    if (unit.reservations.registrations.length > 0) return end(CONFLICT)
    if (unit.reservedBy === nexus) unit.reservedBy = undefined
    return end(GOOD)
  },
}

function bytesOfKey(key: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(key)
  return bytes
}

/** Generation and length before the list. */
function withHead(unit: LogicalUnit, list: Buffer): Buffer {
  const head = Buffer.alloc(8)
  head.writeUInt32BE(unit.reservations.generation, 0)
  head.writeUInt32BE(list.length, 4)
  return Buffer.concat([head, list])
}

function prin(name: string, action: number, data: (unit: LogicalUnit) => Buffer): Command {
  return {
    ...{ name, action, opcode: Opcode.PERSISTENT_RESERVE_IN, access: 'free' },
    usage: [0x5e, action, 0, 0, 0, 0, 0, 0xff, 0xff, 0],
    plan: ({ unit, cdb }) => {
      if (unit.reservedBy !== undefined) return end(CONFLICT)
      return reply(data(unit), cdb.readUInt16BE(7))
    },
  }
}

function readReservation(unit: LogicalUnit): Buffer {
  const { held, registrations } = unit.reservations
  if (held === undefined) return withHead(unit, Buffer.alloc(0))
  const body = Buffer.alloc(16)
  // Of types all registrants hold, nobody's key is told.
  const isOfAll = held.type >= 7
  const key = isOfAll ? 0n : (registrations.find((one) => one.nexus === held.nexus)?.key ?? 0n)
  bytesOfKey(key).copy(body)
  body[13] = held.type
  return withHead(unit, body)
}

function capabilities(): Buffer {
  // Kept over power loss on demand; every type; a type mask that is valid.
  return Buffer.from([0, 8, 0x01, 0x80, 0xea, 0x01, 0, 0])
}

function fullStatus(unit: LogicalUnit): Buffer {
  const { reservations } = unit
  const entries = reservations.registrations.map((one) => fullEntry(unit, one))
  return withHead(unit, Buffer.concat(entries))
}

function fullEntry({ reservations }: LogicalUnit, { nexus, key }: Registration): Buffer {
  // An initiator's port and a target's (connection.ts).
  const [initiator = '', group = '1'] = nexus.split(',t,0x')
  const name = Buffer.from(`${initiator}\0`)
  const paddedName = Buffer.concat([name, Buffer.alloc((4 - (name.length % 4)) % 4)])
  const entry = Buffer.alloc(24 + 4 + paddedName.length)
  bytesOfKey(key).copy(entry)
  if (isHolder(reservations, nexus)) {
    entry[12] = 1
    entry[13] = reservations.held?.type ?? 0
  }
  entry.writeUInt16BE(Number.parseInt(group, 16), 18)
  entry.writeUInt32BE(4 + paddedName.length, 20)
  // TransportID of an iSCSI initiator's port.
  entry[24] = 0x45
  entry.writeUInt16BE(paddedName.length, 26)
  paddedName.copy(entry, 28)
  return entry
}

function proutCommand(name: string, action: number): Command {
  return {
    ...{ name, action, opcode: Opcode.PERSISTENT_RESERVE_OUT, access: 'free' },
    usage: [0x5f, action, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0],
    plan: (issue) => planProut(issue, action),
  }
}

function planProut({ unit, nexus, cdb }: Issue, action: number): Plan {
  const [scope, type] = [cdb[2]! >> 4, cdb[2]! & 15]
  const bytes = cdb.readUInt32BE(5)
  if (unit.reservedBy !== undefined) return end(CONFLICT)
  if (scope !== 0) return end(INVALID_FIELD)
  if (bytes !== PARAMETER_BYTES) return end(BAD_LIST_LENGTH)
  const run = (data: Buffer, ended: End): void => {
    if (data.length !== PARAMETER_BYTES) {
      ended(BAD_LIST_LENGTH)
      return
    }
    const flags = data[20]!
    if ((flags & (ALL_TARGET_PORTS | SPECIFIED_INITIATORS)) !== 0) {
      ended(INVALID_PARAMETER)
      return
    }
    const request = {
      ...{ action, nexus, type, aptpl: (flags & APTPL) !== 0 },
      key: data.readBigUInt64BE(0),
      newKey: data.readBigUInt64BE(8),
    }
    unit.reserve(nexus, () => prout(unit.reservations, request), ended)
  }
  return { kind: 'take', bytes: PARAMETER_BYTES, run }
}

export const RESERVE_COMMANDS: readonly Command[] = [
  RESERVE_6,
  RELEASE_6,
  prin('PERSISTENT RESERVE IN: READ KEYS', 0, (unit) => {
    const keys = unit.reservations.registrations.map(({ key }) => bytesOfKey(key))
    return withHead(unit, Buffer.concat(keys))
  }),
  prin('PERSISTENT RESERVE IN: READ RESERVATION', 1, readReservation),
  prin('PERSISTENT RESERVE IN: REPORT CAPABILITIES', 2, capabilities),
  prin('PERSISTENT RESERVE IN: READ FULL STATUS', 3, fullStatus),
  proutCommand('PERSISTENT RESERVE OUT: REGISTER', ProutAction.REGISTER),
  proutCommand('PERSISTENT RESERVE OUT: RESERVE', ProutAction.RESERVE),
  proutCommand('PERSISTENT RESERVE OUT: RELEASE', ProutAction.RELEASE),
  proutCommand('PERSISTENT RESERVE OUT: CLEAR', ProutAction.CLEAR),
  proutCommand('PERSISTENT RESERVE OUT: PREEMPT', ProutAction.PREEMPT),
  proutCommand('PERSISTENT RESERVE OUT: PREEMPT AND ABORT', ProutAction.PREEMPT_AND_ABORT),
  proutCommand('PERSISTENT RESERVE OUT: REGISTER AND IGNORE', ProutAction.REGISTER_AND_IGNORE),
]
