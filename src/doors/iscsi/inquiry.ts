/** INQUIRY and its vital product data (SPC-4, 6.6 and 7.8; SBC-3, 6.6). */
import { ISCSI_LIMITS } from '../../wire/iscsi/constants.js'
import { Opcode, SCSI_LIMITS } from '../../wire/scsi/constants.js'
import { INVALID_FIELD } from '../../wire/scsi/sense.js'
import type { LogicalUnit } from './logical-unit.js'
import { type Command, end, type Issue, reply } from './plan.js'

const VENDOR = 'SHEEPDOG'
const PRODUCT = 'VIRTUAL DISK'
const REVISION = '2.0'
const STANDARD_BYTES = 96
/** SAM-5, SPC-4, SBC-3, iSCSI. */
const VERSION_DESCRIPTORS = [0x00a0, 0x0460, 0x04c0, 0x0960]

export const INQUIRY: Command = {
  ...{ name: 'INQUIRY', opcode: Opcode.INQUIRY, access: 'free' },
  usage: [0x12, 0x01, 0xff, 0xff, 0xff, 0],
  plan: (issue) => {
    const { cdb } = issue
    const [flags, page] = [cdb[1]!, cdb[2]!]
    const room = cdb.readUInt16BE(3)
    if ((flags & 0xfe) !== 0) return end(INVALID_FIELD)
    if ((flags & 1) === 0) {
      return page === 0 ? reply(standardInquiry(0), room) : end(INVALID_FIELD)
    }
    const make = PAGES.get(page)
    if (make === undefined) return end(INVALID_FIELD)
    const body = make(issue)
    const head = Buffer.from([0, page, 0, 0])
    head.writeUInt16BE(body.length, 2)
    return reply(Buffer.concat([head, body]), room)
  },
}

/** `peripheral`: qualifier and type; 0x7f where there is no such unit. */
export function standardInquiry(peripheral: number): Buffer {
  const bytes = Buffer.alloc(STANDARD_BYTES)
  bytes[0] = peripheral
  bytes[2] = 0x06
  // HISUP; response data format 2.
  bytes[3] = 0x12
  bytes[4] = STANDARD_BYTES - 5
  // Implicit ALUA; several ports; commands are queued.
  bytes[5] = 0x10
  bytes[6] = 0x10
  bytes[7] = 0x02
  bytes.write(VENDOR.padEnd(8), 8, 'latin1')
  bytes.write(PRODUCT.padEnd(16), 16, 'latin1')
  bytes.write(REVISION.padEnd(4), 32, 'latin1')
  for (const [i, version] of VERSION_DESCRIPTORS.entries()) bytes.writeUInt16BE(version, 58 + 2 * i)
  return bytes
}

type Page = (issue: Issue) => Buffer

function serial(unit: LogicalUnit): string {
  return unit.options.naa.toString('hex')
}

function designator(codeSet: number, kind: number, value: Buffer): Buffer {
  // An association with the port is in bits 4 and 5 of the second byte; `kind` has it.
  return Buffer.concat([Buffer.from([codeSet, kind, 0, value.length]), value])
}

function identification({ unit, group, targetName }: Issue): Buffer {
  const iscsi = 0x50
  const port = Buffer.alloc(4)
  port.writeUInt16BE(group, 2)
  const name = Buffer.from(`${targetName},t,0x${port.toString('hex', 2)}\0`)
  const paddedName = Buffer.concat([name, Buffer.alloc((4 - (name.length % 4)) % 4)])
  return Buffer.concat([
    designator(1, 0x03, unit.options.naa),
    designator(2, 0x01, Buffer.from(`${VENDOR}${serial(unit)}`)),
    // Relative target port, target port group (each has one), and the port's name.
    designator(iscsi | 1, 0x94, port),
    designator(iscsi | 1, 0x95, port),
    designator(iscsi | 3, 0x98, paddedName),
  ])
}

function blockLimits({ unit }: Issue): Buffer {
  const { blockBytes, volume } = unit
  const bytes = Buffer.alloc(60)
  const objectBlocks = Math.max(1, Math.floor(volume.objectBytes / blockBytes))
  bytes[1] = SCSI_LIMITS.compareBlocksMax
  bytes.writeUInt16BE(4096 / blockBytes, 2)
  bytes.writeUInt32BE(ISCSI_LIMITS.transferBytesMax / blockBytes, 4)
  bytes.writeUInt32BE(ISCSI_LIMITS.burstBytesMax / blockBytes, 8)
  bytes.writeUInt32BE(0xffffffff, 16)
  bytes.writeUInt32BE(SCSI_LIMITS.unmapDescriptorsMax, 20)
  bytes.writeUInt32BE(objectBlocks, 24)
  // Alignment 0 is valid: objects begin at multiples of their size.
  bytes.writeUInt32BE(0x80000000, 28)
  bytes.writeBigUInt64BE(BigInt(SCSI_LIMITS.writeSameBytesMax / blockBytes), 32)
  return bytes
}

const PAGES: ReadonlyMap<number, Page> = new Map<number, Page>([
  [0x00, () => Buffer.from([...PAGES.keys()].sort((a, b) => a - b))],
  [0x80, ({ unit }) => Buffer.from(serial(unit))],
  [0x83, identification],
  [
    0x86,
    () => {
      const bytes = Buffer.alloc(60)
      // SIMPLE, ORDERED and HEAD OF QUEUE are known; there is a volatile cache.
      bytes[1] = 0x07
      bytes[2] = 0x01
      return bytes
    },
  ],
  [0xb0, blockLimits],
  [
    0xb1,
    () => {
      const bytes = Buffer.alloc(60)
      // Non-rotating: seeks cost nothing an initiator could save.
      bytes.writeUInt16BE(1, 0)
      return bytes
    },
  ],
  // UNMAP, both forms of WRITE SAME, unmapped blocks read as zeros; thin.
  [0xb2, () => Buffer.from([0, 0xe4, 0x02, 0])],
])
