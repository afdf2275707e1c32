/** The table of all commands: finds the one a CDB is, judges it, and tells what there is (SPC-4, 6.35). */
import { Asc, Opcode, SenseKey, ServiceAction } from '../../wire/scsi/constants.js'
import {
  CONFLICT,
  check,
  INVALID_FIELD,
  INVALID_OPCODE,
  NO_SUCH_UNIT,
  WRITE_PROTECTED,
} from '../../wire/scsi/sense.js'
import { BLOCK_COMMANDS } from './block-commands.js'
import { INQUIRY, standardInquiry } from './inquiry.js'
import type { LogicalUnit } from './logical-unit.js'
import { MODE_COMMANDS } from './mode.js'
import { type Command, end, type Issue, type Plan, reply } from './plan.js'
import { PROVISIONING_COMMANDS } from './provisioning.js'
import { permits } from './reservations.js'
import { RESERVE_COMMANDS } from './reserve-commands.js'
import { reportLuns, UNIT_COMMANDS } from './unit-commands.js'

const NO_UNIT_PERIPHERAL = 0x7f
/** Those an initiator may ask whatever it has to be told first (SAM-5, 5.14). */
const BEFORE_ATTENTION: readonly number[] = [
  Opcode.INQUIRY,
  Opcode.REPORT_LUNS,
  Opcode.REQUEST_SENSE,
]
/** Those RESERVE(6) of somebody else leaves alone (SPC-2, 5.5.1). */
const DESPITE_RESERVE_6: readonly number[] = [
  ...[Opcode.INQUIRY, Opcode.REPORT_LUNS, Opcode.REQUEST_SENSE, Opcode.RELEASE_6],
]

const REPORT_SUPPORTED_OPCODES: Command = {
  ...{ name: 'REPORT SUPPORTED OPERATION CODES', opcode: Opcode.MAINTENANCE_IN, access: 'free' },
  action: ServiceAction.REPORT_SUPPORTED_OPCODES,
  usage: [0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
  plan: ({ cdb }) => {
    const room = cdb.readUInt32BE(6)
    const hasTimeouts = (cdb[2]! & 0x80) !== 0
    const how = cdb[2]! & 7
    if (how === 0) return reply(allCommands(hasTimeouts), room)
    const [opcode, action] = [cdb[3]!, cdb.readUInt16BE(4)]
    const known = OF_OPCODE[opcode] ?? []
    const isByAction = known.some((one) => one.action !== undefined)
    if (how > 3 || (known.length > 0 && how < 3 && isByAction !== (how === 2))) {
      return end(INVALID_FIELD)
    }
    const found = known.find((one) => (one.action ?? (how === 3 ? 0 : action)) === action)
    return reply(oneCommand(how === 1 ? known[0] : found, hasTimeouts), room)
  },
}

const REPORT_TASK_MANAGEMENT: Command = {
  ...{ name: 'REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS', opcode: Opcode.MAINTENANCE_IN },
  ...{ access: 'free', action: ServiceAction.REPORT_TASK_MANAGEMENT },
  usage: [0xa3, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
  plan: ({ cdb }) => {
    const room = cdb.readUInt32BE(6)
    if (room < 4) return end(INVALID_FIELD)
    // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET RESET.
    return reply(Buffer.from([0xda, 0, 0, 0]), room)
  },
}

const COMMANDS: readonly Command[] = [
  INQUIRY,
  ...UNIT_COMMANDS,
  ...BLOCK_COMMANDS,
  ...PROVISIONING_COMMANDS,
  ...MODE_COMMANDS,
  ...RESERVE_COMMANDS,
  REPORT_SUPPORTED_OPCODES,
  REPORT_TASK_MANAGEMENT,
].sort((one, other) => one.opcode - other.opcode || (one.action ?? 0) - (other.action ?? 0))

const OF_OPCODE: readonly (readonly Command[] | undefined)[] = (() => {
  const table: Command[][] = []
  for (const command of COMMANDS)
    table[command.opcode] = [...(table[command.opcode] ?? []), command]
  return table
})()

function actionOf(cdb: Buffer): number {
  return cdb[1]! & 0x1f
}

const TIMEOUTS = Buffer.from([0, 0x0a, ...new Array<number>(10).fill(0)])

function allCommands(hasTimeouts: boolean): Buffer {
  const entries = COMMANDS.map(({ opcode, action, usage }) => {
    const entry = Buffer.alloc(8)
    entry[0] = opcode
    entry.writeUInt16BE(action ?? 0, 2)
    entry[5] = (action === undefined ? 0 : 1) | (hasTimeouts ? 2 : 0)
    entry.writeUInt16BE(usage.length, 6)
    return hasTimeouts ? Buffer.concat([entry, TIMEOUTS]) : entry
  })
  const list = Buffer.concat(entries)
  const head = Buffer.alloc(4)
  head.writeUInt32BE(list.length)
  return Buffer.concat([head, list])
}

function oneCommand(command: Command | undefined, hasTimeouts: boolean): Buffer {
  if (command === undefined) return Buffer.from([0, 1, 0, 0])
  const head = Buffer.from([0, 3 | (hasTimeouts ? 0x80 : 0), 0, command.usage.length])
  const parts = [head, Buffer.from(command.usage)]
  return Buffer.concat(hasTimeouts ? [...parts, TIMEOUTS] : parts)
}

/** What a command comes to, everything that stands in its way considered. */
export function planOf(issue: Issue): Plan {
  const { unit, nexus, cdb } = issue
  const opcode = cdb[0]!
  const known = OF_OPCODE[opcode]
  if (!BEFORE_ATTENTION.includes(opcode)) {
    const sense = unit.attention(nexus)
    if (sense !== undefined) return end(check(sense.key, sense.code))
  }
  if (known === undefined) return end(INVALID_OPCODE)
  const isByAction = known[0]!.action !== undefined
  const command = isByAction ? known.find((one) => one.action === actionOf(cdb)) : known[0]
  if (command === undefined) return end(INVALID_FIELD)
  if (isKeptOff(unit, nexus, command)) return end(CONFLICT)
  if (command.changes === true && (unit.readOnly || unit.isProtected)) return end(WRITE_PROTECTED)
  return command.plan(issue)
}

function isKeptOff(unit: LogicalUnit, nexus: string, { opcode, access }: Command): boolean {
  const { reservedBy } = unit
  if (reservedBy !== undefined && reservedBy !== nexus) return !DESPITE_RESERVE_6.includes(opcode)
  return !permits(unit.reservations, nexus, access)
}

/** Of a LUN that is not there. */
export function planOfNobody(cdb: Buffer, luns: readonly number[]): Plan {
  const opcode = cdb[0]!
  if (opcode === Opcode.REPORT_LUNS) return reportLuns(cdb, luns)
  if (opcode === Opcode.INQUIRY && (cdb[1]! & 1) === 0) {
    return reply(standardInquiry(NO_UNIT_PERIPHERAL), cdb.readUInt16BE(3))
  }
  return end(NO_SUCH_UNIT)
}

export const ABORTED = check(SenseKey.ABORTED_COMMAND, Asc.NONE)
export const BAD_DATA = check(SenseKey.ABORTED_COMMAND, Asc.DATA_PHASE)
