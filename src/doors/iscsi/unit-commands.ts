/** Commands about the logical unit itself (SPC-4, 6; SBC-3, 5). */
import { lba64, writeLba64 } from '../../wire/scsi/cdb.js'
import { Opcode, ServiceAction } from '../../wire/scsi/constants.js'
import { encodeSense, GOOD, INVALID_FIELD } from '../../wire/scsi/sense.js'
import { type Command, end, type Issue, type Plan, reply } from './plan.js'

const DESCRIPTOR_FORMAT = 0x01

const TEST_UNIT_READY: Command = {
  ...{ name: 'TEST UNIT READY', opcode: Opcode.TEST_UNIT_READY, access: 'free' },
  usage: [0, 0, 0, 0, 0, 0],
  plan: () => end(GOOD),
}

const REQUEST_SENSE: Command = {
  ...{ name: 'REQUEST SENSE', opcode: Opcode.REQUEST_SENSE, access: 'free' },
  usage: [0x03, 0, 0, 0, 0xff, 0],
  plan: ({ unit, nexus, cdb }) => {
    if ((cdb[1]! & DESCRIPTOR_FORMAT) !== 0) return end(INVALID_FIELD)
    return reply(encodeSense(unit.attention(nexus)), cdb[4]!)
  },
}

const READ_CAPACITY_10: Command = {
  ...{ name: 'READ CAPACITY(10)', opcode: Opcode.READ_CAPACITY_10, access: 'free' },
  usage: [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  plan: ({ unit, cdb }) => {
    if (cdb.readUInt32BE(2) !== 0 || (cdb[8]! & 1) !== 0) return end(INVALID_FIELD)
    const data = Buffer.alloc(8)
    data.writeUInt32BE(Math.min(unit.blocks - 1, 0xffffffff), 0)
    data.writeUInt32BE(unit.blockBytes, 4)
    return reply(data, data.length)
  },
}

const READ_CAPACITY_16: Command = {
  ...{ name: 'READ CAPACITY(16)', opcode: Opcode.SERVICE_ACTION_IN, access: 'free' },
  action: ServiceAction.READ_CAPACITY_16,
  usage: [0x9e, 0x10, ...new Array<number>(8).fill(0), 0xff, 0xff, 0xff, 0xff, 0, 0],
  plan: ({ unit, cdb }) => {
    if (lba64(cdb, 2) !== 0 || (cdb[14]! & 1) !== 0) return end(INVALID_FIELD)
    const data = Buffer.alloc(32)
    writeLba64(data, 0, unit.blocks - 1)
    data.writeUInt32BE(unit.blockBytes, 8)
    // Blocks of a physical block of 4096, as a power of two.
    data[13] = unit.blockBytes === 512 ? 3 : 0
    // Thin, and what is unmapped reads as zeros.
    data[14] = 0xc0
    return reply(data, cdb.readUInt32BE(10))
  },
}

const START_STOP_UNIT: Command = {
  ...{ name: 'START STOP UNIT', opcode: Opcode.START_STOP_UNIT, access: 'free' },
  usage: [0x1b, 0x01, 0, 0, 0xf7, 0],
  plan: ({ unit, cdb }): Plan => {
    const [condition, isEject, isStart] = [cdb[4]! >> 4, (cdb[4]! & 2) !== 0, (cdb[4]! & 1) !== 0]
    if (condition !== 0 || isEject) return end(INVALID_FIELD)
    if (isStart) return end(GOOD)
    // There is nothing to spin down; what was written is to be safe, as on a disk that stops.
    return { kind: 'run', run: (ended) => unit.flush(ended) }
  },
}

const SEND_DIAGNOSTIC: Command = {
  ...{ name: 'SEND DIAGNOSTIC', opcode: Opcode.SEND_DIAGNOSTIC, access: 'free' },
  usage: [0x1d, 0x04, 0, 0, 0, 0],
  plan: ({ unit, cdb }): Plan => {
    const isSelfTest = (cdb[1]! & 0x04) !== 0
    if ((cdb[1]! & 0xe3) !== 0 || cdb.readUInt16BE(3) !== 0) return end(INVALID_FIELD)
    return isSelfTest ? { kind: 'run', run: (ended) => unit.flush(ended) } : end(GOOD)
  },
}

const REPORT_LUNS: Command = {
  ...{ name: 'REPORT LUNS', opcode: Opcode.REPORT_LUNS, access: 'free' },
  usage: [0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
  plan: ({ cdb, luns }) => reportLuns(cdb, luns),
}

/** Also asked of LUNs that are not there. */
export function reportLuns(cdb: Buffer, luns: readonly number[]): Plan {
  const which = cdb[2]!
  const room = cdb.readUInt32BE(6)
  if (which > 2 || room < 16) return end(INVALID_FIELD)
  // Well-known units: there are none.
  const listed = which === 1 ? [] : luns
  const data = Buffer.alloc(8 + 8 * listed.length)
  data.writeUInt32BE(8 * listed.length, 0)
  listed.forEach((lun, i) => {
    data[8 + 8 * i + 1] = lun
  })
  return reply(data, room)
}

const REPORT_TARGET_PORT_GROUPS: Command = {
  ...{ name: 'REPORT TARGET PORT GROUPS', opcode: Opcode.MAINTENANCE_IN, access: 'free' },
  action: ServiceAction.REPORT_TARGET_PORT_GROUPS,
  usage: [0xa3, 0x0a, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
  plan: ({ unit, group, cdb }: Issue) => {
    if (cdb[1]! >> 5 !== 0) return end(INVALID_FIELD)
    const own = unit.options.group
    const others = [...unit.members].map((member) => member.group).filter((one) => one !== own)
    const groups = [...new Set([own, group, ...others])].map((one) => portGroup(one, one === own))
    const length = Buffer.alloc(4)
    length.writeUInt32BE(groups.length * GROUP_BYTES)
    return reply(Buffer.concat([length, ...groups]), cdb.readUInt32BE(6))
  },
}

const GROUP_BYTES = 12

/** A group of one port: that of the node which has the volume, or one whose node passes on what it hears. */
function portGroup(group: number, hasVolume: boolean): Buffer {
  const data = Buffer.alloc(GROUP_BYTES)
  // Preferred, active and optimised; or active and not optimised. Those two are what there is.
  data[0] = hasVolume ? 0x80 : 0x01
  data[1] = 0x03
  data.writeUInt16BE(group, 2)
  data[7] = 1
  data.writeUInt16BE(group, 10)
  return data
}

export const UNIT_COMMANDS: readonly Command[] = [
  TEST_UNIT_READY,
  REQUEST_SENSE,
  READ_CAPACITY_10,
  READ_CAPACITY_16,
  START_STOP_UNIT,
  SEND_DIAGNOSTIC,
  REPORT_LUNS,
  REPORT_TARGET_PORT_GROUPS,
]
